/*
 * server_rig: the shared memory of a small server as its coordinator keeps it, without any process: for tests of what
 * workers do in it. Anything that goes wrong in setting it up ends the test.
 */
#ifndef QUIRE_TESTS_SERVER_RIG_H
#define QUIRE_TESTS_SERVER_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sampling.h"
#include "model/served_model.h"
#include "proto/message.h"
#include "shm/arena.h"
#include "shm/instance.h"
#include "shm/page_pool.h"
#include "shm/session.h"

struct server_rig {
    char model_path[512];
    struct served_model served;
    struct instance instance;
    struct arena arena; /* the coordinator's */
    struct page_pool *pool;
    struct session_slots *sessions;
};

struct server_sizes {
    uint32_t step_tokens, logit_rows, workers, groups, pages,
        result_rows; /* 0: a default that is enough for small tests */
};

/* file as in rig_find(). False: it is not there. Weights are not built. */
bool server_rig_open(struct server_rig *r, const char *file, struct server_sizes sizes);
void server_rig_close(struct server_rig *r);

/* An arena as a worker process of group 0 has it, weights writable while they are not built. */
void server_rig_attach(const struct server_rig *r, struct arena *worker);

/* Builds all weights through a worker's arena and marks them built. */
void server_rig_build(struct server_rig *r, struct arena *worker);

/* A session with its prompt committed and pages for `room` tokens. Returns its slot. */
uint32_t server_rig_session(struct server_rig *r, const uint32_t *prompt, uint32_t count, uint32_t room,
                            const struct sampling *sampling);

/* What the coordinator does with a step's token. */
void server_rig_commit(struct server_rig *r, uint32_t slot, uint32_t token);

/* A row of positions [first, first + count) whose tokens stand in the session. */
struct step_row server_rig_row(const struct server_rig *r, uint32_t slot, uint32_t first, uint32_t count,
                               uint32_t flags);

/* temperature 0 and nothing else. */
struct sampling greedy_sampling(uint32_t prompt_tokens);

/* A prompt of a golden file, its greedy continuation as far as it is beyond doubt, and log-probabilities of prompt tokens 1, 2, … */
struct golden {
    uint32_t prompt[512], greedy[128];
    uint32_t prompt_count, greedy_count;
    double logprobs[512];
};
/* False: there is no such file or prompt. */
bool golden_read(struct golden *g, const char *file, uint32_t index);

#endif
