/* fake_workers: the model that is a hash, workers that compute it over a shadow of the pages, and their deaths. See fake_world.h. */
#include "tests/support/fake_world_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shm/sequence_table.h"

/* ---- the model ---- */

uint64_t fake_mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

uint32_t fake_next_token(uint64_t hash, uint64_t seed)
{
    return (uint32_t)(fake_mix(hash, seed) % FAKE_VOCAB);
}

float fake_score_of(uint64_t hash, uint32_t token)
{
    return -(float)(fake_mix(hash, token) % 1000) / 100;
}

uint64_t fake_prompt_hash(const struct client *c)
{
    uint64_t hash = 1;
    for (uint32_t i = 0; i < c->prompt_tokens; i++)
        hash = fake_mix(hash, c->prompt[i]);
    return hash;
}

uint32_t fake_token(const struct client *c, uint32_t i)
{
    uint64_t hash = fake_prompt_hash(c);
    uint32_t token = fake_next_token(hash, c->seed);
    for (; i > 0; i--) {
        hash = fake_mix(hash, token);
        token = fake_next_token(hash, c->seed);
    }
    return token;
}

/* ---- workers ---- */

static struct fake_group *group_at(struct fake_world *w, uint32_t group)
{
    return &w->groups[group];
}

void fake_take_plan(void *world, uint32_t group, const struct step_plan *plan)
{
    struct fake_world *w = world;
    struct fake_group *g = group_at(w, group);
    assert_true(g->up && plan->epoch == g->epoch);
    assert_true(g->plan_count < MAX_FLIGHTS);
    assert_in_range(plan->row_count, 1, STEP_ROWS_MAX);
    assert_int_equal(plan->flags, g->first ? PLAN_MEET_FIRST : 0);
    assert_true(g->last_step == 0 || plan->step == g->last_step + 1);
    g->first = false;
    g->last_step = plan->step;
    g->plans[g->plan_count++] = *plan;
    w->plans++;
    w->largest_prefill = 0;
    for (uint32_t r = 0; r < plan->row_count; r++)
        w->largest_prefill += plan->rows[r].count > 1 ? plan->rows[r].count : 0;
}

struct fake_row {
    const struct session_slot *session;
    page_id pages[PAGE_CLASSES_MAX][FAKE_CONTEXT_MAX / PAGE_TOKENS];
    uint32_t seen[PAGE_CLASSES_MAX]; /* the first page of each class that the row looks at */
    uint32_t count;
};

static void read_row(const struct fake_world *w, uint32_t group, const struct step_row *row, struct fake_row *out)
{
    struct why why;
    const struct arena_geometry *g = &w->arena->geometry;
    out->count = pages_for(row->first + row->count);
    out->session = session_read(w->arena, row->session, row->session_generation, row->first, row->count);
    assert_non_null(out->session);
    for (uint32_t c = 0; c < g->page_classes; c++) {
        uint32_t seen = out->seen[c] = c == PAGE_CLASS_WINDOW ? window_first_page(g->window, row->first) : 0;
        if (sequence_row_read(w->arena, row->session, row->session_generation, c, seen, out->count - seen,
                              out->pages[c] + seen, &why))
            fail_msg("%s", why.text);
        for (uint32_t i = row->first / PAGE_TOKENS; i < out->count; i++)
            assert_int_equal(page_place(g, &w->arena->layout, out->pages[c][i]).node, g->group_node[group]);
    }
}

static struct client *client_of(struct fake_world *w, const struct step_row *row)
{
    for (uint32_t i = 0; i < w->client_count; i++) {
        const struct sequence *q = w->clients[i].sequence;
        if (q && q->slot == row->session && q->generation == row->session_generation)
            return &w->clients[i];
    }
    return NULL;
}

/* The hash of the tokens before `first`, all of whose keys and values must lie in the row's pages. */
static uint64_t read_past(const struct fake_world *w, const struct fake_row *row, uint32_t first, bool is_awaited)
{
    uint64_t hash = 1;
    for (uint32_t p = 0; p < first; p++) {
        hash = fake_mix(hash, row->session->tokens[p]);
        for (uint32_t c = 0; c < w->arena->geometry.page_classes; c++) {
            if (p / PAGE_TOKENS < row->seen[c])
                continue;
            page_id id = row->pages[c][p / PAGE_TOKENS];
            const struct fake_page *page = &w->pages[id];
            if (page->damaged && !is_awaited)
                continue; /* it was sent back, and its row in the plans of another node's group goes on in vain */
            assert_int_equal(page->generation, page_pool_name(w->s->pool, id).generation);
            assert_true(page->written >> p % PAGE_TOKENS & 1);
            assert_true(page->hash[p % PAGE_TOKENS] == hash);
            assert_true(page->salt == row->session->salt);
        }
    }
    return hash;
}

static void write_position(struct fake_world *w, const struct fake_row *row, page_id id, uint32_t position,
                           uint64_t hash)
{
    struct fake_page *page = &w->pages[id];
    enum page_state state = page_pool_state(w->s->pool, id);
    uint32_t generation = page_pool_name(w->s->pool, id).generation;
    assert_true(state == PAGE_FILLING || state == PAGE_RETIRED);
    if (page->generation != generation)
        *page = (struct fake_page){.generation = generation, .salt = row->session->salt};
    page->written |= 1u << position % PAGE_TOKENS;
    page->hash[position % PAGE_TOKENS] = hash;
}

static uint32_t handed_token(const struct fake_group *g, const struct step_plan *plan, const struct step_row *row)
{
    const struct result_entry *entry = &g->results[(plan->step - 1) % 2][row->previous - 1];
    assert_false(plan->flags & PLAN_MEET_FIRST);
    assert_true(entry->stamp == result_stamp(plan->epoch, plan->step - 1));
    assert_true(entry->session == row->session && entry->session_generation == row->session_generation);
    return entry->token;
}

static void compute_row(struct fake_world *w, struct fake_group *g, const struct step_plan *plan,
                        const struct step_row *row, uint32_t *entry)
{
    struct fake_row at;
    read_row(w, (uint32_t)(g - w->groups), row, &at);
    const struct client *c = client_of(w, row);
    uint64_t hash = read_past(w, &at, row->first, c && c->sequence->state != SEQUENCE_WAITING);
    if (row->previous)
        assert_int_equal(row->count, 1);
    if (row->flags & ROW_SAMPLE)
        assert_int_equal(row->history + (row->previous ? 1 : 0), row->first + row->count);
    for (uint32_t i = 0; i < row->count; i++) {
        uint32_t position = row->first + i;
        bool draws = (row->flags & ROW_SAMPLE) && i + 1 == row->count;
        hash = fake_mix(hash, row->previous ? handed_token(g, plan, row) : at.session->tokens[position]);
        for (uint32_t k = 0; k < w->arena->geometry.page_classes; k++)
            write_position(w, &at, at.pages[k][position / PAGE_TOKENS], position, hash);
        w->positions++;
        if (!draws && !(row->flags & ROW_SCORE))
            continue;
        assert_true(*entry < w->arena->geometry.result_rows);
        uint32_t token = draws ? fake_next_token(hash, at.session->sampling.seed) : at.session->tokens[position + 1];
        g->results[plan->step % 2][(*entry)++] = (struct result_entry){
            .stamp = result_stamp(plan->epoch, plan->step),
            .session = row->session,
            .session_generation = row->session_generation,
            .token = token,
            .logprob = fake_score_of(hash, token),
        };
    }
}

/* The oldest plan that is not computed ends whoever computes it. */
static bool is_poison(struct fake_world *w, const struct fake_group *g)
{
    const struct step_plan *plan = &g->plans[g->computed];
    for (uint32_t r = 0; r < plan->row_count; r++) {
        const struct step_row *row = &plan->rows[r];
        const struct client *c = client_of(w, row);
        if (c && c->poison_at && c->poison_at >= row->first && c->poison_at < row->first + row->count)
            return true;
    }
    return false;
}

/* What a page's bytes would sum up to. */
static uint32_t sum_of(const struct fake_page *page)
{
    uint64_t sum = page->written;
    for (uint32_t i = 0; i < PAGE_TOKENS; i++)
        sum = fake_mix(sum, page->hash[i]);
    return (uint32_t)(sum >> 7);
}

void fake_take_question(void *world, uint32_t group, uint64_t question, const page_id *pages, uint32_t count)
{
    struct fake_world *w = world;
    struct fake_group *g = group_at(w, group);
    assert_true(g->up && question);
    assert_in_range(count, 1, SUM_PAGES_MAX);
    g->question = question;
    g->asked_count = count;
    memcpy(g->asked, pages, count * sizeof *pages);
}

bool fake_answer(struct fake_world *w, uint32_t group)
{
    struct fake_group *g = group_at(w, group);
    uint32_t sums[SUM_PAGES_MAX];
    uint64_t question = g->question;
    if (!question)
        return false;
    for (uint32_t i = 0; i < g->asked_count; i++)
        sums[i] = sum_of(&w->pages[g->asked[i]]);
    g->question = 0;
    scheduler_sums(w->s, group, question, sums, g->asked_count);
    scheduler_must_be_sound(w->s);
    return true;
}

void fake_damage(struct fake_world *w, page_id page)
{
    w->pages[page].hash[page % PAGE_TOKENS] ^= 4;
    w->pages[page].damaged = true;
}

static bool compute(struct fake_world *w, struct fake_group *g)
{
    if (g->computed == g->plan_count)
        return false;
    const struct step_plan *plan = &g->plans[g->computed++];
    uint32_t entry = 0;
    for (uint32_t r = 0; r < plan->row_count; r++)
        compute_row(w, g, plan, &plan->rows[r], &entry);
    return true;
}

bool fake_compute(struct fake_world *w, uint32_t group)
{
    struct fake_group *g = group_at(w, group);
    if (g->computed < g->plan_count && is_poison(w, g)) {
        w->poisoned++;
        fake_suspect_death(w, group, (uint32_t)(w->poisoned % 2), false);
        fake_group_up(w, group);
        return true;
    }
    return compute(w, g);
}

enum err fake_read_result(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint32_t entry,
                          const struct step_row *row, struct result_entry *out, struct why *why)
{
    struct fake_world *w = world;
    if (w->spoiled_result) {
        w->spoiled_result = false;
        return because(why, ERR_FORMAT, "spoiled by the test");
    }
    *out = w->groups[group].results[step % 2][entry];
    assert_true(out->stamp == result_stamp(epoch, step));
    assert_true(out->session == row->session && out->session_generation == row->session_generation);
    return OK;
}

bool fake_report(struct fake_world *w, uint32_t group)
{
    struct fake_group *g = group_at(w, group);
    struct why why;
    if (!g->computed)
        return false;
    uint64_t step = g->plans[0].step, tokens = 0;
    for (uint32_t r = 0; r < g->plans[0].row_count; r++) {
        struct client *c = client_of(w, &g->plans[0].rows[r]);
        tokens += g->plans[0].rows[r].count > 1 ? g->plans[0].rows[r].count : 0;
        if (c)
            c->deaths = 0;
    }
    w->now += w->decode_us + tokens * w->prefill_token_us;
    g->plans[0] = g->plans[1];
    g->plan_count--;
    g->computed--;
    if (scheduler_step_done(w->s, group, g->epoch, step, w->now, &why))
        fail_msg("%s", why.text);
    scheduler_must_be_sound(w->s);
    return true;
}

/* ---- deaths ---- */

/* A dead worker's peers may write on until they hear of it: their pages are nobody else's before the group meets anew. */
static void note_stragglers(struct fake_world *w, struct fake_group *g)
{
    g->straggling_count = 0;
    for (uint32_t i = g->computed; i < g->plan_count; i++)
        for (uint32_t r = 0; r < g->plans[i].row_count; r++) {
            const struct step_row *row = &g->plans[i].rows[r];
            struct fake_row at;
            read_row(w, (uint32_t)(g - w->groups), row, &at);
            for (uint32_t c = 0; c < w->arena->geometry.page_classes; c++)
                for (uint32_t p = row->first / PAGE_TOKENS; p < at.count; p++) {
                    assert_true(g->straggling_count < FAKE_PAGES_MAX);
                    g->straggling[g->straggling_count++] = page_pool_name(w->s->pool, at.pages[c][p]);
                }
        }
}

void fake_group_down(struct fake_world *w, uint32_t group, bool in_the_middle)
{
    struct fake_group *g = group_at(w, group);
    assert_true(g->up);
    note_stragglers(w, g);
    if (in_the_middle)
        compute(w, g); /* all of it is written, none of it will be reported */
    g->up = false;
    g->plan_count = g->computed = 0;
    g->question = 0;
    for (uint32_t i = 0; i < w->client_count; i++)
        w->clients[i].deaths++;
    scheduler_group_down(w->s, group);
    scheduler_must_be_sound(w->s);
}

void fake_suspect_death(struct fake_world *w, uint32_t group, uint32_t rank, bool in_the_middle)
{
    for (uint32_t i = 0; i < w->client_count; i++)
        w->clients[i].suspect_deaths++;
    const struct arena_geometry *geometry = &w->arena->geometry;
    bool was_up[GROUPS_MAX] = {false};
    fake_group_down(w, group, in_the_middle);
    for (uint32_t g = 0; g < geometry->groups; g++) {
        was_up[g] = w->groups[g].up && geometry->group_node[g] == geometry->group_node[group];
        if (was_up[g])
            fake_group_down(w, g, false);
    }
    scheduler_doubt(w->s, group);
    scheduler_must_be_sound(w->s);
    w->verdict = scheduler_blame(w->s, group, rank);
    scheduler_must_be_sound(w->s);
    for (uint32_t g = 0; g < geometry->groups; g++)
        if (was_up[g])
            fake_group_up(w, g);
}

void fake_group_up(struct fake_world *w, uint32_t group)
{
    struct fake_group *g = group_at(w, group);
    for (uint32_t i = 0; i < g->straggling_count; i++)
        assert_int_equal(page_pool_name(w->s->pool, g->straggling[i].page).generation, g->straggling[i].generation);
    g->straggling_count = 0;
    g->up = g->first = true;
    g->epoch += 2;
    g->last_step = 0;
    scheduler_group_up(w->s, group, g->epoch);
    scheduler_must_be_sound(w->s);
}

void fake_group_lost(struct fake_world *w, uint32_t group)
{
    struct fake_group *g = group_at(w, group);
    assert_false(g->up);
    g->lost = true;
    scheduler_group_lost(w->s, group);
    scheduler_must_be_sound(w->s);
}
