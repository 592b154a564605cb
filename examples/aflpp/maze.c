/* The target: it aborts when the input starts with "abc". Built with afl-clang-fast. It takes the test
   case from shared memory if its parent provides that, and otherwise from its standard input, unless it
   is built with ONLY_SHARED. */
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
