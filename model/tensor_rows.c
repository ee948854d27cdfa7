/* tensor_rows: see tensor_rows.h. Widens to float, does what the source says, and writes the tensor's type. */
#include "model/tensor_rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/must.h"
#include "model/quantize.h"
#include "model/shown.h"
#include "model/tiles.h"

static bool is_float(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

bool tensor_source_is_plain(const struct tensor_source *s, enum tensor_type wanted)
{
    return s->type == wanted && !s->transposed && s->head_rows == 0 && s->added == 0.0f && !s->pieces;
}

bool tensor_rows_can_be(enum tensor_type from, enum tensor_type to)
{
    return from == to || (is_float(from) && blocks_can_be_made(to));
}

uint64_t tensor_row_bytes(const struct gguf_tensor *t)
{
    const struct tensor_type_traits *traits = tensor_type_traits(t->type);
    return t->extent[0] / traits->block_elements * traits->block_bytes;
}

uint64_t tensor_row_count(const struct gguf_tensor *t)
{
    return t->extent[1] * t->extent[2] * t->extent[3];
}

/* Where row `row` of the tensor stands in the source. */
static uint64_t source_row(const struct tensor_source *s, uint64_t row)
{
    if (s->head_rows == 0)
        return row;
    uint64_t d = row % s->head_rows;
    return row - d + d / 2 + (d % 2 ? s->head_rows / 2 : 0);
}

struct request {
    const struct gguf_tensor *t;
    const struct tensor_source *s;
    uint64_t first;
    const uint32_t *order;
    uint32_t count;
};

static uint64_t wanted_row(const struct request *r, uint32_t i)
{
    return source_row(r->s, r->order ? r->order[i] : r->first + i);
}

/* The bytes of wanted row i of a source that is not transposed. */
static const uint8_t *row_at(const struct request *r, uint32_t i, uint64_t row_bytes)
{
    uint64_t row = wanted_row(r, i);
    if (r->s->pieces)
        return r->s->pieces[row / r->s->piece_rows] + row % r->s->piece_rows * row_bytes;
    return r->s->data + row * row_bytes;
}

/* Plain rows, perhaps in another order. */
static void copy_rows(const struct request *r, uint8_t *out)
{
    uint64_t bytes = tensor_row_bytes(r->t);
    for (uint32_t i = 0; i < r->count; i++)
        memcpy(out + i * bytes, row_at(r, i, bytes), bytes);
}

/* numbers is (count, cols). A transposed source is read along its own rows, a piece of each. */
static void widen_rows(const struct request *r, float *numbers)
{
    const struct tensor_source *s = r->s;
    uint64_t cols = r->t->extent[0], rows = tensor_row_count(r->t);
    uint64_t bytes = tensor_type_traits(s->type)->block_bytes;
    if (!s->transposed) {
        for (uint32_t i = 0; i < r->count; i++)
            blocks_to_float(s->type, row_at(r, i, cols * bytes), cols, numbers + i * cols);
    } else {
        for (uint64_t c = 0; c < cols; c++)
            for (uint32_t i = 0; i < r->count; i++)
                blocks_to_float(s->type, s->data + (c * rows + wanted_row(r, i)) * bytes, 1, numbers + i * cols + c);
    }
    for (uint64_t i = 0; s->added != 0.0f && i < r->count * cols; i++)
        numbers[i] += s->added;
}

/* Moves the numbers' bytes around, whatever type they are. */
static void transpose_rows(const struct request *r, uint8_t *out)
{
    uint64_t cols = r->t->extent[0], rows = tensor_row_count(r->t);
    uint64_t bytes = tensor_type_traits(r->s->type)->block_bytes;
    for (uint64_t c = 0; c < cols; c++)
        for (uint32_t i = 0; i < r->count; i++)
            memcpy(out + (i * cols + c) * bytes, r->s->data + (c * rows + wanted_row(r, i)) * bytes, bytes);
}

static enum err convert_rows(const struct request *r, uint8_t *out, struct why *why)
{
    uint64_t elements = r->count * r->t->extent[0], bytes;
    float *numbers = checked_mul(elements, sizeof *numbers, &bytes) ? malloc(bytes) : NULL;
    struct shown name = shown_bytes(r->t->name.at, r->t->name.length);
    if (!numbers)
        return because(why, ERR_NOMEM, "no memory for rows of tensor \"%s\"", name.text);
    widen_rows(r, numbers);
    bool finite = blocks_from_float(r->t->type, numbers, elements, out);
    free(numbers);
    return finite ? OK
                  : because(why, ERR_FORMAT, "tensor \"%s\" holds a number that is not finite: it cannot be made %s",
                            name.text, tensor_type_traits(r->t->type)->name);
}

enum err tensor_rows_read(const struct gguf_tensor *t, uint64_t first, const uint32_t *order, uint32_t count,
                          uint8_t *out, struct why *why)
{
    const struct tensor_source in_place = {.data = t->data, .type = t->type};
    const struct request r = {
        .t = t, .s = t->source ? t->source : &in_place, .first = first, .order = order, .count = count};
    must(tensor_rows_can_be(r.s->type, t->type));
    must(!r.s->transposed || !r.s->pieces);
    if (r.s->type == t->type && r.s->added == 0.0f) {
        if (r.s->transposed)
            transpose_rows(&r, out);
        else
            copy_rows(&r, out);
        return OK;
    }
    return convert_rows(&r, out, why);
}
