/*
 * lanes_avx2: 8 floats at a time: the exponential and the sums of the reference. The 16 lanes of a sum are two
 * registers. Included by *_avx2.c only.
 */
#ifndef QUIRE_MODEL_KERNELS_LANES_AVX2_H
#define QUIRE_MODEL_KERNELS_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "model/kernels/exp_constants.h"

/* kernel_expf of each lane. The constant is the first operand of min and max, so that a NaN in x passes. */
static inline __m256 exp_lanes(__m256 x)
{
    const __m256 shift = _mm256_set1_ps(EXP_SHIFT), one = _mm256_set1_ps(1.0f);
    const __m256i bias = _mm256_set1_epi32(127);
    x = _mm256_max_ps(_mm256_set1_ps(EXP_LO), x);
    x = _mm256_min_ps(_mm256_set1_ps(EXP_HI), x);
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(EXP_LOG2E), shift);
    __m256 n = _mm256_sub_ps(shifted, shift);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-EXP_LN2_LO), _mm256_fmadd_ps(n, _mm256_set1_ps(-EXP_LN2_HI), x));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(EXP_C6), r, _mm256_set1_ps(EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i exponent = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(shift));
    __m256i first = _mm256_srai_epi32(exponent, 1), second = _mm256_sub_epi32(exponent, first);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23)));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23)));
}

/* lane j += lane j + 8, then + 4, + 2, + 1 */
static inline float tree_sum_lanes(__m256 low, __m256 high)
{
    __m256 eight = _mm256_add_ps(low, high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* How many of elements i .. i + 7 are below n. */
static inline uint32_t lanes_left(uint32_t i, uint32_t n)
{
    return i >= n ? 0 : n - i < 8 ? n - i : 8;
}

/* All ones in the first `count` lanes. */
static inline __m256i lane_mask(uint32_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 load_lanes(const float *x, uint32_t count)
{
    return count == 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lane_mask(count));
}

static inline void store_lanes(float *x, uint32_t count, __m256 value)
{
    if (count == 8)
        _mm256_storeu_ps(x, value);
    else
        _mm256_maskstore_ps(x, lane_mask(count), value);
}

/* `count` halves as floats, zeros after them. */
static inline __m256 load_halves(const void *x, uint32_t count)
{
    if (count == 8)
        return _mm256_cvtph_ps(_mm_loadu_si128(x));
    uint16_t some[8] = {0};
    memcpy(some, x, count * sizeof *some);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)some));
}

#endif
