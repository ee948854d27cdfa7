/*
 * product_avx2: matrix products without VNNI, 8 rows and up to 4 tokens at a time. For up to 4 tokens tiles are unpacked
 * in registers, in the order in which they lie in memory; for more, some of a row tile at a time into scratch.
 *
 * vpmaddubsw adds pairs of products into 16 bits and saturates, so sums are widened before they could: codes below 16
 * allow 8 groups (8 * 2 * 15 * 127 = 30480), below 32 four, below 64 two. Whole bytes are made signed and multiplied
 * as |w| * (q with the sign of w), where one group is at most 2 * 128 * 127 = 32512; their bias is then already off.
 */
#include "model/kernels/lanes_avx2.h"
#include "model/kernels/product_rows.h"
#include "model/kernels/scratch.h"
#include "model/kernels/sets.h"

enum {
    HALF_ROWS = 8,
    COLUMNS = 4,
    SUM_TOKENS = 64,      /* whose sums stay in the first-level cache, */
    UNPACKED_BLOCKS = 16, /* together with so many unpacked blocks */
    STRIP_BLOCKS = 8,     /* of one half of the rows before those of the other */
};

typedef uint16_t words __attribute__((vector_size(32)));

SPECIALISED __m256i bytes(int value)
{
    return _mm256_set1_epi8((char)value);
}

SPECIALISED __m256i load_bytes(const void *at)
{
    return _mm256_loadu_si256(at);
}

/* into | ((from << by) & mask); a negative `by` shifts right */
SPECIALISED __m256i or_field(__m256i into, __m256i from, int by, int mask)
{
    words lanes = (words)from;
    lanes = by > 0 ? lanes << by : lanes >> -by;
    return _mm256_or_si256(into, _mm256_and_si256((__m256i)lanes, bytes(mask)));
}

/* 8 rows: `at` is the first of their bytes in the first plane. */
SPECIALISED void unpack_codes(struct tile_format f, const uint8_t *at, __m256i code[GROUPS])
{
    int shift = 0;
    if (f.planes & PLANE_EIGHT) {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = load_bytes(at + 64 * g);
        return;
    }
    if (f.planes & PLANE_FOUR) {
        UNROLL
        for (int g = 0; g < 4; g++) {
            __m256i both = load_bytes(at + 64 * g);
            code[g] = _mm256_and_si256(both, bytes(15));
            code[g + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), bytes(15));
        }
        at += PLANE_FOUR * 64;
        shift = 4;
    } else {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = _mm256_setzero_si256();
    }
    if (f.planes & PLANE_TWO) {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = or_field(code[g], load_bytes(at + 64 * (g / 4)), shift - g % 4 * 2, 3 << shift);
        at += PLANE_TWO * 64;
        shift += 2;
    }
    if (f.planes & PLANE_ONE) {
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = or_field(code[g], load_bytes(at), shift - g, 1 << shift);
    }
    if (f.table) {
        __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)f.table));
        table = _mm256_xor_si256(table, bytes(0x80));
        UNROLL
        for (int g = 0; g < GROUPS; g++)
            code[g] = _mm256_shuffle_epi8(table, code[g]);
    }
}

SPECIALISED __m256 halves_at(const uint8_t *at)
{
    return load_halves(at, 8);
}

SPECIALISED __m256i bytes_at(const uint8_t *at)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
}

SPECIALISED __m256 negated(__m256 x)
{
    return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
}

/* 2^(e - 128), as blocks.h does it */
SPECIALISED __m256 powers_of_two(__m256i e)
{
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

/* d and m of rows [row, row + 8) of one sub-block */
SPECIALISED void unpack_scales(struct tile_format f, const uint8_t *scales, const uint8_t *head, uint32_t s,
                               uint32_t row, __m256 *d, __m256 *m)
{
    const uint8_t *at = scales + s * TILE_ROWS + row;
    __m256 scale = _mm256_setzero_ps(), minimum = _mm256_setzero_ps();
    switch (f.scale) {
    case SCALE_F16:
        scale = halves_at(scales + 2 * row);
        if (f.minimum)
            minimum = halves_at(scales + 32 + 2 * row);
        break;
    case SCALE_E8M0:
        scale = powers_of_two(bytes_at(at));
        break;
    case SCALE_U8:
        scale = _mm256_mul_ps(halves_at(head + 2 * row), _mm256_cvtepi32_ps(bytes_at(at)));
        if (f.minimum) {
            __m256 min = _mm256_cvtepi32_ps(bytes_at(at + f.sub_blocks * TILE_ROWS));
            minimum = negated(_mm256_mul_ps(halves_at(head + 32 + 2 * row), min));
        }
        break;
    case SCALE_I8: {
        __m256i sub_scale = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
        scale = _mm256_mul_ps(halves_at(head + 2 * row), _mm256_cvtepi32_ps(sub_scale));
        break;
    }
    case SCALE_U4: {
        __m256i both = bytes_at(at);
        __m256 sub_scale = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
        scale = _mm256_mul_ps(halves_at(head + 2 * row), sub_scale);
        minimum =
            negated(_mm256_mul_ps(halves_at(head + 32 + 2 * row), _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4))));
        break;
    }
    }
    *d = scale;
    *m = minimum;
}

/* 8 rows of one tile. */
struct half_block {
    __m256i code[GROUPS]; /* unsigned bytes, [8 rows][4] each */
    __m256 d[2], m[2];
};

SPECIALISED void unpack_half(struct tile_format f, const uint8_t *row_tile, uint32_t b, uint32_t row,
                             struct half_block *out)
{
    const uint8_t *head, *tile = tile_at(f, row_tile, b, &head);
    unpack_codes(f, tile + row * 4, out->code);
    UNROLL
    for (uint32_t s = 0; s < f.sub_blocks; s++)
        unpack_scales(f, tile + tile_plane_bytes(f), head, s, row, &out->d[s], &out->m[s]);
}

SPECIALISED void load_half(struct tile_format f, const struct unpacked_block *from, uint32_t row,
                           struct half_block *out)
{
    UNROLL
    for (int g = 0; g < GROUPS; g++)
        out->code[g] = load_bytes(from->code[g][row]);
    UNROLL
    for (uint32_t s = 0; s < f.sub_blocks; s++) {
        out->d[s] = _mm256_loadu_ps(&from->d[s][row]);
        if (f.minimum)
            out->m[s] = _mm256_loadu_ps(&from->m[s][row]);
    }
}

SPECIALISED void store_half(struct tile_format f, const struct half_block *from, uint32_t row,
                            struct unpacked_block *to)
{
    UNROLL
    for (int g = 0; g < GROUPS; g++)
        _mm256_storeu_si256((__m256i *)(void *)to->code[g][row], from->code[g]);
    UNROLL
    for (uint32_t s = 0; s < f.sub_blocks; s++) {
        _mm256_storeu_ps(&to->d[s][row], from->d[s]);
        if (f.minimum)
            _mm256_storeu_ps(&to->m[s][row], from->m[s]);
    }
}

SPECIALISED __m256i four_inputs(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

/* How many groups fit into 16 bits; 0: codes are whole bytes. */
SPECIALISED uint32_t span_of(struct tile_format f)
{
    if ((f.planes & PLANE_EIGHT) || f.table)
        return 0;
    if (f.planes == (PLANE_FOUR | PLANE_TWO))
        return 2;
    return f.planes & PLANE_FOUR && f.planes & PLANE_ONE ? 4 : 8 / f.sub_blocks;
}

/*
 * acc[c] = sum of products of groups [first, last) for n tokens, without bias for whole bytes, with it for the others
 */
SPECIALISED void dot(const struct half_block *w, uint32_t first, uint32_t last, uint32_t span, uint32_t n,
                     const int8_t *q, __m256i *acc)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i narrow[COLUMNS];
    UNROLL
    for (uint32_t c = 0; c < n; c++)
        acc[c] = narrow[c] = _mm256_setzero_si256();
    UNROLL
    for (uint32_t g = first; g < last; g++) {
        __m256i code = w->code[g];
        if (span == 0) {
            __m256i value = _mm256_xor_si256(code, bytes(0x80)), magnitude = _mm256_abs_epi8(value);
            UNROLL
            for (uint32_t c = 0; c < n; c++) {
                __m256i with_sign = _mm256_sign_epi8(four_inputs(q + c * TILE_K + g * 4), value);
                acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, with_sign), ones));
            }
            continue;
        }
        UNROLL
        for (uint32_t c = 0; c < n; c++) {
            __m256i product = _mm256_maddubs_epi16(code, four_inputs(q + c * TILE_K + g * 4));
            narrow[c] = (g - first) % span == 0 ? product : _mm256_add_epi16(narrow[c], product);
            if ((g - first) % span == span - 1)
                acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(narrow[c], ones));
        }
    }
}

/* Rows [row, row + 8) for tokens [token, token + n) as far as there are so many. */
SPECIALISED void store_rows(const struct destination *to, uint32_t row, uint32_t token, uint32_t n, const __m256 *y)
{
    uint32_t count = lanes_left(row, to->rows);
    UNROLL
    for (uint32_t c = 0; c < n; c++) {
        if (token + c >= to->tokens)
            return;
        float *at = to->y + (token + c) * to->y_stride + row;
        store_lanes(at, count, to->mode == PRODUCT_ADD ? _mm256_add_ps(load_lanes(at, count), y[c]) : y[c]);
    }
}

/* y[c] of 8 rows += block b, for n tokens from `token` on, all of one group of `width` */
SPECIALISED void add_half(struct tile_format f, const struct half_block *w, uint32_t n, uint32_t width,
                          const struct activations *a, uint32_t token, uint32_t b, __m256 *y)
{
    uint32_t span = span_of(f), bias_bits = f.bias && span ? (uint32_t)__builtin_ctz(f.bias) : 0;
    size_t index = (size_t)(token / width) * (a->cols / TILE_K) + b, at = index * width + token % width;
    const int8_t *q = a->q + at * TILE_K;
    UNROLL
    for (uint32_t s = 0; s < f.sub_blocks; s++) {
        __m256i acc[COLUMNS];
        dot(w, s * GROUPS / f.sub_blocks, (s + 1) * GROUPS / f.sub_blocks, span, n, q, acc);
        UNROLL
        for (uint32_t c = 0; c < n; c++) {
            float scale = a->scale[at + c];
            int32_t half_sum = s == 0 ? a->half[at + c] : a->isum[at + c] - a->half[at + c];
            int32_t q_sum = f.sub_blocks == 1 ? a->isum[at + c] : half_sum;
            if (bias_bits)
                acc[c] = _mm256_sub_epi32(acc[c], _mm256_set1_epi32((int32_t)((uint32_t)q_sum << bias_bits)));
            y[c] = _mm256_fmadd_ps(_mm256_mul_ps(w->d[s], _mm256_set1_ps(scale)), _mm256_cvtepi32_ps(acc[c]), y[c]);
            if (f.minimum) {
                float sum = f.sub_blocks == 1 ? a->sum[at + c] : scale * (float)half_sum;
                y[c] = _mm256_fmadd_ps(w->m[s], _mm256_set1_ps(sum), y[c]);
            }
        }
    }
}

/* y[c] of 8 rows += `blocks` blocks from b on, which lie unpacked at w, for n tokens from `token` on */
SPECIALISED void add_columns(struct tile_format f, uint32_t n, const struct unpacked_block *w, uint32_t row, uint32_t b,
                             uint32_t blocks, const struct activations *a, uint32_t token, __m256 *y)
{
    __m256 sum[COLUMNS];
    UNROLL
    for (uint32_t c = 0; c < n; c++)
        sum[c] = y[c];
    for (uint32_t i = 0; i < blocks; i++) {
        struct half_block half;
        load_half(f, &w[i], row, &half);
        add_half(f, &half, n, ACTIVATION_GROUP, a, token, b + i, sum);
    }
    UNROLL
    for (uint32_t c = 0; c < n; c++)
        y[c] = sum[c];
}

/* One row tile for all of `width` tokens, unpacked in registers, while what stands behind is fetched. */
SPECIALISED void product_packed(struct tile_format f, uint32_t width, const uint8_t *row_tile, uint32_t tile,
                                const struct activations *a, const struct destination *to)
{
    __m256 y[2][COLUMNS];
    UNROLL
    for (uint32_t c = 0; c < width; c++)
        y[0][c] = y[1][c] = _mm256_setzero_ps();
    for (uint32_t b = 0, end; b < a->cols / TILE_K; b = end) {
        end = b + STRIP_BLOCKS < a->cols / TILE_K ? b + STRIP_BLOCKS : a->cols / TILE_K;
        UNROLL
        for (uint32_t i = 0; i < 2; i++) {
            __m256 sum[COLUMNS];
            UNROLL
            for (uint32_t c = 0; c < width; c++)
                sum[c] = y[i][c];
            for (uint32_t k = b; k < end; k++) {
                struct half_block half;
                if (i == 0)
                    fetch_ahead(f, row_tile, k);
                unpack_half(f, row_tile, k, i * HALF_ROWS, &half);
                add_half(f, &half, width, width, a, 0, k, sum);
            }
            UNROLL
            for (uint32_t c = 0; c < width; c++)
                y[i][c] = sum[c];
        }
    }
    UNROLL
    for (uint32_t i = 0; i < 2; i++)
        store_rows(to, tile * TILE_ROWS + i * HALF_ROWS, 0, width, y[i]);
}

/*
 * One row tile for `count` tokens from `first` on. Some blocks at a time are unpacked and multiplied with all of them, so
 * that they and the sums stay in the first-level cache.
 */
SPECIALISED void product_unpacked(struct tile_format f, const uint8_t *row_tile, uint32_t tile, uint32_t first,
                                  uint32_t count, const struct activations *a, const struct destination *to,
                                  struct unpacked_block *unpacked)
{
    __m256 y[2][SUM_TOKENS];
    for (uint32_t c = 0; c < count + COLUMNS - 1 && c < SUM_TOKENS; c++) /* the padding, too */
        y[0][c] = y[1][c] = _mm256_setzero_ps();
    for (uint32_t b = 0, blocks; b < a->cols / TILE_K; b += blocks) {
        blocks = a->cols / TILE_K - b < UNPACKED_BLOCKS ? a->cols / TILE_K - b : UNPACKED_BLOCKS;
        for (uint32_t i = 0; i < blocks; i++) {
            if (first == 0)
                fetch_ahead(f, row_tile, b + i);
            for (uint32_t row = 0; row < TILE_ROWS; row += HALF_ROWS) {
                struct half_block half;
                unpack_half(f, row_tile, b + i, row, &half);
                store_half(f, &half, row, &unpacked[i]);
            }
        }
        for (uint32_t c = 0; c < count; c += COLUMNS) {
            for (uint32_t i = 0; i < 2; i++) {
                if (count - c > 2)
                    add_columns(f, 4, unpacked, i * HALF_ROWS, b, blocks, a, first + c, &y[i][c]);
                else
                    add_columns(f, 2, unpacked, i * HALF_ROWS, b, blocks, a, first + c, &y[i][c]);
            }
        }
    }
    for (uint32_t i = 0; i < 2; i++)
        store_rows(to, tile * TILE_ROWS + i * HALF_ROWS, first, count, y[i]);
}

SPECIALISED void product_quantised(enum tensor_type type, const struct tile_matrix *w, uint32_t first_tile,
                                   uint32_t last_tile, const struct activations *a, const struct destination *to,
                                   struct unpacked_block *unpacked)
{
    struct tile_format f = tile_format(type);
    uint64_t tile_size;
    tiles_row_tile_bytes(type, w->cols, &tile_size);
    for (uint32_t tile = first_tile; tile < last_tile; tile++) {
        const uint8_t *row_tile = w->tiles + tile * tile_size;
        if (a->width == 1) {
            product_packed(f, 1, row_tile, tile, a, to);
        } else if (a->width == 2) {
            product_packed(f, 2, row_tile, tile, a, to);
        } else if (a->width == 4) {
            product_packed(f, 4, row_tile, tile, a, to);
        } else {
            for (uint32_t first = 0; first < a->tokens; first += SUM_TOKENS) {
                uint32_t left = a->tokens - first;
                product_unpacked(f, row_tile, tile, first, left < SUM_TOKENS ? left : SUM_TOKENS, a, to, unpacked);
            }
        }
    }
}

/* 8 weights of column k of a float row tile */
SPECIALISED __m256 float_weights(enum tensor_type type, const uint8_t *row_tile, uint32_t k, uint32_t row)
{
    size_t at = (size_t)k * TILE_ROWS + row;
    switch ((int)type) {
    case TENSOR_F32:
        return _mm256_loadu_ps((const float *)(const void *)(row_tile + at * 4));
    case TENSOR_F16:
        return load_halves(row_tile + at * 2, 8);
    default: {
        __m128i upper = _mm_loadu_si128((const __m128i *)(const void *)(row_tile + at * 2));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(upper), 16));
    }
    }
}

/* `tiles` row tiles at once (to have enough sums in flight) for n tokens from `token` on. */
SPECIALISED void float_tiles(enum tensor_type type, uint32_t tiles, uint32_t n, const struct tile_matrix *w,
                             uint32_t tile, uint32_t token, const struct activations *a, const struct destination *to)
{
    uint64_t tile_size;
    tiles_row_tile_bytes(type, w->cols, &tile_size);
    const uint8_t *row_tile = w->tiles + tile * tile_size;
    const float *x[COLUMNS];
    __m256 y[8][COLUMNS]; /* by halves of tiles */
    UNROLL
    for (uint32_t c = 0; c < n; c++)
        x[c] = a->x +
               (token + c < a->tokens ? token + c : a->tokens - 1) * a->x_stride; /* the padding repeats the last one */
    UNROLL
    for (uint32_t i = 0; i < 2 * tiles; i++) {
        UNROLL
        for (uint32_t c = 0; c < n; c++)
            y[i][c] = _mm256_setzero_ps();
    }
    for (uint32_t k = 0; k < w->cols; k++) {
        UNROLL
        for (uint32_t i = 0; i < 2 * tiles; i++) {
            __m256 weights = float_weights(type, row_tile + i / 2 * tile_size, k, i % 2 * HALF_ROWS);
            UNROLL
            for (uint32_t c = 0; c < n; c++)
                y[i][c] = _mm256_fmadd_ps(weights, _mm256_set1_ps(x[c][k]), y[i][c]);
        }
    }
    UNROLL
    for (uint32_t i = 0; i < 2 * tiles; i++)
        store_rows(to, tile * TILE_ROWS + i * HALF_ROWS, token, n, y[i]);
}

SPECIALISED void product_float(enum tensor_type type, const struct tile_matrix *w, uint32_t first_tile,
                               uint32_t last_tile, const struct activations *a, const struct destination *to)
{
    uint32_t tile = first_tile;
    for (; a->tokens == 1 && tile + 4 <= last_tile; tile += 4)
        float_tiles(type, 4, 1, w, tile, 0, a, to);
    for (; tile < last_tile; tile++)
        for (uint32_t token = 0; token < a->tokens; token += COLUMNS)
            float_tiles(type, 1, 4, w, tile, token, a, to);
}

void product_avx2(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                  float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    uint32_t all = (uint32_t)(((uint64_t)w->rows + TILE_ROWS - 1) / TILE_ROWS);
    struct destination to = {y, y_stride, w->rows, a->tokens, mode};
    last_tile = last_tile < all ? last_tile : all;
    if (a->tokens == 0)
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
