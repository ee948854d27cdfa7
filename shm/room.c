/* room: see room.h. */
#include "shm/room.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>

#include "base/checked.h"

#define POSIX_DIRECTORY "/dev/shm"

/* The number that a line of the file begins its text with; `key` "" takes the first line. False: there is none. */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char line[256];
    bool found = false;
    size_t length = strlen(key);
    while (!found && fgets(line, sizeof line, file)) {
        unsigned long long number;
        if (strncmp(line, key, length) == 0 && sscanf(line + length, " %llu", &number) == 1) {
            *out = number;
            found = true;
        }
    }
    fclose(file);
    return found;
}

static uint64_t memory_of_machine(void)
{
    uint64_t kib = 0, bytes = UINT64_MAX;
    if (read_number("/proc/meminfo", "MemAvailable:", &kib) && !checked_mul(kib, 1024, &bytes))
        bytes = UINT64_MAX;
    return bytes;
}

/* Under a limit, file pages that nobody has used of late count as free, as they do in MemAvailable. */
static uint64_t memory_under_limit(const char *limit_path, const char *usage_path, const char *stat_path,
                                   const char *stat_key)
{
    uint64_t limit, usage, idle = 0;
    if (!read_number(limit_path, "", &limit) || !read_number(usage_path, "", &usage)) /* "max" is no number */
        return UINT64_MAX;
    read_number(stat_path, stat_key, &idle);
    usage = usage > idle ? usage - idle : 0;
    return limit > usage ? limit - usage : 0;
}

static uint64_t memory_of_container(void)
{
    uint64_t now = memory_under_limit("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                      "/sys/fs/cgroup/memory.stat", "inactive_file ");
    uint64_t before =
        memory_under_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                           "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file "); /* cgroups of version 1 */
    return now < before ? now : before;
}

enum err room_read(struct room *room, const char *directory, struct why *why)
{
    struct statfs fs;
    const char *path = *directory ? directory : POSIX_DIRECTORY;
    int rc;
    do
        rc = statfs(path, &fs);
    while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return because_errno(why, ERR_INVALID, "could not look at \"%.200s\", where the shared memory is to lie", path);
    uint64_t machine = memory_of_machine(), container = memory_of_container();
    bool tmpfs = fs.f_type == TMPFS_MAGIC;
    *room = (struct room){.in_memory = tmpfs || fs.f_type == HUGETLBFS_MAGIC, .memory = UINT64_MAX};
    if (!checked_mul((uint64_t)fs.f_bavail, (uint64_t)fs.f_bsize, &room->file_system))
        room->file_system = UINT64_MAX;
    if (tmpfs && fs.f_blocks == 0)
        room->file_system = UINT64_MAX; /* mounted without a limit */
    if (tmpfs)
        room->memory = machine < container ? machine : container;
    return OK;
}

uint64_t room_bytes(const struct room *room)
{
    return room->file_system < room->memory ? room->file_system : room->memory;
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

enum err room_check(const char *directory, uint64_t wanted, struct why *why)
{
    struct room room;
    enum err err = room_read(&room, directory, why);
    if (err != OK || wanted <= room_bytes(&room))
        return err;
    if (wanted > room.memory)
        return because(
            why, ERR_FULL,
            "could not reserve %.1f MiB of shared memory: there are %.1f MiB of memory left; give --kv-memory less, or "
            "serve where there is more",
            mib(wanted), mib(room.memory));
    return because(
        why, ERR_FULL,
        "could not reserve %.1f MiB of shared memory: %.200s has %.1f MiB left; give --kv-memory less, make it larger "
        "(mount -o remount,size=…, in a container --shm-size), or name another tmpfs with --shm-dir",
        mib(wanted), *directory ? directory : POSIX_DIRECTORY, mib(room.file_system));
}

uint64_t room_oom_kills(const char *root, const char *membership)
{
    char line[512], path[1024];
    uint64_t kills = 0;
    FILE *file = fopen(membership, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "0::/", 4) == 0) { /* the one of version 2 (cgroups(7)) */
            line[strcspn(line, "\n")] = 0;
            snprintf(path, sizeof path, "%.400s%.500s/memory.events", root, line + 3);
            read_number(path, "oom_kill ", &kills);
        }
    fclose(file);
    return kills;
}
