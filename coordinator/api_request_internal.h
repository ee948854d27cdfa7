/* api_request_internal: the parts of api_request_parse, one file each; for coordinator/api_*.c only. */
#ifndef QUIRE_COORDINATOR_API_REQUEST_INTERNAL_H
#define QUIRE_COORDINATOR_API_REQUEST_INTERNAL_H

#include "coordinator/api_fields.h"
#include "coordinator/api_request.h"
#include "model/tokenizer.h"

/* Fields that would change the answer but are not built: refused unless their value asks for nothing. */
enum err api_refuse_unbuilt(const struct api_fields *f, enum api_kind kind);

/* temperature to logit_bias, stop, stop_token_ids, logprobs, seed: r->sampling, r->stops and what goes with them. */
enum err api_sampling_read(const struct api_fields *f, const struct api_context *context, struct api_request *r);

/*
 * prompt of completions, messages of chat: r->prompts. `max_tokens` is what was asked for, INT64_MAX when nothing
 * was.
 */
enum err api_completion_prompts(const struct api_fields *f, const struct api_context *context, int64_t max_tokens,
                                struct api_request *r);
enum err api_chat_prompt(const struct api_fields *f, const struct api_context *context, int64_t max_tokens,
                         struct api_request *r);

/*
 * messages and what else a template sees -> its tokens, appended to `out`. Errors go to f->error. Also for /tokenize.
 */
enum err api_chat_tokens(const struct api_fields *f, const struct api_context *context, struct token_list *out);

/* Tokens of a text that is refused unread when it cannot fit in any way. `name` is the field it came in. */
enum err api_encode(const struct api_fields *f, const struct api_context *context, const char *name, const char *bytes,
                    size_t length, bool parse_special, struct token_list *out);

/* Takes the ids over into *prompt and checks that they fit; on an error the list is the caller's still. */
enum err api_prompt_take(const struct api_fields *f, const struct api_context *context, const char *name,
                         int64_t max_tokens, struct token_list *ids, struct api_prompt *prompt);

/* A JSON array of ids below the vocabulary's size, appended to `out`. */
enum err api_token_ids(const struct api_fields *f, const struct api_context *context, const char *name,
                       const json_t *array, struct token_list *out);

#endif
