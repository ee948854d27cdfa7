/*
 * api_tokenize: the small routes about the model and its tokenizer, body in, body out. /tokenize and /detokenize take
 * and give the union of llama.cpp's and vLLM's fields.
 */
#ifndef QUIRE_COORDINATOR_API_TOKENIZE_H
#define QUIRE_COORDINATOR_API_TOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/api_error.h"
#include "coordinator/api_request.h"
#include "coordinator/text.h"

/*
 * POST /tokenize: {"content", "add_special", "parse_special", "with_pieces"} or {"prompt" or "messages",
 * "add_special_tokens", "return_token_strs"}.
 */
enum err api_tokenize(const struct api_context *context, const char *body, size_t length, struct text *out,
                      struct api_error *e);

/* POST /detokenize: {"tokens"} -> {"content", "prompt"}. */
enum err api_detokenize(const struct api_context *context, const char *body, size_t length, struct text *out,
                        struct api_error *e);

/* GET /tokenizer_info: {"bos_token", "eos_token", "pad_token", "chat_template"}. */
void api_tokenizer_info(const struct api_context *context, struct text *out);

/* What GET /v1/models says of the one model. */
struct api_model_card {
    int64_t created; /* unix seconds */
    uint32_t trained_context_tokens, embedding;
    uint64_t parameters, bytes;
};

/* GET /v1/models */
void api_models_write(struct text *out, const struct api_context *context, const struct api_model_card *card);

/* GET /v1/models/{id}: the served name or "default", percent-decoded by the caller; 404 otherwise. */
enum err api_model_write(struct text *out, const struct api_context *context, const struct api_model_card *card,
                         const char *id, struct api_error *e);

#endif
