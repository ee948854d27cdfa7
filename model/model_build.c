/* model_build: the weights block out of the file's tensors, a share for each rank. See model.h. */
#include "model/model_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/rope_tables.h"
#include "model/tensor_roles.h"
#include "model/tensor_rows.h"

enum {
    BUILD_TILES = 64, /* row tiles between two reports of progress */
};

struct building {
    const struct model *m;
    const struct gguf *g;
    uint8_t *weights;
    uint32_t rank, ranks;
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t done, total; /* bytes of this share; total 0: still being counted */
    bool counting;
    uint32_t *row_of; /* (heads * head_dim) */
};

/* This share's part [*first, *last) of n things. */
static void share_of(const struct building *b, uint64_t n, uint64_t *first, uint64_t *last)
{
    *first = n * b->rank / b->ranks;
    *last = n * (b->rank + 1) / b->ranks;
}

static void report(struct building *b, uint64_t bytes)
{
    b->done += bytes;
    if (b->progress)
        b->progress(b->arg, b->done, b->total);
}

/* Rows of heads whose halves belong together: where row `row` of this build stands in the file. */
static uint32_t row_in_halves(const struct model *m, uint32_t row)
{
    uint32_t d = row % m->head_dim;
    if (d >= 2 * m->rope_pairs)
        return row;
    return row - d + d / 2 + (d % 2 ? m->rope_pairs : 0);
}

/* Row tiles [tile, next) of one matrix out of rows that have to be made first; `above` rows of the tensor are others'. */
static enum err build_made_tiles(struct building *b, const struct weight *w, uint8_t *matrix, uint64_t tile_bytes,
                                 const struct gguf_tensor *t, uint64_t above, uint64_t tile, uint64_t next, bool halves,
                                 struct why *why)
{
    uint32_t first = (uint32_t)tile * TILE_ROWS;
    uint32_t count = (next * TILE_ROWS < w->rows ? (uint32_t)next * TILE_ROWS : w->rows) - first;
    uint32_t order[BUILD_TILES * TILE_ROWS];
    for (uint32_t i = 0; i < count; i++)
        order[i] = (uint32_t)above + (halves ? b->row_of[first + i] : first + i);
    uint8_t *rows = malloc(count * tensor_row_bytes(t));
    if (!rows)
        return because(why, ERR_NOMEM, "no memory to build the weights of the model");
    enum err err = tensor_rows_read(t, 0, order, count, rows, why);
    if (err == OK)
        tiles_build((enum tensor_type)w->type, matrix + tile * tile_bytes, rows, count, w->cols, 0,
                    (uint32_t)(next - tile), NULL);
    free(rows);
    return err;
}

static enum err build_matrix(struct building *b, const struct tensor_slot *slot, const struct weight *w,
                             const struct gguf_tensor *t, struct why *why)
{
    uint64_t first, last, tile_bytes, matrix_bytes, row_bytes = t->bytes / ((uint64_t)slot->whole * slot->count);
    share_of(b, (w->rows + TILE_ROWS - 1) / TILE_ROWS, &first, &last);
    if (!tiles_row_tile_bytes((enum tensor_type)w->type, w->cols, &tile_bytes) ||
        !tiles_bytes((enum tensor_type)w->type, w->rows, w->cols, &matrix_bytes))
        must_not_reach(); /* the plan was checked */
    if (b->counting) {
        b->total += (last - first) * tile_bytes * w->count;
        return OK;
    }
    bool halves = slot->flags & ROLE_HALVES;
    for (uint32_t row = 0; halves && row < w->rows; row++)
        b->row_of[row] = row_in_halves(b->m, row);
    enum err err = OK;
    for (uint32_t i = 0; i < w->count; i++) {
        uint64_t above = (uint64_t)i * slot->whole + slot->first;
        uint8_t *matrix = b->weights + w->offset + i * matrix_bytes;
        for (uint64_t tile = first, next; tile < last && err == OK; tile = next) {
            next = tile + BUILD_TILES < last ? tile + BUILD_TILES : last;
            if (t->source)
                err = build_made_tiles(b, w, matrix, tile_bytes, t, above, tile, next, halves, why);
            else
                tiles_build((enum tensor_type)w->type, matrix, t->data + above * row_bytes, w->rows, w->cols,
                            (uint32_t)tile, (uint32_t)next, halves ? b->row_of : NULL);
            report(b, (next - tile) * tile_bytes);
        }
    }
    return err;
}

/* Vectors are small; every rank takes those elements of each that are its share. */
static enum err build_vector(struct building *b, const struct tensor_slot *slot, const struct weight_vector *v,
                             const struct gguf_tensor *t, struct why *why)
{
    uint64_t first, last, bytes = tensor_type_traits(t->type)->block_bytes;
    share_of(b, v->count, &first, &last);
    if (b->counting) {
        b->total += (last - first) * sizeof(float);
        return OK;
    }
    uint8_t *made = t->source ? malloc(t->bytes) : NULL;
    enum err err = OK;
    if (t->source)
        err = made ? tensor_rows_read(t, 0, NULL, 1, made, why)
                   : because(why, ERR_NOMEM, "no memory to build the weights of the model");
    const uint8_t *numbers = made ? made : t->data;
    float *out = (float *)(void *)(b->weights + v->offset);
    for (uint64_t i = first; i < last && err == OK; i++) {
        uint32_t from = slot->flags & ROLE_HALVES ? row_in_halves(b->m, (uint32_t)i) : (uint32_t)i;
        blocks_to_float(t->type, numbers + (slot->first + from) * bytes, 1, out + i);
    }
    free(made);
    report(b, (last - first) * sizeof(float));
    return err;
}

static enum err build_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct building *b = arg;
    bool absent = slot->is_vector ? slot_vector(b->m, slot)->count == 0 : slot_weight(b->m, slot)->rows == 0;
    if (slot->flags & ROLE_OPTIONAL && (absent || is_tied_head(b->m, slot)))
        return OK;
    const struct gguf_tensor *t = gguf_tensor_find(b->g, slot->name);
    if (!t || !model_has_shape(t, slot) ||
        (slot->is_vector ? !model_vectors_may_be(t->type) : (uint32_t)t->type != slot_weight(b->m, slot)->type))
        return because(why, ERR_FORMAT,
                       "the model file has changed since its plan was made: tensor \"%s\" is another one", slot->name);
    return slot->is_vector ? build_vector(b, slot, slot_vector(b->m, slot), t, why)
                           : build_matrix(b, slot, slot_weight(b->m, slot), t, why);
}

/* This share's rows of one table. */
static void build_rope(struct building *b, const struct weight_vector *v, double base, double factor,
                       const struct gguf_tensor *factors)
{
    uint64_t first, last, row = (uint64_t)b->m->rope_pairs * 2;
    share_of(b, v->count ? b->m->context : 0, &first, &last);
    if (b->counting) {
        b->total += (last - first) * row * sizeof(float);
    } else if (first < last) {
        float *table = (float *)(void *)(b->weights + v->offset);
        rope_table_rows(b->m, base, factor, factors, first, last, table + first * row);
        report(b, (last - first) * row * sizeof(float));
    }
}

/* Layers with a window may have a base of their own, and then no scaling: windows do not grow with the context. */
static enum err build_all(struct building *b, const struct gguf_tensor *factors, struct why *why)
{
    const struct model *m = b->m;
    enum err err = model_each_tensor(m, build_tensor, b, why);
    if (err != OK)
        return err;
    build_rope(b, &m->rope, (double)m->rope_base, (double)m->rope_factor, factors);
    build_rope(b, &m->rope_windowed, (double)m->rope_base_windowed, 1.0, NULL);
    return OK;
}

enum err model_build(const struct model *m, const struct gguf *g, uint8_t *weights, uint32_t rank, uint32_t ranks,
                     void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct why *why)
{
    must(rank < ranks && (uintptr_t)weights % VECTOR_ALIGN == 0);
    if (gguf_hash(g) != m->hash)
        return because(why, ERR_FORMAT, "the model file has changed since its plan was made: start again");
    const struct gguf_tensor *factors;
    enum err err = rope_factors_choose(m, g, "the model file", NULL, &factors, why);
    if (err != OK)
        return err;
    struct building b = {
        .m = m, .g = g, .weights = weights, .rank = rank, .ranks = ranks, .progress = progress, .arg = arg};
    b.row_of = malloc((size_t)m->heads * m->head_dim * sizeof *b.row_of);
    if (!b.row_of)
        return because(why, ERR_NOMEM, "no memory to build the weights of the model");
    b.counting = true;
    err = build_all(&b, factors, why); /* finds a changed file before a byte is written */
    b.counting = false;
    if (err == OK)
        err = build_all(&b, factors, why);
    free(b.row_of);
    return err;
}
