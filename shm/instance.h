/*
 * instance: one server's name, held by flock on "quire.UID.NAME.lock" for the life of its coordinator. The kernel
 * lets go of it when the coordinator dies in any way, so whoever holds it knows that no other coordinator is alive;
 * workers may be: the holder ends them (worker_slot.h has their pids) before it touches their memory.
 */
#ifndef QUIRE_SHM_INSTANCE_H
#define QUIRE_SHM_INSTANCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "shm/segment.h"

/* What a dead server had left, for one log line. */
struct leftovers {
    uint32_t segments;
    uint64_t bytes;
};

struct instance {
    struct segment_home home;
    int lock_fd; /* -1: not held */
};

/*
 * Takes the name. ERR_BUSY: `server "default" is already running (pid 4711)`. The lock is not inherited by exec; a
 * forked child that keeps the descriptor keeps the lock, so spawners close it.
 */
enum err instance_hold(struct instance *instance, const char *name, const char *directory, struct why *why);

/* Lets go of the name and removes its lock file. Segments stay. */
void instance_release(struct instance *instance);

/* The pid of the running server of that name, 0 when none runs. Takes nothing. */
pid_t instance_holder(const struct segment_home *home);

/* True when any segment of this name exists. */
bool instance_has_leftovers(const struct segment_home *home);

/* Removes every segment of the name. Caller must hold it, and must have ended the workers that may be left. */
enum err instance_clear(const struct instance *held, struct leftovers *dropped, struct why *why);

/*
 * Removes the segments of all names that begin with `prefix` and that nobody holds: what killed owners left. For names that no other start
 * comes back to. What cannot be removed stays.
 */
void instance_sweep(const char *prefix, const char *directory, struct leftovers *dropped);

#endif
