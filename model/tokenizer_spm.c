/*
 * tokenizer_spm: SentencePiece-style merging (https://github.com/google/sentencepiece, src/bpe_model.cc). Blanks become
 * U+2581, each character is a symbol, and the neighbours whose union is the token of the highest score join first.
 * Characters without a token are spelt with the byte tokens <0x00> to <0xFF>.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/tokenizer_internal.h"
#include "model/utf8.h"

static const char BLANK[3] = {'\xE2', '\x96', '\x81'}; /* U+2581 */

static bool is_blank(const char *text, size_t length)
{
    return length >= sizeof BLANK && memcmp(text, BLANK, sizeof BLANK) == 0;
}

size_t tokenizer_spm_piece(struct token_text spelling, bool byte_token, char *out)
{
    if (byte_token) {
        out[0] = (char)strtol(spelling.at + 3, NULL, 16); /* "<0xAB>", checked when it was loaded */
        return 1;
    }
    size_t written = 0;
    for (size_t at = 0; at < spelling.length;) {
        if (is_blank(spelling.at + at, spelling.length - at)) {
            out[written++] = ' ';
            at += sizeof BLANK;
        } else {
            out[written++] = spelling.at[at++];
        }
    }
    return written;
}

/* The first place behind `from` where a blank follows what is none, or the end. */
static size_t next_cut(const char *text, size_t length, size_t from)
{
    bool after_blank = true;
    for (size_t at = from; at < length;) {
        bool blank = is_blank(text + at, length - at);
        if (blank && !after_blank)
            return at;
        at += blank ? sizeof BLANK : 1;
        after_blank = blank;
    }
    return length;
}

/*
 * True when no token has a blank behind something else. Then nothing ever joins across such a place, and a text may be
 * cut there into words that are merged each for itself: the same tokens, out of a small heap instead of a huge one.
 */
static bool words_are_apart(const struct tokenizer *t)
{
    for (uint32_t id = 0; id < t->count; id++)
        if (next_cut(t->texts[id].at, t->texts[id].length, 0) != t->texts[id].length)
            return false;
    return true;
}

enum err tokenizer_spm_load(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    t->adds_bos = true; /* unless the file says otherwise, as the models of this kind have it */
    t->adds_space = true;
    enum err err = gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", false, &t->adds_space, why);
    if (err != OK)
        return err;
    for (unsigned byte = 0; byte < 256; byte++) {
        static const char digits[] = "0123456789ABCDEF";
        char name[6] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
        t->byte_tokens[byte] = text_map_find(&t->by_text, name, sizeof name);
    }

    const uint8_t *scores;
    uint64_t count;
    err = gguf_get_array(g, "tokenizer.ggml.scores", true, GGUF_F32, &scores, &count, why);
    if (err != OK)
        return err;
    if (count != t->count)
        return because(why, ERR_FORMAT, "the vocabulary has %u tokens but %llu scores", t->count,
                       (unsigned long long)count);
    t->scores = malloc(t->count * sizeof *t->scores);
    if (!t->scores)
        return because(why, ERR_NOMEM, "no memory for the vocabulary's scores");
    memcpy(t->scores, scores, t->count * sizeof *t->scores);
    for (uint32_t id = 0; id < t->count; id++)
        if (isnan(t->scores[id]))
            return because(why, ERR_FORMAT, "the score of token %u is not a number", id);
    t->words_are_apart = words_are_apart(t);
    return OK;
}

/* Maps floats to integers so that a higher score is a smaller order; both zeros are one. */
static uint32_t order_of(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

struct merge_context {
    const struct tokenizer *tokenizer;
    const char *text;
};

static bool join_by_score(const void *context, const struct symbol *left, const struct symbol *right, uint32_t *order,
                          uint32_t *id)
{
    const struct merge_context *c = context;
    size_t bytes = (size_t)left->bytes + right->bytes;
    if (bytes > c->tokenizer->longest_text)
        return false;
    uint32_t found = text_map_find(&c->tokenizer->by_text, c->text + left->start, bytes);
    if (found == TOKEN_NONE || c->tokenizer->scores[found] == -INFINITY) /* which no merge makes */
        return false;
    *order = order_of(c->tokenizer->scores[found]);
    *id = found;
    return true;
}

/* The text with its blanks spelt out, in e->text. */
static bool spell_blanks(struct encoding *e, const char *text, size_t length, bool blank_in_front, size_t *spelt)
{
    if (!encoding_make_room(e, sizeof BLANK * (length + 1)))
        return false;
    char *end = e->text;
    if (blank_in_front)
        end = mempcpy(end, BLANK, sizeof BLANK);
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ')
            end = mempcpy(end, BLANK, sizeof BLANK);
        else
            *end++ = text[i];
    }
    *spelt = (size_t)(end - e->text);
    return true;
}

/* One symbol a character; bytes that are none stand alone. */
static bool add_characters(const struct tokenizer *t, struct merger *m, const char *text, size_t length)
{
    merger_begin(m);
    for (size_t at = 0; at < length;) {
        struct utf8_step step = utf8_step(text + at, length - at);
        size_t bytes = step.kind == UTF8_GOOD ? step.bytes : 1;
        if (!merger_add(m, (uint32_t)at, (uint32_t)bytes, text_map_find(&t->by_text, text + at, bytes)))
            return false;
        at += bytes;
    }
    return true;
}

/* A byte that no token covers: its own token, the unknown token or nothing. */
static bool push_byte(const struct tokenizer *t, uint8_t byte, struct token_list *out)
{
    uint32_t id = t->byte_tokens[byte] != TOKEN_NONE ? t->byte_tokens[byte] : t->unknown;
    return id == TOKEN_NONE || token_list_push(out, id);
}

static bool encode_word(const struct tokenizer *t, struct merger *m, const char *word, size_t length,
                        struct token_list *out)
{
    if (!add_characters(t, m, word, length) || !merger_run(m, join_by_score, &(struct merge_context){t, word}))
        return false;
    for (uint32_t i = 0; i != SYMBOL_NONE; i = m->symbols[i].next) {
        const struct symbol *s = &m->symbols[i];
        if (s->id != TOKEN_NONE && !token_list_push(out, s->id))
            return false;
        for (uint32_t b = 0; s->id == TOKEN_NONE && b < s->bytes; b++)
            if (!push_byte(t, (uint8_t)word[s->start + b], out))
                return false;
    }
    return true;
}

enum err tokenizer_spm_encode(const struct tokenizer *t, struct encoding *e, const char *text, size_t length,
                              struct token_list *out, struct why *why)
{
    if (length >= UINT32_MAX / sizeof BLANK - 1)
        return because(why, ERR_INVALID, "a text of %zu bytes is too long to tokenize", length);
    size_t spelt = 0;
    bool done = spell_blanks(e, text, length, t->adds_space, &spelt);
    for (size_t at = 0; done && at < spelt;) {
        size_t end = t->words_are_apart ? next_cut(e->text, spelt, at) : spelt;
        done = encode_word(t, &e->merger, e->text + at, end - at, out);
        at = end;
    }
    return done ? OK : because(why, ERR_NOMEM, "no memory to tokenize a text of %zu bytes", length);
}
