/*
 * gguf: reads a GGUF file, version 2 or 3, little-endian, over a private read-only mapping, or what looks like one (gguf_open_view).
 *
 * Every offset, count, length and product of the file is checked before it is used; what it hands out points into the
 * mapping and stays good until gguf_close. Duplicate keys and tensors, tensors that overlap the header, one another or
 * the end of the file, unknown value types and impossible alignments are refused with the key's or tensor's name.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
#ifndef QUIRE_MODEL_GGUF_H
#define QUIRE_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/tensor_type.h"

struct gguf; /* opaque */

enum gguf_value_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

/* A string of the file: not terminated, may hold any byte. */
struct gguf_string {
    const char *at;
    size_t length;
};

struct tensor_source; /* tensor_rows.h */

struct gguf_tensor {
    struct gguf_string name;
    enum tensor_type type;
    uint32_t dims;
    uint64_t extent[4];                 /* extent[0] is the row length (columns, innermost); unused ones are 1 */
    const uint8_t *data;                /* NULL: the rows are made from `source`, see tensor_rows.h */
    const struct tensor_source *source; /* NULL: they stand at `data` */
    uint64_t bytes;
};

/* Opens and checks the whole header. A file without tensors (vocabulary only) is good. The caller closes. */
enum err gguf_open(struct gguf **out, const char *path, struct why *why);
/* The same over bytes in memory that the caller keeps alive (fuzzing, tests). `name` is for messages. */
enum err gguf_open_memory(struct gguf **out, const void *bytes, size_t length, const char *name, struct why *why);

/*
 * A GGUF file that exists in part: its header is bytes in memory, its tensors' rows stand or are made elsewhere, one source for each
 * tensor of the header in its order. All stays the caller's until `close`, which gguf_close calls (and a refused open does not).
 */
struct gguf_view {
    const void *header;
    size_t length;
    const struct tensor_source *sources;
    uint64_t hash, file_bytes; /* what gguf_hash and gguf_file_bytes say */
    void *owner;
    void (*close)(void *owner);
};
enum err gguf_open_view(struct gguf **out, const struct gguf_view *view, const char *name, struct why *why);

void gguf_close(struct gguf *g);

/* A hash of the header (metadata and tensor table) and of the file's length; says whether two files are the same model. */
uint64_t gguf_hash(const struct gguf *g);
uint64_t gguf_file_bytes(const struct gguf *g);

bool gguf_has(const struct gguf *g, const char *key);
bool gguf_is_array(const struct gguf *g, const char *key);
/*
 * Typed getters. An absent key gives OK and leaves *out untouched when `required` is false, else ERR_FORMAT naming the key;
 * a value of another type, or one that does not fit, is ERR_FORMAT naming key and type. Integer getters take every integer type.
 */
enum err gguf_get_u32(const struct gguf *g, const char *key, bool required, uint32_t *out, struct why *why);
enum err gguf_get_f32(const struct gguf *g, const char *key, bool required, float *out, struct why *why);
enum err gguf_get_bool(const struct gguf *g, const char *key, bool required, bool *out, struct why *why);
enum err gguf_get_string(const struct gguf *g, const char *key, bool required, struct gguf_string *out,
                         struct why *why);

/* Arrays. count is 0 and OK when the key is absent and not required. */
enum err gguf_get_strings(const struct gguf *g, const char *key, bool required, const struct gguf_string **out,
                          uint64_t *count, struct why *why);
/* Elements of exactly this type, in the file's byte order, perhaps not aligned: read with memcpy. */
enum err gguf_get_array(const struct gguf *g, const char *key, bool required, enum gguf_value_type element,
                        const uint8_t **out, uint64_t *count, struct why *why);

/* A key as it stands in the header, for whoever writes another: its name, its type, and the bytes behind the type. */
struct gguf_key {
    struct gguf_string name;
    enum gguf_value_type type;
    const uint8_t *value;
    size_t bytes;
};
uint32_t gguf_key_count(const struct gguf *g);
struct gguf_key gguf_key_at(const struct gguf *g, uint32_t index);

uint32_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint32_t index);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name); /* NULL: there is none */

#endif
