/* api_tokenize: see api_tokenize.h. */
#include "coordinator/api_tokenize.h"

#include <string.h>

#include "coordinator/api_request_internal.h"
#include "model/detokenizer.h"
#include "model/utf8.h"

/* What both dialects of /tokenize say. */
struct tokenize_request {
    const char *text; /* NULL: messages */
    size_t length;
    const char *name;
    bool add_special, parse_special, with_pieces, with_strings;
};

static enum err read_tokenize(const struct api_fields *f, struct tokenize_request *r)
{
    enum err err;
    bool vllm = api_field(f, "prompt") || api_field(f, "messages");
    *r = (struct tokenize_request){.name = vllm ? "prompt" : "content", .add_special = vllm, .parse_special = true};
    if (vllm && api_field(f, "content"))
        return api_field_refuse(f, "content", "give one of content, prompt and messages");
    if ((err = api_field_string(f, r->name, &r->text, &r->length)) != OK ||
        (err = api_field_bool(f, vllm ? "add_special_tokens" : "add_special", &r->add_special)) != OK ||
        (err = api_field_bool(f, "parse_special", &r->parse_special)) != OK ||
        (err = api_field_bool(f, "with_pieces", &r->with_pieces)) != OK ||
        (err = api_field_bool(f, "return_token_strs", &r->with_strings)) != OK)
        return err;
    if (!r->text && !api_field(f, "messages"))
        return api_field_refuse(f, r->name, "give a text as content or prompt, or messages");
    return OK;
}

/* A text here may be longer than the context: it is only counted. */
static enum err encode_text(const struct api_fields *f, const struct tokenizer *t, const struct tokenize_request *r,
                            struct token_list *ids)
{
    struct why why;
    if (r->add_special && tokenizer_adds_bos(t) && tokenizer_bos(t) != TOKEN_NONE &&
        !token_list_push(ids, tokenizer_bos(t)))
        return api_no_memory(f->error);
    enum err err = tokenizer_encode(t, r->text, r->length, r->parse_special, ids, &why);
    if (err == ERR_NOMEM)
        return api_no_memory(f->error);
    if (err != OK)
        return api_field_refuse(f, r->name, "%s", why.text);
    if (r->add_special && tokenizer_adds_eos(t) && tokenizer_eos(t) != TOKEN_NONE &&
        !token_list_push(ids, tokenizer_eos(t)))
        return api_no_memory(f->error);
    return OK;
}

/* llama.cpp's form of a piece: a string, or bytes where it is no whole text. */
static void add_piece(struct text *out, const struct tokenizer *t, uint32_t id)
{
    size_t length;
    const char *piece = tokenizer_piece(t, id, true, &length);
    bool whole = true;
    for (size_t at = 0; at < length && whole;) {
        struct utf8_step step = utf8_step(piece + at, length - at);
        whole = step.kind == UTF8_GOOD;
        at += step.bytes;
    }
    if (whole) {
        text_json_string(out, piece, length);
        return;
    }
    text_add_string(out, "[");
    for (size_t i = 0; i < length; i++) {
        text_add_string(out, i > 0 ? "," : "");
        text_add_u64(out, (unsigned char)piece[i]);
    }
    text_add_string(out, "]");
}

static void write_tokens(struct text *out, const struct api_context *context, const struct tokenize_request *r,
                         const struct token_list *ids)
{
    const struct tokenizer *t = context->tokenizer;
    text_add_string(out, "{\"tokens\":[");
    for (size_t i = 0; i < ids->count; i++) {
        text_add_string(out, i > 0 ? "," : "");
        if (r->with_pieces)
            text_add_string(out, "{\"id\":");
        text_add_u64(out, ids->ids[i]);
        if (r->with_pieces) {
            text_add_string(out, ",\"piece\":");
            add_piece(out, t, ids->ids[i]);
            text_add_string(out, "}");
        }
    }
    text_add_string(out, "],\"count\":");
    text_add_u64(out, ids->count);
    text_add_string(out, ",\"max_model_len\":");
    text_add_u64(out, context->context_tokens);
    if (r->with_strings) {
        text_add_string(out, ",\"token_strs\":[");
        for (size_t i = 0; i < ids->count; i++) {
            size_t length;
            const char *text = tokenizer_token_text(t, ids->ids[i], &length);
            text_add_string(out, i > 0 ? "," : "");
            text_json_string(out, text, length);
        }
        text_add_string(out, "]");
    }
    text_add_string(out, "}");
}

enum err api_tokenize(const struct api_context *context, const char *body, size_t length, struct text *out,
                      struct api_error *e)
{
    *e = (struct api_error){0};
    struct api_fields f;
    struct tokenize_request r;
    struct token_list ids = {0};
    json_t *root;
    enum err err = api_fields_open(&f, body, length, &root, e);
    if (err != OK)
        return err;
    err = read_tokenize(&f, &r);
    if (err == OK)
        err = r.text ? encode_text(&f, context->tokenizer, &r, &ids) : api_chat_tokens(&f, context, &ids);
    if (err == OK)
        write_tokens(out, context, &r, &ids);
    token_list_fini(&ids);
    json_decref(root);
    return err == OK && out->failed ? api_no_memory(e) : err;
}

/* Control tokens are spelt out: whoever asks wants to see them. */
static void add_detokenized(struct text *out, const struct tokenizer *t, const struct token_list *ids)
{
    struct detokenizer d;
    struct text text = {0};
    detokenizer_init(&d);
    for (size_t i = 0; i < ids->count; i++) {
        size_t length;
        const char *piece = tokenizer_piece(t, ids->ids[i], true, &length);
        if (text_reserve(&text, detokenizer_room(length)))
            text.length += detokenizer_push(&d, piece, length, text.at + text.length);
    }
    if (text_reserve(&text, detokenizer_room(0)))
        text.length += detokenizer_flush(&d, text.at + text.length);
    out->failed |= text.failed;
    text_json_string(out, text.at, text.length);
    text_fini(&text);
}

enum err api_detokenize(const struct api_context *context, const char *body, size_t length, struct text *out,
                        struct api_error *e)
{
    *e = (struct api_error){0};
    struct api_fields f;
    struct token_list ids = {0};
    json_t *root;
    enum err err = api_fields_open(&f, body, length, &root, e);
    if (err != OK)
        return err;
    const json_t *tokens = api_field(&f, "tokens");
    err = tokens ? api_token_ids(&f, context, "tokens", tokens, &ids)
                 : api_field_refuse(&f, "tokens", "tokens is missing");
    if (err == OK) {
        text_add_string(out, "{\"content\":");
        size_t from = out->length;
        add_detokenized(out, context->tokenizer, &ids);
        size_t bytes = out->length - from;
        text_add_string(out, ",\"prompt\":");
        if (text_reserve(out, bytes)) /* once more, the other dialect's name */
            text_add(out, out->at + from, bytes);
        text_add_string(out, "}");
    }
    token_list_fini(&ids);
    json_decref(root);
    return err == OK && out->failed ? api_no_memory(e) : err;
}

static void add_token_member(struct text *out, const char *name, const struct tokenizer *t, uint32_t id)
{
    text_add_string(out, name);
    if (id == TOKEN_NONE) {
        text_add_string(out, "null");
        return;
    }
    size_t length;
    const char *text = tokenizer_token_text(t, id, &length);
    text_json_string(out, text, length);
}

void api_tokenizer_info(const struct api_context *context, struct text *out)
{
    const struct tokenizer *t = context->tokenizer;
    add_token_member(out, "{\"bos_token\":", t, tokenizer_bos(t));
    add_token_member(out, ",\"eos_token\":", t, tokenizer_eos(t));
    add_token_member(out, ",\"pad_token\":", t, tokenizer_pad(t));
    text_add_string(out, ",\"chat_template\":");
    if (context->chat_template_text)
        text_json_string(out, context->chat_template_text, context->chat_template_bytes);
    else
        text_add_string(out, "null");
    text_add_string(out, "}");
}

static void add_number(struct text *out, const char *name, uint64_t value)
{
    text_add_string(out, name);
    text_add_u64(out, value);
}

static void add_model(struct text *out, const struct api_context *context, const struct api_model_card *card)
{
    text_add_string(out, "{\"id\":");
    text_json_string_z(out, context->model_name);
    text_add_string(out, ",\"object\":\"model\",\"created\":");
    text_add_i64(out, card->created);
    text_add_string(out, ",\"owned_by\":\"quire\"");
    add_number(out, ",\"max_model_len\":", context->context_tokens);
    add_number(out, ",\"meta\":{\"n_ctx_train\":", card->trained_context_tokens);
    add_number(out, ",\"n_vocab\":", context->vocab);
    add_number(out, ",\"n_embd\":", card->embedding);
    add_number(out, ",\"n_params\":", card->parameters);
    add_number(out, ",\"size\":", card->bytes);
    text_add_string(out, "}}");
}

void api_models_write(struct text *out, const struct api_context *context, const struct api_model_card *card)
{
    text_add_string(out, "{\"object\":\"list\",\"data\":[");
    add_model(out, context, card);
    text_add_string(out, "]}");
}

enum err api_model_write(struct text *out, const struct api_context *context, const struct api_model_card *card,
                         const char *id, struct api_error *e)
{
    if (strcmp(id, context->model_name) != 0 && strcmp(id, "default") != 0) {
        enum err err = api_refuse(e, 404, "model", "there is no model \"%.200s\" here; this server serves \"%.200s\"",
                                  id, context->model_name);
        e->code = "model_not_found";
        return err;
    }
    add_model(out, context, card);
    return out->failed ? api_no_memory(e) : OK;
}
