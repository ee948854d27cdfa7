/*
 * golden: what a model says, held against the numbers of an independent implementation. The format is described in the
 * fixtures' README ("quire-golden-1").
 */
#ifndef QUIRE_TESTS_GOLDEN_H
#define QUIRE_TESTS_GOLDEN_H

#include <jansson.h>
#include <stdint.h>

struct golden_bounds {
    double logit;      /* each of logits_last and of the stored top 20 */
    double top_rms;    /* of the stored top 20, by prompt */
    double logprob;    /* each */
    double greedy_gap; /* where the gap is wider the choice must agree */
};

/* K and V are rounded to f16, nothing else. */
extern const struct golden_bounds with_float_weights;
/* The same, where what one expert is asked moves with what attention found: measured 0.0103, and twice that. */
extern const struct golden_bounds with_float_weights_and_experts;
/* The bounds of the fixtures' READMEs. */
extern const struct golden_bounds with_8_bit_activations;
extern const struct golden_bounds of_a_real_model;

struct golden {
    const char *model, *numbers; /* as rig_open and rig_find take them */
    const struct golden_bounds *bounds;
    uint32_t max_tokens;      /* longer prompts are left out; 0: none is */
    uint32_t context;         /* 0: as trained */
    const char *rope_factors; /* only prompts that were computed with these; NULL: all */
};

/* Feeds every prompt and its greedy continuation in one step or several; fails the test where a bound is passed. Skips without fixtures. */
void golden_compare(const struct golden *g);

/* Prompt and greedy continuation as one list of tokens; returns how many. */
uint32_t golden_tokens(const json_t *prompt, uint32_t ids[2048]);

#endif
