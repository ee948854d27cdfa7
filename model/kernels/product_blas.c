/*
 * product_blas: see product_blas.h. A panel of up to PANEL_K inputs x PANEL_ROWS output rows is widened to float, row tiles
 * side by side, and multiplied with all tokens: y (tokens, rows) (+)= x (tokens, k) panel (k, rows). Panels go in order of k
 * within a block of rows, so a panel stays in L2 while it is read and y is written once for every PANEL_K inputs.
 */
#include "model/kernels/product_blas.h"

#include <cblas.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/float16.h"

enum {
    PANEL_K = 512,
    PANEL_TILES = 16,
    PANEL_ROWS = PANEL_TILES * TILE_ROWS,
    WARM_TOKENS = 256, /* past OpenBLAS's path for small products, which takes no memory */
};

static __typeof__(cblas_sgemm) *sgemm; /* NULL until loaded; constant afterwards */

size_t product_blas_scratch_bytes(void)
{
    return (size_t)PANEL_K * PANEL_ROWS * sizeof(float);
}

bool product_blas_takes(const struct tile_matrix *w, uint32_t tokens)
{
    return tokens >= PRODUCT_BLAS_TOKENS && (w->type == TENSOR_F32 || w->type == TENSOR_F16 || w->type == TENSOR_BF16);
}

/* One product of some size: OpenBLAS keeps the buffer that it takes for it, so that no step takes memory. */
static enum err warm_up(struct why *why)
{
    enum { COUNT = WARM_TOKENS * WARM_TOKENS };
    float *memory = calloc(3 * (size_t)COUNT, sizeof *memory);
    if (!memory)
        return because(why, ERR_NOMEM, "no memory to try OpenBLAS");
    sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, WARM_TOKENS, WARM_TOKENS, WARM_TOKENS, 1, memory, WARM_TOKENS,
          memory + COUNT, WARM_TOKENS, 0, memory + 2 * COUNT, WARM_TOKENS);
    free(memory);
    return OK;
}

enum err product_blas_load(struct why *why)
{
    if (sgemm)
        return OK;
    setenv("OPENBLAS_NUM_THREADS", "1", 1);                            /* read at load: no thread is ever started */
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL); /* stays until the process ends */
    __typeof__(openblas_set_num_threads) *set_threads = NULL;
    if (library) {
        set_threads = (__typeof__(set_threads))dlsym(library, "openblas_set_num_threads");
        sgemm = (__typeof__(sgemm))dlsym(library, "cblas_sgemm");
    }
    if (!set_threads || !sgemm) {
        sgemm = NULL;
        return because(
            why, ERR_UNSUPPORTED,
            "could not load OpenBLAS for --prefill-math blas: %.200s; install libopenblas0 or serve with --prefill-math exact",
            dlerror());
    }
    set_threads(1); /* also where the build of OpenBLAS reads no such variable */
    return warm_up(why);
}

/* The k-th input's weights of one row tile, as floats. */
static void widen(const struct kernels *kernels, enum tensor_type type, const uint8_t *from, float to[TILE_ROWS])
{
    const uint16_t *half = (const uint16_t *)(const void *)from;
    if (type == TENSOR_F32)
        memcpy(to, from, TILE_ROWS * sizeof *to);
    else if (type == TENSOR_F16)
        kernels->from_f16(to, half, TILE_ROWS);
    else
        for (uint32_t r = 0; r < TILE_ROWS; r++)
            to[r] = f32_from_bf16(half[r]);
}

/* panel (k_count, PANEL_ROWS): inputs from first_k on of `tiles` row tiles from first_tile on. */
static void fill_panel(const struct kernels *kernels, const struct tile_matrix *w, uint32_t first_tile, uint32_t tiles,
                       uint32_t first_k, uint32_t k_count, float *panel)
{
    uint64_t tile_bytes = 0;
    must(tiles_row_tile_bytes(w->type, w->cols, &tile_bytes));
    uint64_t k_bytes = tile_bytes / w->cols;
    for (uint32_t t = 0; t < tiles; t++) {
        const uint8_t *from = w->tiles + (first_tile + t) * tile_bytes + first_k * k_bytes;
        for (uint32_t k = 0; k < k_count; k++)
            widen(kernels, w->type, from + k * k_bytes, panel + (size_t)k * PANEL_ROWS + (size_t)t * TILE_ROWS);
    }
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void product_blas(const struct kernels *kernels, const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile,
                  const struct activations *a, float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    must(sgemm && product_blas_takes(w, a->tokens));
    float *panel = scratch;
    for (uint32_t tile = first_tile, tiles; tile < last_tile; tile += tiles) {
        tiles = least(PANEL_TILES, last_tile - tile);
        uint32_t row = tile * TILE_ROWS, rows = least(tiles * TILE_ROWS, w->rows - row);
        for (uint32_t k = 0, count; k < w->cols; k += count) {
            count = least(PANEL_K, w->cols - k);
            fill_panel(kernels, w, tile, tiles, k, count, panel);
            float keep = k > 0 || mode == PRODUCT_ADD ? 1 : 0; /* of what stands in y */
            sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)a->tokens, (blasint)rows, (blasint)count, 1,
                  a->x + k, (blasint)a->x_stride, panel, PANEL_ROWS, keep, y + row, (blasint)y_stride);
        }
    }
}
