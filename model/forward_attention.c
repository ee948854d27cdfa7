/*
 * forward_attention: queries, keys and values, from their products to the pages, and attention over the pages.
 */
#include "base/fault.h"
#include "model/forward_products.h"

enum {
    QUERY_BLOCK = 32,  /* query positions of one unit of attention, at most */
    UNIT_ROWS = 12,    /* (query, head) pairs of a unit, at least: as many as kernels take at once */
    UNITS_OF_RANK = 8, /* that many at least make up a rank's share, where they are not that small already */
};

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
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to;
         h = next_head(h, end, m->head_dim)) {
        uint32_t to = least(h.to, 2 * m->rope_pairs);
        if (h.from < to)
            f->k->rope_rotate(x + h.head * m->head_dim + h.from - first, 1, 0, (to - h.from) / 2, cos_sin + h.from);
    }
}

/* Normalises the heads of rows [first, end), which are whole, where the model does that. */
static void norm_heads(const struct forward *f, const struct weight_vector *norm, float *x, uint32_t first,
                       uint32_t end)
{
    const struct model *m = f->m;
    if (norm->count != m->head_dim)
        return;
    for (uint32_t row = first; row < end; row += m->head_dim)
        f->k->rms_norm(x + row - first, x + row - first, model_vector(norm, f->weights), m->head_dim, m->norm_eps);
}

static uint8_t *page_of(const struct model *m, const struct batch_run *run, uint32_t layer, uint32_t position)
{
    return run->pages[model_page_class(m, layer)][position / ATTENTION_PAGE];
}

/* Rows [first, end) of K of one position into its slot. x begins with row `first`. */
static void store_k(const struct forward *f, const struct batch_run *run, uint32_t position, uint32_t layer,
                    const float *x, uint32_t first, uint32_t end)
{
    const struct model *m = f->m;
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to; h = next_head(h, end, m->head_dim))
        kv_store_k((enum kv_type)m->kv_type, page_of(m, run, layer, position) + model_page_k_offset(m, layer, h.head),
                   m->head_dim, position % ATTENTION_PAGE, h.from, h.to - h.from,
                   x + h.head * m->head_dim + h.from - first, f->k->to_f16);
}

/* The same for V. */
static void store_v(const struct forward *f, const struct batch_run *run, uint32_t position, uint32_t layer,
                    const float *x, uint32_t first, uint32_t end)
{
    const struct model *m = f->m;
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to; h = next_head(h, end, m->head_dim))
        kv_store_v((enum kv_type)m->kv_type, page_of(m, run, layer, position) + model_page_v_offset(m, layer, h.head),
                   m->head_dim, position % ATTENTION_PAGE, h.from, h.to - h.from,
                   x + h.head * m->head_dim + h.from - first, f->k->to_f16);
}

/*
 * Asks for the lines where rows [first, end) of K, or of V, will be written at `position` and behind it in the page,
 * as far as the run goes; nothing beyond. They are cold, and stores wait for one line after the other.
 */
static void fetch_k_slots(const struct forward *f, const struct batch_run *run, uint32_t position, uint32_t layer,
                          uint32_t first, uint32_t end)
{
    const struct model *m = f->m;
    size_t element = kv_element_bytes((enum kv_type)m->kv_type);
    if (position >= run->position + run->count)
        return;
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to;
         h = next_head(h, end, m->head_dim)) {
        const uint8_t *k = page_of(m, run, layer, position) + model_page_k_offset(m, layer, h.head);
        for (uint32_t d = h.from; d < h.to; d += 2)
            __builtin_prefetch(k + (size_t)d * ATTENTION_PAGE * element, 1, 2);
    }
}

static void fetch_v_slots(const struct forward *f, const struct batch_run *run, uint32_t position, uint32_t layer,
                          uint32_t first, uint32_t end)
{
    const struct model *m = f->m;
    uint32_t slot = position % ATTENTION_PAGE, row = m->head_dim * (uint32_t)kv_element_bytes((enum kv_type)m->kv_type);
    if (position >= run->position + run->count)
        return;
    uint32_t slots = least(ATTENTION_PAGE - slot, run->position + run->count - position);
    for (struct head_rows h = head_rows_at(first, end, m->head_dim); h.from < h.to;
         h = next_head(h, end, m->head_dim)) {
        const uint8_t *v = page_of(m, run, layer, position) + model_page_v_offset(m, layer, h.head) + slot * row;
        for (uint32_t at = 0; at < slots * row; at += 64)
            __builtin_prefetch(v + at, 1, 2);
    }
}

/*
 * Where the page after that of `position` begins, when `position` is the first of the run in its page; else far away.
 */
static uint32_t next_page_at(const struct batch_run *run, uint32_t position)
{
    bool first = position == run->position || position % ATTENTION_PAGE == 0;
    return first ? (position / ATTENTION_PAGE + 1) * ATTENTION_PAGE : UINT32_MAX;
}

/* My rows of V: chunk by chunk, straight to the pages. */
static void project_v(struct forward *f, const struct batch *b, uint32_t layer, struct tile_range v)
{
    const struct model_layer *l = &f->m->layer[layer];
    struct tile_matrix matrix = model_matrix(&l->v, f->weights);
    for (struct tile_range chunk = chunk_at(v.first, v.last); chunk.first < chunk.last;
         chunk = chunk_at(chunk.last, v.last)) {
        uint32_t first = chunk.first * TILE_ROWS, end = first + forward_product_chunk(f, &matrix, chunk, f->out[0]);
        forward_add_bias(f, &l->v_bias, f->out[0], CHUNK_ROWS, first, end);
        for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
            for (uint32_t i = 0; i < run->count; i++) {
                fetch_v_slots(f, run, next_page_at(run, run->position + i), layer, first, end);
                store_v(f, run, run->position + i, layer, f->out[0] + (size_t)(run->first_row + i) * CHUNK_ROWS, first,
                        end);
            }
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

/*
 * Wq, Wk and Wv count as one matrix, split evenly: a rank may own parts of several, or nothing. They are not handed out: positions
 * of a page lie side by side, and its lines stay with the core that wrote the one before (handed out, this was a tenth slower).
 */
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

void forward_fetch_layer(const struct forward *f, uint32_t layer)
{
    if (layer == f->m->layers) {
        forward_fetch(f, &f->m->head);
        return;
    }
    const struct model_layer *l = &f->m->layer[layer];
    struct qkv_share mine = share_qkv(f, l);
    uint64_t left = FETCH_BYTES;
    forward_fetch_tiles(f, &l->q, mine.q, &left);
    forward_fetch_tiles(f, &l->k, mine.k, &left);
    forward_fetch_tiles(f, &l->v, mine.v, &left);
}

static void project_qkv(struct forward *f, const struct batch *b, uint32_t layer, struct qkv_share mine)
{
    const struct model_layer *l = &f->m->layer[layer];
    forward_project(f, &l->q, &l->q_bias, mine.q, f->shared.q, PRODUCT_STORE);
    forward_project(f, &l->k, &l->k_bias, mine.k, f->shared.k, PRODUCT_STORE);
    project_v(f, b, layer, mine.v);
}

void forward_qkv(struct forward *f, const struct batch *b, uint32_t layer)
{
    const struct model_layer *l = &f->m->layer[layer];
    struct qkv_share mine = share_qkv(f, l);
    struct row_range q = rows_of(mine.q, &l->q), k = rows_of(mine.k, &l->k), v = rows_of(mine.v, &l->v);
    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++) {
        fetch_k_slots(f, run, run->position, layer, k.first, k.end);
        fetch_v_slots(f, run, run->position, layer, v.first, v.end);
    }
    project_qkv(f, b, layer, mine);
    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
        for (uint32_t i = 0; i < run->count; i++) {
            uint32_t position = run->position + i;
            float *q_row = f->shared.q + (size_t)(run->first_row + i) * l->q.rows + q.first;
            float *k_row = f->shared.k + (size_t)(run->first_row + i) * l->k.rows + k.first;
            norm_heads(f, &l->q_norm, q_row, q.first, q.end);
            rotate(f, layer, position, q_row, q.first, q.end);
            norm_heads(f, &l->k_norm, k_row, k.first, k.end);
            rotate(f, layer, position, k_row, k.first, k.end);
            fetch_k_slots(f, run, next_page_at(run, position), layer, k.first, k.end);
            store_k(f, run, position, layer, k_row, k.first, k.end);
        }
    fault_point(FAULT_WORKER_KV_WRITTEN);
}

void forward_qkv_unnormed(struct forward *f, const struct batch *b, uint32_t layer)
{
    project_qkv(f, b, layer, share_qkv(f, &f->m->layer[layer]));
}

void forward_norm_qk(struct forward *f, const struct batch *b, uint32_t layer)
{
    const struct model *m = f->m;
    const struct model_layer *l = &m->layer[layer];
    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
        for (uint32_t i = 0; i < run->count; i++) {
            uint32_t row = run->first_row + i, position = run->position + i;
            float *q = f->shared.q + (size_t)row * l->q.rows, *k = f->shared.k + (size_t)row * l->k.rows;
            if (row % f->ranks != f->rank)
                continue;
            f->k->rms_norm(q, q, model_vector(&l->q_norm, f->weights), l->q.rows, m->norm_eps);
            rotate(f, layer, position, q, 0, l->q.rows);
            f->k->rms_norm(k, k, model_vector(&l->k_norm, f->weights), l->k.rows, m->norm_eps);
            rotate(f, layer, position, k, 0, l->k.rows);
            store_k(f, run, position, layer, k, 0, l->k.rows);
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

/* One unit: `heads` query heads from `head` on, which share a kv head, for queries [from, from + queries) of a run. */
static struct attention unit_at(const struct forward *f, const struct batch_run *run, uint32_t layer, uint32_t head,
                                uint32_t heads, uint32_t from, uint32_t queries)
{
    const struct model *m = f->m;
    uint32_t kv_head = head / (m->heads / m->kv_heads);
    size_t stride = (size_t)m->heads * m->head_dim;
    size_t at = (run->first_row + from) * stride + (size_t)head * m->head_dim;
    return (struct attention){
        .q = f->shared.q + at,
        .q_stride = stride,
        .out = f->shared.attn + at,
        .out_stride = stride,
        .queries = queries,
        .first = run->position + from,
        .heads = heads,
        .head_dim = m->head_dim,
        .kv_type = (enum kv_type)m->kv_type,
        .window = model_window(m, layer),
        .scale = m->attn_scale,
        .softcap = m->attn_softcap,
        .pages = (const uint8_t *const *)run->pages[model_page_class(m, layer)],
        .k_offset = model_page_k_offset(m, layer, kv_head),
        .v_offset = model_page_v_offset(m, layer, kv_head),
        .scratch = f->attention_scratch,
    };
}

/* Tells `unit` with which keys `next` begins. */
static void look_ahead(struct attention *unit, const struct attention *next)
{
    uint32_t end = next->first + 1, pages = (next->first + next->queries - 1) / ATTENTION_PAGE + 1;
    uint32_t page = next->window && end > next->window ? (end - next->window) / ATTENTION_PAGE : 0;
    for (uint32_t i = 0; i < ATTENTION_AHEAD && page + i < pages; i++)
        unit->soon[i] = next->pages[page + i] + next->k_offset;
}

/*
 * Query positions of one unit of a run with `heads` query heads to a kv head; `total` is the cost of the whole step. A short chunk of
 * a long prompt is most of a step, and cut by kv heads alone it would leave ranks waiting for the one with a head more.
 */
static uint32_t unit_queries(const struct forward *f, const struct batch_run *run, uint32_t heads, uint32_t window,
                             uint64_t total)
{
    uint32_t queries = QUERY_BLOCK;
    for (; f->ranks > 1 && queries / 2 * heads >= UNIT_ROWS; queries /= 2) {
        uint32_t last = least(queries, run->count);
        uint64_t cost = attention_cost(run->position + run->count - last, last, window) * heads;
        if (cost * f->ranks * UNITS_OF_RANK <= total)
            break;
    }
    return queries;
}

/*
 * Units in order of run, kv head, query heads, queries; a unit belongs to the rank in whose even part of the whole cost its
 * middle falls. Every rank walks all units and does its own, each when it knows the one after it.
 */
void forward_attend(struct forward *f, const struct batch *b, uint32_t layer)
{
    const struct model *m = f->m;
    uint32_t group = m->heads / m->kv_heads, window = model_window(m, layer);
    uint64_t total = 0, before = 0;
    struct attention mine = {.queries = 0};
    for (uint32_t r = 0; r < b->run_count; r++)
        total += attention_cost(b->runs[r].position, b->runs[r].count, window) * m->heads;

    for (const struct batch_run *run = b->runs; run < b->runs + b->run_count; run++)
        for (uint32_t first = 0, heads; first < m->heads; first += heads) {
            uint32_t kv_head = first / group, left = (kv_head + 1) * group - first;
            heads = left < ATTENTION_MAX_HEADS ? left : ATTENTION_MAX_HEADS;
            uint32_t most = unit_queries(f, run, heads, window, total);
            for (uint32_t from = 0, queries; from < run->count; from += queries) {
                queries = least(run->count - from, most);
                uint64_t cost = attention_cost(run->position + from, queries, window) * heads;
                uint64_t middle = 2 * before + cost;
                before += cost;
                if (middle * f->ranks / (2 * total) != f->rank)
                    continue;
                struct attention next = unit_at(f, run, layer, first, heads, from, queries);
                look_ahead(&mine, &next);
                if (mine.queries > 0)
                    f->k->attend(&mine);
                mine = next;
            }
        }
    if (mine.queries > 0)
        f->k->attend(&mine);
}
