/*
 * forward_experts: the feed-forward network of a mixture of experts. Shazeer et al., arXiv:1701.06538.
 *
 * A token's answer is a sum over its experts in ascending order, whoever else asks them. The tokens of an expert are rows that
 * follow one another, expert by expert, so that each matrix is read once for all of its tokens.
 */
#include <string.h>

#include "model/forward_products.h"

void forward_routes_place(struct expert_routes *r, const struct model *m, uint32_t capacity, uint8_t *base,
                          uint64_t *used)
{
    uint64_t rows = (uint64_t)capacity * m->experts_used;
    r->logits = forward_place(base, used, (uint64_t)capacity * tiles_of(m->experts) * TILE_ROWS * sizeof *r->logits);
    r->chosen = forward_place(base, used, (uint64_t)capacity * m->experts);
    r->first = forward_place(base, used, ((uint64_t)m->experts + 1) * sizeof *r->first);
    r->token = forward_place(base, used, rows * sizeof *r->token);
    r->share = forward_place(base, used, rows * sizeof *r->share);
    r->x = forward_place(base, used, (uint64_t)capacity * m->dim * sizeof *r->x);
}

/*
 * Marks the `used` largest of n logits, of equal ones the lowest, and puts in their place their shares: the softmax over them.
 * (A softmax over all, then scaled so that the chosen make 1, is the same.)
 */
static void choose(float *logit, uint8_t *chosen, uint32_t n, uint32_t used)
{
    float max = 0.0f, sum = 0.0f;
    memset(chosen, 0, n);
    for (uint32_t i = 0; i < used; i++) {
        uint32_t best = n;
        for (uint32_t e = 0; e < n; e++)
            if (!chosen[e] && (best == n || logit[e] > logit[best]))
                best = e;
        chosen[best] = 1;
        if (i == 0)
            max = logit[best];
    }
    for (uint32_t e = 0; e < n; e++)
        if (chosen[e]) {
            logit[e] = kernel_expf(logit[e] - max);
            sum += logit[e];
        }
    for (uint32_t e = 0; e < n; e++)
        if (chosen[e])
            logit[e] /= sum;
}

void forward_route(struct forward *f, const struct weight *router)
{
    struct expert_routes *r = &f->routes;
    uint32_t experts = f->m->experts, stride = tiles_of(experts) * TILE_ROWS, rows = 0;
    struct tile_matrix matrix = model_matrix(router, f->weights);
    forward_product(f, &matrix, (struct tile_range){0, tiles_of(experts)}, r->logits, stride, PRODUCT_STORE);
    for (size_t t = 0; t < f->in.tokens; t++)
        choose(r->logits + t * stride, r->chosen + t * experts, experts, f->m->experts_used);
    for (uint32_t e = 0; e < experts; e++) {
        r->first[e] = rows;
        for (uint32_t t = 0; t < f->in.tokens; t++)
            if (r->chosen[(size_t)t * experts + e]) {
                r->token[rows] = t;
                r->share[rows++] = r->logits[(size_t)t * stride + e];
            }
    }
    r->first[experts] = rows;
}

void forward_experts_gated(struct forward *f, const struct weight *gate, const struct weight *up)
{
    const struct expert_routes *r = &f->routes;
    const float *x = f->in.x;
    size_t dim = f->in.cols, stride = f->in.x_stride;
    for (uint32_t e = 0; e < f->m->experts; e++) {
        uint32_t count = r->first[e + 1] - r->first[e];
        if (count == 0)
            continue;
        for (size_t i = 0; i < count; i++)
            memcpy(r->x + i * dim, x + r->token[r->first[e] + i] * stride, dim * sizeof *x);
        forward_take_rows(f, count, r->x, (uint32_t)dim);
        struct tile_matrix gates = model_expert(gate, e, f->weights), ups = model_expert(up, e, f->weights);
        struct tile_range mine = share_of(f, tiles_of(gates.rows));
        for (struct tile_range chunk = chunk_at(mine.first, mine.last); chunk.first < chunk.last;
             chunk = chunk_at(chunk.last, mine.last))
            forward_gate(f, &gates, &ups, chunk, f->k->swiglu, f->shared.act + (size_t)r->first[e] * gate->rows);
    }
}

/* hidden += share * (w x) for the tokens of rows [first, last), my rows of w. */
static void add_expert(struct forward *f, const struct tile_matrix *w, uint32_t first, uint32_t last)
{
    const struct expert_routes *r = &f->routes;
    struct tile_range mine = share_of(f, tiles_of(w->rows));
    for (struct tile_range chunk = chunk_at(mine.first, mine.last); chunk.first < chunk.last;
         chunk = chunk_at(chunk.last, mine.last)) {
        uint32_t rows = forward_product_chunk(f, w, chunk, f->out[0]);
        for (uint32_t i = first; i < last; i++) {
            float *hidden = f->hidden + (size_t)r->token[i] * w->rows + (size_t)chunk.first * TILE_ROWS;
            const float *answer = f->out[0] + (size_t)(i - first) * CHUNK_ROWS;
            for (uint32_t row = 0; row < rows; row++)
                hidden[row] += r->share[i] * answer[row];
        }
    }
}

void forward_experts_add(struct forward *f, const struct weight *down)
{
    const struct expert_routes *r = &f->routes;
    for (uint32_t e = 0; e < f->m->experts; e++) {
        if (r->first[e] == r->first[e + 1])
            continue;
        struct tile_matrix matrix = model_expert(down, e, f->weights);
        forward_take_rows(f, r->first[e + 1] - r->first[e], f->shared.act + (size_t)r->first[e] * down->cols,
                          down->cols);
        add_expert(f, &matrix, r->first[e], r->first[e + 1]);
    }
}
