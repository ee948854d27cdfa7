#include "shm/segment.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <numaif.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/must.h"

/* Linux 5.14 and 6.1; headers may be older than the kernel. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define POSIX_DIRECTORY "/dev/shm"

enum {
    FILE_NAME_MAX = 16 + 10 + INSTANCE_NAME_MAX + SEGMENT_WHAT_MAX,
    PAGE_BYTES = 4096,
    HUGE_BYTES = 2 << 20,
    COLLAPSE_BYTES = 128 << 20, /* of one call: it has a fixed price, and no signal gets through meanwhile */
    COLLAPSE_FAILURES_MOST = 4, /* then memory is too scattered to go on asking */
};

enum err segment_home_init(struct segment_home *home, const char *name, const char *directory, struct why *why)
{
    size_t length = strlen(name);
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    if (length == 0 || length > INSTANCE_NAME_MAX || strspn(name, allowed) != length)
        return because(why, ERR_INVALID,
                       "a server cannot be named \"%.60s\": a name is 1 to %d of the characters A-Z a-z 0-9 _ . -",
                       name, INSTANCE_NAME_MAX);
    memset(home, 0, sizeof *home);
    memcpy(home->name, name, length);
    if (directory) {
        if (strlen(directory) > SEGMENT_DIRECTORY_MAX)
            return because(why, ERR_INVALID, "the directory for shared memory has a name of more than %d bytes",
                           SEGMENT_DIRECTORY_MAX);
        strcpy(home->directory, directory);
    }
    return OK;
}

static bool is_posix(const struct segment_home *home)
{
    return home->directory[0] == '\0';
}

static const char *directory_of(const struct segment_home *home)
{
    return is_posix(home) ? POSIX_DIRECTORY : home->directory;
}

/* The name that open or shm_open takes. */
static void full_name(char *out, size_t room, const struct segment_home *home, const char *what)
{
    int n = snprintf(out, room, "%s/quire.%u.%s.%s", home->directory, (unsigned)getuid(), home->name, what);
    must(n > 0 && (size_t)n < room);
}

int segment_open_file(const struct segment_home *home, const char *what, int flags)
{
    char name[SEGMENT_DIRECTORY_MAX + FILE_NAME_MAX];
    full_name(name, sizeof name, home, what);
    int fd;
    do
        fd =
            is_posix(home) ? shm_open(name, flags | O_CLOEXEC, 0600) : open(name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    while (fd < 0 && errno == EINTR);
    return fd;
}

enum err segment_remove(const struct segment_home *home, const char *what, struct why *why)
{
    char name[SEGMENT_DIRECTORY_MAX + FILE_NAME_MAX];
    full_name(name, sizeof name, home, what);
    if ((is_posix(home) ? shm_unlink(name) : unlink(name)) != 0 && errno != ENOENT)
        return because_errno(why, ERR_IO, "could not remove shared memory \"%s\" of server \"%s\"", what, home->name);
    return OK;
}

/*
 * Whole blocks of the file system: a huge page on hugetlbfs. Not those that the file names (st_blksize): in a tmpfs with huge pages they
 * grow with it.
 */
static enum err stored_bytes(int fd, uint64_t bytes, uint64_t *out, struct why *why)
{
    struct statvfs fs;
    if (fstatvfs(fd, &fs) != 0)
        return because_errno(why, ERR_IO, "could not look at shared memory");
    uint64_t block = fs.f_bsize > 0 ? (uint64_t)fs.f_bsize : 4096;
    if ((block & (block - 1)) != 0 || !checked_round_up(bytes, block, out) || *out > INT64_MAX)
        return because(why, ERR_INVALID, "could not reserve %llu bytes of shared memory: too much",
                       (unsigned long long)bytes);
    return OK;
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

static enum err reserve(int fd, const struct segment_home *home, const char *what, uint64_t bytes, struct why *why)
{
    int rc;
    do
        rc = posix_fallocate(fd, 0, (off_t)bytes);
    while (rc == EINTR);
    if (rc == 0)
        return OK;
    errno = rc;
    if (rc != ENOSPC && rc != ENOMEM)
        return because_errno(why, ERR_IO, "could not reserve %.1f MiB of shared memory for \"%s\" in %s", mib(bytes),
                             what, directory_of(home));
    struct statvfs fs;
    uint64_t available = fstatvfs(fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
    return because(
        why, ERR_FULL,
        "could not reserve %.1f MiB of shared memory for \"%s\": %s has %.1f MiB left; give --kv-memory less, "
        "make it larger (mount -o remount,size=…, in a container --shm-size), or name another tmpfs with "
        "--shm-dir",
        mib(bytes), what, directory_of(home), mib(available));
}

/*
 * Huge pages for what is not reserved yet, as many as the kernel has. It makes them whatever the file system was mounted with
 * (madvise(2), MADV_COLLAPSE) if one of the small ones is there, which also says from which node.
 */
static void reserve_huge(const struct segment *s, int fd)
{
    uint64_t whole = s->bytes / HUGE_BYTES * HUGE_BYTES;
    uint32_t failures = 0;
    if ((uintptr_t)s->base % HUGE_BYTES != 0)
        return;
    for (uint64_t at = 0; at < whole && failures < COLLAPSE_FAILURES_MOST; at += COLLAPSE_BYTES) {
        uint64_t end = whole - at > COLLAPSE_BYTES ? at + COLLAPSE_BYTES : whole;
        for (uint64_t page = at; page < end; page += HUGE_BYTES)
            if (posix_fallocate(fd, (off_t)page, PAGE_BYTES) != 0)
                return; /* whoever reserves the rest will say why */
        if (madvise(s->base + at, (size_t)(end - at), MADV_COLLAPSE) == 0)
            continue;
        if (errno == EINVAL)
            return; /* this kernel or this file system has none */
        failures++;
    }
}

/* Where huge pages can be mapped as such. The caller unmaps [base, base + bytes). */
static void *map_aligned(int fd, uint64_t bytes, int protection)
{
    uint64_t pages, room;
    if (bytes < HUGE_BYTES || !checked_round_up(bytes, PAGE_BYTES, &pages) || !checked_add(pages, HUGE_BYTES, &room))
        return MAP_FAILED;
    uint8_t *start = mmap(NULL, (size_t)room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return MAP_FAILED;
    size_t before = (HUGE_BYTES - (uintptr_t)start % HUGE_BYTES) % HUGE_BYTES, behind = HUGE_BYTES - before;
    uint8_t *base = mmap(start + before, (size_t)bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (base == MAP_FAILED) {
        munmap(start, (size_t)room);
        return MAP_FAILED;
    }
    if (before > 0)
        munmap(start, before);
    munmap(base + pages, behind);
    return base;
}

static enum err map(struct segment *s, int fd, const char *what, uint64_t bytes, enum segment_access access,
                    struct why *why)
{
    int protection = access == SEGMENT_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
    void *base = map_aligned(fd, bytes, protection);
    if (base == MAP_FAILED)
        base = mmap(NULL, (size_t)bytes, protection, MAP_SHARED, fd, 0); /* hugetlbfs aligns by itself */
    if (base == MAP_FAILED)
        return because_errno(why, errno == ENOMEM ? ERR_NOMEM : ERR_IO,
                             "could not map %.1f MiB of shared memory \"%s\"", mib(bytes), what);
    *s = (struct segment){.base = base, .bytes = bytes, .access = access};
    return OK;
}

/* The policy sticks to the segment, so that memory reserved through its descriptor comes from that node too. */
static void prefer_node(const struct segment *s, int node)
{
    unsigned long mask[4] = {0};
    const unsigned bits = 8 * sizeof mask[0];
    if (node < 0 || (unsigned)node >= 4 * bits)
        return;
    mask[(unsigned)node / bits] = 1ul << ((unsigned)node % bits);
    long ignored = mbind(s->base, s->bytes, MPOL_PREFERRED, mask, 4 * bits, 0); /* elsewhere it is slower, not wrong */
    (void)ignored;
}

enum err segment_create(struct segment *s, const struct segment_home *home, const char *what, uint64_t bytes, int node,
                        struct why *why)
{
    *s = (struct segment){0};
    must(bytes > 0);
    int fd = segment_open_file(home, what, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0)
        return because_errno(why, errno == EEXIST ? ERR_BUSY : ERR_IO,
                             "could not make shared memory \"%s\" of server \"%s\" in %s", what, home->name,
                             directory_of(home));
    enum err err = stored_bytes(fd, bytes, &bytes, why);
    if (err != OK)
        goto remove;
    if (ftruncate(fd, (off_t)bytes) != 0) {
        err = because_errno(why, ERR_IO, "could not give shared memory \"%s\" %.1f MiB", what, mib(bytes));
        goto remove;
    }
    err = map(s, fd, what, bytes, SEGMENT_WRITE, why);
    if (err != OK)
        goto remove;
    prefer_node(s, node);
    reserve_huge(s, fd);
    err = reserve(fd, home, what, bytes, why);
    if (err != OK)
        goto unmap;
    close(fd);
    return OK;

unmap:
    segment_detach(s);
remove:
    close(fd);
    segment_remove(home, what, NULL);
    return err;
}

enum err segment_attach(struct segment *s, const struct segment_home *home, const char *what, uint64_t bytes,
                        enum segment_access access, struct why *why)
{
    *s = (struct segment){0};
    int fd = segment_open_file(home, what, access == SEGMENT_WRITE ? O_RDWR : O_RDONLY);
    if (fd < 0 && errno == ENOENT && strcmp(what, "table") == 0)
        return because(why, ERR_INVALID, "there is no memory of a server \"%s\" in %s", home->name, directory_of(home));
    if (fd < 0)
        return because_errno(why, errno == ENOENT ? ERR_INVALID : ERR_IO,
                             "could not open shared memory \"%s\" of server \"%s\"", what, home->name);
    struct stat st;
    uint64_t expected = 0;
    enum err err = stored_bytes(fd, bytes, &expected, why);
    if (err != OK)
        goto close;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != getuid() || st.st_size <= 0) {
        err = because(why, ERR_FORMAT,
                      "shared memory \"%s\" of server \"%s\" is not a file of this user with bytes in it", what,
                      home->name);
        goto close;
    }
    if (bytes != 0 && (uint64_t)st.st_size != expected) {
        err = because(why, ERR_FORMAT, "shared memory \"%s\" of server \"%s\" has %llu bytes where %llu are expected",
                      what, home->name, (unsigned long long)st.st_size, (unsigned long long)expected);
        goto close;
    }
    err = map(s, fd, what, (uint64_t)st.st_size, access, why);
close:
    close(fd);
    return err;
}

/* Whether the kernel says that any of the mapping at base is in huge pages. */
static bool has_huge_pages(const struct segment *s)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    if (!smaps)
        return false;
    char line[512];
    bool here = false, huge = false;
    while (fgets(line, sizeof line, smaps)) {
        char *end;
        unsigned long long from = strtoull(line, &end, 16);
        if (*end == '-' && isxdigit((unsigned char)line[0])) {
            if (here)
                break;
            here = from == (unsigned long long)(uintptr_t)s->base;
        } else if (here) {
            unsigned long long kib = 0;
            if (sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1 || sscanf(line, "FilePmdMapped: %llu", &kib) == 1)
                huge |= kib > 0;
            else if (sscanf(line, "KernelPageSize: %llu", &kib) == 1)
                huge |= kib > 4;
        }
    }
    fclose(smaps);
    return huge;
}

void segment_touch(struct segment *s, uint64_t from, uint64_t bytes)
{
    must(s->base && from % 4096 == 0 && from <= s->bytes);
    bool writable = s->access == SEGMENT_WRITE;
    uint64_t end = bytes < s->bytes - from ? from + bytes : s->bytes;
    int rc;
    do
        rc = madvise(s->base + from, (size_t)(end - from), writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    while (rc != 0 && errno == EINTR);
    if (rc != 0)
        for (uint64_t at = from; at < end; at += 4096) {
            _Atomic uint8_t *byte = (_Atomic uint8_t *)(void *)(s->base + at);
            if (writable)
                atomic_fetch_or_explicit(byte, 0,
                                         memory_order_relaxed); /* a write that changes nothing; orders nothing */
            else
                (void)atomic_load_explicit(byte, memory_order_relaxed); /* only the fault matters */
        }
}

bool segment_populate(struct segment *s)
{
    must(s->base);
    int ignored = madvise(s->base, (size_t)s->bytes, MADV_HUGEPAGE); /* refused or taken: has_huge_pages tells */
    (void)ignored;
    segment_touch(s, 0, s->bytes);
    return has_huge_pages(s);
}

enum err segment_seal(struct segment *s, struct why *why)
{
    must(s->base);
    if (mprotect(s->base, (size_t)s->bytes, PROT_READ) != 0)
        return because_errno(why, ERR_IO, "could not make %.1f MiB of shared memory read-only", mib(s->bytes));
    s->access = SEGMENT_READ;
    return OK;
}

void segment_detach(struct segment *s)
{
    if (s->base)
        must(munmap(s->base, (size_t)s->bytes) == 0);
    *s = (struct segment){0};
}

static bool is_number(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* Where WHAT begins in "NAME.WHAT", NULL when it ends like no segment. */
static char *find_what(char *rest)
{
    static const char *const single[] = {"table", "sessions", "slots", "lock"};
    static const char *const numbered[] = {"pages", "weights", "work"};
    char *last = strrchr(rest, '.');
    if (!last)
        return NULL;
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++)
        if (strcmp(last + 1, single[i]) == 0)
            return last + 1;
    if (!is_number(last + 1))
        return NULL;
    *last = '\0';
    char *before = strrchr(rest, '.');
    *last = '.';
    for (size_t i = 0; before && i < sizeof numbered / sizeof numbered[0]; i++) {
        size_t length = strlen(numbered[i]);
        if (strncmp(before + 1, numbered[i], length) == 0 && before + 1 + length == last)
            return before + 1;
    }
    return NULL;
}

enum err segment_list(const struct segment_home *home, bool all, segment_found_fn found, void *arg, struct why *why)
{
    DIR *directory = opendir(directory_of(home));
    if (!directory)
        return because_errno(why, ERR_IO, "could not list shared memory in %s", directory_of(home));
    char prefix[32];
    int prefix_length = snprintf(prefix, sizeof prefix, "quire.%u.", (unsigned)getuid());
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        char rest[sizeof entry->d_name];
        struct stat st;
        if (strncmp(entry->d_name, prefix, (size_t)prefix_length) != 0)
            continue;
        strcpy(rest, entry->d_name + prefix_length);
        char *what = find_what(rest);
        if (!what || what == rest)
            continue;
        what[-1] = '\0'; /* rest is the server's name now */
        if (!all && strcmp(rest, home->name) != 0)
            continue;
        if (fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            found(arg, rest, what, (uint64_t)st.st_size);
    }
    closedir(directory);
    return OK;
}
