/*
 * model: see model.h. The tensors of an architecture are named once, in its table (arch.h); planning, checking and
 * building all walk that table through each_tensor, in the one order in which the weights block holds them.
 */
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/must.h"
#include "model/arch.h"
#include "model/hparams.h"

enum {
    MATRIX_ALIGN = 4096, /* pages: a rank's first touch of its rows places little of its neighbour's */
    VECTOR_ALIGN = 64,
    BUILD_TILES = 64, /* row tiles between two reports of progress */
};

/* One tensor of this model: a role with its numbers filled in. */
struct tensor_slot {
    char name[64];
    size_t member; /* offset in struct model of its struct weight, or struct weight_vector when rows is 1 */
    bool is_vector;
    bool optional;
    uint32_t rows, cols;
};

typedef enum err (*tensor_fn)(void *arg, const struct tensor_slot *slot, struct why *why);

static uint32_t extent_of(const struct model *m, enum extent extent)
{
    switch (extent) {
    case EXTENT_ONE:
        return 1;
    case EXTENT_DIM:
        return m->dim;
    case EXTENT_HEADS:
        return m->heads * m->head_dim;
    case EXTENT_KV_HEADS:
        return m->kv_heads * m->head_dim;
    case EXTENT_FFN:
        return m->ffn;
    case EXTENT_VOCAB:
        return m->vocab;
    }
    must_not_reach();
}

static struct tensor_slot slot_of(const struct model *m, const struct tensor_role *role, size_t base)
{
    return (struct tensor_slot){
        .member = base + role->member,
        .is_vector = role->rows == EXTENT_ONE,
        .optional = role->optional,
        .rows = extent_of(m, role->rows),
        .cols = extent_of(m, role->cols),
    };
}

/* Every tensor that the architecture of *m names, in the order of the weights block. The numbers of *m are in bounds. */
static enum err each_tensor(const struct model *m, tensor_fn fn, void *arg, struct why *why)
{
    const struct architecture *arch = arch_numbered(m->arch);
    must(arch);
    enum err err = OK;
    for (const struct tensor_role *role = arch->roles; role->name && err == OK; role++) {
        struct tensor_slot slot = slot_of(m, role, 0);
        snprintf(slot.name, sizeof slot.name, "%s", role->name);
        err = fn(arg, &slot, why);
    }
    for (uint32_t layer = 0; layer < m->layers; layer++)
        for (const struct tensor_role *role = arch->layer_roles; role->name && err == OK; role++) {
            struct tensor_slot slot = slot_of(m, role, offsetof(struct model, layer) + layer * sizeof(struct model_layer));
            snprintf(slot.name, sizeof slot.name, "blk.%u.%s", layer, role->name);
            err = fn(arg, &slot, why);
        }
    return err;
}

static const struct weight *slot_weight(const struct model *m, const struct tensor_slot *slot)
{
    return (const struct weight *)(const void *)((const char *)m + slot->member);
}

static const struct weight_vector *slot_vector(const struct model *m, const struct tensor_slot *slot)
{
    return (const struct weight_vector *)(const void *)((const char *)m + slot->member);
}

/* A tied head has no tensor and no tiles of its own: it is the embedding. */
static bool is_tied_head(const struct model *m, const struct tensor_slot *slot)
{
    return slot->member == offsetof(struct model, head) && m->head.offset == m->embed.offset;
}

/* ---- places in the weights block: the same for planning and checking ---- */

static bool place(uint64_t *end, uint64_t align, uint64_t bytes, uint64_t *offset)
{
    return checked_round_up(*end, align, offset) && checked_add(*offset, bytes, end);
}

static bool place_matrix(uint64_t *end, uint32_t type, uint32_t rows, uint32_t cols, uint64_t *offset)
{
    uint64_t bytes;
    return tiles_bytes((enum tensor_type)type, rows, cols, &bytes) && place(end, MATRIX_ALIGN, bytes, offset);
}

static bool place_floats(uint64_t *end, uint64_t count, uint64_t *offset)
{
    return place(end, VECTOR_ALIGN, count * sizeof(float), offset);
}

static uint64_t rope_count(const struct model *m)
{
    return (uint64_t)m->context * m->rope_pairs * 2;
}

/* ---- planning ---- */

struct planning {
    struct model *m;
    const struct gguf *g;
    const char *path;
    uint64_t end;  /* of what is placed so far */
    bool *claimed; /* (tensors of the file) */
};

static bool vectors_may_be(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

static enum err plan_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct planning *p = arg;
    const struct gguf_tensor *t = gguf_tensor_find(p->g, slot->name);
    if (!t && slot->optional)
        return OK;
    if (!t)
        return because(why, ERR_FORMAT, "\"%s\" lacks the tensor \"%s\"", p->path, slot->name);
    if (t->dims != (slot->is_vector ? 1 : 2) || t->extent[0] != slot->cols || t->extent[1] != slot->rows)
        return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" has the shape (%" PRIu64 ", %" PRIu64 "); the file's own numbers ask for (%u, %u)",
                       p->path, slot->name, t->extent[1], t->extent[0], slot->rows, slot->cols);
    if (slot->is_vector ? !vectors_may_be(t->type) : !tiles_know(t->type))
        return because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" is of type %s, which this build cannot use there", p->path,
                       slot->name, tensor_type_traits(t->type)->name);
    p->claimed[t - gguf_tensor_at(p->g, 0)] = true;
    p->m->parameters += (uint64_t)slot->rows * slot->cols;

    char *member = (char *)p->m + slot->member;
    bool placed;
    if (slot->is_vector) {
        struct weight_vector *v = (struct weight_vector *)(void *)member;
        v->count = slot->cols;
        placed = place_floats(&p->end, v->count, &v->offset);
    } else {
        struct weight *w = (struct weight *)(void *)member;
        *w = (struct weight){.type = t->type, .rows = slot->rows, .cols = slot->cols};
        placed = place_matrix(&p->end, w->type, w->rows, w->cols, &w->offset);
    }
    return placed ? OK : because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" is too large", p->path, slot->name);
}

/* Llama 3's RoPE scaling: pair i turns rope_freqs[i] times slower. */
static enum err find_rope_freqs(const struct model *m, const struct gguf *g, const char *path, const struct gguf_tensor **out,
                                struct why *why)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, "rope_freqs.weight");
    if (t && (t->type != TENSOR_F32 || t->dims != 1 || t->extent[0] != m->rope_pairs))
        return because(why, ERR_FORMAT, "\"%s\": tensor \"rope_freqs.weight\" is not %u numbers of type F32", path, m->rope_pairs);
    for (uint32_t i = 0; t && i < m->rope_pairs; i++) {
        float factor;
        memcpy(&factor, t->data + 4 * i, sizeof factor);
        if (!(factor > 1e-3f && factor < 1e6f))
            return because(why, ERR_FORMAT, "\"%s\": tensor \"rope_freqs.weight\" holds %g, out of bounds", path, (double)factor);
    }
    *out = t;
    return OK;
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
        const char *what = strstr(name, ".bias")                                           ? "biases are not supported yet"
                           : strstr(name, "_exps.") || strstr(name, ".ffn_gate_inp.") ? "mixtures of experts are not supported yet"
                                                                                       : "this build does not know what it is for";
        return because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" of a %s model: %s", p->path, name, p->m->arch_name, what);
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
    const struct architecture *arch = arch_named(name);
    if (!arch)
        return because(why, ERR_UNSUPPORTED, "\"%s\": architecture \"%.*s\" is not supported; \"llama\" is", path,
                       (int)(name.length < 32 ? name.length : 32), name.at);
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
        return because(why, ERR_FORMAT, "\"%s\": %" PRIu64 " tokens in the vocabulary, but only %u rows in \"token_embd.weight\"",
                       path, count, m->vocab);
    return err;
}

static enum err plan_tensors(struct planning *p, struct why *why)
{
    struct model *m = p->m;
    enum err err = each_tensor(m, plan_tensor, p, why);
    if (err != OK)
        return err;
    if (m->head.rows == 0)
        m->head = m->embed;
    const struct gguf_tensor *freqs;
    err = find_rope_freqs(m, p->g, p->path, &freqs, why);
    if (err != OK)
        return err;
    if (freqs)
        p->claimed[freqs - gguf_tensor_at(p->g, 0)] = true;
    m->rope.count = rope_count(m);
    if (!place_floats(&p->end, m->rope.count, &m->rope.offset) || !checked_round_up(p->end, MATRIX_ALIGN, &m->weights_bytes))
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

/* ---- checking ---- */

struct checking {
    const struct model *m;
    uint64_t end;
};

static enum err check_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct checking *c = arg;
    if (slot->optional && is_tied_head(c->m, slot))
        return memcmp(&c->m->head, &c->m->embed, sizeof c->m->head) == 0
                   ? OK
                   : because(why, ERR_FORMAT, "the model's plan gives the head the place of the embedding, but not its shape");
    uint64_t offset;
    bool good;
    if (slot->is_vector) {
        const struct weight_vector *v = slot_vector(c->m, slot);
        good = v->count == slot->cols && place_floats(&c->end, v->count, &offset) && v->offset == offset;
    } else {
        const struct weight *w = slot_weight(c->m, slot);
        good = w->rows == slot->rows && w->cols == slot->cols && tensor_type_traits(w->type) &&
               tiles_know((enum tensor_type)w->type) && place_matrix(&c->end, w->type, w->rows, w->cols, &offset) &&
               w->offset == offset;
    }
    return good ? OK : because(why, ERR_FORMAT, "the model's plan has a wrong shape or place for \"%s\"", slot->name);
}

enum err model_check(const struct model *m, struct why *why)
{
    const struct architecture *arch = arch_numbered(m->arch);
    if (!arch || strncmp(m->arch_name, arch->name, sizeof m->arch_name) != 0 || !memchr(m->name, 0, sizeof m->name))
        return because(why, ERR_FORMAT, "the model's plan names architecture %u, which this build does not have", m->arch);
    enum err err = hparams_check(m, "the model's plan", why);
    if (err != OK)
        return err;
    struct checking checking = {.m = m};
    err = each_tensor(m, check_tensor, &checking, why);
    if (err != OK)
        return err;
    uint64_t offset, bytes;
    if (m->rope.count != rope_count(m) || !place_floats(&checking.end, m->rope.count, &offset) || m->rope.offset != offset ||
        !checked_round_up(checking.end, MATRIX_ALIGN, &bytes) || m->weights_bytes != bytes)
        return because(why, ERR_FORMAT, "the model's plan has a wrong size or place for its RoPE table");
    return OK;
}

/* ---- building ---- */

struct building {
    const struct model *m;
    const struct gguf *g;
    uint8_t *weights;
    uint32_t rank, ranks;
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t done, total; /* bytes of this share; total 0: still being counted */
    bool counting;
};

/* This share's part [*first, *last) of n things. */
static void share_of(const struct building *b, uint64_t n, uint64_t *first, uint64_t *last)
{
    *first = n * b->rank / b->ranks;
    *last = n * (b->rank + 1) / b->ranks;
}

static void report(struct building *b, uint64_t bytes)
{
    b->done += bytes;
    if (b->progress)
        b->progress(b->arg, b->done, b->total);
}

static enum err build_matrix(struct building *b, const struct weight *w, const struct gguf_tensor *t)
{
    uint64_t first, last, tile_bytes;
    share_of(b, (w->rows + TILE_ROWS - 1) / TILE_ROWS, &first, &last);
    if (!tiles_row_tile_bytes((enum tensor_type)w->type, w->cols, &tile_bytes))
        must_not_reach(); /* the plan was checked */
    if (b->counting) {
        b->total += (last - first) * tile_bytes;
        return OK;
    }
    for (uint64_t tile = first, next; tile < last; tile = next) {
        next = tile + BUILD_TILES < last ? tile + BUILD_TILES : last;
        tiles_build((enum tensor_type)w->type, b->weights + w->offset, t->data, w->rows, w->cols, (uint32_t)tile, (uint32_t)next,
                    NULL);
        report(b, (next - tile) * tile_bytes);
    }
    return OK;
}

/* Vectors are small; every rank takes those elements of each that are its share. */
static enum err build_vector(struct building *b, const struct weight_vector *v, const struct gguf_tensor *t)
{
    uint64_t first, last;
    share_of(b, v->count, &first, &last);
    if (b->counting) {
        b->total += (last - first) * sizeof(float);
        return OK;
    }
    float *out = (float *)(void *)(b->weights + v->offset);
    blocks_to_float(t->type, t->data + first * tensor_type_traits(t->type)->block_bytes, last - first, out + first);
    report(b, (last - first) * sizeof(float));
    return OK;
}

static enum err build_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct building *b = arg;
    if (slot->optional && is_tied_head(b->m, slot))
        return OK;
    const struct gguf_tensor *t = gguf_tensor_find(b->g, slot->name);
    uint32_t type = slot->is_vector ? (t ? (uint32_t)t->type : 0) : slot_weight(b->m, slot)->type;
    if (!t || t->extent[0] != slot->cols || t->extent[1] != slot->rows || (uint32_t)t->type != type)
        return because(why, ERR_FORMAT, "the model file has changed since its plan was made: tensor \"%s\" is another one", slot->name);
    return slot->is_vector ? build_vector(b, slot_vector(b->m, slot), t) : build_matrix(b, slot_weight(b->m, slot), t);
}

/* rope[position][pair] = cos and sin of position * base^(-pair / pairs) / factor / freqs[pair], in double until the end. */
static void build_rope(struct building *b, const struct gguf_tensor *freqs)
{
    const struct model *m = b->m;
    uint64_t first, last;
    share_of(b, m->context, &first, &last);
    uint64_t row_bytes = (uint64_t)m->rope_pairs * 2 * sizeof(float);
    if (b->counting) {
        b->total += (last - first) * row_bytes;
        return;
    }
    double turn[MODEL_MAX_HEAD_DIM / 2];
    for (uint32_t i = 0; i < m->rope_pairs; i++) {
        float slower = 1.0f;
        if (freqs)
            memcpy(&slower, freqs->data + 4 * i, sizeof slower);
        turn[i] = pow((double)m->rope_base, -(double)i / (double)m->rope_pairs) / (double)m->rope_factor / (double)slower;
    }
    float *table = (float *)(void *)(b->weights + m->rope.offset);
    for (uint64_t position = first; position < last; position++) {
        float *row = table + position * m->rope_pairs * 2;
        for (uint32_t i = 0; i < m->rope_pairs; i++) {
            row[2 * i] = (float)cos((double)position * turn[i]);
            row[2 * i + 1] = (float)sin((double)position * turn[i]);
        }
    }
    report(b, (last - first) * row_bytes);
}

enum err model_build(const struct model *m, const struct gguf *g, uint8_t *weights, uint32_t rank, uint32_t ranks,
                     void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct why *why)
{
    must(rank < ranks && (uintptr_t)weights % VECTOR_ALIGN == 0);
    if (gguf_hash(g) != m->hash)
        return because(why, ERR_FORMAT, "the model file has changed since its plan was made: start again");
    struct building b = {.m = m, .g = g, .weights = weights, .rank = rank, .ranks = ranks, .progress = progress, .arg = arg};
    const struct gguf_tensor *freqs;
    enum err err = find_rope_freqs(m, g, "the model file", &freqs, why);
    if (err != OK)
        return err;
    b.counting = true;
    err = each_tensor(m, build_tensor, &b, why); /* finds a changed file before a byte is written */
    if (err != OK)
        return err;
    build_rope(&b, freqs);
    b.counting = false;
    err = each_tensor(m, build_tensor, &b, why);
    if (err == OK)
        build_rope(&b, freqs);
    return err;
}
