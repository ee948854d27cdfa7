#include "model/quantize.h"

#include <math.h>
#include <string.h>

#include "base/must.h"
#include "model/float16.h"

enum { BLOCK = 32 };

bool blocks_can_be_made(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_Q8_0 || type == TENSOR_Q4_0;
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
        default:
            q4_0_block(from, to);
            break;
        }
    }
    return true;
}
