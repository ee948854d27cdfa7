/*
 * blocks: takes GGUF blocks apart, 32 values at a time, into codes and scales as tile_format.h knows them.
 * Block layouts: ggml-common.h; their meaning: the dequantize_row_… functions of ggml-quants.c.
 */
#ifndef QUIRE_MODEL_BLOCKS_H
#define QUIRE_MODEL_BLOCKS_H

#include <stdint.h>

#include "model/float16.h"
#include "model/tile_format.h"

struct block_part {
    uint8_t code[TILE_K]; /* with a table: the index */
    uint16_t d, dmin;     /* f16 bits; dmin is m itself for SCALE_F16 */
    uint8_t scale[2];     /* sub-scales (two's complement for SCALE_I8), or the exponent of SCALE_E8M0 in [0] */
    uint8_t min[2];
};

/* The part-th 32 values of a block of a quantised type that tiles know. */
void block_part(enum tensor_type type, const uint8_t *block, uint32_t part, struct block_part *out);

/* d and m of one sub-block from their written form. Every product is exact in float. */
static inline float scale_value(struct tile_format f, uint16_t d, uint8_t scale)
{
    switch (f.scale) {
    case SCALE_E8M0: /* 2^(e - 128): the values of the table are doubled */
        return scale < 2 ? f32_from_bits(0x00200000u << scale) : f32_from_bits((uint32_t)(scale - 1) << 23);
    case SCALE_U8:
    case SCALE_U4:
        return f32_from_f16(d) * (float)scale;
    case SCALE_I8:
        return f32_from_f16(d) * (float)(int8_t)scale;
    case SCALE_F16:
    default:
        return f32_from_f16(d);
    }
}

static inline float minimum_value(struct tile_format f, uint16_t dmin, uint8_t min)
{
    if (!f.minimum)
        return 0;
    return f.scale == SCALE_F16 ? f32_from_f16(dmin) : -(f32_from_f16(dmin) * (float)min);
}

#endif
