/*
 * golden: what a model says, held against the numbers of an independent implementation. The format is described in the
 * fixtures' README ("quire-golden-1").
 */
#ifndef QUIRE_TESTS_GOLDEN_H
#define QUIRE_TESTS_GOLDEN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/kv_type.h"

struct golden_bounds {
    double logit;      /* each of logits_last and of the stored top 20 */
    double top_rms;    /* of the stored top 20, by prompt */
    double logprob;    /* each */
    double greedy_gap; /* where the gap is wider the choice must agree */
};

/* K and V are rounded to f16, nothing else. */
extern const struct golden_bounds with_float_weights;
/* The same where rounding keys costs more: biases make them large (Qwen2), experts answer to what attention found. */
extern const struct golden_bounds with_coarser_keys;
/* The bounds of the fixtures' READMEs. */
extern const struct golden_bounds with_8_bit_activations;
extern const struct golden_bounds of_a_real_model;

/* With float activations: twice what was measured. */
extern const struct golden_bounds of_a_real_model_in_floats;

struct golden {
    const char *model, *numbers; /* as rig_open and rig_find take them */
    const struct golden_bounds *bounds;
    uint32_t max_tokens;      /* longer prompts are left out; 0: none is */
    uint32_t context;         /* 0: as trained */
    enum kv_type kv_type;     /* of the pages; 0: KV_F16 */
    bool float_activations;   /* inputs of quantised weights are not rounded */
    const char *quantize;     /* what float weights become; NULL: nothing */
    const char *rope_factors; /* only prompts that were computed with these; NULL: all */
};

/* Feeds every prompt and its greedy continuation in one step or several; fails the test where a bound is passed. Skips without fixtures. */
void golden_compare(const struct golden *g);

/* Prompt and greedy continuation as one list of tokens; returns how many. */
uint32_t golden_tokens(const json_t *prompt, uint32_t ids[2048]);

#endif
