/* What a step has said: checked, stored, committed, told. */

#include "base/fault.h"
#include "coordinator/scheduler_internal.h"
#include "shm/sequence_table.h"

/* Whoever waited for plans up to the oldest one in flight can go on. */
void scheduler_reclaim(struct scheduler *s)
{
    uint64_t oldest = s->next_number;
    for (uint32_t g = 0; g < s->group_count; g++) {
        const struct group *group = &s->groups[g];
        if (group->flight_count && group->flights[0]->number < oldest)
            oldest = group->flights[0]->number;
        if (group->void_number && group->void_number < oldest)
            oldest = group->void_number;
    }
    if (oldest - 1 <= s->answered)
        return;
    s->answered = oldest - 1;
    page_pool_reclaim(s->pool, s->answered);
    session_slots_reclaim(s->slots, s->answered);
}

void scheduler_index_pages(struct scheduler *s, struct sequence *q)
{
    for (; q->indexed < q->pages && (q->indexed + 1) * PAGE_TOKENS <= q->n_tok; q->indexed++) {
        uint32_t i = q->indexed;
        page_id page = sequence_row_entry(s->arena, q->slot, 0, i).page;
        struct page_name parent = i ? q->chain[i - 1] : NO_PAGE;
        page_id stands = prefix_cache_insert(s->cache, page, q->spec.salt, parent, q->tokens + i * PAGE_TOKENS);
        q->chain[i] = page_pool_name(s->pool, stands);
    }
}

/* The window's page hangs on the one that stands in the index for the same tokens, whoever computed that. */
static void seal_window_page(struct scheduler *s, struct sequence *q, uint32_t i)
{
    page_id page = sequence_row_entry(s->arena, q->slot, PAGE_CLASS_WINDOW, i).page;
    page_pool_seal(s->pool, page, q->chain[i], q->spec.salt, q->tokens + i * PAGE_TOKENS);
    prefix_cache_insert(s->cache, page, q->spec.salt, q->chain[i], q->tokens + i * PAGE_TOKENS);
    scheduler_page_sealed(s, page);
}

static void seal_pages(struct scheduler *s, struct sequence *q)
{
    scheduler_index_pages(s, q);
    for (; (q->sealed + 1) * PAGE_TOKENS <= q->n_kv; q->sealed++) {
        uint32_t i = q->sealed;
        struct page_name parent = i ? q->chain[i - 1] : NO_PAGE;
        page_pool_seal(s->pool, sequence_row_entry(s->arena, q->slot, PAGE_CLASS_WHOLE, i).page, parent, q->spec.salt,
                       q->tokens + i * PAGE_TOKENS);
        scheduler_page_sealed(s, sequence_row_entry(s->arena, q->slot, PAGE_CLASS_WHOLE, i).page);
        if (s->arena->geometry.window)
            seal_window_page(s, q, i);
    }
}

/* Gives the window pages back that n_kv and later positions do not look at: plans after this one begin there. */
static void leave_window_behind(struct scheduler *s, struct sequence *q, uint64_t plan)
{
    uint32_t seen = window_first_page(s->arena->geometry.window, q->n_kv);
    for (; q->window_first < seen; q->window_first++) {
        struct page_name left = sequence_row_entry(s->arena, q->slot, PAGE_CLASS_WINDOW, q->window_first);
        page_pool_release(s->pool, left.page, plan);
    }
}

static bool is_stop(const struct sampling *p, uint32_t token)
{
    for (uint32_t i = 0; i < p->stop_id_count; i++)
        if (p->stop_ids[i] == token)
            return true;
    return false;
}

/* Scored positions come before the drawn token in the entries of a row. */
static enum err tell_scores(struct scheduler *s, uint32_t group, const struct flight *f, uint32_t r, struct why *why)
{
    const struct step_row *row = &f->rows[r];
    struct sequence *q = f->owners[r];
    uint32_t scored = row->count - (row->flags & ROW_SAMPLE ? 1 : 0);
    for (uint32_t i = 0; i < scored; i++) {
        struct result_entry entry;
        enum err e = s->hooks.result(s->hooks.world, group, s->groups[group].epoch, f->step, f->entries[r] + i, row,
                                     &entry, why);
        if (e)
            return e;
        uint32_t position = row->first + i + 1;
        if (position > q->scored && position < q->prompt_tokens) { /* told once, also when it is computed again */
            q->scored = position;
            q->spec.events->scored(q->spec.owner, position, &entry);
        }
    }
    return OK;
}

/* One row of an answered step: store the token, commit, then tell. */
static enum err take_row(struct scheduler *s, uint32_t group, struct flight *f, uint32_t r, struct why *why)
{
    struct sequence *q = f->owners[r];
    const struct step_row *row = &f->rows[r];
    struct session_slot *slot = session_at(s->arena, q->slot);
    struct result_entry drawn;
    bool draws = row->flags & ROW_SAMPLE;
    if (draws) {
        uint32_t entry = f->entries[r] + step_row_entries(row) - 1;
        enum err e = s->hooks.result(s->hooks.world, group, s->groups[group].epoch, f->step, entry, row, &drawn, why);
        if (e)
            return e;
        slot->tokens[q->n_tok] = q->tokens[q->n_tok] = drawn.token;
        q->n_tok++;
        fault_point(FAULT_COORDINATOR_TOKEN_STORED);
    }
    q->n_kv = row->first + row->count;
    scheduler_exonerate(q);
    seal_pages(s, q);
    fault_point(FAULT_COORDINATOR_SEALED);
    scheduler_commit(s, q);
    leave_window_behind(s, q, f->number);

    if (row->flags & ROW_SCORE) {
        enum err e = tell_scores(s, group, f, r, why);
        if (e)
            return e;
    }
    if (!draws) {
        if (q->spec.max_tokens == 0 && q->n_kv + 1 >= q->n_tok)
            scheduler_end_sequence(s, q, FINISH_LENGTH);
        return OK;
    }
    if (q->state == SEQUENCE_PREFILL)
        sequence_move(q, SEQUENCE_DECODE);
    s->counters.generated++;
    fault_point(FAULT_COORDINATOR_COMMITTED);
    bool stop = q->spec.events->token(q->spec.owner, &drawn);
    fault_point(FAULT_COORDINATOR_TOLD);
    if (stop || is_stop(&q->spec.sampling, drawn.token))
        scheduler_end_sequence(s, q, FINISH_STOP);
    else if (q->n_tok - q->prompt_tokens >= q->spec.max_tokens)
        scheduler_end_sequence(s, q, FINISH_LENGTH);
    return OK;
}

/* Nothing of a step is kept before all of it is known to be good: what was committed and not told would be lost. */
static enum err check_results(struct scheduler *s, uint32_t g, const struct flight *f, struct why *why)
{
    struct result_entry entry;
    for (uint32_t r = 0; r < f->row_count; r++)
        for (uint32_t i = 0; f->owners[r] && i < step_row_entries(&f->rows[r]); i++) {
            enum err e = s->hooks.result(s->hooks.world, g, s->groups[g].epoch, f->step, f->entries[r] + i, &f->rows[r],
                                         &entry, why);
            if (e)
                return e;
        }
    return OK;
}

static void drop_oldest_flight(struct group *group, uint64_t now)
{
    struct flight *done = group->flights[0];
    group->flights[0] = group->flights[1];
    group->flights[1] = done;
    if (--group->flight_count)
        group->flights[0]->since_us = now;
}

enum err scheduler_step_done(struct scheduler *s, uint32_t g, uint32_t epoch, uint64_t step, uint64_t now,
                             struct why *why)
{
    struct group *group = &s->groups[g];
    if (!group->up || group->epoch != epoch || !group->flight_count || group->flights[0]->step != step)
        return OK; /* of a plan that is void */
    struct flight *f = group->flights[0];
    uint64_t took = now - f->since_us;
    enum err e = check_results(s, g, f, why);
    for (uint32_t r = 0; !e && r < f->row_count; r++)
        e = f->owners[r] ? take_row(s, g, f, r, why) : OK;
    if (e)
        return e;
    scheduler_learn_time(s, group, f, took);
    s->counters.steps++;
    s->counters.prefilled += f->prompt_tokens;
    s->counters.last_step_us = took;
    drop_oldest_flight(group, now);
    scheduler_reclaim(s);
    if (fault_point(FAULT_COORDINATOR_SOUND))
        scheduler_must_be_sound(s);
    return OK;
}
