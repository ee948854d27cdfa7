/* kv_type: see kv_type.h. */
#include "model/kv_type.h"

#include <math.h>
#include <string.h>

#include "model/float16.h"

enum { MOST_DIMENSIONS = 256 };

static const char *const names[KV_TYPES] = {[KV_F16] = "f16", [KV_BF16] = "bf16", [KV_F32] = "f32", [KV_Q8] = "q8"};

const char *kv_type_name(enum kv_type type)
{
    return names[type];
}

bool kv_type_named(const char *name, enum kv_type *out)
{
    for (uint32_t i = 0; i < KV_TYPES; i++)
        if (strcmp(names[i], name) == 0) {
            *out = (enum kv_type)i;
            return true;
        }
    return false;
}

/* ---- narrowing ---- */

/* Sixteen values; the codes and their scale. */
static uint16_t narrow_q8(int8_t *codes, const float *x)
{
    float amax = 0;
    bool finite = true;
    for (uint32_t i = 0; i < KV_SCALED; i++) {
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
        finite = finite && isfinite(x[i]);
    }
    uint16_t half = f16_from_f32(finite ? amax / 127.0f : NAN);
    float scale = f32_from_f16(half), inverse = scale > 0 && isfinite(scale) ? 1.0f / scale : 0;
    for (uint32_t i = 0; i < KV_SCALED; i++) {
        float q = inverse > 0 ? rintf(x[i] * inverse) : 0; /* nearest even: the default rounding */
        codes[i] = (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
    return half;
}

/* Codes of `count` values one after the other, and of Q8 their scales. */
static void narrow(enum kv_type type, uint8_t *codes, uint16_t *scales, const float *x, uint32_t count,
                   to_f16_fn to_f16)
{
    uint16_t *halves = (uint16_t *)(void *)codes;
    switch (type) {
    case KV_F16:
        to_f16(halves, x, count);
        break;
    case KV_BF16:
        for (uint32_t i = 0; i < count; i++)
            halves[i] = bf16_from_f32(x[i]);
        break;
    case KV_Q8:
        for (uint32_t i = 0; i < count; i += KV_SCALED)
            scales[i / KV_SCALED] = narrow_q8((int8_t *)codes + i, x + i);
        break;
    case KV_F32:
    case KV_TYPES:
        memcpy(codes, x, count * sizeof *x);
        break;
    }
}

/* Pairs of dimensions, each 16 slots from the next. */
static inline void scatter(uint8_t *to, const uint8_t *codes, uint32_t pairs, size_t pair_bytes)
{
    for (uint32_t i = 0; i < pairs; i++)
        memcpy(to + (size_t)i * KV_SLOTS * pair_bytes, codes + i * pair_bytes, pair_bytes);
}

void kv_store_k(enum kv_type type, uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t from, uint32_t count,
                const float *x, to_f16_fn to_f16)
{
    _Alignas(64) uint8_t codes[MOST_DIMENSIONS * sizeof(float)];
    uint16_t scales[MOST_DIMENSIONS / KV_SCALED];
    size_t element = kv_element_bytes(type);
    uint8_t *to = side + ((size_t)from / 2 * KV_SLOTS + slot) * 2 * element;
    narrow(type, codes, scales, x, count, to_f16);
    if (element == 2) /* said one by one: a copy of a known length is one instruction */
        scatter(to, codes, count / 2, 4);
    else if (element == 4)
        scatter(to, codes, count / 2, 8);
    else
        scatter(to, codes, count / 2, 2);
    for (uint32_t i = 0; type == KV_Q8 && i < count / KV_SCALED; i++)
        memcpy(side + kv_scales_offset(head_dim) + ((from / KV_SCALED + i) * KV_SLOTS + slot) * sizeof *scales,
               &scales[i], sizeof *scales);
}

void kv_store_v(enum kv_type type, uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t from, uint32_t count,
                const float *x, to_f16_fn to_f16)
{
    uint16_t scales[MOST_DIMENSIONS / KV_SCALED];
    narrow(type, side + ((size_t)slot * head_dim + from) * kv_element_bytes(type), scales, x, count, to_f16);
    if (type == KV_Q8)
        memcpy(side + kv_scales_offset(head_dim) + (slot * head_dim + from) / KV_SCALED * sizeof *scales, scales,
               count / KV_SCALED * sizeof *scales);
}

/* ---- widening ---- */

/* Element `at` of a side; scale: of Q8, index among the scales. */
static float widen(enum kv_type type, const uint8_t *side, uint32_t head_dim, size_t at, size_t scale)
{
    uint16_t half;
    float value;
    switch (type) {
    case KV_F16:
    case KV_BF16:
        memcpy(&half, side + at * sizeof half, sizeof half);
        return type == KV_F16 ? f32_from_f16(half) : f32_from_bf16(half);
    case KV_Q8:
        memcpy(&half, side + kv_scales_offset(head_dim) + scale * sizeof half, sizeof half);
        return (float)(int8_t)side[at] * f32_from_f16(half);
    case KV_F32:
    case KV_TYPES:
        break;
    }
    memcpy(&value, side + at * sizeof value, sizeof value);
    return value;
}

float kv_load_k(enum kv_type type, const uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t d)
{
    return widen(type, side, head_dim, ((size_t)d / 2 * KV_SLOTS + slot) * 2 + d % 2, d / KV_SCALED * KV_SLOTS + slot);
}

float kv_load_v(enum kv_type type, const uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t d)
{
    return widen(type, side, head_dim, (size_t)slot * head_dim + d, (slot * head_dim + d) / KV_SCALED);
}
