/*
 * room: how much shared memory can still be reserved: what the file system holds, and what the machine or the container has
 * memory for. A tmpfs promises more than there is memory, and whoever believes it is killed.
 */
#ifndef QUIRE_SHM_ROOM_H
#define QUIRE_SHM_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct room {
    uint64_t file_system; /* bytes free */
    uint64_t memory;      /* bytes that can be had without anybody's death; UINT64_MAX: the file system has its own */
    bool in_memory;       /* a tmpfs or hugetlbfs */
};

/* directory "": where POSIX shared memory lies. ERR_INVALID: it is no directory that can be looked at. */
enum err room_read(struct room *room, const char *directory, struct why *why);

/* The lesser of the two. */
uint64_t room_bytes(const struct room *room);

/* OK, or ERR_FULL with how much is wanted, how much there is and what to do. */
enum err room_check(const char *directory, uint64_t wanted, struct why *why);

/*
 * Processes of this one's control group that the kernel's out-of-memory killer has ended so far, from the group's memory.events; 0 where
 * that cannot be read. root: where control groups of version 2 are mounted; membership: /proc/self/cgroup.
 */
uint64_t room_oom_kills(const char *root, const char *membership);
#define ROOM_CGROUP_ROOT "/sys/fs/cgroup"
#define ROOM_CGROUP_MEMBERSHIP "/proc/self/cgroup"

#endif
