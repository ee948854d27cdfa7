#include "coordinator/request_record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/must.h"

enum {
    STREAM = 1 << 0,
    INCLUDE_USAGE = 1 << 1,
    CONTINUOUS_USAGE = 1 << 2,
    ECHO_PROMPT = 1 << 3,
    RETURN_TOKEN_IDS = 1 << 4,
    IGNORE_EOS = 1 << 5,
    LOGPROBS = 1 << 6,
    SCORE_PROMPT = 1 << 7,
};

/* The fixed beginning; behind it stop_count lengths of 16 bits, the stop strings, the echo. */
struct head {
    uint64_t cache_salt, tenant;
    int64_t created;
    uint32_t kind, flags, top_logprobs, n, prompt_count, choice, max_tokens, lead, stop_count, echo_bytes;
};
static_assert(sizeof(struct head) == 64, "no holes: the record is compared and summed as bytes");

size_t request_record_bytes(const struct api_request *r, uint32_t choice)
{
    size_t bytes = sizeof(struct head) + r->stops.count * sizeof(uint16_t) + api_request_prompt(r, choice)->echo_bytes;
    for (uint32_t i = 0; i < r->stops.count; i++)
        bytes += r->stops.strings[i].length;
    return bytes;
}

static uint32_t flags_of(const struct api_request *r)
{
    return (r->stream ? STREAM : 0u) | (r->include_usage ? INCLUDE_USAGE : 0u) |
           (r->continuous_usage ? CONTINUOUS_USAGE : 0u) | (r->echo ? ECHO_PROMPT : 0u) |
           (r->return_token_ids ? RETURN_TOKEN_IDS : 0u) | (r->ignore_eos ? IGNORE_EOS : 0u) |
           (r->logprobs ? LOGPROBS : 0u) | (r->score_prompt ? SCORE_PROMPT : 0u);
}

static void set_flags(struct api_request *r, uint32_t flags)
{
    r->stream = flags & STREAM;
    r->include_usage = flags & INCLUDE_USAGE;
    r->continuous_usage = flags & CONTINUOUS_USAGE;
    r->echo = flags & ECHO_PROMPT;
    r->return_token_ids = flags & RETURN_TOKEN_IDS;
    r->ignore_eos = flags & IGNORE_EOS;
    r->logprobs = flags & LOGPROBS;
    r->score_prompt = flags & SCORE_PROMPT;
}

static uint8_t *put(uint8_t *out, const void *from, size_t bytes)
{
    if (bytes)
        memcpy(out, from, bytes);
    return out + bytes;
}

void request_record_write(const struct api_request *r, uint32_t choice, const struct request_owner *owner, uint8_t *out)
{
    const struct api_prompt *prompt = api_request_prompt(r, choice);
    struct head head = {
        .cache_salt = r->cache_salt,
        .tenant = owner->tenant,
        .created = owner->created,
        .kind = (uint32_t)r->kind,
        .flags = flags_of(r),
        .top_logprobs = r->top_logprobs,
        .n = r->n,
        .prompt_count = r->prompt_count,
        .choice = choice,
        .max_tokens = prompt->max_tokens,
        .lead = prompt->lead,
        .stop_count = r->stops.count,
        .echo_bytes = (uint32_t)prompt->echo_bytes,
    };
    out = put(out, &head, sizeof head);
    for (uint32_t i = 0; i < r->stops.count; i++)
        out = put(out, &r->stops.strings[i].length, sizeof(uint16_t));
    for (uint32_t i = 0; i < r->stops.count; i++)
        out = put(out, r->stops.strings[i].bytes, r->stops.strings[i].length);
    put(out, prompt->echo, prompt->echo_bytes);
}

static bool head_is_sane(const struct head *h)
{
    return h->kind <= API_COMPLETION && h->top_logprobs <= SAMPLING_MAX_TOP_LOGPROBS && h->n > 0 &&
           h->n <= API_MOST_CHOICES_EACH && h->prompt_count > 0 && h->prompt_count <= API_MOST_CHOICES / h->n &&
           h->choice < h->n * h->prompt_count && h->stop_count <= STOP_MOST_STRINGS;
}

static enum err read_stops(struct cursor *c, const struct head *h, struct api_request *r, struct why *why)
{
    uint16_t lengths[STOP_MOST_STRINGS];
    for (uint32_t i = 0; i < h->stop_count; i++)
        lengths[i] = cursor_u16(c);
    for (uint32_t i = 0; i < h->stop_count; i++) {
        const uint8_t *string = cursor_take(c, lengths[i]);
        if (!string || lengths[i] == 0 || lengths[i] > STOP_MOST_BYTES)
            return because(why, ERR_FORMAT, "a stop string of a kept request is damaged");
        if (r && stop_strings_add(&r->stops, (const char *)string, lengths[i]))
            return because(why, ERR_NOMEM, "no memory to take a kept request over");
    }
    return OK;
}

static enum err begin_request(const struct head *h, const struct sampling *sampling, struct api_request **out,
                              struct why *why)
{
    struct api_request *r = *out = calloc(1, sizeof *r);
    if (r)
        r->prompts = calloc(h->prompt_count, sizeof *r->prompts);
    if (!r || !r->prompts)
        return because(why, ERR_NOMEM, "no memory to take a kept request over");
    r->kind = (enum api_kind)h->kind;
    set_flags(r, h->flags);
    r->top_logprobs = h->top_logprobs;
    r->n = h->n;
    r->prompt_count = h->prompt_count;
    r->cache_salt = h->cache_salt;
    r->sampling = *sampling;
    r->sampling.choice = r->sampling.prompt_tokens = 0;
    return OK;
}

static bool agrees(const struct api_request *r, const struct head *h)
{
    return (uint32_t)r->kind == h->kind && flags_of(r) == h->flags && r->n == h->n &&
           r->prompt_count == h->prompt_count && r->cache_salt == h->cache_salt && r->stops.count == h->stop_count;
}

static enum err read_prompt(struct cursor *c, const struct head *h, const uint32_t *ids, uint32_t count,
                            uint32_t context, struct api_prompt *prompt, struct why *why)
{
    const uint8_t *echo = cursor_take(c, h->echo_bytes);
    if (!echo || c->at != c->length)
        return because(why, ERR_FORMAT, "the record of a kept request is cut off");
    if (count > context || h->max_tokens > context - count)
        return because(why, ERR_FORMAT, "the prompt and answer of a kept request are longer than the context");
    prompt->tokens = malloc(count * sizeof *prompt->tokens);
    prompt->echo = h->flags & ECHO_PROMPT ? malloc(h->echo_bytes + 1u) : NULL;
    if (!prompt->tokens || (h->flags & ECHO_PROMPT && !prompt->echo))
        return because(why, ERR_NOMEM, "no memory to take a kept request over");
    memcpy(prompt->tokens, ids, count * sizeof *prompt->tokens);
    prompt->count = count;
    prompt->max_tokens = h->max_tokens;
    prompt->lead = h->lead;
    if (prompt->echo) {
        memcpy(prompt->echo, echo, h->echo_bytes);
        prompt->echo_bytes = h->echo_bytes;
    }
    return OK;
}

enum err request_record_read(const uint8_t *bytes, size_t length, const struct sampling *sampling,
                             const uint32_t *prompt, uint32_t context, struct api_request **out, uint32_t *choice,
                             struct request_owner *owner, struct why *why)
{
    struct cursor c = cursor_over(bytes, length);
    struct head h;
    const uint8_t *head = cursor_take(&c, sizeof h);
    if (!head)
        return because(why, ERR_FORMAT, "the record of a kept request is cut off");
    memcpy(&h, head, sizeof h);
    if (!head_is_sane(&h) || (*out && !agrees(*out, &h)))
        return because(why, ERR_FORMAT, "the record of a kept request is damaged");
    bool first = !*out;
    enum err e = first ? begin_request(&h, sampling, out, why) : OK;
    if (!e)
        e = read_stops(&c, &h, first ? *out : NULL, why);
    struct api_prompt *mine = e ? NULL : &(*out)->prompts[h.choice / h.n];
    if (!e && !mine->tokens)
        e = read_prompt(&c, &h, prompt, sampling->prompt_tokens, context, mine, why);
    *choice = h.choice;
    *owner = (struct request_owner){.tenant = h.tenant, .created = h.created};
    return e;
}
