/*
 * Every kernel set that this machine can run against the reference, bit for bit. QUIRE_LONG=1 tries every seventh float
 * in expf and more shapes; QUIRE_SEED sets the seed.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/float16.h"
#include "model/kernels/kernels.h"

static uint64_t random_state;

static uint32_t random_bits(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static uint32_t random_below(uint32_t bound)
{
    return (uint32_t)((uint64_t)random_bits() * bound >> 32);
}

/* Mostly near [-1, 1], over some orders of magnitude. */
static float random_float(void)
{
    float x = (float)(int32_t)random_bits() * 0x1p-31f;
    return random_below(8) ? x : ldexpf(x, (int)random_below(24) - 12);
}

static bool long_form(void)
{
    return getenv("QUIRE_LONG") != NULL;
}

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(KERNEL_ALIGN, (bytes + KERNEL_ALIGN) / KERNEL_ALIGN * KERNEL_ALIGN);
    assert_non_null(memory);
    memset(memory, 0x5a, bytes);
    return memory;
}

static void assert_same_floats(const char *what, const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (f32_bits(got[i]) == f32_bits(expected[i]) || (isnan(got[i]) && isnan(expected[i])))
            continue;
        fail_msg("%s: element %zu is %a, the reference says %a", what, i, (double)got[i], (double)expected[i]);
    }
}

typedef void (*each_set)(const struct kernels *k);

/* Calls `check` with every set but the reference. */
static void for_each_set(each_set check)
{
    uint32_t count;
    const struct kernels *const *sets = kernels_runnable(&count);
    for (uint32_t i = 1; i < count; i++)
        check(sets[i]);
    if (count == 1)
        skip();
}

static const enum tensor_type all_types[] = {
    TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_1,   TENSOR_Q5_0,   TENSOR_Q5_1,
    TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4,
};
enum { TYPE_COUNT = sizeof all_types / sizeof *all_types };

enum fill { FILL_RANDOM, FILL_ZEROS, FILL_ONES, FILL_COUNT };

/* GGUF blocks of any bytes; random scales include negative, subnormal and zero ones, but only finite ones. */
static uint8_t *random_rows(enum tensor_type type, uint32_t rows, uint32_t cols, enum fill fill)
{
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    size_t bytes = (size_t)rows * cols / traits->block_elements * traits->block_bytes;
    uint8_t *blocks = allocate(bytes);
    if (type == TENSOR_F32) {
        for (size_t i = 0; i < (size_t)rows * cols; i++)
            ((float *)(void *)blocks)[i] = random_float();
        return blocks;
    }
    for (size_t i = 0; i < bytes; i++)
        blocks[i] = fill == FILL_RANDOM ? (uint8_t)random_bits() : fill == FILL_ONES ? 0xff : 0;
    if (type == TENSOR_F16 || type == TENSOR_BF16) {
        for (size_t i = 0; i < bytes; i += 2)
            blocks[i + 1] &= 0xbf;
        return blocks;
    }
    for (size_t b = 0; b < bytes; b += traits->block_bytes) {
        /* Wherever the two scales of a block are: exponents below 24, some zero. */
        static const uint8_t at[][3] = {{TENSOR_Q2_K, 80, 82}, {TENSOR_Q3_K, 108, 108}, {TENSOR_Q6_K, 208, 208},
                                        {TENSOR_Q4_1, 0, 2},   {TENSOR_Q5_1, 0, 2},     {TENSOR_Q4_K, 0, 2},
                                        {TENSOR_Q5_K, 0, 2},   {TENSOR_Q4_0, 0, 0},     {TENSOR_Q5_0, 0, 0},
                                        {TENSOR_Q8_0, 0, 0},   {TENSOR_IQ4_NL, 0, 0},   {TENSOR_IQ4_XS, 0, 0}};
        for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
            for (size_t s = 1; at[i][0] == type && s < 3; s++) {
                uint16_t half = (uint16_t)(random_bits() & 0x9fff);
                if (random_below(16) == 0)
                    half = random_below(2) ? (uint16_t)(random_bits() & 0x83ff) : 0;
                memcpy(blocks + b + at[i][s], &half, 2);
            }
        }
        if (type == TENSOR_MXFP4)
            blocks[b] = random_below(8) ? (uint8_t)(110 + random_below(30)) : (uint8_t)random_below(4);
    }
    return blocks;
}

static struct tile_matrix random_matrix(enum tensor_type type, uint32_t rows, uint32_t cols, enum fill fill)
{
    uint64_t bytes;
    assert_true(tiles_bytes(type, rows, cols, &bytes));
    uint8_t *blocks = random_rows(type, rows, cols, fill), *tiles = allocate(bytes);
    tiles_build(type, tiles, blocks, rows, cols, 0, (rows + TILE_ROWS - 1) / TILE_ROWS, NULL);
    free(blocks);
    return (struct tile_matrix){type, rows, cols, tiles};
}

struct batch {
    struct activations a;
    float *x;
    void *memory;
};

static struct batch random_batch(const struct kernels *k, const float *x, uint32_t tokens, uint32_t cols, size_t stride)
{
    struct batch b = {.x = allocate(tokens * stride * sizeof(float)),
                      .memory = allocate(activations_bytes(tokens, cols))};
    memcpy(b.x, x, tokens * stride * sizeof(float));
    activations_place(&b.a, b.memory, tokens, cols, b.x, stride);
    if (cols % TILE_K == 0)
        k->quantize(&b.a);
    return b;
}

static void free_batch(struct batch *b)
{
    free(b->x);
    free(b->memory);
}

/* Kinds of inputs: ordinary; extreme codes; zeros and tiny values; not finite. */
static void fill_inputs(float *x, size_t n, uint32_t kind)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = random_float();
        if (kind == 1)
            x[i] = random_below(2) ? 1.0f : -1.0f;
        if (kind == 2)
            x[i] = random_below(4) ? 0.0f : ldexpf(x[i], -(int)random_below(150));
        if (kind == 3 && random_below(200) == 0)
            x[i] = random_below(2) ? NAN : INFINITY;
    }
}

static void check_quantize(const struct kernels *k)
{
    const uint32_t cols = 160;
    for (uint32_t kind = 0; kind < 4; kind++) {
        for (uint32_t tokens = 1; tokens <= 19; tokens++) {
            float *x = allocate(tokens * cols * sizeof *x);
            fill_inputs(x, (size_t)tokens * cols, kind);
            struct batch got = random_batch(k, x, tokens, cols, cols);
            struct batch expected = random_batch(&kernels_reference, x, tokens, cols, cols);
            size_t padded = (tokens + 7) / 8 * 8, per_block = padded * cols / 32;
            assert_memory_equal(got.a.q, expected.a.q, padded * cols);
            assert_memory_equal(got.a.isum, expected.a.isum, per_block * 4);
            assert_memory_equal(got.a.half, expected.a.half, per_block * 4);
            assert_same_floats("scale", got.a.scale, expected.a.scale, per_block);
            assert_same_floats("sum", got.a.sum, expected.a.sum, per_block);
            free_batch(&got);
            free_batch(&expected);
            free(x);
        }
    }
}

static void quantised_inputs_are_the_reference_s(void **state)
{
    (void)state;
    for_each_set(check_quantize);
}

static void check_product(const struct kernels *k, const struct tile_matrix *w, uint32_t tokens, uint32_t kind,
                          uint32_t first, uint32_t last, enum product_mode mode)
{
    size_t x_stride = w->cols + random_below(20), y_stride = w->rows + random_below(9);
    float *x = allocate(tokens * x_stride * sizeof *x);
    fill_inputs(x, tokens * x_stride, kind);
    struct batch got = random_batch(k, x, tokens, w->cols, x_stride);
    struct batch expected = random_batch(&kernels_reference, x, tokens, w->cols, x_stride);
    size_t y_bytes = tokens * y_stride * sizeof(float);
    float *y = allocate(y_bytes), *y_expected = allocate(y_bytes);
    void *scratch = allocate(product_scratch_bytes(w->cols));
    for (size_t i = 0; i < tokens * y_stride; i++)
        y[i] = random_float();
    memcpy(y_expected, y, y_bytes);
    k->product(w, first, last, &got.a, y, y_stride, mode, scratch);
    kernels_reference.product(w, first, last, &expected.a, y_expected, y_stride, mode, scratch);
    char what[128];
    snprintf(what, sizeof what, "%s %s %ux%u, %u tokens, inputs %u, tiles %u..%u", k->name,
             tensor_type_traits(w->type)->name, w->rows, w->cols, tokens, kind, first, last);
    assert_same_floats(what, y, y_expected, tokens * y_stride);
    free(scratch);
    free(y);
    free(y_expected);
    free(x);
    free_batch(&got);
    free_batch(&expected);
}

/* A number of columns that the type can have: some, or enough that kernels go about few tokens in another way. */
static uint32_t random_cols(enum tensor_type type, bool many)
{
    uint32_t block = tensor_type_traits(type)->block_elements;
    if (block == 1)
        return 1 + random_below(90);
    return block * (many ? 1024 / block + 1 + random_below(256 / block) : 1 + random_below(768 / block > 7 ? 7 : 3));
}

static void check_products(const struct kernels *k)
{
    for (size_t t = 0; t < TYPE_COUNT; t++) {
        for (uint32_t fill = 0; fill < FILL_COUNT; fill++) {
            uint32_t rows = 1 + random_below(100), cols = random_cols(all_types[t], fill == FILL_RANDOM);
            struct tile_matrix w = random_matrix(all_types[t], rows, cols, fill);
            uint32_t tiles = (rows + 15) / 16;
            for (uint32_t tokens = 1; tokens <= 40; tokens += long_form() || tokens < 10 ? 1 : 1 + random_below(5)) {
                uint32_t first = random_below(2) ? 0 : random_below(tiles + 2);
                uint32_t last = random_below(2) ? tiles + random_below(3) : random_below(tiles + 1);
                check_product(k, &w, tokens, random_below(4), first, last,
                              random_below(2) ? PRODUCT_ADD : PRODUCT_STORE);
            }
            free((void *)(uintptr_t)w.tiles);
        }
    }
}

static void products_are_the_reference_s_for_every_type(void **state)
{
    (void)state;
    for_each_set(check_products);
}

static void check_neighbours(const struct kernels *k)
{
    enum { COLS = 512, ROWS = 48, TOKENS = 27 };
    for (size_t t = 0; t < TYPE_COUNT; t++) {
        struct tile_matrix w = random_matrix(all_types[t], ROWS, COLS, FILL_RANDOM);
        float *x = allocate(TOKENS * COLS * sizeof *x), *together = allocate(TOKENS * ROWS * sizeof *x), alone[ROWS];
        fill_inputs(x, TOKENS * COLS, 0);
        void *scratch = allocate(product_scratch_bytes(COLS));
        struct batch all = random_batch(k, x, TOKENS, COLS, COLS);
        k->product(&w, 0, 3, &all.a, together, ROWS, PRODUCT_STORE, scratch);
        for (uint32_t i = 0; i < TOKENS; i++) {
            struct batch one = random_batch(k, x + i * COLS, 1, COLS, COLS);
            k->product(&w, 0, 1, &one.a, alone, ROWS, PRODUCT_STORE, scratch);
            k->product(&w, 1, 3, &one.a, alone, ROWS, PRODUCT_STORE, scratch);
            assert_same_floats("a token alone", alone, together + i * ROWS, ROWS);
            free_batch(&one);
        }
        free_batch(&all);
        free(scratch);
        free(x);
        free(together);
        free((void *)(uintptr_t)w.tiles);
    }
}

static void a_token_s_result_knows_neither_neighbours_nor_row_ranges(void **state)
{
    (void)state;
    check_neighbours(&kernels_reference);
    for_each_set(check_neighbours);
}

static void check_vectors(const struct kernels *k)
{
    for (uint32_t n = 1; n <= 200; n++) {
        float x[200], w[200], got[200], expected[200];
        uint16_t half_got[200], half_expected[200];
        fill_inputs(x, n, random_below(3));
        fill_inputs(w, n, 0);
        k->rms_norm(got, x, w, n, 1e-5f);
        kernels_reference.rms_norm(expected, x, w, n, 1e-5f);
        assert_same_floats("rms_norm", got, expected, n);
        for (uint32_t i = 0; i < n; i++)
            x[i] *= 30;
        k->swiglu(got, x, w, n);
        kernels_reference.swiglu(expected, x, w, n);
        assert_same_floats("swiglu", got, expected, n);
        k->gelu(got, x, w, n);
        kernels_reference.gelu(expected, x, w, n);
        assert_same_floats("gelu", got, expected, n);
        k->gelu(got, x, NULL, n);
        kernels_reference.gelu(expected, x, NULL, n);
        assert_same_floats("gelu without a factor", got, expected, n);
        memcpy(got, x, n * sizeof *x);
        memcpy(expected, x, n * sizeof *x);
        k->rope_rotate(got, 2, n / 2, n / 4, w);
        kernels_reference.rope_rotate(expected, 2, n / 2, n / 4, w);
        assert_same_floats("rope_rotate", got, expected, n);
        k->to_f16(half_got, x, n);
        kernels_reference.to_f16(half_expected, x, n);
        assert_memory_equal(half_got, half_expected, n * 2);
    }
}

static void norms_and_activations_are_the_reference_s(void **state)
{
    (void)state;
    for_each_set(check_vectors);
}

/*
 * Ordinary logits; few values, so that many are the largest; zeros of both signs and tiny values; sick ones; nothing
 * but -inf.
 */
static void check_logits(const struct kernels *k)
{
    for (uint32_t n = 1; n <= 300; n++) {
        for (uint32_t kind = 0; kind < 5; kind++) {
            float x[300], max_got, max_expected, temperature = random_below(3) ? 1.0f + random_float() * 0.9f : 0;
            uint32_t argmax_got, argmax_expected;
            double sum_got, sum_expected;
            fill_inputs(x, n, kind);
            for (uint32_t i = 0; i < n; i++)
                x[i] = kind == 4 ? -INFINITY : kind == 2 && random_below(2) ? -x[i] : x[i] * 20;
            if (kind == 3 && random_below(3) == 0)
                x[random_below(n)] = -INFINITY;
            k->measure(x, n, temperature, &max_got, &argmax_got, &sum_got);
            kernels_reference.measure(x, n, temperature, &max_expected, &argmax_expected, &sum_expected);
            assert_memory_equal(&max_got, &max_expected, sizeof max_got);
            assert_int_equal(argmax_got, argmax_expected);
            assert_memory_equal(&sum_got, &sum_expected, sizeof sum_got);
        }
    }
}

static void logits_are_measured_as_the_reference_does(void **state)
{
    (void)state;
    for_each_set(check_logits);
}

static void check_halves(const struct kernels *k)
{
    enum { COUNT = 65536 };
    uint16_t *half = allocate(COUNT * 2), *half_expected = allocate(COUNT * 2);
    float *x = allocate(COUNT * 4), *expected = allocate(COUNT * 4);
    for (uint32_t i = 0; i < COUNT; i++)
        half[i] = (uint16_t)i;
    k->from_f16(x, half, COUNT);
    kernels_reference.from_f16(expected, half, COUNT);
    assert_memory_equal(x, expected, COUNT * 4);
    /* Each half's neighbourhood: half way to the next, and one float to either side of that. */
    for (uint32_t delta = 0; delta < 6; delta++) {
        for (uint32_t i = 0; i < COUNT; i++)
            x[i] = f32_from_bits(f32_bits(expected[i]) + (delta < 3 ? 0x1000 : 0) + delta % 3 - 1);
        k->to_f16(half, x, COUNT);
        kernels_reference.to_f16(half_expected, x, COUNT);
        assert_memory_equal(half, half_expected, COUNT * 2);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        x[i] = f32_from_bits(random_bits());
    k->to_f16(half, x, COUNT);
    kernels_reference.to_f16(half_expected, x, COUNT);
    assert_memory_equal(half, half_expected, COUNT * 2);
    free(half);
    free(half_expected);
    free(x);
    free(expected);
}

static void half_precision_is_converted_alike(void **state)
{
    (void)state;
    for_each_set(check_halves);
}

static void half_precision_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        float x = f32_from_f16((uint16_t)i);
        if (isnan(x))
            continue;
        assert_int_equal(f16_from_f32(x), i);
    }
    assert_int_equal(f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(f16_from_f32(0x1p-25f), 0);
    assert_int_equal(f16_from_f32(0x1.000002p-25f), 1);
}

/* swiglu(-x, 1) is -x / (1 + exp(x)), which shows expf over its whole range where it is not absorbed by the 1. */
static void check_exp_sweep(const struct kernels *k)
{
    enum { COUNT = 4096 };
    uint64_t step = long_form() ? 7 : 4093;
    float x[COUNT], one[COUNT], got[COUNT], expected[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        one[i] = 1;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += step * COUNT) {
        for (uint32_t i = 0; i < COUNT; i++)
            x[i] = f32_from_bits((uint32_t)(bits + i * step));
        k->swiglu(got, x, one, COUNT);
        kernels_reference.swiglu(expected, x, one, COUNT);
        assert_same_floats("swiglu sweep", got, expected, COUNT);
    }
    /* the sum of (0, x) is 1 + exp(x) in double: the small results, subnormal ones too */
    for (uint32_t bits = 0x80000000; bits < 0xc2d80000; bits += long_form() ? 17 : 65537) {
        float two[2] = {0, f32_from_bits(bits)}, max;
        double got_sum, expected_sum;
        uint32_t argmax;
        k->measure(two, 2, 1, &max, &argmax, &got_sum);
        kernels_reference.measure(two, 2, 1, &max, &argmax, &expected_sum);
        assert_memory_equal(&got_sum, &expected_sum, sizeof got_sum);
    }
}

static void the_exponential_is_the_same_in_every_set(void **state)
{
    (void)state;
    for_each_set(check_exp_sweep);
}

static void the_exponential_is_right_to_two_units(void **state)
{
    (void)state;
    for (double x = -87; x < 88.7; x += 0.00137) {
        double expected = exp((double)(float)x), got = (double)kernel_expf((float)x);
        assert_true(fabs(got - expected) <= expected * 0x1p-22);
    }
    assert_true(kernel_expf(0) == 1.0f);
    assert_true(kernel_expf(-104.0f) == 0.0f && kernel_expf(-INFINITY) == 0.0f);
    assert_true(isinf(kernel_expf(88.8f)) && isinf(kernel_expf(INFINITY)));
    assert_true(isnan(kernel_expf(NAN)));
    assert_true(kernel_expf(-100.0f) > 0.0f && kernel_expf(-100.0f) < 0x1p-126f);
}

static void the_hyperbolic_tangent_is_close(void **state)
{
    (void)state;
    for (double x = -12; x < 12; x += 0.00131)
        assert_true(fabs((double)kernel_tanhf((float)x) - tanh((double)(float)x)) < 2e-7);
}

struct sequence {
    uint8_t **pages;
    uint32_t page_count;
    size_t k_offset, v_offset;
    enum kv_type kv_type;
};

/* Pages of random K and V up to `length` positions; what lies beyond is NaN, which nobody may let through. */
static struct sequence random_sequence(uint32_t length, uint32_t head_dim, enum kv_type type)
{
    size_t side = kv_side_bytes(type, head_dim);
    struct sequence s = {.page_count = (length + 15) / 16, .k_offset = 64, .v_offset = 128 + side, .kv_type = type};
    float x[256];
    s.pages = allocate(s.page_count * sizeof *s.pages);
    for (uint32_t p = 0; p < s.page_count; p++) {
        s.pages[p] = allocate(s.v_offset + side);
        memset(s.pages[p], 0xff, s.v_offset + side);
        for (uint32_t i = 0; i < 16 && p * 16 + i < length; i++) {
            for (uint32_t d = 0; d < head_dim; d++)
                x[d] = random_float();
            kv_store_k(type, s.pages[p] + s.k_offset, head_dim, i, 0, head_dim, x, kernels_reference.to_f16);
            for (uint32_t d = 0; d < head_dim; d++)
                x[d] = random_float();
            kv_store_v(type, s.pages[p] + s.v_offset, head_dim, i, 0, head_dim, x, kernels_reference.to_f16);
        }
    }
    return s;
}

static void free_sequence(struct sequence *s)
{
    for (uint32_t p = 0; p < s->page_count; p++)
        free(s->pages[p]);
    free(s->pages);
}

static void check_attention_of(const struct kernels *k, uint32_t first, uint32_t queries, uint32_t heads,
                               uint32_t head_dim, uint32_t window, float softcap)
{
    enum kv_type type = (enum kv_type)random_below(KV_TYPES);
    if (!kv_type_takes(type, head_dim))
        type = KV_F16;
    struct sequence s = random_sequence(first + queries, head_dim, type);
    size_t row = (size_t)heads * head_dim, stride = row + 7;
    float *q = allocate(queries * stride * sizeof *q), *got = allocate(queries * stride * sizeof *q);
    float *expected = allocate(queries * stride * sizeof *q);
    for (size_t i = 0; i < queries * stride; i++)
        q[i] = 3 * random_float();
    struct attention a = {.q = q,
                          .q_stride = stride,
                          .out = got,
                          .out_stride = stride,
                          .queries = queries,
                          .first = first,
                          .heads = heads,
                          .head_dim = head_dim,
                          .kv_type = type,
                          .window = window,
                          .scale = 0.3f,
                          .softcap = softcap,
                          .pages = (const uint8_t *const *)s.pages,
                          .k_offset = s.k_offset,
                          .v_offset = s.v_offset,
                          .scratch = allocate(attention_scratch_bytes(head_dim))};
    k->attend(&a);
    a.out = expected;
    kernels_reference.attend(&a);
    char what[128];
    snprintf(what, sizeof what, "%s: %s pages, %u queries from %u, %u heads of %u, window %u", k->name,
             kv_type_name(type), queries, first, heads, head_dim, window);
    for (uint32_t i = 0; i < queries; i++) {
        assert_same_floats(what, got + i * stride, expected + i * stride, row);
        for (size_t d = 0; d < row; d++)
            assert_true(isfinite(got[i * stride + d]));
    }
    free(a.scratch);
    free(q);
    free(got);
    free(expected);
    free_sequence(&s);
}

static void check_attention(const struct kernels *k)
{
    static const uint32_t dims[] = {64, 2, 18, 32, 80, 128, 256}, heads[] = {3, 1, 2, 4, 5, 8, 16};
    for (uint32_t round = 0; round < (long_form() ? 2000 : 160); round++)
        check_attention_of(k, random_below(4) ? random_below(900) : random_below(20),
                           1 + random_below(random_below(2) ? 2 : 40), heads[random_below(7)], dims[random_below(7)],
                           random_below(2) ? 0 : 1 + random_below(600), random_below(5) ? 0 : 30.0f);
    for (uint32_t edge = 254; edge <= 258; edge++)
        check_attention_of(k, edge, 1, 3, 64, 0, 0);
    check_attention_of(k, 0, 1, 3, 64, 0, 0);
    check_attention_of(k, 500, 30, 3, 64, 1, 0);
}

static void attention_is_the_reference_s(void **state)
{
    (void)state;
    for_each_set(check_attention);
}

static void attention_is_softmax(void **state)
{
    (void)state;
    enum { LENGTH = 700, DIM = 64 };
    struct sequence s = random_sequence(LENGTH, DIM, KV_F16);
    float q[DIM], out[DIM];
    for (uint32_t d = 0; d < DIM; d++)
        q[d] = (float)(int32_t)random_bits() * 0x1p-38f;
    struct attention a = {.q = q,
                          .q_stride = DIM,
                          .out = out,
                          .out_stride = DIM,
                          .queries = 1,
                          .first = LENGTH - 1,
                          .heads = 1,
                          .head_dim = DIM,
                          .scale = 0.125f,
                          .pages = (const uint8_t *const *)s.pages,
                          .k_offset = s.k_offset,
                          .v_offset = s.v_offset,
                          .scratch = allocate(attention_scratch_bytes(DIM))};
    kernels_reference.attend(&a);
    double sum = 0, o[DIM] = {0}, magnitude[DIM] = {0};
    for (uint32_t p = 0; p < LENGTH; p++) {
        double score = 0;
        uint16_t half;
        for (uint32_t d = 0; d < DIM; d++) {
            memcpy(&half, s.pages[p / 16] + s.k_offset + d / 2 * 64 + p % 16 * 4 + d % 2 * 2, 2);
            score += (double)q[d] * (double)f32_from_f16(half);
        }
        double weight = exp(score * 0.125);
        sum += weight;
        for (uint32_t d = 0; d < DIM; d++) {
            memcpy(&half, s.pages[p / 16] + s.v_offset + (size_t)(p % 16 * DIM + d) * 2, 2);
            o[d] += weight * (double)f32_from_f16(half);
            magnitude[d] += weight * fabs((double)f32_from_f16(half));
        }
    }
    for (uint32_t d = 0; d < DIM; d++)
        assert_true(fabs(o[d] / sum - (double)out[d]) < 1e-4 * magnitude[d] / sum);
    free(a.scratch);
    free_sequence(&s);
}

static void rotation_keeps_lengths_and_turns_pairs(void **state)
{
    (void)state;
    float x[8] = {1, 0, 0, 1, 5, 5, 3, 4}, cos_sin[4] = {0, 1, 0.6f, 0.8f};
    kernels_reference.rope_rotate(x, 2, 4, 2, cos_sin);
    const float expected[8] = {0, 1, -0.8f, 0.6f, -5, 5, 3 * 0.6f - 4 * 0.8f, 3 * 0.8f + 4 * 0.6f};
    for (int i = 0; i < 8; i++)
        assert_true(fabsf(x[i] - expected[i]) < 1e-6f);
}

static void sets_are_chosen_by_name(void **state)
{
    (void)state;
    uint32_t count;
    const struct kernels *const *sets = kernels_runnable(&count);
    assert_true(count >= 1);
    assert_ptr_equal(kernels_choose(NULL), sets[count - 1]);
    assert_ptr_equal(kernels_choose("reference"), &kernels_reference);
    assert_null(kernels_choose("abacus"));
}

static void gelu_is_its_formula(void **state)
{
    (void)state;
    for (int i = -3000; i <= 3000; i++) {
        float x = (float)i / 100.0f, got;
        kernels_reference.gelu(&got, &x, NULL, 1);
        double expected = 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * (double)x * x * x)));
        assert_true(fabs(got - expected) <= 1e-6 * (1.0 + fabs(expected)));
    }
}

static void layer_norm_and_soft_cap_are_their_formulas(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 100; n += 9) {
        float x[100], w[100], b[100], got[100];
        fill_inputs(x, n, 0);
        fill_inputs(w, n, 0);
        fill_inputs(b, n, 0);
        double mean = 0, variance = 0;
        for (uint32_t i = 0; i < n; i++)
            mean += (double)x[i] / n;
        for (uint32_t i = 0; i < n; i++)
            variance += (x[i] - mean) * (x[i] - mean) / n;
        layer_norm(got, x, w, b, n, 1e-5f);
        for (uint32_t i = 0; i < n; i++) {
            double expected = (x[i] - mean) / sqrt(variance + 1e-5) * w[i] + b[i];
            assert_true(fabs(got[i] - expected) <= 1e-4 * (1.0 + fabs(expected)));
        }
        for (uint32_t i = 0; i < n; i++)
            got[i] = 10.0f * x[i];
        soft_cap(got, n, 3.0f);
        for (uint32_t i = 0; i < n; i++)
            assert_true(fabs(got[i] - 3.0 * tanh(10.0 * (double)x[i] / 3.0)) <= 1e-5);
    }
}

int main(void)
{
    const char *seed = getenv("QUIRE_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)(uintptr_t)&seed;
    printf("seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gelu_is_its_formula),
        cmocka_unit_test(layer_norm_and_soft_cap_are_their_formulas),
        cmocka_unit_test(quantised_inputs_are_the_reference_s),
        cmocka_unit_test(products_are_the_reference_s_for_every_type),
        cmocka_unit_test(a_token_s_result_knows_neither_neighbours_nor_row_ranges),
        cmocka_unit_test(norms_and_activations_are_the_reference_s),
        cmocka_unit_test(logits_are_measured_as_the_reference_does),
        cmocka_unit_test(half_precision_is_converted_alike),
        cmocka_unit_test(half_precision_survives_the_round_trip),
        cmocka_unit_test(the_exponential_is_the_same_in_every_set),
        cmocka_unit_test(the_exponential_is_right_to_two_units),
        cmocka_unit_test(the_hyperbolic_tangent_is_close),
        cmocka_unit_test(attention_is_the_reference_s),
        cmocka_unit_test(attention_is_softmax),
        cmocka_unit_test(rotation_keeps_lengths_and_turns_pairs),
        cmocka_unit_test(sets_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
