/*
 * hub_tokenizer: see hub_tokenizer.h. Format: https://github.com/huggingface/tokenizers, the serialisations of its parts. What may stand
 * before the model (normalizer, pre_tokenizer) is read as a list of simple parts, and only known lists are taken.
 */
#include "model/hub_tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "model/pretokenizer.h"
#include "model/shown.h"
#include "model/tokenizer_internal.h"

enum { MAX_PARTS = 16, MAX_HOLES = 65536 };

#define BLANK_LETTER "\xE2\x96\x81" /* U+2581, in place of a blank */

struct entry {
    const char *text; /* NULL: no token has this id */
    size_t length;
    int32_t type; /* enum token_type */
};

/* The work on one tokenizer; after the first thing wrong the rest is left alone and err says what it was. */
struct translating {
    struct gguf_header *header;
    const struct hub_tokenizer *from;
    const json_t *model; /* of tokenizer.json */
    enum tokenizer_kind kind;
    struct entry *tokens; /* (count) by id */
    uint32_t count, room;
    uint64_t id_limit;        /* no more ids than tokens and MAX_HOLES */
    struct token_text *texts; /* (count), for by_text */
    struct text_map by_text;
    bool mapped;
    enum err err;
    struct why *why;
};

static const json_t *value_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool is(const json_t *object, const char *key, const char *text)
{
    return strcmp(text_at(object, key), text) == 0;
}

static void refuse(struct translating *t, enum err err, const char *what, const char *name)
{
    if (t->err == OK)
        t->err = because(t->why, err, "\"%.200s/tokenizer.json\": %s \"%s\"", t->from->directory, what,
                         shown_bytes(name, strlen(name)).text);
}

/* ---- tokens ---- */

static void set_token(struct translating *t, const json_t *number, const char *text, size_t length, int32_t type)
{
    json_int_t id = json_is_integer(number) ? json_integer_value(number) : -1;
    if (t->err != OK)
        return;
    if (id < 0 || id >= MODEL_MAX_VOCAB || (uint64_t)id >= t->id_limit) {
        refuse(t, ERR_FORMAT, "no id that can be used for the token", text);
        return;
    }
    if (id >= t->room) {
        uint32_t room = 2 * (uint32_t)id + 1024;
        struct entry *more = realloc(t->tokens, room * sizeof *more);
        if (!more) {
            refuse(t, ERR_NOMEM, "no memory for the token", text);
            return;
        }
        memset(more + t->room, 0, (room - t->room) * sizeof *more);
        t->tokens = more;
        t->room = room;
    }
    struct entry *e = &t->tokens[id];
    if (type == TOKEN_NORMAL && e->text)
        refuse(t, ERR_FORMAT, "another token has the id of the token", text);
    *e = (struct entry){.text = text, .length = length, .type = type};
    t->count = (uint32_t)id >= t->count ? (uint32_t)id + 1 : t->count;
}

static void read_tokens(struct translating *t)
{
    const json_t *vocab = value_at(t->model, "vocab"), *added = value_at(t->from->tokenizer, "added_tokens");
    if (!json_is_object(vocab) || json_object_size(vocab) == 0) {
        refuse(t, ERR_FORMAT, "it lacks the key", "model.vocab");
        return;
    }
    t->id_limit = json_object_size(vocab) + json_array_size(added) + MAX_HOLES;
    const char *text;
    json_t *id;
    json_object_foreach ((json_t *)(uintptr_t)vocab, text, id)
        set_token(t, id, text, strlen(text), TOKEN_NORMAL);
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i), *content = json_object_get(token, "content");
        if (!json_is_string(content) || json_string_length(content) == 0)
            refuse(t, ERR_FORMAT, "an added token without", "content");
        else
            set_token(t, json_object_get(token, "id"), json_string_value(content), json_string_length(content),
                      json_is_true(json_object_get(token, "special")) ? TOKEN_CONTROL : TOKEN_USER_DEFINED);
    }
}

/* Finds ids by spelling from here on; of a spelling that stands twice the later one. */
static void map_tokens(struct translating *t)
{
    t->texts = t->err == OK ? calloc(t->count, sizeof *t->texts) : NULL;
    t->mapped = t->texts && text_map_init(&t->by_text, t->texts, t->count);
    if (t->err == OK && !t->mapped)
        refuse(t, ERR_NOMEM, "no memory for its", "vocabulary");
    for (uint32_t id = 0; t->mapped && id < t->count; id++) {
        t->texts[id] = (struct token_text){t->tokens[id].text ? t->tokens[id].text : "", t->tokens[id].length};
        if (t->tokens[id].text)
            text_map_put(&t->by_text, id);
    }
}

static uint32_t id_of(const struct translating *t, const char *text, size_t length)
{
    return t->mapped && text ? text_map_find(&t->by_text, text, length) : TOKEN_NONE;
}

static bool is_byte_name(const struct entry *e)
{
    return e->length == 6 && memcmp(e->text, "<0x", 3) == 0 && e->text[5] == '>';
}

/* What the kind knows beside the list: which token is unknown text, which stand for bytes. */
static void finish_types(struct translating *t)
{
    const json_t *unknown = value_at(t->model, "unk_token");
    if (t->kind == KIND_BPE)
        return;
    for (uint32_t id = 0; t->kind == KIND_SPM && id < t->count; id++)
        if (t->tokens[id].text && t->tokens[id].type == TOKEN_NORMAL && is_byte_name(&t->tokens[id]))
            t->tokens[id].type = TOKEN_BYTE;
    uint32_t id = id_of(t, json_string_value(unknown), json_string_length(unknown));
    if (unknown && id == TOKEN_NONE)
        refuse(t, ERR_FORMAT, "the vocabulary lacks the unknown token", text_at(t->model, "unk_token"));
    if (id != TOKEN_NONE) {
        t->tokens[id].type = TOKEN_UNKNOWN;
        gguf_header_u32(t->header, "tokenizer.ggml.unknown_token_id", id);
    }
}

/* WordPiece spells what continues a word "##s"; GGUF marks what begins one instead. */
static void put_spelling(struct translating *t, const struct entry *e)
{
    char word[4096];
    if (t->kind != KIND_WORDPIECE || e->type != TOKEN_NORMAL || e->length + sizeof BLANK_LETTER > sizeof word) {
        gguf_header_element_string(t->header, e->text, e->length);
    } else if (e->length > 2 && memcmp(e->text, "##", 2) == 0) {
        gguf_header_element_string(t->header, e->text + 2, e->length - 2);
    } else {
        memcpy(word, BLANK_LETTER, 3);
        memcpy(word + 3, e->text, e->length);
        gguf_header_element_string(t->header, word, 3 + e->length);
    }
}

static void put_tokens(struct translating *t)
{
    gguf_header_array(t->header, "tokenizer.ggml.tokens", GGUF_STRING, t->count);
    for (uint32_t id = 0; id < t->count; id++) {
        char hole[24]; /* ids that are not used have a name of their own all the same */
        snprintf(hole, sizeof hole, "[PAD%u]", id);
        const struct entry unused = {hole, strlen(hole), TOKEN_UNUSED};
        if (!t->tokens[id].text)
            t->tokens[id].type = TOKEN_UNUSED;
        put_spelling(t, t->tokens[id].text ? &t->tokens[id] : &unused);
    }
    gguf_header_array(t->header, "tokenizer.ggml.token_type", GGUF_I32, t->count);
    for (uint32_t id = 0; id < t->count; id++)
        gguf_header_element(t->header, &t->tokens[id].type, sizeof t->tokens[id].type);
}

/* ---- merges ---- */

struct merge_text {
    const char *left, *right;
    size_t left_bytes, right_bytes;
};

/* "left right", or ["left", "right"]. */
static bool read_merge(const json_t *merge, struct merge_text *out)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *end = text + json_string_length(merge);
        const char *blank = end - text > 2 ? memchr(text + 1, ' ', (size_t)(end - text) - 2) : NULL;
        if (blank)
            *out = (struct merge_text){text, blank + 1, (size_t)(blank - text), (size_t)(end - blank) - 1};
        return blank;
    }
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    *out = (struct merge_text){json_string_value(left), json_string_value(right), json_string_length(left),
                               json_string_length(right)};
    return json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right);
}

/* The two put together, in *room, which grows. NULL: no memory. */
static const char *join(const struct merge_text *m, const char *between, char **room, size_t *size)
{
    size_t wanted = m->left_bytes + strlen(between) + m->right_bytes + 1;
    if (wanted > *size) {
        char *more = realloc(*room, 2 * wanted);
        if (!more)
            return NULL;
        *room = more;
        *size = 2 * wanted;
    }
    memcpy(mempcpy(mempcpy(*room, m->left, m->left_bytes), between, strlen(between)), m->right, m->right_bytes);
    return *room;
}

/* What a merge makes has the merge's place as its score; what none makes is never made. */
static void set_score(struct translating *t, float *scores, const char *joined, const struct merge_text *m, size_t rank)
{
    uint32_t id = id_of(t, joined, m->left_bytes + m->right_bytes);
    if (id != TOKEN_NONE && scores[id] == -INFINITY)
        scores[id] = -(float)rank;
}

static void read_merges(struct translating *t, const json_t *merges, float *scores)
{
    char *room = NULL;
    size_t size = 0;
    for (size_t rank = 0; t->err == OK && rank < json_array_size(merges); rank++) {
        struct merge_text m;
        const char *joined = NULL;
        if (!read_merge(json_array_get(merges, rank), &m))
            refuse(t, ERR_FORMAT, "a merge that is no pair stands in", "model.merges");
        else if (!(joined = join(&m, scores ? "" : " ", &room, &size)))
            refuse(t, ERR_NOMEM, "no memory for its", "merges");
        else if (scores)
            set_score(t, scores, joined, &m, rank);
        else
            gguf_header_element_string(t->header, joined, m.left_bytes + 1 + m.right_bytes);
    }
    free(room);
}

static void put_merges(struct translating *t)
{
    const json_t *merges = value_at(t->model, "merges");
    if (!json_is_array(merges)) {
        refuse(t, ERR_FORMAT, "it lacks the key", "model.merges");
        return;
    }
    if (t->kind == KIND_BPE) {
        gguf_header_array(t->header, "tokenizer.ggml.merges", GGUF_STRING, json_array_size(merges));
        read_merges(t, merges, NULL);
        return;
    }
    float *scores = malloc(t->count * sizeof *scores);
    if (!scores) {
        refuse(t, ERR_NOMEM, "no memory for its", "scores");
        return;
    }
    for (uint32_t id = 0; id < t->count; id++)
        scores[id] = -INFINITY;
    read_merges(t, merges, scores);
    gguf_header_array(t->header, "tokenizer.ggml.scores", GGUF_F32, t->count);
    gguf_header_element(t->header, scores, t->count * sizeof *scores);
    free(scores);
}

/* ---- what stands before the model ---- */

struct parts {
    const json_t *at[MAX_PARTS];
    size_t count;
};

/* A part alone, or the parts of a sequence of them. `list` is what the sequence calls them. */
static struct parts parts_of(struct translating *t, const char *key, const char *list)
{
    const json_t *whole = value_at(t->from->tokenizer, key);
    struct parts parts = {.count = whole ? 1 : 0, .at = {whole}};
    if (!is(whole, "type", "Sequence"))
        return parts;
    const json_t *array = json_object_get(whole, list);
    parts.count = json_array_size(array);
    if (parts.count > MAX_PARTS) {
        refuse(t, ERR_UNSUPPORTED, "too many parts in", key);
        parts.count = 0;
    }
    for (size_t i = 0; i < parts.count; i++)
        parts.at[i] = json_array_get(array, i);
    return parts;
}

static bool has_part(const struct parts *parts, const char *type)
{
    for (size_t i = 0; i < parts->count; i++)
        if (is(parts->at[i], "type", type))
            return true;
    return false;
}

/* The pattern by which a part of a byte-level pre_tokenizer cuts; "" where it cuts nothing, NULL where it is another. */
static const char *pattern_of(const json_t *part)
{
    if (is(part, "type", "Split") && is(part, "behavior", "Isolated") && !json_is_true(json_object_get(part, "invert")))
        return json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
    if (is(part, "type", "Digits"))
        return json_is_true(json_object_get(part, "individual_digits")) ? "\\p{N}" : "\\p{N}+";
    if (is(part, "type", "Punctuation") && is(part, "behavior", "Contiguous"))
        return PRETOKENIZER_PUNCTUATION;
    if (is(part, "type", "ByteLevel") && !json_is_true(json_object_get(part, "add_prefix_space")))
        return json_is_false(json_object_get(part, "use_regex")) ? "" : PRETOKENIZER_BYTE_LEVEL;
    return NULL;
}

static void put_pretokenizer(struct translating *t, const struct parts *parts)
{
    const char *patterns[MAX_PARTS];
    size_t count = 0;
    for (size_t i = 0; i < parts->count; i++) {
        const char *pattern = pattern_of(parts->at[i]);
        if (!pattern) {
            refuse(t, ERR_UNSUPPORTED, "this build does not know how to cut text by a pre_tokenizer",
                   text_at(parts->at[i], "type"));
            return;
        }
        if (*pattern)
            patterns[count++] = pattern;
    }
    bool whole_words = json_is_true(json_object_get(t->model, "ignore_merges"));
    const char *name = pretokenizer_name(patterns, count, whole_words);
    if (name)
        gguf_header_string(t->header, "tokenizer.ggml.pre", name, strlen(name));
    else
        refuse(t, ERR_UNSUPPORTED, "this build does not know the pre_tokenizer's pattern", count ? patterns[0] : "");
}

static void check_byte_level(struct translating *t)
{
    struct parts before = parts_of(t, "normalizer", "normalizers");
    struct parts parts = parts_of(t, "pre_tokenizer", "pretokenizers");
    for (size_t i = 0; i < before.count; i++)
        if (!is(before.at[i], "type", "NFC"))
            refuse(t, ERR_UNSUPPORTED, "not supported before byte-level BPE is the normalizer",
                   text_at(before.at[i], "type"));
    if (!has_part(&parts, "ByteLevel"))
        refuse(t, ERR_UNSUPPORTED, "not supported is BPE with neither byte_fallback nor a pre_tokenizer of type",
               "ByteLevel");
    put_pretokenizer(t, &parts);
}

/* Blanks become U+2581, and one is put in front or not; nothing else may happen. */
static void check_sentencepiece(struct translating *t)
{
    struct parts before = parts_of(t, "normalizer", "normalizers");
    struct parts parts = parts_of(t, "pre_tokenizer", "pretokenizers");
    bool in_front = false;
    for (size_t i = 0; i < before.count; i++) {
        const json_t *part = before.at[i];
        bool replaces = is(part, "type", "Replace") && is(part, "content", BLANK_LETTER) &&
                        is(json_object_get(part, "pattern"), "String", " ");
        bool prepends = is(part, "type", "Prepend") && is(part, "prepend", BLANK_LETTER);
        if (!replaces && !prepends)
            refuse(t, ERR_UNSUPPORTED, "not supported before BPE with byte_fallback is the normalizer",
                   text_at(part, "type"));
        in_front |= prepends;
    }
    for (size_t i = 0; i < parts.count; i++) {
        const json_t *part = parts.at[i];
        bool metaspace = is(part, "type", "Metaspace") && is(part, "replacement", BLANK_LETTER);
        bool split = is(part, "type", "Split") && is(part, "behavior", "MergedWithPrevious") &&
                     is(json_object_get(part, "pattern"), "String", " ");
        if (!metaspace && !split)
            refuse(t, ERR_UNSUPPORTED, "not supported before BPE with byte_fallback is the pre_tokenizer",
                   text_at(part, "type"));
        const json_t *scheme = value_at(part, "prepend_scheme");
        in_front |= metaspace && (scheme ? !is(part, "prepend_scheme", "never")
                                         : !json_is_false(json_object_get(part, "add_prefix_space")));
    }
    gguf_header_bool(t->header, "tokenizer.ggml.add_space_prefix", in_front);
}

static void check_wordpiece(struct translating *t)
{
    const json_t *normalizer = value_at(t->from->tokenizer, "normalizer");
    const json_t *accents = value_at(normalizer, "strip_accents");
    if (!is(normalizer, "type", "BertNormalizer") || !json_is_true(json_object_get(normalizer, "lowercase")) ||
        json_is_false(accents) || json_is_false(json_object_get(normalizer, "clean_text")) ||
        json_is_false(json_object_get(normalizer, "handle_chinese_chars")))
        refuse(t, ERR_UNSUPPORTED, "WordPiece is supported only behind a normalizer that lowercases, of type",
               "BertNormalizer");
    if (!is(value_at(t->from->tokenizer, "pre_tokenizer"), "type", "BertPreTokenizer"))
        refuse(t, ERR_UNSUPPORTED, "WordPiece is supported only behind a pre_tokenizer of type", "BertPreTokenizer");
    if (!is(t->model, "continuing_subword_prefix", "##"))
        refuse(t, ERR_UNSUPPORTED, "WordPiece is supported only where words go on with", "##");
}

static void put_kind(struct translating *t)
{
    const char *type = text_at(t->model, "type"), *name = "gpt2";
    /* files of before there was a type */
    bool bpe = strcmp(type, "BPE") == 0 || (!*type && value_at(t->model, "merges"));
    t->kind = KIND_BPE;
    if (strcmp(type, "WordPiece") == 0) {
        t->kind = KIND_WORDPIECE;
        name = "bert";
    } else if (!bpe) {
        refuse(t, ERR_UNSUPPORTED, "only BPE and WordPiece are supported, not", type);
    } else if (json_is_true(json_object_get(t->model, "byte_fallback"))) {
        t->kind = KIND_SPM;
        name = "llama";
    }
    gguf_header_string(t->header, "tokenizer.ggml.model", name, strlen(name));
}

/* ---- special tokens ---- */

/* A token of the settings: its spelling, or an object that holds it. */
static const json_t *setting(const struct translating *t, const char *key)
{
    const json_t *value = value_at(t->from->settings, key);
    return json_is_object(value) ? value_at(value, "content") : value;
}

/* The spelling that the settings give, or else the number of config.json. */
static uint32_t special_id(struct translating *t, const char *token, const char *number)
{
    const json_t *text = setting(t, token);
    uint32_t id = id_of(t, json_string_value(text), json_string_length(text));
    if (json_is_string(text) && id == TOKEN_NONE)
        refuse(t, ERR_FORMAT, "the vocabulary lacks what tokenizer_config.json calls a special token,",
               json_string_value(text));
    if (json_is_string(text))
        return id;
    const json_t *value = value_at(t->from->config, number);
    value = json_is_array(value) ? json_array_get(value, 0) : value;
    bool good = json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) < t->count;
    return good ? (uint32_t)json_integer_value(value) : TOKEN_NONE;
}

static void put_id(struct translating *t, const char *key, uint32_t id)
{
    if (id != TOKEN_NONE && t->err == OK)
        gguf_header_u32(t->header, key, id);
}

/* Every token that ends an answer, as the generation config says: one number, or several. */
static void put_ends(struct translating *t)
{
    const json_t *ids = value_at(t->from->generation, "eos_token_id");
    ids = ids ? ids : value_at(t->from->config, "eos_token_id");
    size_t count = json_is_array(ids) ? json_array_size(ids) : json_is_integer(ids);
    if (count == 0)
        return;
    gguf_header_array(t->header, "tokenizer.ggml.eos_token_ids", GGUF_U32, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *number = json_is_array(ids) ? json_array_get(ids, i) : ids;
        json_int_t id = json_is_integer(number) ? json_integer_value(number) : -1;
        if (id < 0 || id >= t->count)
            refuse(t, ERR_FORMAT, "a token beyond the vocabulary is named by", "eos_token_id");
        gguf_header_element(t->header, &(uint32_t){(uint32_t)id}, sizeof(uint32_t));
    }
}

/* The template that puts tokens around a text, or NULL. */
static const json_t *template_of(struct translating *t)
{
    struct parts parts = parts_of(t, "post_processor", "processors");
    for (size_t i = 0; i < parts.count; i++)
        if (is(parts.at[i], "type", "TemplateProcessing"))
            return json_object_get(parts.at[i], "single");
    return NULL;
}

/* Where the settings do not say: whether the template has a token there. */
static void put_adds(struct translating *t, const char *setting_key, const char *key, const json_t *place)
{
    const json_t *says = value_at(t->from->settings, setting_key);
    bool adds = says ? json_is_true(says) : json_object_get(place, "SpecialToken") != NULL;
    gguf_header_bool(t->header, key, adds);
}

static void put_specials(struct translating *t)
{
    const json_t *around = template_of(t);
    bool wordpiece = t->kind == KIND_WORDPIECE;
    put_id(t, "tokenizer.ggml.bos_token_id", special_id(t, wordpiece ? "cls_token" : "bos_token", "bos_token_id"));
    put_id(t, "tokenizer.ggml.eos_token_id", special_id(t, wordpiece ? "sep_token" : "eos_token", "eos_token_id"));
    put_id(t, "tokenizer.ggml.padding_token_id", special_id(t, "pad_token", "pad_token_id"));
    put_ends(t);
    put_adds(t, "add_bos_token", "tokenizer.ggml.add_bos_token", json_array_get(around, 0));
    size_t last = json_array_size(around);
    put_adds(t, "add_eos_token", "tokenizer.ggml.add_eos_token", last ? json_array_get(around, last - 1) : NULL);
}

/* ---- the chat template ---- */

/* Of several the one named "default". */
static const json_t *template_in_settings(const struct translating *t)
{
    const json_t *value = value_at(t->from->settings, "chat_template");
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
        if (is(json_array_get(value, i), "name", "default"))
            return json_object_get(json_array_get(value, i), "template");
    return value;
}

static void put_template(struct translating *t)
{
    const json_t *text = template_in_settings(t);
    if (t->from->template_text)
        gguf_header_string(t->header, "tokenizer.chat_template", t->from->template_text, t->from->template_bytes);
    else if (json_is_string(text))
        gguf_header_string(t->header, "tokenizer.chat_template", json_string_value(text), json_string_length(text));
}

/* ---- all of it ---- */

enum err hub_tokenizer_translate(struct gguf_header *header, const struct hub_tokenizer *from, struct why *why)
{
    struct translating t = {
        .header = header, .from = from, .model = json_object_get(from->tokenizer, "model"), .why = why};
    static void (*const checks[])(struct translating *) = {
        [KIND_BPE] = check_byte_level, [KIND_SPM] = check_sentencepiece, [KIND_WORDPIECE] = check_wordpiece};
    put_kind(&t);
    if (t.err == OK)
        checks[t.kind](&t);
    if (t.err == OK)
        read_tokens(&t);
    map_tokens(&t);
    if (t.err == OK) {
        finish_types(&t);
        put_tokens(&t);
        if (t.kind != KIND_WORDPIECE)
            put_merges(&t);
        put_specials(&t);
        put_template(&t);
    }
    if (t.mapped)
        text_map_fini(&t.by_text);
    free(t.texts);
    free(t.tokens);
    return t.err;
}
