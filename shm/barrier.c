#include "shm/barrier.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "shm/futex.h"

enum {
    LOOKS_PER_CLOCK = 16,     /* a look with its pause takes about as long as reading the clock: read it seldom */
    SLEEP_AT_MOST_US = 20000, /* nothing should be lost; if a wake-up is, it costs this and no more */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static inline uint64_t arrival(uint32_t epoch, uint32_t phase)
{
    return (uint64_t)epoch << 32 | phase;
}

/* Phases wrap: after 2^32 meetings, some days. Two that matter to each other are never half that apart. */
static inline bool phase_is_behind(uint32_t phase, uint32_t other)
{
    return (int32_t)(phase - other) < 0;
}

bool arrival_is_behind(uint64_t word, uint64_t other)
{
    return word >> 32 == other >> 32 && phase_is_behind((uint32_t)word, (uint32_t)other);
}

enum err barrier_join(struct barrier *b, const struct arena *a, uint32_t group, uint32_t epoch, uint32_t rank,
                      uint32_t ranks, const uint32_t *slots, uint32_t cores, struct why *why)
{
    if (group >= a->geometry.groups || epoch == 0 || ranks == 0 || ranks > a->geometry.worker_slots || rank >= ranks)
        return because(why, ERR_INVALID, "there is no place %u of %u in epoch %u of group %u", rank, ranks, epoch,
                       group);
    for (uint32_t r = 0; r < ranks; r++) {
        if (slots[r] >= a->geometry.worker_slots)
            return because(why, ERR_INVALID, "rank %u is said to be in worker slot %u: the server has %u", r, slots[r],
                           a->geometry.worker_slots);
        b->slots[r] = worker_slot_at(a, slots[r]);
    }
    if (cores == 0)
        cores = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    b->group = group_word_at(a, group);
    b->me = b->slots[rank];
    b->rank = rank;
    b->ranks = ranks;
    b->epoch = epoch;
    b->phase = 0;
    b->spin_us = cores < ranks ? 0 : BARRIER_SPIN_US;

    /* Relaxed: for people. */
    atomic_store_explicit(&b->me->group, group, memory_order_relaxed); /* see above */
    atomic_store_explicit(&b->me->rank, rank, memory_order_relaxed);   /* see above */
    atomic_store_explicit(&b->me->epoch, epoch, memory_order_relaxed); /* see above */
    /* Nothing of an older epoch is behind it. */
    atomic_store_explicit(&b->me->arrived, arrival(epoch, 0), memory_order_release); /* pairs with peers_arrived */
    return OK;
}

/*
 * The order that makes sleeping safe: an arriver stores `arrived`, then loads everybody's `arrived` and `asleep`; a
 * sleeper stores `asleep`, then loads everybody's `arrived` and the epoch. All of these are sequentially consistent, so
 * of two ranks at least one sees the other: either the sleeper sees that nobody is missing, or the last arriver sees
 * that it sleeps. The same between set_epoch and sleeper. (Fences would do, but ThreadSanitizer does not know them; on
 * x86 only the stores cost anything.)
 */
static bool peers_arrived(const struct barrier *b, uint32_t *seen)
{
    for (; *seen < b->ranks; ++*seen) {
        /* seq_cst as above; as an acquire it pairs with the peer's store in barrier_meet: its results are visible. */
        uint64_t word = atomic_load_explicit(&b->slots[*seen]->arrived, memory_order_seq_cst); /* see above */
        if (word >> 32 != b->epoch || phase_is_behind((uint32_t)word, b->phase))
            return false;
    }
    return true;
}

static bool epoch_is_over(const struct barrier *b)
{
    return atomic_load_explicit(&b->group->epoch, memory_order_seq_cst) != b->epoch; /* see barrier_set_epoch */
}

static void wake(struct worker_slot *s)
{
    if (atomic_load_explicit(&s->asleep, memory_order_seq_cst) == 1 &&      /* behind my own store, as above */
        atomic_exchange_explicit(&s->asleep, 0, memory_order_seq_cst) == 1) /* one of several wakers calls the system */
        futex_wake(&s->asleep);
}

static void sleep_once(struct barrier *b, uint32_t *seen)
{
    atomic_store_explicit(&b->me->asleep, 1, memory_order_seq_cst); /* before the last look, as above */
    if (!peers_arrived(b, seen) && !epoch_is_over(b)) {
        futex_wait(&b->me->asleep, 1, SLEEP_AT_MOST_US);
        /* Relaxed: a counter for people, mine alone. */
        atomic_fetch_add_explicit(&b->me->sleeps, 1, memory_order_relaxed); /* see above */
    }
    atomic_store_explicit(&b->me->asleep, 0, memory_order_relaxed); /* a waker that is late wakes nobody: harmless */
}

/* Ends when all have arrived or when the coordinator ends the epoch, which it does for every dead or hanging rank. */
static enum err wait_for_peers(struct barrier *b, uint32_t *seen)
{
    uint64_t began_us = now_us();
    bool spinning = b->spin_us > 0;
    for (uint32_t looks = 1; !peers_arrived(b, seen); looks++) {
        if (epoch_is_over(b))
            return ERR_ABORTED;
        if (!spinning) {
            sleep_once(b, seen);
            continue;
        }
        cpu_pause();
        if (looks % LOOKS_PER_CLOCK == 0)
            spinning = now_us() - began_us < b->spin_us;
    }
    /* Relaxed: a counter for people, mine alone. */
    atomic_fetch_add_explicit(&b->me->wait_us, now_us() - began_us, memory_order_relaxed); /* see above */
    return OK;
}

enum err barrier_meet(struct barrier *b)
{
    if (epoch_is_over(b))
        return ERR_ABORTED;
    b->phase++;
    /* What I wrote is visible to whoever sees me arrive. */
    atomic_store_explicit(&b->me->arrived, arrival(b->epoch, b->phase), memory_order_seq_cst); /* as above; a release */
    fault_point(FAULT_WORKER_ARRIVED);
    uint32_t seen = 0;
    if (!peers_arrived(b, &seen))
        return wait_for_peers(b, &seen);
    for (uint32_t rank = 0; rank < b->ranks; rank++)
        wake(b->slots[rank]); /* I was the last: nobody else can wake them */
    return OK;
}

void barrier_set_epoch(struct arena *a, uint32_t group, uint32_t epoch)
{
    atomic_store_explicit(&group_word_at(a, group)->epoch, epoch, memory_order_seq_cst); /* pairs with epoch_is_over */
    for (uint32_t slot = 0; slot < a->geometry.worker_slots; slot++)
        wake(worker_slot_at(a, slot)); /* of all groups: whoever is woken in vain sleeps on */
}
