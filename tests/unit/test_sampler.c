/*
 * The sampler against a dull one that sorts every row, against splits of the rows over ranks, against the published vectors
 * of its generator, and against plain log-softmax in double.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "model/sampler.h"

enum { MAX_VOCAB = 50000, MAX_BLOCKS = MAX_VOCAB / SAMPLE_BLOCK + 1 };

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state += 0x9E3779B97F4A7C15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static double random_unit(void)
{
    return (double)(next_random() >> 11) * 0x1p-53;
}

static uint32_t random_below(uint32_t n)
{
    return (uint32_t)(next_random() % n);
}

static void seed_random(void)
{
    const char *given = getenv("QUIRE_SEED");
    random_state = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    print_message("QUIRE_SEED=%llu\n", (unsigned long long)random_state);
}

/* One row of logits with everything that a draw needs around it. */
struct row {
    uint32_t vocab;
    float raw[MAX_VOCAB], processed[MAX_VOCAB];
    struct sample_partial partials[MAX_BLOCKS];
    const uint64_t *mask;
    struct sampler *sampler;
};

static struct row *row_new(uint32_t vocab)
{
    struct row *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->vocab = vocab;
    assert_int_equal(sampler_open(&r->sampler, vocab, NULL), OK);
    return r;
}

static void row_free(struct row *r)
{
    sampler_close(r->sampler);
    free(r);
}

static void fill_with_logits(struct row *r, float spread)
{
    for (uint32_t i = 0; i < r->vocab; i++)
        r->raw[i] = (float)(random_unit() + random_unit() + random_unit() - 1.5) * spread;
}

static struct sampling plain_sampling(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
}

/* Cuts the rows into `ranks` ranges of whole blocks at random places, each prepared on its own. */
static struct sampled draw_split(struct row *r, const struct sampling *p, const struct sample_history *h,
                                 uint32_t ranks)
{
    uint32_t blocks = (r->vocab + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK, done = 0;
    memset(r->partials, 0xee, sizeof r->partials);
    memset(r->processed, 0xee, sizeof r->processed);
    float *processed = sampling_changes_logits(p, r->mask) ? r->processed : r->raw;
    for (uint32_t rank = 0; rank < ranks; rank++) {
        uint32_t end = rank + 1 == ranks ? blocks : done + random_below(blocks - done + 1);
        uint32_t last = end * SAMPLE_BLOCK < r->vocab ? end * SAMPLE_BLOCK : r->vocab;
        if (end > done)
            sampler_prepare(r->sampler, &kernels_reference, p, h, r->mask, r->raw, processed, done * SAMPLE_BLOCK, last,
                            r->partials);
        done = end;
    }
    struct sampled out;
    memset(&out, 0, sizeof out);
    sampler_draw(r->sampler, p, h->count, r->raw, processed, r->partials, &out);
    return out;
}

static struct sampled draw(struct row *r, const struct sampling *p, const struct sample_history *h)
{
    return draw_split(r, p, h, 1);
}

static const struct sample_history no_history;

/* ---- the dull reference ---- */

struct ranked {
    double logit;
    uint32_t id;
};

static int by_logit(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_id(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static double dull_weight(const struct ranked *all, uint32_t i, double max, float temperature)
{
    return exp((all[i].logit - max) / (double)temperature);
}

/* Sorts all, keeps what the limits leave, walks to `uniform`. nudge moves the edge of top_p, to tell a near-tie from a fault. */
static uint32_t dull_draw(const struct row *r, const float *logits, const struct sampling *p, double uniform,
                          double nudge)
{
    struct ranked *all = calloc(r->vocab, sizeof *all);
    assert_non_null(all);
    for (uint32_t i = 0; i < r->vocab; i++)
        all[i] = (struct ranked){(double)logits[i], i};
    qsort(all, r->vocab, sizeof *all, by_logit);
    double max = all[0].logit;
    uint32_t kept = p->top_k > 0 && p->top_k < r->vocab ? p->top_k : r->vocab;
    double total = 0, mass = 0;
    for (uint32_t i = 0; i < kept; i++)
        total += dull_weight(all, i, max, p->temperature);
    if (p->top_p < 1) {
        uint32_t enough = 0;
        while (enough < kept && (enough == 0 || mass < (double)p->top_p * total * (1 + nudge)))
            mass += dull_weight(all, enough++, max, p->temperature);
        kept = enough;
    }
    while (kept > 1 && dull_weight(all, kept - 1, max, p->temperature) < (double)p->min_p * (1 + nudge))
        kept--;
    bool restricted = p->top_k > 0 || p->top_p < 1 || p->min_p > 0;
    if (!restricted)
        qsort(all, kept, sizeof *all, by_id);
    mass = 0;
    for (uint32_t i = 0; i < kept; i++)
        mass += dull_weight(all, i, max, p->temperature);
    double sum = 0;
    uint32_t at = 0;
    while (at + 1 < kept && (sum += dull_weight(all, at, max, p->temperature)) <= uniform * mass)
        at++;
    uint32_t token = all[at].id;
    free(all);
    return token;
}

static bool dull_agrees(const struct row *r, const float *logits, const struct sampling *p, uint32_t position,
                        uint32_t token)
{
    const double nudges[] = {0, -2e-6, 2e-6}; /* kernel_expf is good to some 1e-7 */
    double uniform = sampler_uniform(p->seed, p->choice, position, 0);
    for (int edge = 0; edge < 3; edge++)
        for (int u = 0; u < 3; u++)
            if (dull_draw(r, logits, p, uniform + nudges[u], nudges[edge]) == token)
                return true;
    return false;
}

/* ---- draws ---- */

static struct sampling random_limits(void)
{
    struct sampling p = plain_sampling();
    const float temperatures[] = {0.2f, 0.7f, 1, 1.5f};
    p.seed = next_random();
    p.temperature = temperatures[random_below(4)];
    if (random_below(2))
        p.top_k = 1 + random_below(random_below(2) ? 60 : 3000);
    if (random_below(2))
        p.top_p = (float)random_unit();
    if (random_below(3) == 0)
        p.min_p = (float)(random_unit() * 0.3);
    return p;
}

static void draws_equal_those_of_a_reference_that_sorts_everything(void **state)
{
    (void)state;
    seed_random();
    const uint32_t vocabs[] = {5, 256, 512, 700, 5000};
    for (uint32_t round = 0; round < 400; round++) {
        struct row *r = row_new(vocabs[random_below(5)]);
        fill_with_logits(r, random_below(2) ? 3 : 20);
        struct sampling p = random_limits();
        struct sampled got = draw_split(r, &p, &no_history, 1 + random_below(3));
        if (!dull_agrees(r, r->raw, &p, 0, got.token))
            fail_msg("round %u: vocabulary %u, temperature %g, top_k %u, top_p %g, min_p %g: token %u", round, r->vocab,
                     (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p, got.token);
        row_free(r);
    }
}

static void top_k_of_one_is_the_largest_logit(void **state)
{
    (void)state;
    struct row *r = row_new(1000);
    random_state = 4;
    fill_with_logits(r, 5);
    r->raw[777] = 40;
    struct sampling p = plain_sampling();
    p.top_k = 1;
    p.temperature = 100;
    for (p.seed = 0; p.seed < 50; p.seed++)
        assert_int_equal(draw(r, &p, &no_history).token, 777);
    row_free(r);
}

static void ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    struct row *r = row_new(2000);
    r->raw[1500] = r->raw[300] = r->raw[301] = 7;
    struct sampling p = plain_sampling();
    p.temperature = 0;
    assert_int_equal(draw(r, &p, &no_history).token, 300);
    p.temperature = 1;
    p.top_k = 2; /* 300 and 301, never 1500 */
    for (p.seed = 0; p.seed < 100; p.seed++) {
        uint32_t token = draw(r, &p, &no_history).token;
        assert_true(token == 300 || token == 301);
    }
    row_free(r);
}

static void flat_logits_reach_beyond_the_first_candidates(void **state)
{
    (void)state;
    struct row *r = row_new(40000); /* 157 blocks, all equal: the last candidates are needed */
    struct sampling p = plain_sampling();
    p.top_p = 0.9f;
    uint32_t above = 0;
    for (p.seed = 0; p.seed < 40; p.seed++) {
        uint32_t token = draw(r, &p, &no_history).token;
        assert_true(token <= 36000);
        above += token > 5000;
    }
    assert_true(above > 20);
    row_free(r);
}

static void assert_same_draw(const struct sampled *a, const struct sampled *b)
{
    assert_int_equal(a->token, b->token);
    assert_memory_equal(&a->logprob, &b->logprob, sizeof a->logprob);
    assert_int_equal(a->top_count, b->top_count);
    assert_memory_equal(a->top, b->top, a->top_count * sizeof a->top[0]);
}

static void any_split_of_the_rows_gives_the_same_bits(void **state)
{
    (void)state;
    seed_random();
    struct row *r = row_new(7001);
    uint32_t history[300];
    for (uint32_t round = 0; round < 60; round++) {
        fill_with_logits(r, 8);
        for (uint32_t i = 0; i < 300; i++)
            history[i] = random_below(r->vocab);
        struct sample_history h = {.tokens = history, .count = 299, .handed = history[299], .has_handed = true};
        struct sampling p = random_limits();
        p.prompt_tokens = 100;
        p.repetition_penalty = 1.3f;
        p.presence_penalty = 0.5f;
        p.frequency_penalty = 0.1f;
        p.logprobs = 6;
        p.bias_count = 2;
        p.bias[0] = (struct logit_bias){12, 3};
        p.bias[1] = (struct logit_bias){6999, -2};
        struct sampled whole = draw_split(r, &p, &h, 1);
        struct sample_partial partials[MAX_BLOCKS];
        memcpy(partials, r->partials, sizeof partials);
        for (uint32_t ranks = 2; ranks < 9; ranks++) {
            struct sampled split = draw_split(r, &p, &h, ranks);
            assert_same_draw(&whole, &split);
            assert_memory_equal(partials, r->partials, sizeof partials);
        }
    }
    row_free(r);
}

static void frequencies_follow_the_probabilities(void **state)
{
    (void)state;
    enum { TOKENS = 600, DRAWS = 60000 };
    struct row *r = row_new(TOKENS);
    random_state = 11;
    fill_with_logits(r, 2);
    struct sampling p = plain_sampling();
    p.seed = 0x5eed;
    uint32_t *seen = calloc(TOKENS, sizeof *seen);
    assert_non_null(seen);
    sampler_prepare(r->sampler, &kernels_reference, &p, &no_history, NULL, r->raw, r->raw, 0, TOKENS, r->partials);
    for (uint32_t position = 0; position < DRAWS; position++) {
        struct sampled out;
        sampler_draw(r->sampler, &p, position, r->raw, r->raw, r->partials, &out);
        seen[out.token]++;
    }
    double total = 0, chi = 0;
    for (uint32_t i = 0; i < TOKENS; i++)
        total += exp((double)r->raw[i]);
    for (uint32_t i = 0; i < TOKENS; i++) {
        double expected = DRAWS * exp((double)r->raw[i]) / total;
        chi += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
    }
    free(seen);
    row_free(r);
    /* mean 599, deviation sqrt(2 * 599) = 35: six of them on either side */
    assert_true(chi > 599 - 6 * 35 && chi < 599 + 6 * 35);
}

/* ---- bias, penalties, bans ---- */

static void penalties_do_what_their_documents_say(void **state)
{
    (void)state;
    struct row *r = row_new(300);
    for (uint32_t i = 0; i < r->vocab; i++)
        r->raw[i] = i % 2 ? 3.0f : -3.0f;
    const uint32_t tokens[] = {1, 2, 1, 260, 261, 260}; /* the first three are the prompt */
    struct sample_history h = {.tokens = tokens, .count = 6, .handed = 260, .has_handed = true};
    struct sampling p = plain_sampling();
    p.prompt_tokens = 3;
    p.repetition_penalty = 2;
    p.presence_penalty = 0.5f;
    p.frequency_penalty = 0.25f;
    p.bias_count = 1;
    p.bias[0] = (struct logit_bias){261, 1};
    for (int again = 0; again < 2; again++) { /* the counts must be gone after each use */
        draw(r, &p, &h);
        assert_true(r->processed[0] == -3.0f);
        assert_true(r->processed[1] == 1.5f);
        assert_true(r->processed[2] == -6.0f);
        assert_true(r->processed[260] == -6.0f - 0.5f - 3 * 0.25f);
        assert_true(r->processed[261] == (3.0f + 1) / 2 - 0.5f - 0.25f);
    }
    row_free(r);
}

static void no_stop_id_before_min_tokens(void **state)
{
    (void)state;
    struct row *r = row_new(600);
    r->raw[599] = 50;
    r->raw[5] = 10;
    const uint32_t tokens[] = {1, 2, 3, 4};
    struct sampling p = plain_sampling();
    p.temperature = 0;
    p.prompt_tokens = 2;
    p.min_tokens = 3;
    p.stop_id_count = 1;
    p.stop_ids[0] = 599;
    struct sample_history two_generated = {.tokens = tokens, .count = 4};
    assert_int_equal(draw(r, &p, &two_generated).token, 5);
    struct sample_history three_generated = {.tokens = tokens, .count = 4, .handed = 9, .has_handed = true};
    assert_int_equal(draw(r, &p, &three_generated).token, 599);
    row_free(r);
}

static void a_mask_leaves_only_its_ids(void **state)
{
    (void)state;
    struct row *r = row_new(300);
    random_state = 9;
    fill_with_logits(r, 5);
    const uint64_t mask[5] = {1ull << 63, 0, 0, 0, 1ull << 2};
    r->mask = mask;
    struct sampling p = plain_sampling();
    uint32_t seen[2] = {0, 0};
    for (p.seed = 0; p.seed < 200; p.seed++) {
        uint32_t token = draw(r, &p, &no_history).token;
        assert_true(token == 63 || token == 258);
        seen[token == 258]++;
    }
    assert_true(seen[0] > 0 && seen[1] > 0);
    row_free(r);
}

static void ids_outside_the_vocabulary_are_passed_over(void **state)
{
    (void)state;
    struct row *r = row_new(300);
    r->raw[7] = 1;
    const uint32_t tokens[] = {UINT32_MAX, 300, 5000000};
    struct sample_history h = {.tokens = tokens, .count = 3, .handed = 301, .has_handed = true};
    struct sampling p = plain_sampling();
    p.temperature = 0;
    p.repetition_penalty = 2;
    p.min_tokens = 100;
    p.stop_id_count = 1;
    p.stop_ids[0] = 300;
    p.bias_count = 1;
    p.bias[0] = (struct logit_bias){UINT32_MAX, 100};
    assert_int_equal(draw(r, &p, &h).token, 7);
    row_free(r);
}

/* ---- sick rows ---- */

static void a_row_of_nan_gives_the_lowest_id_that_is_not_banned(void **state)
{
    (void)state;
    struct row *r = row_new(900);
    for (uint32_t i = 0; i < r->vocab; i++)
        r->raw[i] = NAN;
    struct sampling p = plain_sampling();
    p.min_tokens = 1;
    p.stop_id_count = 2;
    p.stop_ids[0] = 0;
    p.stop_ids[1] = 1;
    for (int limits = 0; limits < 3; limits++) {
        p.top_k = limits == 1 ? 5 : 0;
        p.temperature = limits == 2 ? 0 : 1;
        assert_int_equal(draw(r, &p, &no_history).token, 2);
    }
    row_free(r);
}

static void nan_and_infinity_among_numbers_never_crash(void **state)
{
    (void)state;
    seed_random();
    for (uint32_t round = 0; round < 200; round++) {
        struct row *r = row_new(1 + random_below(1500));
        fill_with_logits(r, 5);
        const float sick[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX};
        for (uint32_t i = random_below(r->vocab); i > 0; i--)
            r->raw[random_below(r->vocab)] = sick[random_below(5)];
        struct sampling p = random_limits();
        p.logprobs = 21;
        struct sampled out = draw(r, &p, &no_history);
        assert_true(out.token < r->vocab);
        assert_true(isfinite(out.logprob) != 0);
        for (uint32_t i = 0; i < out.top_count; i++)
            assert_true(isfinite(out.top[i].logprob) != 0);
        row_free(r);
    }
}

/* ---- log-probabilities ---- */

static void logprobs_equal_log_softmax_of_the_raw_logits(void **state)
{
    (void)state;
    seed_random();
    struct row *r = row_new(3333);
    fill_with_logits(r, 10);
    struct sampling p = plain_sampling();
    p.temperature = 0.3f;
    p.repetition_penalty = 1.5f;
    p.logprobs = 21;
    const uint32_t tokens[] = {4, 5};
    struct sample_history h = {.tokens = tokens, .count = 2};
    struct sampled out = draw(r, &p, &h);
    struct ranked *all = calloc(r->vocab, sizeof *all);
    assert_non_null(all);
    double total = 0;
    for (uint32_t i = 0; i < r->vocab; i++) {
        all[i] = (struct ranked){(double)r->raw[i], i};
        total += exp((double)r->raw[i]);
    }
    qsort(all, r->vocab, sizeof *all, by_logit);
    assert_true(fabs((double)out.logprob - ((double)r->raw[out.token] - log(total))) < 2e-6);
    assert_int_equal(out.top_count, 20);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(out.top[i].token, all[i].id);
        assert_true(fabs((double)out.top[i].logprob - (all[i].logit - log(total))) < 2e-6);
    }
    free(all);

    struct sampled scored;
    sampler_prepare(r->sampler, &kernels_reference, NULL, NULL, NULL, r->raw, r->raw, 0, r->vocab, r->partials);
    sampler_score(r->sampler, out.token, 20, r->raw, r->partials, &scored);
    assert_same_draw(&out, &scored);
    row_free(r);
}

/* ---- the generator ---- */

static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        sampler_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void uniform_numbers_fill_the_unit_interval_and_depend_on_every_key(void **state)
{
    (void)state;
    double mean = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        double u = sampler_uniform(7, 0, i, 0);
        assert_true(u >= 0 && u < 1);
        mean += u / 10000;
    }
    assert_true(fabs(mean - 0.5) < 0.02);
    double base = sampler_uniform(7, 0, 0, 0);
    assert_true(base != sampler_uniform(8, 0, 0, 0) && base != sampler_uniform(7ull << 32, 0, 0, 0));
    assert_true(base != sampler_uniform(7, 1, 0, 0) && base != sampler_uniform(7, 0, 1, 0) &&
                base != sampler_uniform(7, 0, 0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(uniform_numbers_fill_the_unit_interval_and_depend_on_every_key),
        cmocka_unit_test(ties_go_to_the_lowest_id),
        cmocka_unit_test(top_k_of_one_is_the_largest_logit),
        cmocka_unit_test(flat_logits_reach_beyond_the_first_candidates),
        cmocka_unit_test(draws_equal_those_of_a_reference_that_sorts_everything),
        cmocka_unit_test(any_split_of_the_rows_gives_the_same_bits),
        cmocka_unit_test(frequencies_follow_the_probabilities),
        cmocka_unit_test(penalties_do_what_their_documents_say),
        cmocka_unit_test(no_stop_id_before_min_tokens),
        cmocka_unit_test(a_mask_leaves_only_its_ids),
        cmocka_unit_test(ids_outside_the_vocabulary_are_passed_over),
        cmocka_unit_test(a_row_of_nan_gives_the_lowest_id_that_is_not_banned),
        cmocka_unit_test(nan_and_infinity_among_numbers_never_crash),
        cmocka_unit_test(logprobs_equal_log_softmax_of_the_raw_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
