/*
 * model_layout: which tensors a model has and where the weights block holds them; a plan is checked by laying it out again. See
 * model_internal.h.
 */
#include "model/model_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/must.h"
#include "model/arch.h"
#include "model/hparams.h"

/* ---- the walk ---- */

static uint32_t extent_of(const struct model *m, enum extent extent)
{
    switch (extent) {
    case EXTENT_ONE:
        return 1;
    case EXTENT_DIM:
        return m->dim;
    case EXTENT_HEAD:
        return m->head_dim;
    case EXTENT_HEADS:
        return m->heads * m->head_dim;
    case EXTENT_KV_HEADS:
        return m->kv_heads * m->head_dim;
    case EXTENT_FFN:
        return m->ffn;
    case EXTENT_EXPERTS:
        return m->experts;
    case EXTENT_EXPERT_FFN:
        return m->expert_ffn;
    case EXTENT_POSITIONS:
        return m->context_train;
    case EXTENT_VOCAB:
        return m->vocab;
    }
    must_not_reach();
}

/* Rows of a matrix, numbers of a vector: what members that share a tensor divide among them. */
static uint32_t part_of(const struct model *m, const struct tensor_role *role)
{
    return extent_of(m, role->rows == EXTENT_ONE ? role->cols : role->rows);
}

static bool of_one_tensor(const struct tensor_role *a, const struct tensor_role *b)
{
    return a->name && b->name && strcmp(a->name, b->name) == 0;
}

static struct tensor_slot slot_of(const struct model *m, const struct tensor_role *roles,
                                  const struct tensor_role *role)
{
    struct tensor_slot slot = {
        .member = role->member,
        .is_vector = role->rows == EXTENT_ONE,
        .flags = role->flags,
        .rows = extent_of(m, role->rows),
        .cols = extent_of(m, role->cols),
        .count = role->flags & ROLE_PER_EXPERT ? m->experts : 1,
    };
    for (const struct tensor_role *r = role; r > roles && of_one_tensor(r - 1, role); r--)
        slot.first += part_of(m, r - 1);
    slot.whole = slot.first;
    for (const struct tensor_role *r = role; of_one_tensor(r, role); r++)
        slot.whole += part_of(m, r);
    return slot;
}

/* All roles of some groups; their tensors' names begin with `prefix`, their members stand `base` bytes into struct model. */
static enum err each_role(const struct model *m, const struct tensor_role *const *groups, const char *prefix,
                          size_t base, tensor_fn fn, void *arg, struct why *why)
{
    enum err err = OK;
    for (; *groups && err == OK; groups++)
        for (const struct tensor_role *role = *groups; role->name && err == OK; role++) {
            struct tensor_slot slot = slot_of(m, *groups, role);
            slot.member += base;
            snprintf(slot.name, sizeof slot.name, "%s%s", prefix, role->name);
            err = fn(arg, &slot, why);
        }
    return err;
}

enum err model_each_tensor(const struct model *m, tensor_fn fn, void *arg, struct why *why)
{
    const struct architecture *arch = arch_numbered(m->arch);
    must(arch);
    enum err err = each_role(m, arch->roles, "", 0, fn, arg, why);
    for (uint32_t layer = 0; layer < m->layers && err == OK; layer++) {
        char prefix[20];
        snprintf(prefix, sizeof prefix, "blk.%u.", layer);
        err = each_role(m, arch->layer_roles, prefix,
                        offsetof(struct model, layer) + layer * sizeof(struct model_layer), fn, arg, why);
    }
    return err;
}

bool model_vectors_may_be(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

bool model_has_shape(const struct gguf_tensor *t, const struct tensor_slot *slot)
{
    if (slot->is_vector)
        return t->dims == 1 && t->extent[0] == slot->whole;
    uint32_t dims = slot->flags & ROLE_PER_EXPERT ? 3 : 2;
    return t->dims == dims && t->extent[0] == slot->cols && t->extent[1] == slot->whole && t->extent[2] == slot->count;
}

/* ---- places in the weights block ---- */

static bool place(uint64_t *end, uint64_t align, uint64_t bytes, uint64_t *offset)
{
    return checked_round_up(*end, align, offset) && checked_add(*offset, bytes, end);
}

bool model_place_matrix(uint64_t *end, struct weight *w)
{
    uint64_t one, all;
    return tiles_bytes((enum tensor_type)w->type, w->rows, w->cols, &one) && checked_mul(one, w->count, &all) &&
           place(end, MATRIX_ALIGN, all, &w->offset);
}

bool model_place_vector(uint64_t *end, struct weight_vector *v)
{
    return place(end, VECTOR_ALIGN, v->count * sizeof(float), &v->offset);
}

/* What follows the tensors: the tables of rotation, and the end of the block. */
bool model_place_rope(uint64_t *end, struct model *m)
{
    m->rope.count = (uint64_t)m->context * m->rope_pairs * 2;
    m->rope_windowed.count = m->rope_base_windowed > 0.0f && m->window > 0 ? m->rope.count : 0;
    return model_place_vector(end, &m->rope) && model_place_vector(end, &m->rope_windowed) &&
           checked_round_up(*end, MATRIX_ALIGN, &m->weights_bytes);
}

/* ---- checking ---- */

/* The plan is laid out once more, from its numbers and types alone, and must come out the same. */
struct checking {
    const struct model *m;
    struct model *again;
    uint64_t end;
};

static enum err check_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct checking *c = arg;
    char *member = (char *)c->again + slot->member;
    bool good;
    if (slot->is_vector) {
        struct weight_vector *v = (struct weight_vector *)(void *)member;
        if (slot->flags & ROLE_OPTIONAL && slot_vector(c->m, slot)->count == 0)
            return OK;
        v->count = slot->cols;
        good = model_place_vector(&c->end, v) && memcmp(v, slot_vector(c->m, slot), sizeof *v) == 0;
    } else {
        struct weight *w = (struct weight *)(void *)member;
        const struct weight *planned = slot_weight(c->m, slot);
        if (slot->flags & ROLE_OPTIONAL && (planned->rows == 0 || is_tied_head(c->m, slot)))
            return OK;
        *w = (struct weight){.type = planned->type, .rows = slot->rows, .cols = slot->cols, .count = slot->count};
        good = tensor_type_traits(w->type) && tiles_know((enum tensor_type)w->type) && model_place_matrix(&c->end, w) &&
               memcmp(w, planned, sizeof *w) == 0;
    }
    return good ? OK : because(why, ERR_FORMAT, "the model's plan has a wrong shape or place for \"%s\"", slot->name);
}

static enum err check_layout(const struct model *m, struct model *again, struct why *why)
{
    struct checking checking = {.m = m, .again = again};
    const size_t numbers = offsetof(struct model, embed), rest = offsetof(struct model, layer) - numbers;
    memcpy(again, m, numbers);
    enum err err = model_each_tensor(m, check_tensor, &checking, why);
    if (err != OK)
        return err;
    if (again->head.rows == 0)
        again->head = again->embed;
    if (!model_place_rope(&checking.end, again) || memcmp(&again->embed, &m->embed, rest) != 0 ||
        memcmp(again->layer, m->layer, m->layers * sizeof *m->layer) != 0)
        return because(
            why, ERR_FORMAT,
            "the model's plan has a wrong size or place for its RoPE tables, its head or a tensor that such a model does not have");
    return OK;
}

enum err model_check(const struct model *m, struct why *why)
{
    const struct architecture *arch = arch_numbered(m->arch);
    if (!arch || strncmp(m->arch_name, arch->name, sizeof m->arch_name) != 0 || !memchr(m->name, 0, sizeof m->name))
        return because(why, ERR_FORMAT, "the model's plan names architecture %u, which this build does not have",
                       m->arch);
    enum err err = hparams_check(m, "the model's plan", why);
    if (err == OK && (m->kv_type >= KV_TYPES || !kv_type_takes((enum kv_type)m->kv_type, m->head_dim)))
        err = because(why, ERR_FORMAT, "the model's plan keeps heads of %u dimensions in pages of type %u", m->head_dim,
                      m->kv_type);
    if (err != OK)
        return err;
    struct model *again = calloc(1, sizeof *again);
    if (!again)
        return because(why, ERR_NOMEM, "no memory to check the model's plan");
    err = check_layout(m, again, why);
    free(again);
    return err;
}
