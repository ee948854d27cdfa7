#include "model/quantize.h"

#include <math.h>
#include <string.h>

#include "base/must.h"
#include "model/float16.h"

enum { BLOCK = 32 };

bool blocks_can_be_made(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_Q8_0 || type == TENSOR_Q4_0 ||
           type == TENSOR_Q4_K;
}

static bool all_finite(const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* The value of largest magnitude, with its sign. */
static float extreme(const float *x)
{
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    return most;
}

/*
 * Writes the scale as f16 and returns what was written. Rounded away from zero, or the extreme would lie beyond the
 * last step (by much, where the scale is subnormal); saturated.
 */
static float put_scale(float d, uint8_t *out)
{
    uint16_t half = f16_from_f32(fminf(fmaxf(d, -65504.0f), 65504.0f));
    if (fabsf(f32_from_f16(half)) < fabsf(d) && (half & 0x7fff) < 0x7bff)
        half++;
    memcpy(out, &half, sizeof half);
    return f32_from_f16(half);
}

/* x in steps of d, nearest even, within [least, most]; d 0: 0 */
static int steps(float x, float d, int least, int most)
{
    float n = d != 0 ? rintf(x / d) : 0;
    return n < (float)least ? least : n > (float)most ? most : (int)n;
}

static void q8_0_block(const float *x, uint8_t *out)
{
    float d = put_scale(fabsf(extreme(x)) / 127.0f, out);
    for (int i = 0; i < BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)steps(x[i], d, -127, 127);
}

/* The extreme is -8 steps, whatever its sign; its mirror image would be +8 and is clamped to +7. */
static void q4_0_block(const float *x, uint8_t *out)
{
    float d = put_scale(extreme(x) / -8.0f, out);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = steps(x[i], d, -8, 7) + 8, high = steps(x[BLOCK / 2 + i], d, -8, 7) + 8;
        out[2 + i] = (uint8_t)(low | high << 4);
    }
}

/* ---- Q4_K: 8 sub-blocks of 32, value = scale * code - minimum, scales and minima in 6 bits of a common one each ---- */

enum { K_PARTS = 8, K_CODE_MOST = 15, K_SCALE_MOST = 63, K_TRIALS = 16 };

struct line {
    float scale, minimum; /* value = scale * code - minimum; neither is negative */
};

static float code_for(float x, struct line l)
{
    float n = l.scale > 0 ? rintf((x + l.minimum) / l.scale) : 0;
    return n > K_CODE_MOST ? K_CODE_MOST : n > 0 ? n : 0; /* 0 too where numbers too large made it no number */
}

static float error_of(const float *x, struct line l)
{
    float sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        float off = l.scale * code_for(x[i], l) - l.minimum - x[i];
        sum += off * off;
    }
    return sum;
}

/* The line of least squares through the values, given the codes that `l` gives them. */
static struct line refit(const float *x, struct line l)
{
    double n = BLOCK, c = 0, cc = 0, v = 0, cv = 0;
    for (int i = 0; i < BLOCK; i++) {
        double code = (double)code_for(x[i], l);
        c += code;
        cc += code * code;
        v += (double)x[i];
        cv += code * (double)x[i];
    }
    double spread = n * cc - c * c;
    if (spread <= 0)
        return l;
    struct line fit = {.scale = (float)((n * cv - c * v) / spread)};
    fit.minimum = (float)(((double)fit.scale * c - v) / n);
    if (fit.minimum < 0 && cc > 0) /* a line through zero then */
        fit = (struct line){.scale = (float)(cv / cc)};
    return fit.scale > 0 ? fit : l;
}

/* From the extremes, and from extremes that leave the outermost values a little outside: whichever is off least. */
static struct line line_for(const float *x)
{
    float least = 0, most = x[0];
    for (int i = 0; i < BLOCK; i++) {
        least = fminf(least, x[i]);
        most = fmaxf(most, x[i]);
    }
    if (most <= least)
        return (struct line){.minimum = -least};
    struct line best = {.scale = (most - least) / K_CODE_MOST, .minimum = -least};
    float best_error = error_of(x, best);
    for (int trial = 0; trial <= K_TRIALS; trial++) {
        struct line l = {.scale = (most - least) / ((float)K_CODE_MOST - 1.0f + 2.0f * (float)trial / K_TRIALS),
                         .minimum = -least};
        l = refit(x, l);
        float error = error_of(x, l);
        if (error < best_error) {
            best_error = error;
            best = l;
        }
    }
    return best;
}

/* Scales and minima of 6 bits: those of parts 0 to 3 in a byte each, whose upper bits hold what parts 4 to 7 have above 4 bits. */
static void pack_scales(const uint8_t scale[K_PARTS], const uint8_t minimum[K_PARTS], uint8_t out[12])
{
    for (int j = 0; j < K_PARTS / 2; j++) {
        out[j] = (uint8_t)(scale[j] | (scale[j + 4] >> 4) << 6);
        out[j + 4] = (uint8_t)(minimum[j] | (minimum[j + 4] >> 4) << 6);
        out[j + 8] = (uint8_t)((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
    }
}

static void q4_k_block(const float *x, uint8_t *out)
{
    struct line lines[K_PARTS];
    float scale_most = 0, minimum_most = 0;
    uint8_t scale[K_PARTS], minimum[K_PARTS];
    for (int j = 0; j < K_PARTS; j++) {
        lines[j] = line_for(x + j * BLOCK);
        scale_most = fmaxf(scale_most, lines[j].scale);
        minimum_most = fmaxf(minimum_most, lines[j].minimum);
    }
    float d = put_scale(scale_most / K_SCALE_MOST, out);
    float dmin = put_scale(minimum_most / K_SCALE_MOST, out + 2);
    for (int j = 0; j < K_PARTS; j++) {
        scale[j] = (uint8_t)steps(lines[j].scale, d, 0, K_SCALE_MOST);
        minimum[j] = (uint8_t)steps(lines[j].minimum, dmin, 0, K_SCALE_MOST);
    }
    pack_scales(scale, minimum, out + 4);
    for (int j = 0; j < K_PARTS; j++) {
        /* against the line as it is stored; two parts share 32 bytes */
        struct line stored = {.scale = d * (float)scale[j], .minimum = dmin * (float)minimum[j]};
        uint8_t *codes = out + 16 + j / 2 * BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            uint8_t code = (uint8_t)code_for(x[j * BLOCK + i], stored);
            codes[i] = (uint8_t)(j % 2 ? codes[i] | code << 4 : code);
        }
    }
}

bool blocks_from_float(enum tensor_type type, const float *x, uint64_t elements, uint8_t *out)
{
    must(blocks_can_be_made(type));
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    must(elements % traits->block_elements == 0);
    if (!all_finite(x, elements))
        return false;
    for (uint64_t b = 0; b < elements / traits->block_elements; b++) {
        const float *from = x + b * traits->block_elements;
        uint8_t *to = out + b * traits->block_bytes;
        uint16_t half;
        switch ((int)type) {
        case TENSOR_F32:
            memcpy(to, from, sizeof *from);
            break;
        case TENSOR_F16:
            half = f16_from_f32(*from);
            memcpy(to, &half, sizeof half);
            break;
        case TENSOR_Q8_0:
            q8_0_block(from, to);
            break;
        case TENSOR_Q4_K:
            q4_k_block(from, to);
            break;
        default:
            q4_0_block(from, to);
            break;
        }
    }
    return true;
}
