/*
 * tensor_rows: rows of a tensor as a GGUF file would hold them, out of bytes that say the same in another way.
 *
 * A checkpoint of a model hub stores some matrices transposed, pairs the rows of a head otherwise, leaves 1 out of a norm; weights may
 * be quantised while they are loaded. What has to be done to them is a struct tensor_source; nobody keeps a second copy of the weights.
 */
#ifndef QUIRE_MODEL_TENSOR_ROWS_H
#define QUIRE_MODEL_TENSOR_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

/* How the rows (extent[0] columns each) of a tensor follow from bytes that somebody else keeps. */
struct tensor_source {
    const uint8_t *data;
    enum tensor_type
        type;        /* of the bytes; when it differs from the tensor's, or anything below is set: F32, F16 or BF16 */
    bool transposed; /* the bytes hold (columns, rows) */
    uint32_t
        head_rows; /* not 0: in each run of so many rows, row i of the first half goes to 2 i, of the second to 2 i + 1 */
    float added;   /* to every number */
    const uint8_t *const
        *pieces; /* not NULL: the rows stand in several places, piece_rows in each, `data` the first of them */
    uint64_t piece_rows;
};

/* The bytes are the tensor's rows already. */
bool tensor_source_is_plain(const struct tensor_source *s, enum tensor_type wanted);

/* True when rows of type `from` can be given as type `to`. */
bool tensor_rows_can_be(enum tensor_type from, enum tensor_type to);

/*
 * Writes rows [first, first + count) of t, or rows order[0..count) when order is not NULL, to out: count rows of t->type.
 * ERR_FORMAT: a number is not finite, or too large for the type.
 */
enum err tensor_rows_read(const struct gguf_tensor *t, uint64_t first, const uint32_t *order, uint32_t count,
                          uint8_t *out, struct why *why);

/* Bytes of one row of t. */
uint64_t tensor_row_bytes(const struct gguf_tensor *t);
/* Rows of t: the product of all its sides but the first. */
uint64_t tensor_row_count(const struct gguf_tensor *t);

#endif
