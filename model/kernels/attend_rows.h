/*
 * attend_rows: how a vector set goes over rows and pages. For attend_avx2.c and attend_avx512.c only, which define before they include it
 *   score_page, weigh_rows   what touches numbers, for a number of rows that each copy knows when it is compiled
 *   ROW_COUNTS(x)            x of each such number, the largest first, 1 the last
 * and say ATTEND_STEPS(set) behind it, which makes attend_steps_<set> and attend_<set>.
 */
#ifndef QUIRE_MODEL_KERNELS_ATTEND_ROWS_H
#define QUIRE_MODEL_KERNELS_ATTEND_ROWS_H

#include "base/must.h"
#include "model/kernels/attend_blocks.h"

SPECIALISED void score_rows(const struct attention *a, enum kv_type type, const float *const *q, uint32_t rows,
                            uint32_t first, uint32_t last, float *score)
{
    for (uint32_t page = first / ATTENTION_PAGE; page * ATTENTION_PAGE < last; page++)
        score_page(a, type, q, rows, a->pages[page], keys_ahead(a, page),
                   score + page * ATTENTION_PAGE % ATTENTION_GRID);
}

#define SCORE(n)                                                \
    if (rows >= (n))                                            \
        score_rows(a, type, q, done = (n), first, last, score); \
    else
#define WEIGH(n)                                                \
    if (rows >= (n))                                            \
        weigh_rows(a, type, score, done = (n), first, last, o); \
    else

SPECIALISED void scores(const struct attention *a, enum kv_type type, const float *const *q, uint32_t rows,
                        uint32_t first, uint32_t last, float *score)
{
    for (uint32_t done = 0; rows > 0; rows -= done, q += done, score += done * ATTENTION_GRID)
        ROW_COUNTS(SCORE) must_not_reach();
}

SPECIALISED void weigh(const struct attention *a, enum kv_type type, const float *score, uint32_t rows, uint32_t first,
                       uint32_t last, float *o)
{
    for (uint32_t done = 0; rows > 0; rows -= done, score += done * ATTENTION_GRID, o += done * a->head_dim)
        ROW_COUNTS(WEIGH) must_not_reach();
}

/* One pair of steps for each type, so that no loop asks for it. */
#define STEPS_OF(type)                                                                                         \
    static void scores_##type(const struct attention *a, const float *const *q, uint32_t rows, uint32_t first, \
                              uint32_t last, float *score)                                                     \
    {                                                                                                          \
        scores(a, type, q, rows, first, last, score);                                                          \
    }                                                                                                          \
    static void weigh_##type(const struct attention *a, const float *score, uint32_t rows, uint32_t first,     \
                             uint32_t last, float *o)                                                          \
    {                                                                                                          \
        weigh(a, type, score, rows, first, last, o);                                                           \
    }

#define ATTEND_STEPS(set)                                                   \
    STEPS_OF(KV_F16)                                                        \
    STEPS_OF(KV_BF16)                                                       \
    STEPS_OF(KV_F32)                                                        \
    STEPS_OF(KV_Q8)                                                         \
    const struct attend_steps attend_steps_##set[KV_TYPES] = {              \
        [KV_F16] = {scores_KV_F16, soften, weigh_KV_F16, merge, divide},    \
        [KV_BF16] = {scores_KV_BF16, soften, weigh_KV_BF16, merge, divide}, \
        [KV_F32] = {scores_KV_F32, soften, weigh_KV_F32, merge, divide},    \
        [KV_Q8] = {scores_KV_Q8, soften, weigh_KV_Q8, merge, divide},       \
    };                                                                      \
    void attend_##set(const struct attention *a)                            \
    {                                                                       \
        attend_in_blocks(a, &attend_steps_##set[a->kv_type]);               \
    }

#endif
