/*
 * forward: see forward.h and forward_internal.h. Here: memory, batches, the residual stream with its norms, products and logits;
 * attention and experts have files of their own.
 */
#include "model/forward.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/arch.h"
#include "model/forward_products.h"
#include "model/kernels/product_blas.h"

enum {
    LOGIT_BLOCK = 256, /* vocabulary rows that stay in one rank */
    LOGIT_PARTS = 16,  /* of a rank's share of them, about */
    BUFFER_ALIGN = 4096,
    /* By measurement (bench_step): */
    ROUNDED_TOKENS = 4,       /* so many at least, and a network's activations cross to other ranks as 8-bit codes */
    SHARED_INPUT_TOKENS = 32, /* so many at least, and ranks round the inputs of products together */
    OWN_HIDDEN_TOKENS = 32,   /* so many at most, and a rank keeps the residual stream by itself where it can */
    BLOCK_TILES = TILE_K / TILE_ROWS, /* tiles whose rows are the columns of one block of codes */
};

/* ---- memory ---- */

static uint32_t logits_stride(const struct model *m)
{
    return tiles_of(m->vocab) * TILE_ROWS;
}

/* Whether only norms of branches are added to hidden. */
static bool has_normed_branches(const struct model *m)
{
    return m->layer[0].attn_post_norm.count > 0;
}

static bool is_quantised(const struct weight *w)
{
    return w->rows > 0 && tensor_type_traits(w->type)->block_elements > 1;
}

/* Whether nothing reads a network's activations but products with their codes. */
static bool rounds_act(const struct model *m)
{
    bool all = m->experts == 0 && m->ffn % TILE_K == 0;
    for (uint32_t i = 0; i < m->layers; i++)
        all = all && is_quantised(&m->layer[i].down);
    return all;
}

static bool is_rounded(const struct weight *w)
{
    return is_quantised(w) && w->cols % TILE_K == 0;
}

/* Whether nothing reads the inputs of a layer's products but products with their codes. */
static bool shares_inputs(const struct model *m)
{
    bool all = m->experts == 0;
    for (uint32_t i = 0; i < m->layers; i++) {
        const struct model_layer *l = &m->layer[i];
        all = all && is_rounded(&l->q) && is_rounded(&l->k) && is_rounded(&l->v) && is_rounded(&l->o) &&
              is_rounded(&l->gate) && is_rounded(&l->up);
    }
    return all;
}

/* Columns of the widest matrix. */
static uint32_t widest(const struct model *m)
{
    return greatest(greatest(m->dim, m->ffn), greatest(m->heads * m->head_dim, m->expert_ffn));
}

uint64_t shared_buffers_place(struct shared_buffers *b, const struct model *m, uint32_t capacity, uint32_t logit_rows,
                              uint8_t *base)
{
    uint64_t used = 0, row = (uint64_t)capacity * sizeof(float);
    b->handed = forward_place(base, &used, FORWARD_MAX_RANKS * sizeof *b->handed);
    b->hidden = forward_place(base, &used, row * m->dim);
    b->q = forward_place(base, &used, row * m->heads * m->head_dim);
    b->k = forward_place(base, &used, row * m->kv_heads * m->head_dim);
    b->attn = forward_place(base, &used, row * m->heads * m->head_dim);
    b->branch = forward_place(base, &used, has_normed_branches(m) ? row * m->dim : 0);
    b->act = forward_place(base, &used, row * (m->experts > 0 ? m->experts_used * m->expert_ffn : m->ffn));
    b->rounded_act = forward_place(base, &used, rounds_act(m) ? activations_bytes(capacity, m->ffn) : 0);
    b->rounded_in = forward_place(
        base, &used, shares_inputs(m) ? activations_bytes(capacity, greatest(m->dim, m->heads * m->head_dim)) : 0);
    b->logits = forward_place(base, &used, (uint64_t)logit_rows * logits_stride(m) * sizeof(float));
    return used;
}

static uint64_t private_buffers_place(struct forward *f, uint8_t *base)
{
    const struct model *m = f->m;
    uint32_t cols = widest(m);
    uint64_t used = 0;
    f->x = forward_place(base, &used, (uint64_t)f->capacity * m->dim * sizeof(float));
    f->own_hidden = forward_place(
        base, &used,
        has_normed_branches(m) ? (uint64_t)least(f->capacity, OWN_HIDDEN_TOKENS) * m->dim * sizeof(float) : 0);
    f->out[0] = forward_place(base, &used, (uint64_t)f->capacity * CHUNK_ROWS * sizeof(float));
    f->out[1] = forward_place(base, &used, (uint64_t)f->capacity * CHUNK_ROWS * sizeof(float));
    f->quantised = forward_place(base, &used, activations_bytes(f->capacity, cols));
    f->product_scratch = forward_place(base, &used, product_scratch_bytes(cols));
    f->attention_scratch = forward_place(base, &used, attention_scratch_bytes(m->head_dim));
    if (m->experts > 0)
        forward_routes_place(&f->routes, m, f->capacity, base, &used);
    return used;
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
        return because(
            why, ERR_INVALID,
            "a step of %u tokens with %u rows of logits: 1 to %d tokens can be served, and no more logits than tokens",
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
    f->round_act = rounds_act(m);
    f->share_in = shares_inputs(m);
    uint64_t bytes = private_buffers_place(f, NULL);
    bytes = (bytes + BUFFER_ALIGN - 1) & ~(uint64_t)(BUFFER_ALIGN - 1);
    f->memory = aligned_alloc(BUFFER_ALIGN, bytes);
    if (!f->memory) {
        free(f);
        return because(why, ERR_NOMEM,
                       "no memory for a step of %u tokens: %llu MiB a worker are needed; allow fewer tokens a step",
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
    free(f->panel);
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

enum err forward_use_float_activations(struct forward *f, struct why *why)
{
    size_t bytes =
        ((size_t)widest(f->m) * (TILE_ROWS + 1) * sizeof(float) + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    f->panel = aligned_alloc(BUFFER_ALIGN, bytes);
    if (!f->panel)
        return because(why, ERR_NOMEM, "no memory for products with float activations");
    memset(f->panel, 0, bytes); /* touched here, like the rest */
    f->quantise = f->round_act = f->share_in = false;
    return OK;
}

void forward_join(struct forward *f, uint32_t rank, uint32_t ranks, uint32_t epoch, const struct shared_buffers *shared,
                  meet_fn meet, void *meet_arg)
{
    must(rank < ranks && ranks <= FORWARD_MAX_RANKS && (meet || ranks == 1));
    handout_join(&f->handout, shared->handed, rank, ranks, epoch);
    f->rank = rank;
    f->ranks = ranks;
    f->shared = *shared;
    f->hidden = shared->hidden;
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
            return because(why, ERR_INVALID,
                           "run %u of the batch has %u rows from row %u on, where row %u of %u is next", i, run->count,
                           run->first_row, next, b->tokens);
        if (run->position >= m->context || run->count > m->context - run->position)
            return because(why, ERR_INVALID,
                           "run %u of the batch has %u tokens from position %u on; the context ends at %u", i,
                           run->count, run->position, m->context);
        next += run->count;
    }
    if (next != b->tokens)
        return because(why, ERR_INVALID, "the runs of the batch end at row %u of %u", next, b->tokens);
    for (uint32_t t = 0; t < b->tokens; t++)
        if (b->token_ids[t] >= m->vocab)
            return because(why, ERR_INVALID, "row %u of the batch is token %u; the vocabulary has %u", t,
                           b->token_ids[t], m->vocab);
    return OK;
}

enum err forward_run(struct forward *f, const struct batch *b)
{
    must(f->ranks > 0 && b->tokens > 0 && b->tokens <= f->capacity);
    bool own = has_normed_branches(f->m) && b->tokens <= OWN_HIDDEN_TOKENS;
    f->hidden = own ? f->own_hidden : f->shared.hidden;
    f->inputs_shared = f->share_in && f->ranks > 1 && b->tokens >= SHARED_INPUT_TOKENS;
    f->handed_out = false;
    return arch_numbered(f->m->arch)->run(f, b) == OK ? OK : ERR_ABORTED;
}

/* ---- inputs ---- */

static bool is_mine(const struct forward *f, uint32_t token)
{
    return f->hidden == f->own_hidden || token % f->ranks == f->rank;
}

void forward_embed(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;
    struct tile_matrix embed = model_matrix(&m->embed, f->weights), learned = model_matrix(&m->positions, f->weights);
    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
        for (uint32_t t = run->first_row; t < run->first_row + run->count; t++) {
            float *hidden = f->hidden + (size_t)t * m->dim;
            if (!is_mine(f, t))
                continue;
            tiles_row(&embed, b->token_ids[t], hidden);
            for (uint32_t i = 0; m->embed_scale != 1.0f && i < m->dim; i++)
                hidden[i] *= m->embed_scale;
            if (learned.rows == 0)
                continue;
            tiles_row(&learned, run->position + t - run->first_row, f->x);
            for (uint32_t i = 0; i < m->dim; i++)
                hidden[i] += f->x[i];
        }
}

void forward_take_rows(struct forward *f, uint32_t tokens, const float *x, uint32_t cols)
{
    activations_place(&f->in, f->quantised, tokens, cols, x, cols);
    if (f->quantise && cols % TILE_K == 0)
        f->k->quantize(&f->in, 0, cols / TILE_K);
}

void forward_take(struct forward *f, const struct batch *b, const float *x, uint32_t cols)
{
    forward_take_rows(f, b->tokens, x, cols);
}

/* With a bias: LayerNorm; without: RMSNorm. */
static void norm_row(struct forward *f, float *to, const float *from, const struct weight_vector *weight,
                     const struct weight_vector *bias)
{
    const struct model *m = f->m;
    if (bias->count > 0)
        f->k->layer_norm(to, from, model_vector(weight, f->weights), model_vector(bias, f->weights), m->dim,
                         m->norm_eps);
    else
        f->k->rms_norm(to, from, model_vector(weight, f->weights), m->dim, m->norm_eps);
}

void forward_take_layer_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight,
                               const struct weight_vector *bias)
{
    size_t dim = f->m->dim;
    for (uint32_t t = 0; t < b->tokens; t++)
        norm_row(f, f->x + t * dim, f->hidden + t * dim, weight, bias);
    forward_take_rows(f, b->tokens, f->x, f->m->dim);
}

void forward_take_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight)
{
    forward_take_layer_normed(f, b, weight, &(struct weight_vector){0});
}

/* The groups of tokens that this rank norms and rounds for all. */
static struct tile_range my_groups(const struct forward *f, uint32_t tokens)
{
    return share_of(f, (tokens + ACTIVATION_GROUP - 1) / ACTIVATION_GROUP);
}

/* The inputs are those that ranks share; my groups of them from x (tokens, cols). */
static void round_mine(struct forward *f, uint32_t tokens, const float *x, uint32_t cols)
{
    struct tile_range mine = my_groups(f, tokens);
    activations_place(&f->in, f->shared.rounded_in, tokens, cols, x, cols);
    struct activations part = activations_of_groups(&f->in, mine.first, mine.last);
    f->k->quantize(&part, 0, cols / TILE_K);
}

void forward_share_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight)
{
    size_t dim = f->m->dim;
    if (!f->inputs_shared) {
        forward_take_normed(f, b, weight);
        return;
    }
    struct tile_range mine = my_groups(f, b->tokens);
    for (uint32_t t = mine.first * ACTIVATION_GROUP; t < least(mine.last * ACTIVATION_GROUP, b->tokens); t++)
        norm_row(f, f->x + t * dim, f->hidden + t * dim, weight, &(struct weight_vector){0});
    round_mine(f, b->tokens, f->x, f->m->dim);
}

void forward_share_rows(struct forward *f, const struct batch *b, const float *x, uint32_t cols)
{
    if (f->inputs_shared)
        round_mine(f, b->tokens, x, cols);
    else
        forward_take(f, b, x, cols);
}

/* ---- products ---- */

/* One row tile of w as floats, [column][16]; rows beyond the last stay zero. */
static struct tile_matrix widened(const struct forward *f, const struct tile_matrix *w, uint32_t tile)
{
    float *row = f->panel + (size_t)w->cols * TILE_ROWS;
    uint32_t rows = least(TILE_ROWS, w->rows - tile * TILE_ROWS);
    memset(f->panel, 0, (size_t)w->cols * TILE_ROWS * sizeof *f->panel);
    for (uint32_t r = 0; r < rows; r++) {
        tiles_row(w, tile * TILE_ROWS + r, row);
        for (size_t k = 0; k < w->cols; k++)
            f->panel[k * TILE_ROWS + r] = row[k];
    }
    return (struct tile_matrix){.type = TENSOR_F32, .rows = rows, .cols = w->cols, .tiles = (const uint8_t *)f->panel};
}

static void product_widened(struct forward *f, const struct tile_matrix *w, struct tile_range r, float *y,
                            size_t stride, enum product_mode mode)
{
    for (uint32_t tile = r.first; tile < r.last && tile * TILE_ROWS < w->rows; tile++) {
        struct tile_matrix floats = widened(f, w, tile);
        f->k->product(&floats, 0, 1, &f->in, y + (size_t)tile * TILE_ROWS, stride, mode, f->product_scratch);
    }
}

void forward_product(struct forward *f, const struct tile_matrix *w, struct tile_range r, float *y, size_t stride,
                     enum product_mode mode)
{
    if (r.first == r.last)
        return;
    if (f->panel)
        product_widened(f, w, r, y, stride, mode);
    else if (f->blas_scratch && product_blas_takes(w, f->in.tokens))
        product_blas(f->k, w, r.first, r.last, &f->in, y, stride, mode, f->blas_scratch);
    else
        f->k->product(w, r.first, r.last, &f->in, y, stride, mode, f->product_scratch);
}

void forward_fetch_tiles(const struct forward *f, const struct weight *w, struct tile_range r, uint64_t *left)
{
    uint64_t tile_bytes;
    struct tile_matrix matrix = model_matrix(w, f->weights);
    if (r.first == r.last || !tiles_row_tile_bytes(w->type, w->cols, &tile_bytes))
        return;
    const uint8_t *at = matrix.tiles + r.first * tile_bytes;
    uint64_t bytes = (r.last - r.first) * tile_bytes;
    bytes = bytes < *left ? bytes : *left;
    for (uint64_t line = 0; line < bytes; line += 64)
        __builtin_prefetch(at + line, 0, 2); /* for reading, to the second level */
    *left -= bytes;
}

void forward_fetch(const struct forward *f, const struct weight *w)
{
    uint64_t left = FETCH_BYTES;
    forward_fetch_tiles(f, w, share_of(f, tiles_of(w->rows)), &left);
}

uint32_t forward_product_chunk(struct forward *f, const struct tile_matrix *w, struct tile_range r, float *out)
{
    struct tile_matrix rows = *w;
    uint64_t tile_bytes;
    if (!tiles_row_tile_bytes(rows.type, rows.cols, &tile_bytes))
        must_not_reach(); /* the model was planned */
    rows.tiles += r.first * tile_bytes;
    rows.rows = least(w->rows, r.last * TILE_ROWS) - r.first * TILE_ROWS;
    forward_product(f, &rows, (struct tile_range){0, r.last - r.first}, out, CHUNK_ROWS, PRODUCT_STORE);
    return rows.rows;
}

void forward_add_bias(const struct forward *f, const struct weight_vector *bias, float *x, size_t stride,
                      uint32_t first, uint32_t end)
{
    if (bias->count == 0)
        return;
    const float *b = model_vector(bias, f->weights);
    for (size_t t = 0; t < f->in.tokens; t++)
        for (uint32_t row = first; row < end; row++)
            x[t * stride + row - first] += b[row];
}

void forward_project(struct forward *f, const struct weight *w, const struct weight_vector *bias, struct tile_range r,
                     float *y, enum product_mode mode)
{
    struct tile_matrix matrix = model_matrix(w, f->weights);
    struct row_range rows = rows_of(r, w);
    forward_product(f, &matrix, r, y, w->rows, mode);
    forward_add_bias(f, bias, y + rows.first, w->rows, rows.first, rows.end);
}

/* ---- halves of a layer ---- */

/* y (tokens, w->rows): w x, stored or added, and the bias; handed out. */
static void project_together(struct forward *f, const struct weight *w, const struct weight_vector *bias, float *y,
                             enum product_mode mode)
{
    hand_out(f, tiles_of(w->rows), PART_TILES);
    for (struct tile_range r; take_units(f, &r);)
        forward_project(f, w, bias, r, y, mode);
}

void forward_add(struct forward *f, const struct weight *w)
{
    forward_add_biased(f, w, &(struct weight_vector){0});
}

void forward_add_biased(struct forward *f, const struct weight *w, const struct weight_vector *bias)
{
    must(f->hidden == f->shared.hidden); /* some columns of all rows, which the other ranks read */
    project_together(f, w, bias, f->hidden, PRODUCT_ADD);
}

void forward_branch(struct forward *f, const struct weight *w)
{
    project_together(f, w, &(struct weight_vector){0}, f->shared.branch, PRODUCT_STORE);
}

void forward_add_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight)
{
    uint32_t dim = f->m->dim;
    for (uint32_t t = 0; t < b->tokens; t++) {
        float *hidden = f->hidden + (size_t)t * dim;
        if (!is_mine(f, t))
            continue;
        norm_row(f, f->x, f->shared.branch + (size_t)t * dim, weight, &(struct weight_vector){0});
        for (uint32_t i = 0; i < dim; i++)
            hidden[i] += f->x[i];
    }
}

void forward_gate(struct forward *f, const struct tile_matrix *gate, const struct tile_matrix *up, struct tile_range r,
                  gate_fn activation, float *act)
{
    uint32_t rows = forward_product_chunk(f, gate, r, f->out[0]);
    forward_product_chunk(f, up, r, f->out[1]);
    for (size_t t = 0; t < f->in.tokens; t++)
        activation(act + t * gate->rows + (size_t)r.first * TILE_ROWS, f->out[0] + t * CHUNK_ROWS,
                   f->out[1] + t * CHUNK_ROWS, rows);
}

static bool act_is_rounded(const struct forward *f, uint32_t tokens)
{
    return f->round_act && tokens >= ROUNDED_TOKENS;
}

/* forward_gate whose results go to shared rounded_act as `act`: what crosses to other ranks is a third of the bytes. */
static void gate_rounded(struct forward *f, const struct tile_matrix *gate, const struct tile_matrix *up,
                         struct tile_range blocks, gate_fn activation, struct activations *act)
{
    struct tile_range r = {blocks.first * BLOCK_TILES, blocks.last * BLOCK_TILES};
    uint32_t rows = forward_product_chunk(f, gate, r, f->out[0]);
    forward_product_chunk(f, up, r, f->out[1]);
    for (size_t t = 0; t < f->in.tokens; t++)
        activation(f->out[0] + t * CHUNK_ROWS, f->out[0] + t * CHUNK_ROWS, f->out[1] + t * CHUNK_ROWS, rows);
    f->k->quantize(act, blocks.first, blocks.last);
}

static void gated(struct forward *f, const struct weight *gate, const struct weight *up, gate_fn activation)
{
    struct tile_matrix gates = model_matrix(gate, f->weights), ups = model_matrix(up, f->weights);
    bool rounded = act_is_rounded(f, f->in.tokens);
    struct activations act;
    if (rounded)
        activations_place(&act, f->shared.rounded_act, f->in.tokens, gate->rows, f->out[0], CHUNK_ROWS);
    hand_out(f, rounded ? gate->rows / TILE_K : tiles_of(gate->rows), rounded ? PART_TILES / BLOCK_TILES : PART_TILES);
    for (struct tile_range r; take_units(f, &r);)
        if (rounded)
            gate_rounded(f, &gates, &ups, r, activation, &act);
        else
            forward_gate(f, &gates, &ups, r, activation, f->shared.act);
}

void forward_take_gated(struct forward *f, const struct batch *b)
{
    uint32_t ffn = f->m->ffn;
    if (act_is_rounded(f, b->tokens))
        activations_place(&f->in, f->shared.rounded_act, b->tokens, ffn, NULL, 0);
    else
        forward_take(f, b, f->shared.act, ffn);
}

void forward_gated(struct forward *f, const struct weight *gate, const struct weight *up)
{
    gated(f, gate, up, f->k->swiglu);
}

void forward_gated_gelu(struct forward *f, const struct weight *gate, const struct weight *up)
{
    gated(f, gate, up, f->k->gelu);
}

void forward_gelu(struct forward *f, const struct weight *up, const struct weight_vector *bias)
{
    hand_out(f, tiles_of(up->rows), PART_TILES);
    for (struct tile_range r; take_units(f, &r);) {
        struct row_range rows = rows_of(r, up);
        forward_project(f, up, bias, r, f->shared.act, PRODUCT_STORE);
        for (size_t t = 0; t < f->in.tokens; t++) {
            float *act = f->shared.act + t * up->rows + rows.first;
            f->k->gelu(act, act, NULL, rows.end - rows.first);
        }
    }
}

/* ---- logits ---- */

void forward_logits_begin(struct forward *f, const uint32_t *rows, uint32_t count)
{
    const struct model *m = f->m;
    must(count > 0 && count <= f->logit_rows);
    for (uint32_t i = 0; i < count; i++)
        norm_row(f, f->x + (size_t)i * m->dim, f->hidden + (size_t)rows[i] * m->dim, &m->out_norm, &m->out_norm_bias);
    forward_take_rows(f, count, f->x, m->dim);
    f->handed_out = false; /* the caller has met */
    uint32_t blocks = (m->vocab + LOGIT_BLOCK - 1) / LOGIT_BLOCK;
    hand_out(f, blocks, blocks / f->ranks / LOGIT_PARTS + 1);
}

bool forward_logits_next(struct forward *f, uint32_t *first, uint32_t *last)
{
    const struct model *m = f->m;
    struct tile_range blocks;
    if (!take_units(f, &blocks))
        return false;
    *first = blocks.first * LOGIT_BLOCK;
    *last = least(blocks.last * LOGIT_BLOCK, m->vocab);
    struct tile_matrix head = model_matrix(&m->head, f->weights);
    forward_product(f, &head, (struct tile_range){*first / TILE_ROWS, tiles_of(*last)}, f->shared.logits,
                    logits_stride(m), PRODUCT_STORE);
    for (uint32_t i = 0; m->logit_softcap > 0.0f && i < f->in.tokens; i++)
        soft_cap(f->shared.logits + (size_t)i * logits_stride(m) + *first, *last - *first, m->logit_softcap);
    return true;
}
