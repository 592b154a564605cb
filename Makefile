# Every command that this project is checked with. `.ci/run` calls them one after another.

SHELL := /bin/bash
HOST := x86_64-unknown-linux-gnu
OUT := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Compiled and linted here, never run.
TARGETS := x86_64-pc-windows-msvc aarch64-apple-darwin aarch64-apple-ios aarch64-linux-android \
	x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-unknown-openbsd x86_64-unknown-illumos \
	wasm32-unknown-unknown x86_64-unknown-linux-musl

# These are built by Debian's second toolchain (packages cargo-web, rust-web-src, rust-web-clippy),
# which comes with the sources of the standard library, so that no target has to be installed.
# RUSTC_BOOTSTRAP lets it build them.
CROSS := no-std i686 s390x target-%
$(CROSS): export PATH := /usr/bin:$(PATH)
$(CROSS): export RUSTC := /usr/bin/rustc
$(CROSS): export RUSTDOC := /usr/bin/rustdoc
$(CROSS): export RUSTC_BOOTSTRAP := 1
$(CROSS): export CARGO_TARGET_DIR := $(OUT)/cross
$(CROSS): export CARGO_PROFILE_DEV_DEBUG := 0

# What cargo-fuzz passes on, so that it is not needed.
COVERAGE := --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
	-Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_SECONDS := 20

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test test-default
test: ## All tests, with all features
	cargo test --features full
test-default: ## All tests, with the default features
	cargo test

.PHONY: fmt clippy features doc
fmt: ## Formatting
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path benches/table/Cargo.toml
clippy: ## Lints of everything
	cargo clippy --all-targets --features full -- -D warnings
	cargo clippy --all-targets -- -D warnings
features: ## Lints of the library with every combination of features
	cargo hack clippy --feature-powerset -- -D warnings
doc: ## Documentation, without and with what is private
	RUSTDOCFLAGS="-D warnings" cargo doc --features full --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --features full --no-deps --document-private-items

.PHONY: no-std
no-std: ## Library with nothing but core, and with core and alloc: whoever wants std fails
	for target in x86_64-unknown-none $(HOST); do \
		/usr/bin/cargo clippy -Zbuild-std=core --lib --target $$target \
			--no-default-features -- -D warnings && \
		/usr/bin/cargo clippy -Zbuild-std=core,alloc --lib --target $$target \
			--no-default-features --features alloc,serde,zerocopy,log -- -D warnings || exit; \
	done

.PHONY: targets
targets: $(TARGETS:%=target-%) ## Lints for the other systems (one of them: make target-TRIPLE)
	@echo "SKIPPED: running on these systems, because there are none here: $(TARGETS)"
target-%:
	/usr/bin/cargo clippy -Zbuild-std=std --lib --target $* --features full -- -D warnings

.PHONY: i686 s390x
i686: ## Lints and all tests on 32 bits, which this kernel runs as well
	/usr/bin/cargo clippy -Zbuild-std --lib --target i686-unknown-linux-gnu --features full \
		-- -D warnings
	CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER=i686-linux-gnu-gcc \
		/usr/bin/cargo test -Zbuild-std --target i686-unknown-linux-gnu --features full \
		--no-fail-fast
s390x: ## Lints and tests on a big-endian machine, emulated
	/usr/bin/cargo clippy -Zbuild-std --lib --target s390x-unknown-linux-gnu --features full \
		-- -D warnings
	CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER=s390x-linux-gnu-gcc \
		CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_RUNNER="qemu-s390x -L /usr/s390x-linux-gnu" \
		/usr/bin/cargo test -Zbuild-std --target s390x-unknown-linux-gnu --features full \
		--no-fail-fast --test access --test contract --test cursor --test id
	@echo "SKIPPED: tests/system on s390x, because it starts itself anew, and this kernel cannot" \
		"start programs for s390x"

.PHONY: deny
deny: ## Licences, duplicates and sources of the dependencies
	cargo deny check bans licenses sources
	@echo "SKIPPED: advisories on the dependencies, because their database is fetched from" \
		"elsewhere: cargo deny check advisories"

.PHONY: smoke share
smoke: ## Examples are built; benchmarks run everything once
	cargo build --examples --features full
	cargo bench --bench lifecycle -- --test
share: ## The example, undisturbed and with processes killed
	cargo run --release --example share
	cargo run --release --example share -- --kill

.PHONY: bench-table bench-table-once
BENCH_TABLE := cargo run --release --manifest-path benches/table/Cargo.toml --
bench-table: ## Every figure that is demanded, beside the raw calls of the same run (docs/performance.md)
	@$(BENCH_TABLE) --csv=docs/performance.csv --into=docs/performance.md
	@python3 docs/performance.py docs/performance.csv docs/performance.svg
bench-table-once: ## The same, everything once: does it still work?
	@$(BENCH_TABLE) --once

.PHONY: fuzz fuzz-id fuzz-open
FUZZ := --release --manifest-path fuzz/Cargo.toml --target $(HOST)
fuzz fuzz-id fuzz-open: export RUSTFLAGS := $(COVERAGE)
fuzz: fuzz-id fuzz-open ## Both fuzzers for FUZZ_SECONDS each
	cargo clippy $(FUZZ) -- -D warnings
fuzz-id fuzz-open: fuzz-%:
	mkdir -p fuzz/artifacts
	cargo run $(FUZZ) --bin $* -- -max_total_time=$(FUZZ_SECONDS) -max_len=64 -timeout=10 \
		-artifact_prefix=fuzz/artifacts/ -verbosity=0 -print_final_stats=1

.PHONY: asan valgrind
asan: ## All test programs under AddressSanitizer, which searches for leaks as well
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
		cargo test --tests --features full --no-fail-fast --target $(HOST)
valgrind: ## All test programs under memcheck
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind -q --error-exitcode=1 \
		--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite" \
		cargo test --tests --features full --no-fail-fast

.PHONY: leftovers
leftovers: ## What exists of shared memory on this machine: nothing, if all is well
	@find /dev/shm -mindepth 1
	@awk 'NR > 1 { print "System V segment", $$2, "of", $$4, "bytes, made by process", $$5 }' \
		/proc/sysvipc/shm
	@find /proc/[0-9]*/fd -lname '/memfd:shmem*' -printf '%p -> %l\n' 2>/dev/null || true
