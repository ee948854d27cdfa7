/*
 * One step of one rank: ranks are threads on one mapping of a small server's memory, so that ThreadSanitizer sees what they
 * share. What a step says is held against goldens of an independent implementation and against itself.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "shm/results.h"
#include "shm/worker_slot.h"
#include "shm/sequence_table.h"
#include "tests/support/malloc_count.h"
#include "tests/support/server_rig.h"
#include "worker/step.h"

#define TINY "tiny/llama/model-f32.gguf"
#define TINY_GOLDEN "tiny/llama/golden-f32.json"

enum { RANKS_MAX = 4 };

struct rank {
    struct step *step;
    struct barrier barrier;
    const struct step_plan *plan;
    enum err err;
    struct why why;
};

struct group {
    struct server_rig server;
    struct arena worker;
    uint32_t ranks, epoch;
    uint64_t step; /* the next one */
    struct rank rank[RANKS_MAX];
    struct step_plan plan;
};

static void new_epoch(struct group *g)
{
    const uint32_t slots[RANKS_MAX] = {0, 1, 2, 3};
    struct why why;
    barrier_set_epoch(&g->server.arena, 0, ++g->epoch);
    for (uint32_t i = 0; i < g->ranks; i++) {
        assert_int_equal(barrier_join(&g->rank[i].barrier, &g->worker, 0, g->epoch, i, g->ranks, slots, 0, &why), OK);
        step_join(g->rank[i].step, &g->rank[i].barrier);
    }
    g->plan.epoch = g->epoch;
    g->plan.flags = PLAN_MEET_FIRST;
}

static struct group *group_open(const char *model, uint32_t ranks, struct server_sizes sizes)
{
    struct group *g = calloc(1, sizeof *g);
    assert_non_null(g);
    if (!server_rig_open(&g->server, model, sizes)) {
        free(g);
        return NULL;
    }
    server_rig_attach(&g->server, &g->worker);
    server_rig_build(&g->server, &g->worker);
    g->ranks = ranks;
    g->step = 1;
    for (uint32_t i = 0; i < ranks; i++) {
        struct why why;
        if (step_open(&g->rank[i].step, &g->worker, &g->server.served, &kernels_reference, &why) != OK)
            fail_msg("%s", why.text);
    }
    new_epoch(g);
    return g;
}

static void group_close(struct group *g)
{
    for (uint32_t i = 0; i < g->ranks; i++)
        step_close(g->rank[i].step);
    arena_detach(&g->worker);
    server_rig_close(&g->server);
    free(g);
}

static struct group *group_of_model_or_skip(const char *model, uint32_t ranks, struct server_sizes sizes)
{
    struct group *g = group_open(model, ranks, sizes);
    if (!g)
        skip();
    return g;
}

static struct group *group_or_skip(uint32_t ranks, struct server_sizes sizes)
{
    return group_of_model_or_skip(TINY, ranks, sizes);
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    r->err = step_run(r->step, r->plan, &r->why);
    return NULL;
}

static void add_row(struct group *g, struct step_row row)
{
    g->plan.rows[g->plan.row_count++] = row;
}

static pthread_t start_rank(struct group *g, uint32_t i)
{
    pthread_t thread;
    g->rank[i].plan = &g->plan;
    assert_int_equal(pthread_create(&thread, NULL, run_rank, &g->rank[i]), 0);
    return thread;
}

/* Runs what was added on all ranks, which must agree. */
static enum err run(struct group *g)
{
    pthread_t threads[RANKS_MAX];
    g->plan.step = g->step;
    for (uint32_t i = 0; i < g->ranks; i++)
        threads[i] = start_rank(g, i);
    for (uint32_t i = 0; i < g->ranks; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 1; i < g->ranks; i++)
        assert_int_equal(g->rank[i].err, g->rank[0].err);
    g->plan.row_count = 0;
    if (g->rank[0].err == OK) {
        g->plan.flags = 0;
        g->step++;
    }
    return g->rank[0].err;
}

static void run_well(struct group *g)
{
    if (run(g) != OK)
        fail_msg("%s", g->rank[0].why.text);
}

/* Entry i of the last step. */
static const struct result_entry *entry(const struct group *g, uint32_t i)
{
    return result_entry_at(&g->worker, g->step - 1, i);
}

/* Feeds [from, count) of a session in pieces of at most `chunk`; the last one draws. */
static void prefill(struct group *g, uint32_t slot, uint32_t count, uint32_t chunk)
{
    for (uint32_t at = 0; at < count; at += chunk) {
        uint32_t n = count - at < chunk ? count - at : chunk;
        add_row(g, server_rig_row(&g->server, slot, at, n, at + n == count ? ROW_SAMPLE : 0));
        run_well(g);
    }
}

static uint32_t tokens_of(const struct group *g, uint32_t slot)
{
    return session_progress(session_at(&g->server.arena, slot)).tokens;
}

/* Takes entry i as the session's next token and plans the row that follows it. */
static void commit_and_decode(struct group *g, uint32_t slot, uint32_t i)
{
    server_rig_commit(&g->server, slot, entry(g, i)->token);
    add_row(g, server_rig_row(&g->server, slot, tokens_of(g, slot) - 1, 1, ROW_SAMPLE));
}

static uint32_t golden_session(struct group *g, const struct golden *golden)
{
    struct sampling greedy = greedy_sampling(golden->prompt_count);
    return server_rig_session(&g->server, golden->prompt, golden->prompt_count,
                              golden->prompt_count + golden->greedy_count + 16, &greedy);
}

/* ---- what a step says ---- */

static void greedy_tokens_equal_the_golden_ones(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 3; ranks++) {
        struct group *g = group_or_skip(ranks, (struct server_sizes){0});
        for (uint32_t prompt = 0; prompt < 3; prompt++) {
            struct golden golden;
            assert_true(golden_read(&golden, TINY_GOLDEN, prompt));
            uint32_t slot = golden_session(g, &golden);
            prefill(g, slot, golden.prompt_count, 13);
            for (uint32_t i = 0; i < golden.greedy_count; i++) {
                assert_int_equal(entry(g, 0)->token, golden.greedy[i]);
                commit_and_decode(g, slot, 0);
                run_well(g);
            }
        }
        group_close(g);
    }
}

static void a_step_that_runs_ahead_takes_the_token_of_the_step_before(void **state)
{
    (void)state;
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 2))
        skip();
    struct group *g = group_or_skip(2, (struct server_sizes){0});
    uint32_t slot = golden_session(g, &golden);
    prefill(g, slot, golden.prompt_count, 64);
    for (uint32_t i = 0; i < golden.greedy_count; i++) {
        assert_int_equal(entry(g, 0)->token, golden.greedy[i]);
        struct step_row ahead =
            server_rig_row(&g->server, slot, tokens_of(g, slot), 1, ROW_SAMPLE); /* its token is not committed yet */
        ahead.previous = 1;
        server_rig_commit(&g->server, slot, entry(g, 0)->token);
        add_row(g, ahead);
        run_well(g);
    }
    group_close(g);
}

static void prompt_scores_equal_the_golden_ones(void **state)
{
    (void)state;
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 1))
        skip();
    struct group *g = group_or_skip(2, (struct server_sizes){.logit_rows = 3});
    struct sampling p = greedy_sampling(golden.prompt_count);
    p.logprobs = 3;
    uint32_t slot = server_rig_session(&g->server, golden.prompt, golden.prompt_count, golden.prompt_count + 1, &p);
    uint32_t half = golden.prompt_count / 2, count = golden.prompt_count;
    add_row(g, server_rig_row(&g->server, slot, 0, half, ROW_SCORE));
    run_well(g);
    for (uint32_t i = 0; i < half; i++) {
        assert_int_equal(entry(g, i)->token, golden.prompt[i + 1]);
        assert_true(fabs((double)entry(g, i)->logprob - golden.logprobs[i]) < 0.01);
        assert_int_equal(entry(g, i)->top_count, 2);
    }
    add_row(g, server_rig_row(&g->server, slot, half, count - half, ROW_SCORE | ROW_SAMPLE));
    run_well(g);
    for (uint32_t i = half; i + 1 < count; i++)
        assert_true(fabs((double)entry(g, i - half)->logprob - golden.logprobs[i]) < 0.01);
    assert_int_equal(entry(g, count - half - 1)->token, golden.greedy[0]);
    group_close(g);
}

static void a_masked_row_draws_only_what_its_mask_allows(void **state)
{
    (void)state;
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 0))
        skip();
    struct group *g = group_or_skip(2, (struct server_sizes){0});
    uint32_t slot = golden_session(g, &golden);
    session_mask(&g->server.arena, slot)[2] = 1ull << 5;
    add_row(g, server_rig_row(&g->server, slot, 0, golden.prompt_count, ROW_SAMPLE | ROW_MASKED));
    run_well(g);
    assert_int_equal(entry(g, 0)->token, 2 * 64 + 5);
    group_close(g);
}

/* Everything a client sees of a drawn token. */
struct said {
    uint32_t token, top_count;
    float logprob;
    struct result_top top[SAMPLING_MAX_TOP_LOGPROBS];
};

static struct said said_by(const struct result_entry *e)
{
    struct said s;
    memset(&s, 0, sizeof s);
    s.token = e->token;
    s.top_count = e->top_count;
    s.logprob = e->logprob;
    memcpy(s.top, e->top, e->top_count * sizeof e->top[0]);
    return s;
}

static struct sampling lively_sampling(uint32_t i, uint32_t prompt_tokens)
{
    struct sampling p = greedy_sampling(prompt_tokens);
    p.seed = 77 + i;
    p.temperature = 0.8f + 0.1f * (float)i;
    p.top_k = i % 2 ? 40 : 0;
    p.top_p = i % 3 ? 0.95f : 1;
    p.repetition_penalty = 1.1f;
    p.frequency_penalty = 0.2f;
    p.logprobs = 5;
    return p;
}

enum { SEQUENCES = 5, STEPS = 12 };

/* SEQUENCES prompts of different lengths, all at once or one after the other. */
static void speak(struct group *g, bool together, uint32_t chunk, struct said out[SEQUENCES][STEPS])
{
    uint32_t slots[SEQUENCES], lengths[SEQUENCES];
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        uint32_t prompt[64];
        lengths[i] = 7 + 9 * i;
        for (uint32_t t = 0; t < lengths[i]; t++)
            prompt[t] = (t * 37 + i * 101 + 5) % 512;
        struct sampling p = lively_sampling(i, lengths[i]);
        slots[i] = server_rig_session(&g->server, prompt, lengths[i], lengths[i] + STEPS, &p);
    }
    for (uint32_t first = 0; first < SEQUENCES; first += together ? SEQUENCES : 1) {
        uint32_t last = together ? SEQUENCES : first + 1;
        for (uint32_t i = first; i < last; i++) {
            prefill(g, slots[i], lengths[i], chunk);
            out[i][0] = said_by(entry(g, 0));
        }
        for (uint32_t step = 1; step < STEPS; step++) {
            for (uint32_t i = first; i < last; i++) {
                server_rig_commit(&g->server, slots[i], out[i][step - 1].token);
                add_row(g, server_rig_row(&g->server, slots[i], tokens_of(g, slots[i]) - 1, 1, ROW_SAMPLE));
            }
            run_well(g);
            for (uint32_t i = first; i < last; i++)
                out[i][step] = said_by(entry(g, i - first));
        }
    }
}

static void neighbours_ranks_chunks_and_rounds_of_logits_change_no_bit(void **state)
{
    (void)state;
    static struct said alone[SEQUENCES][STEPS], other[SEQUENCES][STEPS];
    struct group *g = group_or_skip(1, (struct server_sizes){0});
    speak(g, false, 64, alone);
    group_close(g);
    const struct {
        uint32_t ranks, chunk, logit_rows;
        bool together;
    } ways[] = {{1, 5, 4, true}, {2, 16, 2, true}, {3, 64, 1, true}, {3, 3, 5, false}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        g = group_or_skip(ways[i].ranks, (struct server_sizes){.logit_rows = ways[i].logit_rows});
        speak(g, ways[i].together, ways[i].chunk, other);
        assert_memory_equal(alone, other, sizeof alone);
        group_close(g);
    }
}

/* ---- aborted ---- */

static void an_aborted_step_done_again_says_the_same(void **state)
{
    (void)state;
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 1))
        skip();
    struct group *g = group_or_skip(2, (struct server_sizes){0});
    uint32_t slot = golden_session(g, &golden);
    prefill(g, slot, golden.prompt_count, 64);
    for (uint32_t i = 0; i < golden.greedy_count; i++) {
        assert_int_equal(entry(g, 0)->token, golden.greedy[i]);
        commit_and_decode(g, slot, 0);
        if (i % 4 == 1) { /* rank i % 2 never comes, as if it were dead */
            uint32_t alive = i / 4 % 2;
            g->plan.step = g->step;
            pthread_t thread = start_rank(g, alive);
            barrier_set_epoch(&g->server.arena, 0, g->epoch + 1);
            pthread_join(thread, NULL);
            assert_int_equal(g->rank[alive].err, ERR_ABORTED);
            g->epoch++;
            new_epoch(g);
        }
        run_well(g);
    }
    group_close(g);
}

/* ---- windows ---- */

enum { WINDOWED_PROMPT = 150, WINDOWED_TOKENS = 12 };

static uint32_t windowed_session(struct group *g)
{
    uint32_t prompt[WINDOWED_PROMPT];
    for (uint32_t i = 0; i < WINDOWED_PROMPT; i++)
        prompt[i] = 5 + i * 37 % 200;
    struct sampling greedy = greedy_sampling(WINDOWED_PROMPT);
    return server_rig_session(&g->server, prompt, WINDOWED_PROMPT, WINDOWED_PROMPT + WINDOWED_TOKENS, &greedy);
}

/* Pages that positions from `position` on do not look at become somebody else's, who fills them with something else. */
static void give_window_away(struct group *g, uint32_t slot, uint32_t *given, uint32_t position)
{
    const struct arena *a = &g->server.arena;
    for (; *given < window_first_page(a->geometry.window, position); ++*given) {
        page_id page = sequence_row_entry(a, slot, PAGE_CLASS_WINDOW, *given).page;
        page_pool_release(g->server.pool, page, 0);
        while (page_pool_take(g->server.pool, PAGE_CLASS_WINDOW, 0) != page)
            continue;
        memset(arena_page(&g->worker, page), 0x7b, a->geometry.page_bytes[PAGE_CLASS_WINDOW]);
    }
}

/* The tokens that follow the prompt when it comes in pieces of at most `chunk`. */
static void say_with_a_window(uint32_t chunk, bool moves_on, uint32_t out[WINDOWED_TOKENS])
{
    struct group *g = group_of_model_or_skip("tiny/gemma3/model-f32.gguf", 2, (struct server_sizes){0});
    uint32_t slot = windowed_session(g), given = 0;
    assert_int_equal(g->server.arena.geometry.page_classes, 2);
    for (uint32_t at = 0; at < WINDOWED_PROMPT; at += chunk) {
        uint32_t n = WINDOWED_PROMPT - at < chunk ? WINDOWED_PROMPT - at : chunk;
        if (moves_on)
            give_window_away(g, slot, &given, at);
        add_row(g, server_rig_row(&g->server, slot, at, n, at + n == WINDOWED_PROMPT ? ROW_SAMPLE : 0));
        run_well(g);
    }
    for (uint32_t i = 0; i < WINDOWED_TOKENS; i++) {
        out[i] = entry(g, 0)->token;
        if (moves_on)
            give_window_away(g, slot, &given, tokens_of(g, slot));
        commit_and_decode(g, slot, 0);
        run_well(g);
    }
    assert_true(!moves_on || given > 5);
    group_close(g);
}

static void what_a_window_left_behind_may_be_anybodys(void **state)
{
    (void)state;
    uint32_t kept[WINDOWED_TOKENS], given[WINDOWED_TOKENS];
    say_with_a_window(64, false, kept);
    say_with_a_window(64, true, given);
    assert_memory_equal(kept, given, sizeof kept);
    say_with_a_window(17, true, given);
    assert_memory_equal(kept, given, sizeof kept);
}

static void a_window_page_of_somebody_else_is_refused(void **state)
{
    (void)state;
    struct group *g = group_of_model_or_skip("tiny/gemma3/model-f32.gguf", 1, (struct server_sizes){0});
    uint32_t slot = windowed_session(g), given = 0;
    prefill(g, slot, WINDOWED_PROMPT, 64);
    server_rig_commit(&g->server, slot, entry(g, 0)->token);
    give_window_away(g, slot, &given, WINDOWED_PROMPT + PAGE_TOKENS); /* one page too many */
    add_row(g, server_rig_row(&g->server, slot, WINDOWED_PROMPT, 1, ROW_SAMPLE));
    assert_int_equal(run(g), ERR_FORMAT);
    group_close(g);
}

/* ---- refused ---- */

static uint64_t sum_of(const uint8_t *bytes, uint64_t count)
{
    uint64_t sum = 14695981039346656037ull; /* FNV-1a */
    for (uint64_t i = 0; i < count; i++)
        sum = (sum ^ bytes[i]) * 1099511628211ull;
    return sum;
}

static uint64_t pages_sum(const struct group *g)
{
    return sum_of(g->worker.pages[0].base, g->worker.pages[0].bytes);
}

typedef void (*spoil_fn)(struct step_row *row);

static void no_such_session(struct step_row *r)
{
    r->session = 4000000000u;
}
static void free_session(struct step_row *r)
{
    r->session = 7;
}
static void old_generation(struct step_row *r)
{
    r->session_generation--;
}
static void no_position(struct step_row *r)
{
    r->count = 0;
}
static void beyond_the_context(struct step_row *r)
{
    r->first = 510;
}
static void wrapping_position(struct step_row *r)
{
    r->first = UINT32_MAX - 2;
}
static void beyond_its_pages(struct step_row *r)
{
    r->count = 60, r->history = 60;
}
static void beyond_the_step(struct step_row *r)
{
    r->count = 65, r->history = 65;
}
static void unknown_flag(struct step_row *r)
{
    r->flags |= 1u << 20;
}
static void short_history(struct step_row *r)
{
    r->history--;
}
static void endless_history(struct step_row *r)
{
    r->history = UINT32_MAX;
}
static void handed_but_many(struct step_row *r)
{
    r->previous = 1;
}
static void handed_from_nowhere(struct step_row *r)
{
    r->previous = 1, r->first += r->count - 1, r->count = 1, r->history--;
}
static void handed_beyond_the_entries(struct step_row *r)
{
    handed_from_nowhere(r), r->previous = UINT32_MAX;
}

static void a_plan_that_does_not_hold_is_refused_and_writes_nothing(void **state)
{
    (void)state;
    static const spoil_fn spoils[] = {no_such_session,     free_session,
                                      old_generation,      no_position,
                                      beyond_the_context,  wrapping_position,
                                      beyond_its_pages,    beyond_the_step,
                                      unknown_flag,        short_history,
                                      endless_history,     handed_but_many,
                                      handed_from_nowhere, handed_beyond_the_entries};
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 0))
        skip();
    struct group *g = group_or_skip(1, (struct server_sizes){0});
    struct sampling greedy = greedy_sampling(golden.prompt_count);
    uint32_t slot = server_rig_session(&g->server, golden.prompt, golden.prompt_count, 32, &greedy);
    uint32_t other = server_rig_session(&g->server, golden.prompt, golden.prompt_count, 32, &greedy);
    const struct step_row good = server_rig_row(&g->server, slot, 0, golden.prompt_count, ROW_SAMPLE);
    add_row(g, server_rig_row(&g->server, other, 0, golden.prompt_count, ROW_SAMPLE));
    run_well(g);
    uint64_t before = pages_sum(g);
    for (size_t i = 0; i < sizeof spoils / sizeof spoils[0]; i++) {
        struct step_row bad = good;
        spoils[i](&bad);
        add_row(g, server_rig_row(&g->server, other, 0, golden.prompt_count, ROW_SAMPLE)); /* a good one before it */
        add_row(g, bad);
        if (run(g) != ERR_FORMAT)
            fail_msg("spoiled plan %zu was followed", i);
        if (pages_sum(g) != before)
            fail_msg("spoiled plan %zu wrote into pages", i);
    }
    session_at(&g->server.arena, slot)->tokens[2] = 512; /* not in the vocabulary */
    add_row(g, good);
    assert_int_equal(run(g), ERR_FORMAT);
    session_at(&g->server.arena, slot)->tokens[2] = golden.prompt[2];
    add_row(g, good);
    run_well(g);
    assert_int_equal(entry(g, 0)->token, golden.greedy[0]);
    group_close(g);
}

static void no_token_is_handed_over_from_another_epoch(void **state)
{
    (void)state;
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 0))
        skip();
    struct group *g = group_or_skip(1, (struct server_sizes){0});
    uint32_t slot = golden_session(g, &golden);
    prefill(g, slot, golden.prompt_count, 64);
    struct step_row ahead = server_rig_row(&g->server, slot, golden.prompt_count, 1, ROW_SAMPLE);
    ahead.previous = 1;
    new_epoch(g);
    for (int met = 0; met < 2; met++) { /* also when the plan hides that it is the first */
        add_row(g, ahead);
        assert_int_equal(run(g), ERR_FORMAT);
        g->plan.flags = 0;
    }
    group_close(g);
}

static void random_rows_are_followed_or_refused_but_never_harm(void **state)
{
    (void)state;
    const char *given = getenv("QUIRE_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
    print_message("QUIRE_SEED=%u\n", seed);
    srand(seed);
    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 1))
        skip();
    struct group *g = group_or_skip(1, (struct server_sizes){0});
    struct sampling p = lively_sampling(1, golden.prompt_count);
    uint32_t slot = server_rig_session(&g->server, golden.prompt, golden.prompt_count, 64, &p);
    const uint32_t odd[] = {0, 1, 2, 16, 63, 64, 511, 512, 513, UINT32_MAX - 1, UINT32_MAX};
    uint32_t followed = 0;
    for (int round = 0; round < 120; round++) {
        struct step_row row = server_rig_row(&g->server, slot, 0, (uint32_t)rand() % 40 + 1, (uint32_t)rand() % 8);
        row.history = row.count;
        uint32_t *fields = (uint32_t *)&row; /* seven numbers */
        for (int change = rand() % 3; change > 0; change--)
            fields[rand() % 7] = odd[(size_t)rand() % (sizeof odd / sizeof odd[0])];
        add_row(g, row);
        enum err err = run(g);
        assert_true(err == OK || err == ERR_FORMAT);
        followed += err == OK;
    }
    assert_true(followed > 0);
    group_close(g);
}

/* ---- memory ---- */

static void computing_thread_allocates_nothing_in_a_step(void **state)
{
    (void)state;
    if (!MALLOC_COUNT_WORKS)
        skip(); /* the sanitizer stands in malloc's place */
    malloc_count_begin();
    void *volatile one = malloc(1); /* volatile: a compiler may take an unused pair away */
    assert_int_equal(malloc_count_end(), 1);
    free(one);

    struct golden golden;
    if (!golden_read(&golden, TINY_GOLDEN, 1))
        skip();
    struct group *g = group_or_skip(1, (struct server_sizes){0});
    struct sampling p = lively_sampling(1, golden.prompt_count);
    uint32_t slot = server_rig_session(&g->server, golden.prompt, golden.prompt_count, golden.prompt_count + 8, &p);
    add_row(g, server_rig_row(&g->server, slot, 0, golden.prompt_count, ROW_SAMPLE | ROW_SCORE));
    for (int i = 0; i < 4; i++) {
        g->plan.step = g->step;
        malloc_count_begin();
        enum err err = step_run(g->rank[0].step, &g->plan, &g->rank[0].why);
        assert_int_equal(malloc_count_end(), 0);
        assert_int_equal(err, OK);
        g->step++;
        g->plan.flags = g->plan.row_count = 0;
        commit_and_decode(g, slot, i == 0 ? golden.prompt_count - 1 : 0);
    }
    group_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_tokens_equal_the_golden_ones),
        cmocka_unit_test(a_step_that_runs_ahead_takes_the_token_of_the_step_before),
        cmocka_unit_test(prompt_scores_equal_the_golden_ones),
        cmocka_unit_test(a_masked_row_draws_only_what_its_mask_allows),
        cmocka_unit_test(neighbours_ranks_chunks_and_rounds_of_logits_change_no_bit),
        cmocka_unit_test(an_aborted_step_done_again_says_the_same),
        cmocka_unit_test(what_a_window_left_behind_may_be_anybodys),
        cmocka_unit_test(a_window_page_of_somebody_else_is_refused),
        cmocka_unit_test(a_plan_that_does_not_hold_is_refused_and_writes_nothing),
        cmocka_unit_test(no_token_is_handed_over_from_another_epoch),
        cmocka_unit_test(random_rows_are_followed_or_refused_but_never_harm),
        cmocka_unit_test(computing_thread_allocates_nothing_in_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
