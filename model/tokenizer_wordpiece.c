/*
 * tokenizer_wordpiece: WordPiece as the uncased BERT models have it: text is folded (unicode_fold.h) and cut at blanks, punctuation and
 * Chinese characters; of each word the longest token that begins it, then the longest that goes on, to its end, or else the unknown token for
 * all of it. Devlin et al., arXiv:1810.04805; https://github.com/google-research/bert/blob/master/tokenization.py
 *
 * GGUF files spell what begins a word with U+2581 in front, and what goes on without "##".
 */
#include <string.h>

#include "model/tokenizer_internal.h"
#include "model/unicode_fold.h"
#include "model/utf8.h"

enum { WORD_CHARACTERS_MOST = 100, WORD_BYTES_MOST = 4 * WORD_CHARACTERS_MOST };

static const char BLANK[3] = {'\xE2', '\x96', '\x81'}; /* U+2581 */

enum err tokenizer_wordpiece_load(struct tokenizer *t, const struct gguf *g, struct why *why)
{
    (void)g;
    t->adds_bos = t->adds_eos = true; /* unless the file says otherwise: [CLS] and [SEP] */
    if (t->unknown == TOKEN_NONE)
        return because(why, ERR_FORMAT, "a WordPiece vocabulary needs the key \"tokenizer.ggml.unknown_token_id\"");
    return OK;
}

struct word {
    char text[sizeof BLANK + WORD_BYTES_MOST + 4]; /* BLANK, then the word */
    size_t bytes;                                  /* BLANK included */
    size_t characters;                             /* goes on counting when the text is full */
};

static void word_begin(struct word *w)
{
    memcpy(w->text, BLANK, sizeof BLANK);
    w->bytes = sizeof BLANK;
    w->characters = 0;
}

static void word_add(struct word *w, uint32_t code)
{
    w->characters++;
    if (w->characters <= WORD_CHARACTERS_MOST)
        w->bytes += utf8_write(code, w->text + w->bytes);
}

/* The longest token at text[0, length), by whole bytes; *bytes says how long. */
static uint32_t longest_token(const struct tokenizer *t, const char *text, size_t length, size_t *bytes)
{
    for (*bytes = length < t->longest_text ? length : t->longest_text; *bytes > 0; --*bytes) {
        uint32_t id = text_map_find(&t->by_text, text, *bytes);
        if (id != TOKEN_NONE)
            return id;
    }
    return TOKEN_NONE;
}

/* false: no memory. */
static bool word_end(const struct tokenizer *t, struct word *w, struct token_list *out)
{
    size_t before = out->count, at = 0, bytes;
    if (w->characters == 0)
        return true;
    while (at < w->bytes && w->characters <= WORD_CHARACTERS_MOST) {
        uint32_t id = longest_token(t, w->text + at, w->bytes - at, &bytes);
        if (id == TOKEN_NONE)
            break;
        if (!token_list_push(out, id))
            return false;
        at += bytes;
    }
    if (at < w->bytes) {
        out->count = before;
        if (!token_list_push(out, t->unknown))
            return false;
    }
    word_begin(w);
    return true;
}

/* CJK ideographs, as the models' authors list them; one block begins 0x100 later than Unicode's, as the library does that everybody uses. */
static bool is_chinese(uint32_t code)
{
    return (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) ||
           (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f) ||
           (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) ||
           (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f);
}

/* Stands alone: all that is neither letter nor digit in ASCII counts as punctuation. */
static bool stands_alone(uint32_t code)
{
    bool ascii = (code > ' ' && code < '0') || (code > '9' && code < 'A') || (code > 'Z' && code < 'a') ||
                 (code > 'z' && code < 0x7f);
    return ascii || is_chinese(code) || unicode_is_punctuation(code);
}

/* One letter of the folded text. */
static bool take(const struct tokenizer *t, struct word *w, uint32_t code, struct token_list *out)
{
    bool alone = stands_alone(code);
    if (alone && !word_end(t, w, out))
        return false;
    word_add(w, code);
    return !alone || word_end(t, w, out);
}

/* What is no character, and what nobody sees, is left out. A character that is alone is so before it is folded, too. */
static bool encode_character(const struct tokenizer *t, struct word *w, uint32_t code, struct token_list *out)
{
    uint32_t folded[UNICODE_FOLD_MOST];
    if (unicode_is_blank(code))
        return word_end(t, w, out);
    if (code == 0 || code == 0xfffd || unicode_is_control(code))
        return true;
    bool chinese = is_chinese(code), good = !chinese || word_end(t, w, out);
    size_t count = unicode_fold(code, folded);
    for (size_t i = 0; i < count && good; i++)
        good = take(t, w, folded[i], out);
    return good && (!chinese || word_end(t, w, out));
}

enum err tokenizer_wordpiece_encode(const struct tokenizer *t, const char *text, size_t length, struct token_list *out,
                                    struct why *why)
{
    struct word word;
    bool good = true;
    word_begin(&word);
    for (size_t at = 0; at < length && good;) {
        struct utf8_step step = utf8_step(text + at, length - at);
        good = encode_character(t, &word, step.code, out);
        at += step.bytes;
    }
    good = good && word_end(t, &word, out);
    return good ? OK : because(why, ERR_NOMEM, "no memory to tokenize a text of %zu bytes", length);
}
