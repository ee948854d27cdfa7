/*
 * tiles: the one layout of weights in memory: 16 output rows x 32 k a tile (quantised types), 16 rows x 1 k (float types).
 *
 * Row tiles follow one another; within a row tile the k blocks follow one another, so a range of row tiles is one
 * contiguous run of bytes. Rows are padded to 16 with zero weights.
 *
 * A quantised tile is [codes][d: 16 f16][m: 16 f16, only types with a minimum]; weight = d * code' + m, where code' is the
 * stored unsigned code minus the type's bias (Q4_0: 8, Q8_0: 128, Q4_1: 0). 8-bit codes stand as [k/4][16 rows][4];
 * 4-bit codes hold k groups g and g + 4 in the low and high nibble of byte [g][row][i], g = 0..3.
 * One zmm register is one [16 rows][4 k], which is the operand of AVX-512 VNNI and half of an AMX int8 tile row pair.
 *
 *   Q4_0: 256 + 32 = 288 bytes     Q4_1: 256 + 32 + 32 = 320     Q8_0: 512 + 32 = 544
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

/* Bytes of one row tile (16 rows) of `cols` columns, and of the whole matrix; false when it overflows or cols is no multiple of the block. */
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
