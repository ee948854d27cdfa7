/*
 * product_rows: what the vector sets' products have in common. For product_avx2.c and product_avx512.c only.
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

/* Asks for the tile that stands `distance` bytes after block b: past the end of weights, nothing happens. */
SPECIALISED void fetch_ahead(struct tile_format f, const uint8_t *row_tile, uint32_t b, uint64_t distance)
{
    const uint8_t *head, *ahead = tile_at(f, row_tile, b, &head) + distance;
    for (uint32_t line = 0; line < tile_bytes(f); line += KERNEL_ALIGN)
        __builtin_prefetch(ahead + line, 0, 3);
}

#endif
