/*
 * product_amx: matrix products of more than 8 tokens with AMX int8 (Intel's Software Developer's Manual, volume 2:
 * LDTILECFG, TDPBSSD; Optimization Reference Manual, chapter on AMX). Fewer tokens, and float weights, are
 * product_avx512's.
 *
 * A row tile is unpacked once, its codes signed and without bias, in the order in which the tile unit wants its second
 * operand: 8 rows of 16 x 4 bytes. The first operand is the block of 8 tokens, 32 bytes each, as quantize left it. Each
 * block's sums leave the tile unit at once, because scales change every 32 k; AVX-512 adds them up in order of k while the
 * tile unit is at the next ones. Two groups of tokens at a time share what is loaded of the weights.
 *
 * The operating system must have permitted tile registers (choose.c). They are released before the function ends, so that
 * nobody has to save them.
 */
#include "base/must.h"
#include "model/kernels/sets.h"
#include "model/kernels/tiles_avx512.h"

/* Tile registers; the intrinsics want literal numbers. */
#define SUMS_OF_FIRST 0
#define SUMS_OF_SECOND 1
#define FIRST_INPUTS 2
#define SECOND_INPUTS 3
#define WEIGHTS 4

enum { PAIR = 2, TILE_ROW_BYTES = 64 };

/* What LDTILECFG reads: for each register its rows and the bytes of a row. */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

_Static_assert(sizeof(struct tile_shapes) == 64, "the format of LDTILECFG");

#define SHAPES(sub_blocks)                                     \
    {                                                          \
        .palette = 1,                                          \
        .row_bytes = {[SUMS_OF_FIRST] = 64,                    \
                      [SUMS_OF_SECOND] = 64,                   \
                      [FIRST_INPUTS] = TILE_K / (sub_blocks),  \
                      [SECOND_INPUTS] = TILE_K / (sub_blocks), \
                      [WEIGHTS] = 64},                         \
        .rows = {[SUMS_OF_FIRST] = ACTIVATION_GROUP,           \
                 [SUMS_OF_SECOND] = ACTIVATION_GROUP,          \
                 [FIRST_INPUTS] = ACTIVATION_GROUP,            \
                 [SECOND_INPUTS] = ACTIVATION_GROUP,           \
                 [WEIGHTS] = GROUPS / (sub_blocks)},           \
    }

/* By the number of scales in a block. */
static const struct tile_shapes shapes[2] = {SHAPES(1), SHAPES(2)};

/* All blocks of a row tile, unpacked, codes signed and without bias. */
SPECIALISED void unpack_row_tile(struct tile_format f, const uint8_t *row_tile, uint32_t blocks,
                                 struct unpacked_block *out)
{
    for (uint32_t b = 0; b < blocks; b++) {
        struct block_registers registers;
        unpack_block(f, row_tile, b, &registers);
        keep_block(f, &registers, f.bias, &out[b]);
    }
    __asm__ volatile("" ::: "memory"); /* gcc's intrinsics do not say that they read memory */
}

/* The sums of one sub-block for the first group, and with `groups` 2 for the second one, [8 tokens][16 rows] each. */
SPECIALISED void multiply(uint32_t groups, const uint8_t *weights, const int8_t *first, const int8_t *second,
                          int32_t sums[PAIR][ACTIVATION_GROUP][TILE_ROWS])
{
    _tile_loadd(WEIGHTS, weights, TILE_ROW_BYTES);
    _tile_loadd(FIRST_INPUTS, first, TILE_K);
    _tile_zero(SUMS_OF_FIRST);
    _tile_dpbssd(SUMS_OF_FIRST, FIRST_INPUTS, WEIGHTS);
    _tile_stored(SUMS_OF_FIRST, sums[0], TILE_ROW_BYTES);
    if (groups < PAIR)
        return;
    _tile_loadd(SECOND_INPUTS, second, TILE_K);
    _tile_zero(SUMS_OF_SECOND);
    _tile_dpbssd(SUMS_OF_SECOND, SECOND_INPUTS, WEIGHTS);
    _tile_stored(SUMS_OF_SECOND, sums[1], TILE_ROW_BYTES);
}

/* One unpacked row tile with `groups` groups of tokens from `group` on. */
SPECIALISED void product_groups(uint32_t groups, uint32_t sub_blocks, bool minimum, const struct unpacked_block *w,
                                uint32_t tile, uint32_t group, const struct activations *a,
                                const struct destination *to, struct next_row_tile *next)
{
    _Alignas(KERNEL_ALIGN) int32_t sums[PAIR][ACTIVATION_GROUP][TILE_ROWS];
    __m512 y[PAIR][ACTIVATION_GROUP];
    UNROLL
    for (uint32_t i = 0; i < groups; i++) {
        UNROLL
        for (uint32_t c = 0; c < ACTIVATION_GROUP; c++)
            y[i][c] = _mm512_setzero_ps();
    }
    for (uint32_t b = 0; b < a->cols / TILE_K; b++) {
        const struct block_inputs in[PAIR] = {inputs_at(a, ACTIVATION_GROUP, group, b),
                                              inputs_at(a, ACTIVATION_GROUP, group + groups - 1, b)};
        next_row_tile_fetch(next);
        UNROLL
        for (uint32_t s = 0; s < sub_blocks; s++) {
            size_t k = s * TILE_K / sub_blocks;
            multiply(groups, w[b].code[k / 4][0], in[0].q + k, in[1].q + k, sums);
            __m512 d = _mm512_load_ps(w[b].d[s]), m = minimum ? _mm512_load_ps(w[b].m[s]) : d;
            UNROLL
            for (uint32_t i = 0; i < groups; i++) {
                UNROLL
                for (uint32_t c = 0; c < ACTIVATION_GROUP; c++)
                    y[i][c] = add_sums(y[i][c], _mm512_load_si512(sums[i][c]), d, minimum, m, &in[i], sub_blocks, s, c);
            }
        }
    }
    UNROLL
    for (uint32_t i = 0; i < groups; i++)
        store_rows(to, tile, (group + i) * ACTIVATION_GROUP, ACTIVATION_GROUP, y[i]);
}

/* All tokens with one unpacked row tile. */
SPECIALISED void product_unpacked(uint32_t sub_blocks, bool minimum, const struct unpacked_block *w, uint32_t tile,
                                  const struct activations *a, const struct destination *to, struct next_row_tile *next)
{
    uint32_t groups = (a->tokens + ACTIVATION_GROUP - 1) / ACTIVATION_GROUP, group = 0;
    for (; group + PAIR <= groups; group += PAIR)
        product_groups(PAIR, sub_blocks, minimum, w, tile, group, a, to, next);
    if (group < groups)
        product_groups(1, sub_blocks, minimum, w, tile, group, a, to, next);
}

static void product_of_row_tile(struct tile_format f, const struct unpacked_block *w, uint32_t tile,
                                const struct activations *a, const struct destination *to, struct next_row_tile *next)
{
    if (f.sub_blocks == 2 && f.minimum)
        product_unpacked(2, true, w, tile, a, to, next);
    else if (f.sub_blocks == 2)
        product_unpacked(2, false, w, tile, a, to, next);
    else if (f.minimum)
        product_unpacked(1, true, w, tile, a, to, next);
    else
        product_unpacked(1, false, w, tile, a, to, next);
}

SPECIALISED void product_quantised(enum tensor_type type, const struct tile_matrix *w, uint32_t first_tile,
                                   uint32_t last_tile, const struct activations *a, const struct destination *to,
                                   struct unpacked_block *unpacked)
{
    struct tile_format f = tile_format(type);
    uint64_t tile_size;
    tiles_row_tile_bytes(type, w->cols, &tile_size);
    uint32_t pairs = (a->tokens + PAIR * ACTIVATION_GROUP - 1) / (PAIR * ACTIVATION_GROUP);
    _tile_loadconfig(&shapes[f.sub_blocks - 1]);
    for (uint32_t tile = first_tile; tile < last_tile; tile++) {
        const uint8_t *row_tile = w->tiles + tile * tile_size;
        struct next_row_tile next = next_row_tile(row_tile + tile_size, tile_size, pairs, a->cols / TILE_K);
        unpack_row_tile(f, row_tile, a->cols / TILE_K, unpacked);
        product_of_row_tile(f, unpacked, tile, a, to, &next);
    }
    _tile_release();
}

void product_amx(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                 float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    uint32_t all = (uint32_t)(((uint64_t)w->rows + TILE_ROWS - 1) / TILE_ROWS);
    uint32_t last = last_tile < all ? last_tile : all;
    struct destination to = {y, y_stride, w->rows, a->tokens, mode};
    if (a->tokens > ACTIVATION_GROUP && first_tile < last) {
        switch ((int)w->type) {
#define QUANTISED(type)                                                         \
    case TENSOR_##type:                                                         \
        product_quantised(TENSOR_##type, w, first_tile, last, a, &to, scratch); \
        return;
            QUANTISED_TYPES(QUANTISED)
        default:
            break;
        }
    }
    product_avx512(w, first_tile, last_tile, a, y, y_stride, mode, scratch);
}

bool amx_agrees(void)
{
    enum { ROWS = TILE_ROWS, COLS = 2 * TILE_K, TOKENS = 2 * ACTIVATION_GROUP + 1, PADDED = 3 * ACTIVATION_GROUP };
    _Alignas(KERNEL_ALIGN) uint8_t tiles[COLS / TILE_K][TILE_K * ROWS + 2 * ROWS], memory[PADDED * COLS * 2];
    _Alignas(KERNEL_ALIGN) struct unpacked_block scratch[COLS / TILE_K];
    float x[TOKENS][COLS], by_tiles[TOKENS][ROWS], by_vnni[TOKENS][ROWS];
    for (size_t i = 0; i < sizeof tiles; i++) { /* Q8_0: codes of all sizes, then scales from 0.01 to 0.02 */
        size_t at = i % sizeof tiles[0];
        ((uint8_t *)tiles)[i] = at < TILE_K * ROWS || at % 2 == 0 ? (uint8_t)(i * 151 + i / 7) : 0x22;
    }
    for (uint32_t i = 0; i < TOKENS * COLS; i++)
        x[i / COLS][i % COLS] = (float)((int32_t)(i * 2654435761u) >> 8);
    struct tile_matrix w = {TENSOR_Q8_0, ROWS, COLS, &tiles[0][0]};
    struct activations a;
    must(activations_bytes(TOKENS, COLS) <= sizeof memory);
    activations_place(&a, memory, TOKENS, COLS, &x[0][0], COLS);
    kernels_avx512.quantize(&a, 0, COLS / TILE_K);
    product_amx(&w, 0, 1, &a, &by_tiles[0][0], ROWS, PRODUCT_STORE, scratch);
    product_avx512(&w, 0, 1, &a, &by_vnni[0][0], ROWS, PRODUCT_STORE, scratch);
    return memcmp(by_tiles, by_vnni, sizeof by_tiles) == 0;
}
