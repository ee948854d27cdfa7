/*
 * attend_avx2: as attend_avx512, with up to 3 rows at a time, whose sums fit the 16 registers.
 */
#include <math.h>

#include "model/kernels/attend_blocks.h"
#include "model/kernels/lanes_avx2.h"
#include "model/kernels/scratch.h"
#include "model/kernels/sets.h"

#define SPECIALISED static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { ROWS_AT_ONCE = 3, QUARTERS = 4 };

/*
 * One page for `rows` rows; score is (rows, ATTENTION_GRID) from this page's first position on. Meanwhile the keys
 * `ahead` are fetched.
 */
SPECIALISED void score_page(const struct attention *a, const float *const *q, uint32_t rows, const uint8_t *page,
                            const uint8_t *ahead, float *score)
{
    const uint8_t *k = page + a->k_offset;
    __m256 sum[ROWS_AT_ONCE][QUARTERS]; /* 4 positions each, (even, odd) each */
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < QUARTERS; i++)
            sum[r][i] = _mm256_setzero_ps();
    }
    for (uint32_t d = 0; d < a->head_dim; d += 2, k += 64) {
        _mm_prefetch((const char *)ahead + d * 32, _MM_HINT_T1);
        UNROLL
        for (int i = 0; i < QUARTERS; i++) {
            __m256 line = load_halves(k + 16 * i, 8);
            UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                double pair;
                memcpy(&pair, q[r] + d, sizeof pair);
                sum[r][i] = _mm256_fmadd_ps(_mm256_castpd_ps(_mm256_set1_pd(pair)), line, sum[r][i]);
            }
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < QUARTERS; i += 2) {
            /*
             * hadd adds neighbours, the even one first; its halves come out in the order 0 2 1 3 of pairs of positions
             */
            __m256 added = _mm256_hadd_ps(sum[r][i], sum[r][i + 1]);
            added = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(added), 0xd8));
            _mm256_storeu_ps(score + r * ATTENTION_GRID + 4 * i, _mm256_mul_ps(_mm256_set1_ps(a->scale), added));
        }
    }
}

SPECIALISED void score_rows(const struct attention *a, const float *const *q, uint32_t rows, uint32_t first,
                            uint32_t last, float *score)
{
    for (uint32_t page = first / ATTENTION_PAGE; page * ATTENTION_PAGE < last; page++)
        score_page(a, q, rows, a->pages[page], keys_ahead(a, page), score + page * ATTENTION_PAGE % ATTENTION_GRID);
}

static void scores(const struct attention *a, const float *const *q, uint32_t rows, uint32_t first, uint32_t last,
                   float *score)
{
    for (uint32_t done; rows > 0; rows -= done, q += done, score += done * ATTENTION_GRID) {
        if (rows >= 3)
            score_rows(a, q, done = 3, first, last, score);
        else if (rows == 2)
            score_rows(a, q, done = 2, first, last, score);
        else
            score_rows(a, q, done = 1, first, last, score);
    }
}

/* The lanes of [first, last) among i .. i + 7. */
SPECIALISED __m256i visible(uint32_t i, uint32_t first, uint32_t last)
{
    return _mm256_andnot_si256(lane_mask(lanes_left(i, first)), lane_mask(lanes_left(i, last)));
}

static void soften(float *score, uint32_t first, uint32_t last, float *m, float *l)
{
    float max = -INFINITY;
    for (uint32_t i = first; i < last; i++)
        max = score[i] > max ? score[i] : max;
    *m = max;
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = first / 8 * 8; i < last; i += 8) {
        __m256i mask = visible(i, first, last);
        __m256 p = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(score + i), _mm256_set1_ps(max)));
        _mm256_maskstore_ps(score + i, mask, p);
        sum[i / 8 % 2] = _mm256_add_ps(sum[i / 8 % 2], _mm256_and_ps(p, _mm256_castsi256_ps(mask)));
    }
    *l = tree_sum_lanes(sum[0], sum[1]);
}

/*
 * `lines` times 8 dimensions of `rows` rows; the last line has `count` lanes. Meanwhile the values of pages ahead are
 * fetched.
 */
SPECIALISED void weigh_lines(const struct attention *a, const float *score, uint32_t rows, uint32_t first,
                             uint32_t last, uint32_t d, uint32_t lines, uint32_t count, float *o)
{
    __m256 sum[ROWS_AT_ONCE][QUARTERS];
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t i = 0; i < lines; i++)
            sum[r][i] = load_lanes(o + r * a->head_dim + d + 8 * i, count);
    }
    for (uint32_t p = first; p < last; p++) {
        size_t at = a->v_offset + ((size_t)(p % ATTENTION_PAGE) * a->head_dim + d) * 2;
        const uint8_t *v = a->pages[p / ATTENTION_PAGE] + at;
        const float *weight = score + p % ATTENTION_GRID;
        _mm_prefetch((const char *)keys_ahead(a, p / ATTENTION_PAGE) + at - a->k_offset, _MM_HINT_T1);
        UNROLL
        for (uint32_t i = 0; i < lines; i++) {
            __m256 line = load_halves(v + 16 * i, count);
            UNROLL
            for (uint32_t r = 0; r < rows; r++)
                sum[r][i] = _mm256_fmadd_ps(_mm256_set1_ps(weight[r * ATTENTION_GRID]), line, sum[r][i]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t i = 0; i < lines; i++)
            store_lanes(o + r * a->head_dim + d + 8 * i, count, sum[r][i]);
    }
}

SPECIALISED void weigh_rows(const struct attention *a, const float *score, uint32_t rows, uint32_t first, uint32_t last,
                            float *o)
{
    uint32_t d = 0;
    for (; d + 32 <= a->head_dim; d += 32)
        weigh_lines(a, score, rows, first, last, d, 4, 8, o);
    for (; d < a->head_dim; d += 8)
        weigh_lines(a, score, rows, first, last, d, 1, lanes_left(d, a->head_dim), o);
}

static void weigh(const struct attention *a, const float *score, uint32_t rows, uint32_t first, uint32_t last, float *o)
{
    for (uint32_t done; rows > 0; rows -= done, score += done * ATTENTION_GRID, o += done * a->head_dim) {
        if (rows >= 3)
            weigh_rows(a, score, done = 3, first, last, o);
        else if (rows == 2)
            weigh_rows(a, score, done = 2, first, last, o);
        else
            weigh_rows(a, score, done = 1, first, last, o);
    }
}

static void merge(float *o, const float *o1, uint32_t n, float f0, float f1)
{
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t count = lanes_left(i, n);
        __m256 old = _mm256_mul_ps(load_lanes(o + i, count), _mm256_set1_ps(f0));
        store_lanes(o + i, count, _mm256_fmadd_ps(load_lanes(o1 + i, count), _mm256_set1_ps(f1), old));
    }
}

static void divide(float *out, const float *o, uint32_t n, float l)
{
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t count = lanes_left(i, n);
        store_lanes(out + i, count, _mm256_div_ps(load_lanes(o + i, count), _mm256_set1_ps(l)));
    }
}

void attend_avx2(const struct attention *a)
{
    static const struct attend_steps steps = {scores, soften, weigh, merge, divide};
    attend_in_blocks(a, &steps);
}
