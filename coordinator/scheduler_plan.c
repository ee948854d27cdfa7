/* What a step does: all decoding sequences, then as many prompt tokens as the bound on its time leaves. */
#include <string.h>

#include "base/fault.h"
#include "base/must.h"
#include "coordinator/scheduler_internal.h"
#include "shm/sequence_table.h"

/* ---- time ---- */

/* Faster up than down: who believes too little breaks the bound on a step's time. */
static double mean_towards(double mean, double value)
{
    return mean + (value - mean) / (value > mean ? 2 : 8);
}

/* What a step may take while somebody waits for his next token. */
static double bound_us(const struct scheduler *s)
{
    return (double)s->config.max_gap_us * 0.8;
}

/*
 * Of a step of D us for tokens that speak and p prompt tokens of t us each, p * bound / (D + p t) is nearer than p to the p that just
 * fits, and D and t need not be told apart. A step that did not use what it might have says nothing against more.
 *
 * The same step does not always take as long. Who goes by the quickest of late breaks the bound with the next ordinary one: so down at
 * once, up at once to four fifths of what a step says, and over the last fifth slowly.
 */
static void learn_fit(struct group *group, double prefills, double took, double bound)
{
    double old = group->prefill_fit, fit = prefills * bound / (took > 1 ? took : 1);
    if (took > bound && fit < old) {
        group->prefill_fit = fit > PAGE_TOKENS ? fit : PAGE_TOKENS;
    } else if (took <= bound && fit > old) {
        double near = fit * 0.8, nearer = old + (fit - old) / 8;
        double best = near > nearer ? near : nearer;
        group->prefill_fit = best < 2 * old ? best : 2 * old;
    }
}

void scheduler_learn_time(const struct scheduler *s, struct group *group, const struct flight *flight, uint64_t took_us)
{
    double took = (double)took_us;
    if (flight->prefills >= PAGE_TOKENS)
        learn_fit(group, flight->prefills, took, bound_us(s));
    if (flight->prefills == 0)
        group->decode_us = mean_towards(group->decode_us, took);
    else if (flight->prefills >= PAGE_TOKENS) {
        double decodes = flight->decodes ? group->decode_us : 0;
        if (took > decodes)
            group->prefill_token_us = mean_towards(group->prefill_token_us, (took - decodes) / flight->prefills);
    }
}

/* Prompt tokens that this step may take: all of the budget unless somebody would wait too long for his next token. */
static uint32_t prefill_budget(const struct group *group, uint32_t decodes)
{
    if (!decodes || group->prefill_fit >= STEP_BUDGET)
        return STEP_BUDGET;
    return (uint32_t)group->prefill_fit / PAGE_TOKENS * PAGE_TOKENS; /* at least one page: prompts must come in, too */
}

/* ---- rows ---- */

/* Positions up to which this sequence is to be computed with the tokens that it has or will have. */
static uint32_t computable(const struct sequence *q)
{
    if (q->spec.max_tokens == 0)
        return q->n_tok - 1; /* scoring: the last token predicts nobody */
    if (q->planned_tok - q->prompt_tokens >= q->spec.max_tokens)
        return q->planned_kv; /* its last token is drawn already, or will be */
    return q->planned_tok;
}

/* The next page of each class, or none of any. */
static bool take_page(struct scheduler *s, struct sequence *q)
{
    uint32_t node = s->groups[q->group].node, classes = s->arena->geometry.page_classes;
    page_id page[PAGE_CLASSES_MAX];
    for (uint32_t c = 0; c < classes; c++) {
        page[c] = page_pool_take(s->pool, c, node);
        if (page[c] != PAGE_NONE)
            continue;
        while (c-- > 0)
            page_pool_release(s->pool, page[c], 0);
        return false;
    }
    for (uint32_t c = 0; c < classes; c++) {
        must(sequence_row_append(s->arena, q->slot, c, page_pool_name(s->pool, page[c])) == OK);
        fault_point(FAULT_COORDINATOR_PAGE_TAKEN);
    }
    q->pages++;
    return true;
}

/* Pages for positions [0, end), of windows for those that are still seen; false when there are none now. */
static bool have_pages(struct scheduler *s, struct sequence *q, uint32_t end)
{
    while (q->pages < pages_for(end))
        if (!take_page(s, q))
            return false;
    scheduler_index_pages(s, q);
    return true;
}

/* The entry of the step before that holds the token at `position`, + 1; 0: it stands in the session; false: neither. */
static bool find_input(const struct group *group, const struct sequence *q, uint32_t position, uint32_t *previous)
{
    *previous = 0;
    if (position < q->n_tok)
        return true;
    if (q->drawn_step == 0 || q->drawn_step + 1 != group->next_step)
        return false;
    *previous = q->drawn_entry + 1;
    return true;
}

static uint32_t plan_entries(const struct flight *f)
{
    return f->row_count ? f->entries[f->row_count - 1] + step_row_entries(&f->rows[f->row_count - 1]) : 0;
}

/* Adds positions [planned_kv, planned_kv + count) of q to the step, if it can be. */
static bool add_row(struct scheduler *s, struct group *group, struct flight *f, struct sequence *q, uint32_t count)
{
    uint32_t first = q->planned_kv, previous;
    if (f->row_count == STEP_ROWS_MAX || !find_input(group, q, first, &previous))
        return false;
    bool draws = q->spec.max_tokens > 0 && first + count == q->planned_tok;
    bool scores = q->spec.score_prompt && first < q->prompt_tokens;
    struct step_row row = {
        .session = q->slot,
        .session_generation = q->generation,
        .first = first,
        .count = count,
        .flags = (draws ? ROW_SAMPLE : 0u) | (scores ? ROW_SCORE : 0u),
        .history = q->n_tok,
        .previous = previous,
    };
    uint32_t entry = plan_entries(f);
    if (entry + step_row_entries(&row) > s->arena->geometry.result_rows || !have_pages(s, q, first + count))
        return false;

    f->rows[f->row_count] = row;
    f->owners[f->row_count] = q;
    f->entries[f->row_count] = entry;
    f->row_count++;
    if (first < q->prompt_tokens)
        f->prompt_tokens += first + count < q->prompt_tokens ? count : q->prompt_tokens - first;
    q->planned_kv += count;
    q->last_plan = f->number;
    if (draws) {
        q->planned_tok++;
        q->drawn_step = f->step;
        q->drawn_entry = entry + step_row_entries(&row) - 1;
    }
    return true;
}

/* Whether the step may be for q: all who share plans, or `only` that one. */
static bool is_of_step(const struct group *group, const struct scheduler *s, const struct sequence *q,
                       const struct sequence *only)
{
    return &s->groups[q->group] == group && (only ? q == only : !scheduler_runs_alone(q));
}

/* One token each: sequences that speak, and prompts of which one token is left. False: somebody found no page. */
static bool add_decodes(struct scheduler *s, struct group *group, struct flight *f, const struct sequence *only)
{
    bool starved = false;
    for (struct sequence *q = s->running.first; q; q = q->next) {
        if (!is_of_step(group, s, q, only) || computable(q) - q->planned_kv != 1)
            continue;
        if (add_row(s, group, f, q, 1))
            f->decodes++;
        else
            starved |= q->pages < pages_for(q->planned_kv + 1);
    }
    return !starved;
}

static void add_prefills(struct scheduler *s, struct group *group, struct flight *f, const struct sequence *only)
{
    uint32_t budget = prefill_budget(group, f->decodes);
    for (struct sequence *q = s->running.first; q && budget; q = q->next) {
        uint32_t left = is_of_step(group, s, q, only) ? computable(q) - q->planned_kv : 0;
        uint32_t most = budget < scheduler_chunk_most(q) ? budget : scheduler_chunk_most(q);
        if (left < 2)
            continue;
        uint32_t count = left < most ? left : most;
        if (!add_row(s, group, f, q, count))
            return; /* no page, or no room for results: the oldest comes first, and it waits */
        f->prefills += count;
        budget -= count;
    }
}

static void write_plan(struct step_plan *plan, const struct group *group, const struct flight *f)
{
    plan->epoch = group->epoch;
    plan->flags = group->meet_first ? PLAN_MEET_FIRST : 0;
    plan->step = f->step;
    plan->row_count = f->row_count;
    memcpy(plan->rows, f->rows, f->row_count * sizeof *f->rows);
}

/* The oldest of those who run alone; NULL: nobody has to. */
static struct sequence *who_runs_alone(const struct scheduler *s, const struct group *group)
{
    for (struct sequence *q = s->running.first; q; q = q->next)
        if (&s->groups[q->group] == group && scheduler_runs_alone(q))
            return q;
    return NULL;
}

static void fill_step(struct scheduler *s, struct group *group, struct flight *f, const struct sequence *only)
{
    while (!add_decodes(s, group, f, only) && scheduler_preempt_youngest(s, group->node) && !f->row_count)
        continue; /* what was given back may be free at once, and without a row no answer comes to try again */
    add_prefills(s, group, f, only);
}

/* One plan at a time, that of one who runs alone and that of all others in turns, so that a death says whose it was. */
static void fill_step_in_turns(struct scheduler *s, struct group *group, struct flight *f)
{
    for (uint32_t turn = 0; turn < 2 && !f->row_count; turn++) {
        const struct sequence *only = group->alone_next ? who_runs_alone(s, group) : NULL;
        group->alone_next = !group->alone_next;
        fill_step(s, group, f, only);
    }
}

bool scheduler_plan_step(struct scheduler *s, struct group *group, uint64_t now)
{
    struct flight *f = group->flights[group->flight_count];
    bool in_turns = who_runs_alone(s, group);
    if (in_turns && group->flight_count)
        return false;
    f->number = s->next_number;
    f->step = group->next_step;
    f->since_us = now;
    f->decodes = f->prefills = f->prompt_tokens = f->row_count = 0;
    if (in_turns)
        fill_step_in_turns(s, group, f);
    else
        fill_step(s, group, f, NULL);
    if (!f->row_count)
        return false;
    f->planned_us = (uint64_t)(group->decode_us + group->prefill_token_us * f->prefills);
    group->flight_count++;
    group->next_step++;
    s->next_number++;
    write_plan(&s->plan, group, f);
    group->meet_first = false;
    return true;
}
