#include "model/blocks.h"

#include <string.h>

#include "base/must.h"

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* 16 bytes: elements 0..15 in the low, 16..31 in the high nibbles. */
static void nibbles_16(const uint8_t *qs, uint8_t *code)
{
    for (int i = 0; i < 16; i++) {
        code[i] = qs[i] & 15;
        code[16 + i] = qs[i] >> 4;
    }
}

/* 32 bits, one an element. */
static void add_fifth_bits(const uint8_t *qh, uint8_t *code)
{
    for (int i = 0; i < 32; i++)
        code[i] = (uint8_t)(code[i] | (qh[i / 8] >> i % 8 & 1) << 4);
}

/* 32 bytes that hold this part and others: `mask` at `shift` of each. */
static void fields_32(const uint8_t *qs, unsigned shift, unsigned mask, uint8_t *code)
{
    for (int i = 0; i < 32; i++)
        code[i] = (uint8_t)(qs[i] >> shift & mask);
}

/* The 6-bit scales and minima of Q4_K and Q5_K: 8 of each in 12 bytes. */
static void six_bit_scale_and_minimum(const uint8_t *s, uint32_t part, struct block_part *out)
{
    if (part < 4) {
        out->scale[0] = s[part] & 63;
        out->min[0] = s[part + 4] & 63;
    } else {
        out->scale[0] = (uint8_t)((s[part + 4] & 15) | s[part - 4] >> 6 << 4);
        out->min[0] = (uint8_t)(s[part + 4] >> 4 | s[part] >> 6 << 4);
    }
}

static void part_q2_k(const uint8_t *b, uint32_t part, struct block_part *out)
{
    const uint8_t *scales = b, *qs = b + 16;
    fields_32(qs + 32 * (part / 4), 2 * (part % 4), 3, out->code);
    for (uint32_t i = 0; i < 2; i++) {
        out->scale[i] = scales[2 * part + i] & 15;
        out->min[i] = scales[2 * part + i] >> 4;
    }
    out->d = u16_at(b + 80);
    out->dmin = u16_at(b + 82);
}

static void part_q3_k(const uint8_t *b, uint32_t part, struct block_part *out)
{
    const uint8_t *high = b, *qs = b + 32, *scales = b + 96;
    fields_32(qs + 32 * (part / 4), 2 * (part % 4), 3, out->code);
    for (uint32_t i = 0; i < 32; i++)
        out->code[i] = (uint8_t)(out->code[i] | (high[i] >> part & 1) << 2);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t at = 2 * part + i;
        unsigned low = at < 8 ? scales[at] & 15u : scales[at - 8] >> 4;
        unsigned top = scales[8 + at % 4] >> 2 * (at / 4) & 3u;
        out->scale[i] = (uint8_t)((low | top << 4) - 32);
    }
    out->d = u16_at(b + 108);
}

static void part_q6_k(const uint8_t *b, uint32_t part, struct block_part *out)
{
    const uint8_t *low = b + 64 * (part / 4) + 32 * (part % 2), *high = b + 128 + 32 * (part / 4), *scales = b + 192;
    fields_32(low, part % 4 / 2 * 4, 15, out->code);
    for (uint32_t i = 0; i < 32; i++)
        out->code[i] = (uint8_t)(out->code[i] | (high[i] >> 2 * (part % 4) & 3) << 4);
    out->scale[0] = scales[2 * part];
    out->scale[1] = scales[2 * part + 1];
    out->d = u16_at(b + 208);
}

static void part_iq4_xs(const uint8_t *b, uint32_t part, struct block_part *out)
{
    unsigned low = b[4 + part / 2] >> 4 * (part % 2) & 15u;
    unsigned high = u16_at(b + 2) >> 2 * part & 3u;
    out->scale[0] = (uint8_t)((low | high << 4) - 32);
    out->d = u16_at(b);
    nibbles_16(b + 8 + 16 * part, out->code);
}

void block_part(enum tensor_type type, const uint8_t *b, uint32_t part, struct block_part *out)
{
    memset(out, 0, sizeof *out);
    switch ((int)type) {
    case TENSOR_Q8_0:
        out->d = u16_at(b);
        for (int i = 0; i < 32; i++)
            out->code[i] = b[2 + i] ^ 0x80;
        return;
    case TENSOR_Q4_0:
    case TENSOR_IQ4_NL:
        out->d = u16_at(b);
        nibbles_16(b + 2, out->code);
        return;
    case TENSOR_Q4_1:
        out->d = u16_at(b);
        out->dmin = u16_at(b + 2);
        nibbles_16(b + 4, out->code);
        return;
    case TENSOR_Q5_0:
        out->d = u16_at(b);
        nibbles_16(b + 6, out->code);
        add_fifth_bits(b + 2, out->code);
        return;
    case TENSOR_Q5_1:
        out->d = u16_at(b);
        out->dmin = u16_at(b + 2);
        nibbles_16(b + 8, out->code);
        add_fifth_bits(b + 4, out->code);
        return;
    case TENSOR_MXFP4:
        out->scale[0] = b[0];
        nibbles_16(b + 1, out->code);
        return;
    case TENSOR_Q2_K:
        part_q2_k(b, part, out);
        return;
    case TENSOR_Q3_K:
        part_q3_k(b, part, out);
        return;
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
        out->d = u16_at(b);
        out->dmin = u16_at(b + 2);
        six_bit_scale_and_minimum(b + 4, part, out);
        fields_32(b + (type == TENSOR_Q4_K ? 16 : 48) + 32 * (part / 2), part % 2 * 4, 15, out->code);
        for (uint32_t i = 0; type == TENSOR_Q5_K && i < 32; i++)
            out->code[i] = (uint8_t)(out->code[i] | (b[16 + i] >> part & 1) << 4);
        return;
    case TENSOR_Q6_K:
        part_q6_k(b, part, out);
        return;
    case TENSOR_IQ4_XS:
        part_iq4_xs(b, part, out);
        return;
    default:
        must_not_reach();
    }
}

/* 32 values from codes and scales; the one place where floats are made of them. */
static void quantised_to_float(enum tensor_type type, const uint8_t *blocks, uint64_t elements, float *out)
{
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    struct tile_format f = tile_format(type);
    uint32_t parts = traits->block_elements / TILE_K;
    struct block_part part;
    for (uint64_t i = 0; i < elements / TILE_K; i++) {
        block_part(type, blocks + i / parts * traits->block_bytes, (uint32_t)(i % parts), &part);
        for (uint32_t k = 0; k < TILE_K; k++) {
            uint32_t sub = k * f.sub_blocks / TILE_K;
            int code = f.table ? f.table[part.code[k]] : part.code[k] - f.bias;
            out[i * TILE_K + k] =
                scale_value(f, part.d, part.scale[sub]) * (float)code + minimum_value(f, part.dmin, part.min[sub]);
        }
    }
}

void blocks_to_float(enum tensor_type type, const uint8_t *blocks, uint64_t elements, float *out)
{
    switch ((int)type) {
    case TENSOR_F32:
        memcpy(out, blocks, elements * sizeof *out);
        return;
    case TENSOR_F16:
        for (uint64_t i = 0; i < elements; i++)
            out[i] = f32_from_f16(u16_at(blocks + 2 * i));
        return;
    case TENSOR_BF16:
        for (uint64_t i = 0; i < elements; i++)
            out[i] = f32_from_bf16(u16_at(blocks + 2 * i));
        return;
    default:
        must(tiles_know(type));
        quantised_to_float(type, blocks, elements, out);
    }
}
