/* Attention: every kernel set against the reference, bit for bit, and the reference against softmax. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/float16.h"
#include "tests/support/kernel_rig.h"

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

int main(void)
{
    kernel_rig_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_reference_s),
        cmocka_unit_test(attention_is_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
