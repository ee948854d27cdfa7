/*
 * safetensors: reads a safetensors file over a private read-only mapping, and the files of a sharded checkpoint as one.
 *
 * Refused with the tensor's name: offsets outside the file or in the wrong order, overlaps, bytes that no tensor names, a shape that
 * does not give the size, a name that stands twice, unknown element types. What is handed out points into the mapping and stays good
 * until the close. Format: https://github.com/huggingface/safetensors#format
 */
#ifndef QUIRE_MODEL_SAFETENSORS_H
#define QUIRE_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/tensor_type.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

struct safetensors; /* opaque: one file, or several */

struct safetensors_tensor {
    const char *name;      /* terminated; no byte of it is 0 */
    const char *type_name; /* "F32" */
    bool is_float;         /* F32, F16 or BF16, which is in `type` */
    enum tensor_type type;
    uint32_t dims;                         /* 0: one number */
    uint64_t extent[SAFETENSORS_MAX_DIMS]; /* extent[dims - 1] is the innermost; unused ones are 1 */
    const uint8_t *data;                   /* perhaps not aligned */
    uint64_t bytes;
};

/* One file. */
enum err safetensors_open(struct safetensors **out, const char *path, struct why *why);
/* The same over bytes in memory that the caller keeps alive (fuzzing, tests). `name` is for messages. */
enum err safetensors_open_memory(struct safetensors **out, const void *bytes, size_t length, const char *name,
                                 struct why *why);
/*
 * model.safetensors of a directory, or else the files that model.safetensors.index.json names: each must be there, and hold exactly the
 * tensors that the index says it does.
 */
enum err safetensors_open_directory(struct safetensors **out, const char *directory, struct why *why);
void safetensors_close(struct safetensors *s);

/* Sorted by name. */
uint32_t safetensors_count(const struct safetensors *s);
const struct safetensors_tensor *safetensors_at(const struct safetensors *s, uint32_t index);
const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name); /* NULL: none */

/* Of the headers, the lengths and a little of each tensor; of all files together. */
uint64_t safetensors_hash(const struct safetensors *s);
uint64_t safetensors_file_bytes(const struct safetensors *s);

#endif
