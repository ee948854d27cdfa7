/*
 * product_rows: what the vector sets' products have in common. For product_*.c and tiles_avx512.h only.
 */
#ifndef QUIRE_MODEL_KERNELS_PRODUCT_ROWS_H
#define QUIRE_MODEL_KERNELS_PRODUCT_ROWS_H

#include "model/kernels/kernels.h"
#include "model/tile_format.h"

#define SPECIALISED static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum {
    GROUPS = TILE_K / 4,
    FETCH_AHEAD = 3072, /* bytes, by measurement (bench_step, decode of 1 to 8 on Zen 4) */
};

/* Where results go. */
struct destination {
    float *y;
    size_t y_stride;
    uint32_t rows, tokens;
    enum product_mode mode;
};

/* Asks for the tile that stands FETCH_AHEAD bytes after block b: past the end of weights, nothing happens. */
SPECIALISED void fetch_ahead(struct tile_format f, const uint8_t *row_tile, uint32_t b)
{
    const uint8_t *head, *ahead = tile_at(f, row_tile, b, &head) + FETCH_AHEAD;
    for (uint32_t line = 0; line < tile_bytes(f); line += KERNEL_ALIGN)
        __builtin_prefetch(ahead + line, 0, 3);
}

/*
 * The next row tile, fetched into the second-level cache while several groups of tokens pass over this one: evenly,
 * because a burst would stop them, and not into the first level, where inputs and this row tile lie.
 */
struct next_row_tile {
    const uint8_t *at, *end;
    uint32_t step; /* bytes at a time */
};

SPECIALISED struct next_row_tile next_row_tile(const uint8_t *row_tile, uint64_t bytes, uint32_t passes,
                                               uint32_t blocks)
{
    uint64_t times = (uint64_t)passes * blocks;
    return (struct next_row_tile){row_tile, row_tile + bytes, (uint32_t)((bytes + times - 1) / times)};
}

/* Once for each block of a pass. */
SPECIALISED void next_row_tile_fetch(struct next_row_tile *next)
{
    if (next->at >= next->end)
        return;
    for (uint32_t i = 0; i < next->step; i += KERNEL_ALIGN)
        __builtin_prefetch(next->at + i, 0, 2);
    next->at += next->step;
}

#endif
