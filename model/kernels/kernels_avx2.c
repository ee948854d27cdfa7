/*
 * kernels_avx2: the set for processors with AVX2, FMA and F16C; the parts that are not products or attention.
 */
#include <float.h>
#include <math.h>

#include "model/kernels/lanes_avx2.h"
#include "model/kernels/sets.h"

/* 8 codes of one token. Returns their sum. */
static inline int32_t store_codes(int8_t *q, __m256 x, float inverse)
{
    __m256i codes = _mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(inverse)));
    codes = _mm256_max_epi32(_mm256_min_epi32(codes, _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
    int32_t code[8], sum = 0;
    _mm256_storeu_si256((__m256i *)(void *)code, codes);
    for (int i = 0; i < 8; i++) {
        q[i] = (int8_t)code[i];
        sum += code[i];
    }
    return sum;
}

static inline __m256i magnitude(__m256 x)
{
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(INT32_MAX));
}

/* One block of one token; x is 32 floats, `at` counts blocks of all tokens as they lie. */
static inline void quantize_block(const struct activations *a, const float *x, size_t at)
{
    __m256 part[4];
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        part[i] = _mm256_loadu_ps(x + 8 * i);
        max = _mm256_max_epi32(max, magnitude(part[i])); /* floats without sign are in the order of their bits */
    }
    int32_t each[8], amax_bits = 0;
    _mm256_storeu_si256((__m256i *)(void *)each, max);
    for (int i = 0; i < 8; i++)
        amax_bits = each[i] > amax_bits ? each[i] : amax_bits;
    struct code_scale s = code_scale((uint32_t)amax_bits);
    for (int i = 0; i < 4 && !s.finite; i++)
        part[i] = _mm256_setzero_ps();
    int32_t half = 0, sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += store_codes(a->q + at * TILE_K + 8 * i, part[i], s.inverse);
        half = i == 1 ? sum : half;
    }
    a->scale[at] = s.scale;
    a->sum[at] = s.scale * (float)sum;
    a->isum[at] = sum;
    a->half[at] = half;
}

static void quantize(const struct activations *a, uint32_t first_block, uint32_t end_block)
{
    static const float nothing[TILE_K];
    uint32_t blocks = a->cols / TILE_K;
    uint32_t padded = (a->tokens + a->width - 1) / a->width * a->width;
    for (uint32_t t = 0; t < padded; t++) {
        uint32_t slot = t % a->width;
        for (uint32_t b = first_block; b < end_block; b++) {
            size_t index = (size_t)(t / a->width) * blocks + b;
            const float *x = t < a->tokens ? a->x + t * a->x_stride + (b - first_block) * TILE_K : nothing;
            quantize_block(a, x, index * a->width + slot);
        }
    }
}

static void rms_norm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = load_lanes(x + i, lanes_left(i, n));
        sum[i / 8 % 2] = _mm256_fmadd_ps(v, v, sum[i / 8 % 2]);
    }
    __m256 inverse = _mm256_set1_ps(1.0f / sqrtf(tree_sum_lanes(sum[0], sum[1]) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t count = lanes_left(i, n);
        __m256 v = _mm256_mul_ps(load_lanes(x + i, count), inverse);
        store_lanes(y + i, count, _mm256_mul_ps(v, load_lanes(weight + i, count)));
    }
}

static void swiglu(float *out, const float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t count = lanes_left(i, n);
        __m256 g = load_lanes(gate + i, count);
        __m256 negative = _mm256_xor_ps(g, _mm256_set1_ps(-0.0f));
        __m256 y = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exp_lanes(negative)));
        store_lanes(out + i, count, _mm256_mul_ps(y, load_lanes(up + i, count)));
    }
}

static void gelu(float *out, const float *x, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t count = lanes_left(i, n);
        __m256 v = load_lanes(x + i, count);
        __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(v, v), _mm256_set1_ps(GELU_CUBE), _mm256_set1_ps(GELU_LINE));
        __m256 y = _mm256_div_ps(v, _mm256_add_ps(_mm256_set1_ps(1.0f), exp_lanes(_mm256_mul_ps(v, inner))));
        store_lanes(out + i, count, up ? _mm256_mul_ps(y, load_lanes(up + i, count)) : y);
    }
}

/* One head. */
static void rotate(float *x, uint32_t pairs, const float *cos_sin)
{
    for (uint32_t i = 0; i < 2 * pairs; i += 8) {
        uint32_t count = lanes_left(i, 2 * pairs);
        __m256 v = load_lanes(x + i, count), by = load_lanes(cos_sin + i, count);
        __m256 straight = _mm256_mul_ps(v, _mm256_moveldup_ps(by));
        __m256 crossed = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_movehdup_ps(by));
        store_lanes(x + i, count, _mm256_addsub_ps(straight, crossed));
    }
}

static void rope_rotate(float *x, uint32_t heads, size_t head_stride, uint32_t pairs, const float *cos_sin)
{
    for (uint32_t h = 0; h < heads; h++)
        rotate(x + h * head_stride, pairs, cos_sin);
}

/* tamed_logit of `count` lanes, -inf in the others; the constant is the first operand of min, so that a NaN passes. */
static inline __m256 tamed_lanes(const float *x, uint32_t count)
{
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256 v = _mm256_min_ps(_mm256_set1_ps(FLT_MAX), load_lanes(x, count));
    v = _mm256_blendv_ps(v, lowest, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return count == 8 ? v : _mm256_blendv_ps(lowest, v, _mm256_castsi256_ps(lane_mask(count)));
}

/* The first of the largest among n, n < 2^31. */
static uint32_t first_of_largest(const float *x, uint32_t n)
{
    __m256 m = _mm256_set1_ps(-INFINITY);
    __m256i at = _mm256_setzero_si256(), i_of = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (uint32_t i = 0; i < n; i += 8) { /* each lane keeps the first of its largest */
        __m256 v = tamed_lanes(x + i, lanes_left(i, n)), larger = _mm256_cmp_ps(v, m, _CMP_GT_OQ);
        m = _mm256_blendv_ps(m, v, larger);
        at = _mm256_blendv_epi8(at, i_of, _mm256_castps_si256(larger));
        i_of = _mm256_add_epi32(i_of, _mm256_set1_epi32(8));
    }
    float max[8];
    uint32_t index[8], best = 0;
    _mm256_storeu_ps(max, m);
    _mm256_storeu_si256((__m256i *)(void *)index, at);
    for (uint32_t lane = 1; lane < 8; lane++)
        if (max[lane] > max[best] || (max[lane] == max[best] && index[lane] < index[best]))
            best = lane;
    return index[best];
}

static void measure(const float *x, uint32_t n, float temperature, float *max, uint32_t *argmax, double *sum)
{
    *argmax = first_of_largest(x, n);
    *max = tamed_logit(x[*argmax]);
    *sum = 0;
    if (*max == -INFINITY || !(temperature > 0))
        return;
    __m256d lane[4]; /* 4 lanes each */
    for (int i = 0; i < 4; i++)
        lane[i] = _mm256_setzero_pd();
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_sub_ps(tamed_lanes(x + i, lanes_left(i, n)), _mm256_set1_ps(*max));
        __m256 e = exp_lanes(_mm256_div_ps(v, _mm256_set1_ps(temperature))); /* beyond the end: exp(-inf) = 0 */
        __m256d *to = lane + i / 8 % 2 * 2;
        to[0] = _mm256_add_pd(to[0], _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
        to[1] = _mm256_add_pd(to[1], _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    }
    __m256d four = _mm256_add_pd(_mm256_add_pd(lane[0], lane[2]), _mm256_add_pd(lane[1], lane[3]));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    *sum = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

static void to_f16(uint16_t *out, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t count = lanes_left(i, n);
        uint16_t halves[8];
        _mm_storeu_si128((__m128i *)(void *)halves,
                         _mm256_cvtps_ph(load_lanes(x + i, count), _MM_FROUND_TO_NEAREST_INT));
        memcpy(out + i, halves, count * sizeof *halves);
    }
}

static void from_f16(float *out, const uint16_t *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8)
        store_lanes(out + i, lanes_left(i, n), load_halves(x + i, lanes_left(i, n)));
}

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .quantize = quantize,
    .product = product_avx2,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .gelu = gelu,
    .attend = attend_avx2,
    .attend_steps = attend_steps_avx2,
    .measure = measure,
    .to_f16 = to_f16,
    .from_f16 = from_f16,
    .rope_rotate = rope_rotate,
    .layer_norm = layer_norm,
};
