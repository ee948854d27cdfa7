/*
 * The forward pass: against goldens of an independent implementation, and against itself: neighbours in the batch, cuts of
 * the prompt, ranks and kernel sets change no bit.
 *
 * Bounds. The goldens were computed in float32; here K and V are rounded to f16 and, for quantised files, activations to
 * 8 bits. With float weights the rounding of K and V is what remains: at most 0.005 in a logit or a log-probability over
 * llama f32, f16, bf16 and llama-k f16, and the bounds are twice that. That it is this rounding and nothing else shows
 * against plain_llama, which meets the golden to 2e-4, and meets us as closely once it reads our pages.
 * Bounds for 8-bit activations: the fixtures' READMEs.
 */
#include "model/forward.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/model_rig.h"
#include "tests/support/plain_llama.h"
#include "tests/support/tile_emulator.h"

static float *logits_for(const struct rig *rig, uint32_t tokens)
{
    float *logits = malloc((size_t)tokens * rig->m.vocab * sizeof *logits);
    if (!logits)
        fail_msg("no memory for the test");
    return logits;
}

/* ---- goldens of Llama; those of other families: test_arch.c ---- */

#define LLAMA(type, limit)                                                                                     \
    static void llama_##type##_agrees_with_its_golden(void **state)                                            \
    {                                                                                                          \
        (void)state;                                                                                           \
        golden_compare(&(struct golden){"tiny/llama/model-" #type ".gguf", "tiny/llama/golden-" #type ".json", \
                                        .bounds = &(limit)});                                                  \
    }
#define LLAMA_K(type, limit)                                                                                       \
    static void llama_k_##type##_agrees_with_its_golden(void **state)                                              \
    {                                                                                                              \
        (void)state;                                                                                               \
        golden_compare(&(struct golden){"tiny/llama-k/model-" #type ".gguf", "tiny/llama-k/golden-" #type ".json", \
                                        .bounds = &(limit)});                                                      \
    }

LLAMA(f32, with_float_weights)
LLAMA(f16, with_float_weights)
LLAMA(bf16, with_float_weights)
LLAMA(q8_0, with_8_bit_activations)
LLAMA(q4_0, with_8_bit_activations)
LLAMA_K(f16, with_float_weights)
LLAMA_K(q8_0, with_8_bit_activations)
LLAMA_K(q4_0, with_8_bit_activations)
LLAMA_K(q4_1, with_8_bit_activations)
LLAMA_K(q5_0, with_8_bit_activations)
LLAMA_K(q5_1, with_8_bit_activations)
LLAMA_K(q2_k, with_8_bit_activations)
LLAMA_K(q3_k, with_8_bit_activations)
LLAMA_K(q3_k_m, with_8_bit_activations)
LLAMA_K(q4_k, with_8_bit_activations)
LLAMA_K(q4_k_m, with_8_bit_activations)
LLAMA_K(q5_k, with_8_bit_activations)
LLAMA_K(q5_k_m, with_8_bit_activations)
LLAMA_K(q6_k, with_8_bit_activations)
LLAMA_K(iq4_nl, with_8_bit_activations)
LLAMA_K(iq4_xs, with_8_bit_activations)

static void smollm2_agrees_with_its_golden(void **state)
{
    (void)state;
    golden_compare(&(struct golden){"models/smollm2.gguf", "real/smollm2-135m-instruct-q4_1.json",
                                    .bounds = &of_a_real_model, .max_tokens = 100});
}

static void note(double *worst, double value)
{
    if (!(value <= *worst))
        *worst = value;
}

static double number(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

/* ---- what rounding K and V to f16 does, and that nothing else is done ---- */

static double largest_difference(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        note(&most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static void only_the_rounding_of_k_and_v_parts_us_from_the_golden(void **state)
{
    (void)state;
    static struct rig rig;
    char path[512];
    if (!rig_find("tiny/llama/golden-f32.json", path) || !rig_open(&rig, "tiny/llama/model-f32.gguf", 0))
        skip();
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    struct engine e = engine_open(&rig, kernels_choose(NULL), 1);
    double plain_to_golden = 0, ours_to_plain = 0, rounding_excess = 0;
    for (size_t i = 0; i < 2; i++) { /* 5 and 40 tokens */
        const json_t *prompt = json_array_get(json_object_get(root, "prompts"), i),
                     *last = json_object_get(prompt, "logits_last");
        uint32_t ids[2048], n = (uint32_t)json_integer_value(json_object_get(prompt, "n")), vocab = rig.m.vocab;
        golden_tokens(prompt, ids);
        float *plain = logits_for(&rig, n), *ours = logits_for(&rig, n);
        plain_llama(&rig.m, rig.g, ids, n, NULL, plain);
        for (uint32_t v = 0; v < vocab; v++)
            note(&plain_to_golden, fabs((double)plain[(n - 1) * vocab + v] - number(last, v)));

        struct sequence s = sequence_make(&rig, ids, n);
        engine_feed(&e, &s, RIG_CAPACITY, ours);
        note(&rounding_excess, plain_llama(&rig.m, rig.g, ids, n, s.pages[0], plain));
        note(&ours_to_plain, largest_difference(plain, ours, (size_t)n * vocab));
        sequence_free(&s);
        free(plain);
        free(ours);
    }
    print_message(
        "plain against the golden %.2g, ours against plain on the same pages %.2g, K and V beyond rounding %.2g\n",
        plain_to_golden, ours_to_plain, rounding_excess);
    assert_true(plain_to_golden <= 2e-4);
    assert_true(ours_to_plain <= 2e-4);
    assert_true(rounding_excess <= 2e-5);
    json_decref(root);
    engine_close(&e);
    rig_close(&rig);
}

/* ---- what a step may not do ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
enum { ALLOCATIONS_ARE_COUNTED = 0 }; /* the sanitizers' own allocators stand there already */
static uint32_t allocations;
#else
enum { ALLOCATIONS_ARE_COUNTED = 1 };
static uint32_t allocations;
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

/* In front of glibc's own, for this program only. */
void *malloc(size_t bytes)
{
    allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    allocations++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    allocations++;
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    allocations++;
    return __libc_memalign(alignment, bytes);
}
#endif

static void step_allocates_nothing(void **state)
{
    (void)state;
    static struct rig rig;
    if (!ALLOCATIONS_ARE_COUNTED || !rig_open(&rig, "tiny/llama-k/model-q4_1.gguf", 0))
        skip();
    uint32_t count;
    const struct kernels *const *sets = kernels_with_emulated(&count);
    for (uint32_t i = 0; i < count; i++) {
        struct engine e = engine_open(&rig, sets[i], 1);
        const uint32_t ids[40] = {1, 2, 3};
        struct sequence s = sequence_make(&rig, ids, 40);
        struct batch_run run = {.count = 40, .pages = {s.pages[0], s.pages[1]}};
        struct batch b = {.tokens = 40, .run_count = 1, .runs = &run, .token_ids = ids};
        const uint32_t rows[] = {0, 39};
        uint32_t first, last;
        forward_join(e.f[0], 0, 1, 1, &e.shared, NULL, NULL);
        uint32_t before = allocations;
        assert_true(before > 0);
        assert_int_equal(forward_run(e.f[0], &b), OK);
        forward_logits_begin(e.f[0], rows, 2);
        while (forward_logits_next(e.f[0], &first, &last))
            ;
        assert_int_equal(allocations, before);
        sequence_free(&s);
        engine_close(&e);
    }
    rig_close(&rig);
}

/* ---- the same bits whatever the company ---- */

/* Four sequences of different lengths, with the logits of each alone: reference kernels, one rank, one step. */
enum { ALONE = 4 };

struct alone {
    struct rig rig;
    uint32_t ids[ALONE][RIG_CAPACITY];
    struct sequence s[ALONE];
    float *logits[ALONE];
};

static const uint32_t lengths[ALONE] = {37, 1, 150, 16};

static void feed_alone(struct alone *a)
{
    uint64_t random = 88172645463325252u; /* xorshift64 with a fixed seed: the same prompts every time */
    struct engine e = engine_open(&a->rig, &kernels_reference, 1);
    for (uint32_t i = 0; i < ALONE; i++) {
        for (uint32_t t = 0; t < lengths[i]; t++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            a->ids[i][t] = (uint32_t)(random % a->rig.m.vocab);
        }
        a->s[i] = sequence_make(&a->rig, a->ids[i], lengths[i]);
        a->logits[i] = logits_for(&a->rig, lengths[i]);
        engine_feed(&e, &a->s[i], RIG_CAPACITY, a->logits[i]);
    }
    engine_close(&e);
}

static const char *const batch_files[] = {
    "tiny/llama/model-f32.gguf",    "tiny/llama/model-q8_0.gguf",       "tiny/llama-k/model-q4_1.gguf",
    "tiny/llama/model-f16.gguf",    "tiny/llama-k/model-q4_k_m.gguf",   "tiny/qwen2/model-q8_0.gguf",
    "tiny/qwen3/model-f32.gguf",    "tiny/phi3/model-q4_0.gguf",        "tiny/olmo2/model-f32.gguf",
    "tiny/gpt2/model-q8_0.gguf",    "tiny/gemma2/model-f32.gguf",       "tiny/gemma3/model-q4_0.gguf",
    "tiny/mixtral/model-q8_0.gguf", "tiny/qwen3moe-k/model-q4_k_m.gguf"};
enum { BATCH_FILES = sizeof batch_files / sizeof *batch_files };
static struct alone *companies[BATCH_FILES];
static uint32_t company_count;

static int load_companies(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BATCH_FILES; i++) {
        struct alone *a = calloc(1, sizeof *a);
        if (!a || !rig_open(&a->rig, batch_files[i], 0)) {
            free(a);
            continue;
        }
        feed_alone(a);
        companies[company_count++] = a;
    }
    return 0;
}

static int free_companies(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < company_count; i++) {
        for (uint32_t s = 0; s < ALONE; s++) {
            sequence_free(&companies[i]->s[s]);
            free(companies[i]->logits[s]);
        }
        rig_close(&companies[i]->rig);
        free(companies[i]);
    }
    return 0;
}

struct company {
    const struct alone *alone;
    struct sequence s[ALONE];
    float *logits[ALONE]; /* (lengths[i], vocab) */
};

static struct company company_make(const struct alone *a)
{
    struct company c = {.alone = a};
    for (uint32_t i = 0; i < ALONE; i++) {
        c.s[i] = sequence_make(&a->rig, a->ids[i], lengths[i]);
        c.logits[i] = logits_for(&a->rig, lengths[i]);
    }
    return c;
}

/* One step; logits go where the sequences stand. */
static void company_step(struct company *c, struct engine *e, const uint32_t take[ALONE])
{
    float *at[ALONE];
    for (uint32_t i = 0; i < ALONE; i++)
        at[i] = c->logits[i] + (size_t)c->s[i].done * c->alone->rig.m.vocab;
    engine_step(e, c->s, take, ALONE, at);
}

/* Steps of at most chunk tokens of each sequence, until all are done. */
static void company_feed(struct company *c, struct engine *e, uint32_t chunk)
{
    for (;;) {
        uint32_t take[ALONE], any = 0;
        for (uint32_t i = 0; i < ALONE; i++) {
            uint32_t left = c->s[i].count - c->s[i].done;
            take[i] = left < chunk ? left : chunk;
            any += take[i];
        }
        if (any == 0)
            return;
        company_step(c, e, take);
    }
}

static void as_if_alone(struct company *c)
{
    for (uint32_t i = 0; i < ALONE; i++) {
        size_t bytes = (size_t)lengths[i] * c->alone->rig.m.vocab * sizeof(float);
        assert_memory_equal(c->logits[i], c->alone->logits[i], bytes);
        assert_true(sequences_agree(&c->alone->rig, &c->s[i], &c->alone->s[i]));
        sequence_free(&c->s[i]);
        free(c->logits[i]);
    }
}

static void needs_fixtures(void)
{
    if (company_count == 0)
        skip();
}

static void feed_and_compare(const struct kernels *k, uint32_t ranks, uint32_t chunk)
{
    needs_fixtures();
    for (uint32_t i = 0; i < company_count; i++) {
        struct engine e = engine_open(&companies[i]->rig, k, ranks);
        struct company c = company_make(companies[i]);
        company_feed(&c, &e, chunk);
        as_if_alone(&c);
        engine_close(&e);
    }
}

static void batch_forward_of_different_lengths_equals_one_by_one(void **state)
{
    (void)state;
    feed_and_compare(&kernels_reference, 1, RIG_CAPACITY);
}

static void batch_forward_in_chunks_equals_whole_prompts(void **state)
{
    (void)state;
    const uint32_t chunks[] = {1, 7, 16, 100};
    for (uint32_t i = 0; i < 4; i++)
        feed_and_compare(kernels_choose(NULL), 1, chunks[i]);
}

/* Positions that queries looked at, by rank: each has a scratch of its own. */
static struct {
    pthread_mutex_t lock;
    const void *scratch[8];
    uint64_t seen[8];
} attended = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void attend_and_count(const struct attention *a)
{
    uint32_t i = 0;
    pthread_mutex_lock(&attended.lock);
    while (attended.scratch[i] && attended.scratch[i] != a->scratch)
        i++;
    attended.scratch[i] = a->scratch;
    for (uint32_t query = 0; query < a->queries; query++)
        attended.seen[i] += (uint64_t)a->heads * (a->first + query + 1);
    pthread_mutex_unlock(&attended.lock);
    kernels_choose(NULL)->attend(a);
}

static void a_short_chunk_of_a_long_prompt_is_shared_evenly(void **state)
{
    (void)state;
    enum { RANKS = 4, LONG = 240, CHUNK = 16 }; /* and two kv heads */
    static struct rig rig;
    if (!rig_open(&rig, "tiny/llama/model-f32.gguf", 0))
        skip();
    struct kernels counting = *kernels_choose(NULL);
    counting.attend = attend_and_count;
    struct engine e = engine_open(&rig, &counting, RANKS);
    uint32_t ids[LONG], most = LONG - CHUNK, rest = CHUNK;
    for (uint32_t i = 0; i < LONG; i++)
        ids[i] = i * 7 % rig.m.vocab;
    struct sequence s = sequence_make(&rig, ids, LONG);
    engine_step(&e, &s, &most, 1, NULL);
    memset(attended.seen, 0, sizeof attended.seen);
    engine_step(&e, &s, &rest, 1, NULL);
    uint64_t all = 0, busiest = 0;
    for (uint32_t i = 0; i < 8; i++) {
        all += attended.seen[i];
        busiest = attended.seen[i] > busiest ? attended.seen[i] : busiest;
    }
    assert_int_equal(all, (uint64_t)rig.m.layers * rig.m.heads * (LONG - CHUNK + 1 + LONG) * CHUNK / 2);
    assert_true(10 * busiest * RANKS <= 11 * all);
    sequence_free(&s);
    engine_close(&e);
    rig_close(&rig);
}

static void batch_forward_by_several_ranks_equals_one_rank(void **state)
{
    (void)state;
    const uint32_t ranks[] = {2, 3, 5};
    for (uint32_t i = 0; i < 3; i++) {
        feed_and_compare(kernels_choose(NULL), ranks[i], 61);
        feed_and_compare(kernels_choose(NULL), ranks[i], 1);
    }
}

static void batch_forward_with_every_kernel_set_equals_the_reference(void **state)
{
    (void)state;
    uint32_t count;
    const struct kernels *const *sets = kernels_runnable(&count);
    for (uint32_t i = 0; i < count; i++) {
        print_message("kernel set %s\n", sets[i]->name);
        feed_and_compare(sets[i], 1, RIG_CAPACITY);
        feed_and_compare(sets[i], 2, 33);
    }
}

/* Each sequence stands elsewhere: one decodes at the end of its prompt while others have just begun. */
static void batch_forward_keeps_positions_per_sequence(void **state)
{
    (void)state;
    needs_fixtures();
    for (uint32_t i = 0; i < company_count; i++) {
        struct engine e = engine_open(&companies[i]->rig, kernels_choose(NULL), 1);
        struct company c = company_make(companies[i]);
        company_step(&c, &e, (const uint32_t[ALONE]){0, 0, 140, 0});
        company_step(&c, &e, (const uint32_t[ALONE]){36, 0, 1, 3});
        company_step(&c, &e, (const uint32_t[ALONE]){1, 1, 1, 13});
        company_step(&c, &e, (const uint32_t[ALONE]){0, 0, 8, 0});
        as_if_alone(&c);
        engine_close(&e);
    }
}

/* The pages of one are taken away and spoilt; another grows in their place; a third never notices. */
static void batch_forward_clears_one_sequence_without_touching_the_others(void **state)
{
    (void)state;
    needs_fixtures();
    for (uint32_t i = 0; i < company_count; i++) {
        struct engine e = engine_open(&companies[i]->rig, kernels_choose(NULL), 1);
        struct company c = company_make(companies[i]);
        company_step(&c, &e, (const uint32_t[ALONE]){20, 0, 90, 0});
        struct sequence cleared = c.s[0];
        sequence_spoil(&cleared);
        c.s[0].done = 0;
        company_step(&c, &e, (const uint32_t[ALONE]){0, 1, 60, 0});
        company_feed(&c, &e, 9);
        as_if_alone(&c);
        engine_close(&e);
    }
}

/* Copies of K and V heads, one for each query head, are attention without groups: the same numbers. */
static void batch_forward_with_grouped_queries_equals_repeated_kv_heads(void **state)
{
    (void)state;
    needs_fixtures();
    const struct rig *grouped = &companies[0]->rig;
    uint32_t group = grouped->m.heads / grouped->m.kv_heads;
    assert_true(group > 1 && grouped->m.head_dim % TILE_ROWS == 0);

    static struct rig wide;
    wide = *grouped;
    wide.m.kv_heads = grouped->m.heads;
    uint64_t tile_bytes, end = grouped->m.weights_bytes;
    tiles_row_tile_bytes((enum tensor_type)grouped->m.layer[0].k.type, grouped->m.dim, &tile_bytes);
    uint64_t head_bytes = tile_bytes * grouped->m.head_dim / TILE_ROWS;
    wide.weights = aligned_alloc(64, end + 2 * grouped->m.layers * grouped->m.heads * head_bytes);
    assert_non_null(wide.weights);
    memcpy(wide.weights, grouped->weights, end);
    for (uint32_t layer = 0; layer < grouped->m.layers; layer++) {
        struct weight *both[] = {&wide.m.layer[layer].k, &wide.m.layer[layer].v};
        for (uint32_t w = 0; w < 2; w++) {
            for (uint32_t head = 0; head < wide.m.heads; head++)
                memcpy(wide.weights + end + head * head_bytes,
                       grouped->weights + both[w]->offset + head / group * head_bytes, head_bytes);
            both[w]->offset = end;
            both[w]->rows *= group;
            end += wide.m.heads * head_bytes;
        }
    }
    struct engine e = engine_open(&wide, kernels_choose(NULL), 1);
    struct sequence s = sequence_make(&wide, companies[0]->ids[2], lengths[2]);
    float *logits = logits_for(&wide, lengths[2]);
    engine_feed(&e, &s, 64, logits);
    assert_memory_equal(logits, companies[0]->logits[2], (size_t)lengths[2] * wide.m.vocab * sizeof(float));
    free(logits);
    sequence_free(&s);
    engine_close(&e);
    free(wide.weights);
}

/* ---- batches that are refused ---- */

static struct model small_model(void)
{
    return (struct model){.context = 100, .vocab = 10};
}

static void refused(struct batch b, const char *words)
{
    static struct model m;
    m = small_model();
    struct why why;
    assert_int_equal(batch_check(&b, &m, 8, &why), ERR_INVALID);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

static void batch_empty_is_refused(void **state)
{
    (void)state;
    refused((struct batch){0}, "empty");
}

static void batch_over_capacity_is_refused(void **state)
{
    (void)state;
    struct batch_run run = {.count = 9};
    uint32_t ids[9] = {0};
    refused((struct batch){.tokens = 9, .run_count = 1, .runs = &run, .token_ids = ids}, "9 tokens; a step takes 8");
}

static void batch_with_a_hole_an_overlap_or_a_token_too_large_is_refused(void **state)
{
    (void)state;
    uint32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 10};
    struct batch_run hole[] = {{.first_row = 0, .count = 2}, {.first_row = 3, .count = 1}};
    refused((struct batch){.tokens = 4, .run_count = 2, .runs = hole, .token_ids = ids}, "run 1");
    struct batch_run overlap[] = {{.first_row = 0, .count = 2}, {.first_row = 1, .count = 3}};
    refused((struct batch){.tokens = 4, .run_count = 2, .runs = overlap, .token_ids = ids}, "run 1");
    struct batch_run huge[] = {{.first_row = 0, .count = 2}, {.first_row = 2, .count = UINT32_MAX}};
    refused((struct batch){.tokens = 4, .run_count = 2, .runs = huge, .token_ids = ids}, "run 1");
    struct batch_run little = {.first_row = 0, .count = 3};
    refused((struct batch){.tokens = 4, .run_count = 1, .runs = &little, .token_ids = ids}, "end at row 3");
    struct batch_run late = {.first_row = 0, .count = 4, .position = 97};
    refused((struct batch){.tokens = 4, .run_count = 1, .runs = &late, .token_ids = ids}, "context ends at 100");
    struct batch_run whole = {.first_row = 0, .count = 8};
    refused((struct batch){.tokens = 8, .run_count = 1, .runs = &whole, .token_ids = ids}, "token 10");
}

static void capacity_of_nothing_or_too_much_is_refused(void **state)
{
    (void)state;
    needs_fixtures();
    const struct rig *rig = &companies[0]->rig;
    struct forward *f;
    assert_int_equal(forward_open(&f, &rig->m, rig->weights, &kernels_reference, 0, 0, NULL), ERR_INVALID);
    assert_int_equal(forward_open(&f, &rig->m, rig->weights, &kernels_reference, FORWARD_MAX_CAPACITY + 1, 1, NULL),
                     ERR_INVALID);
}

/* A meeting that is broken off ends the step there and then. */
static enum err third_meeting_aborts(void *arg)
{
    uint32_t *meetings = arg;
    return ++*meetings == 3 ? ERR_ABORTED : OK;
}

static void step_ends_at_the_first_meeting_that_is_aborted(void **state)
{
    (void)state;
    needs_fixtures();
    struct engine e = engine_open(&companies[0]->rig, kernels_choose(NULL), 1);
    struct sequence s = sequence_make(&companies[0]->rig, companies[0]->ids[0], 4);
    struct batch_run run = {.count = 4, .pages = {s.pages[0], s.pages[1]}};
    struct batch b = {.tokens = 4, .run_count = 1, .runs = &run, .token_ids = s.ids};
    uint32_t meetings = 0;
    forward_join(e.f[0], 0, 1, 1, &e.shared, third_meeting_aborts, &meetings);
    assert_int_equal(forward_run(e.f[0], &b), ERR_ABORTED);
    assert_int_equal(meetings, 3);
    sequence_free(&s);
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_empty_is_refused),
        cmocka_unit_test(batch_over_capacity_is_refused),
        cmocka_unit_test(batch_with_a_hole_an_overlap_or_a_token_too_large_is_refused),
        cmocka_unit_test(capacity_of_nothing_or_too_much_is_refused),
        cmocka_unit_test(step_ends_at_the_first_meeting_that_is_aborted),
        cmocka_unit_test(step_allocates_nothing),
        cmocka_unit_test(batch_forward_of_different_lengths_equals_one_by_one),
        cmocka_unit_test(batch_forward_in_chunks_equals_whole_prompts),
        cmocka_unit_test(batch_forward_by_several_ranks_equals_one_rank),
        cmocka_unit_test(a_short_chunk_of_a_long_prompt_is_shared_evenly),
        cmocka_unit_test(batch_forward_with_every_kernel_set_equals_the_reference),
        cmocka_unit_test(batch_forward_keeps_positions_per_sequence),
        cmocka_unit_test(batch_forward_clears_one_sequence_without_touching_the_others),
        cmocka_unit_test(batch_forward_with_grouped_queries_equals_repeated_kv_heads),
        cmocka_unit_test(only_the_rounding_of_k_and_v_parts_us_from_the_golden),
        cmocka_unit_test(llama_f32_agrees_with_its_golden),
        cmocka_unit_test(llama_f16_agrees_with_its_golden),
        cmocka_unit_test(llama_bf16_agrees_with_its_golden),
        cmocka_unit_test(llama_q8_0_agrees_with_its_golden),
        cmocka_unit_test(llama_q4_0_agrees_with_its_golden),
        cmocka_unit_test(llama_k_f16_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q8_0_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q4_0_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q4_1_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q5_0_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q5_1_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q2_k_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q3_k_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q3_k_m_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q4_k_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q4_k_m_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q5_k_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q5_k_m_agrees_with_its_golden),
        cmocka_unit_test(llama_k_q6_k_agrees_with_its_golden),
        cmocka_unit_test(llama_k_iq4_nl_agrees_with_its_golden),
        cmocka_unit_test(llama_k_iq4_xs_agrees_with_its_golden),
        cmocka_unit_test(smollm2_agrees_with_its_golden),
    };
    return cmocka_run_group_tests(tests, load_companies, free_companies);
}
