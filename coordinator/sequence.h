/*
 * sequence: one list of tokens that grows: a prompt and what the model says after it. A request with n choices or
 * several prompts has several.
 *
 *   WAITING -> PREFILL -> DECODE -> DONE
 *   pool full: PREFILL, DECODE -> WAITING (keeps its slot, is rebuilt from its tokens later: same bytes)
 *   cancel, error: any -> DONE
 */
#ifndef QUIRE_COORDINATOR_SEQUENCE_H
#define QUIRE_COORDINATOR_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sampling.h"
#include "shm/layout.h"
#include "shm/results.h"
#include "shm/session.h"

enum sequence_state { SEQUENCE_WAITING, SEQUENCE_PREFILL, SEQUENCE_DECODE, SEQUENCE_DONE };

enum finish_reason {
    FINISH_STOP,      /* an end token, a stop id or a stop string */
    FINISH_LENGTH,    /* max_tokens, or the context is full */
    FINISH_CANCELLED, /* nobody waits for it any more */
    FINISH_ERROR,     /* the engine cannot go on with it */
};

struct sequence;

/*
 * What the owner of a sequence hears, from the loop's thread, in order. After `ended` nothing more comes, and the sequence is gone.
 * None of these may call the scheduler: it is in the middle of its turn.
 */
struct sequence_events {
    /* A token is committed. True ends the sequence here (a stop string). */
    bool (*token)(void *owner, const struct result_entry *drawn);
    /* Prompt position `position` has been scored: entry.token is tokens[position], whose log-probability it holds. */
    void (*scored)(void *owner, uint32_t position, const struct result_entry *entry);
    /* It runs: `cached` prompt tokens were found in pages. Called once, before the first token. */
    void (*admitted)(void *owner, uint32_t cached);
    void (*ended)(void *owner, enum finish_reason reason);
};

/* What scheduler_submit wants to know; tokens and sampling are copied. Fields that stay 0 ask for nothing. */
struct sequence_spec {
    const uint32_t *tokens;
    uint32_t token_count;
    uint32_t max_tokens; /* to generate; 0: only the prompt is computed */
    bool score_prompt;   /* log-probabilities of the prompt's tokens; takes no page from the cache */
    uint64_t salt;       /* tenant; pages of another salt are never seen */
    const char *id;      /* what /quire/state shows */
    struct sampling sampling;
    const struct sequence_events *events;
    void *owner;

    /* What outlives us: for the next coordinator, and for going on with what was interrupted. */
    uint32_t said; /* tokens that were said before; they stand in `tokens` behind the prompt */
    uint32_t slot; /* where it stood until now, if slot_generation is not 0; see scheduler_forget */
    uint32_t slot_generation;
    const void *client; /* the owner's own words about it, kept in the session slot; lives as long as the sequence */
    uint32_t client_bytes;
    bool keep; /* its slot stays KEPT when it has said all */
};

struct sequence {
    enum sequence_state state;
    struct sequence_spec spec;
    uint32_t *tokens; /* own copy of all n_tok tokens; room for the most it can have */
    char id[SESSION_ID_BYTES];
    uint64_t arrived_us, admitted_us;
    uint64_t order; /* of arrival; the largest is the youngest */

    uint32_t slot;       /* session slot; SESSION_NONE until it is admitted for the first time */
    uint32_t generation; /* of the slot */
    uint32_t group;
    uint32_t prompt_tokens;
    uint32_t n_tok, n_kv;             /* committed: tokens said, positions computed */
    uint32_t planned_tok, planned_kv; /* once every plan in flight is done */
    uint32_t pages;                   /* in its row, of each class */
    uint32_t window_first;            /* of those of windows, the first that it still holds */
    uint32_t indexed, sealed;         /* of those, the first so many stand in the prefix index; are sealed */
    struct page_name *chain;          /* (pages that a sequence can have): who stands in the index for its page i */
    uint64_t last_plan;               /* number of the last plan that names it */
    uint64_t drawn_step;              /* last planned step that draws a token for it */
    uint32_t drawn_entry;             /* its entry in that step's results */
    uint32_t scored;                  /* the last prompt position that was told */
    bool started;                     /* `admitted` has been called */

    /* deaths of workers: see scheduler_blame.c */
    bool accused;            /* it was in a plan that a death ended, and whose fault that was is not known yet */
    bool accused_alone;      /* nobody else was */
    bool several_ranks;      /* its suspect deaths were of more than one */
    uint32_t suspect_deaths; /* since it was last beyond doubt */
    uint32_t suspect_rank;   /* of the last one */
    uint32_t suspect_until;  /* positions that the last one's plans would have computed */
    uint32_t good_rows;      /* answered since */
    uint32_t deaths;         /* of any kind, in a row, without a row of it answered */
    uint32_t lone_deaths;    /* of these, when it was alone in its plan */

    struct sequence *previous, *next; /* in the waiting queue or the running list */
};

/* The one function that changes the state; must() on a move that the picture above does not have. */
void sequence_move(struct sequence *s, enum sequence_state to);
const char *sequence_state_name(enum sequence_state state);
const char *finish_reason_name(enum finish_reason reason);

/* A doubly linked list, oldest first. */
struct sequence_list {
    struct sequence *first, *last;
    uint32_t count;
};
void sequence_list_append(struct sequence_list *list, struct sequence *s);
void sequence_list_insert_by_order(struct sequence_list *list, struct sequence *s);
void sequence_list_remove(struct sequence_list *list, struct sequence *s);

#endif
