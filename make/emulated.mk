# Emulated processors, an emulated machine with ashmem, and Wine.

# In an emulator the tests of the service take many minutes, so CI leaves them out.
EMULATED_TESTS := $(if $(CI),--lib --test access --test contract --test cursor --test id --test latest \
	--test memory --test processes --test ring --test sync,--tests)

.PHONY: aarch64 riscv64 s390x
aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
aarch64: MACHINE := aarch64
aarch64: TRIPLE := aarch64-unknown-linux-gnu
aarch64: ## Runs all tests on 64-bit ARM, emulated
riscv64: export CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_LINKER := riscv64-linux-gnu-gcc
riscv64: MACHINE := riscv64
riscv64: TRIPLE := riscv64gc-unknown-linux-gnu
riscv64: ## Runs all tests on RISC-V, emulated
s390x: export CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER := s390x-linux-gnu-gcc
s390x: MACHINE := s390x
s390x: TRIPLE := s390x-unknown-linux-gnu
s390x: ## Runs all tests on a big-endian machine, emulated; in CI without the service
aarch64 riscv64 s390x: export PROPTEST_CASES := 32
aarch64 riscv64 s390x: EMULATED := -Zbuild-std --target $(TRIPLE)
aarch64 riscv64 s390x:
	@if tests/cross/emulated $(MACHINE) true; then \
		tests/cross/emulated $(MACHINE) /usr/bin/cargo test $(EMULATED) $(EMULATED_TESTS) \
			--no-fail-fast; \
	else \
		echo "SKIPPED: tests with second processes on $(MACHINE), because this kernel cannot start" \
			"programs for it; the others follow"; \
		env CARGO_TARGET_$$(tr a-z- A-Z_ <<<$(TRIPLE))_RUNNER="qemu-$(MACHINE) -L /usr/$(MACHINE)-linux-gnu" \
			/usr/bin/cargo test $(EMULATED) --no-fail-fast \
			--test access --test contract --test cursor --test id; \
	fi

# At the end, the processes of this prefix are ended, and no others.
.PHONY: wine
wine: export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER := x86_64-w64-mingw32-gcc
wine: export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER = $(WINE)/wine64
wine: WINE := env WINEPREFIX=$(OUT)/cross/wine WINEDEBUG=-all DISPLAY= /usr/lib/wine
wine: WINDOWS := -Zbuild-std --target x86_64-pc-windows-gnu
wine: ## Lints everything for Windows and runs its tests with Wine
	/usr/bin/cargo clippy $(WINDOWS) --all-targets -- -D warnings
	mkdir -p $(OUT)/cross/wine
	$(WINE)/wine64 wineboot --init >/dev/null 2>&1
	x86_64-w64-mingw32-gcc -shared -O2 tests/windows/bcryptprimitives.c -ladvapi32 \
		-o $(OUT)/cross/wine/drive_c/windows/system32/bcryptprimitives.dll
	/usr/bin/cargo test $(WINDOWS) --no-fail-fast \
		--test access --test contract --test cursor --test id --test windows; \
		status=$$?; $(WINE)/wineserver -k; exit $$status

.PHONY: ashmem
ashmem: export MACHINE := $(OUT)/machine
ashmem: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(abspath tests/ashmem/machine)
ashmem: ## Runs the tests of ashmem on an emulated machine that has the driver
	tests/ashmem/machine fetch
	cargo test --test ashmem -- --color=never
	cargo test --test contract -- --color=never ashmem
