/*
 * token_map: the two hash tables of a tokenizer. Both are filled once and then only read; open addressing, at most half
 * full. The hashes are keyed at random, so that no vocabulary can be made to collide.
 */
#ifndef QUIRE_MODEL_TOKEN_MAP_H
#define QUIRE_MODEL_TOKEN_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a text that somebody else owns. */
struct token_text {
    const char *at;
    size_t length;
};

/* Spelling to id. The texts are the caller's and stay where they are. */
struct text_map {
    const struct token_text *texts; /* by id */
    uint32_t *slots;                /* id + 1, 0: empty */
    size_t mask;
    uint64_t key;
};

bool text_map_init(struct text_map *map, const struct token_text *texts, size_t count); /* false: no memory */
void text_map_fini(struct text_map *map);
/* Of two ids with one spelling the later one stays. */
void text_map_put(struct text_map *map, uint32_t id);
/* TOKEN_NONE: none. */
uint32_t text_map_find(const struct text_map *map, const char *text, size_t length);

/* A merge: what two tokens that stand together become, and how early. */
struct merge {
    uint32_t left, right;
    uint32_t rank; /* the smallest goes first */
    uint32_t id;
};

struct merge_map {
    struct merge *slots; /* id TOKEN_NONE: empty */
    size_t mask;
    uint64_t key;
};

bool merge_map_init(struct merge_map *map, size_t count); /* false: no memory */
void merge_map_fini(struct merge_map *map);
/* Of two merges of one pair the first one stays. */
void merge_map_put(struct merge_map *map, struct merge merge);
const struct merge *merge_map_find(const struct merge_map *map, uint32_t left, uint32_t right); /* NULL: none */

#endif
