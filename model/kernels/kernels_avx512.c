/*
 * kernels_avx512: the set for processors with AVX-512 F, BW, VL, DQ and VNNI; the parts that are not products or
 * attention.
 */
#include <math.h>

#include "model/kernels/lanes_avx512.h"
#include "model/kernels/sets.h"
#include "model/tiles.h"

/* 16 codes of one token: 4 groups of 4 bytes. */
static inline void store_codes(int8_t *q, __m512i codes)
{
    int8_t packed[16];
    _mm_storeu_si128((__m128i *)(void *)packed, _mm512_cvtepi32_epi8(codes));
    for (int g = 0; g < 4; g++)
        __builtin_memcpy(q + g * 4 * ACTIVATION_GROUP, packed + 4 * g, 4);
}

static inline __m512i rounded(__m512 x, __m512 inverse)
{
    __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
    return _mm512_max_epi32(_mm512_min_epi32(codes, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
}

/* One block of one token; x is 32 floats. q is where its first 4 codes go, `at` its index in the per-block arrays. */
static inline void quantize_block(struct activations *a, const float *x, int8_t *q, size_t at)
{
    const __m512i magnitude = _mm512_set1_epi32(INT32_MAX);
    __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
    __m512i max = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                   _mm512_and_si512(_mm512_castps_si512(high), magnitude));
    uint32_t amax_bits = _mm512_reduce_max_epu32(max); /* floats without sign are in the order of their bits */
    float amax = 0, inverse = 0, scale = 0;
    __builtin_memcpy(&amax, &amax_bits, sizeof amax);
    __m512i code_low = _mm512_setzero_si512(), code_high = _mm512_setzero_si512();
    if (amax_bits >= 0x7f800000) {
        scale = NAN;
    } else if (amax >= 0x1p-100f) {
        scale = amax / 127.0f;
        inverse = 127.0f / amax;
        code_low = rounded(low, _mm512_set1_ps(inverse));
        code_high = rounded(high, _mm512_set1_ps(inverse));
    }
    store_codes(q, code_low);
    store_codes(q + 16 * ACTIVATION_GROUP, code_high);
    int32_t half = _mm512_reduce_add_epi32(code_low);
    int32_t sum = half + _mm512_reduce_add_epi32(code_high);
    a->scale[at] = scale;
    a->sum[at] = scale * (float)sum;
    a->isum[at] = sum;
    a->half[at] = half;
}

static void quantize(struct activations *a)
{
    static const float nothing[TILE_K];
    uint32_t blocks = a->cols / TILE_K;
    uint32_t padded = (a->tokens + ACTIVATION_GROUP - 1) / ACTIVATION_GROUP * ACTIVATION_GROUP;
    for (uint32_t t = 0; t < padded; t++) {
        uint32_t slot = t % ACTIVATION_GROUP;
        for (uint32_t b = 0; b < blocks; b++) {
            size_t index = (size_t)(t / ACTIVATION_GROUP) * blocks + b;
            const float *x = t < a->tokens ? a->x + t * a->x_stride + b * TILE_K : nothing;
            quantize_block(a, x, a->q + index * TILE_K * ACTIVATION_GROUP + slot * 4, index * ACTIVATION_GROUP + slot);
        }
    }
}

static void rms_norm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_left(i, n), x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    __m512 inverse = _mm512_set1_ps(1.0f / sqrtf(tree_sum_lanes(sum) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), inverse);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
    }
}

static void swiglu(float *out, const float *gate, const float *up, uint32_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i), u = _mm512_maskz_loadu_ps(mask, up + i);
        __m512 negative = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(g), sign));
        __m512 y = _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(one, exp_lanes(negative))), u);
        _mm512_mask_storeu_ps(out + i, mask, y);
    }
}

static void gelu(float *out, const float *x, const float *up, uint32_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f), cube = _mm512_set1_ps(GELU_CUBE), line = _mm512_set1_ps(GELU_LINE);
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        __m512 z = _mm512_mul_ps(v, _mm512_fmadd_ps(_mm512_mul_ps(v, v), cube, line));
        __m512 y = _mm512_div_ps(v, _mm512_add_ps(one, exp_lanes(z)));
        _mm512_mask_storeu_ps(out + i, mask, up ? _mm512_mul_ps(y, _mm512_maskz_loadu_ps(mask, up + i)) : y);
    }
}

static void max_sum_exp(const float *x, uint32_t n, float *max, double *sum)
{
    __m512 m = _mm512_set1_ps(-INFINITY);
    for (uint32_t i = 0; i < n; i += 16)
        m = _mm512_mask_max_ps(m, lanes_left(i, n), _mm512_maskz_loadu_ps(lanes_left(i, n), x + i), m);
    *max = _mm512_reduce_max_ps(m) + 0.0f;
    m = _mm512_set1_ps(*max);
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        __m512 e = _mm512_maskz_mov_ps(mask, exp_lanes(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), m)));
        low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
        high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
    }
    *sum = tree_sum_doubles(low, high);
}

static void to_f16(uint16_t *out, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        __m256i halves =
            _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16(out + i, mask, halves);
    }
}

static void from_f16(float *out, const uint16_t *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_left(i, n);
        _mm512_mask_storeu_ps(out + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x + i)));
    }
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .quantize = quantize,
    .product = product_avx512,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .gelu = gelu,
    .attend = attend_avx512,
    .max_sum_exp = max_sum_exp,
    .to_f16 = to_f16,
    .from_f16 = from_f16,
};
