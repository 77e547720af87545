/* Loaded before the C library (LD_PRELOAD), this ends the process at the n-th change to files under a folder,
 * as a kill there would, or lets the disk be full from then on. A write that is its last gets half of its bytes
 * onto the disk; of all other changes nothing happens.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static long at, seen;
static int full;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Watch a folder: die at event `number` (none at 0), or with `disk` let every write from there fail. */
void shim_arm(const char *folder, long number, int disk) {
    snprintf(root, sizeof root, "%s", folder);
    at = number;
    full = disk;
    seen = 0;
}

long shim_seen(void) { return seen; }

static int inside(const char *path) { return root[0] && !strncmp(path, root, strlen(root)); }

static int inside_at(int folder, const char *path) {
    char name[64], place[PATH_MAX];
    if (!root[0]) return 0;
    if (path[0] == '/') return inside(path);
    if (folder == AT_FDCWD) return getcwd(place, sizeof place) && inside(place);
    snprintf(name, sizeof name, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(name, place, sizeof place - 1);
    if (n < 0) return 0;
    place[n] = 0;
    return inside(place);
}

static int inside_fd(int file) { return file > 2 && inside_at(file, ""); }

/* Count an event; say whether it is the last (1), or fails for want of space (2). */
static int event(void) {
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (!at || now < at) return 0;
    return full ? 2 : now == at ? 1 : 0;
}

static void die(void) { _exit(137); }

#define STOP(condition, failed) \
    if (condition) switch (event()) { \
        case 1: die(); \
        case 2: errno = ENOSPC; return failed; \
    }
/* deleting needs no space */
#define STOP_DELETE(condition) if ((condition) && event() == 1) die();

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (inside_fd(file)) switch (event()) {
        case 1: real(file, data, size / 2); die();
        case 2: errno = ENOSPC; return -1;
    }
    return real(file, data, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (inside_fd(file)) switch (event()) {
        case 1: if (count) (void)!real(file, parts, 1); die();
        case 2: errno = ENOSPC; return -1;
    }
    return real(file, parts, count);
}

#define PWRITE(name) \
    ssize_t name(int file, const void *data, size_t size, off64_t place) { \
        REAL(ssize_t, #name, int, const void *, size_t, off64_t); \
        if (inside_fd(file)) switch (event()) { \
            case 1: real(file, data, size / 2, place); die(); \
            case 2: errno = ENOSPC; return -1; \
        } \
        return real(file, data, size, place); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))
#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list more; va_start(more, last); mode = va_arg(more, mode_t); va_end(more); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE(flags, flags) \
        REAL(int, #name, const char *, int, ...); \
        STOP(CHANGES(flags) && inside_at(AT_FDCWD, path), -1) \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE(flags, flags) \
        REAL(int, #name, int, const char *, int, ...); \
        STOP(CHANGES(flags) && inside_at(folder, path), -1) \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *how) { \
        REAL(FILE *, #name, const char *, const char *); \
        STOP(strpbrk(how, "wa+") && inside_at(AT_FDCWD, path), NULL) \
        return real(path, how); \
    }
FOPEN(fopen)
FOPEN(fopen64)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    STOP(inside_at(AT_FDCWD, to), -1)
    return real(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    STOP(inside_at(b, to), -1)
    return real(a, from, b, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    STOP_DELETE(inside_at(AT_FDCWD, path))
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    STOP_DELETE(inside_at(folder, path))
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    STOP_DELETE(inside_at(AT_FDCWD, path))
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    STOP(inside_at(AT_FDCWD, path), -1)
    return real(path, mode);
}

#define TRUNCATE(name) \
    int name(int file, off64_t size) { \
        REAL(int, #name, int, off64_t); \
        STOP(inside_fd(file), -1) \
        return real(file, size); \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int fsync(int file) {
    REAL(int, "fsync", int);
    STOP_DELETE(inside_fd(file))
    return real(file);
}
