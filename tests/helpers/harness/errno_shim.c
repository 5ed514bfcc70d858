/* LD_PRELOAD: calls that change what lies below INJECT_ROOT fail with INJECT_ERRNO, from the INJECT_AT'th one on.
   INJECT_ONCE: that one alone. INJECT_COUNTER: a file of 8 bytes that counts these calls over all threads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long *counter;
static const char *root;
static long at;
static int code, once;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("INJECT_COUNTER");
    root = getenv("INJECT_ROOT");
    at = atol(getenv("INJECT_AT") ? getenv("INJECT_AT") : "0");
    code = atoi(getenv("INJECT_ERRNO") ? getenv("INJECT_ERRNO") : "0");
    once = getenv("INJECT_ONCE") != NULL;
    int handle = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (handle >= 0) {
        counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
        if (counter == MAP_FAILED) counter = NULL;
        close(handle);
    }
}

static int fails(void) {
    if (!counter) return 0;
    long number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    if (!at || number < at || (once && number > at)) return 0;
    errno = code;
    return 1;
}

static int below(const char *path) { return root && path && !strncmp(path, root, strlen(root)); }

static int ours(int handle) {
    char link[64], path[PATH_MAX];
    if (!root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

ssize_t write(int handle, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t)
    if (ours(handle) && fails()) return -1;
    return real(handle, data, size);
}
ssize_t writev(int handle, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int)
    if (ours(handle) && fails()) return -1;
    return real(handle, parts, count);
}
ssize_t pwrite(int handle, const void *data, size_t size, off_t offset) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t)
    if (ours(handle) && fails()) return -1;
    return real(handle, data, size, offset);
}
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)
    if (ours(handle) && fails()) return -1;
    return real(handle, data, size, offset);
}
int fsync(int handle) {
    REAL(int, fsync, int)
    if (ours(handle) && fails()) return -1;
    return real(handle);
}
int fdatasync(int handle) {
    REAL(int, fdatasync, int)
    if (ours(handle) && fails()) return -1;
    return real(handle);
}
int ftruncate(int handle, off_t size) {
    REAL(int, ftruncate, int, off_t)
    if (ours(handle) && fails()) return -1;
    return real(handle, size);
}
int ftruncate64(int handle, off64_t size) {
    REAL(int, ftruncate64, int, off64_t)
    if (ours(handle) && fails()) return -1;
    return real(handle, size);
}
int rename(const char *old, const char *new) {
    REAL(int, rename, const char *, const char *)
    if (below(new) && fails()) return -1;
    return real(old, new);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t)
    if (below(path) && fails()) return -1;
    return real(path, mode);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = va_arg(list, mode_t); \
        va_end(list); \
        REAL(int, name, const char *, int, ...) \
        if (below(path) && (flags & (O_CREAT | O_WRONLY | O_RDWR)) && fails()) return -1; \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
