/*
 * supervisor_stage: the supervisor with real worker processes on a tiny model. The test is the scheduler: it makes a session, sends
 * plans and reads what they said. The test's program is its own worker program. Anything that goes wrong ends the test.
 */
#ifndef QUIRE_TESTS_SUPERVISOR_STAGE_H
#define QUIRE_TESTS_SUPERVISOR_STAGE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "coordinator/supervisor.h"
#include "shm/results.h"
#include "tests/support/server_rig.h"

enum {
    DEADLINE_US = 60 * 1000 * 1000,
    UNHEARD_SLOT = 1,
    BEGUN_BYTES = 1 << 30, /* more than the model has */
    UNHEARD_BUILD_US = 2 * 1000 * 1000,
};

/* What the supervisor told. */
struct heard {
    uint32_t ups[GROUPS_MAX], downs[GROUPS_MAX], lost[GROUPS_MAX], epoch[GROUPS_MAX];
    uint64_t done_step;
    uint32_t done_epoch, done;
    uint32_t doubts, blames, blamed_rank;
    bool it_was_the_plan; /* what on_blame says */
    uint64_t answered;    /* question */
    uint32_t sums[SUM_PAGES_MAX], sum_count;
    uint64_t built, to_build;
    char hopeless[256];
    uint64_t flight_since_us; /* 0: no plan is in flight */
};

struct stage {
    struct server_rig rig;
    struct event_base *loop;
    struct supervisor *supervisor;
    struct results results;
    struct heard heard;
    uint32_t slot; /* of a session with a prompt */
    uint32_t plan_epoch;
    char program[32];   /* that is executed as a worker */
    uint64_t plan_step; /* the last one that was sent, and its epoch */
};

/* Skips the test where the model is not. QUIRE_TEST_WORKER in the environment says how workers behave: see supervisor_stage_worker. */
struct stage *open_stage(void **state, uint32_t workers, uint32_t groups, uint32_t spares);
/* Nobody is left, whatever happened. */
int close_stage(void **state);

#define WAIT_FOR(stage, condition)                                        \
    for (uint64_t began_us = now_us(); !(condition);) {                   \
        if (now_us() - began_us > DEADLINE_US)                            \
            fail_msg("waited in vain for %s", #condition);                \
        assert_int_equal(event_base_loop((stage)->loop, EVLOOP_ONCE), 0); \
    }

struct rank_view rank(const struct stage *s, uint32_t index);
uint32_t spare_count(const struct stage *s);
/* Or tried to make. */
uint32_t processes_made(const struct stage *s);

void send_prompt(struct stage *s);
/* The token after the prompt, by the workers as they stand. */
uint32_t compute_token(struct stage *s);

/* The next event that is made finds no memory. */
void refuse_an_event(void);
/* Whether nobody has asked for one since. */
bool event_is_refused(void);

/*
 * What main calls first: runs as a worker and returns its exit status where the command line is a worker's; else -1. QUIRE_TEST_WORKER:
 * exit: ends at once; mute: is ready, neither speaks nor listens; unheard: the one of UNHEARD_SLOT builds and says only hello;
 * silent: does nothing.
 */
int supervisor_stage_worker(int argc, char **argv);

#endif
