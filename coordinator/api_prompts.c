/* api_prompts: texts and lists of ids as prompts that fit into the context; the prompts of /v1/completions. */
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "coordinator/api_request_internal.h"
#include "model/detokenizer.h"

static enum err refuse_overflow(const struct api_fields *f, const char *name, const char *about, uint64_t tokens,
                                uint32_t context)
{
    api_field_refuse(
        f, name,
        "the prompt has %s%llu tokens and the context holds %u, at least one of them for the answer; shorten the prompt",
        about, (unsigned long long)tokens, context);
    f->error->code = "context_length_exceeded";
    f->error->prompt_tokens = tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
    f->error->context_tokens = context;
    return ERR_INVALID;
}

enum err api_encode(const struct api_fields *f, const struct api_context *context, const char *name, const char *bytes,
                    size_t length, bool parse_special, struct token_list *out)
{
    size_t longest = tokenizer_longest_piece(context->tokenizer);
    uint64_t least = longest ? length / longest : 0; /* tokens, whatever the text */
    if (least > context->context_tokens)
        return refuse_overflow(f, name, "at least ", least, context->context_tokens);
    struct why why;
    enum err err = tokenizer_encode(context->tokenizer, bytes, length, parse_special, out, &why);
    if (err == ERR_NOMEM)
        return api_no_memory(f->error);
    return err == OK ? OK : api_field_refuse(f, name, "%s", why.text);
}

enum err api_prompt_take(const struct api_fields *f, const struct api_context *context, const char *name,
                         int64_t max_tokens, struct token_list *ids, struct api_prompt *prompt)
{
    uint32_t bos = tokenizer_bos(context->tokenizer);
    if (ids->count == 0) {
        if (bos == TOKEN_NONE)
            return api_field_refuse(f, name, "%s is empty, and the model has no token to begin with", name);
        if (!token_list_push(ids, bos))
            return api_no_memory(f->error);
    }
    uint64_t answer = max_tokens > 0; /* at least so much must be left */
    if (ids->count + answer > context->context_tokens)
        return refuse_overflow(f, name, "", ids->count, context->context_tokens);
    uint32_t left = context->context_tokens - (uint32_t)ids->count;
    prompt->tokens = ids->ids;
    prompt->count = (uint32_t)ids->count;
    prompt->max_tokens = max_tokens < left ? (uint32_t)max_tokens : left;
    *ids = (struct token_list){0};
    return OK;
}

enum err api_token_ids(const struct api_fields *f, const struct api_context *context, const char *name,
                       const json_t *array, struct token_list *out)
{
    if (!json_is_array(array))
        return api_field_refuse(f, name, "%s must be an array of token ids, not %s", name, json_kind(array));
    size_t i;
    json_t *value;
    json_array_foreach ((json_t *)array, i, value) {
        if (!json_is_integer(value))
            return api_field_refuse(f, name, "%s holds %s where a token id must stand", name, json_kind(value));
        json_int_t id = json_integer_value(value);
        if (id < 0 || id >= context->vocab)
            return api_field_refuse(f, name, "%s holds the token id %lld; ids are from 0 to %u", name, (long long)id,
                                    context->vocab - 1);
        if (!token_list_push(out, (uint32_t)id))
            return api_no_memory(f->error);
    }
    return OK;
}

/* What `echo` shows of a prompt that came as ids: every token as it is spelt. */
static bool echo_ids(const struct api_context *context, struct api_prompt *prompt)
{
    struct text echo = {0};
    struct detokenizer d;
    detokenizer_init(&d);
    for (uint32_t i = 0; i < prompt->count; i++) {
        size_t length;
        const char *piece = tokenizer_piece(context->tokenizer, prompt->tokens[i], true, &length);
        if (!text_reserve(&echo, detokenizer_room(length)))
            break;
        echo.length += detokenizer_push(&d, piece, length, echo.at + echo.length);
    }
    if (text_reserve(&echo, detokenizer_room(0)))
        echo.length += detokenizer_flush(&d, echo.at + echo.length);
    if (echo.failed) {
        text_fini(&echo);
        return false;
    }
    prompt->echo = echo.at;
    prompt->echo_bytes = echo.length;
    return true;
}

static bool echo_string(const struct tokenizer *tokenizer, const json_t *value, struct api_prompt *prompt)
{
    if (prompt->tokens[0] == tokenizer_bos(tokenizer) &&
        (tokenizer_adds_bos(tokenizer) || json_string_length(value) == 0)) {
        size_t length;
        const char *piece = tokenizer_piece(tokenizer, prompt->tokens[0], true, &length);
        prompt->lead = (uint32_t)utf8_count(piece, length);
    }
    prompt->lead += tokenizer_adds_space(tokenizer);
    prompt->echo_bytes = json_string_length(value);
    prompt->echo = malloc(prompt->echo_bytes + 1);
    if (!prompt->echo)
        return false;
    memcpy(prompt->echo, json_string_value(value), prompt->echo_bytes);
    return true;
}

/* A string, or an array of ids. A string gets the begin token where the model wants one; ids are taken as they are. */
static enum err read_prompt(const struct api_fields *f, const struct api_context *context, const json_t *value,
                            int64_t max_tokens, const struct api_request *r, struct api_prompt *prompt)
{
    struct token_list ids = {0};
    enum err err = OK;
    if (json_is_string(value)) {
        if (tokenizer_adds_bos(context->tokenizer) && tokenizer_bos(context->tokenizer) != TOKEN_NONE &&
            !token_list_push(&ids, tokenizer_bos(context->tokenizer)))
            err = api_no_memory(f->error);
        if (err == OK)
            err = api_encode(f, context, "prompt", json_string_value(value), json_string_length(value), true, &ids);
    } else {
        err = api_token_ids(f, context, "prompt", value, &ids);
    }
    if (err == OK)
        err = api_prompt_take(f, context, "prompt", max_tokens, &ids, prompt);
    token_list_fini(&ids);
    if (err == OK && r->echo &&
        !(json_is_string(value) ? echo_string(context->tokenizer, value, prompt) : echo_ids(context, prompt)))
        err = api_no_memory(f->error);
    return err;
}

/* A string; ids; or an array of either. */
enum err api_completion_prompts(const struct api_fields *f, const struct api_context *context, int64_t max_tokens,
                                struct api_request *r)
{
    const json_t *prompt = api_field(f, "prompt");
    if (!prompt)
        return api_field_refuse(f, "prompt",
                                "prompt is missing: a string, an array of token ids, or an array of either");
    if (!json_is_string(prompt) && !json_is_array(prompt))
        return api_field_refuse(f, "prompt",
                                "prompt must be a string, an array of token ids, or an array of either, not %s",
                                json_kind(prompt));
    if (json_is_array(prompt) && json_array_size(prompt) == 0)
        return api_field_refuse(f, "prompt", "prompt is an empty array");

    const json_t *first = json_is_array(prompt) ? json_array_get(prompt, 0) : NULL;
    bool many = json_is_string(first) || json_is_array(first);
    size_t count = many ? json_array_size(prompt) : 1;
    if (count > API_MOST_CHOICES / r->n)
        return api_field_refuse(f, "prompt", "%zu prompts with n = %u are %llu choices; at most %d are made", count,
                                r->n, (unsigned long long)count * r->n, API_MOST_CHOICES);
    r->prompts = calloc(count, sizeof *r->prompts);
    if (!r->prompts)
        return api_no_memory(f->error);
    for (size_t i = 0; i < count; i++) {
        enum err err =
            read_prompt(f, context, many ? json_array_get(prompt, i) : prompt, max_tokens, r, &r->prompts[i]);
        r->prompt_count++; /* before the check: what it holds is freed with the others */
        if (err != OK)
            return err;
    }
    return OK;
}
