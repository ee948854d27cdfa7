/*
 * tile_format: how each quantised type lies in a tile; for tiles.c and the kernel sets only.
 *
 * All types share one meaning: weight = d * (code - bias) + m over a sub-block of 16 or 32 k. They differ in which bit
 * planes make up a code and in how d and m are written down. The planes of 32 k x 16 rows, in this order where present:
 *
 *   eight   512 bytes  [8 groups][16 rows][4]   the whole code; group g holds k = 4 g .. 4 g + 3
 *   four    256 bytes  [4][16 rows][4]          bits 0..3 of group g in the low, of g + 4 in the high nibble of byte [g]
 *   two     128 bytes  [2][16 rows][4]          2 bits of group 4 h + j at bit 2 j of byte [h]
 *   one      64 bytes  [16 rows][4]             1 bit of group g at bit g
 *
 * A code is eight; or four | two << 4 | one << 4; or two | one << 2 when there is no plane of four. With a table the
 * four bits are an index, and the code is the table's value + 128.
 */
#ifndef QUIRE_MODEL_TILE_FORMAT_H
#define QUIRE_MODEL_TILE_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/tiles.h"

enum { PLANE_ONE = 1, PLANE_TWO = 2, PLANE_FOUR = 4, PLANE_EIGHT = 8 };

/*
 * SCALE_F16  after the planes: d (16 f16), and m (16 f16) when there is a minimum.
 * SCALE_E8M0 after the planes: 16 exponents e; d = 2^(e - 128).
 * SCALE_U8   super-block of 256 k: [d: 16 f16][dmin: 16 f16, with minimum] and 8 tiles of
 *            [planes][sub-scales: sub_blocks x 16 u8][sub-minima: the same, with minimum];
 *            d = d * scale, m = -(dmin * min).
 * SCALE_I8   the same with signed sub-scales.
 * SCALE_U4   the same; one byte holds the sub-scale in its low and the sub-minimum in its high nibble.
 */
enum scale_kind { SCALE_F16, SCALE_E8M0, SCALE_U8, SCALE_I8, SCALE_U4 };

struct tile_format {
    uint8_t planes;     /* sum of PLANE_…; 0: no quantised layout */
    uint8_t bias;       /* always a power of two or 0 */
    uint8_t sub_blocks; /* scales in 32 k: 1 or 2 */
    bool minimum;
    enum scale_kind scale;
    const int8_t *table; /* 16 values, or NULL */
};

/* Every type that tile_format() knows: kernels have a case for each. */
#define QUANTISED_TYPES(X) \
    X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS) X(MXFP4)

/* Constant for constant types, so that kernels specialise by it. */
static inline __attribute__((always_inline)) struct tile_format tile_format(enum tensor_type type)
{
    static const int8_t nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    switch ((int)type) {
    case TENSOR_Q8_0:
        return (struct tile_format){PLANE_EIGHT, 128, 1, false, SCALE_F16, 0};
    case TENSOR_Q4_0:
        return (struct tile_format){PLANE_FOUR, 8, 1, false, SCALE_F16, 0};
    case TENSOR_Q4_1:
        return (struct tile_format){PLANE_FOUR, 0, 1, true, SCALE_F16, 0};
    case TENSOR_Q5_0:
        return (struct tile_format){PLANE_FOUR | PLANE_ONE, 16, 1, false, SCALE_F16, 0};
    case TENSOR_Q5_1:
        return (struct tile_format){PLANE_FOUR | PLANE_ONE, 0, 1, true, SCALE_F16, 0};
    case TENSOR_IQ4_NL:
        return (struct tile_format){PLANE_FOUR, 128, 1, false, SCALE_F16, nonlinear};
    case TENSOR_MXFP4:
        return (struct tile_format){PLANE_FOUR, 128, 1, false, SCALE_E8M0, e2m1_doubled};
    case TENSOR_Q2_K:
        return (struct tile_format){PLANE_TWO, 0, 2, true, SCALE_U4, 0};
    case TENSOR_Q3_K:
        return (struct tile_format){PLANE_TWO | PLANE_ONE, 4, 2, false, SCALE_I8, 0};
    case TENSOR_Q4_K:
        return (struct tile_format){PLANE_FOUR, 0, 1, true, SCALE_U8, 0};
    case TENSOR_Q5_K:
        return (struct tile_format){PLANE_FOUR | PLANE_ONE, 0, 1, true, SCALE_U8, 0};
    case TENSOR_Q6_K:
        return (struct tile_format){PLANE_FOUR | PLANE_TWO, 32, 2, false, SCALE_I8, 0};
    case TENSOR_IQ4_XS:
        return (struct tile_format){PLANE_FOUR, 128, 1, false, SCALE_I8, nonlinear};
    default:
        return (struct tile_format){0, 0, 0, false, SCALE_F16, 0};
    }
}

static inline __attribute__((always_inline)) bool tile_is_super(struct tile_format f)
{
    return f.scale == SCALE_U8 || f.scale == SCALE_I8 || f.scale == SCALE_U4;
}

/* Bytes of the planes of one tile, and of a tile of 32 k with its scales (in a super-block: without the head). */
static inline __attribute__((always_inline)) uint32_t tile_plane_bytes(struct tile_format f)
{
    return f.planes * 64u;
}

static inline __attribute__((always_inline)) uint32_t tile_bytes(struct tile_format f)
{
    uint32_t scales;
    switch (f.scale) {
    case SCALE_F16:
        scales = f.minimum ? 64 : 32;
        break;
    case SCALE_U8:
    case SCALE_I8:
        scales = f.sub_blocks * (f.minimum ? 32u : 16u);
        break;
    case SCALE_U4:
        scales = f.sub_blocks * 16u;
        break;
    case SCALE_E8M0:
    default:
        scales = 16;
        break;
    }
    return tile_plane_bytes(f) + scales;
}

/* Bytes before the first tile of a super-block. */
static inline __attribute__((always_inline)) uint32_t tile_head_bytes(struct tile_format f)
{
    return !tile_is_super(f) ? 0 : f.minimum ? 64 : 32;
}

enum { SUPER_TILES = 8 };

/*
 * Where tile `block` (32 k each) of a row tile starts, and the head of its super-block (the tile itself when it has
 * none).
 */
static inline __attribute__((always_inline)) const uint8_t *tile_at(struct tile_format f, const uint8_t *row_tile,
                                                                    uint32_t block, const uint8_t **head)
{
    if (!tile_is_super(f))
        return *head = row_tile + (uint64_t)block * tile_bytes(f);
    uint64_t super_bytes = tile_head_bytes(f) + SUPER_TILES * tile_bytes(f);
    *head = row_tile + block / SUPER_TILES * super_bytes;
    return *head + tile_head_bytes(f) + block % SUPER_TILES * tile_bytes(f);
}

/* 32 k of one row: what a tile says about it, in plain numbers. */
struct tile_strip {
    uint8_t code[TILE_K];
    float d[2], m[2]; /* of the sub-blocks; with one sub-block both are the same */
};

void tile_strip(enum tensor_type type, const uint8_t *row_tile, uint32_t block, uint32_t row, struct tile_strip *out);

#endif
