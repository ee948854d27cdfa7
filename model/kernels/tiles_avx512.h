/*
 * tiles_avx512: tiles of weights in registers, and results of 16 rows on their way to y. Included by product_avx512.c
 * and product_amx.c only.
 */
#ifndef QUIRE_MODEL_KERNELS_TILES_AVX512_H
#define QUIRE_MODEL_KERNELS_TILES_AVX512_H

#include <immintrin.h>

#include "model/kernels/product_rows.h"
#include "model/kernels/scratch.h"

typedef uint16_t words __attribute__((vector_size(64)));

/* One tile in registers. */
struct block_registers {
    __m512i code[GROUPS]; /* unsigned bytes, [16 rows][4] each */
    __m512 d[2], m[2];
};

SPECIALISED __m512i bytes(int value)
{
    return _mm512_set1_epi8((char)value);
}

/* into | ((from << by) & mask), bytewise as far as mask says; a negative `by` shifts right */
SPECIALISED __m512i or_field(__m512i into, __m512i from, int by, int mask)
{
    words lanes = (words)from;
    lanes = by > 0 ? lanes << by : lanes >> -by;
    return _mm512_ternarylogic_epi32(into, (__m512i)lanes, bytes(mask), 0xf8);
}

SPECIALISED void unpack_codes(struct tile_format f, const uint8_t *at, __m512i code[GROUPS])
{
    int shift = 0;
    if (f.planes & PLANE_EIGHT) {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = _mm512_loadu_si512(at + 64 * g);
        return;
    }
    if (f.planes & PLANE_FOUR) {
        UNROLL
        for (int g = 0; g < 4; g++) {
            __m512i both = _mm512_loadu_si512(at + 64 * g);
            code[g] = _mm512_and_si512(both, bytes(15));
            code[g + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), bytes(15));
        }
        at += PLANE_FOUR * 64;
        shift = 4;
    } else {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = _mm512_setzero_si512();
    }
    if (f.planes & PLANE_TWO) {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = or_field(code[g], _mm512_loadu_si512(at + 64 * (g / 4)), shift - g % 4 * 2, 3 << shift);
        at += PLANE_TWO * 64;
        shift += 2;
    }
    if (f.planes & PLANE_ONE) {
        __m512i bits = _mm512_loadu_si512(at);
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = or_field(code[g], bits, shift - g, 1 << shift);
    }
    if (f.table) {
        __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)f.table));
        table = _mm512_xor_si512(table, bytes(0x80));
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = _mm512_shuffle_epi8(table, code[g]);
    }
}

SPECIALISED __m512 halves_at(const uint8_t *at)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

SPECIALISED __m512i bytes_at(const uint8_t *at)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
}

SPECIALISED __m512 negated(__m512 x)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN)));
}

/* 2^(e - 128), as blocks.h does it */
SPECIALISED __m512 powers_of_two(__m512i e)
{
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), subnormal));
}

SPECIALISED void unpack_scales(struct tile_format f, const uint8_t *scales, const uint8_t *head, __m512 *d, __m512 *m)
{
    UNROLL
    for (int s = 0; s < f.sub_blocks; s++) {
        const uint8_t *at = scales + s * TILE_ROWS;
        switch (f.scale) {
        case SCALE_F16:
            d[s] = halves_at(scales);
            if (f.minimum)
                m[s] = halves_at(scales + 32);
            break;
        case SCALE_E8M0:
            d[s] = powers_of_two(bytes_at(at));
            break;
        case SCALE_U8:
            d[s] = _mm512_mul_ps(halves_at(head), _mm512_cvtepi32_ps(bytes_at(at)));
            if (f.minimum)
                m[s] = negated(
                    _mm512_mul_ps(halves_at(head + 32), _mm512_cvtepi32_ps(bytes_at(at + f.sub_blocks * TILE_ROWS))));
            break;
        case SCALE_I8:
            d[s] = _mm512_mul_ps(halves_at(head), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(
                                                      _mm_loadu_si128((const __m128i *)(const void *)at))));
            break;
        case SCALE_U4: {
            __m512i both = bytes_at(at);
            d[s] = _mm512_mul_ps(halves_at(head), _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15))));
            m[s] = negated(_mm512_mul_ps(halves_at(head + 32), _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4))));
            break;
        }
        }
    }
}

SPECIALISED void unpack_block(struct tile_format f, const uint8_t *row_tile, uint32_t block,
                              struct block_registers *out)
{
    const uint8_t *head, *tile = tile_at(f, row_tile, block, &head);
    unpack_codes(f, tile, out->code);
    unpack_scales(f, tile + tile_plane_bytes(f), head, out->d, out->m);
}

/* Writes an unpacked block out, codes less `bias`. */
SPECIALISED void keep_block(struct tile_format f, const struct block_registers *from, uint8_t bias,
                            struct unpacked_block *to)
{
    UNROLL
    for (int g = 0; g < GROUPS; g++)
        _mm512_store_si512(to->code[g], bias ? _mm512_sub_epi8(from->code[g], bytes(bias)) : from->code[g]);
    UNROLL
    for (int s = 0; s < f.sub_blocks; s++) {
        _mm512_store_ps(to->d[s], from->d[s]);
        if (f.minimum)
            _mm512_store_ps(to->m[s], from->m[s]);
    }
}

/* Where one block of one group of tokens lies. */
struct block_inputs {
    const int8_t *q; /* [width][32] */
    const float *scale, *sum;
    const int32_t *isum, *half;
};

SPECIALISED struct block_inputs inputs_at(const struct activations *a, uint32_t width, uint32_t group, uint32_t block)
{
    size_t index = (size_t)group * (a->cols / TILE_K) + block, at = index * width;
    return (struct block_inputs){a->q + at * TILE_K, a->scale + at, a->sum + at, a->isum + at, a->half + at};
}

/* Of one token c: the sum of its codes of one sub-block. */
SPECIALISED int32_t sum_of_codes(const struct block_inputs *in, uint32_t sub_blocks, uint32_t s, uint32_t c)
{
    return sub_blocks == 1 ? in->isum[c] : s == 0 ? in->half[c] : in->isum[c] - in->half[c];
}

/* y of 16 rows and token c, with the products of one sub-block added, which are acc without bias. */
SPECIALISED __m512 add_sums(__m512 y, __m512i acc, __m512 d, bool minimum, __m512 m, const struct block_inputs *in,
                            uint32_t sub_blocks, uint32_t s, uint32_t c)
{
    y = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(in->scale[c])), _mm512_cvtepi32_ps(acc), y);
    if (!minimum)
        return y;
    float sum = sub_blocks == 1 ? in->sum[c] : in->scale[c] * (float)sum_of_codes(in, sub_blocks, s, c);
    return _mm512_fmadd_ps(m, _mm512_set1_ps(sum), y);
}

/* One row tile for tokens [first, first + n) as far as there are so many. */
SPECIALISED void store_rows(const struct destination *to, uint32_t tile, uint32_t first, uint32_t n, const __m512 *y)
{
    uint32_t left = to->rows - tile * TILE_ROWS;
    __mmask16 mask = left >= TILE_ROWS ? 0xffff : (__mmask16)((1u << left) - 1);
    UNROLL
    for (uint32_t c = 0; c < n; c++) {
        if (first + c >= to->tokens)
            return;
        float *at = to->y + (first + c) * to->y_stride + (size_t)tile * TILE_ROWS;
        __m512 value = y[c];
        if (to->mode == PRODUCT_ADD)
            value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), value);
        _mm512_mask_storeu_ps(at, mask, value);
    }
}

#endif
