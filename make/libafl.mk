# LibAFL and AFL++ over this crate.

# LibAFL is built once, for its tests and for our client of it.
LIBAFL := $(OUT)/libafl/target
CLIENT := $(LIBAFL)/debug/libafl-client
.PHONY: libafl libafl-ours libafl-docs libafl-client libafl-crashes aflpp
libafl: ## LibAFL's own tests pass with this crate as they do with the original
	libafl/check
libafl-ours: ## The same with this crate only
	libafl/check --ours
libafl-docs: ## The same with its documentation tests, which takes far longer
	libafl/check --docs
libafl-client: export CARGO_TARGET_DIR := $(LIBAFL)
libafl-client: export CARGO_INCREMENTAL := 0
libafl-client: export RUSTFLAGS := --cap-lints=warn
libafl-client:
	cargo build --manifest-path examples/libafl/Cargo.toml
libafl-crashes: libafl-client ## Fuzzers over LibAFL whose clients crash, resume and go on
	cargo tree --quiet --manifest-path examples/libafl/Cargo.toml -i shmem_providers@1.0.0-rc.1
	libafl/alone $(CLIENT)
aflpp: libafl-client ## Targets and tools of AFL++ over segments of this crate, and the other way round
	cargo build --example aflpp
	libafl/alone examples/aflpp/run $(OUT)/aflpp $(OUT)/debug/examples/aflpp $(CLIENT)
