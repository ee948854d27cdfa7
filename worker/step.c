/* step: see step.h. First the plan is read and checked, then it is carried out. */
#include "worker/step.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fault.h"
#include "base/must.h"
#include "shm/results.h"
#include "shm/sequence_table.h"
#include "shm/session.h"

static_assert((int)WORKER_SLOTS_MAX <= (int)FORWARD_MAX_RANKS, "any worker may have a rank");

/* One entry of the result slot: a token to draw, or a token of the prompt to score. */
struct entry {
    const struct step_row *row;
    const struct session_slot *session;
    const uint64_t *mask;          /* NULL: every token is allowed */
    struct sample_history history; /* of a drawn one */
    uint32_t batch_row;            /* whose logits */
    uint32_t position;             /* of the token that the logits are about */
    uint32_t scored;               /* the prompt's token there */
    bool drawn;
};

struct step {
    const struct arena *arena;
    const struct served_model *served;
    const struct kernels *kernels;
    struct forward *forward;
    struct sampler *sampler;
    struct step_buffers shared;
    struct barrier *barrier;
    uint32_t rows_max, entries_max;

    /* the plan, in the terms of the forward pass */
    struct batch batch;
    uint32_t *token_ids;    /* (step_tokens) */
    struct batch_run *runs; /* (rows_max) */
    page_id *page_ids;      /* (pages of one sequence) */
    uint8_t **pages;        /* (rows_max, page classes, pages of one sequence), packed */
    uint64_t pages_used;
    struct entry *entries; /* (entries_max) */
    uint32_t entry_count;
    uint32_t *logit_rows; /* (logit_rows): batch rows of the entries at hand */
};

/* ---- life ---- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

enum err step_open(struct step **out, const struct arena *a, const struct served_model *served,
                   const struct kernels *kernels, struct why *why)
{
    struct step *s = calloc(1, sizeof *s);
    if (!s)
        return because(why, ERR_NOMEM, "no memory for a step");
    s->arena = a;
    s->served = served;
    s->kernels = kernels;
    s->rows_max = least(STEP_ROWS_MAX, served->step_tokens);
    s->entries_max = least(STEP_ENTRIES_MAX, a->geometry.result_rows);

    uint32_t sequence_pages = a->layout.row_entries[0];
    s->token_ids = calloc(served->step_tokens, sizeof *s->token_ids);
    s->runs = calloc(s->rows_max, sizeof *s->runs);
    s->page_ids = calloc(sequence_pages, sizeof *s->page_ids);
    s->pages = calloc((size_t)s->rows_max * a->geometry.page_classes * sequence_pages,
                      sizeof *s->pages); /* 2^29 at most, touched as used */
    s->entries = calloc(s->entries_max, sizeof *s->entries);
    s->logit_rows = calloc(served->logit_rows, sizeof *s->logit_rows);
    enum err err = OK;
    if (!s->token_ids || !s->runs || !s->page_ids || !s->pages || !s->entries || !s->logit_rows)
        err = because(why, ERR_NOMEM, "no memory for a step of %u tokens", served->step_tokens);
    if (err == OK)
        err = sampler_open(&s->sampler, served->model.vocab, why);
    if (err == OK)
        err = forward_open(&s->forward, &served->model, arena_weights(a), kernels, served->step_tokens,
                           served->logit_rows, why);
    if (err != OK) {
        step_close(s);
        return err;
    }
    step_buffers_place(&s->shared, served, arena_work(a));
    *out = s;
    return OK;
}

void step_close(struct step *s)
{
    if (!s)
        return;
    forward_close(s->forward);
    sampler_close(s->sampler);
    free(s->logit_rows);
    free(s->entries);
    free(s->pages);
    free(s->page_ids);
    free(s->runs);
    free(s->token_ids);
    free(s);
}

enum err step_use_blas(struct step *s, struct why *why)
{
    return forward_use_blas(s->forward, why);
}

enum err step_use_float_activations(struct step *s, struct why *why)
{
    return forward_use_float_activations(s->forward, why);
}

/* Every meeting is a sign of life too: a long step is not a hang. */
static enum err meet(void *barrier)
{
    struct barrier *b = barrier;
    worker_slot_beat(b->me);
    return barrier_meet(b);
}

void step_join(struct step *s, struct barrier *barrier)
{
    s->barrier = barrier;
    forward_join(s->forward, barrier->rank, barrier->ranks, barrier->epoch, &s->shared.forward, meet, barrier);
}

uint32_t step_tokens(const struct step *s)
{
    return s->batch.tokens;
}

/* ---- the plan becomes a batch ---- */

static enum err refuse(struct why *why, const struct step_plan *plan, uint32_t row, const char *reason)
{
    return because(why, ERR_FORMAT, "row %u of step %llu was refused: %s", row, (unsigned long long)plan->step, reason);
}

static uint32_t history_length(const struct step_row *row)
{
    return row->history + (row->previous > 0 ? 1 : 0);
}

/* What a row says about itself, before anything of shared memory is read through it. */
static const char *row_fault(const struct step *s, const struct step_row *row)
{
    uint32_t context = least(s->arena->geometry.context, s->served->model.context);
    bool drawn = row->flags & ROW_SAMPLE, scored = row->flags & ROW_SCORE;
    if (row->count == 0 || row->first >= context || row->count > context - row->first)
        return "its positions lie outside the context";
    if (row->flags & ~(uint32_t)ROW_FLAGS)
        return "it has an unknown flag";
    if (scored && !drawn && row->first + row->count == context)
        return "it scores a token behind the end of the context";
    if (row->history > context)
        return "its history is longer than the context";
    if (drawn && history_length(row) != row->first + row->count)
        return "its history does not end where it draws";
    if (row->previous > 0 && (row->count != 1 || row->previous > s->entries_max || scored))
        return "only one token can be handed over from the step before";
    if ((row->flags & ROW_MASKED) && s->arena->geometry.mask_words < (s->served->model.vocab + 63) / 64)
        return "sessions have no token mask";
    return NULL;
}

static enum err read_tokens(const struct step *s, const struct step_plan *plan, const struct step_row *row,
                            const struct session_slot *session, uint32_t *ids, struct why *why)
{
    uint32_t at = (uint32_t)(row - plan->rows);
    if (row->previous > 0) {
        if (plan->flags & PLAN_MEET_FIRST)
            return refuse(why, plan, at, "there is no step before the first of an epoch");
        if (result_token(s->arena, plan->epoch, plan->step - 1, row->previous - 1, row->session,
                         row->session_generation, ids) != OK)
            return refuse(why, plan, at, "the step before left no such token");
    } else {
        for (uint32_t i = 0; i < row->count; i++)
            ids[i] = session->tokens[row->first + i];
    }
    for (uint32_t i = 0; i < row->count; i++)
        if (ids[i] >= s->served->model.vocab)
            return refuse(why, plan, at, "a token id lies outside the vocabulary");
    return OK;
}

/*
 * Page numbers of a class become addresses: all up to the row's last position, those it writes on the group's own node. Of a window
 * those that it looks at: the others may be somebody else's by now.
 */
static enum err read_pages(struct step *s, const struct step_plan *plan, const struct step_row *row,
                           uint32_t page_class, uint8_t ***pages, struct why *why)
{
    const struct arena *a = s->arena;
    uint32_t count = (row->first + row->count - 1) / PAGE_TOKENS + 1;
    uint32_t seen = page_class == PAGE_CLASS_WINDOW ? window_first_page(a->geometry.window, row->first) : 0;
    struct why reason;
    if (sequence_row_read(a, row->session, row->session_generation, page_class, seen, count - seen, s->page_ids + seen,
                          &reason) != OK)
        return refuse(why, plan, (uint32_t)(row - plan->rows), reason.text);
    *pages = s->pages + s->pages_used;
    for (uint32_t i = seen; i < count; i++) {
        bool written = i >= row->first / PAGE_TOKENS;
        if (written && page_place(&a->geometry, &a->layout, s->page_ids[i]).node != a->geometry.group_node[a->group])
            return refuse(why, plan, (uint32_t)(row - plan->rows), "it writes a page of another node");
        (*pages)[i] = arena_page(a, s->page_ids[i]);
    }
    s->pages_used += count;
    return OK;
}

static enum err add_entries(struct step *s, const struct step_plan *plan, const struct step_row *row,
                            const struct session_slot *session, uint32_t first_row, struct why *why)
{
    uint32_t count = step_row_entries(row);
    if (count > s->entries_max - s->entry_count)
        return refuse(why, plan, (uint32_t)(row - plan->rows), "the step has more results than there is room for");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t offset = row->flags & ROW_SCORE ? i : row->count - 1; /* within the row */
        struct entry *e = &s->entries[s->entry_count++];
        *e = (struct entry){
            .row = row, .session = session, .batch_row = first_row + offset, .position = row->first + offset + 1};
        e->drawn = (row->flags & ROW_SAMPLE) && offset + 1 == row->count;
        if (!e->drawn) {
            e->scored = session->tokens[e->position];
            continue;
        }
        if (row->flags & ROW_MASKED)
            e->mask = session_mask(s->arena, row->session);
        e->history = (struct sample_history){.tokens = session->tokens, .count = row->history};
        if (row->previous > 0) {
            e->history.has_handed = true;
            e->history.handed = s->token_ids[first_row];
        }
    }
    return OK;
}

static enum err read_row(struct step *s, const struct step_plan *plan, uint32_t index, struct why *why)
{
    const struct step_row *row = &plan->rows[index];
    const char *fault = row_fault(s, row);
    if (fault)
        return refuse(why, plan, index, fault);
    uint32_t first_row = s->batch.tokens;
    if (row->count > s->served->step_tokens - first_row)
        return refuse(why, plan, index, "the step has more tokens than there is room for");
    const struct session_slot *session =
        session_read(s->arena, row->session, row->session_generation, row->first, row->count);
    if (!session)
        return refuse(why, plan, index, "there is no such session");

    struct batch_run *run = &s->runs[index];
    *run = (struct batch_run){.first_row = first_row, .count = row->count, .position = row->first};
    enum err err = read_tokens(s, plan, row, session, s->token_ids + first_row, why);
    for (uint32_t c = 0; err == OK && c < s->arena->geometry.page_classes; c++) {
        uint8_t **pages;
        err = read_pages(s, plan, row, c, &pages, why);
        if (err == OK)
            run->pages[c] = pages;
    }
    if (err != OK)
        return err;
    if (session->sampling.seed == FAULT_MARKED_SEED)
        fault_point(FAULT_WORKER_MARKED);
    s->batch.tokens += row->count;
    return add_entries(s, plan, row, session, first_row, why);
}

static enum err read_plan(struct step *s, const struct step_plan *plan, struct why *why)
{
    if (plan->row_count == 0 || plan->row_count > s->rows_max)
        return because(why, ERR_FORMAT, "step %llu was refused: %u rows, 1 to %u are possible",
                       (unsigned long long)plan->step, plan->row_count, s->rows_max);
    if (plan->flags & ~(uint32_t)PLAN_FLAGS)
        return because(why, ERR_FORMAT, "step %llu was refused: unknown flags %#x", (unsigned long long)plan->step,
                       plan->flags);
    s->batch = (struct batch){.runs = s->runs, .run_count = plan->row_count, .token_ids = s->token_ids};
    s->pages_used = 0;
    s->entry_count = 0;
    for (uint32_t i = 0; i < plan->row_count; i++) {
        enum err err = read_row(s, plan, i, why);
        if (err != OK)
            return err;
    }
    return OK;
}

/* ---- results ---- */

static float *raw_row(const struct step *s, uint32_t i)
{
    return s->shared.forward.logits + (size_t)i * s->shared.logits_stride;
}

/* The raw row itself when nothing changes it. */
static float *processed_row(const struct step *s, uint32_t i, const struct entry *e)
{
    if (!e->drawn || !sampling_changes_logits(&e->session->sampling, e->mask))
        return raw_row(s, i);
    return s->shared.processed + (size_t)i * s->shared.logits_stride;
}

static struct sample_partial *partials_of(const struct step *s, uint32_t i)
{
    return s->shared.partials + (size_t)i * s->shared.logit_blocks;
}

/* Rows [begin, end) of the vocabulary. */
struct vocab_range {
    uint32_t begin, end;
};

static void prepare_range(struct step *s, uint32_t first, uint32_t count, struct vocab_range r)
{
    for (uint32_t i = 0; r.begin < r.end && i < count; i++) {
        const struct entry *e = &s->entries[first + i];
        sampler_prepare(s->sampler, s->kernels, e->drawn ? &e->session->sampling : NULL, &e->history, e->mask,
                        raw_row(s, i), processed_row(s, i, e), r.begin, r.end, partials_of(s, i));
    }
}

/*
 * Stage 1: what this rank takes of the vocabulary, for all `count` entries from `first` on. Rows that follow one another are
 * prepared together: it takes a walk over the history.
 */
static void prepare_entries(struct step *s, uint32_t first, uint32_t count)
{
    struct vocab_range together = {0, 0}, next;
    for (uint32_t i = 0; i < count; i++)
        s->logit_rows[i] = s->entries[first + i].batch_row;
    forward_logits_begin(s->forward, s->logit_rows, count);
    while (forward_logits_next(s->forward, &next.begin, &next.end)) {
        if (next.begin != together.end) {
            prepare_range(s, first, count, together);
            together.begin = next.begin;
        }
        together.end = next.end;
    }
    prepare_range(s, first, count, together);
}

static uint32_t alternatives(const struct sampling *p)
{
    return p->logprobs > 1 ? p->logprobs - 1 : 0;
}

static void publish(const struct step *s, const struct step_plan *plan, uint32_t index, const struct sampled *sampled)
{
    const struct entry *e = &s->entries[index];
    struct result_entry *to = result_entry_at(s->arena, plan->step, index);
    to->session = e->row->session;
    to->session_generation = e->row->session_generation;
    to->token = sampled->token;
    to->logprob = sampled->logprob;
    to->top_count = sampled->top_count;
    for (uint32_t i = 0; i < sampled->top_count; i++)
        to->top[i] = (struct result_top){sampled->top[i].token, sampled->top[i].logprob};
    fault_point(FAULT_WORKER_ENTRY_WRITTEN);
    result_publish(to, plan->epoch, plan->step);
    fault_point(FAULT_WORKER_ENTRY_PUBLISHED);
}

/* Stage 2: whole entries, every ranks-th of them. */
static void draw_entries(struct step *s, const struct step_plan *plan, uint32_t first, uint32_t count)
{
    for (uint32_t i = s->barrier->rank; i < count; i += s->barrier->ranks) {
        const struct entry *e = &s->entries[first + i];
        const struct sampling *p = &e->session->sampling;
        struct sampled sampled;
        if (e->drawn)
            sampler_draw(s->sampler, p, e->position, raw_row(s, i), processed_row(s, i, e), partials_of(s, i),
                         &sampled);
        else
            sampler_score(s->sampler, e->scored, alternatives(p), raw_row(s, i), partials_of(s, i), &sampled);
        publish(s, plan, first + i, &sampled);
    }
}

/* What a wild store does, for tests. */
static void write_astray(const struct step *s)
{
    memset(s->pages[0], 0x55, 256);
    raise(SIGSEGV);
}

enum err step_run(struct step *s, const struct step_plan *plan, struct why *why)
{
    must(s->barrier);
    enum err err = read_plan(s, plan, why);
    if (err != OK)
        return err;
    if (fault_point(FAULT_WORKER_STRAY))
        write_astray(s);
    if ((plan->flags & PLAN_MEET_FIRST) && meet(s->barrier) != OK) /* no late hand of a step that was cut off */
        return ERR_ABORTED;
    if (forward_run(s->forward, &s->batch) != OK)
        return ERR_ABORTED;
    for (uint32_t first = 0; first < s->entry_count; first += s->served->logit_rows) {
        uint32_t count = least(s->served->logit_rows, s->entry_count - first);
        fault_point(FAULT_WORKER_LOGITS_BEGIN);
        prepare_entries(s, first, count);
        fault_point(FAULT_WORKER_LOGITS_DONE);
        if (meet(s->barrier) != OK)
            return ERR_ABORTED;
        draw_entries(s, plan, first, count);
        if (meet(s->barrier) != OK) /* the next round, or the next step, writes these logits again */
            return ERR_ABORTED;
    }
    return OK;
}
