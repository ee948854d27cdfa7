#include "shm/worker_slot.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"

struct group_word *group_word_at(const struct arena *a, uint32_t group)
{
    must(group < a->geometry.groups);
    return (struct group_word *)(void *)a->slots.base + group;
}

struct worker_slot *worker_slot_at(const struct arena *a, uint32_t slot)
{
    must(slot < a->geometry.worker_slots);
    return (struct worker_slot *)(void *)(a->slots.base + a->layout.worker_slots_at) + slot;
}

#define BIT(state) (1u << (state))
static const uint8_t may_follow[WORKER_STATES] = {
    [WORKER_ABSENT] = BIT(WORKER_STARTING),
    [WORKER_STARTING] = BIT(WORKER_READY) | BIT(WORKER_LEFT),
    [WORKER_READY] = BIT(WORKER_READY) | BIT(WORKER_COMPUTING) | BIT(WORKER_STARTING) | BIT(WORKER_LEFT),
    [WORKER_COMPUTING] = BIT(WORKER_READY) | BIT(WORKER_LEFT),
    [WORKER_LEFT] = 0, /* worker_slot_prepare makes it ABSENT, for another process */
};

void worker_slot_set_state(struct worker_slot *s, enum worker_state state)
{
    /* Relaxed: only this thread writes it, and nobody acts on it alone. */
    uint32_t now = atomic_load_explicit(&s->state, memory_order_relaxed);
    must(now < WORKER_STATES && (may_follow[now] & BIT(state)));
    /* Release: what the state announces is there; pairs with the acquire of readers. */
    atomic_store_explicit(&s->state, (uint32_t)state, memory_order_release);
}

uint32_t worker_slot_prepare(struct arena *a, uint32_t slot, uint32_t cpu)
{
    struct worker_slot *s = worker_slot_at(a, slot);
    uint32_t generation = s->generation + 1 ? s->generation + 1 : 1;
    memset(s, 0, sizeof *s); /* nobody lives here: the caller has seen the former process's pidfd end */
    s->generation = generation;
    s->cpu = cpu;

    pthread_mutexattr_t attributes;
    must(pthread_mutexattr_init(&attributes) == 0);
    must(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0);
    must(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    must(pthread_mutex_init(&s->life, &attributes) == 0);
    pthread_mutexattr_destroy(&attributes);
    return generation;
}

enum err worker_slot_enter(struct arena *a, uint32_t slot, uint32_t generation, struct why *why)
{
    if (slot >= a->geometry.worker_slots)
        return because(why, ERR_INVALID, "there is no worker slot %u: the server has %u", slot,
                       a->geometry.worker_slots);
    struct worker_slot *s = worker_slot_at(a, slot);
    if (generation == 0 || s->generation != generation)
        return because(why, ERR_INVALID, "worker slot %u waits for process generation %u, this one is %u", slot,
                       s->generation, generation);
    if (atomic_load_explicit(&s->found_dead, memory_order_relaxed)) /* set long before this process could be meant */
        return because(why, ERR_BUSY, "worker slot %u is not empty: its worker died", slot);
    int rc = pthread_mutex_trylock(&s->life);
    if (rc == EBUSY) { /* a coordinator that looks holds it for an instant; a worker for good */
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        rc = pthread_mutex_timedlock(&s->life, &until);
    }
    if (rc != 0)
        return because(why, ERR_BUSY, "worker slot %u is not empty: its worker %s", slot,
                       rc == ETIMEDOUT ? "lives" : "died");
    /* Relaxed: set_state publishes them. */
    atomic_store_explicit(&s->pid, (uint32_t)getpid(), memory_order_relaxed);                           /* see above */
    atomic_store_explicit(&s->start_time, process_start_time((int32_t)getpid()), memory_order_relaxed); /* see above */
    worker_slot_set_state(s, WORKER_STARTING);
    worker_slot_beat(s);
    worker_slot_trace(s, EVENT_ENTERED, 0, 0);
    return OK;
}

void worker_slot_leave(struct arena *a, uint32_t slot)
{
    struct worker_slot *s = worker_slot_at(a, slot);
    worker_slot_set_state(s, WORKER_LEFT);
    must(pthread_mutex_unlock(&s->life) == 0);
}

enum worker_life worker_slot_life(struct arena *a, uint32_t slot)
{
    struct worker_slot *s = worker_slot_at(a, slot);
    if (s->generation == 0)
        return LIFE_NOBODY;                                         /* never prepared: there is no lock yet */
    if (atomic_load_explicit(&s->found_dead, memory_order_relaxed)) /* only the coordinator reads and writes it */
        return LIFE_DEAD;
    int rc = pthread_mutex_trylock(&s->life);
    if (rc == EBUSY)
        return LIFE_HELD;
    if (rc != 0 && rc != EOWNERDEAD)
        return LIFE_DEAD; /* no lock of ours any more: its worker wrote over it, and is to be ended */
    /*
     * Remembered before the lock is let go. (The lock itself, unlocked without pthread_mutex_consistent, should say
     * ENOTRECOVERABLE for ever, but glibc 2.36's trylock says it once and then keeps the lock.) A coordinator that dies
     * in between leaves the mark again.
     */
    if (rc == EOWNERDEAD)
        atomic_store_explicit(&s->found_dead, 1, memory_order_relaxed); /* see above */
    pthread_mutex_unlock(&s->life);
    return rc == 0 ? LIFE_NOBODY : LIFE_DEAD;
}

void worker_slot_beat(struct worker_slot *s)
{
    atomic_store_explicit(&s->beat_us, now_us(), memory_order_relaxed); /* alone it says all it says */
}

void worker_slot_trace(struct worker_slot *s, enum worker_event_kind kind, uint32_t epoch, uint64_t step)
{
    /* Relaxed: only this thread writes it. */
    uint32_t count = atomic_load_explicit(&s->event_count, memory_order_relaxed);
    s->events[count % WORKER_EVENTS] =
        (struct worker_event){.at_us = now_us(), .kind = kind, .epoch = epoch, .step = step};
    /* Release: the event before the count; pairs with the acquire of inspect. */
    atomic_store_explicit(&s->event_count, count + 1, memory_order_release);
}

const char *worker_state_name(enum worker_state state)
{
    static const char *const names[WORKER_STATES] = {"absent", "starting", "ready", "computing", "left"};
    return (unsigned)state < WORKER_STATES ? names[state] : "damaged";
}

const char *worker_event_name(enum worker_event_kind kind)
{
    static const char *const names[EVENT_KINDS] = {"none", "entered", "joined", "step", "done", "aborted", "failed"};
    return (unsigned)kind < EVENT_KINDS ? names[kind] : "damaged";
}
