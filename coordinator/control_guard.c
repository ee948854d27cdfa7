/* control_guard: see control_guard.h. */
#include "coordinator/control_guard.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text.h"
#include "model/special_tokens.h"
#include "model/utf8.h"

struct control_guard {
    struct special_tokens spellings; /* of control tokens and of the unknown token: what parse_special lets text name */
};

enum err control_guard_open(struct control_guard **out, const struct tokenizer *tokenizer, struct why *why)
{
    *out = NULL;
    struct control_guard *g = calloc(1, sizeof *g);
    uint32_t vocab = tokenizer_vocab_size(tokenizer);
    struct special_token *found = NULL;
    size_t count = 0, room = 0;
    if (!g)
        return because(why, ERR_NOMEM, "no memory for the list of control tokens");
    for (uint32_t id = 0; id < vocab; id++) {
        size_t length;
        const char *text = tokenizer_token_text(tokenizer, id, &length);
        bool nameable = tokenizer_is_control(tokenizer, id) || id == tokenizer_unknown(tokenizer);
        if (!nameable || length == 0 || length > SPECIAL_MAX_BYTES)
            continue;
        if (count == room) {
            room = room ? 2 * room : 64;
            struct special_token *grown = realloc(found, room * sizeof *found);
            if (!grown) {
                free(found);
                free(g);
                return because(why, ERR_NOMEM, "no memory for the list of control tokens");
            }
            found = grown;
        }
        found[count++] = (struct special_token){.text = {text, length}, .id = id};
    }
    special_tokens_init(&g->spellings, found, count);
    *out = g;
    return OK;
}

void control_guard_close(struct control_guard *g)
{
    if (!g)
        return;
    special_tokens_fini(&g->spellings);
    free(g);
}

/* Bit k: U+FDD0 + k stands in the text. */
static uint32_t marks_in_text(const char *text, size_t length)
{
    uint32_t marks = 0;
    for (size_t i = 0; i + 2 < length; i++)
        if (text[i] == '\xEF' && text[i + 1] == '\xB7' && (unsigned char)text[i + 2] >= 0x90 &&
            (unsigned char)text[i + 2] <= 0xAF)
            marks |= 1u << ((unsigned char)text[i + 2] - 0x90);
    return marks;
}

/* Recursion is bounded: json_scan let no deeper value in. */
static uint32_t marks_in(const json_t *value)
{
    uint32_t marks = 0;
    if (json_is_string(value))
        return marks_in_text(json_string_value(value), json_string_length(value));
    if (json_is_array(value)) {
        size_t i;
        json_t *item;
        json_array_foreach ((json_t *)value, i, item)
            marks |= marks_in(item);
    } else if (json_is_object(value)) {
        const char *key;
        json_t *item;
        json_object_foreach ((json_t *)value, key, item)
            marks |= marks_in_text(key, strlen(key)) | marks_in(item);
    }
    return marks;
}

enum err control_guard_choose(const json_t *value, struct guard_mark *mark)
{
    uint32_t used = marks_in(value);
    if (used == UINT32_MAX)
        return ERR_FULL;
    *mark = (struct guard_mark){{'\xEF', '\xB7', (char)(0x90 + __builtin_ctz(~used))}};
    return OK;
}

/*
 * Every place where a spelling begins gets a mark, also one within another: cutting the outer must not free the
 * inner.
 */
static void add_marked(struct text *out, const struct control_guard *g, struct guard_mark mark, const char *text,
                       size_t length)
{
    size_t at = 0, begin;
    while (at < length && special_tokens_find(&g->spellings, text, length, at, &begin)) {
        size_t first = utf8_step(text + begin, length - begin).bytes;
        text_add(out, text + at, begin - at + first);
        text_add(out, mark.bytes, sizeof mark.bytes);
        at = begin + first;
    }
    text_add(out, text + at, length - at);
}

static json_t *copy_string(const struct control_guard *g, struct guard_mark mark, const json_t *value)
{
    struct text marked = {0};
    add_marked(&marked, g, mark, json_string_value(value), json_string_length(value));
    json_t *copy = marked.failed ? NULL : json_stringn(marked.at ? marked.at : "", marked.length);
    text_fini(&marked);
    return copy;
}

static json_t *copy_object(const struct control_guard *g, struct guard_mark mark, const json_t *value)
{
    json_t *copy = json_object(), *item;
    const char *key;
    struct text marked = {0};
    json_object_foreach ((json_t *)value, key, item) {
        text_clear(&marked);
        add_marked(&marked, g, mark, key, strlen(key));
        text_add(&marked, "", 1);
        if (marked.failed || json_object_set_new(copy, marked.at, control_guard_copy(g, mark, item)) != 0) {
            json_decref(copy);
            copy = NULL;
            break;
        }
    }
    text_fini(&marked);
    return copy;
}

json_t *control_guard_copy(const struct control_guard *g, struct guard_mark mark, const json_t *value)
{
    if (json_is_string(value))
        return copy_string(g, mark, value);
    if (json_is_object(value))
        return copy_object(g, mark, value);
    if (!json_is_array(value))
        return json_deep_copy(value);
    json_t *copy = json_array(), *item;
    size_t i;
    json_array_foreach ((json_t *)value, i, item)
        if (json_array_append_new(copy, control_guard_copy(g, mark, item)) != 0) {
            json_decref(copy);
            return NULL;
        }
    return copy;
}

enum err control_guard_encode(const struct tokenizer *tokenizer, struct guard_mark mark, const char *text,
                              size_t length, struct token_list *out, struct why *why)
{
    size_t before = out->count;
    for (;;) {
        const char *cut = memmem(text, length, mark.bytes, sizeof mark.bytes);
        size_t part = cut ? (size_t)(cut - text) : length;
        enum err err = tokenizer_encode(tokenizer, text, part, true, out, why);
        if (err != OK) {
            out->count = before;
            return err;
        }
        if (!cut)
            return OK;
        text = cut + sizeof mark.bytes;
        length -= part + sizeof mark.bytes;
    }
}
