#include "model/tiles.h"

#include <string.h>

#include "base/checked.h"
#include "base/must.h"
#include "model/blocks.h"
#include "model/float16.h"
#include "model/tile_format.h"

/* Bytes of an element of the float types; 0 for all others. */
static uint32_t float_bytes(enum tensor_type type)
{
    switch ((int)type) {
    case TENSOR_F32:
        return 4;
    case TENSOR_F16:
    case TENSOR_BF16:
        return 2;
    default:
        return 0;
    }
}

bool tiles_know(enum tensor_type type)
{
    return float_bytes(type) || tile_format(type).planes;
}

bool tiles_row_tile_bytes(enum tensor_type type, uint32_t cols, uint64_t *bytes)
{
    if (float_bytes(type)) {
        *bytes = (uint64_t)cols * TILE_ROWS * float_bytes(type);
        return true;
    }
    struct tile_format f = tile_format(type);
    if (!f.planes || cols % tensor_type_traits(type)->block_elements)
        return false;
    uint64_t blocks = cols / TILE_K;
    *bytes = blocks * tile_bytes(f) + blocks / SUPER_TILES * tile_head_bytes(f);
    return true;
}

bool tiles_bytes(enum tensor_type type, uint32_t rows, uint32_t cols, uint64_t *bytes)
{
    uint64_t row_tile;
    return tiles_row_tile_bytes(type, cols, &row_tile) &&
           checked_mul(row_tile, ((uint64_t)rows + TILE_ROWS - 1) / TILE_ROWS, bytes);
}

static uint64_t row_tile_bytes(enum tensor_type type, uint32_t cols)
{
    uint64_t bytes;
    must(tiles_row_tile_bytes(type, cols, &bytes));
    return bytes;
}

static void put_u16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

static uint16_t get_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Where the byte of (group, row) begins in a plane of `groups` groups a byte. */
static uint32_t plane_byte(uint32_t group, uint32_t row, uint32_t i)
{
    return (group * TILE_ROWS + row) * 4 + i;
}

/* Writes one row's 32 codes into zeroed planes. */
static void put_codes(struct tile_format f, uint8_t *planes, uint32_t row, const uint8_t *code)
{
    for (uint32_t k = 0; k < TILE_K; k++) {
        uint32_t g = k / 4, i = k % 4, c = code[k];
        uint8_t *at = planes;
        if (f.planes & PLANE_EIGHT)
            at[plane_byte(g, row, i)] = (uint8_t)c;
        if (f.planes & PLANE_FOUR) {
            at[plane_byte(g % 4, row, i)] |= (uint8_t)((c & 15) << g / 4 * 4);
            at += PLANE_FOUR * 64;
            c >>= 4;
        }
        if (f.planes & PLANE_TWO) {
            at[plane_byte(g / 4, row, i)] |= (uint8_t)((c & 3) << g % 4 * 2);
            at += PLANE_TWO * 64;
            c >>= 2;
        }
        if (f.planes & PLANE_ONE)
            at[plane_byte(0, row, i)] |= (uint8_t)((c & 1) << g);
    }
}

/* The inverse; with a table the code is the table's value + 128. */
static void get_codes(struct tile_format f, const uint8_t *planes, uint32_t row, uint8_t *code)
{
    for (uint32_t k = 0; k < TILE_K; k++) {
        uint32_t g = k / 4, i = k % 4, c = 0, shift = 0;
        const uint8_t *at = planes;
        if (f.planes & PLANE_EIGHT)
            c = at[plane_byte(g, row, i)];
        if (f.planes & PLANE_FOUR) {
            c = at[plane_byte(g % 4, row, i)] >> g / 4 * 4 & 15u;
            at += PLANE_FOUR * 64;
            shift = 4;
        }
        if (f.planes & PLANE_TWO) {
            c |= (at[plane_byte(g / 4, row, i)] >> g % 4 * 2 & 3u) << shift;
            at += PLANE_TWO * 64;
            shift += 2;
        }
        if (f.planes & PLANE_ONE)
            c |= (at[plane_byte(0, row, i)] >> g & 1u) << shift;
        code[k] = f.table ? (uint8_t)(f.table[c] + 128) : (uint8_t)c;
    }
}

static void put_scales(struct tile_format f, uint8_t *scales, uint8_t *head, uint32_t row,
                       const struct block_part *part)
{
    if (tile_is_super(f)) {
        put_u16(head + 2 * row, part->d);
        if (f.minimum)
            put_u16(head + 32 + 2 * row, part->dmin);
    }
    for (uint32_t s = 0; s < f.sub_blocks; s++) {
        uint32_t at = s * TILE_ROWS + row;
        switch (f.scale) {
        case SCALE_F16:
            put_u16(scales + 2 * row, part->d);
            if (f.minimum)
                put_u16(scales + 32 + 2 * row, part->dmin);
            break;
        case SCALE_U4:
            scales[at] = (uint8_t)(part->scale[s] | part->min[s] << 4);
            break;
        case SCALE_U8:
        case SCALE_I8:
            scales[at] = part->scale[s];
            if (f.minimum)
                scales[f.sub_blocks * TILE_ROWS + at] = part->min[s];
            break;
        case SCALE_E8M0:
            scales[at] = part->scale[s];
            break;
        }
    }
}

void tile_strip(enum tensor_type type, const uint8_t *row_tile, uint32_t block, uint32_t row, struct tile_strip *out)
{
    struct tile_format f = tile_format(type);
    const uint8_t *head, *tile = tile_at(f, row_tile, block, &head);
    const uint8_t *scales = tile + tile_plane_bytes(f);
    get_codes(f, tile, row, out->code);
    for (uint32_t s = 0; s < 2; s++) {
        uint32_t at = s % f.sub_blocks * TILE_ROWS + row;
        uint16_t d = 0, dmin = 0;
        uint8_t scale = 0, min = 0;
        if (f.scale == SCALE_F16) {
            d = get_u16(scales + 2 * row);
            dmin = f.minimum ? get_u16(scales + 32 + 2 * row) : 0;
        } else {
            scale = f.scale == SCALE_U4 ? scales[at] & 15 : scales[at];
        }
        if (tile_is_super(f)) {
            d = get_u16(head + 2 * row);
            if (f.minimum) {
                dmin = get_u16(head + 32 + 2 * row);
                min = f.scale == SCALE_U4 ? scales[at] >> 4 : scales[f.sub_blocks * TILE_ROWS + at];
            }
        }
        out->d[s] = scale_value(f, d, scale);
        out->m[s] = minimum_value(f, dmin, min);
    }
}

static void build_quantised_row(enum tensor_type type, uint8_t *row_tile, uint32_t row, const uint8_t *blocks,
                                uint32_t cols)
{
    struct tile_format f = tile_format(type);
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    uint32_t parts = traits->block_elements / TILE_K;
    struct block_part part;
    for (uint32_t b = 0; b < cols / TILE_K; b++) {
        const uint8_t *head, *tile = tile_at(f, row_tile, b, &head);
        uint8_t *planes = row_tile + (tile - row_tile);
        block_part(type, blocks + (uint64_t)(b / parts) * traits->block_bytes, b % parts, &part);
        put_codes(f, planes, row, part.code);
        put_scales(f, planes + tile_plane_bytes(f), row_tile + (head - row_tile), row, &part);
    }
}

static void build_float_row(uint32_t element, uint8_t *row_tile, uint32_t row, const uint8_t *from, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k++)
        memcpy(row_tile + ((uint64_t)k * TILE_ROWS + row) * element, from + (uint64_t)k * element, element);
}

void tiles_build(enum tensor_type type, uint8_t *dst, const uint8_t *gguf_rows, uint32_t rows, uint32_t cols,
                 uint32_t first_tile, uint32_t last_tile, const uint32_t *row_of)
{
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    uint64_t tile_size = row_tile_bytes(type, cols);
    uint64_t row_bytes = (uint64_t)cols / traits->block_elements * traits->block_bytes;
    for (uint32_t t = first_tile; t < last_tile; t++) {
        uint8_t *row_tile = dst + t * tile_size;
        memset(row_tile, 0, tile_size); /* rows beyond the last stay zero; planes are or-ed into */
        for (uint32_t r = 0; r < TILE_ROWS && (uint64_t)t * TILE_ROWS + r < rows; r++) {
            uint32_t row = t * TILE_ROWS + r;
            const uint8_t *from = gguf_rows + (row_of ? row_of[row] : row) * row_bytes;
            if (float_bytes(type))
                build_float_row(float_bytes(type), row_tile, r, from, cols);
            else
                build_quantised_row(type, row_tile, r, from, cols);
        }
    }
}

static void float_row(const struct tile_matrix *w, const uint8_t *row_tile, uint32_t row, float *out)
{
    uint32_t element = float_bytes(w->type);
    for (uint32_t k = 0; k < w->cols; k++)
        blocks_to_float(w->type, row_tile + ((uint64_t)k * TILE_ROWS + row) * element, 1, out + k);
}

void tiles_row(const struct tile_matrix *w, uint32_t row, float *out)
{
    must(row < w->rows);
    const uint8_t *row_tile = w->tiles + row / TILE_ROWS * row_tile_bytes(w->type, w->cols);
    if (float_bytes(w->type)) {
        float_row(w, row_tile, row % TILE_ROWS, out);
        return;
    }
    struct tile_format f = tile_format(w->type);
    struct tile_strip strip;
    for (uint32_t b = 0; b < w->cols / TILE_K; b++) {
        tile_strip(w->type, row_tile, b, row % TILE_ROWS, &strip);
        for (uint32_t k = 0; k < TILE_K; k++) {
            uint32_t s = k * 2 / TILE_K;
            out[b * TILE_K + k] = strip.d[s] * (float)(strip.code[k] - f.bias) + strip.m[s];
        }
    }
}
