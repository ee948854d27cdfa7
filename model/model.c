/* model: see model.h. What a file says becomes a plan, or is refused by name. */
#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/hparams.h"
#include "model/model_internal.h"
#include "model/rope_tables.h"

/* ---- tensors ---- */

struct planning {
    struct model *m;
    const struct gguf *g;
    const char *path;
    uint64_t end;  /* of what is placed so far */
    bool *claimed; /* (tensors of the file) */
};

static enum err misshapen(const struct planning *p, const struct tensor_slot *slot, const struct gguf_tensor *t,
                          struct why *why)
{
    uint32_t rows = slot->is_vector ? 1 : slot->whole, cols = slot->is_vector ? slot->whole : slot->cols;
    if (slot->flags & ROLE_PER_EXPERT)
        return because(why, ERR_FORMAT,
                       "\"%s\": tensor \"%s\" has the shape (%" PRIu64 ", %" PRIu64 ", %" PRIu64
                       "); the file's own numbers ask for (%u, %u, %u)",
                       p->path, slot->name, t->extent[2], t->extent[1], t->extent[0], slot->count, rows, cols);
    return because(why, ERR_FORMAT,
                   "\"%s\": tensor \"%s\" has the shape (%" PRIu64 ", %" PRIu64
                   "); the file's own numbers ask for (%u, %u)",
                   p->path, slot->name, t->extent[1], t->extent[0], rows, cols);
}

static enum err plan_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct planning *p = arg;
    const struct gguf_tensor *t = gguf_tensor_find(p->g, slot->name);
    if (!t && slot->flags & ROLE_OPTIONAL)
        return OK;
    if (!t)
        return because(why, ERR_FORMAT, "\"%s\" lacks the tensor \"%s\"", p->path, slot->name);
    if (!model_has_shape(t, slot))
        return misshapen(p, slot, t, why);
    if (slot->is_vector ? !model_vectors_may_be(t->type) : !tiles_know(t->type))
        return because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" is of type %s, which this build cannot use there",
                       p->path, slot->name, tensor_type_traits(t->type)->name);
    p->claimed[t - gguf_tensor_at(p->g, 0)] = true;
    p->m->parameters += (uint64_t)slot->rows * slot->cols * slot->count;

    char *member = (char *)p->m + slot->member;
    bool placed;
    if (slot->is_vector) {
        struct weight_vector *v = (struct weight_vector *)(void *)member;
        v->count = slot->cols;
        placed = model_place_vector(&p->end, v);
    } else {
        struct weight *w = (struct weight *)(void *)member;
        *w = (struct weight){.type = t->type, .rows = slot->rows, .cols = slot->cols, .count = slot->count};
        placed = model_place_matrix(&p->end, w);
    }
    return placed ? OK : because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" is too large", p->path, slot->name);
}

/* A tensor that nobody asked for means a model that this build would get wrong without a word. */
static enum err refuse_unclaimed(const struct planning *p, struct why *why)
{
    for (uint32_t i = 0; i < gguf_tensor_count(p->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(p->g, i);
        if (p->claimed[i])
            continue;
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)(t->name.length < 80 ? t->name.length : 80), t->name.at);
        const char *what = strstr(name, ".bias") ? "models of that family have no such bias"
                           : strstr(name, "_exps.") || strstr(name, ".ffn_gate_inp.")
                               ? "it belongs to mixtures of experts, which this file is not"
                               : "this build does not know what it is for";
        return because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" of a %s model: %s", p->path, name, p->m->arch_name,
                       what);
    }
    return OK;
}

/* general.name, or the file's own, with nothing in it that could spoil a terminal or a log. */
static enum err read_name(struct model *m, const struct gguf *g, const char *path, struct why *why)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    struct gguf_string name = {.at = base, .length = strlen(base)};
    enum err err = gguf_get_string(g, "general.name", false, &name, why);
    size_t n = name.length < sizeof m->name - 1 ? name.length : sizeof m->name - 1;
    while (n < name.length && n > 0 && ((unsigned char)name.at[n] & 0xc0) == 0x80)
        n--; /* not through the middle of a UTF-8 character */
    for (size_t i = 0; i < n; i++)
        m->name[i] = (unsigned char)name.at[i] < ' ' || name.at[i] == 127 ? '?' : name.at[i];
    return err;
}

static enum err choose_arch(struct model *m, const struct gguf *g, const char *path, struct why *why)
{
    struct gguf_string name = {"", 0};
    enum err err = gguf_get_string(g, "general.architecture", true, &name, why);
    if (err != OK)
        return err;
    char key[96], known[256];
    uint32_t experts = 0;
    snprintf(key, sizeof key, "%.*s.expert_count", (int)(name.length < 64 ? name.length : 64), name.at);
    err = gguf_get_u32(g, key, false, &experts, why);
    if (err != OK)
        return err;
    arch_list(known, sizeof known);
    const struct architecture *arch = arch_named(name, experts > 0);
    if (!arch)
        return because(why, ERR_UNSUPPORTED, "\"%s\": architecture \"%.*s\"%s is not supported; these are: %s", path,
                       (int)(name.length < 32 ? name.length : 32), name.at, experts ? " with experts" : "", known);
    m->arch = arch->id;
    snprintf(m->arch_name, sizeof m->arch_name, "%s", arch->name);
    return OK;
}

/* The vocabulary is as large as the embedding; the tokenizer's list may be shorter (padding) but not longer. */
static enum err read_vocab(struct model *m, const struct gguf *g, const char *path, struct why *why)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    if (!t)
        return because(why, ERR_FORMAT, "\"%s\" lacks the tensor \"token_embd.weight\"", path);
    m->vocab = t->extent[1] <= MODEL_MAX_VOCAB ? (uint32_t)t->extent[1] : 0;
    const struct gguf_string *tokens;
    uint64_t count;
    enum err err = gguf_get_strings(g, "tokenizer.ggml.tokens", false, &tokens, &count, why);
    if (err == OK && m->vocab > 0 && count > m->vocab)
        return because(why, ERR_FORMAT,
                       "\"%s\": %" PRIu64 " tokens in the vocabulary, but only %u rows in \"token_embd.weight\"", path,
                       count, m->vocab);
    return err;
}

static enum err plan_tensors(struct planning *p, struct why *why)
{
    struct model *m = p->m;
    enum err err = model_each_tensor(m, plan_tensor, p, why);
    if (err != OK)
        return err;
    if (m->head.rows == 0)
        m->head = m->embed;
    const struct gguf_tensor *factors;
    err = rope_factors_choose(m, p->g, p->path, p->claimed, &factors, why);
    if (err != OK)
        return err;
    if (!model_place_rope(&p->end, m))
        return because(why, ERR_UNSUPPORTED, "\"%s\": its weights are too large", p->path);
    return refuse_unclaimed(p, why);
}

enum err model_plan(struct model *m, const struct gguf *g, const char *path, uint32_t context, struct why *why)
{
    memset(m, 0, sizeof *m);
    m->hash = gguf_hash(g);
    m->file_bytes = gguf_file_bytes(g);
    enum err err = choose_arch(m, g, path, why);
    if (err == OK)
        err = read_name(m, g, path, why);
    if (err == OK)
        err = hparams_read(m, g, path, context, why);
    if (err == OK)
        err = read_vocab(m, g, path, why);
    if (err == OK && arch_numbered(m->arch)->complete)
        arch_numbered(m->arch)->complete(m);
    if (err == OK)
        err = hparams_check(m, path, why);
    if (err != OK)
        return err;

    bool *claimed = calloc(gguf_tensor_count(g), sizeof *claimed);
    if (!claimed)
        return because(why, ERR_NOMEM, "no memory to plan the weights of \"%s\"", path);
    struct planning planning = {.m = m, .g = g, .path = path, .claimed = claimed};
    err = plan_tensors(&planning, why);
    free(claimed);
    return err;
}

enum err model_set_kv_type(struct model *m, enum kv_type type, struct why *why)
{
    if (!kv_type_takes(type, m->head_dim))
        return because(
            why, ERR_UNSUPPORTED,
            "keys and values cannot be kept as %s: heads have %u dimensions, no multiple of %d; f16, bf16 and "
            "f32 take them",
            kv_type_name(type), m->head_dim, KV_SCALED);
    m->kv_type = type;
    return OK;
}
