/* Products: every kernel set that this machine can run against the reference, bit for bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tile_format.h"
#include "tests/support/kernel_rig.h"
#include "tests/support/tile_emulator.h"

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
        k->quantize(&b.a, 0, cols / TILE_K);
    return b;
}

static void free_batch(struct batch *b)
{
    free(b->x);
    free(b->memory);
}

static void assert_same_codes(const struct activations *got, const struct activations *expected)
{
    uint32_t width = expected->width;
    size_t padded = (expected->tokens + width - 1) / width * width, per_block = padded * expected->cols / 32;
    assert_int_equal(got->width, width);
    assert_memory_equal(got->q, expected->q, padded * expected->cols);
    assert_memory_equal(got->isum, expected->isum, per_block * 4);
    assert_memory_equal(got->half, expected->half, per_block * 4);
    assert_same_floats("scale", got->scale, expected->scale, per_block);
    assert_same_floats("sum", got->sum, expected->sum, per_block);
}

/* As ranks do that share the work: some groups each, perhaps none. */
static void quantize_in_parts(const struct kernels *k, const struct activations *a)
{
    uint32_t groups = (a->tokens + 7) / 8, cut[] = {0, random_below(groups + 1), groups, groups};
    for (uint32_t i = 0; i < 3; i++) {
        struct activations part = activations_of_groups(a, cut[i], cut[i + 1]);
        k->quantize(&part, 0, a->cols / TILE_K);
    }
}

/* As ranks do that round what they computed: neighbouring blocks by somebody else, in any order. */
static void quantize_in_ranges(const struct kernels *k, const struct activations *a)
{
    uint32_t blocks = a->cols / TILE_K, cut = random_below(blocks + 1);
    struct activations last = *a;
    last.x += cut * TILE_K; /* of the first block that is asked for */
    k->quantize(&last, cut, blocks);
    k->quantize(a, 0, cut);
}

static void check_quantize(const struct kernels *k)
{
    const uint32_t cols = 160, widths[] = {1, 2, 4, 4, 8};
    for (uint32_t kind = 0; kind < 4; kind++) {
        for (uint32_t tokens = 1; tokens <= 19; tokens++) {
            float *x = allocate(tokens * cols * sizeof *x);
            fill_inputs(x, (size_t)tokens * cols, kind);
            struct batch got = random_batch(k, x, tokens, cols, cols);
            struct batch expected = random_batch(&kernels_reference, x, tokens, cols, cols);
            assert_int_equal(got.a.width, widths[tokens < 5 ? tokens - 1 : 4]);
            assert_same_codes(&got.a, &expected.a);
            memset(got.memory, 0xaa, activations_bytes(tokens, cols));
            quantize_in_parts(k, &got.a);
            assert_same_codes(&got.a, &expected.a);
            memset(got.memory, 0xaa, activations_bytes(tokens, cols));
            quantize_in_ranges(k, &got.a);
            assert_same_codes(&got.a, &expected.a);
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
    assert_true(tiles_are_released());
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

/* A number of columns that the type can have: some, or more than kernels unpack at a time. */
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
            const uint32_t many[] = {0, 64, 65, 67, 128}; /* more than kernels take at once */
            for (size_t i = 0; fill == FILL_RANDOM && i < sizeof many / sizeof *many; i++)
                check_product(k, &w, many[i], 0, 0, 2, PRODUCT_ADD);
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

/* What AMX's signed operands rest on. */
static void codes_without_bias_are_signed_bytes(void **state)
{
    (void)state;
    for (size_t t = 0; t < TYPE_COUNT; t++) {
        struct tile_format f = tile_format(all_types[t]);
        assert_true(f.planes & PLANE_EIGHT || f.table ? f.bias == 128 : f.bias <= 128);
    }
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

int main(void)
{
    kernel_rig_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantised_inputs_are_the_reference_s),
        cmocka_unit_test(products_are_the_reference_s_for_every_type),
        cmocka_unit_test(a_token_s_result_knows_neither_neighbours_nor_row_ranges),
        cmocka_unit_test(codes_without_bias_are_signed_bytes),
        cmocka_unit_test(sets_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
