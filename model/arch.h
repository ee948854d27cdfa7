/*
 * arch: what one family of models adds to the common machinery: the names and shapes of its tensors, and its forward pass.
 * One arch_*.c a family, one line each in the table of arch.c. For files of model/ only.
 */
#ifndef QUIRE_MODEL_ARCH_H
#define QUIRE_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/forward.h"
#include "model/gguf.h"
#include "model/model.h"

/* A side of a tensor, in words of struct model. */
enum extent {
    EXTENT_ONE,      /* as rows: the tensor is a vector */
    EXTENT_DIM,      /* dim */
    EXTENT_HEADS,    /* heads * head_dim */
    EXTENT_KV_HEADS, /* kv_heads * head_dim */
    EXTENT_FFN,      /* ffn */
    EXTENT_VOCAB,    /* vocab */
};

/* A tensor of the family: its name in a GGUF file and the struct weight (or weight_vector) that it fills. */
struct tensor_role {
    const char *name; /* of a layer's tensor: what follows "blk.N." */
    size_t member;    /* offset in struct model, or in struct model_layer */
    enum extent rows, cols;
    bool optional;
};

struct architecture {
    enum arch id;
    const char *name; /* general.architecture */
    const struct tensor_role *roles; /* of the model as a whole; ended by a NULL name */
    const struct tensor_role *layer_roles;
    enum err (*run)(struct forward *f, const struct batch *b);
};

extern const struct architecture arch_llama;

/* NULL: this build has none of that name or number. */
const struct architecture *arch_named(struct gguf_string name);
const struct architecture *arch_numbered(uint32_t id);

#endif
