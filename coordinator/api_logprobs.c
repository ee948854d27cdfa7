/* api_logprobs: see api_logprobs.h. */
#include "coordinator/api_logprobs.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "model/utf8.h"

static void add_logprob(struct text *out, float logprob)
{
    if (isfinite(logprob))
        text_add_f32(out, logprob);
    else
        text_add_string(out, "-9999.0");
}

static void add_chat_token(struct text *out, const struct tokenizer *tokenizer, uint32_t token, float logprob)
{
    size_t length;
    const char *piece = tokenizer_piece(tokenizer, token, true, &length);
    text_add_string(out, "\"token\":");
    text_json_string(out, piece, length);
    text_add_string(out, ",\"logprob\":");
    add_logprob(out, logprob);
    text_add_string(out, ",\"bytes\":[");
    for (size_t i = 0; i < length; i++) {
        if (i > 0)
            text_add(out, ",", 1);
        text_add_u64(out, (unsigned char)piece[i]);
    }
    text_add_string(out, "]");
}

void api_logprobs_write_chat(struct text *out, const struct tokenizer *tokenizer, const struct scored_token *token)
{
    text_add_string(out, "{");
    add_chat_token(out, tokenizer, token->token, token->scores->logprob);
    text_add_string(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < token->scores->top_count; i++) {
        text_add_string(out, i > 0 ? ",{" : "{");
        add_chat_token(out, tokenizer, token->scores->top[i].token, token->scores->top[i].logprob);
        text_add_string(out, "}");
    }
    text_add_string(out, "]}");
}

/* Fit to be the name of a member: whole characters, and not U+0000, which many a parser refuses there. */
static bool is_name(const char *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        struct utf8_step step = utf8_step(bytes + at, length - at);
        if (step.kind != UTF8_GOOD || step.code == 0)
            return false;
        at += step.bytes;
    }
    return true;
}

/*
 * Part of a character is "bytes:\xe4\xbd", as OpenAI spells it: U+FFFD for each would make different tokens one name.
 */
static void add_token_name(struct text *out, const struct tokenizer *tokenizer, uint32_t token)
{
    static const char hex[] = "0123456789abcdef";
    size_t length;
    const char *piece = tokenizer_piece(tokenizer, token, true, &length);
    if (is_name(piece, length)) {
        text_json_string(out, piece, length);
        return;
    }
    text_add_string(out, "\"bytes:");
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)piece[i];
        text_add(out, (char[]){'\\', '\\', 'x', hex[c >> 4], hex[c & 15]}, 5);
    }
    text_add_string(out, "\"");
}

static bool same_piece(const struct tokenizer *tokenizer, uint32_t a, uint32_t b)
{
    size_t a_length, b_length;
    const char *a_piece = tokenizer_piece(tokenizer, a, true, &a_length);
    const char *b_piece = tokenizer_piece(tokenizer, b, true, &b_length);
    return a_length == b_length && memcmp(a_piece, b_piece, a_length) == 0;
}

/* {"name": logprob}: names must differ, so of two tokens spelt alike the more probable one stands there. */
static void add_alternatives(struct text *out, const struct tokenizer *tokenizer, const struct scored_token *token)
{
    struct result_top all[SAMPLING_MAX_TOP_LOGPROBS + 1];
    uint32_t count = token->scores->top_count;
    memcpy(all, token->scores->top, count * sizeof *all);
    all[count++] = (struct result_top){token->token, token->scores->logprob}; /* is always among them */
    bool first = true;
    text_add_string(out, "{");
    for (uint32_t i = 0; i < count; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i && !seen; k++)
            seen = same_piece(tokenizer, all[k].token, all[i].token);
        if (seen)
            continue;
        if (!first)
            text_add(out, ",", 1);
        first = false;
        add_token_name(out, tokenizer, all[i].token);
        text_add(out, ":", 1);
        add_logprob(out, all[i].logprob);
    }
    text_add_string(out, "}");
}

void api_logprobs_write_completion(struct text *out, const struct tokenizer *tokenizer,
                                   const struct scored_token *tokens, size_t count)
{
    text_add_string(out, "{\"tokens\":[");
    for (size_t i = 0; i < count; i++) {
        text_add_string(out, i > 0 ? "," : "");
        add_token_name(out, tokenizer, tokens[i].token);
    }
    text_add_string(out, "],\"token_logprobs\":[");
    for (size_t i = 0; i < count; i++) {
        text_add_string(out, i > 0 ? "," : "");
        if (tokens[i].scores)
            add_logprob(out, tokens[i].scores->logprob);
        else
            text_add_string(out, "null");
    }
    text_add_string(out, "],\"top_logprobs\":[");
    for (size_t i = 0; i < count; i++) {
        text_add_string(out, i > 0 ? "," : "");
        if (tokens[i].scores)
            add_alternatives(out, tokenizer, &tokens[i]);
        else
            text_add_string(out, "null");
    }
    text_add_string(out, "],\"text_offset\":[");
    for (size_t i = 0; i < count; i++) {
        text_add_string(out, i > 0 ? "," : "");
        text_add_u64(out, tokens[i].offset);
    }
    text_add_string(out, "]}");
}
