/* tokenizer: see tokenizer.h. Reads and checks the vocabulary, cuts special tokens out of texts, hands the rest on. */
#include "model/tokenizer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/must.h"
#include "model/tokenizer_internal.h"

enum { MAX_TEXT_BYTES = 1 << 16 }; /* of one token's spelling */

bool token_list_push(struct token_list *list, uint32_t id)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        uint32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids)
            return false;
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return true;
}

void token_list_fini(struct token_list *list)
{
    free(list->ids);
    *list = (struct token_list){0};
}

void encoding_fini(struct encoding *e)
{
    merger_fini(&e->merger);
    word_list_fini(&e->words);
    free(e->text);
}

bool encoding_make_room(struct encoding *e, size_t bytes)
{
    if (bytes <= e->text_room)
        return true;
    char *text = malloc(bytes);
    if (!text)
        return false;
    free(e->text);
    e->text = text;
    e->text_room = bytes;
    return true;
}

/* Control tokens and the unknown token: no text of a person's becomes one, and none shows in a text. */
static bool is_hidden(const struct tokenizer *t, uint32_t id)
{
    return t->types[id] == TOKEN_CONTROL || t->types[id] == TOKEN_UNKNOWN;
}

static bool is_special(const struct tokenizer *t, uint32_t id)
{
    return is_hidden(t, id) || t->types[id] == TOKEN_USER_DEFINED;
}

static enum err load_kind(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    struct gguf_string model;
    enum err err = gguf_get_string(g, "tokenizer.ggml.model", true, &model, why);
    if (err != OK)
        return err;
    if (model.length == 4 && memcmp(model.at, "gpt2", 4) == 0)
        t->kind = KIND_BPE;
    else if (model.length == 5 && memcmp(model.at, "llama", 5) == 0)
        t->kind = KIND_SPM;
    else if (model.length == 4 && memcmp(model.at, "bert", 4) == 0)
        t->kind = KIND_WORDPIECE;
    else
        return because(why, ERR_UNSUPPORTED,
                       "the tokenizer kind \"%.*s\" is not supported; \"gpt2\", \"llama\" and \"bert\" are",
                       (int)(model.length < 64 ? model.length : 64), model.at);
    return OK;
}

static enum err load_types(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    const uint8_t *types;
    uint64_t count;
    enum err err = gguf_get_array(g, "tokenizer.ggml.token_type", false, GGUF_I32, &types, &count, why);
    if (err != OK)
        return err;
    if (count != 0 && count != t->count)
        return because(why, ERR_FORMAT, "the vocabulary has %u tokens but %llu token types", t->count,
                       (unsigned long long)count);
    for (uint32_t id = 0; id < t->count; id++) {
        int32_t type = TOKEN_NORMAL;
        if (count != 0)
            memcpy(&type, types + sizeof type * id, sizeof type);
        if (type < 0 || type > TOKEN_BYTE)
            return because(why, ERR_FORMAT, "token %u has the type %d, which does not exist", id, type);
        t->types[id] = type == 0 ? TOKEN_NORMAL : (uint8_t)type;
    }
    return OK;
}

static size_t write_piece(const struct tokenizer *t, uint32_t id, char *out)
{
    struct token_text text = t->texts[id];
    if (is_special(t, id)) {
        memcpy(out, text.at, text.length);
        return text.length;
    }
    if (t->kind == KIND_BPE)
        return tokenizer_bpe_piece(text, out);
    return tokenizer_spm_piece(text, t->types[id] == TOKEN_BYTE, out);
}

static bool is_byte_name(struct gguf_string s)
{
    return s.length == 6 && memcmp(s.at, "<0x", 3) == 0 && isxdigit((unsigned char)s.at[3]) &&
           isxdigit((unsigned char)s.at[4]) && s.at[5] == '>';
}

/* Copies all spellings and makes the pieces, which are never longer. */
static enum err load_texts(struct tokenizer *t, const struct gguf_string *tokens, struct why *why)
{
    size_t total = 0;
    for (uint32_t id = 0; id < t->count; id++) {
        if (tokens[id].length > MAX_TEXT_BYTES)
            return because(why, ERR_FORMAT, "token %u is spelt with %zu bytes; at most %d make sense", id,
                           tokens[id].length, MAX_TEXT_BYTES);
        if (t->kind == KIND_SPM && t->types[id] == TOKEN_BYTE && !is_byte_name(tokens[id]))
            return because(why, ERR_FORMAT, "token %u is a byte by its type, but not spelt like \"<0x0A>\"", id);
        total += tokens[id].length;
    }
    t->bytes = malloc(2 * total + 1);
    if (!t->bytes)
        return because(why, ERR_NOMEM, "no memory for a vocabulary of %zu bytes", total);
    char *at = t->bytes;
    for (uint32_t id = 0; id < t->count; id++) {
        t->texts[id] = (struct token_text){at, tokens[id].length};
        at = mempcpy(at, tokens[id].at, tokens[id].length);
        if (tokens[id].length > t->longest_text)
            t->longest_text = tokens[id].length;
    }
    for (uint32_t id = 0; id < t->count; id++) {
        size_t length = write_piece(t, id, at);
        t->pieces[id] = (struct token_text){at, length};
        at += length;
        if (length > t->longest_piece)
            t->longest_piece = length;
    }
    must(at <= t->bytes + 2 * total + 1);
    return OK;
}

static enum err load_specials(struct tokenizer *t, bool hidden_too, struct special_tokens *out, struct why *why)
{
    struct special_token *found = malloc((t->count + 1) * sizeof *found);
    if (!found)
        return because(why, ERR_NOMEM, "no memory for the vocabulary's special tokens");
    size_t count = 0;
    for (uint32_t id = 0; id < t->count; id++) {
        if (t->texts[id].length == 0 || !is_special(t, id) || (!hidden_too && is_hidden(t, id)))
            continue;
        if (t->texts[id].length > SPECIAL_MAX_BYTES) {
            free(found);
            return because(why, ERR_FORMAT, "the special token %u is spelt with %zu bytes; at most %d make sense", id,
                           t->texts[id].length, SPECIAL_MAX_BYTES);
        }
        found[count++] = (struct special_token){t->texts[id], id};
    }
    special_tokens_init(out, found, count);
    return OK;
}

static enum err load_vocabulary(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    const struct gguf_string *tokens;
    uint64_t count;
    enum err err = gguf_get_strings(g, "tokenizer.ggml.tokens", true, &tokens, &count, why);
    if (err != OK)
        return err;
    if (count == 0 || count > INT32_MAX)
        return because(why, ERR_FORMAT, "a vocabulary of %llu tokens cannot be used", (unsigned long long)count);
    t->count = (uint32_t)count;
    t->texts = calloc(t->count, sizeof *t->texts);
    t->pieces = calloc(t->count, sizeof *t->pieces);
    t->types = calloc(t->count, sizeof *t->types);
    if (!t->texts || !t->pieces || !t->types || !text_map_init(&t->by_text, t->texts, t->count))
        return because(why, ERR_NOMEM, "no memory for a vocabulary of %u tokens", t->count);
    err = load_types(t, g, why);
    if (err == OK)
        err = load_texts(t, tokens, why);
    if (err == OK)
        err = load_specials(t, false, &t->user_defined, why);
    if (err == OK)
        err = load_specials(t, true, &t->specials, why);
    for (uint32_t id = 0; err == OK && id < t->count; id++)
        if (!is_hidden(t, id))
            text_map_put(&t->by_text, id);
    return err;
}

static enum err load_id(const struct tokenizer *t, const struct gguf *g, const char *key, uint32_t *id, struct why *why)
{
    enum err err = gguf_get_u32(g, key, false, id, why);
    if (err == OK && *id != TOKEN_NONE && *id >= t->count)
        return because(why, ERR_FORMAT, "\"%s\" is %u, but the vocabulary has only %u tokens", key, *id, t->count);
    return err;
}

static enum err load_ids(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    /* what files of this kind leave out has always been these */
    bool spm = t->kind == KIND_SPM && t->count > 2;
    t->bos = spm ? 1 : TOKEN_NONE;
    t->eos = spm ? 2 : TOKEN_NONE;
    t->unknown = spm ? 0 : TOKEN_NONE;
    t->eot = t->pad = TOKEN_NONE;
    const struct {
        const char *key;
        uint32_t *id;
    } keys[] = {
        {"tokenizer.ggml.cls_token_id", &t->bos},         {"tokenizer.ggml.seperator_token_id", &t->eos}, /* so spelt */
        {"tokenizer.ggml.bos_token_id", &t->bos},         {"tokenizer.ggml.eos_token_id", &t->eos},
        {"tokenizer.ggml.eot_token_id", &t->eot},         {"tokenizer.ggml.padding_token_id", &t->pad},
        {"tokenizer.ggml.unknown_token_id", &t->unknown},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        enum err err = load_id(t, g, keys[i].key, keys[i].id, why);
        if (err != OK)
            return err;
    }
    return OK;
}

/* "<|end_of_sentence|>" with full-width bars and U+2581 between the words */
#define DEEPSEEK_END "<\xEF\xBD\x9C\x65nd\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

/* Control tokens that end a turn by their name alone: files name one or two, models draw others as well. */
static bool ends_by_name(struct token_text text)
{
    static const char *const names[] = {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<end_of_turn>",
        "<turn|>",
        "<|eot|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|return|>",
        "<|call|>",
        "<EOT>",
        "_<EOT>",
        "< EOT >",
        "[EOT]",
        "[EOS]",
        "<|END_OF_TURN_TOKEN|>",
        "<end_of_utterance>",
        DEEPSEEK_END,
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == text.length && memcmp(names[i], text.at, text.length) == 0)
            return true;
    return false;
}

/* Where a model directory lists several. */
static bool is_listed(const uint8_t *ids, uint64_t count, uint32_t id)
{
    bool listed = false;
    for (uint64_t i = 0; i < count; i++)
        listed |= memcmp(ids + i * sizeof id, &id, sizeof id) == 0;
    return listed;
}

static enum err load_ends(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    enum { MOST_LISTED = 64 };
    uint32_t eom = TOKEN_NONE;
    const uint8_t *listed = NULL;
    uint64_t listed_count = 0;
    enum err err = load_id(t, g, "tokenizer.ggml.eom_token_id", &eom, why);
    if (err == OK)
        err = gguf_get_array(g, "tokenizer.ggml.eos_token_ids", false, GGUF_U32, &listed, &listed_count, why);
    if (err == OK && listed_count > MOST_LISTED)
        err = because(why, ERR_FORMAT, "%llu end tokens are listed; at most %d make sense",
                      (unsigned long long)listed_count, MOST_LISTED);
    struct token_list ends = {0};
    for (uint32_t id = 0; err == OK && id < t->count; id++) {
        bool named = t->types[id] == TOKEN_CONTROL && ends_by_name(t->texts[id]);
        named |= is_listed(listed, listed_count, id);
        if ((named || id == t->eos || id == t->eot || id == eom) && !token_list_push(&ends, id))
            err = because(why, ERR_NOMEM, "no memory for the vocabulary's end tokens");
    }
    t->ends = ends.ids;
    t->end_count = ends.count;
    return err;
}

/* Phi-3's authors made their special tokens swallow the blanks behind them; their files do not say so. */
static enum err load_strips(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    struct gguf_string name = {"", 0};
    enum err err = gguf_get_string(g, "general.name", false, &name, why);
    for (size_t i = 0; err == OK && t->kind == KIND_SPM && i < name.length; i++) {
        bool here = (name.length - i >= 5 && strncasecmp(name.at + i, "phi-3", 5) == 0) ||
                    (name.length - i >= 4 && strncasecmp(name.at + i, "phi3", 4) == 0);
        t->strips_after_special |= here;
    }
    return err;
}

enum err tokenizer_open(struct tokenizer **out, const struct gguf *g, struct why *why)
{
    *out = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return because(why, ERR_NOMEM, "no memory for a tokenizer");
    enum err err = load_kind(t, g, why);
    if (err == OK)
        err = load_vocabulary(t, g, why);
    if (err == OK)
        err = load_ids(t, g, why);
    if (err == OK)
        err = load_ends(t, g, why);
    if (err == OK)
        err = load_strips(t, g, why);
    if (err == OK)
        err = t->kind == KIND_BPE   ? tokenizer_bpe_load(t, g, why)
              : t->kind == KIND_SPM ? tokenizer_spm_load(t, g, why)
                                    : tokenizer_wordpiece_load(t, g, why);
    if (err == OK)
        err = gguf_get_bool(g, "tokenizer.ggml.add_bos_token", false, &t->adds_bos, why);
    if (err == OK)
        err = gguf_get_bool(g, "tokenizer.ggml.add_eos_token", false, &t->adds_eos, why);
    if (err != OK) {
        tokenizer_close(t);
        return err;
    }
    *out = t;
    return OK;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    pretokenizer_close(t->pretokenizer);
    merge_map_fini(&t->merges);
    text_map_fini(&t->by_text);
    special_tokens_fini(&t->user_defined);
    special_tokens_fini(&t->specials);
    free(t->scores);
    free(t->ends);
    free(t->types);
    free(t->pieces);
    free(t->texts);
    free(t->bytes);
    free(t);
}

static enum err encode_plain(const struct tokenizer *t, struct encoding *e, const char *text, size_t length,
                             struct token_list *out, struct why *why)
{
    if (length == 0)
        return OK;
    return t->kind == KIND_BPE   ? tokenizer_bpe_encode(t, e, text, length, out, why)
           : t->kind == KIND_SPM ? tokenizer_spm_encode(t, e, text, length, out, why)
                                 : tokenizer_wordpiece_encode(t, text, length, out, why);
}

static bool strips_after(const struct tokenizer *t, uint32_t id)
{
    static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strlen(plain[i]) == t->texts[id].length && memcmp(plain[i], t->texts[id].at, t->texts[id].length) == 0)
            return false;
    return t->strips_after_special;
}

enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, bool parse_special,
                          struct token_list *out, struct why *why)
{
    const struct special_tokens *named = parse_special ? &t->specials : &t->user_defined;
    struct encoding e = {0};
    size_t before = out->count;
    size_t at = 0, place;
    enum err err = OK;
    const struct special_token *found;
    while (err == OK && (found = special_tokens_find(named, text, length, at, &place))) {
        err = encode_plain(t, &e, text + at, place - at, out, why);
        if (err == OK && !token_list_push(out, found->id))
            err = because(why, ERR_NOMEM, "no memory to tokenize a text of %zu bytes", length);
        at = place + found->text.length;
        while (strips_after(t, found->id) && at < length && strchr(" \t\n\v\f\r", text[at]) && text[at])
            at++;
    }
    if (err == OK)
        err = encode_plain(t, &e, text + at, length - at, out, why);
    encoding_fini(&e);
    if (err != OK)
        out->count = before;
    return err;
}

uint32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->count;
}

const char *tokenizer_piece(const struct tokenizer *t, uint32_t id, bool render_special, size_t *length)
{
    must(id < t->count);
    *length = is_hidden(t, id) && !render_special ? 0 : t->pieces[id].length;
    return t->pieces[id].at;
}

size_t tokenizer_longest_piece(const struct tokenizer *t)
{
    return t->longest_piece;
}

const char *tokenizer_token_text(const struct tokenizer *t, uint32_t id, size_t *length)
{
    must(id < t->count);
    *length = t->texts[id].length;
    return t->texts[id].at;
}

uint32_t tokenizer_special(const struct tokenizer *t, const char *text, size_t length)
{
    size_t at;
    const struct special_token *found = special_tokens_find(&t->specials, text, length, 0, &at);
    return found && found->text.length == length ? found->id : TOKEN_NONE;
}

uint32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

uint32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

uint32_t tokenizer_eot(const struct tokenizer *t)
{
    return t->eot;
}

uint32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

uint32_t tokenizer_unknown(const struct tokenizer *t)
{
    return t->unknown;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos;
}

bool tokenizer_adds_eos(const struct tokenizer *t)
{
    return t->adds_eos;
}

bool tokenizer_adds_space(const struct tokenizer *t)
{
    return t->adds_space;
}

bool tokenizer_is_end(const struct tokenizer *t, uint32_t id)
{
    for (size_t i = 0; i < t->end_count; i++)
        if (t->ends[i] == id)
            return true;
    return false;
}

const uint32_t *tokenizer_end_tokens(const struct tokenizer *t, size_t *count)
{
    *count = t->end_count;
    return t->ends;
}

bool tokenizer_is_control(const struct tokenizer *t, uint32_t id)
{
    must(id < t->count);
    return t->types[id] == TOKEN_CONTROL;
}
