/* gguf_header: see gguf_header.h. */
#include "model/gguf_header.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/must.h"

enum { VERSION = 3, PREAMBLE_BYTES = 24 };

static void append(struct gguf_header *h, struct byte_list *list, const void *bytes, size_t length)
{
    if (length > list->capacity - list->length) {
        size_t wanted = 2 * (list->capacity + length) + 256;
        uint8_t *more = realloc(list->bytes, wanted);
        if (!more) {
            h->failed = true;
            return;
        }
        list->bytes = more;
        list->capacity = wanted;
    }
    if (length > 0)
        memcpy(list->bytes + list->length, bytes, length);
    list->length += length;
}

static void append_u32(struct gguf_header *h, struct byte_list *list, uint32_t value)
{
    append(h, list, &value, sizeof value);
}

static void append_u64(struct gguf_header *h, struct byte_list *list, uint64_t value)
{
    append(h, list, &value, sizeof value);
}

static void append_string(struct gguf_header *h, struct byte_list *list, const char *at, size_t length)
{
    append_u64(h, list, length);
    append(h, list, at, length);
}

static void begin_key(struct gguf_header *h, const char *key, enum gguf_value_type type)
{
    append_string(h, &h->keys, key, strlen(key));
    append_u32(h, &h->keys, type);
    h->key_count++;
}

void gguf_header_fini(struct gguf_header *h)
{
    free(h->keys.bytes);
    free(h->tensors.bytes);
    *h = (struct gguf_header){0};
}

void gguf_header_u32(struct gguf_header *h, const char *key, uint32_t value)
{
    begin_key(h, key, GGUF_U32);
    append_u32(h, &h->keys, value);
}

void gguf_header_f32(struct gguf_header *h, const char *key, float value)
{
    begin_key(h, key, GGUF_F32);
    append(h, &h->keys, &value, sizeof value);
}

void gguf_header_bool(struct gguf_header *h, const char *key, bool value)
{
    begin_key(h, key, GGUF_BOOL);
    append(h, &h->keys, &(uint8_t){value}, 1);
}

void gguf_header_string(struct gguf_header *h, const char *key, const char *at, size_t length)
{
    begin_key(h, key, GGUF_STRING);
    append_string(h, &h->keys, at, length);
}

void gguf_header_copy(struct gguf_header *h, const struct gguf_key *key)
{
    append_string(h, &h->keys, key->name.at, key->name.length);
    append_u32(h, &h->keys, key->type);
    append(h, &h->keys, key->value, key->bytes);
    h->key_count++;
}

void gguf_header_array(struct gguf_header *h, const char *key, enum gguf_value_type element, uint64_t count)
{
    begin_key(h, key, GGUF_ARRAY);
    append_u32(h, &h->keys, element);
    append_u64(h, &h->keys, count);
}

void gguf_header_element(struct gguf_header *h, const void *value, size_t bytes)
{
    append(h, &h->keys, value, bytes);
}

void gguf_header_element_string(struct gguf_header *h, const char *at, size_t length)
{
    append_string(h, &h->keys, at, length);
}

void gguf_header_tensor(struct gguf_header *h, struct gguf_string name, uint32_t dims, const uint64_t extent[4],
                        enum tensor_type type, uint64_t bytes)
{
    append_string(h, &h->tensors, name.at, name.length);
    append_u32(h, &h->tensors, dims);
    for (uint32_t d = 0; d < dims; d++)
        append_u64(h, &h->tensors, extent[d]);
    append_u32(h, &h->tensors, type);
    append_u64(h, &h->tensors, h->data_bytes);
    h->tensor_count++;
    uint64_t padded;
    if (!checked_round_up(bytes, GGUF_ALIGNMENT, &padded) || !checked_add(h->data_bytes, padded, &h->data_bytes))
        must_not_reach(); /* tensors that lie in memory, and no more of them than 2^32 */
}

enum err gguf_header_finish(const struct gguf_header *h, uint8_t **out, size_t *length, struct why *why)
{
    uint64_t all = PREAMBLE_BYTES + (uint64_t)h->keys.length + h->tensors.length;
    all = (all + GGUF_ALIGNMENT - 1) & ~(uint64_t)(GGUF_ALIGNMENT - 1);
    uint8_t *bytes = h->failed ? NULL : calloc(1, all);
    if (!bytes)
        return because(why, ERR_NOMEM, "no memory for the header of a model of %llu keys and %llu tensors",
                       (unsigned long long)h->key_count, (unsigned long long)h->tensor_count);
    const uint32_t version = VERSION;
    memcpy(bytes, "GGUF", 4);
    memcpy(bytes + 4, &version, sizeof version);
    memcpy(bytes + 8, &h->tensor_count, sizeof h->tensor_count);
    memcpy(bytes + 16, &h->key_count, sizeof h->key_count);
    if (h->keys.length)
        memcpy(bytes + PREAMBLE_BYTES, h->keys.bytes, h->keys.length);
    if (h->tensors.length)
        memcpy(bytes + PREAMBLE_BYTES + h->keys.length, h->tensors.bytes, h->tensors.length);
    *out = bytes;
    *length = all;
    return OK;
}
