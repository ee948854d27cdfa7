/* scheduler_internal: what scheduler.c (lives and groups), scheduler_admit.c (who comes in), scheduler_plan.c (what a step does),
 * scheduler_results.c (what it has said), scheduler_checksums.c (which pages are vouched for) and scheduler_blame.c (who ends workers)
 * share. */
#ifndef QUIRE_COORDINATOR_SCHEDULER_INTERNAL_H
#define QUIRE_COORDINATOR_SCHEDULER_INTERNAL_H

#include "coordinator/scheduler.h"
#include "shm/prefix_cache.h"
#include "shm/session.h"

enum { MAX_FLIGHTS = 2 };

/* A plan that was sent and not yet answered. */
struct flight {
    uint64_t number; /* of all plans of all groups, without gaps */
    uint64_t step;
    uint64_t since_us;          /* when it was sent, or became the oldest of its group */
    uint64_t planned_us;        /* how long it should take */
    uint32_t decodes, prefills; /* tokens of one-token rows and of longer ones */
    uint32_t prompt_tokens;     /* of all rows, those of prompts */
    uint32_t row_count;
    struct step_row rows[STEP_ROWS_MAX];
    struct sequence *owners[STEP_ROWS_MAX]; /* NULL: has ended or left since */
    uint32_t entries[STEP_ROWS_MAX];        /* first result entry of the row */
};

/* Checksums that were asked of a group and not answered yet. */
struct question {
    uint64_t id; /* 0: none */
    uint64_t since_us;
    uint32_t count;
    struct page_name pages[SUM_PAGES_MAX];
    uint32_t doubts[SUM_PAGES_MAX]; /* that there were about the page's node when it was asked */
};

struct checksums {
    uint32_t doubts[NODES_MAX]; /* deaths that may have written over any page of the node */
    uint32_t *vouched; /* (pages): doubts about its node when its bytes were last known to be good, + 1; 0: never */
    bool *asked;       /* (pages): it stands in the queue or in a question */
    page_id *queue;    /* (pages), a ring: to be asked */
    uint32_t queue_first, queue_count;
    uint64_t next_question;
};

struct group {
    bool up;
    bool meet_first; /* the next plan is the first of its epoch */
    bool alone_next; /* whose turn it is: that of those who run alone, or of the others */
    uint32_t epoch;
    uint32_t node;
    uint64_t next_step;
    uint64_t void_number; /* oldest plan that was void when the group went down and is not fenced yet; 0: none */
    uint32_t running;     /* sequences that it computes */
    uint32_t flight_count;
    struct flight *flights[MAX_FLIGHTS]; /* oldest first */
    struct question question;
    double decode_us; /* of a step without prompts, and of one prompt token: running means */
    double prefill_token_us;
    double prefill_fit; /* prompt tokens of a step that just keeps the bound on its time; at least PAGE_TOKENS */
};

struct scheduler {
    struct scheduler_config config;
    struct scheduler_hooks hooks;
    struct arena *arena;
    struct page_pool *pool;
    struct prefix_cache *cache;
    struct session_slots *slots;
    uint32_t token_limit;
    uint32_t max_sessions;
    uint32_t group_count;
    struct group groups[GROUPS_MAX];
    struct sequence_list waiting, running; /* both in order of arrival */
    uint64_t next_order;
    uint64_t next_number;  /* of plans */
    uint64_t answered;     /* all plans up to this number were answered or fenced */
    uint64_t preempted_at; /* no further preemption before this plan is answered */
    struct scheduler_counters counters;
    struct checksums checksums;
    page_id *found[PAGE_CLASSES_MAX]; /* scratch of one prefix look-up */
    struct scheduler_found adopted;
    struct step_plan plan; /* the one that is being made */
};

/* Plans the group's next step and notes it as in flight; false: there is nothing to do. */
bool scheduler_plan_step(struct scheduler *s, struct group *group, uint64_t now);

/* Learns how long steps take from one that was answered. */
void scheduler_learn_time(const struct scheduler *s, struct group *group, const struct flight *flight,
                          uint64_t took_us);

/* Pages that `tokens` positions need. */
static inline uint32_t pages_for(uint32_t tokens)
{
    return (tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

/* The first page of a class that q still holds. */
static inline uint32_t first_held(const struct sequence *q, uint32_t page_class)
{
    return page_class == PAGE_CLASS_WINDOW ? q->window_first : 0;
}

/*
 * Pages of a class that a sequence holds at most until `tokens` positions are computed, when it holds those from `first` on: a
 * window moves on while a prompt is computed.
 */
static inline uint32_t pages_at_most(const struct scheduler *s, uint32_t page_class, uint32_t first, uint32_t tokens)
{
    uint32_t all = pages_for(tokens) - first, most = scheduler_window_pages(s->arena->geometry.window);
    return page_class == PAGE_CLASS_WINDOW && most < all ? most : all;
}

/*
 * The youngest running sequence that holds pages of that node gives all back and waits. False: nobody did, since there is
 * only one, or what the last one gave is still named by plans in flight.
 */
bool scheduler_preempt_youngest(struct scheduler *s, uint32_t node);

/* It gives all its pages back, waits, and is rebuilt from its tokens. */
void scheduler_send_back(struct scheduler *s, struct sequence *q);

/* Stands in the index whatever pages have all their tokens now. */
void scheduler_index_pages(struct scheduler *s, struct sequence *q);

/* ---- scheduler.c ---- */

/* It leaves, its owner hears why, and it is gone. */
void scheduler_end_sequence(struct scheduler *s, struct sequence *q, enum finish_reason reason);
uint32_t scheduler_node_of_page(const struct scheduler *s, page_id page);
bool scheduler_holds_pages_of(const struct scheduler *s, const struct sequence *q, uint32_t node);

/*
 * What it has said and computed stands in its slot from now on. Tokens that are drawn again (for their log-probabilities, which
 * no slot keeps) were committed before: the slot never says less than somebody may have been told.
 */
static inline void scheduler_commit(const struct scheduler *s, const struct sequence *q)
{
    struct session_slot *slot = session_at(s->arena, q->slot);
    uint32_t said = session_progress(slot).tokens;
    session_commit(slot, (struct session_progress){.tokens = q->n_tok > said ? q->n_tok : said, .kv = q->n_kv});
}

/* ---- scheduler_admit.c ---- */

/* Whoever waits and fits comes in, in order of arrival. */
void scheduler_admit_waiting(struct scheduler *s, uint64_t now);

/* ---- scheduler_checksums.c ---- */

enum err scheduler_checksums_open(struct scheduler *s, struct why *why);
void scheduler_checksums_close(struct scheduler *s);
/* Its last position was committed just now: its bytes are what was computed. */
void scheduler_page_sealed(struct scheduler *s, page_id page);
/*
 * Whether somebody vouches for pages [first, end) of those that were found of a class: the number of the first for which nobody can,
 * and which is dropped; end: there is none. *known becomes false when checksums are being asked for: the sequence waits for them.
 */
uint32_t scheduler_vouch(struct scheduler *s, uint32_t page_class, uint32_t first, uint32_t end, bool *known);
/* Sends what is to be asked to groups that have nothing to answer. */
void scheduler_ask(struct scheduler *s, uint64_t now);
/* The group went down: nobody will answer. */
void scheduler_void_question(struct scheduler *s, struct group *group);

/* ---- scheduler_blame.c ---- */

/* The group goes down: notes who was in its plans. */
void scheduler_accuse(struct scheduler *s, struct group *group);
/* Ends the one of the group that was alone in its plan at too many deaths in a row. */
void scheduler_end_hopeless(struct scheduler *s, struct group *group);
/* The group stands again: whoever was accused and not blamed is not. */
void scheduler_acquit(struct scheduler *s, struct group *group);
/* A row of it was answered. */
void scheduler_exonerate(struct sequence *q);
/* Deaths in a row make its prompt chunks smaller: what lives shorter gets less to do. */
uint32_t scheduler_chunk_most(const struct sequence *q);
/* It may share no plan with others, and no other plan may be in flight beside its own. */
static inline bool scheduler_runs_alone(const struct sequence *q)
{
    enum { DEATHS_TOGETHER = 2 };
    return q->suspect_deaths >= DEATHS_TOGETHER;
}

/* ---- scheduler_results.c ---- */

/* Whoever waited for plans up to the oldest one in flight can go on. */
void scheduler_reclaim(struct scheduler *s);

#endif
