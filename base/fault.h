/*
 * fault: named places where a test lets a process die, stop or fail. Only builds with QUIRE_FAULTS (make VARIANT=faults)
 * have them; elsewhere fault_point is the constant false and no name of a point is in the program.
 *
 * QUIRE_FAULT="name:action:nth" (":slot" or ":slot.generation" may follow, for one worker) arms one point; each process
 * counts its own passings. QUIRE_FAULT_BOARD names a file of FAULT_BOARD_BYTES that all processes of a server map and a
 * test writes while they run: passings are counted over all of them there, so that a fault fires once and not again in
 * the process that comes to replace the dead one.
 */
#ifndef QUIRE_BASE_FAULT_H
#define QUIRE_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

enum fault {
#define X(id, name, can_fail, where) FAULT_##id,
#include "base/faults.def"
#undef X
    FAULTS
};

enum { FAULT_MARKED_SEED = 11 }; /* of requests that a test can make deadly, and no other */

#ifdef QUIRE_FAULTS

enum fault_action {
    FAULT_KILL,      /* SIGKILL: from outside, as far as anybody can tell */
    FAULT_STOP,      /* SIGSTOP */
    FAULT_ABORT,     /* as a failed must() */
    FAULT_SEGV,      /* a wild store */
    FAULT_EXIT,      /* exit status 1 without any clean-up */
    FAULT_SPIN,      /* computes for ever */
    FAULT_FORBIDDEN, /* opens an Internet socket */
    FAULT_FAIL,      /* fault_point returns true */
    FAULT_ACTIONS
};

enum { FAULT_ARMS = 4, FAULT_BOARD_BYTES = 4096 };

/*
 * One armed fault. Writes: the test, point last; passed and fired: whoever passes. A test arms when nobody counts.
 * It fires at passings nth to nth + times - 1 of those that count: of the slot meant, after arm `after` has fired.
 */
struct fault_arm {
    _Atomic uint32_t point; /* enum fault + 1; 0: not armed */
    uint32_t action;        /* enum fault_action */
    uint32_t slot;          /* of a worker, + 1; 0: any process */
    uint32_t generation;    /* of that worker; 0: any */
    uint32_t after;         /* an arm, + 1; 0: none */
    uint32_t nth, times;
    _Atomic uint32_t passed;
    _Atomic uint32_t fired;
    uint32_t reserve[7];
};

struct fault_board {
    struct fault_arm arms[FAULT_ARMS];
    _Atomic uint64_t passed[FAULTS]; /* whether armed or not */
};
_Static_assert(sizeof(struct fault_board) <= FAULT_BOARD_BYTES, "tests/faults/board.py has the same numbers");

/* Reads the environment. A worker names its slot and generation, the coordinator UINT32_MAX and 0. A value that makes no
 * sense ends the process: a test that arms nothing must not pass. Before it, points only count nothing and do nothing. */
void fault_open(uint32_t slot, uint32_t generation);

/* True: the place is to fail. May not return at all. */
bool fault_point(enum fault which);

#else

static inline void fault_open(uint32_t slot, uint32_t generation)
{
    (void)slot, (void)generation;
}

static inline bool fault_point(enum fault which)
{
    (void)which;
    return false;
}

#endif
#endif
