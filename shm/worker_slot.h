/*
 * worker_slot: one place per worker process, by which coordinator and peers see whether it lives, where it is, and
 * what it did last.
 *
 * The life lock is a robust process-shared mutex that the computing thread holds from enter to leave. The kernel
 * marks it in that thread's own exit, after which it runs no user code: that mark is the fence behind which its plan
 * may be given to somebody else.
 */
#ifndef QUIRE_SHM_WORKER_SLOT_H
#define QUIRE_SHM_WORKER_SLOT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "shm/arena.h"
#include "shm/layout.h"

/*
 * ABSENT -> STARTING -> READY <-> COMPUTING (a step, a share of the weights); READY -> READY with each new place; any -> LEFT. A dead
 * worker's state stays what it was: ask worker_slot_life().
 */
enum worker_state { WORKER_ABSENT, WORKER_STARTING, WORKER_READY, WORKER_COMPUTING, WORKER_LEFT, WORKER_STATES };

enum worker_event_kind {
    EVENT_NONE,
    EVENT_ENTERED,
    EVENT_JOINED,
    EVENT_STEP,
    EVENT_DONE,
    EVENT_ABORTED,
    EVENT_FAILED,
    EVENT_KINDS
};

struct worker_event {
    uint64_t at_us; /* monotonic clock */
    uint32_t kind;  /* enum worker_event_kind */
    uint32_t epoch;
    uint64_t step;
};

enum { WORKER_EVENTS = 16 };

/*
 * group_word: the epoch of a group. Any other epoch's plans, arrivals and results are void.
 * Writes:    the coordinator.
 * Reads:     the group's workers, in every wait of a barrier.
 * Hand-over: none; a change opens all barriers of the group.
 * Death:     a dead coordinator leaves the epoch that its workers, who die with it, had.
 */
struct group_word {
    alignas(CACHE_LINE) _Atomic uint32_t epoch; /* never 0 once the group has met */
    uint32_t reserve[15];
};
static_assert(sizeof(struct group_word) == CACHE_LINE, "layout changed: bump LAYOUT_VERSION");

/*
 * worker_slot
 * Writes:    line 0 the coordinator, before it spawns the process and when it finds it dead; `life` worker and kernel;
 * `asleep` the worker and whoever wakes it; the rest the worker's computing thread alone. Reads:     peers: arrived and
 * asleep; the coordinator and inspect: everything. Hand-over: arrived is stored with release after a phase's results,
 * step_done after a step's. Death:     the kernel marks `life`. The other words keep their last value;
 * worker_slot_prepare clears them for the next process, after the old one is known to be gone (pidfd) and no group
 * names the slot.
 */
struct worker_slot {
    alignas(CACHE_LINE) uint32_t generation; /* of the process; raised by worker_slot_prepare */
    uint32_t cpu;                            /* where the coordinator wants it; UINT32_MAX: anywhere */
    _Atomic uint32_t found_dead;             /* 1: worker_slot_life saw the kernel's mark */
    uint32_t reserve_coordinator[13];

    alignas(CACHE_LINE) pthread_mutex_t life;

    alignas(CACHE_LINE) _Atomic uint64_t arrived; /* epoch << 32 | phase: the last meeting point this worker reached */

    alignas(CACHE_LINE) _Atomic uint32_t asleep; /* 1: sleeps on this word until somebody stores 0 */

    alignas(CACHE_LINE) _Atomic uint32_t state; /* enum worker_state */
    _Atomic uint32_t pid;
    _Atomic uint64_t start_time; /* with pid: a process for good */
    _Atomic uint32_t epoch;      /* joined with; 0: it is a spare, without rank and group */
    _Atomic uint32_t rank;
    _Atomic uint32_t group;
    _Atomic uint32_t event_count; /* ever written; the ring holds the last WORKER_EVENTS */
    uint64_t reserve_worker[3];

    alignas(CACHE_LINE) _Atomic uint64_t step_done; /* the last step it answered */
    _Atomic uint64_t beat_us; /* monotonic clock, at each step's begin and end and each wait for a message */
    _Atomic uint64_t busy_us; /* computing, waits in barriers included */
    _Atomic uint64_t wait_us; /* of that: waiting in barriers */
    _Atomic uint64_t steps, tokens, aborts, sleeps; /* counters; sleeps: barrier waits that went to the kernel */

    /* a reader may see an event half-written: it is a trace, no truth */
    alignas(CACHE_LINE) struct worker_event events[WORKER_EVENTS];
    uint8_t reserve_events[1024 - 6 * CACHE_LINE - WORKER_EVENTS * sizeof(struct worker_event)];
};
static_assert(sizeof(struct worker_slot) == 1024, "layout changed: bump LAYOUT_VERSION");

struct group_word *group_word_at(const struct arena *a, uint32_t group);
struct worker_slot *worker_slot_at(const struct arena *a, uint32_t slot);

/* Coordinator, before it spawns: everything cleared, a fresh life lock, the next generation, which is returned. */
uint32_t worker_slot_prepare(struct arena *a, uint32_t slot, uint32_t cpu);

/*
 * Worker's computing thread: takes the life lock; state STARTING. ERR_INVALID: the slot does not exist or waits for
 * another generation. ERR_BUSY: somebody lives there.
 */
enum err worker_slot_enter(struct arena *a, uint32_t slot, uint32_t generation, struct why *why);

/* The same thread, at a clean end. */
void worker_slot_leave(struct arena *a, uint32_t slot);

/* The worker's own: the one function that moves its state. */
void worker_slot_set_state(struct worker_slot *s, enum worker_state state);

/* The worker's own: one line in the trace ring. */
void worker_slot_trace(struct worker_slot *s, enum worker_event_kind kind, uint32_t epoch, uint64_t step);

/* The worker's own: now. */
void worker_slot_beat(struct worker_slot *s);

enum worker_life { LIFE_NOBODY, LIFE_HELD, LIFE_DEAD };

/*
 * Coordinator: LIFE_DEAD once the computing thread is gone without leave, and ever after until worker_slot_prepare.
 * LIFE_NOBODY: nobody entered, or it left. A stopped process holds its lock. Microseconds after SIGKILL, long before
 * its pidfd.
 */
enum worker_life worker_slot_life(struct arena *a, uint32_t slot);

const char *worker_state_name(enum worker_state state);
const char *worker_event_name(enum worker_event_kind kind);

#endif
