/*
 * float16: IEEE half and bfloat16 to and from float, in integer arithmetic.
 *
 * The same bits as vcvtps2ph (nearest even) and vcvtph2ps for every value, subnormals, infinities and NaN included
 * (a signalling NaN comes out quiet), so that plain C and vector code can be mixed freely.
 */
#ifndef QUIRE_MODEL_FLOAT16_H
#define QUIRE_MODEL_FLOAT16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float f32_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1f;
    uint32_t fraction = half & 0x3ff;
    if (exponent == 0x1f)
        return f32_from_bits(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x00400000 : 0));
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f; /* exact: 10 bits */
        return f32_from_bits(sign | f32_bits(magnitude));
    }
    return f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t f16_from_f32(float x)
{
    uint32_t bits = f32_bits(x);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) {
        half = 0x7e00 | (magnitude >> 13 & 0x3ff);
    } else if (magnitude >= 0x477ff000) { /* 65520 and more round to infinity */
        half = 0x7c00;
    } else if (magnitude >= 0x38800000) { /* 2^-14: normal; a carry out of the fraction belongs in the exponent */
        half = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
    } else if (magnitude > 0x33000000) { /* above 2^-25, half the least subnormal */
        uint32_t shift = 126 - (magnitude >> 23);
        uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
        uint32_t rest = fraction & ((1u << shift) - 1), tie = 1u << (shift - 1);
        half = fraction >> shift;
        half += rest > tie || (rest == tie && (half & 1));
    } else {
        half = 0;
    }
    return (uint16_t)(sign | half);
}

static inline float f32_from_bf16(uint16_t b)
{
    return f32_from_bits((uint32_t)b << 16);
}

/* The nearest, even on a tie; a NaN comes out quiet. */
static inline uint16_t bf16_from_f32(float x)
{
    uint32_t bits = f32_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
