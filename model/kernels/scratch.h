/*
 * scratch: how the kernel sets use the memory that callers hand them.
 */
#ifndef QUIRE_MODEL_KERNELS_SCRATCH_H
#define QUIRE_MODEL_KERNELS_SCRATCH_H

#include <stdint.h>

#include "model/tiles.h"

/* One tile with one code to a byte, so that bits are unpacked once for many tokens. */
struct unpacked_block {
    uint8_t code[TILE_K / 4][TILE_ROWS][4]; /* for AMX signed and without bias */
    float d[2][TILE_ROWS], m[2][TILE_ROWS]; /* of the sub-blocks; [1] only where the type has two */
};

/*
 * Attention works on blocks of up to this many (query, head) rows at a time, so that a K or V line is widened once for
 * all of them: scores (ATTENTION_ROWS, ATTENTION_GRID), then o of a chunk and o of all chunks so far (ATTENTION_ROWS,
 * head_dim).
 */
enum { ATTENTION_ROWS = 12 };

#endif
