/*
 * tiles: the one layout of weights in memory: 16 output rows x 32 k a tile (quantised types), 16 rows x 1 k (float
 * types).
 *
 * Row tiles follow one another; within a row tile the k blocks follow one another, so a range of row tiles is one
 * contiguous run of bytes. Rows are padded to 16 with zero weights.
 *
 * A quantised tile is bit planes of unsigned codes, then scales; weight = d * (code - bias) + m, the bias being the
 * type's. 8-bit codes stand as [k/4][16 rows][4]; 4-bit codes hold k groups g and g + 4 in the low and high nibble of
 * byte [g][row][i], g = 0..3. One zmm register is one [16 rows][4 k], which is the operand of AVX-512 VNNI and half of
 * a row of AMX int8's second operand. Exactly which planes and scales each type has: tile_format.h. Bytes of 16 rows x 32 k:
 *
 *   Q4_0, IQ4_NL 288   Q4_1 320   Q5_0 352   Q5_1 384   Q8_0 544   MXFP4 272
 *   of 16 rows x 256 k: Q2_K 1344   Q3_K 1824   Q4_K 2368   Q5_K 2880   Q6_K 3360   IQ4_XS 2208
 *
 * Float types are [k][16 rows] of the type's own elements.
 */
#ifndef QUIRE_MODEL_TILES_H
#define QUIRE_MODEL_TILES_H

#include <stdbool.h>
#include <stdint.h>

#include "model/tensor_type.h"

enum { TILE_ROWS = 16, TILE_K = 32 };

struct tile_matrix {
    enum tensor_type type;
    uint32_t rows; /* output features; the tiles hold it rounded up to 16 */
    uint32_t cols; /* input features */
    const uint8_t *tiles;
};

/* True when there is a layout and a kernel for the type. */
bool tiles_know(enum tensor_type type);

/*
 * Bytes of one row tile (16 rows) of `cols` columns, and of the whole matrix; false when it overflows or cols is no
 * multiple of the block.
 */
bool tiles_row_tile_bytes(enum tensor_type type, uint32_t cols, uint64_t *bytes);
bool tiles_bytes(enum tensor_type type, uint32_t rows, uint32_t cols, uint64_t *bytes);

/*
 * Builds row tiles [first_tile, last_tile) from GGUF rows (rows one after the other in the file's blocks).
 * dst is the start of the whole matrix. row_of, when not NULL, maps a tile row to its row in the file (permutations).
 */
void tiles_build(enum tensor_type type, uint8_t *dst, const uint8_t *gguf_rows, uint32_t rows, uint32_t cols,
                 uint32_t first_tile, uint32_t last_tile, const uint32_t *row_of);

/* One row as floats (cols of them): embedding look-up. Exactly what the blocks stand for. */
void tiles_row(const struct tile_matrix *w, uint32_t row, float *out);

/* Dequantises `elements` values of GGUF blocks; the meaning that the tests hold every kernel to. */
void blocks_to_float(enum tensor_type type, const uint8_t *blocks, uint64_t elements, float *out);

#endif
