/*
 * scheduler: continuous batching over pages. It knows sequences, pages and plans, and no process, socket or clock of its own:
 * what happened comes in as calls, what is to be done goes out through scheduler_hooks, so that a test can be the rest of
 * the world.
 *
 * A step takes all decoding sequences first; what is left of the token budget goes to prompts, oldest first, cut so that the step stays
 * within max_gap_us. Two plans of a group are in flight at the most: the second one may use tokens that the first one draws.
 *
 * What stays true:
 *  1. n_kv <= n_tok for every sequence; a step's tokens are stored before the commit word, the commit word before any event.
 *  2. A page, a row and a session slot go to somebody else only when every plan that names them was answered, or its group met
 *     anew: plans are numbered, and whoever leaves says the last number that named it.
 *  3. A sequence that runs holds the pages of positions [0, planned_kv), of windows only those that position n_kv or a later one looks at.
 *  4. Whatever is admitted can finish: if a running sequence finds no page, the youngest leaves and waits, and the oldest
 *     alone always fits.
 *  5. A sealed page is shared only while somebody vouches for its bytes: nothing has died since of which one could not say that it wrote
 *     nowhere, or their checksum is still the one that they had when they were sealed (scheduler_checksums.c).
 *  6. A sequence that ends workers is found out and ends with an error; the others go on with the same tokens (scheduler_blame.c).
 */
#ifndef QUIRE_COORDINATOR_SCHEDULER_H
#define QUIRE_COORDINATOR_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/sequence.h"
#include "proto/message.h"
#include "shm/arena.h"
#include "shm/page_pool.h"

struct scheduler;

struct scheduler_config {
    struct arena *arena; /* the scheduler is the one writer of its page descriptors, rows and sessions */
    uint32_t vocab;
    uint32_t max_sessions; /* sequences that run at once, <= the arena's session slots */
    uint32_t max_queue;
    uint32_t max_gap_us;
    bool adopt; /* the arena was taken over: see scheduler_found */
};

/* The rest of the world. */
struct scheduler_hooks {
    /* Sends a plan to all ranks of the group. What cannot be sent is a lost worker, and comes back as scheduler_group_down. */
    void (*send)(void *world, uint32_t group, const struct step_plan *plan);
    /* A checked copy of one result entry of a step that was reported done; see results_read. */
    enum err (*result)(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint32_t entry,
                       const struct step_row *row, struct result_entry *out, struct why *why);
    /* Asks the group for the checksums of 1 to SUM_PAGES_MAX pages; the answer comes as scheduler_sums, or never. */
    void (*ask)(void *world, uint32_t group, uint64_t question, const page_id *pages, uint32_t count);
    void *world;
};

struct scheduler_counters {
    uint64_t steps, prefilled, generated, reused, recomputed, preempted;
    uint64_t prefix_queries, prefix_hits; /* prompt tokens looked up, found */
    uint64_t summed, damaged;             /* checksums of pages that were taken in, that were wrong */
    uint64_t convicted;                   /* sequences that ended since they ended workers */
    uint64_t last_step_us;
};

enum err scheduler_open(struct scheduler **out, const struct scheduler_config *config,
                        const struct scheduler_hooks *hooks, struct why *why);
void scheduler_close(struct scheduler *s);

/*
 * What adoption found. Sealed pages are CACHED now, whoever held them; sessions wait, LIVE or KEPT, in their slots: each is to be
 * submitted again (spec.slot) or forgotten.
 */
struct scheduler_found {
    uint32_t sessions, damaged_sessions, pages, damaged_pages;
};
struct scheduler_found scheduler_found(const struct scheduler *s);

/* Prompt tokens of one step at the most. A step has no more tokens, and no more results, than this and one per session slot. */
enum { STEP_BUDGET = 512 };

/*
 * Window pages that one sequence holds at most: those before its first position that is not committed, and two plans of prompt
 * tokens behind it, at whatever place in a page they begin and end.
 */
static inline uint32_t scheduler_window_pages(uint32_t window)
{
    return (window + 2 * STEP_BUDGET) / PAGE_TOKENS + 2;
}

/* ERR_INVALID: can never fit (the sentence has both numbers). ERR_FULL: the queue is full. *out stays good until `ended`. */
enum err scheduler_submit(struct scheduler *s, const struct sequence_spec *spec, uint64_t now, struct sequence **out,
                          struct why *why);

/* The owner no longer wants it: no event comes any more. Its pages are free as soon as the plans in flight are answered. */
void scheduler_cancel(struct scheduler *s, struct sequence *sequence);

/* The same, but its slot is KEPT (if it has one): its tokens can be asked for, and it can be submitted again, also by the next coordinator. */
void scheduler_park(struct scheduler *s, struct sequence *sequence);

/* Nobody will ask for the session of that slot any more. Harmless when it is another one's by now. */
void scheduler_forget(struct scheduler *s, uint32_t slot, uint32_t generation);

/* Admits, plans and sends whatever can be sent now. Call after any of the other calls. */
void scheduler_turn(struct scheduler *s, uint64_t now);

/* Rank 0 of the group reports a step as done. Another epoch or step than the oldest in flight is ignored. ERR_FORMAT: the results are not what they must be, and nothing of the step was taken. */
enum err scheduler_step_done(struct scheduler *s, uint32_t group, uint32_t epoch, uint64_t step, uint64_t now,
                             struct why *why);

/* The group's ranks changed: every plan in flight is void (and was, since the epoch word was raised). Planning stops until group_up. */
void scheduler_group_down(struct scheduler *s, uint32_t group);
/*
 * The group stands again, under this epoch: the dead are fenced and every rank has said that it is in no older step. Plans
 * begin anew from committed tokens.
 */
void scheduler_group_up(struct scheduler *s, uint32_t group, uint32_t epoch);

/*
 * A worker of the group died in a way that may have written over any page of its node, or an unknown number of them: a signal of its own
 * making, an exit, a hang. All groups of the node are down. Whoever holds pages there begins again from pages that are vouched for.
 */
void scheduler_doubt(struct scheduler *s, uint32_t group);

/* What a death says about the sequences in the plans that it ended. */
enum verdict {
    VERDICT_NONE,           /* not enough to say */
    VERDICT_GUILTY_AT_RANK, /* one was convicted and has ended; but all its deaths were of one rank, whose fault it may be */
    VERDICT_GUILTY,         /* one was convicted and has ended, whoever computed it */
};

/*
 * The group, which is down, lost `rank` by its own fault (a number that means the same rank each time, or UINT32_MAX: all of them) while
 * it computed what was in flight. Counts once for each time that the group went down.
 */
enum verdict scheduler_blame(struct scheduler *s, uint32_t group, uint32_t rank);

/* The answer to a question, if it still is one. */
void scheduler_sums(struct scheduler *s, uint32_t group, uint64_t question, const uint32_t *sums, uint32_t count);

/* The oldest plan in flight, or question: when it was started (or became the oldest) and how long it should take. False: none. */
bool scheduler_in_flight(const struct scheduler *s, uint32_t group, uint64_t *since_us, uint64_t *planned_us);

/* A group that is down never comes again, and none of its ranks runs any more: other groups compute its sequences. */
void scheduler_group_lost(struct scheduler *s, uint32_t group);

/* Positions that a sequence can have: the context, or what all pages of a node hold. Windows limit it only where they lack room to move. */
uint32_t scheduler_token_limit(const struct scheduler *s);
struct page_counts scheduler_pages(const struct scheduler *s); /* of all classes */
struct page_counts scheduler_class_pages(const struct scheduler *s, uint32_t page_class);

void scheduler_set_max_sessions(struct scheduler *s, uint32_t max_sessions);
uint32_t scheduler_max_sessions(const struct scheduler *s);
uint32_t scheduler_running(const struct scheduler *s);
uint32_t scheduler_waiting(const struct scheduler *s);
const struct sequence_list *scheduler_running_list(const struct scheduler *s);
const struct scheduler_counters *scheduler_counters(const struct scheduler *s);

/* Debug builds and tests: the invariants above, and those of pool and cache. */
void scheduler_must_be_sound(const struct scheduler *s);

#endif
