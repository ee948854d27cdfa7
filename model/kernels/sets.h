/*
 * sets: the parts that the vector sets are put together from; for this folder only.
 */
#ifndef QUIRE_MODEL_KERNELS_SETS_H
#define QUIRE_MODEL_KERNELS_SETS_H

#include <stdbool.h>

#include "model/kernels/attend_blocks.h"

#if defined(__x86_64__)

extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;

void product_avx512(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                    float *y, size_t y_stride, enum product_mode mode, void *scratch);
void attend_avx512(const struct attention *a);
extern const struct attend_steps attend_steps_avx512[KV_TYPES];

void product_avx2(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                  float *y, size_t y_stride, enum product_mode mode, void *scratch);
void attend_avx2(const struct attention *a);
extern const struct attend_steps attend_steps_avx2[KV_TYPES];

#endif
#endif
