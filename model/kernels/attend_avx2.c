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

/* `count` elements as floats, zeros after them; of Q8, which are always eight, still without their scale. */
SPECIALISED __m256 widen(enum kv_type type, const uint8_t *at, uint32_t count)
{
    uint16_t some[8] = {0};
    switch (type) {
    case KV_BF16:
        memcpy(some, at, count * sizeof *some);
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)some)), 16));
    case KV_Q8:
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at)));
    case KV_F32:
        return load_lanes((const float *)(const void *)at, count);
    case KV_F16:
    case KV_TYPES:
        break;
    }
    return load_halves(at, count);
}

/* The scales of four positions, each for its pair of lanes. */
SPECIALISED __m256 scales_of_pairs(const uint8_t *scales)
{
    __m128 four = _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)scales));
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

/*
 * One page for `rows` rows; score is (rows, ATTENTION_GRID) from this page's first position on. Meanwhile the keys
 * `ahead` are fetched.
 */
SPECIALISED void score_page(const struct attention *a, enum kv_type type, const float *const *q, uint32_t rows,
                            const uint8_t *page, const uint8_t *ahead, float *score)
{
    const uint8_t *scales = page + a->k_offset + kv_scales_offset(a->head_dim);
    const size_t line_bytes = 8 * kv_element_bytes(type);
    __m256 scale[QUARTERS] = {_mm256_setzero_ps()};
    const uint8_t *k = page + a->k_offset;
    __m256 sum[ROWS_AT_ONCE][QUARTERS]; /* 4 positions each, (even, odd) each */
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < QUARTERS; i++)
            sum[r][i] = _mm256_setzero_ps();
    }
    for (uint32_t d = 0; d < a->head_dim; d += 2, k += QUARTERS * line_bytes) {
        _mm_prefetch((const char *)ahead + d * 2 * line_bytes, _MM_HINT_T1);
        if (type == KV_Q8 && d % KV_SCALED == 0) {
            UNROLL
            for (uint32_t i = 0; i < QUARTERS; i++)
                scale[i] = scales_of_pairs(scales + (d / KV_SCALED * KV_SLOTS + 4 * i) * sizeof(uint16_t));
        }
        UNROLL
        for (uint32_t i = 0; i < QUARTERS; i++) {
            __m256 line = widen(type, k + line_bytes * i, 8);
            if (type == KV_Q8)
                line = _mm256_mul_ps(line, scale[i]);
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
SPECIALISED void weigh_lines(const struct attention *a, enum kv_type type, const float *score, uint32_t rows,
                             uint32_t first, uint32_t last, uint32_t d, uint32_t lines, uint32_t count, float *o)
{
    const size_t element = kv_element_bytes(type);
    __m256 sum[ROWS_AT_ONCE][QUARTERS];
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t i = 0; i < lines; i++)
            sum[r][i] = load_lanes(o + r * a->head_dim + d + 8 * i, count);
    }
    for (uint32_t p = first; p < last; p++) {
        size_t slot = (size_t)(p % ATTENTION_PAGE) * a->head_dim + d, at = a->v_offset + slot * element;
        const uint8_t *side = a->pages[p / ATTENTION_PAGE] + a->v_offset, *v = side + slot * element;
        const uint8_t *scales = side + kv_scales_offset(a->head_dim);
        const float *weight = score + p % ATTENTION_GRID;
        _mm_prefetch((const char *)keys_ahead(a, p / ATTENTION_PAGE) + at - a->k_offset, _MM_HINT_T1);
        UNROLL
        for (uint32_t i = 0; i < lines; i++) {
            __m256 line = widen(type, v + 8 * element * i, count);
            if (type == KV_Q8) {
                uint16_t scale;
                memcpy(&scale, scales + (slot + 8 * i) / KV_SCALED * sizeof scale, sizeof scale);
                line = _mm256_mul_ps(line, _mm256_set1_ps(_cvtsh_ss(scale)));
            }
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

SPECIALISED void weigh_rows(const struct attention *a, enum kv_type type, const float *score, uint32_t rows,
                            uint32_t first, uint32_t last, float *o)
{
    uint32_t d = 0;
    for (; d + 32 <= a->head_dim; d += 32)
        weigh_lines(a, type, score, rows, first, last, d, 4, 8, o);
    for (; d < a->head_dim; d += 8)
        weigh_lines(a, type, score, rows, first, last, d, 1, lanes_left(d, a->head_dim), o);
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

#define ROW_COUNTS(x) x(3) x(2) x(1)
#include "model/kernels/attend_rows.h"

ATTEND_STEPS(avx2)
