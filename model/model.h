/*
 * model: what a checkpoint is, as plain data that processes can share: hyperparameters and where each weight lies.
 *
 * struct model is position-independent (offsets into one weights block, no pointers), so it can stand in shared memory.
 * The GGUF file is needed only to build the weights block; afterwards nothing reads it again, so a file that is
 * replaced while a server runs changes nothing.
 */
#ifndef QUIRE_MODEL_MODEL_H
#define QUIRE_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"
#include "model/tiles.h"

enum {
    MODEL_MAX_LAYERS = 256,
    MODEL_MAX_DIM = 65536,
    MODEL_MAX_HEADS = 1024,
    MODEL_MAX_HEAD_DIM = 256,
    MODEL_MAX_FFN = 1 << 20,
    MODEL_MAX_VOCAB = 1 << 22,
    MODEL_MAX_CONTEXT = 1 << 20,
    MODEL_NAME_BYTES = 128,
};

enum arch { ARCH_LLAMA = 1 };

/* A matrix in tile layout (tiles.h); rows == 0: the model has none. */
struct weight {
    uint32_t type; /* enum tensor_type */
    uint32_t rows, cols;
    uint32_t reserved;
    uint64_t offset; /* bytes from the start of the weights block; a multiple of 64 */
};

/* count floats; count == 0: the model has none. */
struct weight_vector {
    uint64_t offset;
    uint64_t count;
};

struct model_layer {
    struct weight_vector attn_norm; /* (dim) */
    struct weight q, k, v;          /* (heads * head_dim, dim), (kv_heads * head_dim, dim) twice; pairs of rotary dimensions stand side by side */
    struct weight o;                /* (dim, heads * head_dim) */
    struct weight_vector ffn_norm;  /* (dim) */
    struct weight gate, up;         /* (ffn, dim) */
    struct weight down;             /* (dim, ffn) */
};

struct model {
    uint32_t arch;
    uint32_t layers, dim, heads, kv_heads, head_dim, ffn, vocab;
    uint32_t context;       /* positions that the RoPE table and the server serve */
    uint32_t context_train; /* as the file says */
    uint32_t rope_pairs;    /* rotated pairs of each head (rotary dimensions / 2) */
    float rms_eps;
    float attn_scale;  /* 1 / sqrtf(head_dim) */
    float rope_base;   /* pair i turns by base^(-2 i / (2 rope_pairs)) a position ... */
    float rope_factor; /* ... divided by this (linear scaling; 1: none) */
    uint64_t hash;    /* of the file's header; same model, same hash */
    uint64_t parameters;
    uint64_t file_bytes;
    char arch_name[32];
    char name[MODEL_NAME_BYTES]; /* general.name, or the file's base name */
    struct weight embed;            /* (vocab, dim) */
    struct weight head;             /* (vocab, dim); equal to embed when tied */
    struct weight_vector out_norm;  /* (dim) */
    struct weight_vector rope;      /* (context, rope_pairs, 2) cos and sin; made in double */
    uint64_t weights_bytes;         /* of the whole block */
    struct model_layer layer[MODEL_MAX_LAYERS];
};

/*
 * Reads hyperparameters and tensor shapes and plans the weights block. Refuses by name: unknown architectures, tensor
 * types without kernel, missing or misshapen tensors, values out of bounds.
 * context 0: as trained. A larger one than trained is refused.
 */
enum err model_plan(struct model *m, const struct gguf *g, const char *path, uint32_t context, struct why *why);

/* A plan that came from another process's memory: every offset and shape inside weights_bytes, every count in bounds. */
enum err model_check(const struct model *m, struct why *why);

/*
 * Builds share `rank` of `ranks` of the block at `weights` (64-byte aligned, weights_bytes long): a contiguous run of row tiles
 * of every matrix, and its part of the vectors and tables. Idempotent; all shares together make the whole.
 * progress (may be NULL) is called with bytes done of this share and of its total now and then.
 */
enum err model_build(const struct model *m, const struct gguf *g, uint8_t *weights, uint32_t rank, uint32_t ranks,
                     void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct why *why);

static inline struct tile_matrix model_matrix(const struct weight *w, const uint8_t *weights)
{
    return (struct tile_matrix){.type = (enum tensor_type)w->type, .rows = w->rows, .cols = w->cols, .tiles = weights + w->offset};
}

static inline const float *model_vector(const struct weight_vector *v, const uint8_t *weights)
{
    return (const float *)(const void *)(weights + v->offset);
}

/*
 * A KV page holds 16 positions of all layers: per layer and kv head K as [head_dim / 2][16][2], then V as [16][head_dim],
 * both f16. Offsets are bytes from the start of the page, multiples of 64.
 */
static inline uint64_t model_page_k_offset(const struct model *m, uint32_t layer, uint32_t kv_head)
{
    return ((uint64_t)layer * m->kv_heads + kv_head) * 2 * ((uint64_t)m->head_dim * 16 * sizeof(uint16_t));
}

static inline uint64_t model_page_v_offset(const struct model *m, uint32_t layer, uint32_t kv_head)
{
    return model_page_k_offset(m, layer, kv_head) + (uint64_t)m->head_dim * 16 * sizeof(uint16_t);
}

/* Bytes of one page. */
static inline uint64_t model_page_bytes(const struct model *m)
{
    return model_page_k_offset(m, m->layers, 0);
}

#endif
