# Other targets: lints, and tests where this machine can run them.

# Compiled and linted, never run.
TARGETS := x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-apple-darwin aarch64-apple-ios \
	aarch64-linux-android x86_64-linux-android x86_64-unknown-freebsd x86_64-unknown-netbsd \
	x86_64-unknown-openbsd x86_64-unknown-dragonfly x86_64-unknown-illumos x86_64-pc-solaris \
	x86_64-unknown-haiku wasm32-unknown-unknown

# One of each family that no other check covers.
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
no-std: ## Lints of the library with core only, and with core and alloc
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

# The linker and the runner are set for lints too, or the standard library would be built again for tests.
.PHONY: i686
i686: export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER := i686-linux-gnu-gcc
i686: ## Lints and all tests on 32 bits, which this kernel runs as well
	/usr/bin/cargo clippy -Zbuild-std --lib --target i686-unknown-linux-gnu --features full \
		-- -D warnings
	/usr/bin/cargo test -Zbuild-std --target i686-unknown-linux-gnu --no-fail-fast

# zig links for most systems and includes what it needs for that. It is downloaded from PyPI. The later
# version supports more systems, but puts its own allocator into musl, whose locks a forked child may find
# locked forever.
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
musl: $(ZIG_FOR_MUSL)/zig ## Lints and all tests with musl, linked statically
	/usr/bin/cargo clippy $(MUSL) --features full --lib -- -D warnings
	/usr/bin/cargo test $(MUSL) --tests --no-fail-fast

# The names that zig has for the systems. A link shows only that all functions exist.
ZIG_aarch64-apple-darwin := aarch64-macos
ZIG_x86_64-apple-darwin := x86_64-macos
ZIG_x86_64-unknown-freebsd := x86_64-freebsd
ZIG_x86_64-unknown-netbsd := x86_64-netbsd
ZIG_x86_64-unknown-openbsd := x86_64-openbsd
LINKS := aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd \
	x86_64-unknown-openbsd

.PHONY: link
link: $(LINKS:%=link-%) ## Links tests and examples for the systems that zig supports (one: make link-TRIPLE)
	@echo "SKIPPED: running what was linked, because none of these systems is here: $(LINKS)"
link-%: export ZIG := $(ZIG_FOR_LINKS)/zig
link-%: export ZIG_TARGET = $(ZIG_$*)
link-%: export SDKROOT := $(ZIG_FOR_LINKS)/lib/libc/darwin
link-%: export CARGO_PROFILE_DEV_STRIP := none
link-%: $(ZIG_FOR_LINKS)/zig
	env CARGO_TARGET_$$(tr a-z- A-Z_ <<<$*)_LINKER=$(abspath tests/cross/zig-cc) \
		/usr/bin/cargo build -Zbuild-std --target $* --tests --examples

# Linux with the rules of another system, which these switches turn on in the library. Built into a
# directory of its own.
.PHONY: apple-rules android-rules freebsd-rules
apple-rules android-rules freebsd-rules: export CARGO_TARGET_DIR := $(OUT)/rules
apple-rules: export RUSTFLAGS := --cfg shmem_apple_rules
apple-rules: ## Contract and service with Apple's rules
	cargo clippy --lib --features full -- -D warnings
	cargo test --no-fail-fast --test contract --test service
android-rules: export RUSTFLAGS := --cfg shmem_android_rules
android-rules: ## Contract with Android's rules, with a replacement for its library, and without one
	cargo clippy --lib --features full -- -D warnings
	mkdir -p $(OUT)/rules/lib
	cc -Wall -Werror -shared -fPIC -o $(OUT)/rules/lib/libandroid.so tests/android/libandroid.c
	LD_LIBRARY_PATH=$(OUT)/rules/lib SHMEM_TEST_MEMORY=/memfd:libandroid \
		cargo test --no-fail-fast --test contract
	SHMEM_TEST_MEMORY=/memfd:shmem- cargo test --no-fail-fast --test contract
freebsd-rules: export RUSTFLAGS := --cfg shmem_freebsd_rules
freebsd-rules: ## Contract over FreeBSD's memfd, and what its service has to check
	cargo clippy --lib --test contract -- -D warnings
	cargo test --no-fail-fast --test contract
	cargo test --no-fail-fast --test service -- descriptors::
