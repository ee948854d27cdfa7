/* vectors: finds test vectors and vocabularies: $QUIRE_FIXTURES/FILE, or fixtures beside the repository. */
#ifndef QUIRE_TESTS_VECTORS_H
#define QUIRE_TESTS_VECTORS_H

#include <jansson.h>
#include <stddef.h>

#include "model/gguf.h"
#include "model/tokenizer.h"

/* Each skips the running test, with a message, when the file is not there; whatever else is wrong fails it. */
void vectors_path(const char *file, char path[512]);
json_t *vectors_json(const char *file);                /* the caller owns a reference */
char *vectors_text(const char *file, size_t *length);  /* malloc'ed */
struct tokenizer *vectors_tokenizer(const char *file); /* of a GGUF file; "models/…" stands in the repository */

/* Encodes or fails; the caller calls token_list_fini. */
struct token_list vectors_encode(const struct tokenizer *t, const char *text, size_t length, bool special);

/* All strings of tokenizers/ggml-vocab-NAME.gguf.inp give the ids of .out. */
void vectors_check_vocabulary(const char *name);
/* All items of a random-*.json give their ids, read as plain text and with special tokens. */
void vectors_check_random(const char *model, const char *file);
/* Random bytes, encoded and put together again, are the same behind `in_front` bytes of the tokenizer's own. */
void vectors_check_any_bytes_come_back(const char *model, size_t in_front);
/* A mebibyte of one character is encoded in time. */
void vectors_check_long_runs(const char *model);

#endif
