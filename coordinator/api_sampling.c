/*
 * api_sampling: the fields that say how tokens are drawn and where a choice ends. Neutral unless the request says
 * otherwise.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/must.h"
#include "coordinator/api_request_internal.h"

static enum err read_penalties(const struct api_fields *f, struct sampling *s)
{
    enum err err;
    if ((err = api_field_float(f, "presence_penalty", -2, 2, &s->presence_penalty)) != OK ||
        (err = api_field_float(f, "frequency_penalty", -2, 2, &s->frequency_penalty)) != OK)
        return err;

    float repeat = 1;
    if ((err = api_field_float(f, "repetition_penalty", 0.01, 100, &s->repetition_penalty)) != OK ||
        (err = api_field_float(f, "repeat_penalty", 0.01, 100, &repeat)) != OK)
        return err;
    if (!api_field(f, "repetition_penalty"))
        s->repetition_penalty = repeat;
    else if (api_field(f, "repeat_penalty") && repeat != s->repetition_penalty)
        return api_field_refuse(f, "repeat_penalty",
                                "repeat_penalty and repetition_penalty are one thing; give one of them");

    int64_t last = -1;
    if ((err = api_field_int(f, "repeat_last_n", -1, INT32_MAX, &last)) != OK)
        return err;
    if (last > 0)
        return api_field_refuse(f, "repeat_last_n",
                                "repeat_last_n is not built yet; -1 takes the whole text, 0 switches the penalty off");
    if (last == 0)
        s->repetition_penalty = 1;
    return OK;
}

static enum err read_draw(const struct api_fields *f, uint32_t vocab, struct sampling *s)
{
    enum err err;
    int64_t top_k = 0;
    if ((err = api_field_float(f, "temperature", 0, 100, &s->temperature)) != OK ||
        (err = api_field_float(f, "top_p", 0, 1, &s->top_p)) != OK ||
        (err = api_field_float(f, "min_p", 0, 1, &s->min_p)) != OK ||
        (err = api_field_int(f, "top_k", -1, INT64_MAX, &top_k)) != OK)
        return err;
    s->top_k = top_k > 0 && top_k < vocab ? (uint32_t)top_k : 0;
    return OK;
}

static enum err read_seed(const struct api_fields *f, struct sampling *s)
{
    int64_t seed;
    must(getrandom(&seed, sizeof seed, 0) == sizeof seed); /* eight bytes come whole once the kernel has any */
    enum err err = api_field_int(f, "seed", INT64_MIN, INT64_MAX, &seed);
    s->seed = (uint64_t)seed;
    return err;
}

/* "123": the digits of an id as JSON would write it. */
static bool read_id(const char *text, uint32_t vocab, uint32_t *id)
{
    size_t length = strlen(text);
    if (length == 0 || length > 9 || (text[0] == '0' && length > 1) || strspn(text, "0123456789") != length)
        return false;
    *id = (uint32_t)strtoul(text, NULL, 10);
    return *id < vocab;
}

static int by_token(const void *a, const void *b)
{
    const struct logit_bias *x = a, *y = b;
    return x->token < y->token ? -1 : x->token > y->token;
}

static enum err read_bias(const struct api_fields *f, uint32_t vocab, struct sampling *s)
{
    struct api_fields bias;
    enum err err = api_field_object(f, "logit_bias", &bias);
    if (err != OK || !bias.object)
        return err;
    if (json_object_size(bias.object) > SAMPLING_MAX_BIAS)
        return api_field_refuse(f, "logit_bias", "logit_bias has %zu tokens; at most %d are taken",
                                json_object_size(bias.object), SAMPLING_MAX_BIAS);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)bias.object, key, value) {
        struct logit_bias *entry = &s->bias[s->bias_count];
        if (!read_id(key, vocab, &entry->token))
            return api_field_refuse(f, "logit_bias", "logit_bias names the token \"%.32s\"; ids are from 0 to %u", key,
                                    vocab - 1);
        if (!json_is_number(value) || !(json_number_value(value) >= -100 && json_number_value(value) <= 100))
            return api_field_refuse(f, "logit_bias", "the bias of token %s must be a number from -100 to 100", key);
        entry->bias = (float)json_number_value(value);
        s->bias_count++;
    }
    qsort(s->bias, s->bias_count, sizeof *s->bias, by_token);
    return OK;
}

static enum err add_stop(const struct api_fields *f, const json_t *value, struct stop_strings *stops)
{
    if (!json_is_string(value))
        return api_field_refuse(f, "stop", "stop must be a string or an array of strings; it holds %s",
                                json_kind(value));
    size_t length = json_string_length(value);
    if (length == 0 || length > STOP_MOST_BYTES)
        return api_field_refuse(f, "stop", "a stop string must have 1 to %d bytes, not %zu", STOP_MOST_BYTES, length);
    return stop_strings_add(stops, json_string_value(value), length) == OK ? OK : api_no_memory(f->error);
}

static enum err read_stops(const struct api_fields *f, struct stop_strings *stops)
{
    const json_t *stop = api_field(f, "stop");
    if (!stop)
        return OK;
    if (!json_is_array(stop))
        return add_stop(f, stop, stops);
    if (json_array_size(stop) > STOP_MOST_STRINGS)
        return api_field_refuse(f, "stop", "stop has %zu strings; at most %d are taken", json_array_size(stop),
                                STOP_MOST_STRINGS);
    size_t i;
    json_t *value;
    json_array_foreach ((json_t *)stop, i, value) {
        enum err err = add_stop(f, value, stops);
        if (err != OK)
            return err;
    }
    return OK;
}

/* All ids that end a choice stand in sampling.stop_ids, so that the workers can keep them out before min_tokens. */
static enum err read_stop_ids(const struct api_fields *f, const struct api_context *context, struct api_request *r)
{
    struct sampling *s = &r->sampling;
    if (!r->ignore_eos) {
        size_t count;
        const uint32_t *ends = tokenizer_end_tokens(context->tokenizer, &count);
        must(count <= SAMPLING_MAX_STOP_IDS - API_MOST_STOP_IDS); /* api_context_open has looked */
        memcpy(s->stop_ids, ends, count * sizeof *ends);
        s->stop_id_count = (uint32_t)count;
    }
    const json_t *ids = api_field(f, "stop_token_ids");
    if (!ids)
        return OK;
    if (json_is_array(ids) && json_array_size(ids) > API_MOST_STOP_IDS)
        return api_field_refuse(f, "stop_token_ids", "stop_token_ids has %zu ids; at most %d are taken",
                                json_array_size(ids), API_MOST_STOP_IDS);
    struct token_list list = {0};
    enum err err = api_token_ids(f, context, "stop_token_ids", ids, &list);
    for (size_t i = 0; err == OK && i < list.count; i++)
        s->stop_ids[s->stop_id_count++] = list.ids[i];
    token_list_fini(&list);
    return err;
}

/* Chat: logprobs is a switch, top_logprobs the number. Completions: logprobs is the number. */
static enum err read_logprobs(const struct api_fields *f, struct api_request *r)
{
    enum err err;
    if (r->kind == API_CHAT) {
        if ((err = api_field_bool(f, "logprobs", &r->logprobs)) != OK ||
            (err = api_field_u32(f, "top_logprobs", 0, SAMPLING_MAX_TOP_LOGPROBS, &r->top_logprobs)) != OK)
            return err;
        if (r->top_logprobs > 0 && !r->logprobs)
            return api_field_refuse(f, "top_logprobs", "top_logprobs wants logprobs to be true");
    } else {
        r->logprobs = api_field(f, "logprobs") != NULL;
        if ((err = api_field_u32(f, "logprobs", 0, SAMPLING_MAX_TOP_LOGPROBS, &r->top_logprobs)) != OK)
            return err;
    }
    r->sampling.logprobs = r->logprobs ? 1 + r->top_logprobs : 0;
    return OK;
}

enum err api_sampling_read(const struct api_fields *f, const struct api_context *context, struct api_request *r)
{
    struct sampling *s = &r->sampling;
    *s = (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    enum err err;
    if ((err = read_draw(f, context->vocab, s)) != OK || (err = read_penalties(f, s)) != OK ||
        (err = read_seed(f, s)) != OK || (err = read_bias(f, context->vocab, s)) != OK ||
        (err = api_field_bool(f, "ignore_eos", &r->ignore_eos)) != OK ||
        (err = api_field_u32(f, "min_tokens", 0, UINT32_MAX, &s->min_tokens)) != OK ||
        (err = read_stop_ids(f, context, r)) != OK || (err = read_stops(f, &r->stops)) != OK ||
        (err = read_logprobs(f, r)) != OK)
        return err;
    return OK;
}
