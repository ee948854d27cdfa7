/*
 * sets: the parts that the vector sets are put together from; for this folder and its tests only.
 */
#ifndef QUIRE_MODEL_KERNELS_SETS_H
#define QUIRE_MODEL_KERNELS_SETS_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "model/kernels/attend_blocks.h"

/* How one token's block becomes codes; amax_bits is its largest magnitude, as a float's bits. */
struct code_scale {
    float scale, inverse;
    bool finite; /* not: all codes are 0 */
};

static inline struct code_scale code_scale(uint32_t amax_bits)
{
    float amax;
    memcpy(&amax, &amax_bits, sizeof amax);
    if (amax_bits >= 0x7f800000)
        return (struct code_scale){NAN, 0, false};
    if (amax < 0x1p-100f)
        return (struct code_scale){0, 0, true};
    return (struct code_scale){amax / 127.0f, 127.0f / amax, true};
}

#if defined(__x86_64__)

extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;
extern const struct kernels kernels_amx; /* kernels_avx512 with the products of product_amx.c */

void product_avx512(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                    float *y, size_t y_stride, enum product_mode mode, void *scratch);
void product_amx(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                 float *y, size_t y_stride, enum product_mode mode, void *scratch);

/* Whether one product by the tile unit is what VNNI makes of it; asked before the set is offered. */
bool amx_agrees(void);

void attend_avx512(const struct attention *a);
extern const struct attend_steps attend_steps_avx512[KV_TYPES];

void product_avx2(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                  float *y, size_t y_stride, enum product_mode mode, void *scratch);
void attend_avx2(const struct attention *a);
extern const struct attend_steps attend_steps_avx2[KV_TYPES];

#endif
#endif
