/*
 * affinity: the calling thread on its core, its memory on its node. A machine that refuses (a container's filter, a core that
 * was taken away) makes a worker slower, never wrong: the caller warns and goes on.
 */
#ifndef QUIRE_WORKER_AFFINITY_H
#define QUIRE_WORKER_AFFINITY_H

#include <stdint.h>

#include "base/err.h"

enum { AFFINITY_ANY = UINT32_MAX };

/* Cores that the calling thread may run on; at least 1. Ask before pinning. */
uint32_t affinity_cores(void);

/*
 * Pins the calling thread only to that core, as the system numbers it, and takes the memory that it touches first from now on
 * from the core's node. Opens no file. AFFINITY_ANY does nothing. Threads made later inherit both: make libzmq's before.
 */
enum err affinity_pin(uint32_t cpu, struct why *why);

/*
 * The calling thread keeps its fair share of its core and takes it in long slices, so that whoever wakes up on that core for a
 * moment (the coordinator, libzmq's threads) goes first. A lower priority would do that too, but a neighbour that computes
 * all the time would then get three quarters of the core. Linux 6.12 and later; before it, nothing changes.
 */
void affinity_take_long_slices(void);

#endif
