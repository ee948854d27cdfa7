/*
 * tokenizer_bpe: byte-level byte-pair encoding. The pre-tokenizer cuts text into words, each byte of a word is a token,
 * and neighbours join in the order of the merge list.
 *
 * The vocabulary spells bytes with GPT-2's alphabet of 256 printable characters
 * (https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode).
 */
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/tokenizer_internal.h"
#include "model/utf8.h"

/* Bytes that are printable in Latin-1 spell themselves. */
static bool spells_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

/* The letters of the other bytes stand from U+0100 on, in the bytes' order. */
static uint32_t letter_of(uint8_t byte)
{
    if (spells_itself(byte))
        return byte;
    uint32_t letter = 0x100;
    for (unsigned b = 0; b < byte; b++)
        letter += !spells_itself(b);
    return letter;
}

/* The byte that a letter spells, or -1. */
static int byte_of(uint32_t letter)
{
    if (letter < 0x100)
        return spells_itself(letter) ? (int)letter : -1;
    uint32_t next = 0x100;
    for (int byte = 0; byte < 0x100; byte++)
        if (!spells_itself((unsigned)byte) && next++ == letter)
            return byte;
    return -1;
}

size_t tokenizer_bpe_piece(struct token_text spelling, char *out)
{
    size_t written = 0;
    for (size_t at = 0; at < spelling.length;) {
        struct utf8_step step = utf8_step(spelling.at + at, spelling.length - at);
        int byte = step.kind == UTF8_GOOD ? byte_of(step.code) : -1;
        if (byte >= 0) {
            out[written++] = (char)byte;
        } else { /* no letter of the alphabet: it stands for itself */
            memcpy(out + written, spelling.at + at, step.bytes);
            written += step.bytes;
        }
        at += step.bytes;
    }
    return written;
}

/*
 * A merge reads "left right". One whose parts or whose result are no tokens is passed over: nothing it makes could be
 * written down as a token.
 */
static void put_merge(struct tokenizer *t, struct gguf_string line, uint32_t rank, char *joined)
{
    const char *blank = line.length > 1 ? memchr(line.at + 1, ' ', line.length - 1) : NULL;
    if (!blank || line.length - 1 > t->longest_text)
        return;
    size_t left_bytes = (size_t)(blank - line.at);
    size_t right_bytes = line.length - left_bytes - 1;
    memcpy(joined, line.at, left_bytes);
    memcpy(joined + left_bytes, blank + 1, right_bytes);
    struct merge merge = {
        .left = text_map_find(&t->by_text, line.at, left_bytes),
        .right = text_map_find(&t->by_text, blank + 1, right_bytes),
        .id = text_map_find(&t->by_text, joined, left_bytes + right_bytes),
        .rank = rank,
    };
    if (merge.left != TOKEN_NONE && merge.right != TOKEN_NONE && merge.id != TOKEN_NONE)
        merge_map_put(&t->merges, merge);
}

enum err tokenizer_bpe_load(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char letter[4];
        size_t bytes = utf8_write(letter_of((uint8_t)byte), letter);
        t->byte_tokens[byte] = text_map_find(&t->by_text, letter, bytes);
    }

    struct gguf_string pre = {"default", 7};
    enum err err = gguf_get_string(g, "tokenizer.ggml.pre", false, &pre, why);
    if (err == OK)
        err = pretokenizer_open(&t->pretokenizer, pre.at, pre.length, why);
    if (err != OK)
        return err;
    t->adds_bos = pretokenizer_adds_bos(t->pretokenizer);

    const struct gguf_string *lines;
    uint64_t count;
    err = gguf_get_strings(g, "tokenizer.ggml.merges", true, &lines, &count, why);
    if (err != OK)
        return err;
    if (count >= UINT32_MAX)
        return because(why, ERR_FORMAT, "a vocabulary with %llu merges cannot be used", (unsigned long long)count);
    char *joined = malloc(t->longest_text + 1);
    if (!joined || !merge_map_init(&t->merges, count)) {
        free(joined);
        return because(why, ERR_NOMEM, "no memory for the vocabulary's %llu merges", (unsigned long long)count);
    }
    for (uint32_t rank = 0; rank < count; rank++)
        put_merge(t, lines[rank], rank, joined);
    free(joined);
    return OK;
}

static bool join_by_rank(const void *context, const struct symbol *left, const struct symbol *right, uint32_t *order,
                         uint32_t *id)
{
    const struct tokenizer *t = context;
    const struct merge *merge = merge_map_find(&t->merges, left->id, right->id);
    if (!merge)
        return false;
    *order = merge->rank;
    *id = merge->id;
    return true;
}

/* The token that spells the whole word, or TOKEN_NONE. */
static uint32_t whole_word(const struct tokenizer *t, struct encoding *e, const char *word, size_t length)
{
    if (length > t->longest_piece || !encoding_make_room(e, 4 * length))
        return TOKEN_NONE;
    size_t bytes = 0;
    for (size_t i = 0; i < length; i++)
        bytes += utf8_write(letter_of((uint8_t)word[i]), e->text + bytes);
    return text_map_find(&t->by_text, e->text, bytes);
}

static bool encode_word(const struct tokenizer *t, struct encoding *e, const char *word, size_t length,
                        struct token_list *out)
{
    if (pretokenizer_keeps_whole_words(t->pretokenizer)) {
        uint32_t id = whole_word(t, e, word, length);
        if (id != TOKEN_NONE)
            return token_list_push(out, id);
    }
    struct merger *m = &e->merger;
    merger_begin(m);
    for (size_t i = 0; i < length; i++)
        if (!merger_add(m, (uint32_t)i, 1, t->byte_tokens[(uint8_t)word[i]]))
            return false;
    if (!merger_run(m, join_by_rank, t))
        return false;
    for (uint32_t i = 0; i != SYMBOL_NONE; i = m->symbols[i].next)
        if (m->symbols[i].id != TOKEN_NONE && !token_list_push(out, m->symbols[i].id))
            return false; /* no memory; a byte that has no token is left out */
    return true;
}

enum err tokenizer_bpe_encode(const struct tokenizer *t, struct encoding *e, const char *text, size_t length,
                              struct token_list *out, struct why *why)
{
    enum err err = pretokenizer_split(t->pretokenizer, text, length, &e->words, why);
    size_t start = 0;
    for (size_t i = 0; err == OK && i < e->words.count; i++) {
        size_t end = e->words.ends[i];
        must(end > start && end <= length);
        if (!encode_word(t, e, text + start, end - start, out))
            err = because(why, ERR_NOMEM, "no memory to tokenize a text of %zu bytes", length);
        start = end;
    }
    return err;
}
