/* What is fuzzed: it aborts when the input starts with "abc". Built with afl-clang-fast; takes its
   test case from shared memory if its parent offers that, and otherwise from its input, unless it was
   built with ONLY_SHARED. */
#include <stdlib.h>
#include <unistd.h>

__AFL_FUZZ_INIT();

int main(void) {
#ifdef ONLY_SHARED
    if (!__afl_fuzz_ptr) return 0;
#endif
    unsigned char *bytes = __AFL_FUZZ_TESTCASE_BUF;
    int length = __AFL_FUZZ_TESTCASE_LEN;
    if (length > 0 && bytes[0] == 'a')
        if (length > 1 && bytes[1] == 'b')
            if (length > 2 && bytes[2] == 'c')
                abort();
    return 0;
}
