/* api_response: see api_response.h. */
#include "coordinator/api_response.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/must.h"
#include "model/detokenizer.h"

/*
 * A chunk takes no more tokens than this, so that one that is picked up late, with log-probabilities, stays of
 * bounded size.
 */
enum { TOKENS_A_CHUNK = 64 };

void api_id_make(char out[API_ID_BYTES], enum api_kind kind)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char random[16];
    must(getrandom(random, sizeof random, 0) == sizeof random);
    char *at = stpcpy(out, kind == API_CHAT ? "chatcmpl-" : "cmpl-");
    for (size_t i = 0; i < sizeof random; i++) {
        *at++ = hex[random[i] >> 4];
        *at++ = hex[random[i] & 15];
    }
    *at = '\0';
}

/* ---- parts of whole answers and of chunks ------------------------------------------------------------------------ */

/* {"id": … , "choices":[ */
static void begin_object(struct text *out, const struct api_answer *a, const char *object)
{
    text_add_string(out, "{\"id\":");
    text_json_string_z(out, a->id);
    text_add_string(out, ",\"object\":\"");
    text_add_string(out, object);
    text_add_string(out, "\",\"created\":");
    text_add_i64(out, a->created);
    text_add_string(out, ",\"model\":");
    text_json_string_z(out, a->context->model_name);
    text_add_string(out, ",\"system_fingerprint\":");
    text_json_string_z(out, a->context->fingerprint);
    text_add_string(out, ",\"choices\":[");
}

/* sent NULL: what is generated; else only what this stream has sent. */
static void add_usage(struct text *out, const struct api_answer *a, const struct api_sent *sent)
{
    uint64_t prompt = 0, completion = 0, cached = 0;
    for (uint32_t i = 0; i < a->request->prompt_count; i++) {
        prompt += a->request->prompts[i].count;
        cached += a->choices[i * a->request->n].cached_tokens; /* the further choices share the first one's prompt */
    }
    for (uint32_t i = 0; i < api_request_choices(a->request); i++)
        completion += sent && !sent[i].finished ? sent[i].tokens : a->choices[i].answer->tokens;
    text_add_string(out, "{\"prompt_tokens\":");
    text_add_u64(out, prompt);
    text_add_string(out, ",\"completion_tokens\":");
    text_add_u64(out, completion);
    text_add_string(out, ",\"total_tokens\":");
    text_add_u64(out, prompt + completion);
    text_add_string(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    text_add_u64(out, cached);
    text_add_string(out, "}}");
}

static void add_finish_reason(struct text *out, const struct api_choice *choice)
{
    text_add_string(out, ",\"finish_reason\":");
    if (choice->finished)
        text_json_string_z(out, finish_reason_name(choice->reason));
    else
        text_add_string(out, "null");
}

static void add_token_ids(struct text *out, const struct api_answer *a, const struct api_choice *choice, uint32_t from,
                          uint32_t to)
{
    if (!a->request->return_token_ids)
        return;
    text_add_string(out, ",\"token_ids\":[");
    for (uint32_t i = from; i < to; i++) {
        if (i > from)
            text_add(out, ",", 1);
        text_add_u64(out, choice->tokens[i]);
    }
    text_add_string(out, "]");
}

/* The text of generated tokens [from, to) as a part of a JSON string. */
static void add_words(struct text *out, const struct api_choice *choice, uint32_t from, uint32_t to)
{
    size_t begin = answer_text_begin(choice->answer, from), end = answer_text_begin(choice->answer, to);
    if (end > begin)
        text_json_string_part(out, choice->answer->text.at + begin, end - begin);
}

static size_t count_characters(const struct api_choice *choice, uint32_t from, uint32_t to)
{
    size_t begin = answer_text_begin(choice->answer, from), end = answer_text_begin(choice->answer, to);
    return end > begin ? utf8_count(choice->answer->text.at + begin, end - begin) : 0;
}

/* ---- log-probabilities ------------------------------------------------------------------------------------------- */

static void add_chat_logprobs(struct text *out, const struct api_answer *a, const struct api_choice *choice,
                              uint32_t from, uint32_t to)
{
    text_add_string(out, ",\"logprobs\":");
    if (!a->request->logprobs || !choice->scores) {
        text_add_string(out, "null");
        return;
    }
    text_add_string(out, "{\"content\":[");
    for (uint32_t i = from; i < to; i++) {
        if (i > from)
            text_add(out, ",", 1);
        api_logprobs_write_chat(out, a->context->tokenizer,
                                &(struct scored_token){.token = choice->tokens[i], .scores = &choice->scores[i]});
    }
    text_add_string(out, "],\"refusal\":null}");
}

/*
 * The prompt's tokens; without memory the answer fails. Offsets count from the beginning of the echoed text; what was
 * put before it has none of its own.
 */
static size_t list_prompt(struct text *out, const struct api_context *context, const struct api_prompt *prompt,
                          const struct api_choice *choice, struct scored_token *list)
{
    struct detokenizer d;
    detokenizer_init(&d);
    struct text scratch = {0};
    size_t characters = 0, most = utf8_count(prompt->echo, prompt->echo_bytes);
    for (uint32_t i = 0; i < prompt->count; i++) {
        size_t offset = characters > prompt->lead ? characters - prompt->lead : 0;
        list[i] = (struct scored_token){
            .token = prompt->tokens[i],
            .offset = offset < most ? offset : most,
            .scores = i > 0 && choice->prompt_scores ? &choice->prompt_scores[i] : NULL,
        };
        size_t length;
        const char *piece = tokenizer_piece(context->tokenizer, prompt->tokens[i], true, &length);
        text_clear(&scratch);
        if (!text_reserve(&scratch, detokenizer_room(length))) {
            out->failed = true; /* without it no offset behind is right */
            break;
        }
        characters += utf8_count(scratch.at, detokenizer_push(&d, piece, length, scratch.at));
    }
    text_fini(&scratch);
    return prompt->count;
}

/* Generated tokens [from, to), whose text begins behind `characters`, and before them the prompt's if `with_prompt`. */
static void add_completion_logprobs(struct text *out, const struct api_answer *a, uint32_t index, bool with_prompt,
                                    uint32_t from, uint32_t to, size_t characters)
{
    const struct api_choice *choice = &a->choices[index];
    const struct api_prompt *prompt = api_request_prompt(a->request, index);
    text_add_string(out, ",\"logprobs\":");
    if (!a->request->logprobs) {
        text_add_string(out, "null");
        return;
    }
    size_t room = (with_prompt ? prompt->count : 0u) + (to - from), count = 0;
    struct scored_token *list = calloc(room + 1, sizeof *list);
    if (!list) {
        out->failed = true;
        return;
    }
    if (with_prompt)
        count = list_prompt(out, a->context, prompt, choice, list);
    for (uint32_t i = from; i < to && choice->scores; i++) {
        list[count++] = (struct scored_token){choice->tokens[i], characters, &choice->scores[i]};
        characters += count_characters(choice, i, i + 1);
    }
    api_logprobs_write_completion(out, a->context->tokenizer, list, count);
    free(list);
}

static size_t echo_characters(const struct api_answer *a, uint32_t index)
{
    const struct api_prompt *prompt = api_request_prompt(a->request, index);
    return a->request->echo ? utf8_count(prompt->echo, prompt->echo_bytes) : 0;
}

static void add_echo(struct text *out, const struct api_answer *a, uint32_t index)
{
    const struct api_prompt *prompt = api_request_prompt(a->request, index);
    if (a->request->echo)
        text_json_string_part(out, prompt->echo, prompt->echo_bytes);
}

/* ---- whole answers ----------------------------------------------------------------------------------------------- */

static void add_whole_choice(struct text *out, const struct api_answer *a, uint32_t index)
{
    const struct api_choice *choice = &a->choices[index];
    uint32_t shown = choice->answer->shown;
    text_add_string(out, "{\"index\":");
    text_add_u64(out, index);
    if (a->request->kind == API_CHAT) {
        text_add_string(out, ",\"message\":{\"role\":\"assistant\",\"content\":\"");
        add_words(out, choice, 0, shown);
        text_add_string(out, "\",\"refusal\":null}");
        add_chat_logprobs(out, a, choice, 0, shown);
    } else {
        text_add_string(out, ",\"text\":\"");
        add_echo(out, a, index);
        add_words(out, choice, 0, shown);
        text_add_string(out, "\"");
        add_completion_logprobs(out, a, index, a->request->echo, 0, shown, echo_characters(a, index));
    }
    add_finish_reason(out, choice);
    add_token_ids(out, a, choice, 0, choice->finished ? choice->answer->tokens : shown);
    text_add_string(out, "}");
}

void api_answer_write(struct text *out, const struct api_answer *a)
{
    begin_object(out, a, a->request->kind == API_CHAT ? "chat.completion" : "text_completion");
    for (uint32_t i = 0; i < api_request_choices(a->request); i++) {
        if (i > 0)
            text_add(out, ",", 1);
        add_whole_choice(out, a, i);
    }
    text_add_string(out, "],\"usage\":");
    add_usage(out, a, NULL);
    text_add_string(out, "}");
}

size_t api_answer_estimate(const struct api_answer *a)
{
    enum { HEAD_BYTES = 512, ID_BYTES = 7, SCORE_BYTES = 48 }; /* of the object, of a token's id, of a scored token */
    const struct api_request *request = a->request;
    size_t bytes = HEAD_BYTES, scores = (1u + request->top_logprobs) * (size_t)SCORE_BYTES;
    for (uint32_t i = 0; i < api_request_choices(request); i++) {
        const struct api_choice *choice = &a->choices[i];
        const struct api_prompt *prompt = api_request_prompt(request, i);
        bytes += answer_text_shown_bytes(choice->answer);
        bytes += choice->answer->tokens * ((request->return_token_ids ? ID_BYTES : 0) + (choice->scores ? scores : 0));
        bytes += request->echo ? prompt->echo_bytes : 0;
        bytes += request->echo && request->logprobs ? prompt->count * scores : 0;
    }
    return bytes;
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

static void add_event_id(struct text *out, const struct api_answer *a, const struct api_sent *sent)
{
    text_add_string(out, "id: ");
    for (uint32_t i = 0; i < api_request_choices(a->request); i++) {
        if (i > 0)
            text_add(out, ",", 1);
        text_add_i64(out, (int64_t)sent[i].tokens - 1);
    }
    text_add(out, "\n", 1);
}

static void begin_chunk(struct text *out, const struct api_answer *a)
{
    text_add_string(out, "data: ");
    begin_object(out, a, a->request->kind == API_CHAT ? "chat.completion.chunk" : "text_completion");
}

static void begin_choice_chunk(struct text *out, const struct api_answer *a, uint32_t index)
{
    begin_chunk(out, a);
    text_add_string(out, "{\"index\":");
    text_add_u64(out, index);
}

/* Behind the choice: with stream_options every chunk has a usage, null unless it was asked for in each. */
static void end_choice_chunk(struct text *out, const struct api_answer *a, const struct api_sent *sent)
{
    text_add_string(out, "}]");
    if (a->request->continuous_usage) {
        text_add_string(out, ",\"usage\":");
        add_usage(out, a, sent);
    } else if (a->request->include_usage) {
        text_add_string(out, ",\"usage\":null");
    }
    text_add_string(out, "}\n\n");
}

/* Chat: the role. Completions: the echoed prompt, when there is one. */
static void write_first_chunk(struct text *out, const struct api_answer *a, uint32_t index, struct api_sent *sent)
{
    sent[index].opened = true;
    sent[index].characters = echo_characters(a, index);
    if (a->request->kind == API_COMPLETION && !a->request->echo)
        return;
    begin_choice_chunk(out, a, index);
    if (a->request->kind == API_CHAT) {
        text_add_string(out, ",\"delta\":{\"role\":\"assistant\",\"content\":null},\"logprobs\":null");
    } else {
        text_add_string(out, ",\"text\":\"");
        add_echo(out, a, index);
        text_add_string(out, "\"");
        add_completion_logprobs(out, a, index, true, 0, 0, 0);
    }
    text_add_string(out, ",\"finish_reason\":null");
    end_choice_chunk(out, a, sent);
}

/*
 * The next tokens of one choice. Tokens without text make no chunk of their own, unless something else is said of
 * them.
 */
static void write_tokens(struct text *out, const struct api_answer *a, uint32_t index, struct api_sent *sent)
{
    const struct api_choice *choice = &a->choices[index];
    uint32_t from = sent[index].tokens, left = choice->answer->shown - from;
    uint32_t to = from + (left < TOKENS_A_CHUNK ? left : TOKENS_A_CHUNK);
    bool has_text = answer_text_begin(choice->answer, to) > answer_text_begin(choice->answer, from);
    size_t characters = sent[index].characters;
    sent[index].tokens = to;
    sent[index].characters += count_characters(choice, from, to);
    if (!has_text && !a->request->logprobs && !a->request->return_token_ids)
        return;
    add_event_id(out, a, sent);
    begin_choice_chunk(out, a, index);
    if (a->request->kind == API_CHAT) {
        text_add_string(out, ",\"delta\":{");
        if (has_text) {
            text_add_string(out, "\"content\":\"");
            add_words(out, choice, from, to);
            text_add_string(out, "\"");
        }
        text_add_string(out, "}");
        add_chat_logprobs(out, a, choice, from, to);
    } else {
        text_add_string(out, ",\"text\":\"");
        add_words(out, choice, from, to);
        text_add_string(out, "\"");
        add_completion_logprobs(out, a, index, false, from, to, characters);
    }
    text_add_string(out, ",\"finish_reason\":null");
    add_token_ids(out, a, choice, from, to);
    end_choice_chunk(out, a, sent);
}

/* Why it ended, and the ids that are no part of the text. */
static void write_last_chunk(struct text *out, const struct api_answer *a, uint32_t index, struct api_sent *sent)
{
    const struct api_choice *choice = &a->choices[index];
    sent[index].finished = true;
    begin_choice_chunk(out, a, index);
    text_add_string(out, a->request->kind == API_CHAT ? ",\"delta\":{}" : ",\"text\":\"\"");
    text_add_string(out, ",\"logprobs\":null");
    add_finish_reason(out, choice);
    add_token_ids(out, a, choice, choice->answer->shown, choice->answer->tokens);
    end_choice_chunk(out, a, sent);
}

/* One chunk of this choice, if there is something new. */
static bool write_next_chunk(struct text *out, const struct api_answer *a, uint32_t index, struct api_sent *sent)
{
    const struct api_choice *choice = &a->choices[index];
    if (!sent[index].opened) {
        if (a->request->score_prompt && !choice->prompt_scores)
            return false;
        write_first_chunk(out, a, index, sent);
    } else if (sent[index].tokens < choice->answer->shown) {
        write_tokens(out, a, index, sent);
    } else if (choice->finished && !sent[index].finished) {
        write_last_chunk(out, a, index, sent);
    } else {
        return false;
    }
    return true;
}

bool api_stream_write(struct text *out, const struct api_answer *a, struct api_sent *sent, size_t most)
{
    uint32_t choices = api_request_choices(a->request), finished = 0;
    for (uint32_t i = 0; i < choices; i++) {
        while (out->length < most && !out->failed && write_next_chunk(out, a, i, sent))
            ;
        finished += sent[i].finished;
    }
    if (finished < choices || out->length >= most || out->failed)
        return false;
    if (a->request->include_usage) {
        begin_chunk(out, a);
        text_add_string(out, "],\"usage\":");
        add_usage(out, a, NULL);
        text_add_string(out, "}\n\n");
    }
    text_add_string(out, "data: [DONE]\n\n");
    return true;
}

/* "-1" or the digits of an index; moves *at behind it. */
static bool read_index(const char **at, const char *end, int64_t *out)
{
    bool none = *at < end && **at == '-';
    const char *from = *at += none;
    int64_t value = 0;
    while (*at < end && **at >= '0' && **at <= '9' && *at - from < 10)
        value = 10 * value + (*(*at)++ - '0');
    *out = none ? -value : value;
    return *at > from && (!none || value == 1);
}

bool api_sent_from_event_id(const struct api_answer *a, const char *id, size_t length, struct api_sent *sent)
{
    const char *at = id, *end = id + length;
    uint32_t choices = api_request_choices(a->request);
    memset(sent, 0, choices * sizeof *sent);
    for (uint32_t i = 0; i < choices; i++) {
        int64_t last;
        if ((i > 0 && (at == end || *at++ != ',')) || !read_index(&at, end, &last) ||
            last >= a->choices[i].answer->shown)
            return false;
        if (last < 0)
            continue; /* its first chunk comes again: harmless, and nobody knows whether it arrived */
        sent[i].opened = true;
        sent[i].tokens = (uint32_t)(last + 1);
        sent[i].characters = echo_characters(a, i) + count_characters(&a->choices[i], 0, sent[i].tokens);
    }
    return at == end;
}
