/*
 * gguf_header: writes the header of a GGUF file, version 3, into memory: keys, then tensors, in any order of calls.
 *
 * Memory that runs out is remembered and said once, by gguf_header_finish. Keys must differ, tensors too: gguf_open_view checks what
 * is made here like any file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
#ifndef QUIRE_MODEL_GGUF_HEADER_H
#define QUIRE_MODEL_GGUF_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

enum { GGUF_ALIGNMENT = 32 }; /* of tensors; what readers take when no key says otherwise */

struct byte_list {
    uint8_t *bytes;
    size_t length, capacity;
};

/* Zeroed before first use; the owner calls gguf_header_fini. */
struct gguf_header {
    struct byte_list keys, tensors;
    uint64_t key_count, tensor_count;
    uint64_t data_bytes; /* of the tensors so far, each padded to GGUF_ALIGNMENT */
    bool failed;
};

void gguf_header_fini(struct gguf_header *h);

void gguf_header_u32(struct gguf_header *h, const char *key, uint32_t value);
void gguf_header_f32(struct gguf_header *h, const char *key, float value);
void gguf_header_bool(struct gguf_header *h, const char *key, bool value);
void gguf_header_string(struct gguf_header *h, const char *key, const char *at, size_t length);
/* A key with the bytes that follow its type in a file. */
void gguf_header_copy(struct gguf_header *h, const struct gguf_key *key);

/* An array: this, then `count` elements of that type. */
void gguf_header_array(struct gguf_header *h, const char *key, enum gguf_value_type element, uint64_t count);
void gguf_header_element(struct gguf_header *h, const void *value, size_t bytes);
void gguf_header_element_string(struct gguf_header *h, const char *at, size_t length);

/* Gives the tensor its place: behind the one before. bytes: of all its rows. */
void gguf_header_tensor(struct gguf_header *h, struct gguf_string name, uint32_t dims, const uint64_t extent[4],
                        enum tensor_type type, uint64_t bytes);

/* The whole header up to the first tensor's first byte: malloc'ed, the caller frees it. */
enum err gguf_header_finish(const struct gguf_header *h, uint8_t **out, size_t *length, struct why *why);

#endif
