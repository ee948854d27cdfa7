/*
 * api_request: the body of POST /v1/chat/completions or /v1/completions as a request that is wholly checked: fields
 * in their bounds, template rendered, prompts tokenized. Pure: reads only its arguments, so helper threads run it at
 * once.
 *
 * Choice k answers prompt k / n and is the (k % n)th choice of it.
 *
 * Rules for fields: null is absent. A field that OpenAI, vLLM or llama.cpp document and that would change the answer
 * but is not built is refused by name, unless its value asks for nothing; a field that nobody documents is ignored.
 * max_tokens is cut to what the context leaves; a prompt that leaves no room for one token is refused with both
 * numbers.
 */
#ifndef QUIRE_COORDINATOR_API_REQUEST_H
#define QUIRE_COORDINATOR_API_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sampling.h"
#include "coordinator/api_error.h"
#include "coordinator/stop_strings.h"

struct tokenizer;
struct chat_template;
struct control_guard;

enum {
    API_MOST_CHOICES_EACH = 128, /* n */
    API_MOST_CHOICES = 256,      /* prompts x n */
    API_MOST_STOP_IDS = 32,      /* in stop_token_ids; the model's own end tokens come on top */
};

/* What all requests share. Constant between open and close; every pointer but `guard` is the caller's. */
struct api_context {
    const struct tokenizer *tokenizer;
    const struct chat_template *chat_template; /* NULL: the model has none, chat is refused */
    const char *chat_template_text; /* its source, for /tokenizer_info; not terminated; NULL with chat_template */
    size_t chat_template_bytes;
    const char *model_name;  /* what answers say; "default" means the same model */
    const char *fingerprint; /* system_fingerprint */
    uint32_t context_tokens; /* positions of one sequence */

    /* set by api_context_open */
    uint32_t vocab;
    struct control_guard *guard; /* keeps control tokens out of the words of users */
};

/* What stands above `vocab` is filled. ERR_UNSUPPORTED: the model has more end tokens than a request can carry. */
enum err api_context_open(struct api_context *context, struct why *why);
void api_context_close(struct api_context *context);

enum api_kind { API_CHAT, API_COMPLETION };

struct api_prompt {
    uint32_t *tokens;
    uint32_t count;      /* at least 1 */
    uint32_t max_tokens; /* what may be generated behind it: asked for, and what the context leaves; 0: only scored */
    char *echo;          /* what `echo` shows, valid UTF-8; NULL without echo */
    size_t echo_bytes;
    uint32_t lead; /* characters that the tokens spell before the echoed text begins: an added begin token or space */
};

struct api_request {
    enum api_kind kind;
    bool stream;
    bool include_usage;    /* a last chunk with the usage */
    bool continuous_usage; /* usage in every chunk */
    bool echo;
    bool return_token_ids;
    bool ignore_eos;
    bool logprobs;         /* log-probabilities of the generated tokens (and, with echo, of the prompt's) are shown */
    bool score_prompt;     /* echo and logprobs: the prompt is to be scored; takes no page from the cache */
    uint32_t top_logprobs; /* alternatives shown with them, 0 to SAMPLING_MAX_TOP_LOGPROBS */
    uint32_t n;
    uint32_t prompt_count;
    struct api_prompt *prompts;
    struct stop_strings stops;
    struct sampling sampling; /* without choice and prompt_tokens: see api_request_sampling */
    uint64_t cache_salt;      /* 0 without cache_salt */
};

/* OK: *out is the caller's. Otherwise *e is the answer: 400, or 500 without memory. */
enum err api_request_parse(const struct api_context *context, enum api_kind kind, const char *body, size_t length,
                           struct api_request **out, struct api_error *e);
void api_request_free(struct api_request *r);

static inline uint32_t api_request_choices(const struct api_request *r)
{
    return r->prompt_count * r->n;
}

static inline const struct api_prompt *api_request_prompt(const struct api_request *r, uint32_t choice)
{
    return &r->prompts[choice / r->n];
}

/* How that choice draws. */
void api_request_sampling(const struct api_request *r, uint32_t choice, struct sampling *out);

/* True: this token ends a choice (an end token of the model unless ignore_eos, or one of stop_token_ids). */
bool api_request_ends(const struct api_request *r, uint32_t token);

#endif
