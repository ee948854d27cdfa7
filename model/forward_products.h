/*
 * forward_products: what a rank does of a matrix, and its products with the inputs. For forward*.c only.
 *
 * Rows are handed out to ranks (handout.h), beginning with an even share, or shared evenly by the same arithmetic everywhere, so that
 * ranks agree without a word. Every number is computed by one rank in one order, so it does not matter which.
 */
#ifndef QUIRE_MODEL_FORWARD_PRODUCTS_H
#define QUIRE_MODEL_FORWARD_PRODUCTS_H

#include "base/must.h"
#include "model/forward_internal.h"

enum {
    CHUNK_ROWS = 128, /* output rows that are computed before they go on elsewhere: (512, 128) floats stay in L2 */
    PART_TILES = CHUNK_ROWS / TILE_ROWS, /* handed out at a time; with half as many small models are slower */
    FETCH_BYTES = 32 << 10, /* of weights that are fetched before a meeting: some microseconds of reading */
};

/* Row tiles [first, last) of a matrix. */
struct tile_range {
    uint32_t first, last;
};

static inline uint32_t tiles_of(uint32_t rows)
{
    return (rows + TILE_ROWS - 1) / TILE_ROWS;
}

static inline uint32_t greatest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* This rank's even share of n things in order; may be empty. */
static inline struct tile_range share_of(const struct forward *f, uint32_t n)
{
    return (struct tile_range){share_begin(n, f->rank, f->ranks), share_begin(n, f->rank + 1, f->ranks)};
}

/* Hands out n tiles, or other units, in parts of `part`; once between two meetings. */
static inline void hand_out(struct forward *f, uint32_t n, uint32_t part)
{
    must(!f->handed_out);
    f->handed_out = true;
    handout_begin(&f->handout, n, part);
}

/* The next units for this rank; false when none are left. */
static inline bool take_units(struct forward *f, struct tile_range *r)
{
    return handout_take(&f->handout, &r->first, &r->last);
}

/* The part of r that falls into the `tiles` tiles from `base` on, counted from base. */
static inline struct tile_range within(struct tile_range r, uint32_t base, uint32_t tiles)
{
    uint32_t first = r.first > base ? r.first - base : 0;
    uint32_t last = r.last > base ? r.last - base : 0;
    return (struct tile_range){first < tiles ? first : tiles, last < tiles ? last : tiles};
}

/* Rows [first, end) of a matrix, those of its tiles r. */
struct row_range {
    uint32_t first, end;
};

static inline struct row_range rows_of(struct tile_range r, const struct weight *w)
{
    return (struct row_range){r.first * TILE_ROWS, least(r.last * TILE_ROWS, w->rows)};
}

/* The first tiles of [first, last), as many as make a chunk; none are left when it is empty. */
static inline struct tile_range chunk_at(uint32_t first, uint32_t last)
{
    uint32_t end = first + CHUNK_ROWS / TILE_ROWS;
    return (struct tile_range){first, end < last ? end : last};
}

/* Asks for the first of tiles r of w, `left` bytes at most, and takes them off `left`. */
void forward_fetch_tiles(const struct forward *f, const struct weight *w, struct tile_range r, uint64_t *left);

/* The next inputs: `tokens` rows of `cols` columns. */
void forward_take_rows(struct forward *f, uint32_t tokens, const float *x, uint32_t cols);

/* Lays out what routing needs in private memory, from *used on; base NULL only counts. */
void forward_routes_place(struct expert_routes *r, const struct model *m, uint32_t capacity, uint8_t *base,
                          uint64_t *used);

/* The next `bytes` of a block, aligned for kernels; NULL when base is. */
static inline void *forward_place(uint8_t *base, uint64_t *used, uint64_t bytes)
{
    void *at = base ? base + *used : NULL;
    *used += (bytes + KERNEL_ALIGN - 1) & ~(uint64_t)(KERNEL_ALIGN - 1);
    return at;
}

typedef void (*gate_fn)(float *out, const float *gate, const float *up, uint32_t n);

/* act (tokens, gate->rows) = activation(gate x, up x) at the rows of r, a chunk at most. */
void forward_gate(struct forward *f, const struct tile_matrix *gate, const struct tile_matrix *up, struct tile_range r,
                  gate_fn activation, float *act);

/* y (tokens, stride) at the rows of r: w x or += w x. y is where row 0 of the whole matrix would go. */
void forward_product(struct forward *f, const struct tile_matrix *w, struct tile_range r, float *y, size_t stride,
                     enum product_mode mode);

/* y (tokens, w->rows) at the rows of r: w x, stored or added, and the bias. */
void forward_project(struct forward *f, const struct weight *w, const struct weight_vector *bias, struct tile_range r,
                     float *y, enum product_mode mode);

/* out (tokens, CHUNK_ROWS) = the rows of r of w x, the first of them in column 0. Returns how many rows. */
uint32_t forward_product_chunk(struct forward *f, const struct tile_matrix *w, struct tile_range r, float *out);

/* x (tokens, stride), whose column 0 is row `first`, += bias at rows [first, end); nothing where there is no bias. */
void forward_add_bias(const struct forward *f, const struct weight_vector *bias, float *x, size_t stride,
                      uint32_t first, uint32_t end);

#endif
