/*
 * sampler: from logits to a token, split so that the ranks of a group share the work and the result depends on none of it.
 *
 * Stage 1, sampler_prepare: the owner of a range of vocabulary rows (whole blocks of 256) adds bias and penalties to its
 * logits and leaves one sample_partial a block. Stage 2, sampler_draw, after all ranks met: one rank, any, combines the
 * partials in block order and draws. Sums are in double, per block in the 16-lane order of kernels.h, blocks in order.
 * Ties go to the lowest id. Log-probabilities are those of the raw logits at temperature 1, before bias and penalties.
 *
 * Random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by the seed,
 * counter (choice, position, draw): the draw for a position never depends on what else was drawn.
 */
#ifndef QUIRE_MODEL_SAMPLER_H
#define QUIRE_MODEL_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "model/kernels/kernels.h"

enum { SAMPLE_BLOCK = 256 };

struct sample_partial {
    double raw_sum;  /* sum of exp(raw - raw_max); only for scoring and when log-probabilities are asked for */
    double sum;      /* sum of exp((logit - max) / temperature); temperature 0: unused */
    float raw_max;   /* as raw_sum */
    float max;       /* of the processed logits; -inf: every row of the block is banned */
    uint32_t argmax; /* lowest id that has max */
    uint32_t reserved;
};

struct token_logprob {
    uint32_t token;
    float logprob;
};

struct sampled {
    uint32_t token;
    float logprob;      /* of token, good when sampling.logprobs > 0 */
    uint32_t top_count; /* alternatives asked for, at most SAMPLING_MAX_TOP_LOGPROBS */
    uint32_t reserved;
    struct token_logprob top[SAMPLING_MAX_TOP_LOGPROBS]; /* descending, ties by id */
};

/* What the sequence has said before the position that is drawn: tokens[0..count), then `handed` when has_handed. */
struct sample_history {
    const uint32_t *tokens;
    uint32_t count;
    uint32_t handed;
    bool has_handed;
};

struct sampler; /* private scratch of one rank: counts per vocabulary id, candidate lists; no allocation after open */

enum err sampler_open(struct sampler **out, uint32_t vocab, struct why *why);
void sampler_close(struct sampler *s);

/* True when bias, penalties, bans or a mask may change a logit, so that a processed copy beside the raw row is needed. */
bool sampling_changes_logits(const struct sampling *p, const uint64_t *mask);

/*
 * Vocabulary rows [first, last), first a multiple of SAMPLE_BLOCK, last too or vocab. raw and processed are whole rows (vocab floats);
 * processed may be raw itself when !sampling_changes_logits. partials is indexed by block. p NULL: raw sums only (scoring).
 * mask, when not NULL, has a bit for each id, set where it may be drawn (id i: bit i % 64 of word i / 64).
 */
void sampler_prepare(struct sampler *s, const struct kernels *k, const struct sampling *p,
                     const struct sample_history *history, const uint64_t *mask, const float *raw, float *processed,
                     uint32_t first, uint32_t last, struct sample_partial *partials);

/*
 * The token at `position` (number of tokens before it). Rows and partials of all blocks are good.
 * top_k keeps the k best; top_p the fewest best whose mass reaches that share of what top_k left; min_p those with at least
 * that share of the best one's probability.
 */
void sampler_draw(struct sampler *s, const struct sampling *p, uint32_t position, const float *raw,
                  const float *processed, const struct sample_partial *partials, struct sampled *out);

/* The log-probability of a given token and the top alternatives: prompt scoring. */
void sampler_score(struct sampler *s, uint32_t token, uint32_t top_count, const float *raw,
                   const struct sample_partial *partials, struct sampled *out);

/* Philox4x32-10 itself. */
void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* The generator: `draw`th uniform number in [0, 1) with 53 bits. */
double sampler_uniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw);

#endif
