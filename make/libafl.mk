# LibAFL and AFL++ with this crate.

# One build of LibAFL for its tests and for our client.
LIBAFL := $(OUT)/libafl/target
CLIENT := $(LIBAFL)/debug/libafl-client
.PHONY: libafl libafl-ours libafl-docs libafl-client libafl-crashes aflpp
libafl: ## Runs LibAFL's own tests with the original and with this crate, and compares the results
	libafl/check
libafl-ours: ## Runs LibAFL's own tests with this crate only
	libafl/check --ours
libafl-docs: ## Does the same as libafl, with LibAFL's documentation tests, which takes far longer
	libafl/check --docs
libafl-client: export CARGO_TARGET_DIR := $(LIBAFL)
libafl-client: export CARGO_INCREMENTAL := 0
libafl-client: export RUSTFLAGS := --cap-lints=warn
libafl-client:
	cargo build --manifest-path examples/libafl/Cargo.toml
libafl-crashes: libafl-client ## Runs LibAFL fuzzers whose clients crash, resume and continue
	cargo tree --quiet --manifest-path examples/libafl/Cargo.toml -i shmem_providers@1.0.0-rc.1
	libafl/alone $(CLIENT)
aflpp: libafl-client ## Runs targets and tools of AFL++ with segments of this crate, and the reverse
	cargo build --example aflpp
	libafl/alone examples/aflpp/run $(OUT)/aflpp $(OUT)/debug/examples/aflpp $(CLIENT)
