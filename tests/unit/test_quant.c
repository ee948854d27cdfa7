/*
 * Quantisation as a user sees it: how far values move, how small they get, and that a product with blocks is the
 * product with the floats they stand for. OpenBLAS on dequantised weights is the yardstick.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <cmocka.h>

#include "model/float16.h"
#include "model/kernels/kernels.h"
#include "model/quantize.h"
#include "tests/support/tile_emulator.h"

enum { BLOCK = 32 };

static uint64_t random_state;

static float random_float(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(KERNEL_ALIGN, (bytes + KERNEL_ALIGN) / KERNEL_ALIGN * KERNEL_ALIGN);
    assert_non_null(memory);
    memset(memory, 0, bytes);
    return memory;
}

/* Blocks of all magnitudes that f16 scales can hold; some are all zero, some one-sided. */
static void fill_block(float *x, uint32_t kind)
{
    for (int i = 0; i < BLOCK; i++) {
        x[i] = ldexpf(random_float(), (int)(kind % 20) - 8);
        if (kind % 7 == 0)
            x[i] = fabsf(x[i]);
        if (kind % 11 == 0)
            x[i] = -fabsf(x[i]);
        if (kind % 13 == 0)
            x[i] = 0;
    }
}

/* Calls check(x, round trip of x, step) for blocks of all kinds. */
static void for_blocks(enum tensor_type type, void (*check)(const float *x, const float *back, float step))
{
    for (uint32_t kind = 0; kind < 2000; kind++) {
        float x[BLOCK], back[BLOCK];
        uint8_t block[64];
        uint16_t d;
        fill_block(x, kind);
        assert_true(blocks_from_float(type, x, BLOCK, block));
        blocks_to_float(type, block, BLOCK, back);
        memcpy(&d, block, sizeof d);
        check(x, back, fabsf(f32_from_f16(d)));
    }
}

static void check_q8(const float *x, const float *back, float step)
{
    float amax = 0;
    for (int i = 0; i < BLOCK; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    for (int i = 0; i < BLOCK; i++) {
        assert_true(fabsf(x[i] - back[i]) <= 0.5001f * step);
        assert_true(fabsf(x[i] - back[i]) <= 0.002f * 2 * amax);
    }
}

static void q8_roundtrip_within_tolerance(void **state)
{
    (void)state;
    for_blocks(TENSOR_Q8_0, check_q8);
}

static void check_q4(const float *x, const float *back, float step)
{
    float extreme = 0;
    for (int i = 0; i < BLOCK; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    for (int i = 0; i < BLOCK; i++) {
        bool clamped_end = x[i] * extreme < 0 && fabsf(x[i]) > 7.4f * step;
        assert_true(fabsf(x[i] - back[i]) <= (clamped_end ? 1.01f : 0.5001f) * step);
    }
}

static void q4_roundtrip_within_tolerance(void **state)
{
    (void)state;
    for_blocks(TENSOR_Q4_0, check_q4);
}

/* Blocks of 256 whose parts have magnitudes of their own: no value is further off than two steps of its part and one of the common scales. */
static void q4_k_roundtrip_within_tolerance(void **state)
{
    enum { PARTS = 8, WHOLE = PARTS * BLOCK };
    (void)state;
    for (uint32_t kind = 0; kind < 500; kind++) {
        float x[WHOLE], back[WHOLE], widest = 0, lowest = 0;
        double off = 0, all = 0;
        uint8_t block[144];
        for (uint32_t j = 0; j < PARTS; j++)
            fill_block(x + j * BLOCK, kind / 4 * 20 + 8 + (kind + j) % 3);
        assert_true(blocks_from_float(TENSOR_Q4_K, x, WHOLE, block));
        blocks_to_float(TENSOR_Q4_K, block, WHOLE, back);
        for (int i = 0; i < WHOLE; i++) {
            lowest = fminf(lowest, x[i]);
            widest = fmaxf(widest, fabsf(x[i]));
        }
        for (int j = 0; j < PARTS; j++) {
            float least = 0, most = 0;
            for (int i = j * BLOCK; i < (j + 1) * BLOCK; i++) {
                least = fminf(least, x[i]);
                most = fmaxf(most, x[i]);
            }
            for (int i = j * BLOCK; i < (j + 1) * BLOCK; i++) {
                assert_true(fabsf(x[i] - back[i]) <= 2 * (most - least) / 15 + (widest - lowest) / 63);
                off += pow((double)x[i] - (double)back[i], 2);
                all += pow((double)x[i], 2);
            }
        }
        assert_true(sqrt(off) <= 0.09 * sqrt(all));
    }
    float zero[WHOLE] = {0}, back[WHOLE];
    uint8_t block[144];
    assert_true(blocks_from_float(TENSOR_Q4_K, zero, WHOLE, block));
    blocks_to_float(TENSOR_Q4_K, block, WHOLE, back);
    assert_memory_equal(back, zero, sizeof zero);
    zero[17] = 3e38f; /* too large for any scale: the largest there is, and nothing worse */
    assert_true(blocks_from_float(TENSOR_Q4_K, zero, WHOLE, block));
    blocks_to_float(TENSOR_Q4_K, block, WHOLE, back);
    assert_true(isfinite(back[17]) && back[17] > 1e6f && back[40] == 0);
    zero[17] = NAN;
    assert_false(blocks_from_float(TENSOR_Q4_K, zero, WHOLE, block));
}

static void values_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    float x[BLOCK] = {0};
    uint8_t block[64];
    x[7] = NAN;
    assert_false(blocks_from_float(TENSOR_Q8_0, x, BLOCK, block));
    x[7] = -INFINITY;
    assert_false(blocks_from_float(TENSOR_Q4_0, x, BLOCK, block));
    x[7] = 3e38f; /* the scale saturates, nothing else does */
    float back[BLOCK];
    assert_true(blocks_from_float(TENSOR_Q8_0, x, BLOCK, block));
    blocks_to_float(TENSOR_Q8_0, block, BLOCK, back);
    assert_true(back[7] == 65504.0f * 127);
    assert_true(back[6] == 0);
}

/* products of all sets with quantised weights against sgemm with the floats that these stand for */
static void check_against_blas(enum tensor_type type, uint32_t rows, uint32_t cols, uint32_t tokens, float bound)
{
    size_t weights = (size_t)rows * cols;
    float *w = allocate(weights * sizeof *w), *magnitude = allocate(weights * sizeof *w);
    float *x = allocate((size_t)tokens * cols * sizeof *x), *x_magnitude = allocate((size_t)tokens * cols * sizeof *x);
    float *y = allocate((size_t)tokens * rows * sizeof *y), *expected = allocate((size_t)tokens * rows * sizeof *y);
    float *scale = allocate((size_t)tokens * rows * sizeof *y);
    uint8_t *blocks = allocate(weights * 4);
    for (size_t i = 0; i < weights; i++)
        w[i] = random_float();
    for (size_t i = 0; i < (size_t)tokens * cols; i++)
        x_magnitude[i] = fabsf(x[i] = random_float());
    assert_true(blocks_from_float(type, w, weights, blocks));
    blocks_to_float(type, blocks, weights, w);
    for (size_t i = 0; i < weights; i++)
        magnitude[i] = fabsf(w[i]);
    openblas_set_num_threads(1);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tokens, (int)rows, (int)cols, 1, x, (int)cols, w,
                (int)cols, 0, expected, (int)rows);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tokens, (int)rows, (int)cols, 1, x_magnitude, (int)cols,
                magnitude, (int)cols, 0, scale, (int)rows);

    uint64_t bytes;
    assert_true(tiles_bytes(type, rows, cols, &bytes));
    uint8_t *tiles = allocate(bytes);
    uint32_t tile_count = (rows + TILE_ROWS - 1) / TILE_ROWS, set_count;
    tiles_build(type, tiles, blocks, rows, cols, 0, tile_count, NULL);
    struct tile_matrix matrix = {type, rows, cols, tiles};
    struct activations a;
    void *memory = allocate(activations_bytes(tokens, cols)), *scratch = allocate(product_scratch_bytes(cols));
    activations_place(&a, memory, tokens, cols, x, cols);
    const struct kernels *const *sets = kernels_with_emulated(&set_count);
    for (uint32_t s = 0; s < set_count; s++) {
        memset(y, 0xff, (size_t)tokens * rows * sizeof *y);
        sets[s]->quantize(&a, 0, cols / TILE_K);
        sets[s]->product(&matrix, 0, tile_count, &a, y, rows, PRODUCT_STORE, scratch);
        for (size_t i = 0; i < (size_t)tokens * rows; i++)
            assert_true(fabsf(y[i] - expected[i]) <= bound * scale[i]);
    }
    void *all[] = {w, magnitude, x, x_magnitude, y, expected, scale, blocks, tiles, memory, scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void quantized_matmul_matches_f32(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {1, 3, 8, 21};
    for (size_t i = 0; i < 4; i++) {
        check_against_blas(TENSOR_Q8_0, 100, 576, tokens[i], 0.004f);
        check_against_blas(TENSOR_Q4_0, 75, 1536, tokens[i], 0.004f);
        check_against_blas(TENSOR_F32, 50, 200, tokens[i], 1e-5f);
        check_against_blas(TENSOR_F16, 33, 96, tokens[i], 1e-5f);
    }
}

static void dequant_block_size_correct(void **state)
{
    (void)state;
    static const struct {
        enum tensor_type type;
        uint32_t elements, bytes;
    } expected[] = {{TENSOR_Q8_0, 32, 34},
                    {TENSOR_Q4_0, 32, 18},
                    {TENSOR_Q4_1, 32, 20},
                    {TENSOR_Q4_K, 256, 144},
                    {TENSOR_Q6_K, 256, 210}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct tensor_type_traits *traits = tensor_type_traits(expected[i].type);
        assert_int_equal(traits->block_elements, expected[i].elements);
        assert_int_equal(traits->block_bytes, expected[i].bytes);
        uint8_t *block = allocate(expected[i].bytes); /* exactly one block: more would be read out of bounds */
        float values[257];
        for (size_t v = 0; v < 257; v++)
            values[v] = 12345;
        blocks_to_float(expected[i].type, block, expected[i].elements, values);
        for (size_t v = 0; v < 257; v++)
            assert_true(values[v] == (v < expected[i].elements ? 0 : 12345));
        free(block);
    }
}

static void quant_memory_reduction(void **state)
{
    (void)state;
    uint64_t f32, q8_0, q4_0;
    assert_true(tiles_bytes(TENSOR_F32, 576, 1536, &f32));
    assert_true(tiles_bytes(TENSOR_Q8_0, 576, 1536, &q8_0));
    assert_true(tiles_bytes(TENSOR_Q4_0, 576, 1536, &q4_0));
    assert_int_equal(f32, 4 * 576 * 1536);
    assert_true((double)f32 / (double)q4_0 > 7.0);
    assert_true((double)f32 / (double)q8_0 > 3.7);
}

int main(void)
{
    const char *seed = getenv("QUIRE_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)(uintptr_t)&seed;
    printf("seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_roundtrip_within_tolerance),   cmocka_unit_test(q4_roundtrip_within_tolerance),
        cmocka_unit_test(q4_k_roundtrip_within_tolerance), cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(quantized_matmul_matches_f32),    cmocka_unit_test(dequant_block_size_correct),
        cmocka_unit_test(quant_memory_reduction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
