/* Tries to change a segment through a path in /proc: attack PATH SIZE. Prints the name of each attempt that
   succeeds. tests/memory/linux/read_only.rs has the same list in Rust. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#endif

static void report(const char *attempt, int succeeded) {
    if (succeeded)
        printf("%s\n", attempt);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    off_t size = atoll(argv[2]);
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    int reader = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd == -1 || reader == -1)
        return 3;
    char byte = 'C';
    report("write", write(fd, &byte, 1) == 1);
    report("pwrite", pwrite(fd, &byte, 1, 1) == 1);
    char *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    report("mmap", page != MAP_FAILED);
    page = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    report("mprotect", page != MAP_FAILED && mprotect(page, size, PROT_READ | PROT_WRITE) == 0);
    report("remove", page != MAP_FAILED && madvise(page, size, MADV_REMOVE) == 0);
    page = mmap(NULL, size, PROT_READ, MAP_SHARED, reader, 0);
    report("reader mmap", page == MAP_FAILED);
    report("reader mprotect", page != MAP_FAILED && mprotect(page, size, PROT_READ | PROT_WRITE) == 0);
    report("reader pwrite", pwrite(reader, &byte, 1, 2) == 1);
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    report("mem", pwrite(memory, &byte, 1, (off_t)(size_t)page) == 1);
    report("punch hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) == 0);
    report("zero range", fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, size) == 0);
    report("collapse range", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == 0);
    report("shrink", ftruncate(fd, 0) == 0);
    report("grow", ftruncate(fd, size * 2) == 0);
    report("seal writes", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    return 0;
}
