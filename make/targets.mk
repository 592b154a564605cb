# Other targets: lints, and tests where this machine can run them.

# These are compiled and linted, never run.
TARGETS := x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-apple-darwin aarch64-apple-ios \
	aarch64-linux-android x86_64-linux-android x86_64-unknown-freebsd x86_64-unknown-netbsd \
	x86_64-unknown-openbsd x86_64-unknown-dragonfly x86_64-unknown-illumos x86_64-pc-solaris \
	x86_64-unknown-haiku wasm32-unknown-unknown

# One target of each family that no other check covers.
TARGETS_CI := x86_64-pc-windows-msvc aarch64-apple-darwin aarch64-linux-android \
	x86_64-unknown-freebsd x86_64-unknown-illumos wasm32-unknown-unknown

# These are built by Debian's second toolchain (packages cargo-web, rust-web-src, rust-web-clippy), which
# includes the sources of the standard library, so that no target has to be installed. RUSTC_BOOTSTRAP
# allows it to build them.
CROSS := no-std i686 aarch64 riscv64 s390x musl wine target-% link-%
$(CROSS): export PATH := /usr/bin:$(PATH)
$(CROSS): export RUSTC := /usr/bin/rustc
$(CROSS): export RUSTDOC := /usr/bin/rustdoc
$(CROSS): export RUSTC_BOOTSTRAP := 1
$(CROSS): export CARGO_TARGET_DIR := $(OUT)/cross
$(CROSS): export CARGO_PROFILE_DEV_DEBUG := 0

.PHONY: no-std
no-std: ## Lints the library with core only, and with core and alloc
	for target in x86_64-unknown-none $(HOST); do \
		/usr/bin/cargo clippy -Zbuild-std=core --lib --target $$target \
			--no-default-features -- -D warnings && \
		/usr/bin/cargo clippy -Zbuild-std=core,alloc --lib --target $$target \
			--no-default-features --features alloc,serde,zerocopy,log -- -D warnings || exit; \
	done

.PHONY: targets targets-ci
targets: $(TARGETS:%=target-%) ## Lints the library for the other systems (for one: make target-TRIPLE)
	@echo "SKIPPED: running on these systems, because this machine has none of them: $(TARGETS)"
targets-ci: $(TARGETS_CI:%=target-%) ## Lints the library for one system of each family
	@echo "SKIPPED: running on these systems, because this machine has none of them: $(TARGETS_CI)"
	@echo "SKIPPED: lints for $(filter-out $(TARGETS_CI),$(TARGETS)), because each of them compiles a" \
		"standard library: make targets"
target-%:
	/usr/bin/cargo clippy -Zbuild-std=std -Zbuild-std-features= --lib --target $* --features full \
		-- -D warnings

# Models, explored schedules and kills after each instruction depend on neither the C library nor the size of a word,
# and take minutes, so CI runs them on the host only.
PROGRAMS := $(basename $(notdir $(wildcard tests/*.rs))) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs))
CROSS_TESTS := $(if $(CI),--lib $(patsubst %,--test %,$(filter-out kills model,$(PROGRAMS))))

# The linker is set for the lints too, or the tests would compile the standard library a second time.
.PHONY: i686
i686: export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER := i686-linux-gnu-gcc
i686: ## Lints the library and runs all tests with 32 bits, which this kernel can run
	/usr/bin/cargo clippy -Zbuild-std --lib --target i686-unknown-linux-gnu --features full \
		-- -D warnings
	/usr/bin/cargo build -Zbuild-std --target i686-unknown-linux-gnu --examples
	/usr/bin/cargo test -Zbuild-std --target i686-unknown-linux-gnu --no-fail-fast $(CROSS_TESTS)

# zig can link for most systems and includes what it needs for that. It is downloaded from PyPI. The later
# version supports more systems, but replaces the allocator of musl by its own, whose locks may stay locked
# forever in a forked child.
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
musl: MUSL := -Zbuild-std --target x86_64-unknown-linux-musl
musl: $(ZIG_FOR_MUSL)/zig ## Lints the library and runs all tests with musl, linked statically
	/usr/bin/cargo clippy $(MUSL) --features full --lib -- -D warnings
	/usr/bin/cargo test $(MUSL) $(or $(CROSS_TESTS),--tests) --no-fail-fast $(if $(CI),-- --skip explored)

# The names of the systems in zig. Linking shows only that all functions exist.
ZIG_aarch64-apple-darwin := aarch64-macos
ZIG_x86_64-apple-darwin := x86_64-macos
ZIG_x86_64-unknown-freebsd := x86_64-freebsd
ZIG_x86_64-unknown-netbsd := x86_64-netbsd
ZIG_x86_64-unknown-openbsd := x86_64-openbsd
LINKS := aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd \
	x86_64-unknown-openbsd

.PHONY: link
link: $(LINKS:%=link-%) ## Links tests and examples for Apple's systems and the BSDs (for one: make link-TRIPLE)
	@echo "SKIPPED: running what was linked, because this machine has none of these systems: $(LINKS)"
link-%: export ZIG := $(ZIG_FOR_LINKS)/zig
link-%: export ZIG_TARGET = $(ZIG_$*)
link-%: export SDKROOT := $(ZIG_FOR_LINKS)/lib/libc/darwin
link-%: export CARGO_PROFILE_DEV_STRIP := none
link-%: $(ZIG_FOR_LINKS)/zig
	env CARGO_TARGET_$$(tr a-z- A-Z_ <<<$*)_LINKER=$(abspath tests/cross/zig-cc) \
		/usr/bin/cargo build -Zbuild-std --target $* --tests --examples

# Tests on Linux with the rules of another system, which these switches enable in the library. They have
# a target directory of their own.
.PHONY: apple-rules android-rules freebsd-rules
apple-rules android-rules freebsd-rules: export CARGO_TARGET_DIR := $(OUT)/rules
apple-rules: export RUSTFLAGS := --cfg shmem_apple_rules
apple-rules: ## Runs the tests of contract and service with Apple's rules, of waiting, which polls, and of served locks
	cargo clippy --lib --features full -- -D warnings
	cargo test --no-fail-fast --test contract --test service
	for subject in wake served mutex; do \
		cargo test --no-fail-fast --test sync -- $$subject:: || exit; \
	done
android-rules: export RUSTFLAGS := --cfg shmem_android_rules
android-rules: ## Runs the tests of the contract with Android's rules, with and without its library
	cargo clippy --lib --features full -- -D warnings
	mkdir -p $(OUT)/rules/lib
	cc -Wall -Werror -shared -fPIC -o $(OUT)/rules/lib/libandroid.so tests/android/libandroid.c
	LD_LIBRARY_PATH=$(OUT)/rules/lib SHMEM_TEST_MEMORY=/memfd:libandroid \
		cargo test --no-fail-fast --test contract
	SHMEM_TEST_MEMORY=/memfd:shmem- cargo test --no-fail-fast --test contract
freebsd-rules: export RUSTFLAGS := --cfg shmem_freebsd_rules
freebsd-rules: ## Runs the tests of the contract, and of descriptors in the service and of waiting, with FreeBSD's rules
	cargo clippy --lib --test contract -- -D warnings
	cargo test --no-fail-fast --test contract
	cargo test --no-fail-fast --test service -- descriptors::
	cargo test --no-fail-fast --test sync -- wake::
