/*
 * forward: see forward.h and forward_internal.h. What a rank owns follows from rank and ranks alone, by the same arithmetic
 * everywhere, so ranks agree without a word; and every number is computed by one rank in one order, so it does not matter which.
 */
#include "model/forward.h"

#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/must.h"
#include "model/arch.h"
#include "model/forward_internal.h"
#include "model/kernels/product_blas.h"

enum {
    CHUNK_ROWS = 128,    /* output rows that are computed before they go on elsewhere: (512, 128) floats stay in L2 */
    QUERY_BLOCK = 32,    /* query positions of one unit of attention */
    LOGIT_BLOCK = 256,   /* vocabulary rows that stay in one rank */
    BUFFER_ALIGN = 4096,
};

/* Row tiles [first, last) of a matrix. */
struct tile_range {
    uint32_t first, last;
};

static uint32_t tiles_of(uint32_t rows)
{
    return (rows + TILE_ROWS - 1) / TILE_ROWS;
}

static uint32_t greatest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* This rank's part of n things in order; may be empty. */
static struct tile_range share_of(const struct forward *f, uint32_t n)
{
    return (struct tile_range){(uint32_t)((uint64_t)n * f->rank / f->ranks), (uint32_t)((uint64_t)n * (f->rank + 1) / f->ranks)};
}

/* The part of r that falls into the `tiles` tiles from `base` on, counted from base. */
static struct tile_range within(struct tile_range r, uint32_t base, uint32_t tiles)
{
    uint32_t first = r.first > base ? r.first - base : 0;
    uint32_t last = r.last > base ? r.last - base : 0;
    return (struct tile_range){first < tiles ? first : tiles, last < tiles ? last : tiles};
}

/* ---- memory ---- */

static void *take(uint8_t *base, uint64_t *used, uint64_t bytes)
{
    void *at = base ? base + *used : NULL;
    *used += (bytes + KERNEL_ALIGN - 1) & ~(uint64_t)(KERNEL_ALIGN - 1);
    return at;
}

static uint32_t logits_stride(const struct model *m)
{
    return tiles_of(m->vocab) * TILE_ROWS;
}

uint64_t shared_buffers_place(struct shared_buffers *b, const struct model *m, uint32_t capacity, uint32_t logit_rows, uint8_t *base)
{
    uint64_t used = 0, row = (uint64_t)capacity * sizeof(float);
    b->hidden = take(base, &used, row * m->dim);
    b->q = take(base, &used, row * m->heads * m->head_dim);
    b->k = take(base, &used, row * m->kv_heads * m->head_dim);
    b->attn = take(base, &used, row * m->heads * m->head_dim);
    b->branch = take(base, &used, m->layer[0].attn_post_norm.count > 0 ? row * m->dim : 0);
    b->act = take(base, &used, row * (m->experts > 0 ? m->experts_used * m->expert_ffn : m->ffn));
    b->logits = take(base, &used, (uint64_t)logit_rows * logits_stride(m) * sizeof(float));
    return used;
}

static uint64_t private_buffers_place(struct forward *f, uint8_t *base)
{
    const struct model *m = f->m;
    uint32_t cols = greatest(greatest(m->dim, m->ffn), greatest(m->heads * m->head_dim, m->expert_ffn));
    uint64_t used = 0;
    f->x = take(base, &used, (uint64_t)f->capacity * m->dim * sizeof(float));
    f->out[0] = take(base, &used, (uint64_t)f->capacity * CHUNK_ROWS * sizeof(float));
    f->out[1] = take(base, &used, (uint64_t)f->capacity * CHUNK_ROWS * sizeof(float));
    f->quantised = take(base, &used, activations_bytes(f->capacity, cols));
    f->product_scratch = take(base, &used, product_scratch_bytes(cols));
    f->attention_scratch = take(base, &used, attention_scratch_bytes(m->head_dim));
    return used;
}

static bool is_quantised(const struct weight *w)
{
    return w->rows > 0 && tensor_type_traits(w->type)->block_elements > 1;
}

static bool any_quantised(const struct model *m)
{
    bool any = is_quantised(&m->head);
    for (uint32_t i = 0; i < m->layers; i++) {
        const struct model_layer *l = &m->layer[i];
        any = any || is_quantised(&l->q) || is_quantised(&l->k) || is_quantised(&l->v) || is_quantised(&l->o) ||
              is_quantised(&l->gate) || is_quantised(&l->up) || is_quantised(&l->down);
    }
    return any;
}

enum err forward_open(struct forward **out, const struct model *m, const uint8_t *weights, const struct kernels *k,
                      uint32_t capacity, uint32_t logit_rows, struct why *why)
{
    if (capacity == 0 || capacity > FORWARD_MAX_CAPACITY || logit_rows > capacity)
        return because(why, ERR_INVALID, "a step of %u tokens with %u rows of logits: 1 to %d tokens can be served, and no more logits than tokens",
                       capacity, logit_rows, FORWARD_MAX_CAPACITY);
    struct forward *f = calloc(1, sizeof *f);
    if (!f)
        return because(why, ERR_NOMEM, "no memory for a step of %u tokens", capacity);
    f->m = m;
    f->weights = weights;
    f->k = k;
    f->capacity = capacity;
    f->logit_rows = logit_rows;
    f->quantise = any_quantised(m);
    uint64_t bytes = private_buffers_place(f, NULL);
    bytes = (bytes + BUFFER_ALIGN - 1) & ~(uint64_t)(BUFFER_ALIGN - 1);
    f->memory = aligned_alloc(BUFFER_ALIGN, bytes);
    if (!f->memory) {
        free(f);
        return because(why, ERR_NOMEM, "no memory for a step of %u tokens: %llu MiB a worker are needed; allow fewer tokens a step",
                       capacity, (unsigned long long)(bytes >> 20));
    }
    memset(f->memory, 0, bytes); /* touched here, by the process that will use it */
    private_buffers_place(f, f->memory);
    *out = f;
    return OK;
}

void forward_close(struct forward *f)
{
    if (!f)
        return;
    free(f->blas_scratch);
    free(f->memory);
    free(f);
}

enum err forward_use_blas(struct forward *f, struct why *why)
{
    enum err e = product_blas_load(why);
    if (e)
        return e;
    f->blas_scratch = aligned_alloc(BUFFER_ALIGN, product_blas_scratch_bytes());
    if (!f->blas_scratch)
        return because(why, ERR_NOMEM, "no memory for products with OpenBLAS");
    memset(f->blas_scratch, 0, product_blas_scratch_bytes()); /* touched here, like the rest */
    return OK;
}

void forward_join(struct forward *f, uint32_t rank, uint32_t ranks, const struct shared_buffers *shared, meet_fn meet, void *meet_arg)
{
    must(rank < ranks && (meet || ranks == 1));
    f->rank = rank;
    f->ranks = ranks;
    f->shared = *shared;
    f->meet = meet;
    f->meet_arg = meet_arg;
}

/* ---- the batch ---- */

enum err batch_check(const struct batch *b, const struct model *m, uint32_t capacity, struct why *why)
{
    if (b->tokens == 0 || b->run_count == 0)
        return because(why, ERR_INVALID, "the batch is empty");
    if (b->tokens > capacity)
        return because(why, ERR_INVALID, "the batch has %u tokens; a step takes %u", b->tokens, capacity);
    uint32_t next = 0;
    for (uint32_t i = 0; i < b->run_count; i++) {
        const struct batch_run *run = &b->runs[i];
        if (run->first_row != next || run->count == 0 || run->count > b->tokens - next)
            return because(why, ERR_INVALID, "run %u of the batch has %u rows from row %u on, where row %u of %u is next", i,
                           run->count, run->first_row, next, b->tokens);
        if (run->position >= m->context || run->count > m->context - run->position)
            return because(why, ERR_INVALID, "run %u of the batch has %u tokens from position %u on; the context ends at %u", i,
                           run->count, run->position, m->context);
        next += run->count;
    }
    if (next != b->tokens)
        return because(why, ERR_INVALID, "the runs of the batch end at row %u of %u", next, b->tokens);
    for (uint32_t t = 0; t < b->tokens; t++)
        if (b->token_ids[t] >= m->vocab)
            return because(why, ERR_INVALID, "row %u of the batch is token %u; the vocabulary has %u", t, b->token_ids[t], m->vocab);
    return OK;
}

enum err forward_run(struct forward *f, const struct batch *b)
{
    must(f->ranks > 0 && b->tokens > 0 && b->tokens <= f->capacity);
    return arch_numbered(f->m->arch)->run(f, b) == OK ? OK : ERR_ABORTED;
}

/* ---- inputs ---- */

void forward_embed(struct forward *f, const struct batch *b)
{
    struct tile_matrix embed = model_matrix(&f->m->embed, f->weights);
    for (uint32_t t = f->rank; t < b->tokens; t += f->ranks)
        tiles_row(&embed, b->token_ids[t], f->shared.hidden + (size_t)t * f->m->dim);
}

static void take_rows(struct forward *f, uint32_t tokens, const float *x, uint32_t cols)
{
    activations_place(&f->in, f->quantised, tokens, cols, x, cols);
    if (f->quantise && cols % TILE_K == 0)
        f->k->quantize(&f->in);
}

void forward_take(struct forward *f, const struct batch *b, const float *x, uint32_t cols)
{
    take_rows(f, b->tokens, x, cols);
}

static void norm_row(struct forward *f, uint32_t to, uint32_t from, const struct weight_vector *weight)
{
    const struct model *m = f->m;
    f->k->rms_norm(f->x + (size_t)to * m->dim, f->shared.hidden + (size_t)from * m->dim, model_vector(weight, f->weights), m->dim,
                   m->norm_eps);
}

void forward_take_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight)
{
    for (uint32_t t = 0; t < b->tokens; t++)
        norm_row(f, t, t, weight);
    take_rows(f, b->tokens, f->x, f->m->dim);
}

/* ---- products ---- */

static void multiply(struct forward *f, const struct tile_matrix *w, struct tile_range r, float *y, size_t stride, enum product_mode mode)
{
    if (f->blas_scratch && product_blas_takes(w, f->in.tokens))
        product_blas(f->k, w, r.first, r.last, &f->in, y, stride, mode, f->blas_scratch);
    else
        f->k->product(w, r.first, r.last, &f->in, y, stride, mode, f->product_scratch);
}

/* y (tokens, stride) at the rows of r: w x or += w x. y is where row 0 of the whole matrix would go. */
static void product(struct forward *f, const struct weight *w, struct tile_range r, float *y, size_t stride, enum product_mode mode)
{
    if (r.first == r.last)
        return;
    struct tile_matrix matrix = model_matrix(w, f->weights);
    multiply(f, &matrix, r, y, stride, mode);
}

/* out (tokens, CHUNK_ROWS) = the rows of r of w x, the first of them in column 0. Returns how many rows. */
static uint32_t product_chunk(struct forward *f, const struct weight *w, struct tile_range r, float *out)
{
    struct tile_matrix rows = model_matrix(w, f->weights);
    uint64_t tile_bytes;
    if (!tiles_row_tile_bytes(rows.type, rows.cols, &tile_bytes))
        must_not_reach(); /* the model was planned */
    rows.tiles += r.first * tile_bytes;
    rows.rows = (w->rows < r.last * TILE_ROWS ? w->rows : r.last * TILE_ROWS) - r.first * TILE_ROWS;
    multiply(f, &rows, (struct tile_range){0, r.last - r.first}, out, CHUNK_ROWS, PRODUCT_STORE);
    return rows.rows;
}

static struct tile_range chunk_at(uint32_t first, uint32_t last)
{
    uint32_t end = first + CHUNK_ROWS / TILE_ROWS;
    return (struct tile_range){first, end < last ? end : last};
}

void forward_add(struct forward *f, const struct weight *w)
{
    product(f, w, share_of(f, tiles_of(w->rows)), f->shared.hidden, w->rows, PRODUCT_ADD);
}

void forward_gated(struct forward *f, const struct weight *gate, const struct weight *up)
{
    struct tile_range mine = share_of(f, tiles_of(gate->rows));
    for (struct tile_range chunk = chunk_at(mine.first, mine.last); chunk.first < chunk.last; chunk = chunk_at(chunk.last, mine.last)) {
        uint32_t rows = product_chunk(f, gate, chunk, f->out[0]);
        product_chunk(f, up, chunk, f->out[1]);
        float *act = f->shared.act + (size_t)chunk.first * TILE_ROWS;
        for (size_t t = 0; t < f->in.tokens; t++)
            f->k->swiglu(act + t * gate->rows, f->out[0] + t * CHUNK_ROWS, f->out[1] + t * CHUNK_ROWS, rows);
    }
}

/* ---- queries, keys and values ---- */

/* Rows [from, to) of one head. */
struct head_rows {
    uint32_t head, from, to;
};

/* The rows from `row` on, up to `end` or to the end of their head; from == to: there are none. */
static struct head_rows head_rows_at(uint32_t row, uint32_t end, uint32_t head_dim)
{
    if (row >= end)
        return (struct head_rows){0, 0, 0};
    uint32_t head = row / head_dim, left = end - head * head_dim;
    return (struct head_rows){head, row % head_dim, left < head_dim ? left : head_dim};
}

static struct head_rows next_head(struct head_rows h, uint32_t end, uint32_t head_dim)
{
    return head_rows_at((h.head + 1) * head_dim, end, head_dim);
}

/* Rotates rows [first, end) of q or k at one position; x begins with row `first`. A pair is never cut: tiles are even. */
static void rotate(const struct forward *f, uint32_t layer, uint32_t position, float *x, uint32_t first, uint32_t end)
{
    const struct model *m = f->m;
    if (m->rope_pairs == 0)
        return;
    const float *cos_sin = model_vector(model_rope(m, layer), f->weights) + (size_t)position * m->rope_pairs * 2;
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to; h = next_head(h, end, m->head_dim)) {
        uint32_t to = least(h.to, 2 * m->rope_pairs);
        if (h.from < to)
            rope_rotate(x + h.head * m->head_dim + h.from - first, 1, 0, (to - h.from) / 2, cos_sin + h.from);
    }
}

/* Normalises the heads of rows [first, end), which are whole, where the model does that. */
static void norm_heads(const struct forward *f, const struct weight_vector *norm, float *x, uint32_t first, uint32_t end)
{
    const struct model *m = f->m;
    if (norm->count != m->head_dim)
        return;
    for (uint32_t row = first; row < end; row += m->head_dim)
        f->k->rms_norm(x + row - first, x + row - first, model_vector(norm, f->weights), m->head_dim, m->norm_eps);
}

static void add_bias(const struct forward *f, const struct weight_vector *bias, float *x, size_t stride, uint32_t first, uint32_t end)
{
    if (bias->count == 0)
        return;
    const float *b = model_vector(bias, f->weights);
    for (size_t t = 0; t < f->in.tokens; t++)
        for (uint32_t row = first; row < end; row++)
            x[t * stride + row - first] += b[row];
}

static uint8_t *page_of(const struct batch_run *run, uint32_t position)
{
    return run->pages[position / ATTENTION_PAGE];
}

/* Rows [first, end) of K of one position into its slot: [head_dim / 2][16][2]. x begins with row `first`. */
static void store_k(const struct forward *f, const struct batch_run *run, uint32_t position, uint32_t layer, const float *x, uint32_t first,
                    uint32_t end)
{
    const struct model *m = f->m;
    uint16_t half[MODEL_MAX_HEAD_DIM];
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to; h = next_head(h, end, m->head_dim)) {
        uint8_t *k = page_of(run, position) + model_page_k_offset(m, layer, h.head);
        f->k->to_f16(half, x + h.head * m->head_dim + h.from - first, h.to - h.from);
        for (uint32_t d = h.from; d < h.to; d += 2)
            memcpy(k + ((size_t)d / 2 * ATTENTION_PAGE + position % ATTENTION_PAGE) * 4, half + d - h.from, 4);
    }
}

/* The same for V: [16][head_dim]. */
static void store_v(const struct forward *f, const struct batch_run *run, uint32_t position, uint32_t layer, const float *x, uint32_t first,
                    uint32_t end)
{
    const struct model *m = f->m;
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to; h = next_head(h, end, m->head_dim)) {
        uint16_t *v = (uint16_t *)(void *)(page_of(run, position) + model_page_v_offset(m, layer, h.head));
        f->k->to_f16(v + position % ATTENTION_PAGE * m->head_dim + h.from, x + h.head * m->head_dim + h.from - first, h.to - h.from);
    }
}

/* Rows [first, end) of a matrix that r stands for. */
struct row_range {
    uint32_t first, end;
};

static struct row_range rows_of(struct tile_range r, const struct weight *w)
{
    return (struct row_range){r.first * TILE_ROWS, least(r.last * TILE_ROWS, w->rows)};
}

/* x (tokens, w->rows) at the rows of r: w x + bias. */
static void project(struct forward *f, const struct weight *w, const struct weight_vector *bias, struct tile_range r, float *x)
{
    struct row_range rows = rows_of(r, w);
    product(f, w, r, x, w->rows, PRODUCT_STORE);
    add_bias(f, bias, x + rows.first, w->rows, rows.first, rows.end);
}

/* My rows of V: chunk by chunk, straight to the pages. */
static void project_v(struct forward *f, const struct batch *b, uint32_t layer, struct tile_range v)
{
    const struct model_layer *l = &f->m->layer[layer];
    for (struct tile_range chunk = chunk_at(v.first, v.last); chunk.first < chunk.last; chunk = chunk_at(chunk.last, v.last)) {
        uint32_t first = chunk.first * TILE_ROWS, end = first + product_chunk(f, &l->v, chunk, f->out[0]);
        add_bias(f, &l->v_bias, f->out[0], CHUNK_ROWS, first, end);
        for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
            for (uint32_t i = 0; i < run->count; i++)
                store_v(f, run, run->position + i, layer, f->out[0] + (size_t)(run->first_row + i) * CHUNK_ROWS, first, end);
    }
}

/* My rows of Wq, Wk and Wv. */
struct qkv_share {
    struct tile_range q, k, v;
};

/* Units of `unit` tiles as tiles of a matrix that has `tiles`. */
static struct tile_range tiles_of_units(struct tile_range units, uint32_t unit, uint32_t tiles)
{
    return (struct tile_range){least(units.first * unit, tiles), least(units.last * unit, tiles)};
}

/* Tiles that stay in one rank: as many as make whole heads where heads are normalised. */
static uint32_t qkv_unit(const struct model *m, const struct model_layer *l)
{
    uint32_t rows = m->head_dim;
    if (l->q_norm.count != m->head_dim)
        return 1;
    while (rows % TILE_ROWS != 0)
        rows += m->head_dim;
    return rows / TILE_ROWS;
}

/* Wq, Wk and Wv count as one matrix, split evenly: a rank may own parts of several, or nothing. */
static struct qkv_share share_qkv(const struct forward *f, const struct model_layer *l)
{
    uint32_t unit = qkv_unit(f->m, l), q_tiles = tiles_of(l->q.rows), kv_tiles = tiles_of(l->k.rows);
    uint32_t q = (q_tiles + unit - 1) / unit, kv = (kv_tiles + unit - 1) / unit;
    struct tile_range mine = share_of(f, q + 2 * kv);
    return (struct qkv_share){
        .q = tiles_of_units(within(mine, 0, q), unit, q_tiles),
        .k = tiles_of_units(within(mine, q, kv), unit, kv_tiles),
        .v = tiles_of_units(within(mine, q + kv, kv), unit, kv_tiles),
    };
}

void forward_qkv(struct forward *f, const struct batch *b, uint32_t layer)
{
    const struct model_layer *l = &f->m->layer[layer];
    struct qkv_share mine = share_qkv(f, l);
    struct row_range q = rows_of(mine.q, &l->q), k = rows_of(mine.k, &l->k);
    project(f, &l->q, &l->q_bias, mine.q, f->shared.q);
    project(f, &l->k, &l->k_bias, mine.k, f->shared.k);
    project_v(f, b, layer, mine.v);
    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
        for (uint32_t i = 0; i < run->count; i++) {
            uint32_t position = run->position + i;
            float *q_row = f->shared.q + (size_t)(run->first_row + i) * l->q.rows + q.first;
            float *k_row = f->shared.k + (size_t)(run->first_row + i) * l->k.rows + k.first;
            norm_heads(f, &l->q_norm, q_row, q.first, q.end);
            rotate(f, layer, position, q_row, q.first, q.end);
            norm_heads(f, &l->k_norm, k_row, k.first, k.end);
            rotate(f, layer, position, k_row, k.first, k.end);
            store_k(f, run, position, layer, k_row, k.first, k.end);
        }
    fault_point(FAULT_WORKER_KV_WRITTEN);
}

/* ---- attention ---- */

/* Positions that the queries at positions [0, end) look at, together. */
static uint64_t seen_before(uint32_t end, uint32_t window)
{
    uint64_t ramp = window && end > window ? window : end;
    return ramp * (ramp + 1) / 2 + (end - ramp) * window;
}

/* Positions that `queries` queries from `position` on look at, together. */
static uint64_t attention_cost(uint32_t position, uint32_t queries, uint32_t window)
{
    return seen_before(position + queries, window) - seen_before(position, window);
}

/* One unit: `heads` query heads from `head` on, which share kv_head, for queries [from, from + queries) of a run. */
static void attend_unit(struct forward *f, const struct batch_run *run, uint32_t layer, uint32_t kv_head, uint32_t head, uint32_t heads,
                        uint32_t from, uint32_t queries)
{
    const struct model *m = f->m;
    size_t stride = (size_t)m->heads * m->head_dim;
    size_t at = (run->first_row + from) * stride + (size_t)head * m->head_dim;
    struct attention unit = {
        .q = f->shared.q + at,
        .q_stride = stride,
        .out = f->shared.attn + at,
        .out_stride = stride,
        .queries = queries,
        .first = run->position + from,
        .heads = heads,
        .head_dim = m->head_dim,
        .window = model_window(m, layer),
        .scale = m->attn_scale,
        .softcap = m->attn_softcap,
        .pages = (const uint8_t *const *)run->pages,
        .k_offset = model_page_k_offset(m, layer, kv_head),
        .v_offset = model_page_v_offset(m, layer, kv_head),
        .scratch = f->attention_scratch,
    };
    f->k->attend(&unit);
}

/*
 * Units in order of run, kv head, query heads, queries; a unit belongs to the rank in whose even part of the whole cost its
 * middle falls. Every rank walks all units and does its own.
 */
void forward_attend(struct forward *f, const struct batch *b, uint32_t layer)
{
    const struct model *m = f->m;
    uint32_t group = m->heads / m->kv_heads, window = model_window(m, layer);
    uint64_t total = 0, before = 0;
    for (uint32_t r = 0; r < b->run_count; r++)
        total += attention_cost(b->runs[r].position, b->runs[r].count, window) * m->heads;

    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
        for (uint32_t first = 0, heads; first < m->heads; first += heads) {
            uint32_t kv_head = first / group, left = (kv_head + 1) * group - first;
            heads = left < ATTENTION_MAX_HEADS ? left : ATTENTION_MAX_HEADS;
            for (uint32_t from = 0, queries; from < run->count; from += queries) {
                queries = run->count - from < QUERY_BLOCK ? run->count - from : QUERY_BLOCK;
                uint64_t cost = attention_cost(run->position + from, queries, window) * heads;
                if ((2 * before + cost) * f->ranks / (2 * total) == f->rank)
                    attend_unit(f, run, layer, kv_head, first, heads, from, queries);
                before += cost;
            }
        }
}

/* ---- logits ---- */

void forward_logits(struct forward *f, const uint32_t *rows, uint32_t count, uint32_t *first, uint32_t *last)
{
    const struct model *m = f->m;
    must(count <= f->logit_rows);
    struct tile_range blocks = share_of(f, (m->vocab + LOGIT_BLOCK - 1) / LOGIT_BLOCK);
    *first = blocks.first * LOGIT_BLOCK < m->vocab ? blocks.first * LOGIT_BLOCK : m->vocab;
    *last = blocks.last * LOGIT_BLOCK < m->vocab ? blocks.last * LOGIT_BLOCK : m->vocab;
    if (count == 0 || *first == *last)
        return;
    for (uint32_t i = 0; i < count; i++)
        norm_row(f, i, rows[i], &m->out_norm);
    take_rows(f, count, f->x, m->dim);
    product(f, &m->head, (struct tile_range){*first / TILE_ROWS, tiles_of(*last)}, f->shared.logits, logits_stride(m), PRODUCT_STORE);
}
