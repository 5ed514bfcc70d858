/* LD_PRELOAD: calls that change what lies below a folder fail with an errno. What fails stands in a
   file that INJECT_CONTROL names, which may be written anew before each command. With `reads`,
   calls that open or read files there count too. */
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
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* `calls` is counted over all threads; from the `at`th one on they fail, with `once` that one alone. */
static struct control {
    long calls, at, code, once, reads;
    char root[PATH_MAX];
} *told;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("INJECT_CONTROL");
    int handle = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (handle < 0) return;
    void *found = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (found != MAP_FAILED) told = found;
}

static int fails(void) {
    long number = __atomic_add_fetch(&told->calls, 1, __ATOMIC_SEQ_CST);
    if (!told->at || number < told->at || (told->once && number > told->at)) return 0;
    errno = (int)told->code;
    return 1;
}

static int below(const char *path) {
    size_t length;
    if (!told || !path || !(length = strlen(told->root))) return 0;
    return !strncmp(path, told->root, length) && (path[length] == '/' || !path[length]);
}

static int ours(int handle) {
    char link[64], path[PATH_MAX];
    if (!told) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}

static int ours_at(int folder, const char *path) {
    return path && path[0] == '/' ? below(path) : folder != AT_FDCWD && ours(folder);
}

static int ours_read(int handle) { return told && told->reads && ours(handle); }

#define CALL(result, name, matters, fields, ...) \
    result name fields { \
        static result (*real) fields; \
        if (!real) real = (result(*) fields)dlsym(RTLD_NEXT, #name); \
        if ((matters) && fails()) return -1; \
        return real(__VA_ARGS__); \
    }

CALL(ssize_t, write, ours(to), (int to, const void *data, size_t size), to, data, size)
CALL(ssize_t, writev, ours(to), (int to, const struct iovec *parts, int count), to, parts, count)
CALL(ssize_t, pwrite, ours(to), (int to, const void *data, size_t size, off_t at), to, data, size, at)
CALL(ssize_t, pwrite64, ours(to), (int to, const void *data, size_t size, off64_t at), to, data, size, at)
CALL(ssize_t, sendfile, ours(to), (int to, int from, off_t *at, size_t size), to, from, at, size)
CALL(ssize_t, sendfile64, ours(to), (int to, int from, off64_t *at, size_t size), to, from, at, size)
CALL(ssize_t, copy_file_range, ours(to),
     (int from, off64_t *low, int to, off64_t *at, size_t size, unsigned flags), from, low, to, at, size, flags)
CALL(int, fsync, ours(file), (int file), file)
CALL(int, fdatasync, ours(file), (int file), file)
CALL(int, ftruncate, ours(file), (int file, off_t size), file, size)
CALL(int, ftruncate64, ours(file), (int file, off64_t size), file, size)
CALL(int, fchmod, ours(file), (int file, mode_t mode), file, mode)
CALL(int, rename, below(new), (const char *old, const char *new), old, new)
CALL(int, renameat, ours_at(to, new), (int from, const char *old, int to, const char *new), from, old, to, new)
CALL(int, link, below(new), (const char *old, const char *new), old, new)
CALL(int, linkat, ours_at(to, new),
     (int from, const char *old, int to, const char *new, int flags), from, old, to, new, flags)
CALL(int, symlink, below(new), (const char *old, const char *new), old, new)
CALL(int, mkdir, below(path), (const char *path, mode_t mode), path, mode)
CALL(int, mkdirat, ours_at(folder, path), (int folder, const char *path, mode_t mode), folder, path, mode)
CALL(int, rmdir, below(path), (const char *path), path)
CALL(int, unlink, below(path), (const char *path), path)
CALL(int, unlinkat, ours_at(folder, path), (int folder, const char *path, int flags), folder, path, flags)
CALL(ssize_t, pread, ours_read(from), (int from, void *data, size_t size, off_t at), from, data, size, at)
CALL(ssize_t, pread64, ours_read(from), (int from, void *data, size_t size, off64_t at), from, data, size, at)
CALL(ssize_t, read, ours_read(from), (int from, void *data, size_t size), from, data, size)

/* A read-only file system says so to whoever asks, and fails every call. */
int access(const char *path, int mode) {
    static int (*real)(const char *, int);
    if (!real) real = (int (*)(const char *, int))dlsym(RTLD_NEXT, "access");
    if ((mode & W_OK) && below(path) && told->at == 1 && told->code == EROFS && !told->once) {
        errno = EROFS;
        return -1;
    }
    return real(path, mode);
}

#define OPENS(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR) || told->reads)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = va_arg(list, mode_t); \
        va_end(list); \
        if (below(path) && OPENS(flags) && fails()) return -1; \
        return real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = va_arg(list, mode_t); \
        va_end(list); \
        if (ours_at(folder, path) && OPENS(flags) && fails()) return -1; \
        return real(folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
