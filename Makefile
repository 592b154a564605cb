# Every command that this project is checked with. `.ci/run` calls them one after another.

SHELL := /bin/bash
HOST := x86_64-unknown-linux-gnu
OUT := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Compiled and linted here, never run.
TARGETS := x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-apple-darwin aarch64-apple-ios \
	aarch64-linux-android x86_64-linux-android x86_64-unknown-freebsd x86_64-unknown-netbsd \
	x86_64-unknown-openbsd x86_64-unknown-dragonfly x86_64-unknown-illumos x86_64-pc-solaris \
	x86_64-unknown-haiku wasm32-unknown-unknown

# One of each family, of those that nothing else stands in for.
TARGETS_CI := x86_64-pc-windows-msvc aarch64-apple-darwin aarch64-linux-android \
	x86_64-unknown-freebsd x86_64-unknown-illumos wasm32-unknown-unknown

# These are built by Debian's second toolchain (packages cargo-web, rust-web-src, rust-web-clippy),
# which comes with the sources of the standard library, so that no target has to be installed.
# RUSTC_BOOTSTRAP lets it build them.
CROSS := no-std i686 aarch64 riscv64 s390x musl wine target-% link-%
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
FUZZ_LENGTH := 64

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test test-default
test: ## All tests, with all features
	cargo test --features full
test-default: ## With the default features what depends on them, which real processes do not
	cargo test --lib --test access --test contract --test cursor --test id
	cargo test --doc

.PHONY: fmt clippy features doc
fmt: ## Formatting
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path libafl/Cargo.toml
	cargo fmt --check --manifest-path examples/libafl/Cargo.toml
	cargo fmt --check --manifest-path benches/table/Cargo.toml
clippy: ## Lints of everything
	cargo clippy --all-targets --features full -- -D warnings
	cargo clippy --all-targets -- -D warnings
	cargo clippy --lib --features full,libafl -- -D warnings
features: ## Lints of the library with every combination of features
	cargo hack clippy --feature-powerset --exclude-features libafl -- -D warnings
doc: ## Documentation, without and with what is private
	RUSTDOCFLAGS="-D warnings" cargo doc --features full --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --features full --no-deps --document-private-items

# The documentation is built twice: as users build it, and with the settings of docs.rs.
.PHONY: package
PACKAGE := $(OUT)/package/unpacked
package: ## What would be published: unpacked, documented and tested there
	rm -rf $(PACKAGE) $(OUT)/package/shmem_providers-*.crate
	cargo package --no-verify --allow-dirty --target-dir $(OUT)
	mkdir -p $(PACKAGE)
	tar -xzf $(OUT)/package/shmem_providers-*.crate -C $(PACKAGE) --strip-components=1
	cd $(PACKAGE) && RUSTDOCFLAGS="-D warnings" \
		cargo doc --features full --no-deps --target-dir $(OUT)/package/target
	cd $(PACKAGE) && RUSTC_BOOTSTRAP=1 RUSTDOCFLAGS="--cfg docsrs -D warnings" \
		cargo doc --features full --no-deps --target-dir $(OUT)/package/docs.rs
	cd $(PACKAGE) && cargo test --features full --no-run --target-dir $(OUT)/package/target
	cd $(PACKAGE) && cargo test --features full --lib --test contract --target-dir $(OUT)/package/target
	cd $(PACKAGE) && cargo test --features full --doc --target-dir $(OUT)/package/target

.PHONY: no-std
no-std: ## Library with nothing but core, and with core and alloc: whoever wants std fails
	for target in x86_64-unknown-none $(HOST); do \
		/usr/bin/cargo clippy -Zbuild-std=core --lib --target $$target \
			--no-default-features -- -D warnings && \
		/usr/bin/cargo clippy -Zbuild-std=core,alloc --lib --target $$target \
			--no-default-features --features alloc,serde,zerocopy,log -- -D warnings || exit; \
	done

.PHONY: targets targets-ci
targets: $(TARGETS:%=target-%) ## Lints for the other systems (one of them: make target-TRIPLE)
	@echo "SKIPPED: running on these systems, because there are none here: $(TARGETS)"
targets-ci: $(TARGETS_CI:%=target-%) ## The same for one system of each family
	@echo "SKIPPED: running on these systems, because there are none here: $(TARGETS_CI)"
	@echo "SKIPPED: lints for $(filter-out $(TARGETS_CI),$(TARGETS)), because each of them takes the" \
		"time to compile a standard library: make targets"
target-%:
	/usr/bin/cargo clippy -Zbuild-std=std -Zbuild-std-features= --lib --target $* --features full \
		-- -D warnings

# Which linker and which runner is said for lints as well: the standard library would be built anew for
# tests otherwise.
.PHONY: i686
i686: export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER := i686-linux-gnu-gcc
i686: ## Lints and all tests on 32 bits, which this kernel runs as well
	/usr/bin/cargo clippy -Zbuild-std --lib --target i686-unknown-linux-gnu --features full \
		-- -D warnings
	/usr/bin/cargo test -Zbuild-std --target i686-unknown-linux-gnu --features full \
		--no-fail-fast

EMULATED_TESTS ?= --tests

.PHONY: aarch64 riscv64 s390x
aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
aarch64: MACHINE := aarch64
aarch64: TRIPLE := aarch64-unknown-linux-gnu
aarch64: ## All tests on 64 bits of ARM, emulated
riscv64: export CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_LINKER := riscv64-linux-gnu-gcc
riscv64: MACHINE := riscv64
riscv64: TRIPLE := riscv64gc-unknown-linux-gnu
riscv64: ## All tests on RISC-V, emulated
s390x: export CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER := s390x-linux-gnu-gcc
s390x: MACHINE := s390x
s390x: TRIPLE := s390x-unknown-linux-gnu
s390x: ## All tests on a big-endian machine, emulated
aarch64 riscv64 s390x: export PROPTEST_CASES := 32
aarch64 riscv64 s390x: EMULATED := -Zbuild-std --target $(TRIPLE) --features full
aarch64 riscv64 s390x:
	@if tests/cross/emulated $(MACHINE) true; then \
		tests/cross/emulated $(MACHINE) /usr/bin/cargo test $(EMULATED) $(EMULATED_TESTS) \
			--no-fail-fast; \
	else \
		echo "SKIPPED: second processes on $(MACHINE), because this kernel cannot start programs" \
			"for it; without them:"; \
		env CARGO_TARGET_$$(tr a-z- A-Z_ <<<$(TRIPLE))_RUNNER="qemu-$(MACHINE) -L /usr/$(MACHINE)-linux-gnu" \
			/usr/bin/cargo test $(EMULATED) --no-fail-fast \
			--test access --test contract --test cursor --test id; \
	fi

# Linked by zig, which comes with what it needs to link for most systems. It is fetched from PyPI. The
# later version knows more systems, but puts an allocator of its own into musl, whose locks a forked child
# may find held for ever.
.PRECIOUS: $(OUT)/zig-%/ziglang/zig
$(OUT)/zig-%/ziglang/zig:
	python3 -m pip install --quiet --root-user-action=ignore --target $(OUT)/zig-$* ziglang==$*
ZIG_FOR_MUSL := $(OUT)/zig-0.15.2/ziglang
ZIG_FOR_LINKS := $(OUT)/zig-0.17.1/ziglang

.PHONY: musl
musl: export ZIG := $(ZIG_FOR_MUSL)/zig
musl: export ZIG_TARGET := x86_64-linux-musl
musl: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER := $(abspath tests/cross/zig-cc)
musl: export RUSTFLAGS := -Clink-self-contained=no
musl: MUSL := -Zbuild-std --target x86_64-unknown-linux-musl --features full
musl: $(ZIG_FOR_MUSL)/zig ## Lints and all tests with musl, linked statically
	/usr/bin/cargo clippy $(MUSL) --lib -- -D warnings
	/usr/bin/cargo test $(MUSL) --tests --no-fail-fast

# By rustc's name for a system, zig's. Whether all that is called is there, is all that a link shows.
ZIG_aarch64-apple-darwin := aarch64-macos
ZIG_x86_64-apple-darwin := x86_64-macos
ZIG_x86_64-unknown-freebsd := x86_64-freebsd
ZIG_x86_64-unknown-netbsd := x86_64-netbsd
ZIG_x86_64-unknown-openbsd := x86_64-openbsd
LINKS := aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd \
	x86_64-unknown-openbsd

.PHONY: link
link: $(LINKS:%=link-%) ## Tests and examples linked for the systems that zig knows (one: make link-TRIPLE)
	@echo "SKIPPED: running what was linked, because none of these systems is here: $(LINKS)"
link-%: export ZIG := $(ZIG_FOR_LINKS)/zig
link-%: export ZIG_TARGET = $(ZIG_$*)
link-%: export SDKROOT := $(ZIG_FOR_LINKS)/lib/libc/darwin
link-%: export CARGO_PROFILE_DEV_STRIP := none
link-%: $(ZIG_FOR_LINKS)/zig
	env CARGO_TARGET_$$(tr a-z- A-Z_ <<<$*)_LINKER=$(abspath tests/cross/zig-cc) \
		/usr/bin/cargo build -Zbuild-std --target $* --features full --tests --examples

# Only what belongs to this prefix is ended: the server and what runs in it.
.PHONY: wine
wine: export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER := x86_64-w64-mingw32-gcc
wine: export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER = $(WINE)/wine64
wine: WINE := env WINEPREFIX=$(OUT)/cross/wine WINEDEBUG=-all DISPLAY= /usr/lib/wine
wine: WINDOWS := -Zbuild-std --target x86_64-pc-windows-gnu --features full
wine: ## Lints and tests on Windows, or what Wine makes of it
	/usr/bin/cargo clippy $(WINDOWS) --all-targets -- -D warnings
	mkdir -p $(OUT)/cross/wine
	$(WINE)/wine64 wineboot --init >/dev/null 2>&1
	x86_64-w64-mingw32-gcc -shared -O2 tests/windows/bcryptprimitives.c -ladvapi32 \
		-o $(OUT)/cross/wine/drive_c/windows/system32/bcryptprimitives.dll
	/usr/bin/cargo test $(WINDOWS) --no-fail-fast \
		--test access --test contract --test cursor --test id --test windows; \
		status=$$?; $(WINE)/wineserver -k; exit $$status

# Linux with the rules of another system, which are in the library by these switches. It is built into
# a folder of its own.
.PHONY: apple-rules android-rules freebsd-rules
apple-rules android-rules freebsd-rules: export CARGO_TARGET_DIR := $(OUT)/rules
apple-rules: export RUSTFLAGS := --cfg shmem_apple_rules
apple-rules: ## Contract and service by Apple's rules
	cargo clippy --lib --features full -- -D warnings
	cargo test --features full --no-fail-fast --test contract --test service
android-rules: export RUSTFLAGS := --cfg shmem_android_rules
android-rules: ## Contract by Android's rules, with a stand-in for its library, and without one
	cargo clippy --lib --features full -- -D warnings
	mkdir -p $(OUT)/rules/lib
	cc -Wall -Werror -shared -fPIC -o $(OUT)/rules/lib/libandroid.so tests/android/libandroid.c
	LD_LIBRARY_PATH=$(OUT)/rules/lib SHMEM_TEST_MEMORY=/memfd:libandroid \
		cargo test --features full --no-fail-fast --test contract
	SHMEM_TEST_MEMORY=/memfd:shmem- cargo test --features full --no-fail-fast --test contract

freebsd-rules: export RUSTFLAGS := --cfg shmem_freebsd_rules
freebsd-rules: ## Contract over the memfd of FreeBSD, and what its service has to check
	cargo clippy --lib --test contract --features full -- -D warnings
	cargo test --features full --no-fail-fast --test contract
	cargo test --features full --no-fail-fast --test service -- descriptors::

.PHONY: ashmem
ashmem: export MACHINE := $(OUT)/machine
ashmem: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(abspath tests/ashmem/machine)
ashmem: ## Contract and tests of ashmem on an emulated machine that has it
	tests/ashmem/machine fetch
	cargo test --features full --test ashmem -- --color=never
	cargo test --features full --test contract -- --color=never ashmem

.PHONY: deny
deny: ## Licences, duplicates and sources of the dependencies
	cargo deny check bans licenses sources
	@echo "SKIPPED: advisories on the dependencies, because their database is fetched from" \
		"elsewhere: cargo deny check advisories"

.PHONY: smoke share served
smoke: ## Examples are built; benchmarks run everything once
	cargo build --examples --features full
	cargo bench --bench lifecycle -- --test
	cargo bench --bench service -- --test
share: ## The example, undisturbed and with processes killed
	cargo run --release --example share
	cargo run --release --example share -- --kill
served: ## The example of the service, which loses a client and its host
	cargo run --release --example served

.PHONY: bench-table bench-table-once
BENCH_TABLE := cargo run --release --manifest-path benches/table/Cargo.toml --
bench-table: ## Every figure that is demanded, beside the raw calls of the same run (docs/performance.md)
	@$(BENCH_TABLE) --csv=docs/performance.csv --into=docs/performance.md
	@python3 docs/performance.py docs/performance.csv docs/performance.svg
bench-table-once: ## The same, everything once: does it still work?
	@$(BENCH_TABLE) --once

.PHONY: fuzz fuzz-id fuzz-open fuzz-service
FUZZ := --release --manifest-path fuzz/Cargo.toml --target $(HOST)
fuzz fuzz-id fuzz-open fuzz-service: export RUSTFLAGS := $(COVERAGE)
fuzz: fuzz-id fuzz-open fuzz-service ## All fuzzers for FUZZ_SECONDS each
	cargo clippy $(FUZZ) -- -D warnings
fuzz-service: FUZZ_LENGTH := 2000
fuzz-id fuzz-open fuzz-service: fuzz-%:
	mkdir -p fuzz/artifacts
	cargo run $(FUZZ) --bin $* -- -max_total_time=$(FUZZ_SECONDS) -max_len=$(FUZZ_LENGTH) -timeout=10 \
		-artifact_prefix=fuzz/artifacts/ -verbosity=0 -print_final_stats=1

.PHONY: asan valgrind
# Like any allocator, it returns null for a size that it does not support, which a test asks for.
asan: export ASAN_OPTIONS := allocator_may_return_null=1
asan: ## All test programs under AddressSanitizer, which searches for leaks as well
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
		cargo test --tests --features full --no-fail-fast --target $(HOST) -- --skip exhaustion::
	@echo "SKIPPED: the service under ten attackers under AddressSanitizer, which makes it too slow for the" \
		"deadlines of those tests; make test has them"
valgrind: export PROPTEST_CASES := 20
valgrind: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := valgrind -q --error-exitcode=1 \
	--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite
valgrind: ## Test programs under memcheck; those of the service, which is safe code, AddressSanitizer has
	cargo test --features full --no-fail-fast --test access --test contract --test cursor \
		--test id --test system -- --skip what_is_made_without_locks_stays
	cargo test --features full --test tuning -- --skip huge_pages_are --skip huge_pages_that_nobody
	@echo "SKIPPED: huge pages under memcheck, where those of System V show as ordinary ones"

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
	cargo tree --quiet --manifest-path examples/libafl/Cargo.toml -i shmem_providers@0.17.0
	libafl/alone $(CLIENT)
aflpp: libafl-client ## Targets and tools of AFL++ over segments of this crate, and the other way round
	cargo build --example aflpp
	libafl/alone examples/aflpp/run $(OUT)/aflpp $(OUT)/debug/examples/aflpp $(CLIENT)

.PHONY: leftovers
leftovers: ## What exists of shared memory on this machine: nothing, if all is well
	@find /dev/shm -mindepth 1
	@awk 'NR > 1 { print "System V segment", $$2, "of", $$4, "bytes, made by process", $$5 }' \
		/proc/sysvipc/shm
	@find /proc/[0-9]*/fd -lname '/memfd:shmem*' -printf '%p -> %l\n' 2>/dev/null || true
