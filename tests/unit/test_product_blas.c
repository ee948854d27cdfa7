/*
 * Products by OpenBLAS against the kernel sets' own. The bound: two sums of n products in any order differ by at most
 * 2 n 2^-24 of the sum of their magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
 * QUIRE_SEED sets the seed.
 */
#include "model/kernels/product_blas.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/float16.h"
#include "tests/support/malloc_count.h"
#include "tests/support/model_rig.h"

static uint64_t random_state;

static uint32_t random_bits(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static uint32_t random_between(uint32_t least, uint32_t most)
{
    return least + (uint32_t)((uint64_t)random_bits() * (most - least + 1) >> 32);
}

static float random_float(void)
{
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(KERNEL_ALIGN, (bytes + KERNEL_ALIGN) / KERNEL_ALIGN * KERNEL_ALIGN);
    assert_non_null(memory);
    return memory;
}

static void needs_blas(void)
{
    struct why why;
    if (product_blas_load(&why) == OK)
        return;
    print_message("%s\n", why.text);
    skip();
}

static const enum tensor_type float_types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16};

/* A matrix, inputs and room for two results, each with a border that nobody may touch. */
struct problem {
    struct tile_matrix w;
    struct activations a;
    size_t y_stride, y_count;
    float *x, *own, *blas;
    void *own_scratch, *blas_scratch, *activation_memory;
};

static void put_weight(enum tensor_type type, uint8_t *at, float value)
{
    uint32_t bits = f32_bits(value);
    uint16_t half = type == TENSOR_F16 ? f16_from_f32(value) : (uint16_t)(bits >> 16);
    if (type == TENSOR_F32)
        memcpy(at, &bits, sizeof bits);
    else
        memcpy(at, &half, sizeof half);
}

static struct problem problem_make(enum tensor_type type, uint32_t rows, uint32_t cols, uint32_t tokens)
{
    struct problem p = {.w = {.type = type, .rows = rows, .cols = cols}};
    uint32_t element = tensor_type_traits(type)->block_bytes;
    uint8_t *plain = allocate((size_t)rows * cols * element);
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        put_weight(type, plain + i * element, random_float());
    uint64_t bytes;
    assert_true(tiles_bytes(type, rows, cols, &bytes));
    uint8_t *tiles = allocate(bytes);
    tiles_build(type, tiles, plain, rows, cols, 0, (rows + TILE_ROWS - 1) / TILE_ROWS, NULL);
    free(plain);
    p.w.tiles = tiles;

    size_t x_stride = cols + random_between(0, 5);
    p.x = allocate(tokens * x_stride * sizeof *p.x);
    for (size_t i = 0; i < tokens * x_stride; i++)
        p.x[i] = random_float();
    p.activation_memory = allocate(activations_bytes(tokens, cols));
    activations_place(&p.a, p.activation_memory, tokens, cols, p.x, x_stride);
    p.y_stride = rows + random_between(0, 5);
    p.y_count = tokens * p.y_stride;
    p.own = allocate(p.y_count * sizeof *p.own);
    p.blas = allocate(p.y_count * sizeof *p.blas);
    for (size_t i = 0; i < p.y_count; i++)
        p.own[i] = p.blas[i] = random_float();
    p.own_scratch = allocate(product_scratch_bytes(cols));
    p.blas_scratch = allocate(product_blas_scratch_bytes());
    return p;
}

static void problem_free(struct problem *p)
{
    free((void *)(uintptr_t)p->w.tiles);
    free(p->x);
    free(p->activation_memory);
    free(p->own);
    free(p->blas);
    free(p->own_scratch);
    free(p->blas_scratch);
}

/* Everything within the bound, and what lies outside the rows of the range the same bits as before. */
static void assert_close(const struct problem *p, uint32_t first_row, uint32_t end_row)
{
    float bound = (float)(p->a.cols + 2) * (float)(p->a.cols + 2) * 0x1p-23f; /* all magnitudes are below 1 */
    for (size_t i = 0; i < p->y_count; i++) {
        size_t row = i % p->y_stride;
        bool written = row >= first_row && row < end_row;
        float apart = fabsf(p->own[i] - p->blas[i]);
        if (written ? !(apart <= bound) : f32_bits(p->own[i]) != f32_bits(p->blas[i]))
            fail_msg("row %zu of token %zu: %a by the kernel, %a by OpenBLAS", row, i / p->y_stride, (double)p->own[i],
                     (double)p->blas[i]);
    }
}

static void check(enum tensor_type type, uint32_t rows, uint32_t cols, uint32_t tokens, enum product_mode mode)
{
    const struct kernels *k = kernels_choose(NULL);
    struct problem p = problem_make(type, rows, cols, tokens);
    uint32_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, first = random_between(0, tiles - 1),
             last = random_between(first + 1, tiles);
    k->product(&p.w, first, last, &p.a, p.own, p.y_stride, mode, p.own_scratch);
    product_blas(k, &p.w, first, last, &p.a, p.blas, p.y_stride, mode, p.blas_scratch);
    assert_close(&p, first * TILE_ROWS, last * TILE_ROWS < rows ? last * TILE_ROWS : rows);
    problem_free(&p);
}

static void products_agree_with_the_kernels_own(void **state)
{
    (void)state;
    needs_blas();
    for (size_t t = 0; t < sizeof float_types / sizeof *float_types; t++)
        for (int i = 0; i < 20; i++)
            check(float_types[t], random_between(1, 600), random_between(1, 1300),
                  random_between(PRODUCT_BLAS_TOKENS, 80), i % 2 ? PRODUCT_ADD : PRODUCT_STORE);
}

static void what_stood_in_the_result_does_not_pass_through_a_store(void **state)
{
    (void)state;
    needs_blas();
    struct problem p = problem_make(TENSOR_F32, 48, 700, PRODUCT_BLAS_TOKENS);
    for (size_t i = 0; i < p.y_count; i++)
        p.blas[i] = NAN;
    product_blas(kernels_choose(NULL), &p.w, 0, 3, &p.a, p.blas, p.y_stride, PRODUCT_STORE, p.blas_scratch);
    for (uint32_t t = 0; t < p.a.tokens; t++)
        for (uint32_t r = 0; r < p.w.rows; r++)
            assert_true(isfinite(p.blas[t * p.y_stride + r]));
    problem_free(&p);
}

static void a_product_of_full_panels_takes_no_memory(void **state)
{
    (void)state;
    needs_blas();
    struct problem p = problem_make(TENSOR_BF16, 256, 1024, 64);
    malloc_count_begin();
    product_blas(kernels_choose(NULL), &p.w, 0, 16, &p.a, p.blas, p.y_stride, PRODUCT_STORE, p.blas_scratch);
    assert_int_equal(malloc_count_end(), 0);
    problem_free(&p);
}

static void only_float_types_and_many_tokens_are_taken(void **state)
{
    (void)state;
    for (int type = 0; type < 64; type++) {
        struct tile_matrix w = {.type = (enum tensor_type)type, .rows = 16, .cols = 256};
        bool is_float = type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
        assert_int_equal(product_blas_takes(&w, PRODUCT_BLAS_TOKENS), is_float);
        assert_false(product_blas_takes(&w, PRODUCT_BLAS_TOKENS - 1));
    }
}

static void no_thread_is_started(void **state)
{
    (void)state;
    needs_blas();
    char line[256];
    long threads = 0;
    FILE *status = fopen("/proc/self/status", "r");
    assert_non_null(status);
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "Threads:", 8) == 0)
            threads = strtol(line + 8, NULL, 10);
    fclose(status);
#if MALLOC_COUNT_WORKS /* a sanitizer has threads of its own */
    assert_int_equal(threads, 1);
#else
    assert_true(threads >= 1);
#endif
}

/* ---- the forward pass ---- */

static const struct kernels *own;
static atomic_uint large_products; /* that reached the kernel set's own product, of any rank */

static void count_large(const struct tile_matrix *w, uint32_t first, uint32_t last, const struct activations *a,
                        float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    atomic_fetch_add(&large_products, a->tokens >= PRODUCT_BLAS_TOKENS);
    own->product(w, first, last, a, y, y_stride, mode, scratch);
}

/* The logits of a prompt of 100 tokens in one step, with and without OpenBLAS. */
static void forward_with_blas_agrees_with_forward_without(void **state)
{
    (void)state;
    needs_blas();
    enum { TOKENS = 100 };
    struct rig rig;
    if (!rig_open(&rig, "tiny/llama/model-f16.gguf", 256)) {
        print_message("tiny/llama/model-f16.gguf is not among the fixtures\n");
        skip();
    }
    own = kernels_choose(NULL);
    struct kernels counting = *own;
    counting.product = count_large;
    uint32_t ids[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = random_between(4, rig.m.vocab - 1);
    size_t count = (size_t)TOKENS * rig.m.vocab;
    float *logits[2];
    for (int blas = 0; blas < 2; blas++) {
        logits[blas] = allocate(count * sizeof **logits);
        struct engine e = engine_open(&rig, &counting, 2);
        struct why why;
        for (uint32_t rank = 0; blas && rank < e.ranks; rank++)
            if (forward_use_blas(e.f[rank], &why) != OK)
                fail_msg("%s", why.text);
        struct sequence s = sequence_make(&rig, ids, TOKENS);
        large_products = 0;
        engine_feed(&e, &s, TOKENS, logits[blas]);
        assert_int_equal(large_products == 0, blas);
        sequence_free(&s);
        engine_close(&e);
    }
    for (size_t i = 0; i < count; i++)
        assert_true(fabsf(logits[0][i] - logits[1][i]) <=
                    0.01f); /* K and V are rounded to f16 behind it, as in test_forward */
    free(logits[0]);
    free(logits[1]);
    rig_close(&rig);
}

int main(void)
{
    const char *seed = getenv("QUIRE_SEED");
    random_state = seed ? strtoull(seed, NULL, 10) : 20261121;
    printf("QUIRE_SEED=%llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_the_kernels_own),
        cmocka_unit_test(what_stood_in_the_result_does_not_pass_through_a_store),
        cmocka_unit_test(a_product_of_full_panels_takes_no_memory),
        cmocka_unit_test(only_float_types_and_many_tokens_are_taken),
        cmocka_unit_test(no_thread_is_started),
        cmocka_unit_test(forward_with_blas_agrees_with_forward_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
