/*
 * kernels_avx512: the set for processors with AVX-512 F, BW, VL, DQ and VNNI, and the one for those that have AMX int8
 * besides; the parts that are not products or attention.
 */
#include <float.h>
#include <math.h>

#include "model/kernels/lanes_avx512.h"
#include "model/kernels/sets.h"
#include "model/tiles.h"

/* a0 a1 b0 b1: the larger ones of neighbouring quarters of a and of b */
static inline __m512i larger_quarters(__m512i a, __m512i b)
{
    return _mm512_max_epu32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* The largest of the 16 lanes of each of 8 registers, lane t of register t. */
static inline __m256i largest_of_each(const __m512i *x)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i low = larger_quarters(larger_quarters(x[0], x[1]), larger_quarters(x[2], x[3])); /* 0 1 2 3, 4 lanes each */
    __m512i high = larger_quarters(larger_quarters(x[4], x[5]), larger_quarters(x[6], x[7]));           /* 4 5 6 7 */
    __m512i two = _mm512_max_epu32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high)); /* 0 0 4 4 … */
    two = _mm512_max_epu32(two, _mm512_shuffle_epi32(two, 0xb1));
    return _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, two));
}

/*
 * The codes of tokens 2 i and 2 i + 1, by inverse[t]; x[t] is 32 floats. Quarter j: [token][k 4 j .., k 16 + 4 j ..][4].
 */
static inline __m512i codes_of_pair(const float *const *x, const float *inverse, int i)
{
    __m512i part[2];
    for (int j = 0; j < 2; j++) {
        const float *at = x[2 * i + j];
        __m512 by = _mm512_set1_ps(inverse[2 * i + j]);
        __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(at), by));
        __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(at + 16), by));
        part[j] = _mm512_packs_epi32(low, high);
    }
    return _mm512_packs_epi16(part[0], part[1]);
}

/* Neighbouring quarters of a and of b, added: a0 + a1, a2 + a3, b0 + b1, b2 + b3 */
static inline __m512i added_quarters(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* Per token: the sum of its codes of k 0 .. 15 and of the others; pair[i] as codes_of_pair has it. */
static inline void sums_of_codes(const __m512i pair[4], __m256i *first_half, __m256i *second_half)
{
    const __m512i ones = _mm512_set1_epi8(1),
                  even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i four[4]; /* quarter j: [token][half] of the codes of quarter j */
    for (int i = 0; i < 4; i++)
        four[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, pair[i]);
    __m512i sums = added_quarters(added_quarters(four[0], four[1]), added_quarters(four[2], four[3]));
    *first_half = _mm512_castsi512_si256(_mm512_permutexvar_epi32(even, sums));
    *second_half = _mm512_castsi512_si256(_mm512_permutexvar_epi32(even, _mm512_srli_epi64(sums, 32)));
}

/*
 * One block of the 8 tokens of a group, 32 floats at each x[t]; `index` counts blocks over all groups. Tokens stand
 * in lanes wherever there is one number a token, so nothing is summed or compared across lanes 8 times over.
 */
static inline void quantize_block(const struct activations *a, const float *const *x, size_t index)
{
    const __m512i magnitude = _mm512_set1_epi32(INT32_MAX);
    __m512i max[ACTIVATION_GROUP];
    for (int t = 0; t < ACTIVATION_GROUP; t++) {
        __m512i low = _mm512_and_si512(_mm512_loadu_si512(x[t]), magnitude);
        __m512i high = _mm512_and_si512(_mm512_loadu_si512(x[t] + 16), magnitude);
        max[t] = _mm512_max_epu32(low, high); /* floats without sign are in the order of their bits */
    }
    __m256i amax_bits = largest_of_each(max);
    __m256 amax = _mm256_castsi256_ps(amax_bits), full = _mm256_set1_ps(127.0f);
    __mmask8 finite = _mm256_cmplt_epu32_mask(amax_bits, _mm256_set1_epi32(0x7f800000));
    __mmask8 live = finite & _mm256_cmp_ps_mask(amax, _mm256_set1_ps(0x1p-100f), _CMP_GE_OQ);
    __m256 scale = _mm256_mask_blend_ps(finite, _mm256_set1_ps(NAN), _mm256_maskz_div_ps(live, amax, full));
    float inverse[ACTIVATION_GROUP];
    _mm256_storeu_ps(inverse, _mm256_maskz_div_ps(live, full, amax));

    /* Two tokens a register; not finite: what was infinity * 0 is no code. */
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i pair[4];
    int8_t *to = a->q + index * TILE_K * a->width;
    for (uint32_t i = 0; i < 4; i++) {
        __mmask16 lanes = (__mmask16)((live >> 2 * i & 1) * 0x3333 | (live >> (2 * i + 1) & 1) * 0xcccc);
        pair[i] = _mm512_maskz_mov_epi32(lanes, codes_of_pair(x, inverse, (int)i));
        if (2 * i < a->width)
            _mm512_storeu_si512(to + 2 * i * TILE_K, _mm512_permutexvar_epi32(in_order, pair[i]));
    }
    __m256i half, rest;
    sums_of_codes(pair, &half, &rest);
    __m256i sum = _mm256_add_epi32(half, rest);
    __mmask8 wanted = (__mmask8)((1u << a->width) - 1);
    size_t at = index * a->width;
    _mm256_mask_storeu_ps(a->scale + at, wanted, scale);
    _mm256_mask_storeu_ps(a->sum + at, wanted, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)));
    _mm256_mask_storeu_epi32(a->isum + at, wanted, sum);
    _mm256_mask_storeu_epi32(a->half + at, wanted, half);
}

/* One block of the only token; x is 32 floats. */
static inline void quantize_block_alone(const struct activations *a, const float *x, size_t at)
{
    const __m512i magnitude = _mm512_set1_epi32(INT32_MAX);
    __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
    uint32_t amax_bits = _mm512_reduce_max_epu32(_mm512_max_epu32(
        _mm512_and_si512(_mm512_castps_si512(low), magnitude), _mm512_and_si512(_mm512_castps_si512(high), magnitude)));
    struct code_scale s = code_scale(amax_bits);
    __mmask16 live = s.finite ? 0xffff : 0; /* not finite: what was infinity * 0 is no code */
    __m512 by = _mm512_set1_ps(s.inverse);
    __m128i q[2] = {_mm512_cvtsepi32_epi8(_mm512_maskz_cvtps_epi32(live, _mm512_mul_ps(low, by))),
                    _mm512_cvtsepi32_epi8(_mm512_maskz_cvtps_epi32(live, _mm512_mul_ps(high, by)))};
    int32_t sum[2];
    for (int i = 0; i < 2; i++) {
        _mm_storeu_si128((__m128i *)(void *)(a->q + at * TILE_K + 16 * i), q[i]);
        __m128i four = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), q[i]);
        __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
        sum[i] = _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1);
    }
    a->scale[at] = s.scale;
    a->sum[at] = s.scale * (float)(sum[0] + sum[1]);
    a->isum[at] = sum[0] + sum[1];
    a->half[at] = sum[0];
}

static void quantize(const struct activations *a, uint32_t first_block, uint32_t end_block)
{
    static const float nothing[TILE_K];
    uint32_t blocks = a->cols / TILE_K;
    if (a->width == 1 && a->tokens == 1) { /* not an empty part */
        for (uint32_t b = first_block; b < end_block; b++)
            quantize_block_alone(a, a->x + (size_t)(b - first_block) * TILE_K, b);
        return;
    }
    for (uint32_t first = 0; first < a->tokens; first += ACTIVATION_GROUP) {
        const float *x[ACTIVATION_GROUP];
        for (uint32_t t = 0; t < ACTIVATION_GROUP; t++)
            x[t] = first + t < a->tokens ? a->x + (first + t) * a->x_stride : nothing;
        for (uint32_t b = first_block; b < end_block; b++) {
            quantize_block(a, x, (size_t)(first / ACTIVATION_GROUP) * blocks + b);
            for (uint32_t t = 0; t < ACTIVATION_GROUP && first + t < a->tokens; t++)
                x[t] += TILE_K;
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

/* One head. */
static void rotate(float *x, uint32_t pairs, const float *cos_sin)
{
    const __mmask16 even = 0x5555;
    for (uint32_t i = 0; i < 2 * pairs; i += 16) {
        __mmask16 mask = lanes_left(i, 2 * pairs);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i), by = _mm512_maskz_loadu_ps(mask, cos_sin + i);
        __m512 straight = _mm512_mul_ps(v, _mm512_moveldup_ps(by));
        __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), _mm512_movehdup_ps(by));
        __m512 sum = _mm512_add_ps(straight, crossed);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mask_sub_ps(sum, even, straight, crossed));
    }
}

static void rope_rotate(float *x, uint32_t heads, size_t head_stride, uint32_t pairs, const float *cos_sin)
{
    for (uint32_t h = 0; h < heads; h++)
        rotate(x + h * head_stride, pairs, cos_sin);
}

/* tamed_logit of each lane; the constant is the first operand of min, so that a NaN passes. */
static inline __m512 tamed(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(FLT_MAX), x);
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_ps(-INFINITY));
}

static void measure(const float *x, uint32_t n, float temperature, float *max, uint32_t *argmax, double *sum)
{
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    __m512 m = lowest;
    __m512i at = _mm512_setzero_si512(), i_of = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (uint32_t i = 0; i < n; i += 16) { /* each lane keeps the first of its largest */
        __m512 v = tamed(_mm512_mask_loadu_ps(lowest, lanes_left(i, n), x + i));
        __mmask16 larger = _mm512_cmp_ps_mask(v, m, _CMP_GT_OQ);
        m = _mm512_mask_mov_ps(m, larger, v);
        at = _mm512_mask_mov_epi32(at, larger, i_of);
        i_of = _mm512_add_epi32(i_of, _mm512_set1_epi32(16));
    }
    __mmask16 largest = _mm512_cmp_ps_mask(m, _mm512_set1_ps(_mm512_reduce_max_ps(m)), _CMP_EQ_OQ);
    *argmax = _mm512_mask_reduce_min_epu32(largest, at);
    *max = tamed_logit(x[*argmax]);
    *sum = 0;
    if (*max == -INFINITY || !(temperature > 0))
        return;
    m = _mm512_set1_ps(*max);
    __m512 by = _mm512_set1_ps(temperature);
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = tamed(_mm512_mask_loadu_ps(lowest, lanes_left(i, n), x + i));
        __m512 e = exp_lanes(_mm512_div_ps(_mm512_sub_ps(v, m), by)); /* beyond the end: exp(-inf) = 0 */
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

#define ALL_BUT_PRODUCTS                                                                                 \
    .quantize = quantize, .rms_norm = rms_norm, .swiglu = swiglu, .gelu = gelu, .attend = attend_avx512, \
    .attend_steps = attend_steps_avx512, .measure = measure, .to_f16 = to_f16, .from_f16 = from_f16,     \
    .rope_rotate = rope_rotate, .layer_norm = layer_norm

const struct kernels kernels_avx512 = {.name = "avx512", .product = product_avx512, ALL_BUT_PRODUCTS};
const struct kernels kernels_amx = {.name = "amx", .product = product_amx, ALL_BUT_PRODUCTS};
