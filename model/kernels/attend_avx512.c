/*
 * attend_avx512: a K line (2 dimensions of 16 positions) and a V line are widened once for up to 12 rows, whose sums
 * stay in registers. A score's even and odd dimensions stand in neighbouring lanes until the end, which is the
 * reference's order.
 */
#include <math.h>

#include "model/kernels/attend_blocks.h"
#include "model/kernels/lanes_avx512.h"
#include "model/kernels/scratch.h"
#include "model/kernels/sets.h"

#define SPECIALISED static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 12")

/* q[d], q[d + 1] in all pairs of lanes */
SPECIALISED __m512 pair_of(const float *q)
{
    double pair;
    __builtin_memcpy(&pair, q, sizeof pair);
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
}

/* Sixteen elements as floats, those of the mask; of Q8 still without their scale. */
SPECIALISED __m512 widen(enum kv_type type, const uint8_t *at, __mmask16 mask)
{
    switch (type) {
    case KV_BF16:
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at)), 16));
    case KV_Q8:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, at)));
    case KV_F32:
        return _mm512_maskz_loadu_ps(mask, at);
    case KV_F16:
    case KV_TYPES:
        break;
    }
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at));
}

/*
 * One page for `rows` rows; score is (rows, ATTENTION_GRID) from this page's first position on. Meanwhile the keys
 * `ahead` are fetched.
 */
SPECIALISED void score_page(const struct attention *a, enum kv_type type, const float *const *q, uint32_t rows,
                            const uint8_t *page, const uint8_t *ahead, float *score)
{
    const __m512i first_pairs = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512i last_pairs = _mm512_add_epi32(first_pairs, _mm512_set1_epi32(8));
    const uint8_t *scales = page + a->k_offset + kv_scales_offset(a->head_dim);
    const size_t line = 16 * kv_element_bytes(type);
    __m512 low_scale = _mm512_setzero_ps(), high_scale = _mm512_setzero_ps();
    const __m512i even_of = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd_of = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    const uint8_t *k = page + a->k_offset;
    __m512 sum[ATTENTION_ROWS][2]; /* positions 0..7 and 8..15, (even, odd) each */
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (uint32_t d = 0; d < a->head_dim; d += 2, k += 2 * line) {
        _mm_prefetch((const char *)ahead + d * line, _MM_HINT_T1);
        __m512 low = widen(type, k, 0xffff), high = widen(type, k + line, 0xffff);
        if (type == KV_Q8) {
            if (d % KV_SCALED == 0) {
                __m512 scale = widen(KV_F16, scales + d / KV_SCALED * KV_SLOTS * sizeof(uint16_t), 0xffff);
                low_scale = _mm512_permutexvar_ps(first_pairs, scale);
                high_scale = _mm512_permutexvar_ps(last_pairs, scale);
            }
            low = _mm512_mul_ps(low, low_scale);
            high = _mm512_mul_ps(high, high_scale);
        }
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            __m512 pair = pair_of(q[r] + d);
            sum[r][0] = _mm512_fmadd_ps(pair, low, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(pair, high, sum[r][1]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        __m512 even = _mm512_permutex2var_ps(sum[r][0], even_of, sum[r][1]);
        __m512 odd = _mm512_permutex2var_ps(sum[r][0], odd_of, sum[r][1]);
        _mm512_storeu_ps(score + r * ATTENTION_GRID, _mm512_mul_ps(_mm512_set1_ps(a->scale), _mm512_add_ps(even, odd)));
    }
}

/* The lanes of [first, last) among i .. i + 15. */
SPECIALISED __mmask16 visible(uint32_t i, uint32_t first, uint32_t last)
{
    uint32_t below = first > i ? (1u << (first - i)) - 1 : 0;
    return (__mmask16)(lanes_left(i, last) & ~below);
}

static void soften(float *score, uint32_t first, uint32_t last, float *m, float *l)
{
    __m512 max = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    uint32_t from = first / 16 * 16;
    for (uint32_t i = from; i < last; i += 16)
        max = _mm512_mask_max_ps(max, visible(i, first, last), _mm512_loadu_ps(score + i), max);
    *m = _mm512_reduce_max_ps(max);
    max = _mm512_set1_ps(*m);
    for (uint32_t i = from; i < last; i += 16) {
        __mmask16 mask = visible(i, first, last);
        __m512 p = exp_lanes(_mm512_sub_ps(_mm512_loadu_ps(score + i), max));
        _mm512_mask_storeu_ps(score + i, mask, p);
        sum = _mm512_mask_add_ps(sum, mask, sum, p);
    }
    *l = tree_sum_lanes(sum);
}

/*
 * 16 * `lines` dimensions of `rows` rows; mask has the lanes of the last line. Meanwhile the values of pages ahead
 * are fetched.
 */
SPECIALISED void weigh_lines(const struct attention *a, enum kv_type type, const float *score, uint32_t rows,
                             uint32_t first, uint32_t last, uint32_t d, uint32_t lines, __mmask16 mask, float *o)
{
    const size_t element = kv_element_bytes(type);
    __m512 sum[ATTENTION_ROWS][2];
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t i = 0; i < lines; i++)
            sum[r][i] = _mm512_maskz_loadu_ps(i + 1 < lines ? 0xffff : mask, o + r * a->head_dim + d + 16 * i);
    }
    for (uint32_t p = first, end; p < last; p = end) {
        uint32_t page = p / ATTENTION_PAGE;
        end = (page + 1) * ATTENTION_PAGE < last ? (page + 1) * ATTENTION_PAGE : last;
        size_t slot = (size_t)(p % ATTENTION_PAGE) * a->head_dim + d, row = a->head_dim * element;
        const uint8_t *side = a->pages[page] + a->v_offset, *v = side + slot * element;
        const uint8_t *scales = side + kv_scales_offset(a->head_dim) + slot / KV_SCALED * sizeof(uint16_t);
        const uint8_t *ahead = keys_ahead(a, page) + (a->v_offset - a->k_offset) + slot * element;
        const float *weight = score + p % ATTENTION_GRID;
        for (uint32_t left = end - p; left > 0; left--, weight++, v += row, ahead += row) {
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
            __m512 line[2];
            UNROLL
            for (uint32_t i = 0; i < lines; i++)
                line[i] = widen(type, v + 16 * element * i, i + 1 < lines ? 0xffff : mask);
            if (type == KV_Q8) {
                UNROLL
                for (uint32_t i = 0; i < lines; i++) {
                    uint16_t scale;
                    __builtin_memcpy(&scale, scales + i * sizeof scale, sizeof scale);
                    line[i] = _mm512_mul_ps(line[i], _mm512_set1_ps(_cvtsh_ss(scale)));
                }
                scales += a->head_dim / KV_SCALED * sizeof(uint16_t);
            }
            UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                __m512 w = _mm512_set1_ps(weight[r * ATTENTION_GRID]);
                UNROLL
                for (uint32_t i = 0; i < lines; i++)
                    sum[r][i] = _mm512_fmadd_ps(w, line[i], sum[r][i]);
            }
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t i = 0; i < lines; i++)
            _mm512_mask_storeu_ps(o + r * a->head_dim + d + 16 * i, i + 1 < lines ? 0xffff : mask, sum[r][i]);
    }
}

SPECIALISED void weigh_rows(const struct attention *a, enum kv_type type, const float *score, uint32_t rows,
                            uint32_t first, uint32_t last, float *o)
{
    uint32_t d = 0;
    for (; d + 32 <= a->head_dim; d += 32)
        weigh_lines(a, type, score, rows, first, last, d, 2, 0xffff, o);
    for (; d < a->head_dim; d += 16)
        weigh_lines(a, type, score, rows, first, last, d, 1, lanes_left(d, a->head_dim), o);
}

static void merge(float *o, const float *o1, uint32_t n, float f0, float f1)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, o + i), _mm512_set1_ps(f0));
        _mm512_mask_storeu_ps(o + i, mask,
                              _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, o1 + i), _mm512_set1_ps(f1), old));
    }
}

static void divide(float *out, const float *o, uint32_t n, float l)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        _mm512_mask_storeu_ps(out + i, mask, _mm512_div_ps(_mm512_maskz_loadu_ps(mask, o + i), _mm512_set1_ps(l)));
    }
}

#define ROW_COUNTS(x) x(12) x(8) x(4) x(3) x(2) x(1)
#include "model/kernels/attend_rows.h"

ATTEND_STEPS(avx512)
