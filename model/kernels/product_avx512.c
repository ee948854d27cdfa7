/*
 * product_avx512: matrix products with VNNI. One register holds 16 rows x 4 k of codes, one vpdpbusd multiplies it
 * with 4 inputs of one token (broadcast from memory) into 16 int32 sums, so no horizontal sum is ever needed.
 *
 * Up to 8 tokens: tiles are unpacked in registers, in the order in which they lie in memory. More: types that unpack
 * quickly are unpacked again for each further group of 8 tokens; of others the unpacked row tile goes to scratch and is
 * multiplied from there. Functions here are specialised by inlining: `type`, `f`, `n` and `width` are constants in each
 * use.
 */
#include "model/kernels/sets.h"
#include "model/kernels/tiles_avx512.h"

SPECIALISED __m512i four_inputs(const int8_t *q)
{
    int32_t four;
    __builtin_memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

SPECIALISED unsigned bits_of(uint8_t bias)
{
    return bias ? (unsigned)__builtin_ctz(bias) : 0;
}

/* y[c] of 16 rows += one block, for n tokens; bias is 2^bias_bits, 0: none */
SPECIALISED void add_block(const struct block_registers *w, uint32_t sub_blocks, bool minimum, unsigned bias_bits,
                           uint32_t n, struct block_inputs in, __m512 *y)
{
    UNROLL
    for (uint32_t s = 0; s < sub_blocks; s++) {
        uint32_t first = s * GROUPS / sub_blocks, last = (s + 1) * GROUPS / sub_blocks;
        __m512i acc[ACTIVATION_GROUP];
        UNROLL
        for (uint32_t c = 0; c < n; c++)
            acc[c] = _mm512_setzero_si512();
        UNROLL
        for (uint32_t i = 0; i < last - first; i++) {
            UNROLL
            for (uint32_t c = 0; c < n; c++) { /* diagonally, so that neighbouring loads come from different banks */
                uint32_t g = first + (i + c) % (last - first);
                acc[c] = _mm512_dpbusd_epi32(acc[c], w->code[g], four_inputs(in.q + c * TILE_K + g * 4));
            }
        }
        UNROLL
        for (uint32_t c = 0; c < n; c++) {
            if (bias_bits) {
                int32_t bias = (int32_t)((uint32_t)sum_of_codes(&in, sub_blocks, s, c) << bias_bits);
                acc[c] = _mm512_sub_epi32(acc[c], _mm512_set1_epi32(bias));
            }
            y[c] = add_sums(y[c], acc[c], w->d[s], minimum, w->m[s], &in, sub_blocks, s, c);
        }
    }
}

/*
 * One row tile for n tokens of a group. Unpacked blocks stay in `keep` for other groups, if there is a keep. `next` NULL:
 * there are no other groups.
 */
SPECIALISED void product_packed(struct tile_format f, uint32_t n, uint32_t width, const uint8_t *row_tile,
                                uint32_t tile, uint32_t group, const struct activations *a,
                                const struct destination *to, struct unpacked_block *keep, struct next_row_tile *next)
{
    struct block_registers registers;
    __m512 y[ACTIVATION_GROUP];
    UNROLL
    for (uint32_t c = 0; c < n; c++)
        y[c] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < a->cols / TILE_K; b++) {
        if (next)
            next_row_tile_fetch(next);
        else
            fetch_ahead(f, row_tile, b);
        unpack_block(f, row_tile, b, &registers);
        if (keep)
            keep_block(f, &registers, 0, &keep[b]);
        add_block(&registers, f.sub_blocks, f.minimum, bits_of(f.bias), n, inputs_at(a, width, group, b), y);
    }
    store_rows(to, tile, group * ACTIVATION_GROUP, n, y);
}

/* All groups of tokens, each unpacking the row tile again, which lies in the first-level cache. */
SPECIALISED void product_packed_groups(struct tile_format f, const uint8_t *row_tile, uint32_t tile,
                                       const struct activations *a, const struct destination *to,
                                       struct next_row_tile *next)
{
    for (uint32_t group = 0; group * ACTIVATION_GROUP < a->tokens; group++) {
        uint32_t left = a->tokens - group * ACTIVATION_GROUP;
        if (left > 4)
            product_packed(f, ACTIVATION_GROUP, ACTIVATION_GROUP, row_tile, tile, group, a, to, NULL, next);
        else if (left > 2)
            product_packed(f, 4, ACTIVATION_GROUP, row_tile, tile, group, a, to, NULL, next);
        else
            product_packed(f, 2, ACTIVATION_GROUP, row_tile, tile, group, a, to, NULL, next);
    }
}

/* One unpacked row tile with n tokens of a group. */
SPECIALISED void product_group(uint32_t sub_blocks, bool minimum, unsigned bias_bits, uint32_t n,
                               const struct unpacked_block *w, uint32_t tile, uint32_t group,
                               const struct activations *a, const struct destination *to, struct next_row_tile *next)
{
    struct block_registers registers;
    __m512 y[ACTIVATION_GROUP];
    UNROLL
    for (uint32_t c = 0; c < n; c++)
        y[c] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < a->cols / TILE_K; b++) {
        next_row_tile_fetch(next);
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            registers.code[g] = _mm512_load_si512(w[b].code[g]);
        UNROLL
        for (uint32_t s = 0; s < sub_blocks; s++) {
            registers.d[s] = _mm512_load_ps(w[b].d[s]);
            if (minimum)
                registers.m[s] = _mm512_load_ps(w[b].m[s]);
        }
        add_block(&registers, sub_blocks, minimum, bias_bits, n, inputs_at(a, ACTIVATION_GROUP, group, b), y);
    }
    store_rows(to, tile, group * ACTIVATION_GROUP, n, y);
}

/* All groups of tokens but the first. */
SPECIALISED void product_groups(uint32_t sub_blocks, bool minimum, unsigned bias_bits, const struct unpacked_block *w,
                                uint32_t tile, const struct activations *a, const struct destination *to,
                                struct next_row_tile *next)
{
    for (uint32_t group = 1; group * ACTIVATION_GROUP < a->tokens; group++) {
        uint32_t left = a->tokens - group * ACTIVATION_GROUP;
        if (left > 4)
            product_group(sub_blocks, minimum, bias_bits, 8, w, tile, group, a, to, next);
        else if (left > 2)
            product_group(sub_blocks, minimum, bias_bits, 4, w, tile, group, a, to, next);
        else
            product_group(sub_blocks, minimum, bias_bits, 2, w, tile, group, a, to, next);
    }
}

static void product_unpacked(struct tile_format f, const struct unpacked_block *w, uint32_t tile,
                             const struct activations *a, const struct destination *to, struct next_row_tile *next)
{
    if (f.sub_blocks == 2 && f.minimum)
        product_groups(2, true, 0, w, tile, a, to, next);
    else if (f.sub_blocks == 2)
        product_groups(2, false, bits_of(f.bias), w, tile, a, to, next);
    else if (f.minimum)
        product_groups(1, true, 0, w, tile, a, to, next);
    else
        product_groups(1, false, bits_of(f.bias), w, tile, a, to, next);
}

/*
 * Whether unpacking a tile again for each group of tokens is quicker than writing it out unpacked once and reading
 * that. By measurement (bench_kernels): for bytes, and for nibbles under a scale that is there, whatever the number
 * of tokens.
 */
SPECIALISED bool unpacks_quickly(struct tile_format f)
{
    return (f.planes == PLANE_FOUR || f.planes == PLANE_EIGHT) && f.scale == SCALE_F16 && !f.table;
}

/* All tokens of one group of `width`. */
SPECIALISED void product_one_group(struct tile_format f, uint32_t width, const struct tile_matrix *w,
                                   uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                                   const struct destination *to)
{
    uint64_t tile_size;
    tiles_row_tile_bytes(w->type, w->cols, &tile_size);
    for (uint32_t tile = first_tile; tile < last_tile; tile++)
        product_packed(f, width, width, w->tiles + tile * tile_size, tile, 0, a, to, NULL, NULL);
}

SPECIALISED void product_several_groups(struct tile_format f, const struct tile_matrix *w, uint32_t first_tile,
                                        uint32_t last_tile, const struct activations *a, const struct destination *to,
                                        struct unpacked_block *unpacked)
{
    uint64_t tile_size;
    tiles_row_tile_bytes(w->type, w->cols, &tile_size);
    uint32_t groups = (a->tokens + ACTIVATION_GROUP - 1) / ACTIVATION_GROUP;
    for (uint32_t tile = first_tile; tile < last_tile; tile++) {
        const uint8_t *row_tile = w->tiles + tile * tile_size;
        struct next_row_tile next = next_row_tile(row_tile + tile_size, tile_size, groups, a->cols / TILE_K);
        if (unpacks_quickly(f)) {
            product_packed_groups(f, row_tile, tile, a, to, &next);
        } else {
            product_packed(f, ACTIVATION_GROUP, ACTIVATION_GROUP, row_tile, tile, 0, a, to, unpacked, &next);
            product_unpacked(f, unpacked, tile, a, to, &next);
        }
    }
}

SPECIALISED void product_quantised(enum tensor_type type, const struct tile_matrix *w, uint32_t first_tile,
                                   uint32_t last_tile, const struct activations *a, const struct destination *to,
                                   void *scratch)
{
    struct tile_format f = tile_format(type);
    if (a->tokens > ACTIVATION_GROUP)
        product_several_groups(f, w, first_tile, last_tile, a, to, scratch);
    else if (a->width == ACTIVATION_GROUP)
        product_one_group(f, ACTIVATION_GROUP, w, first_tile, last_tile, a, to);
    else if (a->width == 4)
        product_one_group(f, 4, w, first_tile, last_tile, a, to);
    else if (a->width == 2)
        product_one_group(f, 2, w, first_tile, last_tile, a, to);
    else
        product_one_group(f, 1, w, first_tile, last_tile, a, to);
}

SPECIALISED __m512 float_weights(enum tensor_type type, const uint8_t *row_tile, uint32_t k)
{
    switch ((int)type) {
    case TENSOR_F32:
        return _mm512_loadu_ps(row_tile + (size_t)k * 64);
    case TENSOR_F16:
        return halves_at(row_tile + (size_t)k * 32);
    default: {
        __m256i upper = _mm256_loadu_si256((const __m256i *)(const void *)(row_tile + (size_t)k * 32));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(upper), 16));
    }
    }
}

/* `tiles` row tiles at once (to have enough sums in flight) for n tokens from `first` on. */
SPECIALISED void float_tiles(enum tensor_type type, uint32_t tiles, uint32_t n, const struct tile_matrix *w,
                             uint32_t tile, uint32_t first, const struct activations *a, const struct destination *to)
{
    uint64_t tile_size;
    tiles_row_tile_bytes(type, w->cols, &tile_size);
    const uint8_t *row_tile = w->tiles + tile * tile_size;
    const float *x[ACTIVATION_GROUP];
    __m512 y[4][ACTIVATION_GROUP];
    UNROLL
    for (uint32_t c = 0; c < n; c++) {
        uint32_t token = first + c < a->tokens ? first + c : a->tokens - 1; /* the padding repeats the last one */
        x[c] = a->x + token * a->x_stride;
    }
    UNROLL
    for (uint32_t i = 0; i < tiles; i++) {
        UNROLL
        for (uint32_t c = 0; c < n; c++)
            y[i][c] = _mm512_setzero_ps();
    }
    for (uint32_t k = 0; k < w->cols; k++) {
        UNROLL
        for (uint32_t i = 0; i < tiles; i++) {
            __m512 weights = float_weights(type, row_tile + i * tile_size, k);
            UNROLL
            for (uint32_t c = 0; c < n; c++)
                y[i][c] = _mm512_fmadd_ps(weights, _mm512_set1_ps(x[c][k]), y[i][c]);
        }
    }
    UNROLL
    for (uint32_t i = 0; i < tiles; i++)
        store_rows(to, tile + i, first, n, y[i]);
}

SPECIALISED void product_float(enum tensor_type type, const struct tile_matrix *w, uint32_t first_tile,
                               uint32_t last_tile, const struct activations *a, const struct destination *to)
{
    uint32_t tile = first_tile;
    if (a->tokens == 1)
        for (; tile + 4 <= last_tile; tile += 4)
            float_tiles(type, 4, 1, w, tile, 0, a, to);
    for (; a->tokens > 1 && tile + 2 <= last_tile; tile += 2) {
        uint32_t first = 0;
        for (; a->tokens - first > 4;
             first += ACTIVATION_GROUP < a->tokens - first ? ACTIVATION_GROUP : a->tokens - first)
            float_tiles(type, 2, 8, w, tile, first, a, to);
        if (first < a->tokens)
            float_tiles(type, 2, 4, w, tile, first, a, to);
    }
    for (; tile < last_tile; tile++)
        for (uint32_t first = 0; first < a->tokens; first += 4)
            float_tiles(type, 1, 4, w, tile, first, a, to);
}

void product_avx512(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                    float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    uint32_t all = (uint32_t)(((uint64_t)w->rows + TILE_ROWS - 1) / TILE_ROWS);
    struct destination to = {y, y_stride, w->rows, a->tokens, mode};
    last_tile = last_tile < all ? last_tile : all;
    if (a->tokens == 0 || first_tile >= last_tile)
        return;
    switch ((int)w->type) {
#define FLOAT(type)                                                     \
    case TENSOR_##type:                                                 \
        product_float(TENSOR_##type, w, first_tile, last_tile, a, &to); \
        return;
        FLOAT(F32)
        FLOAT(F16)
        FLOAT(BF16)
#define QUANTISED(type)                                                              \
    case TENSOR_##type:                                                              \
        product_quantised(TENSOR_##type, w, first_tile, last_tile, a, &to, scratch); \
        return;
        QUANTISED_TYPES(QUANTISED)
    default:
        return;
    }
}
