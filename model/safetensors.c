/*
 * safetensors: see safetensors.h. Each file is checked whole before its tensors are added to the list that all files share; a list that
 * is sorted by name finds tensors and shows duplicates as neighbours.
 */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cursor.h"
#include "base/must.h"
#include "model/fnv.h"
#include "model/mapped_file.h"
#include "model/shown.h"

enum {
    MAX_HEADER_BYTES = 100 << 20, /* the format's own limit */
    MAX_TENSORS = 65536,
    MAX_FILES = 1024,
};

struct shard {
    struct mapped_file file; /* bytes NULL: the caller's memory */
    char *name;              /* within its directory */
    json_t *header;          /* owns the tensors' names */
};

struct safetensors {
    struct shard *shards;
    uint32_t shard_count;
    struct safetensors_tensor *tensors;
    uint32_t count;
    uint64_t hash, file_bytes;
};

static const struct element_type {
    const char *name;
    uint32_t bytes;
    bool is_float;
    enum tensor_type type;
} element_types[] = {
    {"F32", 4, true, TENSOR_F32},  {"F16", 2, true, TENSOR_F16}, {"BF16", 2, true, TENSOR_BF16},
    {"F64", 8, false, TENSOR_F64}, {"I64", 8, false, 0},         {"U64", 8, false, 0},
    {"I32", 4, false, 0},          {"U32", 4, false, 0},         {"I16", 2, false, 0},
    {"U16", 2, false, 0},          {"I8", 1, false, 0},          {"U8", 1, false, 0},
    {"BOOL", 1, false, 0},         {"F8_E4M3", 1, false, 0},     {"F8_E5M2", 1, false, 0},
};

static struct shown shown(const char *name)
{
    return shown_bytes(name, strlen(name));
}

/* ---- one file ---- */

struct reading {
    const char *name; /* of the file, for messages */
    const uint8_t *data;
    uint64_t data_bytes;
    struct why *why;
};

/* A whole number that is not negative. */
static bool as_count(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static enum err read_type(const struct reading *r, const json_t *entry, struct safetensors_tensor *t, uint64_t *size)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return because(r->why, ERR_FORMAT, "\"%s\": tensor \"%s\" says no dtype", r->name, shown(t->name).text);
    for (size_t i = 0; i < sizeof element_types / sizeof *element_types; i++)
        if (strcmp(dtype, element_types[i].name) == 0) {
            t->type_name = element_types[i].name;
            t->is_float = element_types[i].is_float;
            t->type = element_types[i].type;
            *size = element_types[i].bytes;
            return OK;
        }
    return because(r->why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" has the unknown dtype \"%s\"", r->name,
                   shown(t->name).text, shown(dtype).text);
}

/* *bytes begins as the size of one element and ends as that of the tensor. */
static enum err read_shape(const struct reading *r, const json_t *entry, struct safetensors_tensor *t, uint64_t *bytes)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return because(r->why, ERR_FORMAT, "\"%s\": tensor \"%s\" has no shape of up to %d sides", r->name,
                       shown(t->name).text, SAFETENSORS_MAX_DIMS);
    t->dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < SAFETENSORS_MAX_DIMS; d++) {
        t->extent[d] = 1;
        if (d < t->dims &&
            (!as_count(json_array_get(shape, d), &t->extent[d]) || !checked_mul(*bytes, t->extent[d], bytes)))
            return because(r->why, ERR_FORMAT, "\"%s\": tensor \"%s\" has an impossible shape", r->name,
                           shown(t->name).text);
    }
    return OK;
}

static enum err read_place(const struct reading *r, const json_t *entry, struct safetensors_tensor *t)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (json_array_size(offsets) != 2 || !as_count(json_array_get(offsets, 0), &begin) ||
        !as_count(json_array_get(offsets, 1), &end))
        return because(r->why, ERR_FORMAT, "\"%s\": tensor \"%s\" has no two data_offsets", r->name,
                       shown(t->name).text);
    if (begin > end || end > r->data_bytes)
        return because(
            r->why, ERR_FORMAT,
            "\"%s\": tensor \"%s\" lies from byte %llu to %llu of %llu: the file is cut off or damaged, get it again",
            r->name, shown(t->name).text, (unsigned long long)begin, (unsigned long long)end,
            (unsigned long long)r->data_bytes);
    if (end - begin != t->bytes)
        return because(r->why, ERR_FORMAT,
                       "\"%s\": tensor \"%s\" has %llu bytes between its offsets, but %llu by its shape and dtype",
                       r->name, shown(t->name).text, (unsigned long long)(end - begin), (unsigned long long)t->bytes);
    t->data = r->data + begin;
    return OK;
}

static enum err read_tensor(const struct reading *r, const char *name, const json_t *entry,
                            struct safetensors_tensor *t)
{
    *t = (struct safetensors_tensor){.name = name};
    if (!json_is_object(entry) || !*name)
        return because(r->why, ERR_FORMAT, "\"%s\": tensor \"%s\" is not described by an object", r->name,
                       shown(name).text);
    enum err err = read_type(r, entry, t, &t->bytes);
    if (err == OK)
        err = read_shape(r, entry, t, &t->bytes);
    return err == OK ? read_place(r, entry, t) : err;
}

/* Empty tensors stand before what begins at the same byte. */
static int compare_places(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Every byte belongs to exactly one tensor. */
static enum err check_cover(const struct reading *r, struct safetensors_tensor *tensors, uint32_t count)
{
    if (count > 0)
        qsort(tensors, count, sizeof *tensors, compare_places);
    uint64_t end = 0;
    for (uint32_t i = 1; i < count; i++)
        if (tensors[i].data < tensors[i - 1].data + tensors[i - 1].bytes)
            return because(r->why, ERR_FORMAT, "\"%s\": tensors \"%s\" and \"%s\" overlap", r->name,
                           shown(tensors[i - 1].name).text, shown(tensors[i].name).text);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t begin = (uint64_t)(tensors[i].data - r->data);
        if (begin != end) /* after it: nothing overlaps */
            return because(r->why, ERR_FORMAT, "\"%s\": %llu bytes before tensor \"%s\" belong to no tensor", r->name,
                           (unsigned long long)(begin - end), shown(tensors[i].name).text);
        end = begin + tensors[i].bytes;
    }
    if (end != r->data_bytes)
        return because(r->why, ERR_FORMAT, "\"%s\": its last %llu bytes belong to no tensor", r->name,
                       (unsigned long long)(r->data_bytes - end));
    return OK;
}

/* The JSON text at the start of the file; leaves r->data behind it. */
static enum err read_header(struct reading *r, const uint8_t *bytes, size_t length, json_t **header)
{
    struct cursor c = cursor_over(bytes, length);
    uint64_t header_bytes = cursor_u64(&c);
    if (c.bad)
        return because(r->why, ERR_FORMAT, "\"%s\" has %zu bytes, too few for a safetensors file", r->name, length);
    if (header_bytes > MAX_HEADER_BYTES)
        return because(r->why, ERR_FORMAT, "\"%s\" claims a header of %llu bytes; %d are the limit of safetensors",
                       r->name, (unsigned long long)header_bytes, MAX_HEADER_BYTES);
    const uint8_t *text = cursor_take(&c, header_bytes);
    if (!text)
        return because(r->why, ERR_FORMAT,
                       "\"%s\" claims a header of %llu bytes, but has only %zu: it is cut off or no safetensors file",
                       r->name, (unsigned long long)header_bytes, length);
    json_error_t error;
    *header = json_loadb((const char *)text, header_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(*header))
        return because(r->why, ERR_FORMAT, "\"%s\": its header is no JSON object: %s", r->name,
                       *header ? "it is something else" : error.text);
    if (json_object_size(*header) > MAX_TENSORS)
        return because(r->why, ERR_FORMAT, "\"%s\" claims %zu tensors; %d are the limit", r->name,
                       json_object_size(*header), MAX_TENSORS);
    r->data = bytes + c.at;
    r->data_bytes = length - c.at;
    return OK;
}

/* Appends the tensors of one file, whose header the shard keeps. */
static enum err add_file(struct safetensors *s, struct shard *shard, const uint8_t *bytes, size_t length,
                         const char *name, struct why *why)
{
    struct reading r = {.name = name, .why = why};
    enum err err = read_header(&r, bytes, length, &shard->header);
    if (err != OK)
        return err;
    size_t room = s->count + json_object_size(shard->header) + 1;
    struct safetensors_tensor *tensors = realloc(s->tensors, room * sizeof *tensors);
    if (!tensors)
        return because(why, ERR_NOMEM, "\"%s\": no memory for its tensors", name);
    s->tensors = tensors;
    uint32_t first = s->count;
    const char *key;
    json_t *entry;
    json_object_foreach (shard->header, key, entry) {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        err = read_tensor(&r, key, entry, &s->tensors[s->count]);
        if (err != OK)
            return err;
        s->count++;
    }
    err = check_cover(&r, s->tensors + first, s->count - first);
    if (err != OK)
        return err;
    uint64_t total = length;
    s->hash = fnv_bytes(s->hash, bytes, length - (size_t)r.data_bytes);
    s->hash = fnv_bytes(s->hash, &total, sizeof total);
    for (uint32_t i = first; i < s->count; i++)
        s->hash = fnv_middle(s->hash, s->tensors[i].data, s->tensors[i].bytes);
    s->file_bytes += length;
    return OK;
}

/* ---- all files ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_tensor *)a)->name, ((const struct safetensors_tensor *)b)->name);
}

static enum err index_names(struct safetensors *s, const char *name, struct why *why)
{
    if (s->count > 0)
        qsort(s->tensors, s->count, sizeof *s->tensors, compare_names);
    for (uint32_t i = 1; i < s->count; i++)
        if (compare_names(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" stands in two files", name,
                           shown(s->tensors[i].name).text);
    return OK;
}

static struct safetensors *new_list(uint32_t shards)
{
    struct safetensors *s = calloc(1, sizeof *s);
    if (s)
        s->shards = calloc(shards, sizeof *s->shards);
    if (!s || !s->shards) {
        free(s);
        return NULL;
    }
    s->hash = FNV_START;
    return s;
}

static enum err finish(struct safetensors **out, struct safetensors *s, enum err err, const char *name, struct why *why)
{
    if (err == OK)
        err = index_names(s, name, why);
    if (err == OK)
        *out = s;
    else
        safetensors_close(s);
    return err;
}

enum err safetensors_open_memory(struct safetensors **out, const void *bytes, size_t length, const char *name,
                                 struct why *why)
{
    struct safetensors *s = new_list(1);
    if (!s)
        return because(why, ERR_NOMEM, "no memory to open \"%s\"", name);
    s->shard_count = 1;
    return finish(out, s, add_file(s, &s->shards[0], bytes, length, name, why), name, why);
}

static enum err add_path(struct safetensors *s, const char *path, struct why *why)
{
    struct shard *shard = &s->shards[s->shard_count++];
    enum err err = mapped_file_open(&shard->file, path, "safetensors file", why);
    return err == OK ? add_file(s, shard, shard->file.bytes, shard->file.length, shown(path).text, why) : err;
}

enum err safetensors_open(struct safetensors **out, const char *path, struct why *why)
{
    struct safetensors *s = new_list(1);
    if (!s)
        return because(why, ERR_NOMEM, "no memory to open \"%s\"", path);
    return finish(out, s, add_path(s, path, why), path, why);
}

/* ---- the index of several files ---- */

/* A name of a file beside the index, and nothing that leads elsewhere. */
static bool is_file_name(const char *name)
{
    return name && *name && *name != '.' && !strchr(name, '/') && strlen(name) < 256;
}

static enum err add_named(struct safetensors *s, const char *directory, const char *name, struct why *why)
{
    char path[4096];
    for (uint32_t i = 0; i < s->shard_count; i++)
        if (strcmp(s->shards[i].name, name) == 0)
            return OK;
    if (s->shard_count == MAX_FILES)
        return because(why, ERR_UNSUPPORTED, "the index of \"%s\" names more than %d files", directory, MAX_FILES);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    struct shard *shard = &s->shards[s->shard_count];
    shard->name = strdup(name);
    if (!shard->name)
        return because(why, ERR_NOMEM, "no memory to open \"%s\"", path);
    struct why what;
    enum err err = add_path(s, path, &what);
    if (err == ERR_IO)
        return because(why, err, "the index names a file that cannot be read: %.400s", what.text);
    return err == OK ? OK : because(why, err, "%s", what.text);
}

/* The tensor must stand in that file and no other. */
static enum err check_named(const struct safetensors *s, const char *directory, const char *tensor, const char *file,
                            struct why *why)
{
    const struct safetensors_tensor *t = safetensors_find(s, tensor);
    for (uint32_t i = 0; t && i < s->shard_count; i++) {
        const struct shard *shard = &s->shards[i];
        if (strcmp(shard->name, file) == 0 && t->data >= shard->file.bytes &&
            t->data <= shard->file.bytes + shard->file.length)
            return OK;
    }
    return because(why, ERR_FORMAT, "\"%s\": the index says that \"%s\" holds tensor \"%s\", but it does not",
                   directory, shown(file).text, shown(tensor).text);
}

static enum err add_index(struct safetensors *s, const char *directory, const json_t *map, struct why *why)
{
    enum err err = OK;
    const char *tensor;
    json_t *file;
    json_object_foreach ((json_t *)(uintptr_t)map, tensor, file) {
        if (!is_file_name(json_string_value(file)))
            return because(why, ERR_FORMAT, "\"%s\": the index names no file of this directory for tensor \"%s\"",
                           directory, shown(tensor).text);
        err = add_named(s, directory, json_string_value(file), why);
        if (err != OK)
            return err;
    }
    err = index_names(s, directory, why);
    if (err != OK)
        return err;
    json_object_foreach ((json_t *)(uintptr_t)map, tensor, file) {
        err = check_named(s, directory, tensor, json_string_value(file), why);
        if (err != OK)
            return err;
    }
    for (uint32_t i = 0; i < s->count; i++)
        if (!json_object_get(map, s->tensors[i].name))
            return because(why, ERR_FORMAT, "\"%s\": its files hold tensor \"%s\", which the index does not name",
                           directory, shown(s->tensors[i].name).text);
    return OK;
}

static enum err open_index(struct safetensors **out, const char *directory, const char *path, struct why *why)
{
    struct mapped_file file;
    enum err err = mapped_file_open(&file, path, "index of tensors", why);
    if (err != OK)
        return because(why, err, "\"%s\" holds neither model.safetensors nor model.safetensors.index.json", directory);
    json_error_t error;
    json_t *index = json_loadb((const char *)file.bytes, file.length, JSON_REJECT_DUPLICATES, &error);
    mapped_file_close(&file);
    const json_t *map = json_object_get(index, "weight_map");
    struct safetensors *s = NULL;
    if (!json_is_object(map) || json_object_size(map) == 0)
        err = because(why, ERR_FORMAT, "\"%s\" has no \"weight_map\" of tensors and files%s%s", path, index ? "" : ": ",
                      index ? "" : error.text);
    else if (!(s = new_list(MAX_FILES)))
        err = because(why, ERR_NOMEM, "no memory to open \"%s\"", path);
    if (err == OK)
        err = finish(out, s, add_index(s, directory, map, why), directory, why);
    json_decref(index);
    return err;
}

enum err safetensors_open_directory(struct safetensors **out, const char *directory, struct why *why)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    struct mapped_file probe;
    enum err err = mapped_file_open(&probe, path, "safetensors file", why);
    mapped_file_close(&probe);
    if (err != ERR_IO)
        return err == OK ? safetensors_open(out, path, why) : err;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    return open_index(out, directory, path, why);
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->shard_count; i++) {
        json_decref(s->shards[i].header);
        mapped_file_close(&s->shards[i].file);
    }
    for (uint32_t i = 0; i < s->shard_count; i++)
        free(s->shards[i].name);
    free(s->shards);
    free(s->tensors);
    free(s);
}

uint32_t safetensors_count(const struct safetensors *s)
{
    return s->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *s, uint32_t index)
{
    must(index < s->count);
    return &s->tensors[index];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    const struct safetensors_tensor wanted = {.name = name};
    return s->count ? bsearch(&wanted, s->tensors, s->count, sizeof *s->tensors, compare_names) : NULL;
}

uint64_t safetensors_hash(const struct safetensors *s)
{
    return s->hash;
}

uint64_t safetensors_file_bytes(const struct safetensors *s)
{
    return s->file_bytes;
}
