# The commands that check this project. `.ci/run` and `.github/workflows/ci.yml` call them; `make help`
# lists them. Those that need other toolchains, emulators, fuzzers or LibAFL are in `make/`.

SHELL := /bin/bash
HOST := x86_64-unknown-linux-gnu
OUT := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Packages outside of the workspace.
OUTSIDE := fuzz libafl examples/libafl benches/peers

.PHONY: help
help: ## Prints this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Runs all tests, and those of the other packages of the workspace
	cargo test
	cargo test -p shmem_providers_derive -p bench -p testkit

.PHONY: fmt clippy features doc deny
fmt: ## Checks the formatting
	cargo fmt --all --check
	for package in $(OUTSIDE); do cargo fmt --check --manifest-path $$package/Cargo.toml || exit; done
clippy: ## Lints everything in the workspace
	cargo clippy --workspace --all-targets -- -D warnings
features: ## Lints the library with every combination of features (default and full only name others)
	cargo hack clippy --feature-powerset --exclude-features default,full -- -D warnings
doc: ## Builds the documentation, without and with private items
	RUSTDOCFLAGS="-D warnings" cargo doc --features full --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --features full --no-deps --document-private-items
deny: ## Checks licences, duplicates and sources of the dependencies
	cargo deny check bans licenses sources
	@echo "SKIPPED: advisories on the dependencies, because their database has to be downloaded:" \
		"cargo deny check advisories"

# The documentation is built twice: as users build it, and with the settings of docs.rs. The tables make the
# unpacked package a workspace of its own, although it is inside of this one, with the derive macro as packaged.
.PHONY: package
PACKAGE := $(OUT)/package/unpacked
package: ## Documents and tests the package as it would be published
	rm -rf $(PACKAGE) $(OUT)/package/shmem_providers*.crate
	cargo package --no-verify --allow-dirty --target-dir $(OUT) -p shmem_providers_derive -p shmem_providers
	mkdir -p $(PACKAGE)/derive
	tar -xzf $(OUT)/package/shmem_providers-*.crate -C $(PACKAGE) --strip-components=1
	tar -xzf $(OUT)/package/shmem_providers_derive-*.crate -C $(PACKAGE)/derive --strip-components=1
	printf '\n[workspace]\n[patch.crates-io]\nshmem_providers_derive.path = "derive"\n' >>$(PACKAGE)/Cargo.toml
	cd $(PACKAGE) && RUSTDOCFLAGS="-D warnings" \
		cargo doc --features full --no-deps --target-dir $(OUT)/package/target
	cd $(PACKAGE) && RUSTC_BOOTSTRAP=1 RUSTDOCFLAGS="--cfg docsrs -D warnings" \
		cargo doc --features full --no-deps --target-dir $(OUT)/package/docs.rs
	cd $(PACKAGE) && cargo test --features full --lib --target-dir $(OUT)/package/target
	cd $(PACKAGE) && cargo test --features full --doc --target-dir $(OUT)/package/target

.PHONY: api cookbook msrv
api: ## Writes the public interface to tests/api.txt
	tests/api >$(OUT)/api.txt
	mv $(OUT)/api.txt tests/api.txt
cookbook: ## Copies the examples into docs/cookbook.md
	SHMEM_COOKBOOK=write cargo test --test cookbook the_page_quotes_the_examples
msrv: ## Checks the library against the oldest supported version of Rust
	tests/msrv

.PHONY: smoke frames share served bench-table bench-table-once
smoke: ## Builds the examples and runs every benchmark once
	cargo build --examples
	cargo bench --bench lifecycle -- --test
	cargo bench --bench service -- --test
frames: ## Runs the example that compares with pipes and sockets, and with killing a consumer
	cargo run --release --example frames
	cargo run --release --example frames -- --kill
share: ## Runs the example, with and without killing a process
	cargo run --release --example share
	cargo run --release --example share -- --kill
served: ## Runs the example of the service, in which a client and the host are killed
	cargo run --release --example served
BENCH_TABLE := cargo run --release --manifest-path benches/peers/Cargo.toml --
bench-table: ## Measures everything in docs/performance.md and updates the page
	@$(BENCH_TABLE) --csv=docs/performance.csv --into=docs/performance.md
	@python3 docs/performance.py docs/performance.csv docs/performance.svg docs/channels.svg
bench-table-once: ## Runs everything that bench-table measures once
	@$(BENCH_TABLE) --once

.PHONY: leftovers
leftovers: ## Lists the shared memory that exists on this machine
	@find /dev/shm -mindepth 1
	@find $${TMPDIR:-/tmp}/shmem-* -type f 2>/dev/null || true
	@awk 'NR > 1 { print "System V segment", $$2, "of", $$4, "bytes, created by process", $$5 }' \
		/proc/sysvipc/shm
	@find /proc/[0-9]*/fd -lname '/memfd:shmem*' -printf '%p -> %l\n' 2>/dev/null || true

include make/targets.mk
include make/emulated.mk
include make/fuzz.mk
include make/libafl.mk
