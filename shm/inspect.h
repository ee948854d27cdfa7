/*
 * inspect: what the memory of a live or dead server says, read without a lock and without trust: counts may be a
 * moment apart from one another.
 */
#ifndef QUIRE_SHM_INSPECT_H
#define QUIRE_SHM_INSPECT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "shm/layout.h"
#include "shm/page_pool.h"
#include "shm/segment.h"
#include "shm/session.h"
#include "shm/worker_slot.h"

struct inspected_worker {
    uint32_t slot, generation, pid, group, rank, epoch, cpu;
    enum worker_state state;
    bool alive; /* a process with that pid and start time exists */
    bool spare; /* it has joined no group yet: group, rank and epoch say nothing */
    uint64_t step_done, beat_us, busy_us, wait_us, steps, tokens, aborts, sleeps, arrived;
    uint32_t event_count; /* in events, oldest first */
    struct worker_event events[WORKER_EVENTS];
};

struct inspected_session {
    uint32_t slot, generation, group;
    enum session_state state;
    char id[SESSION_ID_BYTES];
    uint32_t tokens, kv, prompt_tokens, pages;
    uint32_t window_pages; /* that its window still needs */
};

struct inspection {
    char name[INSTANCE_NAME_MAX + 1];
    bool server_runs;    /* somebody holds the name */
    uint32_t holder_pid; /* who */
    uint32_t header_version, layout_version;
    enum arena_state state;
    uint32_t owner_pid;
    uint64_t model_hash, generation, weights_built, started_us;
    struct arena_geometry geometry;
    uint64_t total_bytes;
    uint32_t group_epochs[GROUPS_MAX];
    uint32_t pages_by_state[PAGE_STATES];
    uint32_t page_count, shared_pages, damaged_pages; /* damaged: sealed with a crc that does not fit */
    uint32_t worker_count, session_count;             /* those that are or were in use */
    struct inspected_worker *workers;                 /* owned */
    struct inspected_session *sessions;               /* owned */
};

/*
 * ERR_INVALID: no such memory. ERR_FORMAT: memory of another version or damaged, with the reason. Free with
 * inspection_fini.
 */
enum err inspection_read(struct inspection *out, const struct segment_home *home, struct why *why);
void inspection_fini(struct inspection *inspection);

/* As text for people. */
void inspection_print(const struct inspection *inspection, FILE *to);

const char *arena_state_name(enum arena_state state);
const char *session_state_name(enum session_state state);

#endif
