/*
 * sampling: how one sequence draws its tokens. Plain data that the coordinator stores in a session slot before the
 * sequence's first step and that never changes after; workers read it there.
 *
 * What each field means is the field's common meaning (OpenAI's and vLLM's documents); order of application:
 * bias, repetition, presence and frequency penalties, bans -> temperature -> top_k -> top_p -> min_p -> draw.
 */
#ifndef QUIRE_BASE_SAMPLING_H
#define QUIRE_BASE_SAMPLING_H

#include <stdint.h>

enum {
    SAMPLING_MAX_BIAS = 512,
    SAMPLING_MAX_STOP_IDS = 64,
    SAMPLING_MAX_TOP_LOGPROBS = 20,
};

struct logit_bias {
    uint32_t token;
    float bias;
};

struct sampling {
    uint64_t seed;
    uint32_t choice;          /* index of the choice in its request: keys the generator together with seed */
    uint32_t prompt_tokens;   /* tokens [0, prompt_tokens) are the prompt; the generated ones follow */
    float temperature;        /* 0: the largest logit, lowest id at ties */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    uint32_t top_k;           /* 0: off */
    float repetition_penalty; /* 1: off; counts prompt and generated tokens */
    float presence_penalty;   /* 0: off; generated tokens only */
    float frequency_penalty;  /* 0: off; generated tokens only */
    uint32_t min_tokens;      /* before that many generated tokens no stop id can be drawn */
    uint32_t logprobs;        /* 0: none; 1 + n: the drawn token's log-probability and n alternatives, n <= 20 */
    uint32_t bias_count;
    uint32_t stop_id_count;
    uint32_t reserved;
    uint32_t stop_ids[SAMPLING_MAX_STOP_IDS]; /* the end tokens and the stop_token_ids of the request; for min_tokens */
    struct logit_bias bias[SAMPLING_MAX_BIAS]; /* ascending token ids, none twice */
};

#endif
