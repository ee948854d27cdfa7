/*
 * model_internal: what planning, checking and building a model share: the walk over its tensors and their places. For model*.c only.
 *
 * The tensors of an architecture are named once, in its groups of roles (tensor_roles.h); everything walks them through
 * model_each_tensor, in the one order in which the weights block holds them. A tensor of the file may be shared by several members,
 * each with a run of its rows ("fused" projections), and its rows may come in another order than here (halves of a head that are
 * rotated together): both are settled when weights are built.
 */
#ifndef QUIRE_MODEL_MODEL_INTERNAL_H
#define QUIRE_MODEL_MODEL_INTERNAL_H

#include "model/model.h"

enum {
    MATRIX_ALIGN = 4096, /* pages: a rank's first touch of its rows places little of its neighbour's */
    VECTOR_ALIGN = 64,
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

/* fn for every member that the architecture of *m names, until one fails. The numbers of *m are in bounds. */
enum err model_each_tensor(const struct model *m, tensor_fn fn, void *arg, struct why *why);

static inline const struct weight *slot_weight(const struct model *m, const struct tensor_slot *slot)
{
    return (const struct weight *)(const void *)((const char *)m + slot->member);
}

static inline const struct weight_vector *slot_vector(const struct model *m, const struct tensor_slot *slot)
{
    return (const struct weight_vector *)(const void *)((const char *)m + slot->member);
}

/* A tied head has no tensor and no tiles of its own: it is the embedding. */
static inline bool is_tied_head(const struct model *m, const struct tensor_slot *slot)
{
    return slot->member == offsetof(struct model, head) && m->head.offset == m->embed.offset;
}

/* Types that vectors of a file may have; the shape that the slot asks for. */
bool model_vectors_may_be(enum tensor_type type);
bool model_has_shape(const struct gguf_tensor *t, const struct tensor_slot *slot);

/*
 * Places behind *end, which moves: the same for planning and checking. Rows, counts and types are set. False: too large.
 * model_place_rope follows the tensors, and ends the block.
 */
bool model_place_matrix(uint64_t *end, struct weight *w);
bool model_place_vector(uint64_t *end, struct weight_vector *v);
bool model_place_rope(uint64_t *end, struct model *m);

#endif
