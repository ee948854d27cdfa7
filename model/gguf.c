/*
 * gguf: see gguf.h. The file is taken apart once, in order, by a cursor that cannot leave it; after gguf_open every
 * string, value and tensor that is handed out lies inside the mapping.
 *
 * Keys and tensor names are looked up in sorted tables: no choice of names makes that slow, and a duplicate is a neighbour.
 */
#include "model/gguf_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cursor.h"
#include "base/must.h"
#include "model/fnv.h"
#include "model/tensor_rows.h"

enum {
    MAX_KEYS = 65536,
    MAX_TENSORS = 65536,
    MAX_NAME_BYTES = 65535, /* of a key or a tensor; the format's own limit for keys */
    MAX_ALIGNMENT = 65536,
    DEFAULT_ALIGNMENT = 32,
};

static struct gguf_string read_string(struct cursor *c)
{
    struct gguf_string s = {.length = (size_t)cursor_u64(c)};
    s.at = (const char *)cursor_take(c, s.length);
    if (!s.at)
        s = (struct gguf_string){.at = "", .length = 0};
    return s;
}

static enum err cut_off(const struct gguf *g, const char *where, uint64_t index, uint64_t count, struct why *why)
{
    return because(why, ERR_FORMAT,
                   "\"%s\": the file ends inside %s %llu of %llu: it is cut off or damaged, get it again", g->name,
                   where, (unsigned long long)index + 1, (unsigned long long)count);
}

static enum err read_preamble(struct gguf *g, struct cursor *c, struct why *why)
{
    const uint8_t *magic = cursor_take(c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return because(why, ERR_FORMAT, "\"%s\" is no GGUF file: it does not begin with \"GGUF\"", g->name);
    uint32_t version = cursor_u32(c);
    uint64_t tensors = cursor_u64(c), keys = cursor_u64(c);
    if (c->bad)
        return because(why, ERR_FORMAT, "\"%s\": the file ends after %zu bytes, inside its first fields", g->name,
                       g->length);
    if ((version & 0xffff) == 0 && version != 0)
        return because(why, ERR_UNSUPPORTED, "\"%s\" is a big-endian GGUF file; convert it to little-endian", g->name);
    if (version != 2 && version != 3)
        return because(why, ERR_UNSUPPORTED, "\"%s\" is GGUF version %u; versions 2 and 3 can be read", g->name,
                       version);
    if (keys > MAX_KEYS)
        return because(why, ERR_FORMAT, "\"%s\" claims %llu keys; %d are the limit", g->name, (unsigned long long)keys,
                       MAX_KEYS);
    if (tensors > MAX_TENSORS)
        return because(why, ERR_FORMAT, "\"%s\" claims %llu tensors; %d are the limit", g->name,
                       (unsigned long long)tensors, MAX_TENSORS);
    g->key_count = (uint32_t)keys;
    g->tensor_count = (uint32_t)tensors;
    return OK;
}

/* The elements of an array: a run of scalars, or strings that are found once here. */
static enum err read_array(const struct gguf *g, struct cursor *c, struct key *k, struct why *why)
{
    k->element = cursor_u32(c);
    k->count = cursor_u64(c);
    if (c->bad)
        return OK; /* the caller says so */
    if (k->element == GGUF_ARRAY)
        return because(why, ERR_UNSUPPORTED, "\"%s\": key \"%s\" is an array of arrays; no model needs one", g->name,
                       shown(k->name).text);
    if (k->element >= GGUF_VALUE_TYPES)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" has elements of unknown type %u", g->name,
                       shown(k->name).text, k->element);
    uint64_t least = k->element == GGUF_STRING ? sizeof(uint64_t) : gguf_value_traits[k->element].bytes;
    uint64_t bytes;
    if (!checked_mul(k->count, least, &bytes) || bytes > c->length - c->at)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" claims %llu elements, more than the file holds", g->name,
                       shown(k->name).text, (unsigned long long)k->count);
    if (k->element != GGUF_STRING) {
        k->value = cursor_take(c, bytes);
        return OK;
    }
    /* at most twice the bytes that the file spends on the lengths alone */
    struct gguf_string *strings = malloc((size_t)(k->count ? k->count : 1) * sizeof *strings);
    if (!strings)
        return because(why, ERR_NOMEM, "\"%s\": no memory for the %llu strings of key \"%s\"", g->name,
                       (unsigned long long)k->count, shown(k->name).text);
    k->strings = strings;
    for (uint64_t i = 0; i < k->count && !c->bad; i++)
        strings[i] = read_string(c);
    return OK;
}

static enum err read_value(const struct gguf *g, struct cursor *c, struct key *k, struct why *why)
{
    k->type = cursor_u32(c);
    if (c->bad)
        return OK; /* the caller says so */
    if (k->type >= GGUF_VALUE_TYPES)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" has unknown type %u", g->name, shown(k->name).text,
                       k->type);
    if (k->type == GGUF_ARRAY)
        return read_array(g, c, k, why);
    if (k->type == GGUF_STRING)
        k->string = read_string(c);
    else
        k->value = cursor_take(c, gguf_value_traits[k->type].bytes);
    return OK;
}

static enum err check_name(const struct gguf *g, const char *what, struct gguf_string name, struct why *why)
{
    if (name.length == 0 || name.length > MAX_NAME_BYTES)
        return because(why, ERR_FORMAT, "\"%s\": a %s has a name of %zu bytes; 1 to %d are allowed", g->name, what,
                       name.length, MAX_NAME_BYTES);
    return OK;
}

static enum err read_keys(struct gguf *g, struct cursor *c, struct why *why)
{
    g->keys = calloc(g->key_count ? g->key_count : 1, sizeof *g->keys);
    if (!g->keys)
        return because(why, ERR_NOMEM, "\"%s\": no memory for its %u keys", g->name, g->key_count);
    for (uint32_t i = 0; i < g->key_count; i++) {
        struct key *k = &g->keys[i];
        k->name = read_string(c);
        enum err err = c->bad ? OK : check_name(g, "key", k->name, why);
        k->begin = c->base + c->at + sizeof k->type;
        if (err == OK)
            err = read_value(g, c, k, why);
        k->end = c->base + c->at;
        if (err != OK)
            return err;
        if (c->bad)
            return cut_off(g, "key", i, g->key_count, why);
    }
    qsort(g->keys, g->key_count, sizeof *g->keys, compare_keys);
    for (uint32_t i = 1; i < g->key_count; i++)
        if (compare_keys(&g->keys[i - 1], &g->keys[i]) == 0)
            return because(why, ERR_FORMAT, "\"%s\": key \"%s\" stands twice", g->name, shown(g->keys[i].name).text);
    return OK;
}

static enum err read_alignment(struct gguf *g, struct why *why)
{
    g->alignment = DEFAULT_ALIGNMENT;
    enum err err = gguf_get_u32(g, "general.alignment", false, &g->alignment, why);
    if (err != OK)
        return err;
    if (g->alignment == 0 || g->alignment > MAX_ALIGNMENT || (g->alignment & (g->alignment - 1)) != 0)
        return because(why, ERR_FORMAT, "\"%s\": key \"general.alignment\" is %u, not a power of two from 1 to %d",
                       g->name, g->alignment, MAX_ALIGNMENT);
    return OK;
}

/* Shape, type and size of one tensor; *offset is relative to data_start, which is not known yet. */
static enum err read_tensor(const struct gguf *g, struct cursor *c, struct gguf_tensor *t, uint64_t *offset,
                            struct why *why)
{
    t->name = read_string(c);
    t->dims = cursor_u32(c);
    if (c->bad)
        return OK; /* the caller says so */
    enum err err = check_name(g, "tensor", t->name, why);
    if (err != OK)
        return err;
    if (t->dims < 1 || t->dims > 4)
        return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" has %u dimensions; 1 to 4 are allowed", g->name,
                       shown(t->name).text, t->dims);
    for (uint32_t d = 0; d < 4; d++)
        t->extent[d] = d < t->dims ? cursor_u64(c) : 1;
    uint32_t type = cursor_u32(c);
    *offset = cursor_u64(c);
    if (c->bad)
        return OK; /* the caller says so */

    const struct tensor_type_traits *traits = tensor_type_traits(type);
    if (!traits)
        return because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" has unknown type %u", g->name, shown(t->name).text,
                       type);
    t->type = (enum tensor_type)type;
    uint64_t rows;
    if (t->extent[0] == 0 || t->extent[1] == 0 || t->extent[2] == 0 || t->extent[3] == 0 ||
        !checked_mul(t->extent[1], t->extent[2], &rows) || !checked_mul(rows, t->extent[3], &rows) ||
        !checked_mul(t->extent[0] / traits->block_elements, traits->block_bytes, &t->bytes) ||
        !checked_mul(t->bytes, rows, &t->bytes))
        return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" has an impossible shape (%llu, %llu, %llu, %llu)",
                       g->name, shown(t->name).text, (unsigned long long)t->extent[0], (unsigned long long)t->extent[1],
                       (unsigned long long)t->extent[2], (unsigned long long)t->extent[3]);
    if (t->extent[0] % traits->block_elements != 0)
        return because(why, ERR_FORMAT,
                       "\"%s\": tensor \"%s\" has rows of %llu elements, no multiple of the %u of a %s block", g->name,
                       shown(t->name).text, (unsigned long long)t->extent[0], traits->block_elements, traits->name);
    if (*offset % g->alignment != 0)
        return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" starts at offset %llu, no multiple of the alignment %u",
                       g->name, shown(t->name).text, (unsigned long long)*offset, g->alignment);
    return OK;
}

/* Gives each tensor its bytes, now that it is known where the data begin. */
static enum err place_tensors(struct gguf *g, const uint64_t *offsets, uint64_t header_end, struct why *why)
{
    if (!checked_round_up(header_end, g->alignment, &g->data_start))
        must_not_reach(); /* header_end is at most the length of the file */
    for (uint32_t i = 0; i < g->tensor_count; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        uint64_t start, end;
        if (g->sources) {
            const struct tensor_source *source = &g->sources[i];
            must(source->data && tensor_rows_can_be(source->type, t->type));
            bool plain = tensor_source_is_plain(source, t->type);
            t->data = plain ? source->data : NULL;
            t->source = plain ? NULL : source;
            continue;
        }
        if (!checked_add(g->data_start, offsets[i], &start) || !checked_add(start, t->bytes, &end))
            return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" starts at the impossible offset %llu", g->name,
                           shown(t->name).text, (unsigned long long)offsets[i]);
        if (end > g->length)
            return because(why, ERR_FORMAT,
                           "\"%s\": tensor \"%s\" ends at byte %llu of %zu: the file is cut off, get it again", g->name,
                           shown(t->name).text, (unsigned long long)end, g->length);
        t->data = g->bytes + start;
    }
    return OK;
}

static int compare_tensor_names(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *t = tensors;
    return compare_names(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static int compare_tensor_places(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *t = tensors;
    const uint8_t *x = t[*(const uint32_t *)a].data, *y = t[*(const uint32_t *)b].data;
    return x < y ? -1 : x > y;
}

/* No two tensors share bytes, no two have one name; leaves by_name sorted by name. */
static enum err index_tensors(struct gguf *g, struct why *why)
{
    const struct gguf_tensor *t = g->tensors;
    for (uint32_t i = 0; i < g->tensor_count; i++)
        g->by_name[i] = i;
    qsort_r(g->by_name, g->tensor_count, sizeof *g->by_name, compare_tensor_places, g->tensors);
    for (uint32_t i = 1; i < g->tensor_count && !g->sources; i++) {
        const struct gguf_tensor *before = &t[g->by_name[i - 1]], *after = &t[g->by_name[i]];
        if ((uint64_t)(after->data - before->data) < before->bytes)
            return because(why, ERR_FORMAT, "\"%s\": tensors \"%s\" and \"%s\" overlap", g->name,
                           shown(before->name).text, shown(after->name).text);
    }
    qsort_r(g->by_name, g->tensor_count, sizeof *g->by_name, compare_tensor_names, g->tensors);
    for (uint32_t i = 1; i < g->tensor_count; i++)
        if (compare_names(t[g->by_name[i - 1]].name, t[g->by_name[i]].name) == 0)
            return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" stands twice", g->name,
                           shown(t[g->by_name[i]].name).text);
    return OK;
}

static enum err read_tensors(struct gguf *g, struct cursor *c, struct why *why)
{
    size_t count = g->tensor_count ? g->tensor_count : 1;
    g->tensors = calloc(count, sizeof *g->tensors);
    g->by_name = calloc(count, sizeof *g->by_name);
    uint64_t *offsets = calloc(count, sizeof *offsets);
    enum err err = OK;
    if (!g->tensors || !g->by_name || !offsets)
        err = because(why, ERR_NOMEM, "\"%s\": no memory for its %u tensors", g->name, g->tensor_count);
    for (uint32_t i = 0; err == OK && i < g->tensor_count; i++) {
        err = read_tensor(g, c, &g->tensors[i], &offsets[i], why);
        if (err == OK && c->bad)
            err = cut_off(g, "tensor", i, g->tensor_count, why);
    }
    if (err == OK)
        err = place_tensors(g, offsets, c->at, why);
    free(offsets);
    return err == OK ? index_tensors(g, why) : err;
}

/* The header, the file's length and a little of each tensor. */
static uint64_t hash_file(const struct gguf *g, size_t header_end)
{
    uint64_t length = g->length;
    uint64_t hash = fnv_bytes(FNV_START, g->bytes, header_end);
    hash = fnv_bytes(hash, &length, sizeof length);
    for (uint32_t i = 0; i < g->tensor_count; i++)
        hash = fnv_middle(hash, g->tensors[i].data, g->tensors[i].bytes);
    return hash;
}

static enum err read_header(struct gguf *g, struct why *why)
{
    struct cursor c = cursor_over(g->bytes, g->length);
    enum err err = read_preamble(g, &c, why);
    if (err == OK)
        err = read_keys(g, &c, why);
    if (err == OK)
        err = read_alignment(g, why); /* before the tensors: their offsets depend on it */
    if (err == OK)
        err = read_tensors(g, &c, why);
    if (err == OK && !g->sources)
        g->hash = hash_file(g, c.at);
    return err;
}

static enum err open_header(struct gguf **out, struct gguf from, const char *name, struct why *why)
{
    struct gguf *g = malloc(sizeof *g);
    if (!g)
        return because(why, ERR_NOMEM, "no memory to open \"%s\"", name);
    *g = from;
    memcpy(g->name, shown(string_of(name)).text, sizeof g->name);
    enum err err = read_header(g, why);
    if (err != OK) {
        gguf_close(g);
        return err;
    }
    *out = g;
    return OK;
}

enum err gguf_open_memory(struct gguf **out, const void *bytes, size_t length, const char *name, struct why *why)
{
    return open_header(out, (struct gguf){.bytes = bytes, .length = length, .file_bytes = length}, name, why);
}

enum err gguf_open_view(struct gguf **out, const struct gguf_view *view, const char *name, struct why *why)
{
    static const struct tensor_source none; /* a vocabulary has no tensors, and is a view all the same */
    struct gguf from = {
        .bytes = view->header,
        .length = view->length,
        .sources = view->sources ? view->sources : &none,
        .hash = view->hash,
        .file_bytes = view->file_bytes,
    };
    enum err err = open_header(out, from, name, why);
    if (err == OK) {
        (*out)->owner = view->owner;
        (*out)->close_owner = view->close;
    }
    return err;
}

enum err gguf_open(struct gguf **out, const char *path, struct why *why)
{
    struct mapped_file file;
    enum err err = mapped_file_open(&file, path, "model file", why);
    if (err != OK)
        return err;
    err = gguf_open_memory(out, file.bytes, file.length, path, why);
    if (err == OK)
        (*out)->file = file;
    else
        mapped_file_close(&file);
    return err;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; g->keys && i < g->key_count; i++)
        free((void *)(uintptr_t)g->keys[i].strings);
    free(g->keys);
    free(g->tensors);
    free(g->by_name);
    mapped_file_close(&g->file);
    if (g->close_owner)
        g->close_owner(g->owner);
    free(g);
}

uint64_t gguf_hash(const struct gguf *g)
{
    return g->hash;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    return g->file_bytes;
}

uint32_t gguf_tensor_count(const struct gguf *g)
{
    return g->tensor_count;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint32_t index)
{
    must(index < g->tensor_count);
    return &g->tensors[index];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    struct gguf_string wanted = string_of(name);
    uint32_t low = 0, high = g->tensor_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct gguf_tensor *t = &g->tensors[g->by_name[middle]];
        int order = compare_names(wanted, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
