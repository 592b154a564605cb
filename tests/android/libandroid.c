/* Replaces Android's own libandroid.so, for `make android-rules` only. It creates a memfd that cannot change
   its size, as recent versions of Android do. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int ASharedMemory_create(const char *name, size_t size)
{
    int fd;
    (void)name;
    if (size == 0) {
        errno = EINVAL;
        return -1;
    }
    /* Inherited by exec, as on Android 8. */
    fd = memfd_create("libandroid", MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}
