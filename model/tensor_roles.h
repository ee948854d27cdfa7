/*
 * tensor_roles: what a tensor of a GGUF file is to a model: its name, its sides in words of struct model, and the member that it fills;
 * and the groups of tensors that several families have. For arch*.c and model_*.c.
 */
#ifndef QUIRE_MODEL_TENSOR_ROLES_H
#define QUIRE_MODEL_TENSOR_ROLES_H

#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

/* A side of a tensor. */
enum extent {
    EXTENT_ONE,        /* as rows: the tensor is a vector */
    EXTENT_DIM,        /* dim */
    EXTENT_HEAD,       /* head_dim */
    EXTENT_HEADS,      /* heads * head_dim */
    EXTENT_KV_HEADS,   /* kv_heads * head_dim */
    EXTENT_FFN,        /* ffn */
    EXTENT_EXPERTS,    /* experts */
    EXTENT_EXPERT_FFN, /* expert_ffn */
    EXTENT_POSITIONS,  /* context_train */
    EXTENT_VOCAB,      /* vocab */
};

enum {
    ROLE_OPTIONAL = 1,
    ROLE_PER_EXPERT = 2, /* one matrix for each expert, one after the other */
    ROLE_HALVES = 4, /* rows of heads in which the file pairs rotary dimension i with i + rope_pairs: neighbours here */
};

/*
 * The tensor's name and the struct weight (or weight_vector) that it fills. Roles of one name that follow one another in a group share
 * that tensor: its rows are theirs in this order.
 */
struct tensor_role {
    const char *name; /* of a layer's tensor: what follows "blk.N." */
    size_t member;    /* offset in struct model, or in struct model_layer */
    enum extent rows, cols;
    uint32_t flags;
};

/*
 * A group is a list of roles that ends with a NULL name. The weights block holds a layer's groups in the order in which its family
 * names them. Of the model as a whole:
 */
extern const struct tensor_role roles_whole[]; /* embedding, head, the last RMSNorm */

/* Of a layer: */
extern const struct tensor_role roles_norms_before[];  /* RMSNorm of what enters each half */
extern const struct tensor_role roles_norms_after[];   /* RMSNorm of what each half adds */
extern const struct tensor_role roles_qk[];            /* Wq and Wk; rotated pairs are neighbours in the file */
extern const struct tensor_role roles_qk_halves[];     /* Wq and Wk; the file pairs halves of heads */
extern const struct tensor_role roles_qk_norms[];      /* RMSNorm on every head of queries and keys; halves */
extern const struct tensor_role roles_vo[];            /* Wv and Wo */
extern const struct tensor_role roles_gated_network[]; /* Wgate, Wup, Wdown */
extern const struct tensor_role roles_experts[];       /* the router, and those three of each expert */

#endif
