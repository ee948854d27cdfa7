/*
 * attend_blocks: the order of attention that the vector sets share; they bring the steps that touch many numbers.
 *
 * Rows are (query, head) pairs, query by query. Their visible ranges begin and end in ascending order, so the rows that
 * see a position are always neighbours.
 */
#ifndef QUIRE_MODEL_KERNELS_ATTEND_BLOCKS_H
#define QUIRE_MODEL_KERNELS_ATTEND_BLOCKS_H

#include "model/kernels/kernels.h"

struct attend_steps {
    /*
     * score[r][p % ATTENTION_GRID] = scale * (q[r] . k[p]) for positions [first, last) of one chunk; may fill up whole
     * pages. score is (rows, ATTENTION_GRID), rows <= ATTENTION_ROWS.
     */
    void (*scores)(const struct attention *a, const float *const *q, uint32_t rows, uint32_t first, uint32_t last,
                   float *score);
    /* score[i], first <= i < last, becomes exp(score[i] - *m); *l is their sum by lanes of i % 16. */
    void (*soften)(float *score, uint32_t first, uint32_t last, float *m, float *l);
    /* o[r] += score[r][p % ATTENTION_GRID] * v[p] over positions [first, last) in order; o is (rows, head_dim). */
    void (*weigh)(const struct attention *a, const float *score, uint32_t rows, uint32_t first, uint32_t last,
                  float *o);
    /* o[i] = fmaf(o1[i], f1, o[i] * f0) */
    void (*merge)(float *o, const float *o1, uint32_t n, float f0, float f1);
    /* out[i] = o[i] / l */
    void (*divide)(float *out, const float *o, uint32_t n, float l);
};

void attend_in_blocks(const struct attention *a, const struct attend_steps *steps);

/*
 * What is to be fetched while page `page` is at hand: the keys of the page ATTENTION_AHEAD later; their values stand
 * as far behind them as in every page. Pages lie scattered, a few KB of each are of one head, and the processor's own
 * fetching ends with each: without this, every page of a decode waits for memory. Keys are fetched during scores,
 * values during weighing, a line with a line, so that memory is asked evenly.
 */
static inline const uint8_t *keys_ahead(const struct attention *a, uint32_t page)
{
    uint32_t pages = (a->first + a->queries - 1) / ATTENTION_PAGE + 1, ahead = page + ATTENTION_AHEAD;
    return ahead < pages ? a->pages[ahead] + a->k_offset : a->soon[ahead - pages];
}

#endif
