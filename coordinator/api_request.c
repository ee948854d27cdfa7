/*
 * api_request: see api_request.h. This file is the outline; the parts stand in api_unbuilt, api_sampling,
 * api_prompts, api_chat.
 */
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "coordinator/api_request_internal.h"
#include "coordinator/control_guard.h"

enum err api_context_open(struct api_context *context, struct why *why)
{
    size_t ends;
    tokenizer_end_tokens(context->tokenizer, &ends);
    if (ends > SAMPLING_MAX_STOP_IDS - API_MOST_STOP_IDS)
        return because(why, ERR_UNSUPPORTED, "the model names %zu end tokens; at most %d are taken", ends,
                       SAMPLING_MAX_STOP_IDS - API_MOST_STOP_IDS);
    context->vocab = tokenizer_vocab_size(context->tokenizer);
    return control_guard_open(&context->guard, context->tokenizer, why);
}

void api_context_close(struct api_context *context)
{
    control_guard_close(context->guard);
    context->guard = NULL;
}

/* One number with several names. INT64_MAX when none is given. */
static enum err read_max_tokens(const struct api_fields *f, enum api_kind kind, int64_t *out)
{
    static const char *const names[] = {"max_completion_tokens", "max_tokens", "n_predict"};
    const char *given = NULL;
    *out = kind == API_COMPLETION ? 16 : INT64_MAX;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t value = *out;
        enum err err = api_field_int(f, names[i], kind == API_COMPLETION ? 0 : 1, INT64_MAX, &value);
        if (err != OK)
            return err;
        if (!api_field(f, names[i]))
            continue;
        if (given && value != *out)
            return api_field_refuse(f, names[i], "%s and %s are one thing and differ; give one of them", names[i],
                                    given);
        given = names[i];
        *out = value;
    }
    return OK;
}

static enum err read_stream(const struct api_fields *f, struct api_request *r)
{
    struct api_fields options;
    enum err err;
    if ((err = api_field_bool(f, "stream", &r->stream)) != OK ||
        (err = api_field_object(f, "stream_options", &options)) != OK)
        return err;
    if (!options.object)
        return OK;
    if (!r->stream)
        return api_field_refuse(f, "stream_options", "stream_options wants stream to be true");
    if ((err = api_field_bool(&options, "include_usage", &r->include_usage)) != OK)
        return err;
    return api_field_bool(&options, "continuous_usage_stats", &r->continuous_usage);
}

/* FNV-1a, 64 bits: equal salts share pages, and 0 is kept for no salt. */
static enum err read_salt(const struct api_fields *f, uint64_t *salt)
{
    const char *text = NULL;
    size_t length;
    enum err err = api_field_string(f, "cache_salt", &text, &length);
    if (err != OK || !text)
        return err;
    *salt = 0xCBF29CE484222325u;
    for (size_t i = 0; i < length; i++)
        *salt = (*salt ^ (unsigned char)text[i]) * 0x100000001B3u;
    if (*salt == 0)
        *salt = 1;
    return OK;
}

static enum err read_body(const struct api_fields *f, const struct api_context *context, struct api_request *r)
{
    int64_t max_tokens;
    const char *model;
    size_t model_bytes;
    enum err err;
    if ((err = api_refuse_unbuilt(f, r->kind)) != OK ||
        (err = api_field_string(f, "model", &model, &model_bytes)) != OK || /* any name: one model is served */
        (err = read_stream(f, r)) != OK || (err = read_max_tokens(f, r->kind, &max_tokens)) != OK ||
        (err = api_field_u32(f, "n", 1, API_MOST_CHOICES_EACH, &r->n)) != OK ||
        (err = api_field_bool(f, "return_token_ids", &r->return_token_ids)) != OK ||
        (err = read_salt(f, &r->cache_salt)) != OK || (err = api_sampling_read(f, context, r)) != OK)
        return err;
    if (r->kind == API_COMPLETION && (err = api_field_bool(f, "echo", &r->echo)) != OK)
        return err;
    if (r->sampling.min_tokens > max_tokens)
        return api_field_refuse(f, "min_tokens", "min_tokens is %u, more than max_tokens, which is %lld",
                                r->sampling.min_tokens, (long long)max_tokens);
    r->score_prompt = r->echo && r->logprobs;
    return r->kind == API_CHAT ? api_chat_prompt(f, context, max_tokens, r)
                               : api_completion_prompts(f, context, max_tokens, r);
}

enum err api_request_parse(const struct api_context *context, enum api_kind kind, const char *body, size_t length,
                           struct api_request **out, struct api_error *e)
{
    *out = NULL;
    *e = (struct api_error){0};
    struct api_fields f;
    json_t *root;
    enum err err = api_fields_open(&f, body, length, &root, e);
    if (err != OK)
        return err;
    struct api_request *r = calloc(1, sizeof *r);
    if (!r) {
        json_decref(root);
        return api_no_memory(e);
    }
    r->kind = kind;
    r->n = 1;
    err = read_body(&f, context, r);
    json_decref(root);
    if (err != OK) {
        api_request_free(r);
        return err;
    }
    *out = r;
    return OK;
}

void api_request_free(struct api_request *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->prompt_count; i++) {
        free(r->prompts[i].tokens);
        free(r->prompts[i].echo);
    }
    free(r->prompts);
    stop_strings_fini(&r->stops);
    free(r);
}

void api_request_sampling(const struct api_request *r, uint32_t choice, struct sampling *out)
{
    must(choice < api_request_choices(r));
    *out = r->sampling;
    out->choice = choice;
    out->prompt_tokens = api_request_prompt(r, choice)->count;
}

bool api_request_ends(const struct api_request *r, uint32_t token)
{
    for (uint32_t i = 0; i < r->sampling.stop_id_count; i++)
        if (r->sampling.stop_ids[i] == token)
            return true;
    return false;
}
