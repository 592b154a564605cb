/* Does what targets built with USEMMAP do after exec: opens the POSIX name in the environment, and maps as
   many bytes as the environment tells. It contains no code of AFL++. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    char *name = getenv("__AFL_SHM_ID"), *size = getenv("AFL_MAP_SIZE");
    unsigned char byte, *map;
    int fd;
    if (!name || !size) return 2;
    fd = shm_open(name, O_RDWR, 0600);
    if (fd < 0) return 3;
    map = mmap(0, atoi(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return 4;
    while (read(0, &byte, 1) == 1) map[byte]++;
    return 0;
}
