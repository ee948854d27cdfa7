/*
 * reference: the kernels in plain C. This file is the meaning of all other sets; it is written to be read.
 */
#include <math.h>
#include <string.h>

#include "model/float16.h"
#include "model/kernels/exp_constants.h"
#include "model/kernels/kernels.h"
#include "model/kernels/scratch.h"
#include "model/tile_format.h"

enum { LANES = 16 };

float kernel_expf(float x)
{
    x = x < EXP_LO ? EXP_LO : x; /* written so that a NaN passes */
    x = x > EXP_HI ? EXP_HI : x;
    float shifted = fmaf(x, EXP_LOG2E, EXP_SHIFT);
    float n = shifted - EXP_SHIFT;
    float r = fmaf(n, -EXP_LN2_LO, fmaf(n, -EXP_LN2_HI, x));
    float p = fmaf(EXP_C6, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int32_t exponent = (int32_t)(f32_bits(shifted) - f32_bits(EXP_SHIFT));
    int32_t first = exponent >> 1, second = exponent - first;
    return p * f32_from_bits((uint32_t)(first + 127) << 23) * f32_from_bits((uint32_t)(second + 127) << 23);
}

float kernel_tanhf(float x)
{
    float t = 1.0f - 2.0f / (kernel_expf(2.0f * fabsf(x)) + 1.0f);
    return copysignf(t, x);
}

/* The order of every horizontal sum. */
static float tree_sum(float *lane)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

static double tree_sum_double(double *lane)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

/* One block of one token. x NULL: a token of the padding. */
static void quantize_block(const struct activations *a, uint32_t token, uint32_t block, const float *x)
{
    size_t index = (size_t)(token / a->width) * (a->cols / TILE_K) + block, slot = token % a->width;
    size_t at = index * a->width + slot;
    int8_t *q = a->q + at * TILE_K;
    float amax = 0, inverse = 0, scale = 0;
    bool finite = true;
    for (int i = 0; x && i < TILE_K; i++) {
        finite = finite && isfinite(x[i]);
        amax = fmaxf(amax, fabsf(x[i]));
    }
    if (!finite) {
        scale = NAN;
    } else if (amax >= 0x1p-100f) {
        scale = amax / 127.0f;
        inverse = 127.0f / amax;
    }
    int32_t sum = 0, half = 0;
    for (uint32_t i = 0; i < TILE_K; i++) {
        int32_t code = x && finite ? (int32_t)rintf(x[i] * inverse) : 0;
        code = code > 127 ? 127 : code < -127 ? -127 : code;
        q[i] = (int8_t)code;
        sum += code;
        if (i < TILE_K / 2)
            half += code;
    }
    a->scale[at] = scale;
    a->sum[at] = scale * (float)sum;
    a->isum[at] = sum;
    a->half[at] = half;
}

static void quantize(const struct activations *a, uint32_t first_block, uint32_t end_block)
{
    uint32_t padded = (a->tokens + a->width - 1) / a->width * a->width;
    for (uint32_t t = 0; t < padded; t++)
        for (uint32_t b = first_block; b < end_block; b++)
            quantize_block(a, t, b, t < a->tokens ? a->x + t * a->x_stride + (b - first_block) * TILE_K : NULL);
}

/* Stores one row tile's results for one token. */
static void put_rows(const struct tile_matrix *w, uint32_t tile, float *y, const float *value, enum product_mode mode)
{
    for (uint32_t r = 0; r < TILE_ROWS && tile * TILE_ROWS + r < w->rows; r++) {
        float *to = y + tile * TILE_ROWS + r;
        *to = mode == PRODUCT_ADD ? *to + value[r] : value[r];
    }
}

static void unpack_row_tile(const struct tile_matrix *w, uint32_t tile, struct unpacked_block *out)
{
    uint64_t tile_size;
    tiles_row_tile_bytes(w->type, w->cols, &tile_size);
    struct tile_strip strip;
    for (uint32_t b = 0; b < w->cols / TILE_K; b++) {
        for (uint32_t r = 0; r < TILE_ROWS; r++) {
            tile_strip(w->type, w->tiles + tile * tile_size, b, r, &strip);
            for (uint32_t k = 0; k < TILE_K; k++)
                out[b].code[k / 4][r][k % 4] = strip.code[k];
            for (uint32_t s = 0; s < 2; s++) {
                out[b].d[s][r] = strip.d[s];
                out[b].m[s][r] = strip.m[s];
            }
        }
    }
}

/* sum of (code - bias) * q over k groups [first, last) of a block, for one row and token; exact */
static int32_t dot(const struct unpacked_block *w, uint32_t row, const int8_t *q, int32_t bias, uint32_t first,
                   uint32_t last)
{
    int32_t sum = 0;
    for (uint32_t g = first; g < last; g++)
        for (uint32_t i = 0; i < 4; i++)
            sum += (w->code[g][row][i] - bias) * q[g * 4 + i];
    return sum;
}

/* One row tile for one token. */
static void product_quantised(struct tile_format f, const struct unpacked_block *w, const struct activations *a,
                              uint32_t token, float *y)
{
    uint32_t blocks = a->cols / TILE_K, group = token / a->width, slot = token % a->width;
    for (uint32_t b = 0; b < blocks; b++) {
        size_t index = (size_t)group * blocks + b, at = index * a->width + slot;
        const int8_t *q = a->q + at * TILE_K;
        float scale = a->scale[at];
        for (uint32_t s = 0; s < f.sub_blocks; s++) {
            uint32_t groups = TILE_K / 4 / f.sub_blocks;
            int32_t half_sum = s ? a->isum[at] - a->half[at] : a->half[at];
            float sum = f.sub_blocks == 1 ? a->sum[at] : scale * (float)half_sum;
            for (uint32_t r = 0; r < TILE_ROWS; r++) {
                int32_t acc = dot(&w[b], r, q, f.bias, s * groups, (s + 1) * groups);
                y[r] = fmaf(w[b].d[s][r] * scale, (float)acc, y[r]);
                if (f.minimum)
                    y[r] = fmaf(w[b].m[s][r], sum, y[r]);
            }
        }
    }
}

/* One row tile of floats for one token. */
static void product_float(const struct tile_matrix *w, const uint8_t *row_tile, const float *x, float *y)
{
    for (uint32_t k = 0; k < w->cols; k++) {
        for (uint32_t r = 0; r < TILE_ROWS; r++) {
            float weight;
            uint16_t half;
            if (w->type == TENSOR_F32) {
                memcpy(&weight, row_tile + ((size_t)k * TILE_ROWS + r) * 4, 4);
            } else {
                memcpy(&half, row_tile + ((size_t)k * TILE_ROWS + r) * 2, 2);
                weight = w->type == TENSOR_F16 ? f32_from_f16(half) : f32_from_bf16(half);
            }
            y[r] = fmaf(weight, x[k], y[r]);
        }
    }
}

static void product(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                    float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    struct tile_format f = tile_format(w->type);
    uint64_t tile_size;
    tiles_row_tile_bytes(w->type, w->cols, &tile_size);
    for (uint32_t tile = first_tile; tile < last_tile && (uint64_t)tile * TILE_ROWS < w->rows; tile++) {
        if (f.planes)
            unpack_row_tile(w, tile, scratch);
        for (uint32_t t = 0; t < a->tokens; t++) {
            float value[TILE_ROWS] = {0};
            if (f.planes)
                product_quantised(f, scratch, a, t, value);
            else
                product_float(w, w->tiles + tile * tile_size, a->x + t * a->x_stride, value);
            put_rows(w, tile, y + t * y_stride, value, mode);
        }
    }
}

static void rms_norm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    float lane[LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lane[i % LANES] = fmaf(x[i], x[i], lane[i % LANES]);
    float inverse = 1.0f / sqrtf(tree_sum(lane) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * inverse * weight[i];
}

static void swiglu(float *out, const float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + kernel_expf(-gate[i])) * up[i];
}

static void gelu(float *out, const float *x, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float z = x[i] * fmaf(x[i] * x[i], GELU_CUBE, GELU_LINE);
        float y = x[i] / (1.0f + kernel_expf(z));
        out[i] = up ? y * up[i] : y;
    }
}

/* One head. */
static void rotate(float *x, uint32_t pairs, const float *cos_sin)
{
    for (uint32_t i = 0; i < pairs; i++) {
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
        float even = x[2 * i], odd = x[2 * i + 1];
        x[2 * i] = even * c - odd * s;
        x[2 * i + 1] = odd * c + even * s;
    }
}

static void rope_rotate(float *x, uint32_t heads, size_t head_stride, uint32_t pairs, const float *cos_sin)
{
    for (uint32_t h = 0; h < heads; h++)
        rotate(x + h * head_stride, pairs, cos_sin);
}

/* Scores of positions [first, last) of one chunk into score[position % ATTENTION_GRID]. */
static void score_chunk(const struct attention *a, const float *q, uint32_t first, uint32_t last, float *score)
{
    for (uint32_t p = first; p < last; p++) {
        const uint8_t *k = a->pages[p / ATTENTION_PAGE] + a->k_offset;
        float sum[2] = {0, 0};
        for (uint32_t d = 0; d < a->head_dim; d++)
            sum[d % 2] = fmaf(q[d], kv_load_k(a->kv_type, k, a->head_dim, p % ATTENTION_PAGE, d), sum[d % 2]);
        float s = a->scale * (sum[0] + sum[1]);
        score[p % ATTENTION_GRID] = a->softcap > 0 ? a->softcap * kernel_tanhf(s / a->softcap) : s;
    }
}

/* One chunk's maximum, sum and weighted V. */
static void attend_chunk(const struct attention *a, const float *q, uint32_t first, uint32_t last, float *m, float *l,
                         float *o)
{
    float score[ATTENTION_GRID], lane[LANES] = {0};
    score_chunk(a, q, first, last, score);
    *m = -INFINITY;
    for (uint32_t p = first; p < last; p++)
        *m = score[p % ATTENTION_GRID] > *m ? score[p % ATTENTION_GRID] : *m;
    memset(o, 0, a->head_dim * sizeof *o);
    for (uint32_t p = first; p < last; p++) {
        float weight = kernel_expf(score[p % ATTENTION_GRID] - *m);
        const uint8_t *v = a->pages[p / ATTENTION_PAGE] + a->v_offset;
        lane[p % LANES] += weight;
        for (uint32_t d = 0; d < a->head_dim; d++)
            o[d] = fmaf(weight, kv_load_v(a->kv_type, v, a->head_dim, p % ATTENTION_PAGE, d), o[d]);
    }
    *l = tree_sum(lane);
}

/* One query of one head. */
static void attend_one(const struct attention *a, const float *q, uint32_t position, float *out)
{
    float m, l, o[256], m1, l1, o1[256];
    uint32_t end = position + 1;
    uint32_t begin = a->window && end > a->window ? end - a->window : 0;
    uint32_t chunk = begin / ATTENTION_GRID;
    uint32_t chunk_end = (chunk + 1) * ATTENTION_GRID;
    attend_chunk(a, q, begin, chunk_end < end ? chunk_end : end, &m, &l, o); /* position itself is seen: there is one */
    for (chunk++; chunk * ATTENTION_GRID < end; chunk++) {
        uint32_t first = chunk * ATTENTION_GRID, last = first + ATTENTION_GRID;
        last = last > end ? end : last;
        attend_chunk(a, q, first, last, &m1, &l1, o1);
        float larger = m1 > m ? m1 : m;
        float f0 = kernel_expf(m - larger), f1 = kernel_expf(m1 - larger);
        for (uint32_t d = 0; d < a->head_dim; d++)
            o[d] = fmaf(o1[d], f1, o[d] * f0);
        l = fmaf(l1, f1, l * f0);
        m = larger;
    }
    for (uint32_t d = 0; d < a->head_dim; d++)
        out[d] = o[d] / l;
}

static void attend(const struct attention *a)
{
    for (uint32_t i = 0; i < a->queries; i++)
        for (uint32_t h = 0; h < a->heads; h++)
            attend_one(a, a->q + i * a->q_stride + h * a->head_dim, a->first + i,
                       a->out + i * a->out_stride + h * a->head_dim);
}

static void measure(const float *x, uint32_t n, float temperature, float *max, uint32_t *argmax, double *sum)
{
    double lane[LANES] = {0};
    *max = -INFINITY;
    *argmax = 0;
    *sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (tamed_logit(x[i]) > *max) {
            *max = tamed_logit(x[i]);
            *argmax = i;
        }
    }
    if (*max == -INFINITY || !(temperature > 0))
        return;
    for (uint32_t i = 0; i < n; i++)
        lane[i % LANES] += (double)kernel_expf((tamed_logit(x[i]) - *max) / temperature);
    *sum = tree_sum_double(lane);
}

static void to_f16(uint16_t *out, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = f16_from_f32(x[i]);
}

static void from_f16(float *out, const uint16_t *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = f32_from_f16(x[i]);
}

const struct kernels kernels_reference = {
    .name = "reference",
    .quantize = quantize,
    .product = product,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .gelu = gelu,
    .attend = attend,
    .measure = measure,
    .to_f16 = to_f16,
    .from_f16 = from_f16,
    .rope_rotate = rope_rotate,
    .layer_norm = layer_norm,
};
