/*
 * hub_model: config.json and the tensors of a model hub's directory in the words of GGUF: which key is which, which tensor is which, and what
 * has to be done to its rows, by the tables of the family (hub_families.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hub_internal.h"
#include "model/model.h"
#include "model/shown.h"

enum { NAME_BYTES = 160 };

/* ---- reading config.json ---- */

void hub_refuse(struct hub_translation *t, const char *key, const char *what)
{
    if (t->err == OK)
        t->err = because(t->why, ERR_UNSUPPORTED, "\"%.200s/config.json\": \"%s\" %s", t->hub->directory, key, what);
}

const json_t *hub_value(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

bool hub_has(struct hub_translation *t, const char *key, bool required)
{
    bool there = hub_value(t->config, key);
    if (!there && required && t->err == OK)
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\" lacks the key \"%s\"", t->hub->directory, key);
    return there && t->err == OK;
}

uint32_t hub_count(struct hub_translation *t, const json_t *object, const char *key, uint32_t otherwise)
{
    const json_t *value = hub_value(object, key);
    if (!value || t->err != OK)
        return otherwise;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > UINT32_MAX) {
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\": \"%s\" is no whole number of 32 bits",
                         t->hub->directory, key);
        return otherwise;
    }
    return (uint32_t)json_integer_value(value);
}

float hub_number(struct hub_translation *t, const json_t *object, const char *key, float otherwise)
{
    const json_t *value = hub_value(object, key);
    if (!value || t->err != OK)
        return otherwise;
    if (!json_is_number(value)) {
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\": \"%s\" is no number", t->hub->directory, key);
        return otherwise;
    }
    return (float)json_number_value(value);
}

const char *hub_key(const struct hub_translation *t, const char *suffix, char key[96])
{
    snprintf(key, 96, "%s.%s", t->architecture, suffix);
    return key;
}

void hub_put_count(struct hub_translation *t, const char *suffix, uint32_t value)
{
    char key[96];
    if (t->err == OK)
        gguf_header_u32(&t->hub->header, hub_key(t, suffix, key), value);
}

void hub_put_number(struct hub_translation *t, const char *suffix, float value)
{
    char key[96];
    if (t->err == OK)
        gguf_header_f32(&t->hub->header, hub_key(t, suffix, key), value);
}

static void put_numbers(struct hub_translation *t)
{
    for (const struct hub_number *n = t->family->numbers; n->key; n++) {
        if (!hub_has(t, n->key, n->required))
            continue;
        if (n->is_float)
            hub_put_number(t, n->suffix, hub_number(t, t->config, n->key, 0));
        else
            hub_put_count(t, n->suffix, hub_count(t, t->config, n->key, 0));
    }
}

/* ---- the family ---- */

/* What speaks of the language model, with what the family has by default. */
static void read_config(struct hub_translation *t)
{
    const struct hub_family *f = t->family;
    const json_t *whole = t->hub->config, *part = f->inside ? hub_value(whole, f->inside) : whole;
    json_t *defaults = f->defaults ? json_loads(f->defaults, 0, NULL) : json_object();
    t->config = json_is_object(part) ? json_copy((json_t *)(uintptr_t)part) : NULL;
    if (!json_is_object(part))
        t->err =
            because(t->why, ERR_FORMAT, "\"%.200s/config.json\": \"%s\" is no object", t->hub->directory, f->inside);
    else if (!t->config || !defaults || json_object_update_missing(t->config, defaults) != 0)
        t->err = because(t->why, ERR_NOMEM, "no memory for the config of \"%.300s\"", t->hub->directory);
    json_decref(defaults);
}

static void choose_family(struct hub_translation *t)
{
    const json_t *value = hub_value(t->hub->config, "model_type");
    const char *type = json_string_value(value);
    char known[256];
    hub_family_list(known, sizeof known);
    t->family = type ? hub_family_named(type) : NULL;
    if (!value)
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\" lacks the key \"model_type\"", t->hub->directory);
    else if (!t->family)
        t->err = because(t->why, ERR_UNSUPPORTED,
                         "\"%.200s/config.json\": the model type \"%s\" is not supported; these are: %s",
                         t->hub->directory, type ? shown_bytes(type, strlen(type)).text : "", known);
    if (t->err != OK)
        return;
    read_config(t);
    bool windowed = t->family->windowed && hub_count(t, t->config, "sliding_window", 0) > 0;
    t->architecture = windowed ? t->family->windowed : t->family->architecture;
}

static void check_activation(struct hub_translation *t)
{
    const json_t *value = hub_value(t->config, t->family->activation_key);
    const char *name = json_string_value(value);
    bool tanh_twin = name && strcmp(t->family->activation, "gelu_new") == 0 && strcmp(name, "gelu_pytorch_tanh") == 0;
    if (value && !tanh_twin && (!name || strcmp(name, t->family->activation) != 0))
        hub_refuse(t, t->family->activation_key, "is an activation that is not supported for this model type");
}

/* ---- tensors ---- */

/* Under the name of the table, or one that files have instead. */
static const struct safetensors_tensor *find_part(const struct hub_translation *t, const struct hub_tensor *part,
                                                  uint32_t layer, uint32_t expert, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, part->hub, layer, expert);
    const struct safetensors_tensor *found = safetensors_find(t->hub->weights, name);
    for (const struct hub_prefix *p = t->family->prefixes; p->usual && !found; p++) {
        char other[2 * NAME_BYTES];
        size_t usual = strlen(p->usual);
        if (strncmp(name, p->usual, usual) != 0)
            continue;
        snprintf(other, sizeof other, "%s%s", p->instead, name + usual);
        found = safetensors_find(t->hub->weights, other);
    }
    if (found)
        t->hub->claimed[found - safetensors_at(t->hub->weights, 0)] = true;
    return found;
}

static enum err misfit(struct hub_translation *t, const struct safetensors_tensor *from, const char *what)
{
    return because(t->why, ERR_FORMAT, "\"%.200s\": tensor \"%s\" %s", t->hub->directory,
                   shown_bytes(from->name, strlen(from->name)).text, what);
}

static enum err check_part(struct hub_translation *t, const struct hub_tensor *part,
                           const struct safetensors_tensor *from)
{
    if (!from->is_float)
        return misfit(t, from, "is of no type that weights can have; F32, F16 and BF16 are");
    bool matrix = part->flags & (PART_TRANSPOSED | PART_PER_EXPERT);
    if (from->dims < 1 || from->dims > 2 || (matrix && from->dims != 2))
        return misfit(t, from, "has neither one nor two sides");
    if (from->bytes == 0)
        return misfit(t, from, "is empty");
    return OK;
}

static enum err put_part(struct hub_translation *t, const struct hub_tensor *part,
                         const struct safetensors_tensor *from, uint32_t layer)
{
    enum err err = check_part(t, part, from);
    if (err != OK)
        return err;
    struct tensor_source source = {.data = from->data, .type = from->type};
    uint64_t extent[4] = {from->extent[from->dims - 1], from->dims == 2 ? from->extent[0] : 1, 1, 1};
    if (part->flags & PART_TRANSPOSED) {
        extent[0] = from->extent[0];
        extent[1] = from->extent[1];
        source.transposed = true;
    }
    if (part->flags & PART_HALVES) {
        source.head_rows = t->head_dim;
        if (extent[1] % t->head_dim != 0)
            return misfit(t, from, "has rows for no whole number of heads, as config.json has them");
    }
    source.added = part->flags & PART_PLUS_ONE ? 1.0f : 0.0f;
    char name[96];
    snprintf(name, sizeof name, part->gguf, layer);
    return hub_add_tensor(t->hub, name, from->dims, extent, from->dims == 1 ? TENSOR_F32 : from->type, source, t->why);
}

static enum err lacks(struct hub_translation *t, const char *name)
{
    return because(t->why, ERR_FORMAT, "\"%.200s\" lacks the tensor \"%s\"", t->hub->directory, name);
}

/* Where the matrices of all experts stand; *first is what one is like. */
static enum err find_experts(struct hub_translation *t, const struct hub_tensor *part, uint32_t layer,
                             const uint8_t **pieces, const struct safetensors_tensor **first)
{
    for (uint32_t expert = 0; expert < t->experts; expert++) {
        char name[NAME_BYTES];
        const struct safetensors_tensor *from = find_part(t, part, layer, expert, name);
        enum err err = from ? check_part(t, part, from) : lacks(t, name);
        if (err != OK)
            return err;
        *first = expert == 0 ? from : *first;
        if (from->type != (*first)->type || memcmp(from->extent, (*first)->extent, sizeof from->extent) != 0)
            return misfit(t, from, "has another shape or type than that of the first expert");
        pieces[expert] = from->data;
    }
    return OK;
}

static enum err put_experts(struct hub_translation *t, const struct hub_tensor *part, uint32_t layer)
{
    const struct safetensors_tensor *first = NULL;
    const uint8_t **pieces = calloc(t->experts, sizeof *pieces);
    if (!pieces)
        return because(t->why, ERR_NOMEM, "no memory for the experts of \"%.300s\"", t->hub->directory);
    enum err err = find_experts(t, part, layer, pieces, &first);
    if (err != OK) {
        free(pieces);
        return err;
    }
    uint64_t extent[4] = {first->extent[1], first->extent[0], t->experts, 1};
    struct tensor_source source = {
        .data = pieces[0], .type = first->type, .pieces = pieces, .piece_rows = first->extent[0]};
    char name[96];
    snprintf(name, sizeof name, part->gguf, layer);
    return hub_add_tensor(t->hub, name, 3, extent, first->type, source, t->why);
}

static enum err take_part(struct hub_translation *t, const struct hub_tensor *part, uint32_t layer, bool tied)
{
    if (part->flags & PART_PER_EXPERT)
        return put_experts(t, part, layer);
    char name[NAME_BYTES];
    const struct safetensors_tensor *from = find_part(t, part, layer, 0, name);
    bool ignored = part->flags & PART_IGNORED || (part->flags & PART_HEAD && tied);
    if (!from)
        return ignored || part->flags & PART_OPTIONAL ? OK : lacks(t, name);
    return ignored ? OK : put_part(t, part, from, layer);
}

/* The first tensor of every family is the embedding. */
static void check_vocabulary(struct hub_translation *t)
{
    char name[NAME_BYTES];
    const struct safetensors_tensor *embedding = find_part(t, t->family->tensors, 0, 0, name);
    uint32_t says = hub_count(t, t->config, "vocab_size", 0);
    if (t->err == OK && embedding && says > 0 && embedding->extent[0] != says)
        t->err = because(t->why, ERR_FORMAT,
                         "\"%.200s\": config.json says \"vocab_size\": %u, but tensor \"%s\" has %llu rows",
                         t->hub->directory, says, name, (unsigned long long)embedding->extent[0]);
}

static bool is_another_models(const struct hub_translation *t, const char *name)
{
    for (const char *const *begin = t->family->others; begin && *begin; begin++)
        if (strncmp(name, *begin, strlen(*begin)) == 0)
            return true;
    return false;
}

static void put_tensors(struct hub_translation *t)
{
    const json_t *says = hub_value(t->config, "tie_word_embeddings");
    bool tied = says ? json_is_true(says) : t->family->tied;
    for (const struct hub_tensor *part = t->family->tensors; part->hub && t->err == OK; part++) {
        uint32_t layers = strstr(part->hub, "%u") ? t->layers : 1;
        for (uint32_t layer = 0; layer < layers && t->err == OK; layer++)
            t->err = take_part(t, part, layer, tied);
    }
    for (uint32_t i = 0; t->err == OK && i < safetensors_count(t->hub->weights); i++) {
        const struct safetensors_tensor *left = safetensors_at(t->hub->weights, i);
        if (!t->hub->claimed[i] && !is_another_models(t, left->name))
            t->err = misfit(t, left, "is nothing that a model of this type has");
    }
}

/* ---- all of it ---- */

/* The count that the family's config has for a key of GGUF; 0: no such key. */
static uint32_t count_for(struct hub_translation *t, const char *suffix, uint32_t most)
{
    for (const struct hub_number *n = t->family->numbers; n->key; n++) {
        if (strcmp(n->suffix, suffix) != 0 || !hub_has(t, n->key, true))
            continue;
        uint32_t count = hub_count(t, t->config, n->key, 0);
        if (count == 0 || count > most)
            hub_refuse(t, n->key, "is out of bounds");
        return count;
    }
    return 0;
}

static void read_counts(struct hub_translation *t)
{
    t->layers = count_for(t, "block_count", MODEL_MAX_LAYERS);
    uint32_t dim = count_for(t, "embedding_length", MODEL_MAX_DIM);
    uint32_t heads = count_for(t, "attention.head_count", MODEL_MAX_HEADS);
    t->experts = count_for(t, "expert_count", MODEL_MAX_EXPERTS);
    if (t->err != OK)
        return;
    t->head_dim = hub_count(t, t->config, "head_dim", t->family->head_dim ? t->family->head_dim : dim / heads);
    if (t->head_dim == 0 || t->head_dim > MODEL_MAX_HEAD_DIM)
        hub_refuse(t, "head_dim", "is out of bounds");
}

enum err hub_translate_model(struct hub *h, struct why *why)
{
    struct hub_translation t = {.hub = h, .why = why};
    h->claimed = calloc(safetensors_count(h->weights) + 1, sizeof *h->claimed);
    if (!h->claimed)
        return because(why, ERR_NOMEM, "no memory for the tensors of \"%.300s\"", h->directory);
    choose_family(&t);
    if (t.err == OK) {
        gguf_header_string(&h->header, "general.architecture", t.architecture, strlen(t.architecture));
        read_counts(&t);
        check_activation(&t);
        put_numbers(&t);
    }
    if (t.err == OK)
        t.family->rest(&t);
    if (t.err == OK)
        check_vocabulary(&t);
    if (t.err == OK)
        put_tensors(&t);
    json_decref(t.config);
    return t.err;
}
