/*
 * kernels: the arithmetic, one table of functions per instruction set, chosen at run time.
 *
 * `reference` is plain C and is the meaning of the others: every set gives the same bits for the same input, whatever
 * the number of tokens in a call, the row range, or the neighbours in a batch. Rules that make it so:
 *   - no contraction, no fast-math, default MXCSR; every fused multiply-add is written as fmaf (or its instruction);
 *   - sums over k run in order of k in each output lane; horizontal sums use 16 lanes (element i goes to lane i % 16)
 *     and then the tree 8-4-2-1 (lane j += lane j + 8, then + 4, + 2, + 1);
 *   - expf is kernel_expf, one polynomial for all sets; division and square root are the exact instructions.
 *
 * Activations are quantised per token and 32 inputs: amax = max |x|, a = amax / 127,
 *   q = round-to-nearest-even(x * (127 / amax)), clamped to +-127;  s = a * (float)sum(q);
 * a block whose amax is below 2^-100 has a = 0 and q = 0.
 *
 * Quantised product, for each output row r and token t, over blocks b in order of k, y starting at 0:
 *   acc = sum over the block of (code - bias) * q, exact in int32;  y = fmaf(d * a, (float)acc, y);
 *   and for types with a minimum:                                   y = fmaf(m, s, y).
 * d and m are those of tile_format.h, exact in float. Types with two scales in 32 k do both halves of a block in turn,
 * as if each were a block, with the a of the whole and s = a * (float)sum(q) of the half.
 *
 * Float product: y = fmaf(w widened to f32, x, y) over k in order.
 *
 * Not finite: a block that holds an infinity or a NaN has a = s = NaN and q = 0. NaNs are all the same: the promise of
 * equal bits does not cover their sign and payload.
 */
#ifndef QUIRE_MODEL_KERNELS_H
#define QUIRE_MODEL_KERNELS_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/kv_type.h"
#include "model/tiles.h"

enum {
    ACTIVATION_GROUP = 8,     /* tokens of a group: as many as may lie side by side */
    ATTENTION_GRID = 256,     /* positions of one partial result */
    ATTENTION_PAGE = 16,      /* positions of a page */
    ATTENTION_MAX_HEADS = 16, /* query heads of one kv head in one call; wider groups are cut by the caller */
    ATTENTION_AHEAD = 8,      /* pages that are fetched before they are needed */
    KERNEL_ALIGN = 64,
};

/*
 * One batch of inputs to matrix products. x stays where the caller has it; the quantised copy is
 *   q     [group][cols / 32][width][32]   int8
 *   scale [group][cols / 32][width]      a
 *   sum   [group][cols / 32][width]      s = a * sum(q)
 *   isum  [group][cols / 32][width]      sum(q)
 *   half  [group][cols / 32][width]      sum(q) of the first 16 of the 32
 * Tokens that are missing in the last group are zeros.
 */
struct activations {
    uint32_t tokens;
    uint32_t width; /* tokens side by side: 8; in all of a batch of at most 4 as few of 1, 2, 4 as hold it */
    uint32_t cols;
    const float *x;  /* (tokens, x_stride) */
    size_t x_stride; /* floats from one token to the next */
    int8_t *q;       /* the rest is only good after quantize; multiples of 32 columns only */
    float *scale;
    float *sum;
    int32_t *isum;
    int32_t *half;
};

/* Bytes that activations_place needs for up to `tokens` tokens of `cols` columns. */
size_t activations_bytes(uint32_t tokens, uint32_t cols);
/* Points q, scale, sum, isum, half into memory (KERNEL_ALIGN-aligned) and sets tokens, width, cols, x, x_stride. */
void activations_place(struct activations *a, void *memory, uint32_t tokens, uint32_t cols, const float *x,
                       size_t x_stride);

/* Of the tokens of a, those of groups [first, end), as activations of their own over the same memory. */
struct activations activations_of_groups(const struct activations *a, uint32_t first, uint32_t end);

enum product_mode { PRODUCT_STORE, PRODUCT_ADD }; /* y = w x;  y = y + (w x), one addition after the whole sum */

/*
 * Attention of the `heads` query heads that share one kv head, for `queries` consecutive positions of one sequence.
 * Query i stands at position first + i and sees positions [max(0, its position - window + 1), its position]. A page
 * holds 16 positions: a side of K at k_offset bytes from its start, one of V at v_offset, as kv_type.h says of the type.
 * pages[p] is the start of the page of positions [16 p, 16 p + 16); of pages that query 0 does not see it may be anything.
 *
 * Meaning: scores s = scale * (even + odd), where even and odd are fmaf sums over the even and the odd dimensions in
 * order; with softcap c > 0: s = c * kernel_tanhf(s / c). Per grid chunk of 256 absolute positions
 *   m = max s;  p = kernel_expf(s - m);  l = sum p (16-lane tree, lane = position % 16);
 *   o[d] = fmaf(p, v[d], o[d]) over positions in order.
 * Chunks are combined in order:
 *   M = max(m0, m1);  f0 = kernel_expf(m0 - M);  f1 = kernel_expf(m1 - M);
 *   l = fmaf(l1, f1, l0 * f0), o likewise;  in the end out = o / l.
 * Masked positions are left out, never multiplied; chunks wholly outside are skipped.
 */
struct attention {
    const float *q; /* (queries, q_stride); head h of query i at q + i * q_stride + h * head_dim; rotated */
    size_t q_stride;
    float *out; /* (queries, out_stride), the same shape */
    size_t out_stride;
    uint32_t queries;
    uint32_t first;    /* position of query 0 */
    uint32_t heads;    /* <= ATTENTION_MAX_HEADS */
    uint32_t head_dim; /* even, <= 256; of Q8 a multiple of 16 */
    enum kv_type kv_type;
    uint32_t window; /* 0: none */
    float scale;
    float softcap; /* 0: none */
    const uint8_t *const *pages;
    size_t k_offset, v_offset;
    const uint8_t *soon[ATTENTION_AHEAD]; /* a hint: where the next call's first keys are; NULL: not known */
    void *scratch;                        /* attention_scratch_bytes(head_dim), KERNEL_ALIGN-aligned, private */
};

size_t attention_scratch_bytes(uint32_t head_dim);

struct kernels {
    const char *name; /* "reference", "avx2", "avx512", "amx" */

    /*
     * Quantises columns [32 first_block, 32 end_block) of tokens [0, tokens), the first of which is column 0 of a->x; pads the last
     * group with zeros.
     */
    void (*quantize)(const struct activations *a, uint32_t first_block, uint32_t end_block);

    /*
     * Rows [16 * first_tile, min(rows, 16 * last_tile)) of w for all tokens: y[t * y_stride + row] (mode) =
     * w[row] . x[t]. Quantised types read the quantised copy, float types a->x. scratch: product_scratch_bytes() bytes,
     * KERNEL_ALIGN-aligned, private. A range without rows does nothing.
     */
    void (*product)(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                    float *y, size_t y_stride, enum product_mode mode, void *scratch);

    /* y[i] = x[i] * inv * weight[i], inv = 1 / sqrtf(sum / n + eps), sum by fmaf(x, x, lane); n floats; y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *weight, uint32_t n, float eps);

    /* out[i] = gate[i] / (1 + kernel_expf(-gate[i])) * up[i] */
    void (*swiglu)(float *out, const float *gate, const float *up, uint32_t n);

    /*
     * out[i] = x[i] / (1 + kernel_expf(z)) * up[i], z = x[i] * fmaf(x[i] * x[i], GELU_CUBE, GELU_LINE): the tanh form of GELU,
     * 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), by (1 + tanh(t)) / 2 = 1 / (1 + exp(-2 t)). up NULL: without that factor.
     */
    void (*gelu)(float *out, const float *x, const float *up, uint32_t n);

    void (*attend)(const struct attention *a);
    const struct attend_steps
        *attend_steps; /* (KV_TYPES): what attend consists of (attend_blocks.h); NULL: it is of one piece */

    /*
     * Of n > 0 logits, x = tamed_logit of each: the largest, the lowest index that has it (0 when all are -inf), and
     * with a temperature > 0 and a largest above -inf the sum of (double)kernel_expf((x - max) / temperature) by the
     * 16-lane rule in double; else 0.
     */
    void (*measure)(const float *x, uint32_t n, float temperature, float *max, uint32_t *argmax, double *sum);

    /* n floats to f16 (nearest even) and back. */
    void (*to_f16)(uint16_t *out, const float *x, uint32_t n);
    void (*from_f16)(float *out, const uint16_t *x, uint32_t n);

    /*
     * Rotates the pairs (x[2i], x[2i+1]), i < pairs, of `heads` heads by (c, s) = cos_sin[2i], cos_sin[2i+1], to x0 c
     * - x1 s and x1 c + x0 s, nothing fused; heads lie head_stride floats apart.
     */
    void (*rope_rotate)(float *x, uint32_t heads, size_t head_stride, uint32_t pairs, const float *cos_sin);

    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, uint32_t n,
                       float eps); /* below */
};

/* Scratch of `product`: the same for every set and matrix of up to max_cols columns. */
size_t product_scratch_bytes(uint32_t max_cols);

/* The polynomial exp of every set; 0 below -103.97, +inf above 88.72, exact at 0, NaN stays NaN. */
float kernel_expf(float x);

/* tanh by way of kernel_expf: 1 - 2 / (exp(2 |x|) + 1), with the sign of x. */
float kernel_tanhf(float x);

/* A logit that is NaN counts as -inf and +inf as the largest float: a sick model gives poor tokens, never a crash. */
static inline float tamed_logit(float logit)
{
    if (isnan(logit))
        return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

extern const struct kernels kernels_reference;

/* All sets that this build has and this machine can run, best last; *count of them. Asks Linux for what they need. */
const struct kernels *const *kernels_runnable(uint32_t *count);
/* The best one, or the one of that name; NULL when it is unknown or this machine cannot run it. */
const struct kernels *kernels_choose(const char *name_or_null);

/*
 * y[i] = (x[i] - mean) * inv * weight[i] + bias[i], inv = 1 / sqrtf(sum of (x - mean)^2 / n + eps); both sums by the 16-lane rule,
 * with products rounded. y may be x. Plain C: not hot.
 */
void layer_norm(float *y, const float *x, const float *weight, const float *bias, uint32_t n, float eps);

/* x[i] = cap * kernel_tanhf(x[i] / cap). Plain C. */
void soft_cap(float *x, uint32_t n, float cap);

#endif
