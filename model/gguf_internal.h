/* gguf_internal: what an open GGUF file is to those who read it (gguf.c) and to those who look values up (gguf_values.c). */
#ifndef QUIRE_MODEL_GGUF_INTERNAL_H
#define QUIRE_MODEL_GGUF_INTERNAL_H

#include <string.h>

#include "model/gguf.h"
#include "model/mapped_file.h"
#include "model/shown.h"

struct key {
    struct gguf_string name;
    const uint8_t *begin; /* what follows the type; up to end */
    const uint8_t *end;
    uint32_t type;                     /* enum gguf_value_type */
    uint32_t element;                  /* of the elements of an array */
    uint64_t count;                    /* elements of an array */
    const uint8_t *value;              /* scalars and arrays of scalars */
    struct gguf_string string;         /* GGUF_STRING */
    const struct gguf_string *strings; /* arrays of strings */
};

struct gguf {
    const uint8_t *bytes;
    size_t length;
    struct mapped_file file;             /* where the bytes are one */
    const struct tensor_source *sources; /* not NULL: tensors lie elsewhere, see gguf_open_view */
    void *owner;
    void (*close_owner)(void *owner);
    char name[SHOWN_BYTES];
    uint32_t alignment;
    uint64_t data_start; /* tensor offsets count from here */
    uint64_t hash, file_bytes;
    struct key *keys; /* sorted by name */
    uint32_t key_count;
    struct gguf_tensor *tensors; /* in the file's order */
    uint32_t tensor_count;
    uint32_t *by_name; /* tensor indices, sorted by name */
};

/* By enum gguf_value_type; bytes 0: no scalar. */
struct gguf_value_traits {
    const char *name;
    uint32_t bytes;
};
enum { GGUF_VALUE_TYPES = GGUF_F64 + 1 };
extern const struct gguf_value_traits gguf_value_traits[GGUF_VALUE_TYPES];

static inline struct shown shown(struct gguf_string s)
{
    return shown_bytes(s.at, s.length);
}

static inline struct gguf_string string_of(const char *text)
{
    return (struct gguf_string){.at = text, .length = strlen(text)};
}

/* Shorter first, then by bytes: any total order does. */
static inline int compare_names(struct gguf_string a, struct gguf_string b)
{
    if (a.length != b.length)
        return a.length < b.length ? -1 : 1;
    return a.length ? memcmp(a.at, b.at, a.length) : 0;
}

static inline int compare_keys(const void *a, const void *b)
{
    return compare_names(((const struct key *)a)->name, ((const struct key *)b)->name);
}

#endif
