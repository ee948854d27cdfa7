/*
 * product_blas: float matrix products of many tokens by OpenBLAS, for --prefill-math blas: the yardstick of the kernel sets' own
 * float product, and the faster way where only the plain C set runs. Outside the promise of equal bits: sgemm adds up in
 * an order that depends on the number of tokens, the cut of the rows and the processor. Nothing here runs unless somebody
 * asked for it.
 *
 * OpenBLAS is loaded, not linked: at load it maps 30 MiB and starts a thread for each core, and a worker is one computing
 * thread whose start is somebody's waiting time.
 */
#ifndef QUIRE_MODEL_PRODUCT_BLAS_H
#define QUIRE_MODEL_PRODUCT_BLAS_H

#include "base/err.h"
#include "model/kernels/kernels.h"

/* Fewer tokens stay with the kernel set: widening and repacking the weights would be most of the work. */
enum { PRODUCT_BLAS_TOKENS = 16 };

/*
 * Loads OpenBLAS with one thread and lets it take its memory, once a process; repeated calls do nothing. Before other
 * threads: it sets OPENBLAS_NUM_THREADS. ERR_UNSUPPORTED: there is no OpenBLAS here.
 */
enum err product_blas_load(struct why *why);

/* Whether product_blas computes this: a float type and enough tokens. */
bool product_blas_takes(const struct tile_matrix *w, uint32_t tokens);

/*
 * As product of struct kernels, of what product_blas_takes, after product_blas_load; kernels widen its f16. scratch: product_blas_scratch_bytes() bytes,
 * KERNEL_ALIGN-aligned, private.
 * The only memory that is taken in here is OpenBLAS's own for products of less than 10^6 multiplications, given back at once.
 */
void product_blas(const struct kernels *kernels, const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile,
                  const struct activations *a, float *y, size_t y_stride, enum product_mode mode, void *scratch);
size_t product_blas_scratch_bytes(void);

#endif
