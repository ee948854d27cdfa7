/* audit_clock: see audit_clock.h. */
#include "coordinator/audit_clock.h"

#include <stdlib.h>
#include <time.h>

#include "base/must.h"
#include "model/kernels/attend_blocks.h"

uint64_t audit_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc(); /* ten nanoseconds; a norm of one head takes a hundred */
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
}

/* ---- names ---- */

static const struct {
    const char *key, *words;
} names[] = {
#define X(part, key, words) [part] = {key, words},
    AUDIT_PARTS(X)
#undef X
};

const char *audit_part_key(enum audit_part part)
{
    return names[part].key;
}

const char *audit_part_words(enum audit_part part)
{
    return names[part].words;
}

/* ---- which weights belong to which part ---- */

struct owner {
    uint64_t offset; /* of a matrix or vector; the next one's is its end */
    uint32_t layer;
    enum audit_part part;
};

struct audit_map {
    const uint8_t *weights;
    uint32_t layers, count;
    struct owner owner[]; /* ascending offsets */
};

enum { OWNERS_OUTSIDE = 2, OWNERS_OF_A_LAYER = 15 };

static void add(struct audit_map *map, uint64_t offset, uint64_t count, uint32_t layer, enum audit_part part)
{
    if (count > 0)
        map->owner[map->count++] = (struct owner){offset, layer, part};
}

static void add_layer(struct audit_map *map, const struct model_layer *l, uint32_t layer)
{
    add(map, l->attn_norm.offset, l->attn_norm.count, layer, AUDIT_NORM);
    add(map, l->q.offset, l->q.rows, layer, AUDIT_QKV);
    add(map, l->k.offset, l->k.rows, layer, AUDIT_QKV);
    add(map, l->v.offset, l->v.rows, layer, AUDIT_QKV);
    add(map, l->q_norm.offset, l->q_norm.count, layer, AUDIT_QK_NORM);
    add(map, l->k_norm.offset, l->k_norm.count, layer, AUDIT_QK_NORM);
    add(map, l->o.offset, l->o.rows, layer, AUDIT_OUTPUT);
    add(map, l->attn_post_norm.offset, l->attn_post_norm.count, layer, AUDIT_NORM);
    add(map, l->ffn_norm.offset, l->ffn_norm.count, layer, AUDIT_NORM);
    add(map, l->router.offset, l->router.rows, layer, AUDIT_MLP);
    add(map, l->gate.offset, l->gate.rows, layer, AUDIT_MLP);
    add(map, l->up.offset, l->up.rows, layer, AUDIT_MLP);
    add(map, l->down.offset, l->down.rows, layer, AUDIT_MLP);
    add(map, l->ffn_post_norm.offset, l->ffn_post_norm.count, layer, AUDIT_NORM);
}

static int by_offset(const void *a, const void *b)
{
    const struct owner *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

enum err audit_map_open(struct audit_map **out, const struct model *m, const uint8_t *weights, struct why *why)
{
    size_t room = OWNERS_OUTSIDE + (size_t)m->layers * OWNERS_OF_A_LAYER;
    struct audit_map *map = calloc(1, sizeof *map + room * sizeof *map->owner);
    if (!map)
        return because(why, ERR_NOMEM, "no memory for an audit of %u layers", m->layers);
    map->weights = weights;
    map->layers = m->layers;
    add(map, m->out_norm.offset, m->out_norm.count, m->layers, AUDIT_NORM);
    add(map, m->head.offset, m->head.rows, m->layers, AUDIT_HEAD);
    for (uint32_t i = 0; i < m->layers; i++)
        add_layer(map, &m->layer[i], i);
    must(map->count <= room);
    qsort(map->owner, map->count, sizeof *map->owner, by_offset);
    *out = map;
    return OK;
}

void audit_map_close(struct audit_map *map)
{
    free(map);
}

/* The last owner that begins at or before the address. */
static const struct owner *owner_of(const struct audit_map *map, const void *weight)
{
    uint64_t offset = (uint64_t)((const uint8_t *)weight - map->weights);
    uint32_t low = 0, high = map->count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (map->owner[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return &map->owner[low];
}

/* ---- the clock of a thread ---- */

static _Thread_local struct audit_clock *mine;
static const struct kernels *real;
static struct kernels clocked;

/* Who gets the time between a kernel of this part and the next one: the loops of the pass around it. */
static enum audit_part behind(enum audit_part part)
{
    switch (part) {
    case AUDIT_QKV:
    case AUDIT_QK_NORM:
    case AUDIT_ROPE:
        return AUDIT_STORE;
    case AUDIT_SCORES:
        return AUDIT_SOFTMAX; /* soft caps */
    default:
        return part;
    }
}

static void charge(enum audit_part part)
{
    uint64_t now = audit_ticks();
    mine->spent[mine->layer][part] += now - mine->last;
    mine->last = now;
}

static void enter(enum audit_part part)
{
    charge(mine->part == AUDIT_WAIT ? part : mine->part);
}

static void leave(enum audit_part part)
{
    charge(part);
    mine->part = behind(part);
}

static enum audit_part enter_weight(const void *weight)
{
    const struct owner *owner = owner_of(mine->map, weight);
    bool met = mine->part == AUDIT_WAIT;
    if (!met)
        charge(mine->part);
    mine->layer = owner->layer;
    if (met)
        charge(owner->part);
    return owner->part;
}

void audit_clock_start(struct audit_clock *c)
{
    mine = c;
    c->layer = c->map->layers;
    c->part = AUDIT_EMBED;
    c->last = audit_ticks();
}

void audit_clock_wait(void)
{
    if (!mine)
        return;
    charge(mine->part);
    mine->part = AUDIT_WAIT;
}

void audit_clock_stop(void)
{
    charge(mine->part);
    mine = NULL;
}

/* ---- the kernels ---- */

static void quantize(const struct activations *a, uint32_t first_block, uint32_t end_block)
{
    enter(AUDIT_QUANTISE);
    real->quantize(a, first_block, end_block);
    leave(AUDIT_QUANTISE);
}

static void product(const struct tile_matrix *w, uint32_t first_tile, uint32_t last_tile, const struct activations *a,
                    float *y, size_t y_stride, enum product_mode mode, void *scratch)
{
    enum audit_part part = enter_weight(w->tiles);
    real->product(w, first_tile, last_tile, a, y, y_stride, mode, scratch);
    leave(part);
}

static void rms_norm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    enum audit_part part = enter_weight(weight);
    real->rms_norm(y, x, weight, n, eps);
    leave(part);
}

static void layer_norm_clocked(float *y, const float *x, const float *weight, const float *bias, uint32_t n, float eps)
{
    enum audit_part part = enter_weight(weight);
    real->layer_norm(y, x, weight, bias, n, eps);
    leave(part);
}

static void swiglu(float *out, const float *gate, const float *up, uint32_t n)
{
    enter(AUDIT_MLP);
    real->swiglu(out, gate, up, n);
    leave(AUDIT_MLP);
}

static void gelu(float *out, const float *x, const float *up, uint32_t n)
{
    enter(AUDIT_MLP);
    real->gelu(out, x, up, n);
    leave(AUDIT_MLP);
}

static void rope_rotate_clocked(float *x, uint32_t heads, size_t head_stride, uint32_t pairs, const float *cos_sin)
{
    enter(AUDIT_ROPE);
    real->rope_rotate(x, heads, head_stride, pairs, cos_sin);
    leave(AUDIT_ROPE);
}

/* ---- attention: the order is the sets' own, its steps have the clock around them ---- */

static void scores(const struct attention *a, const float *const *q, uint32_t rows, uint32_t first, uint32_t last,
                   float *score)
{
    enter(AUDIT_SCORES);
    real->attend_steps[a->kv_type].scores(a, q, rows, first, last, score);
    leave(AUDIT_SCORES);
}

static void soften(float *score, uint32_t first, uint32_t last, float *m, float *l)
{
    enter(AUDIT_SOFTMAX);
    real->attend_steps->soften(score, first, last, m, l);
    leave(AUDIT_SOFTMAX);
}

static void weigh(const struct attention *a, const float *score, uint32_t rows, uint32_t first, uint32_t last, float *o)
{
    enter(AUDIT_VALUES);
    real->attend_steps[a->kv_type].weigh(a, score, rows, first, last, o);
    leave(AUDIT_VALUES);
}

static void merge(float *o, const float *o1, uint32_t n, float f0, float f1)
{
    enter(AUDIT_VALUES);
    real->attend_steps->merge(o, o1, n, f0, f1);
    leave(AUDIT_VALUES);
}

static void divide(float *out, const float *o, uint32_t n, float l)
{
    enter(AUDIT_VALUES);
    real->attend_steps->divide(out, o, n, l);
    leave(AUDIT_VALUES);
}

static const struct attend_steps clocked_steps = {scores, soften, weigh, merge, divide};

static void attend_in_steps(const struct attention *a)
{
    attend_in_blocks(a, &clocked_steps);
}

static void attend_in_one(const struct attention *a)
{
    enter(AUDIT_ATTENTION);
    real->attend(a);
    leave(AUDIT_ATTENTION);
}

const struct kernels *audit_clock_kernels(const struct kernels *set)
{
    real = set;
    clocked = *set;
    clocked.quantize = quantize;
    clocked.product = product;
    clocked.rms_norm = rms_norm;
    clocked.layer_norm = layer_norm_clocked;
    clocked.swiglu = swiglu;
    clocked.gelu = gelu;
    clocked.rope_rotate = rope_rotate_clocked;
    clocked.attend = set->attend_steps ? attend_in_steps : attend_in_one;
    return &clocked;
}
