# Fuzzers, sanitizers and memcheck.

# The flags that cargo-fuzz sets, so that it is not needed.
COVERAGE := --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
	-Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_SECONDS := 20
FUZZ_LENGTH := 64

.PHONY: fuzz fuzz-id fuzz-latest fuzz-open fuzz-ring fuzz-service
FUZZ := --release --manifest-path fuzz/Cargo.toml --target $(HOST)
fuzz fuzz-id fuzz-latest fuzz-open fuzz-ring fuzz-service: export RUSTFLAGS := $(COVERAGE)
fuzz: fuzz-id fuzz-latest fuzz-open fuzz-ring fuzz-service ## Runs all fuzzers for FUZZ_SECONDS each
	cargo clippy $(FUZZ) -- -D warnings
fuzz-latest fuzz-ring fuzz-service: FUZZ_LENGTH := 2000
fuzz-id fuzz-latest fuzz-open fuzz-ring fuzz-service: fuzz-%:
	mkdir -p fuzz/artifacts
	cargo run $(FUZZ) --bin $* -- -max_total_time=$(FUZZ_SECONDS) -max_len=$(FUZZ_LENGTH) -timeout=10 \
		-artifact_prefix=fuzz/artifacts/ -verbosity=0 -print_final_stats=1

.PHONY: asan valgrind
# A test allocates more than AddressSanitizer supports. It should return null then, as any allocator does.
asan: export ASAN_OPTIONS := allocator_may_return_null=1
# loom does not free the stacks of threads that never end, as in schedules that lose a wake-up.
asan: export LSAN_OPTIONS := suppressions=$(abspath make/leaks.txt):print_suppressions=0
asan: ## Runs all tests under AddressSanitizer, which also finds leaks
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
		cargo test --tests --no-fail-fast --target $(HOST) -- --skip exhaustion:: $(if $(CI),--skip explored)
	@echo "SKIPPED: the service with ten attackers under AddressSanitizer, which is too slow for the deadlines" \
		"of these tests; make test runs them"
UNDER_VALGRIND := memory_comes_with_growth options_apply_to_what_is_committed a_changed_mode_harms_nobody \
	death_in_the_middle_of_growth frozen_in_time_is_frozen_later
valgrind: export PROPTEST_CASES := 20
valgrind: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := valgrind -q --error-exitcode=1 \
	--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite
valgrind: ## Runs the tests under memcheck, except those of the service, which has no unsafe code
	cargo test --no-fail-fast --test access --test contract --test cursor \
		--test id --test processes -- --skip segments_without_locks_stay
	cargo test --test memory -- --skip huge_pages_are --skip huge_pages_that_nobody $(UNDER_VALGRIND:%=--skip %)
	@echo "SKIPPED: tests of growth that read /proc/self/smaps, and one that copies a mapping by mremap, under" \
		"memcheck, which shows other mappings and cannot do that; make test runs them"
	@echo "SKIPPED: huge pages under memcheck, which shows those of System V as ordinary pages"
