/*
 * api_logprobs: log-probabilities as JSON, in the form of chat ({"content": […]}) and in that of completions
 * ({"tokens", "token_logprobs", "top_logprobs", "text_offset"}). A value that is not finite is -9999, as OpenAI
 * writes it.
 */
#ifndef QUIRE_COORDINATOR_API_LOGPROBS_H
#define QUIRE_COORDINATOR_API_LOGPROBS_H

#include <stddef.h>
#include <stdint.h>

#include "base/sampling.h"
#include "coordinator/text.h"
#include "model/tokenizer.h"
#include "shm/results.h"

/* Log-probabilities at one position. */
struct position_scores {
    float logprob; /* of the token that stands there */
    uint32_t top_count;
    struct result_top top[SAMPLING_MAX_TOP_LOGPROBS]; /* descending */
};

/* One position of a listing. */
struct scored_token {
    uint32_t token;
    size_t offset;                        /* completions: characters of text before it */
    const struct position_scores *scores; /* NULL: the first of all tokens, which nothing predicts */
};

/* One object of "content". */
void api_logprobs_write_chat(struct text *out, const struct tokenizer *tokenizer, const struct scored_token *token);

/* The whole object. */
void api_logprobs_write_completion(struct text *out, const struct tokenizer *tokenizer,
                                   const struct scored_token *tokens, size_t count);

#endif
