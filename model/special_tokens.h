/*
 * special_tokens: finds tokens that stand in a text under their own name, such as "<|im_end|>". Sorted spellings behind
 * an index of first bytes: most bytes of a text are passed with one look, a candidate is narrowed byte by byte.
 * A spelling has at most SPECIAL_MAX_BYTES, so that a search is linear in the text.
 */
#ifndef QUIRE_MODEL_SPECIAL_TOKENS_H
#define QUIRE_MODEL_SPECIAL_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/token_map.h"

enum { SPECIAL_MAX_BYTES = 256 };

struct special_token {
    struct token_text text; /* 1 to SPECIAL_MAX_BYTES bytes, owned by the vocabulary */
    uint32_t id;
};

/* Zeroed: finds nothing. */
struct special_tokens {
    struct special_token *sorted; /* by bytes, then by descending id */
    size_t count;
    uint32_t first[257]; /* those that begin with byte b stand at [first[b], first[b + 1]) */
};

/* Takes over `tokens` (malloc'ed) and sorts them. */
void special_tokens_init(struct special_tokens *s, struct special_token *tokens, size_t count);
void special_tokens_fini(struct special_tokens *s);

/* The first place at or after `from` where one begins, and the longest there; NULL: none. */
const struct special_token *special_tokens_find(const struct special_tokens *s, const char *text, size_t length,
                                                size_t from, size_t *at);

#endif
