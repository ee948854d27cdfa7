/*
 * barrier: the ranks of a group meet. Each has one monotonic arrival word on its own line of its worker slot, written
 * by it alone; a rank goes on when all arrival words have reached its phase. No counter is shared, so a dead or a new
 * process cannot shift a phase.
 *
 * Waiting: spin, then sleep on the own `asleep` word. The one who completes a phase wakes the sleepers. A change of
 * the group's epoch ends every wait with ERR_ABORTED. (An all-to-all flag barrier: each rank reads n words; Mellor-
 * Crummey and Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors", TOCS 1991, section
 * 3, has its kin. For tens of ranks reading beats trees.)
 */
#ifndef QUIRE_SHM_BARRIER_H
#define QUIRE_SHM_BARRIER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "shm/arena.h"
#include "shm/layout.h"
#include "shm/worker_slot.h"

enum { BARRIER_SPIN_US = 50 };

/* One rank's private handle. */
struct barrier {
    struct group_word *group;
    struct worker_slot *me;
    struct worker_slot *slots[WORKER_SLOTS_MAX]; /* by rank */
    uint32_t rank, ranks;
    uint32_t epoch;
    uint32_t phase; /* of the last meeting; may wrap, ranks are never more than one apart */
    uint32_t spin_us;
};

/*
 * Takes a place among `ranks` workers whose slot numbers stand in slots[rank]. Must be done by the thread that meets,
 * between meetings; all ranks of one epoch give the same list. ERR_INVALID: rank, ranks, group or a slot number
 * beyond bounds. cores: that the ranks may run on, 0: all of the machine; with fewer cores than ranks nobody spins,
 * since the awaited one may need this core.
 */
enum err barrier_join(struct barrier *b, const struct arena *a, uint32_t group, uint32_t epoch, uint32_t rank,
                      uint32_t ranks, const uint32_t *slots, uint32_t cores, struct why *why);

/*
 * Returns OK when all ranks have called it as often as this one since they joined; what they wrote before is visible.
 * ERR_ABORTED: the epoch is over.
 */
enum err barrier_meet(struct barrier *b);

/* Coordinator: the group goes on with this epoch (higher than all before); every wait of another one ends. */
void barrier_set_epoch(struct arena *a, uint32_t group, uint32_t epoch);

/* Coordinator: is `word` (a slot's `arrived`) behind `other` of the same epoch? For finding the one that hangs. */
bool arrival_is_behind(uint64_t word, uint64_t other);

#endif
