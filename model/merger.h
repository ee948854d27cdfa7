/*
 * merger: joins neighbouring symbols of one word, best pair first, the leftmost of equals, until no rule joins any
 * more. The algorithm of byte-pair encoding (Sennrich, Haddow, Birch, https://arxiv.org/abs/1508.07909) and of
 * SentencePiece's BPE alike; what differs is the rule. A linked list under a heap: O(n log n), no recursion.
 *
 * A private scratch: kept from word to word, used by one thread.
 */
#ifndef QUIRE_MODEL_MERGER_H
#define QUIRE_MODEL_MERGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYMBOL_NONE UINT32_MAX

struct symbol {
    uint32_t start, bytes;   /* in the word; bytes 0: joined into its left neighbour */
    uint32_t previous, next; /* SYMBOL_NONE at the ends */
    uint32_t id;             /* of the token that this is, or TOKEN_NONE */
};

struct candidate {
    uint64_t order; /* the rule's order, then the place of the left symbol */
    uint32_t bytes; /* of both symbols; differs when one of them has grown since */
    uint32_t id;
};

/* Zeroed before first use. */
struct merger {
    struct symbol *symbols;
    struct candidate *heap;
    size_t count, capacity; /* symbols */
    size_t heap_count, heap_capacity;
};

/* Says whether two neighbours join, how early (the smallest order first), and into which token. */
typedef bool (*merge_rule)(const void *context, const struct symbol *left, const struct symbol *right, uint32_t *order,
                           uint32_t *id);

void merger_fini(struct merger *m);
/* Begins a word. */
void merger_begin(struct merger *m);
/* Appends a symbol of at least one byte to the word; false: no memory. */
bool merger_add(struct merger *m, uint32_t start, uint32_t bytes, uint32_t id);
/* Joins; after it the word is the list from symbols[0] on by `next`. false: no memory. */
bool merger_run(struct merger *m, merge_rule rule, const void *context);

#endif
