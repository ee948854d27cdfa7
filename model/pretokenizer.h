/*
 * pretokenizer: cuts text into the words within which byte-level BPE merges, by the regular expressions of the model's
 * authors. Made for the names that GGUF files carry in tokenizer.ggml.pre.
 *
 * The patterns are applied in order; each cuts every word that the one before left, into its matches and what lies
 * between them. Nothing is dropped: the words, put together, are the text.
 *
 * Text may be any bytes. One that is not part of valid UTF-8 is classified like U+001A (a control character: neither
 * letter, number, space nor punctuation), and a word never ends within a valid character.
 *
 * An open pretokenizer never changes; several threads may split with it at once.
 */
#ifndef QUIRE_MODEL_PRETOKENIZER_H
#define QUIRE_MODEL_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pretokenizer; /* opaque */

/* Words by where they end, ascending; the last one ends with the text. Zeroed before first use; kept for reuse. */
struct word_list {
    uint32_t *ends;
    size_t count, capacity;
};

void word_list_fini(struct word_list *words);

/* ERR_UNSUPPORTED names a pre-tokenizer that is not known: its text would be cut wrong and nobody would notice. */
enum err pretokenizer_open(struct pretokenizer **out, const char *name, size_t name_length, struct why *why);
void pretokenizer_close(struct pretokenizer *p);

/* What parts of a tokenizer.json that bring no expression of their own cut by: ByteLevel's, and Punctuation's where it takes runs. */
#define PRETOKENIZER_BYTE_LEVEL "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PRETOKENIZER_PUNCTUATION "[\\p{P}\\$\\+<=>\\^~\\|`]+"

/*
 * The name of a pre-tokenizer that applies these regular expressions, spelt as in the models' tokenizer.json, one after the other, and keeps
 * whole words or not. A character may stand as itself or as \r, \n or \x{...}. NULL: none that is known.
 */
const char *pretokenizer_name(const char *const *patterns, size_t count, bool keeps_whole_words);

/* The model's tokenizer takes a word that is a token as that token, whatever the merges say. */
bool pretokenizer_keeps_whole_words(const struct pretokenizer *p);
/* Models of this family want a begin token where their file does not say. */
bool pretokenizer_adds_bos(const struct pretokenizer *p);

/* Replaces what is in `words`. Text below 2^32 bytes. */
enum err pretokenizer_split(const struct pretokenizer *p, const char *text, size_t length, struct word_list *words,
                            struct why *why);

#endif
