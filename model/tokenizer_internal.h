/*
 * tokenizer_internal: what the kinds of tokenizer share. For model/tokenizer*.c only.
 *
 * The vocabulary is read, checked and copied once by tokenizer.c; a kind adds its tables in its _load and reads all of
 * it in its _encode, which gets text that holds no special token any more.
 */
#ifndef QUIRE_MODEL_TOKENIZER_INTERNAL_H
#define QUIRE_MODEL_TOKENIZER_INTERNAL_H

#include "model/merger.h"
#include "model/pretokenizer.h"
#include "model/special_tokens.h"
#include "model/token_map.h"
#include "model/tokenizer.h"

/* tokenizer.ggml.token_type */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

enum tokenizer_kind { KIND_BPE, KIND_SPM, KIND_WORDPIECE };

struct tokenizer {
    enum tokenizer_kind kind;
    uint32_t count;            /* tokens */
    char *bytes;               /* all spellings, then all pieces */
    struct token_text *texts;  /* (count) as the vocabulary spells them */
    struct token_text *pieces; /* (count) as a text has them */
    uint8_t *types;            /* (count) enum token_type */
    size_t longest_text, longest_piece;

    struct text_map by_text;            /* without control tokens and the unknown token: what plain text may become */
    struct special_tokens user_defined; /* recognised in every text */
    struct special_tokens specials;     /* these, control tokens and the unknown token */
    uint32_t byte_tokens[256];          /* TOKEN_NONE: the vocabulary has none */

    uint32_t bos, eos, eot, pad, unknown; /* TOKEN_NONE: none */
    bool adds_bos, adds_eos, adds_space;
    bool strips_after_special; /* blanks behind a special token belong to it (Phi-3) */
    uint32_t *ends;            /* ascending */
    size_t end_count;

    struct pretokenizer *pretokenizer; /* KIND_BPE */
    struct merge_map merges;           /* KIND_BPE */
    float *scores;                     /* KIND_SPM: (count), the larger the earlier */
    bool words_are_apart;              /* KIND_SPM: no token has a blank behind something else */
};

/* What one call of encode needs beside the tokenizer. Zeroed before first use. */
struct encoding {
    struct merger merger;
    struct word_list words;
    char *text; /* a kind's own form of the text */
    size_t text_room;
};

void encoding_fini(struct encoding *e);
/* At least `bytes` bytes at e->text, what was there is lost; false: no memory. */
bool encoding_make_room(struct encoding *e, size_t bytes);

enum err tokenizer_bpe_load(struct tokenizer *t, const struct gguf *g, struct why *why);
/* The piece of a normal token: its spelling read back through the byte alphabet. `out` has spelling.length bytes. */
size_t tokenizer_bpe_piece(struct token_text spelling, char *out);
enum err tokenizer_bpe_encode(const struct tokenizer *t, struct encoding *e, const char *text, size_t length,
                              struct token_list *out, struct why *why);

enum err tokenizer_spm_load(struct tokenizer *t, const struct gguf *g, struct why *why);
size_t tokenizer_spm_piece(struct token_text spelling, bool byte_token, char *out);
enum err tokenizer_spm_encode(const struct tokenizer *t, struct encoding *e, const char *text, size_t length,
                              struct token_list *out, struct why *why);

enum err tokenizer_wordpiece_load(struct tokenizer *t, const struct gguf *g, struct why *why);
enum err tokenizer_wordpiece_encode(const struct tokenizer *t, const char *text, size_t length, struct token_list *out,
                                    struct why *why);

#endif
