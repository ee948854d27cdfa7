/*
 * segment: named pieces of shared memory, "quire.UID.NAME.WHAT", as POSIX shared memory or as files of a directory on
 * another tmpfs or hugetlbfs. A segment is reserved whole when it is made, so that touching it later cannot fail, in huge
 * pages where the kernel makes them; mappings begin where huge pages may.
 *
 * WHAT is one of: table, sessions, slots, pages.N, weights.N, work.N, lock. Because the last part of a file's name
 * tells which, a server named "a" never mistakes segments of one named "a.b" for its own.
 */
#ifndef QUIRE_SHM_SEGMENT_H
#define QUIRE_SHM_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { INSTANCE_NAME_MAX = 40, SEGMENT_WHAT_MAX = 24, SEGMENT_DIRECTORY_MAX = 4000 };

/* Where the segments of one server lie. */
struct segment_home {
    char name[INSTANCE_NAME_MAX + 1];
    char directory[SEGMENT_DIRECTORY_MAX + 1]; /* "": POSIX shared memory */
};

/* name: 1 to 40 of A-Z a-z 0-9 _ . -; directory NULL or "": POSIX shared memory. */
enum err segment_home_init(struct segment_home *home, const char *name, const char *directory, struct why *why);

enum segment_access { SEGMENT_READ, SEGMENT_WRITE };

/* This process's mapping. */
struct segment {
    uint8_t *base; /* NULL: not mapped */
    uint64_t bytes;
    enum segment_access access;
};

/*
 * Makes a new segment of zeros, mapped for writing, all its memory reserved, on NUMA node `node` where that can be
 * (-1: anywhere). ERR_BUSY: the name exists. ERR_FULL: there is not that much room; the sentence says how much is
 * needed, how much there is and what to do; nothing is left behind.
 */
enum err segment_create(struct segment *s, const struct segment_home *home, const char *what, uint64_t bytes, int node,
                        struct why *why);

/* Touches every page, so that no step waits for the kernel. Returns whether any of them is huge. */
bool segment_populate(struct segment *s);

/* Puts bytes [from, from + bytes), cut at the segment's end, into this process's page tables; from is a multiple of 4096. */
void segment_touch(struct segment *s, uint64_t from, uint64_t bytes);

/* Maps an existing segment. bytes 0: whatever size it has; else any other size is ERR_FORMAT. Missing: ERR_INVALID. */
enum err segment_attach(struct segment *s, const struct segment_home *home, const char *what, uint64_t bytes,
                        enum segment_access access, struct why *why);

/* Takes the right to write away from this mapping for good. */
enum err segment_seal(struct segment *s, struct why *why);

/* Unmaps; the segment stays. Harmless on a segment that is not mapped. */
void segment_detach(struct segment *s);

/* Removes the name; who has it mapped keeps it. A missing one is OK. */
enum err segment_remove(const struct segment_home *home, const char *what, struct why *why);

/*
 * Opens or makes the file of a segment without mapping it: for lock files. flags as of open(2). Returns -1 with
 * errno.
 */
int segment_open_file(const struct segment_home *home, const char *what, int flags);

/* Calls found for each segment of this user below home->directory: of home->name only, or of all names when `all`. */
typedef void (*segment_found_fn)(void *arg, const char *name, const char *what, uint64_t bytes);
enum err segment_list(const struct segment_home *home, bool all, segment_found_fn found, void *arg, struct why *why);

#endif
