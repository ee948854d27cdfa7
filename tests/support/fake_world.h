/*
 * fake_world: the scheduler, and a test that is the rest of the world: clients, workers and clock.
 *
 * The model is a hash: the token after a sequence is a hash of all its tokens and its seed, so one wrong token, one page
 * of somebody else's or one position left out changes everything behind it. Workers are a shadow of the pages: what
 * (page, generation, offset) holds is the hash of the tokens up to there, and a step checks all that it reads against the
 * session's tokens before it writes. Of a model with windows, pages of class 1 are shadowed the same way, and a step reads of them
 * what its first position sees. Nothing here allocates while steps are taken.
 */
#ifndef QUIRE_TESTS_FAKE_WORLD_H
#define QUIRE_TESTS_FAKE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/scheduler.h"
#include "coordinator/scheduler_internal.h"

enum {
    FAKE_VOCAB = 50000,
    FAKE_CONTEXT_MAX = 6144,
    FAKE_PAGES_MAX = 1024,
    FAKE_CLIENTS_MAX = 512,
};

/* 0: a default. */
struct fake_sizes {
    uint32_t pages, window, window_pages, nodes, groups, context, session_slots, max_sessions, max_queue, max_gap_us;
    bool no_queue; /* max_queue is 0 */
};

/* Somebody who asked for one sequence, and what he was told. */
struct client {
    struct fake_world *world;
    struct sequence *sequence; /* NULL: refused, cancelled or ended */
    uint32_t prompt[FAKE_CONTEXT_MAX];
    uint32_t prompt_tokens, max_tokens;
    uint64_t seed, salt;
    bool score;
    uint32_t stop_id;        /* UINT32_MAX: none */
    uint32_t stop_after;     /* tokens, then `token` says stop; 0: never */
    bool keep;               /* not given to somebody else when it has ended */
    uint32_t poison_at;      /* position at which it ends the worker that computes it, each time; 0: none */
    uint32_t deaths;         /* of groups, since a row of it was reported */
    uint32_t suspect_deaths; /* that it lived through */
    uint32_t slot,
        slot_generation; /* where it stood before it was parked or its coordinator died; generation 0: nowhere */

    uint32_t tokens[FAKE_CONTEXT_MAX]; /* heard */
    uint32_t heard, scored, cached;
    uint64_t running_hash; /* of the prompt and all that was heard */
    bool admitted, ended;
    enum finish_reason reason;
};

/* What the shadow knows of a page. */
struct fake_page {
    uint32_t generation;
    uint32_t written; /* bit i: offset i */
    uint64_t hash[PAGE_TOKENS], salt;
    bool damaged; /* nobody may read it for somebody who is still to hear of it */
};

struct fake_group {
    bool up, lost;
    uint32_t epoch;
    uint64_t last_step;
    bool first; /* no plan of this epoch has come */
    struct step_plan plans[MAX_FLIGHTS];
    uint32_t plan_count, computed; /* of the plans, the first so many are computed */
    uint64_t question;             /* 0: none */
    page_id asked[SUM_PAGES_MAX];
    uint32_t asked_count;
    struct result_entry results[2][RESULT_ROWS_MAX];
    struct page_name straggling[FAKE_PAGES_MAX]; /* pages that hands of a void plan may still write */
    uint32_t straggling_count;
};

struct fake_world {
    struct arena *arena;
    struct scheduler *s;
    struct scheduler_config config;
    uint64_t now;
    uint64_t decode_us, prefill_token_us; /* what a step takes */
    struct fake_page pages[FAKE_PAGES_MAX];
    struct fake_group groups[GROUPS_MAX];
    struct client clients[FAKE_CLIENTS_MAX];
    uint32_t client_count;
    uint64_t plans, positions; /* sent; computed */
    uint32_t largest_prefill;  /* tokens of rows with more than one, in the last plan */
    bool spoiled_result;       /* the next result that is read is none */
    uint64_t poisoned;         /* deaths by poison */
    enum verdict verdict;      /* of the last suspect death */
};

/* All groups up, nobody there. */
struct fake_world *fake_world_open(const struct fake_sizes *sizes);
/* Everybody must have ended or been cancelled before: checks that no page is held. */
void fake_world_close(struct fake_world *w);

/* A client whose prompt is `count` tokens of a family: equal families have equal beginnings. Not submitted yet. */
struct client *fake_client(struct fake_world *w, uint64_t family, uint32_t count, uint32_t max_tokens);
/* From `position` on the prompt is another. */
void fake_differ(struct client *c, uint32_t position, uint64_t how);
enum err fake_submit(struct client *c, struct why *why);
/* Both, and it must be taken. */
struct client *fake_ask(struct fake_world *w, uint64_t family, uint32_t count, uint32_t max_tokens);
void fake_cancel(struct client *c);

/* scheduler_turn, and a look at all invariants. */
void fake_turn(struct fake_world *w);
/* The group's workers compute the oldest plan that they have not; false: there is none. */
bool fake_compute(struct fake_world *w, uint32_t group);
/* The group's workers tell the checksums that they were asked for; false: they were not. No turn is taken. */
bool fake_answer(struct fake_world *w, uint32_t group);
/* Somebody has written into that page. */
void fake_damage(struct fake_world *w, page_id page);
/* The oldest computed plan is reported (and time passes); false: there is none. No turn is taken. */
bool fake_report(struct fake_world *w, uint32_t group);
/* Compute, report, answer and turn, for all groups that are up; false: nothing was in flight. */
bool fake_step(struct fake_world *w);
/* Steps until nothing is in flight any more. */
void fake_settle(struct fake_world *w);

/* A worker dies, perhaps in the middle of a step that it has begun; then all stand again in a new epoch. */
void fake_group_down(struct fake_world *w, uint32_t group, bool in_the_middle);
void fake_group_up(struct fake_world *w, uint32_t group);
/*
 * A rank ends by its own fault, perhaps in the middle of a step: the group is down, and whose fault it was is judged. Other groups of its
 * node meet anew.
 */
void fake_suspect_death(struct fake_world *w, uint32_t group, uint32_t rank, bool in_the_middle);
/* It is down and stays so. */
void fake_group_lost(struct fake_world *w, uint32_t group);

/* The coordinator dies with all workers, another one takes the memory over, and everybody goes on behind what he has heard. */
void fake_coordinator_dies(struct fake_world *w);
/* The client's sequence stops, and its slot is kept; fake_submit goes on behind what was heard. */
void fake_park(struct client *c);

/* The client was told what the model says after its prompt, to the end for this reason. */
void fake_must_have_all(const struct client *c, enum finish_reason reason);
/* The i-th token (from 0) that the model says after the client's prompt. */
uint32_t fake_token(const struct client *c, uint32_t i);

/* Free or kept for reuse, all of them. */
bool fake_pages_are_free(const struct fake_world *w);

#endif
