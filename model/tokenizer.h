/*
 * tokenizer: text to token ids and back, as the model's authors' tokenizer does it, out of the keys tokenizer.ggml.* of
 * a GGUF file. Kinds: "gpt2" (byte-level BPE behind a pre-tokenizer), "llama" (SentencePiece-style merging by score,
 * with byte fallback) and "bert" (WordPiece, uncased). Others are refused by name.
 *
 * An open tokenizer never changes and keeps no pointer into the GGUF file; any number of threads may use it at once.
 * What an encoding needs beside it lives as long as the call.
 *
 * Text may be any bytes, U+0000 and invalid UTF-8 among them: byte-level BPE encodes them byte by byte, "llama" by its
 * byte tokens. A byte for which a vocabulary has no token becomes nothing with "gpt2" (as everywhere in the field), the
 * unknown token with "llama". "bert" leaves out what is no UTF-8, and does not give a text back: it folds it.
 * Nothing is ever put before or behind a text here (but see tokenizer_adds_space); the caller asks tokenizer_adds_bos.
 *
 * Control tokens never come out of plain text, however it is spelt: only parse_special lets text name them.
 */
#ifndef QUIRE_MODEL_TOKENIZER_H
#define QUIRE_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

struct tokenizer; /* opaque */

#define TOKEN_NONE UINT32_MAX

/* Ids that grow at the end. Zeroed before first use; the owner calls token_list_fini. */
struct token_list {
    uint32_t *ids;
    size_t count, capacity;
};

bool token_list_push(struct token_list *list, uint32_t id); /* false: no memory, and the list as before */
void token_list_fini(struct token_list *list);

enum err tokenizer_open(struct tokenizer **out, const struct gguf *g, struct why *why);
void tokenizer_close(struct tokenizer *t);

/*
 * Appends the tokens of a text to `out`. User-defined tokens are recognised in every text, control tokens (and the
 * unknown token's name) only with parse_special; of several at one place the longest, from left to right.
 * Time is O(n log n) in the text's length, whatever the text. On an error `out` is as before.
 */
enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, bool parse_special,
                          struct token_list *out, struct why *why);

uint32_t tokenizer_vocab_size(const struct tokenizer *t);

/*
 * The bytes of a token within a text: not terminated, perhaps not whole characters, good until the tokenizer is closed.
 * Control tokens and the unknown token have none unless render_special. Caller gives an id below the vocabulary's size.
 */
const char *tokenizer_piece(const struct tokenizer *t, uint32_t id, bool render_special, size_t *length);
/* The longest piece of all. */
size_t tokenizer_longest_piece(const struct tokenizer *t);
/* The token as the vocabulary spells it, such as "<|im_end|>" (what /tokenizer_info shows). */
const char *tokenizer_token_text(const struct tokenizer *t, uint32_t id, size_t *length);
/* The control, user-defined or unknown token spelt like this, or TOKEN_NONE. */
uint32_t tokenizer_special(const struct tokenizer *t, const char *text, size_t length);

/* TOKEN_NONE where the model has none. */
uint32_t tokenizer_bos(const struct tokenizer *t);
uint32_t tokenizer_eos(const struct tokenizer *t);
uint32_t tokenizer_eot(const struct tokenizer *t);
uint32_t tokenizer_pad(const struct tokenizer *t);
uint32_t tokenizer_unknown(const struct tokenizer *t);

bool tokenizer_adds_bos(const struct tokenizer *t);
bool tokenizer_adds_eos(const struct tokenizer *t);
/* A space is put before a text (kind "llama"), so that its first word is spelt like one within it. */
bool tokenizer_adds_space(const struct tokenizer *t);

/* Ends a generation: eos, eot, eom and the control tokens that chat models end a turn with. */
bool tokenizer_is_end(const struct tokenizer *t, uint32_t id);
/* All of them, ascending. */
const uint32_t *tokenizer_end_tokens(const struct tokenizer *t, size_t *count);
/* A control token: never part of a text that a person wrote. */
bool tokenizer_is_control(const struct tokenizer *t, uint32_t id);

#endif
