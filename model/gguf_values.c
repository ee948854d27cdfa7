/* gguf_values: the keys of an open GGUF file, by name and type. See gguf.h. */
#include "model/gguf_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"

const struct gguf_value_traits gguf_value_traits[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},     [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

static const struct key *find_key(const struct gguf *g, const char *name)
{
    struct key wanted = {.name = string_of(name)};
    return bsearch(&wanted, g->keys, g->key_count, sizeof *g->keys, compare_keys);
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find_key(g, key) != NULL;
}

bool gguf_is_array(const struct gguf *g, const char *key)
{
    const struct key *k = find_key(g, key);
    return k && k->type == GGUF_ARRAY;
}

/* *k is NULL and the result OK when the key is absent and need not be there. */
static enum err want_key(const struct gguf *g, const char *key, bool required, const struct key **k, struct why *why)
{
    *k = find_key(g, key);
    if (!*k && required)
        return because(why, ERR_FORMAT, "\"%s\" lacks the key \"%s\"", g->name, key);
    return OK;
}

static enum err wrong_type(const struct gguf *g, const struct key *k, const char *wanted, struct why *why)
{
    if (k->type == GGUF_ARRAY)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" is an array of %s, not %s", g->name, shown(k->name).text,
                       gguf_value_traits[k->element].name, wanted);
    return because(why, ERR_FORMAT, "\"%s\": key \"%s\" is of type %s, not %s", g->name, shown(k->name).text,
                   gguf_value_traits[k->type].name, wanted);
}

static int64_t sign_extend(uint64_t value, uint32_t bytes)
{
    uint32_t unused = 64 - 8 * bytes;
    return (int64_t)(value << unused) >> unused;
}

enum err gguf_get_u32(const struct gguf *g, const char *key, bool required, uint32_t *out, struct why *why)
{
    const struct key *k;
    enum err err = want_key(g, key, required, &k, why);
    if (err != OK || !k)
        return err;
    bool is_signed = k->type == GGUF_I8 || k->type == GGUF_I16 || k->type == GGUF_I32 || k->type == GGUF_I64;
    bool is_unsigned = k->type == GGUF_U8 || k->type == GGUF_U16 || k->type == GGUF_U32 || k->type == GGUF_U64;
    if (!is_signed && !is_unsigned)
        return wrong_type(g, k, "an integer", why);
    uint64_t value = 0;
    memcpy(&value, k->value, gguf_value_traits[k->type].bytes);
    if (is_signed && sign_extend(value, gguf_value_traits[k->type].bytes) < 0)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" is %lld; it must not be negative", g->name, key,
                       (long long)sign_extend(value, gguf_value_traits[k->type].bytes));
    if (value > UINT32_MAX)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" is %llu, more than 32 bits hold", g->name, key,
                       (unsigned long long)value);
    *out = (uint32_t)value;
    return OK;
}

enum err gguf_get_f32(const struct gguf *g, const char *key, bool required, float *out, struct why *why)
{
    const struct key *k;
    enum err err = want_key(g, key, required, &k, why);
    if (err != OK || !k)
        return err;
    if (k->type == GGUF_F32) {
        memcpy(out, k->value, sizeof *out);
        return OK;
    }
    if (k->type != GGUF_F64)
        return wrong_type(g, k, "a floating-point number", why);
    double wide;
    memcpy(&wide, k->value, sizeof wide);
    *out = (float)wide;
    return OK;
}

enum err gguf_get_bool(const struct gguf *g, const char *key, bool required, bool *out, struct why *why)
{
    const struct key *k;
    enum err err = want_key(g, key, required, &k, why);
    if (err != OK || !k)
        return err;
    if (k->type != GGUF_BOOL)
        return wrong_type(g, k, "a bool", why);
    if (*k->value > 1)
        return because(why, ERR_FORMAT, "\"%s\": key \"%s\" is %u, neither true nor false", g->name, key, *k->value);
    *out = *k->value == 1;
    return OK;
}

enum err gguf_get_string(const struct gguf *g, const char *key, bool required, struct gguf_string *out, struct why *why)
{
    const struct key *k;
    enum err err = want_key(g, key, required, &k, why);
    if (err != OK || !k)
        return err;
    if (k->type != GGUF_STRING)
        return wrong_type(g, k, "a string", why);
    *out = k->string;
    return OK;
}

enum err gguf_get_strings(const struct gguf *g, const char *key, bool required, const struct gguf_string **out,
                          uint64_t *count, struct why *why)
{
    const struct key *k;
    *out = NULL;
    *count = 0;
    enum err err = want_key(g, key, required, &k, why);
    if (err != OK || !k)
        return err;
    if (k->type != GGUF_ARRAY || k->element != GGUF_STRING)
        return wrong_type(g, k, "an array of strings", why);
    *out = k->strings;
    *count = k->count;
    return OK;
}

enum err gguf_get_array(const struct gguf *g, const char *key, bool required, enum gguf_value_type element,
                        const uint8_t **out, uint64_t *count, struct why *why)
{
    must((uint32_t)element < GGUF_VALUE_TYPES && gguf_value_traits[element].bytes > 0);
    const struct key *k;
    *out = NULL;
    *count = 0;
    enum err err = want_key(g, key, required, &k, why);
    if (err != OK || !k)
        return err;
    if (k->type != GGUF_ARRAY || k->element != element) {
        char wanted[32];
        snprintf(wanted, sizeof wanted, "an array of %s", gguf_value_traits[element].name);
        return wrong_type(g, k, wanted, why);
    }
    *out = k->value;
    *count = k->count;
    return OK;
}

uint32_t gguf_key_count(const struct gguf *g)
{
    return g->key_count;
}

struct gguf_key gguf_key_at(const struct gguf *g, uint32_t index)
{
    must(index < g->key_count);
    const struct key *k = &g->keys[index];
    return (struct gguf_key){.name = k->name,
                             .type = (enum gguf_value_type)k->type,
                             .value = k->begin,
                             .bytes = (size_t)(k->end - k->begin)};
}
