/*
 * arena: one process's view of a server's shared memory. The shared part is layout.h; this handle is private.
 *
 * Coordinator: arena_create or arena_adopt maps everything but pages, weights and work, which it never reads.
 * Worker:      arena_attach maps table and sessions for reading and slots for writing; arena_join maps the rest for
 *              its group.
 */
#ifndef QUIRE_SHM_ARENA_H
#define QUIRE_SHM_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "shm/layout.h"
#include "shm/segment.h"

/* That many owners may die over one memory before it is believed to be the reason. */
enum { TAKEOVERS_MOST = 3 };

struct arena {
    struct segment_home home;
    struct arena_geometry geometry; /* private copies: what was checked once cannot change under our feet */
    struct arena_layout layout;
    struct segment table, sessions, slots;
    struct segment pages[NODES_MAX];
    struct segment weights; /* of the joined group's node */
    struct segment work;    /* of the joined group */
    uint32_t group;         /* joined group, UINT32_MAX: none */
    uint64_t touched;       /* bytes of the joined group's memory that are in this process's page tables */
};

/*
 * Makes, reserves and populates all segments; state BUILDING. model: geometry->model_bytes opaque bytes for the
 * workers. On any error nothing is left behind. Caller holds the instance and found no leftovers.
 */
enum err arena_create(struct arena *a, const struct segment_home *home, const struct arena_geometry *geometry,
                      uint64_t model_hash, const void *model, struct why *why);

/*
 * Takes over what a dead server of that name left: magic, crc, versions, boot, model hash and geometry must be equal,
 * the state not BUILDING, and fewer than TAKEOVERS_MOST owners in a row may have taken it over without saying that they
 * do well; else ERR_FORMAT and the reason. Then state ADOPTING. The caller has ended the old workers, and checks sessions and
 * descriptors next (session_slots_adopt, page_pool_adopt).
 */
enum err arena_adopt(struct arena *a, const struct segment_home *home, const struct arena_geometry *geometry,
                     uint64_t model_hash, const void *model, struct why *why);

/* The owner does well with what it took over: the count of takeovers begins anew. */
void arena_does_well(struct arena *a);

/* A worker, or `quire inspect` with read_only. Header and sizes are checked. */
enum err arena_attach(struct arena *a, const struct segment_home *home, bool read_only, struct why *why);

/*
 * Maps what a worker of `group` needs: pages (its own node's for writing, others' for reading), its node's weights
 * (for writing when build), its group's work. Leaves the group joined before. A worker that finished building calls
 * arena_seal_weights. The memory is there, but this process's page tables are empty: a fault for each 4 KiB
 * that it touches first, unless arena_touch_more has been there before.
 */
enum err arena_join(struct arena *a, uint32_t group, bool build, struct why *why);
enum err arena_seal_weights(struct arena *a, struct why *why);

/* Touches the next `bytes` (a multiple of 4096) of the joined group's memory. False: all of it has been touched. */
bool arena_touch_more(struct arena *a, uint64_t bytes);

/* Unmaps everything; removes nothing. A life lock of this process must have been left before (worker_slot_leave). */
void arena_detach(struct arena *a);

/* Coordinator only: the one place that moves the state and tells who owns the memory. */
void arena_set_state(struct arena *a, enum arena_state state);
enum arena_state arena_state(const struct arena *a);

/* The header; read-only for all but arena.c. */
const struct arena_header *arena_header(const struct arena *a);
const void *arena_model(const struct arena *a);

/* Coordinator only: weights.N is whole (all shares were reported built), and whether it is. */
void arena_mark_weights_built(struct arena *a, uint32_t node);
bool arena_weights_built(const struct arena *a, uint32_t node);

/* The bytes of a page, for a worker that joined. page < page_count; writable only on the group's own node. */
uint8_t *arena_page(const struct arena *a, page_id page);

/* weights.NODE and the part of work.G behind the results, for a worker that joined. 4096-byte and 64-byte aligned. */
uint8_t *arena_weights(const struct arena *a);
uint8_t *arena_work(const struct arena *a);

/*
 * Start time of a process in clock ticks since boot, 0 when there is none: (pid, start time) names a process for
 * good.
 */
uint64_t process_start_time(int32_t pid);

#endif
