/*
 * model: see model.h. The tensors of an architecture are named once, in its table (arch.h); planning, checking and
 * building all walk that table through each_tensor, in the one order in which the weights block holds them.
 *
 * A tensor of the file may be shared by several members, each with a run of its rows ("fused" projections), and its rows may
 * come in another order than here (halves of a head that are rotated together): both are settled when weights are built.
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
#include "model/tensor_rows.h"

enum {
    MATRIX_ALIGN = 4096, /* pages: a rank's first touch of its rows places little of its neighbour's */
    VECTOR_ALIGN = 64,
    BUILD_TILES = 64, /* row tiles between two reports of progress */
};

/* One member of this model: a role with its numbers filled in. */
struct tensor_slot {
    char name[64];
    size_t member; /* offset in struct model of its struct weight, or struct weight_vector when is_vector */
    bool is_vector;
    uint32_t flags;
    uint32_t rows, cols; /* a vector has one row */
    uint32_t count;      /* matrices of that shape */
    uint32_t first;      /* rows of the file's tensor before this member's; of a vector: numbers */
    uint32_t whole;      /* rows of the file's tensor; of a vector: numbers */
};

typedef enum err (*tensor_fn)(void *arg, const struct tensor_slot *slot, struct why *why);

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

/* Every member that the architecture of *m names, in the order of the weights block. The numbers of *m are in bounds. */
static enum err each_tensor(const struct model *m, tensor_fn fn, void *arg, struct why *why)
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

static bool place_matrix(uint64_t *end, struct weight *w)
{
    uint64_t one, all;
    return tiles_bytes((enum tensor_type)w->type, w->rows, w->cols, &one) && checked_mul(one, w->count, &all) &&
           place(end, MATRIX_ALIGN, all, &w->offset);
}

static bool place_vector(uint64_t *end, struct weight_vector *v)
{
    return place(end, VECTOR_ALIGN, v->count * sizeof(float), &v->offset);
}

/* What follows the tensors: the tables of rotation, and the end of the block. */
static bool place_rope(uint64_t *end, struct model *m)
{
    m->rope.count = (uint64_t)m->context * m->rope_pairs * 2;
    m->rope_windowed.count = m->rope_base_windowed > 0.0f && m->window > 0 ? m->rope.count : 0;
    return place_vector(end, &m->rope) && place_vector(end, &m->rope_windowed) &&
           checked_round_up(*end, MATRIX_ALIGN, &m->weights_bytes);
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

static bool has_shape(const struct gguf_tensor *t, const struct tensor_slot *slot)
{
    if (slot->is_vector)
        return t->dims == 1 && t->extent[0] == slot->whole;
    uint32_t dims = slot->flags & ROLE_PER_EXPERT ? 3 : 2;
    return t->dims == dims && t->extent[0] == slot->cols && t->extent[1] == slot->whole && t->extent[2] == slot->count;
}

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
    if (!has_shape(t, slot))
        return misshapen(p, slot, t, why);
    if (slot->is_vector ? !vectors_may_be(t->type) : !tiles_know(t->type))
        return because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" is of type %s, which this build cannot use there",
                       p->path, slot->name, tensor_type_traits(t->type)->name);
    p->claimed[t - gguf_tensor_at(p->g, 0)] = true;
    p->m->parameters += (uint64_t)slot->rows * slot->cols * slot->count;

    char *member = (char *)p->m + slot->member;
    bool placed;
    if (slot->is_vector) {
        struct weight_vector *v = (struct weight_vector *)(void *)member;
        v->count = slot->cols;
        placed = place_vector(&p->end, v);
    } else {
        struct weight *w = (struct weight *)(void *)member;
        *w = (struct weight){.type = t->type, .rows = slot->rows, .cols = slot->cols, .count = slot->count};
        placed = place_matrix(&p->end, w);
    }
    return placed ? OK : because(why, ERR_UNSUPPORTED, "\"%s\": tensor \"%s\" is too large", p->path, slot->name);
}

/* ---- factors by which single pairs are rotated more slowly ---- */

/* Llama 3's, and the two of longrope. */
static const char *const factor_names[] = {"rope_freqs.weight", "rope_factors_short.weight",
                                           "rope_factors_long.weight"};
enum { PLAIN_FACTORS, SHORT_FACTORS, LONG_FACTORS, FACTOR_NAMES };

static enum err find_factors(const struct model *m, const struct gguf *g, const char *path, const char *name,
                             const struct gguf_tensor **out, struct why *why)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    if (t && (t->type != TENSOR_F32 || t->source || t->dims != 1 || t->extent[0] != m->rope_pairs))
        return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" is not %u numbers of type F32", path, name,
                       m->rope_pairs);
    for (uint32_t i = 0; t && i < m->rope_pairs; i++) {
        float factor;
        memcpy(&factor, t->data + 4 * i, sizeof factor);
        if (!(factor > 1e-3f && factor < 1e6f))
            return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" holds %g, out of bounds", path, name,
                           (double)factor);
    }
    *out = t;
    return OK;
}

/* The tensor that holds for this context; NULL: none does. claimed may be NULL. */
static enum err choose_factors(const struct model *m, const struct gguf *g, const char *path, bool *claimed,
                               const struct gguf_tensor **out, struct why *why)
{
    const struct gguf_tensor *found[FACTOR_NAMES] = {NULL};
    for (uint32_t i = 0; i < FACTOR_NAMES && m->rope_pairs > 0; i++) {
        enum err err = find_factors(m, g, path, factor_names[i], &found[i], why);
        if (err != OK)
            return err;
        if (found[i] && claimed)
            claimed[found[i] - gguf_tensor_at(g, 0)] = true;
    }
    if (!found[SHORT_FACTORS] != !found[LONG_FACTORS] ||
        (found[LONG_FACTORS] && (found[PLAIN_FACTORS] || m->context_original == 0)))
        return because(
            why, ERR_FORMAT,
            "\"%s\": RoPE factors for short and long contexts come together, with the key \"%s.rope.scaling.original_context_length\" and without other factors",
            path, m->arch_name);
    *out = found[LONG_FACTORS] ? found[m->context > m->context_original ? LONG_FACTORS : SHORT_FACTORS]
                               : found[PLAIN_FACTORS];
    return OK;
}

/* ---- the rest of a plan ---- */

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
    enum err err = each_tensor(m, plan_tensor, p, why);
    if (err != OK)
        return err;
    if (m->head.rows == 0)
        m->head = m->embed;
    const struct gguf_tensor *factors;
    err = choose_factors(m, p->g, p->path, p->claimed, &factors, why);
    if (err != OK)
        return err;
    if (!place_rope(&p->end, m))
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
        good = place_vector(&c->end, v) && memcmp(v, slot_vector(c->m, slot), sizeof *v) == 0;
    } else {
        struct weight *w = (struct weight *)(void *)member;
        const struct weight *planned = slot_weight(c->m, slot);
        if (slot->flags & ROLE_OPTIONAL && (planned->rows == 0 || is_tied_head(c->m, slot)))
            return OK;
        *w = (struct weight){.type = planned->type, .rows = slot->rows, .cols = slot->cols, .count = slot->count};
        good = tensor_type_traits(w->type) && tiles_know((enum tensor_type)w->type) && place_matrix(&c->end, w) &&
               memcmp(w, planned, sizeof *w) == 0;
    }
    return good ? OK : because(why, ERR_FORMAT, "the model's plan has a wrong shape or place for \"%s\"", slot->name);
}

static enum err check_layout(const struct model *m, struct model *again, struct why *why)
{
    struct checking checking = {.m = m, .again = again};
    const size_t numbers = offsetof(struct model, embed), rest = offsetof(struct model, layer) - numbers;
    memcpy(again, m, numbers);
    enum err err = each_tensor(m, check_tensor, &checking, why);
    if (err != OK)
        return err;
    if (again->head.rows == 0)
        again->head = again->embed;
    if (!place_rope(&checking.end, again) || memcmp(&again->embed, &m->embed, rest) != 0 ||
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
    uint32_t *row_of; /* (heads * head_dim) */
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

/* Rows of heads whose halves belong together: where row `row` of this build stands in the file. */
static uint32_t row_in_halves(const struct model *m, uint32_t row)
{
    uint32_t d = row % m->head_dim;
    if (d >= 2 * m->rope_pairs)
        return row;
    return row - d + d / 2 + (d % 2 ? m->rope_pairs : 0);
}

/* Row tiles [tile, next) of one matrix out of rows that have to be made first; `above` rows of the tensor are others'. */
static enum err build_made_tiles(struct building *b, const struct weight *w, uint8_t *matrix, uint64_t tile_bytes,
                                 const struct gguf_tensor *t, uint64_t above, uint64_t tile, uint64_t next, bool halves,
                                 struct why *why)
{
    uint32_t first = (uint32_t)tile * TILE_ROWS;
    uint32_t count = (next * TILE_ROWS < w->rows ? (uint32_t)next * TILE_ROWS : w->rows) - first;
    uint32_t order[BUILD_TILES * TILE_ROWS];
    for (uint32_t i = 0; i < count; i++)
        order[i] = (uint32_t)above + (halves ? b->row_of[first + i] : first + i);
    uint8_t *rows = malloc(count * tensor_row_bytes(t));
    if (!rows)
        return because(why, ERR_NOMEM, "no memory to build the weights of the model");
    enum err err = tensor_rows_read(t, 0, order, count, rows, why);
    if (err == OK)
        tiles_build((enum tensor_type)w->type, matrix + tile * tile_bytes, rows, count, w->cols, 0,
                    (uint32_t)(next - tile), NULL);
    free(rows);
    return err;
}

static enum err build_matrix(struct building *b, const struct tensor_slot *slot, const struct weight *w,
                             const struct gguf_tensor *t, struct why *why)
{
    uint64_t first, last, tile_bytes, matrix_bytes, row_bytes = t->bytes / ((uint64_t)slot->whole * slot->count);
    share_of(b, (w->rows + TILE_ROWS - 1) / TILE_ROWS, &first, &last);
    if (!tiles_row_tile_bytes((enum tensor_type)w->type, w->cols, &tile_bytes) ||
        !tiles_bytes((enum tensor_type)w->type, w->rows, w->cols, &matrix_bytes))
        must_not_reach(); /* the plan was checked */
    if (b->counting) {
        b->total += (last - first) * tile_bytes * w->count;
        return OK;
    }
    bool halves = slot->flags & ROLE_HALVES;
    for (uint32_t row = 0; halves && row < w->rows; row++)
        b->row_of[row] = row_in_halves(b->m, row);
    enum err err = OK;
    for (uint32_t i = 0; i < w->count; i++) {
        uint64_t above = (uint64_t)i * slot->whole + slot->first;
        uint8_t *matrix = b->weights + w->offset + i * matrix_bytes;
        for (uint64_t tile = first, next; tile < last && err == OK; tile = next) {
            next = tile + BUILD_TILES < last ? tile + BUILD_TILES : last;
            if (t->source)
                err = build_made_tiles(b, w, matrix, tile_bytes, t, above, tile, next, halves, why);
            else
                tiles_build((enum tensor_type)w->type, matrix, t->data + above * row_bytes, w->rows, w->cols,
                            (uint32_t)tile, (uint32_t)next, halves ? b->row_of : NULL);
            report(b, (next - tile) * tile_bytes);
        }
    }
    return err;
}

/* Vectors are small; every rank takes those elements of each that are its share. */
static enum err build_vector(struct building *b, const struct tensor_slot *slot, const struct weight_vector *v,
                             const struct gguf_tensor *t, struct why *why)
{
    uint64_t first, last, bytes = tensor_type_traits(t->type)->block_bytes;
    share_of(b, v->count, &first, &last);
    if (b->counting) {
        b->total += (last - first) * sizeof(float);
        return OK;
    }
    uint8_t *made = t->source ? malloc(t->bytes) : NULL;
    enum err err = OK;
    if (t->source)
        err = made ? tensor_rows_read(t, 0, NULL, 1, made, why)
                   : because(why, ERR_NOMEM, "no memory to build the weights of the model");
    const uint8_t *numbers = made ? made : t->data;
    float *out = (float *)(void *)(b->weights + v->offset);
    for (uint64_t i = first; i < last && err == OK; i++) {
        uint32_t from = slot->flags & ROLE_HALVES ? row_in_halves(b->m, (uint32_t)i) : (uint32_t)i;
        blocks_to_float(t->type, numbers + (slot->first + from) * bytes, 1, out + i);
    }
    free(made);
    report(b, (last - first) * sizeof(float));
    return err;
}

static enum err build_tensor(void *arg, const struct tensor_slot *slot, struct why *why)
{
    struct building *b = arg;
    bool absent = slot->is_vector ? slot_vector(b->m, slot)->count == 0 : slot_weight(b->m, slot)->rows == 0;
    if (slot->flags & ROLE_OPTIONAL && (absent || is_tied_head(b->m, slot)))
        return OK;
    const struct gguf_tensor *t = gguf_tensor_find(b->g, slot->name);
    if (!t || !has_shape(t, slot) ||
        (slot->is_vector ? !vectors_may_be(t->type) : (uint32_t)t->type != slot_weight(b->m, slot)->type))
        return because(why, ERR_FORMAT,
                       "the model file has changed since its plan was made: tensor \"%s\" is another one", slot->name);
    return slot->is_vector ? build_vector(b, slot, slot_vector(b->m, slot), t, why)
                           : build_matrix(b, slot, slot_weight(b->m, slot), t, why);
}

/* table[position][pair] = cos and sin of position * base^(-pair / pairs) / factor / factors[pair], in double until the end. */
static void build_rope(struct building *b, const struct weight_vector *v, double base, double factor,
                       const struct gguf_tensor *factors)
{
    const struct model *m = b->m;
    uint64_t first, last;
    share_of(b, v->count ? m->context : 0, &first, &last);
    uint64_t row_bytes = (uint64_t)m->rope_pairs * 2 * sizeof(float);
    if (b->counting) {
        b->total += (last - first) * row_bytes;
        return;
    }
    if (first == last)
        return;
    double turn[MODEL_MAX_HEAD_DIM / 2];
    for (uint32_t i = 0; i < m->rope_pairs; i++) {
        float slower = 1.0f;
        if (factors)
            memcpy(&slower, factors->data + 4 * i, sizeof slower);
        turn[i] = pow(base, -(double)i / (double)m->rope_pairs) / factor / (double)slower;
    }
    float *table = (float *)(void *)(b->weights + v->offset);
    for (uint64_t position = first; position < last; position++) {
        float *row = table + position * m->rope_pairs * 2;
        for (uint32_t i = 0; i < m->rope_pairs; i++) {
            row[2 * i] = (float)(cos((double)position * turn[i]) * (double)m->rope_magnitude);
            row[2 * i + 1] = (float)(sin((double)position * turn[i]) * (double)m->rope_magnitude);
        }
    }
    report(b, (last - first) * row_bytes);
}

/* Layers with a window may have a base of their own, and then no scaling: windows do not grow with the context. */
static enum err build_all(struct building *b, const struct gguf_tensor *factors, struct why *why)
{
    const struct model *m = b->m;
    enum err err = each_tensor(m, build_tensor, b, why);
    if (err != OK)
        return err;
    build_rope(b, &m->rope, (double)m->rope_base, (double)m->rope_factor, factors);
    build_rope(b, &m->rope_windowed, (double)m->rope_base_windowed, 1.0, NULL);
    return OK;
}

enum err model_build(const struct model *m, const struct gguf *g, uint8_t *weights, uint32_t rank, uint32_t ranks,
                     void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct why *why)
{
    must(rank < ranks && (uintptr_t)weights % VECTOR_ALIGN == 0);
    if (gguf_hash(g) != m->hash)
        return because(why, ERR_FORMAT, "the model file has changed since its plan was made: start again");
    const struct gguf_tensor *factors;
    enum err err = choose_factors(m, g, "the model file", NULL, &factors, why);
    if (err != OK)
        return err;
    struct building b = {
        .m = m, .g = g, .weights = weights, .rank = rank, .ranks = ranks, .progress = progress, .arg = arg};
    b.row_of = malloc((size_t)m->heads * m->head_dim * sizeof *b.row_of);
    if (!b.row_of)
        return because(why, ERR_NOMEM, "no memory to build the weights of the model");
    b.counting = true;
    err = build_all(&b, factors, why); /* finds a changed file before a byte is written */
    b.counting = false;
    if (err == OK)
        err = build_all(&b, factors, why);
    free(b.row_of);
    return err;
}
