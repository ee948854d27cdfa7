#include "model/kernels/attend_blocks.h"

#include <math.h>
#include <string.h>

#include "model/kernels/scratch.h"

/* Up to ATTENTION_ROWS neighbouring rows on their way through the chunks. */
struct row_block {
    uint32_t rows;
    const float *q[ATTENTION_ROWS];
    uint32_t begin[ATTENTION_ROWS], end[ATTENTION_ROWS]; /* visible positions; both ascend */
    float m[ATTENTION_ROWS], l[ATTENTION_ROWS];
    float *score; /* (rows, ATTENTION_GRID) */
    float *chunk; /* (rows, head_dim): o of this chunk */
    float *o;     /* (rows, head_dim): o of the chunks so far */
};

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t greatest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void take_rows(const struct attention *a, uint32_t first_row, struct row_block *b)
{
    b->rows = least(ATTENTION_ROWS, a->queries * a->heads - first_row);
    for (uint32_t r = 0; r < b->rows; r++) {
        uint32_t query = (first_row + r) / a->heads, head = (first_row + r) % a->heads;
        b->q[r] = a->q + query * a->q_stride + head * a->head_dim;
        b->end[r] = a->first + query + 1;
        b->begin[r] = a->window && b->end[r] > a->window ? b->end[r] - a->window : 0;
    }
    b->score = a->scratch;
    b->chunk = b->score + ATTENTION_ROWS * ATTENTION_GRID;
    b->o = b->chunk + ATTENTION_ROWS * a->head_dim;
}

static void cap_scores(const struct attention *a, float *score, uint32_t first, uint32_t last)
{
    for (uint32_t p = first; p < last; p++)
        score[p % ATTENTION_GRID] = a->softcap * kernel_tanhf(score[p % ATTENTION_GRID] / a->softcap);
}

/* Weighs V by runs of positions that the same rows see, so that nothing masked is ever touched. */
static void weigh_visible(const struct attention *a, const struct attend_steps *steps, struct row_block *b,
                          uint32_t first_row, uint32_t last_row, uint32_t first, uint32_t last)
{
    for (uint32_t p = first, next; p < last; p = next) {
        while (b->end[first_row] <= p)
            first_row++;
        uint32_t seeing = first_row;
        while (seeing < last_row && b->begin[seeing] <= p)
            seeing++;
        next = least(last, b->end[first_row]);
        if (seeing < last_row)
            next = least(next, b->begin[seeing]);
        steps->weigh(a, b->score + first_row * ATTENTION_GRID, seeing - first_row, p, next,
                     b->chunk + first_row * a->head_dim);
    }
}

/* One chunk for the rows that see any of it. */
static void attend_chunk(const struct attention *a, const struct attend_steps *steps, struct row_block *b,
                         uint32_t chunk)
{
    uint32_t chunk_begin = chunk * ATTENTION_GRID, chunk_end = chunk_begin + ATTENTION_GRID;
    uint32_t first_row = 0, last_row = b->rows;
    while (b->end[first_row] <= chunk_begin)
        first_row++;
    while (b->begin[last_row - 1] >= chunk_end)
        last_row--;
    uint32_t first = greatest(chunk_begin, b->begin[first_row]), last = least(chunk_end, b->end[last_row - 1]);
    steps->scores(a, b->q + first_row, last_row - first_row, first, last, b->score + first_row * ATTENTION_GRID);

    float m[ATTENTION_ROWS], l[ATTENTION_ROWS];
    for (uint32_t r = first_row; r < last_row; r++) {
        uint32_t from = greatest(chunk_begin, b->begin[r]), to = least(chunk_end, b->end[r]);
        float *score = b->score + r * ATTENTION_GRID;
        if (a->softcap > 0)
            cap_scores(a, score, from, to);
        steps->soften(score, from - chunk_begin, to - chunk_begin, &m[r], &l[r]);
    }
    memset(b->chunk + first_row * a->head_dim, 0, (size_t)(last_row - first_row) * a->head_dim * sizeof *b->chunk);
    weigh_visible(a, steps, b, first_row, last_row, first, last);

    for (uint32_t r = first_row; r < last_row; r++) {
        float *o = b->o + r * a->head_dim, *o1 = b->chunk + r * a->head_dim;
        if (chunk == b->begin[r] / ATTENTION_GRID) {
            memcpy(o, o1, a->head_dim * sizeof *o);
            b->m[r] = m[r];
            b->l[r] = l[r];
            continue;
        }
        float larger = m[r] > b->m[r] ? m[r] : b->m[r];
        float f0 = kernel_expf(b->m[r] - larger), f1 = kernel_expf(m[r] - larger);
        steps->merge(o, o1, a->head_dim, f0, f1);
        b->l[r] = fmaf(l[r], f1, b->l[r] * f0);
        b->m[r] = larger;
    }
}

void attend_in_blocks(const struct attention *a, const struct attend_steps *steps)
{
    struct row_block b;
    for (uint32_t first_row = 0; first_row < a->queries * a->heads; first_row += ATTENTION_ROWS) {
        take_rows(a, first_row, &b);
        for (uint32_t chunk = b.begin[0] / ATTENTION_GRID; chunk * ATTENTION_GRID < b.end[b.rows - 1]; chunk++)
            attend_chunk(a, steps, &b, chunk);
        for (uint32_t r = 0; r < b.rows; r++) {
            uint32_t query = (first_row + r) / a->heads, head = (first_row + r) % a->heads;
            steps->divide(a->out + query * a->out_stride + head * a->head_dim, b.o + r * a->head_dim, a->head_dim,
                          b.l[r]);
        }
    }
}
