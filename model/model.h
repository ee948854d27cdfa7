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
#include "model/kv_type.h"
#include "model/tiles.h"

enum {
    MODEL_MAX_LAYERS = 256,
    MODEL_MAX_DIM = 65536,
    MODEL_MAX_HEADS = 1024,
    MODEL_MAX_HEAD_DIM = 256,
    MODEL_MAX_FFN = 1 << 20,
    MODEL_MAX_VOCAB = 1 << 22,
    MODEL_MAX_CONTEXT = 1 << 20,
    MODEL_MAX_EXPERTS = 512,
    MODEL_NAME_BYTES = 128,
};

enum arch {
    ARCH_LLAMA = 1,
    ARCH_QWEN2,
    ARCH_QWEN3,
    ARCH_PHI3,
    ARCH_OLMO2,
    ARCH_GPT2,
    ARCH_GEMMA2,
    ARCH_GEMMA3,
    ARCH_MIXTRAL,
    ARCH_QWEN3MOE,
    ARCH_MISTRAL,
};

/* A matrix in tile layout (tiles.h); rows == 0: the model has none. */
struct weight {
    uint32_t type; /* enum tensor_type */
    uint32_t rows, cols;
    uint32_t count;  /* matrices of this shape, one after the other: as many as experts, or 1 */
    uint64_t offset; /* bytes from the start of the weights block; a multiple of 64 */
};

/* count floats; count == 0: the model has none. */
struct weight_vector {
    uint64_t offset;
    uint64_t count;
};

/* Of the members that a family has no use for, rows or count is 0. */
struct model_layer {
    struct weight_vector attn_norm, attn_norm_bias; /* (dim) */
    struct weight q, k,
        v; /* (heads * head_dim, dim), (kv_heads * head_dim, dim) twice; pairs of rotary dimensions stand side by side */
    struct weight_vector q_bias, k_bias, v_bias; /* as many as rows */
    struct weight_vector q_norm, k_norm; /* (head_dim), of every head; or of the whole vector, as many as rows */
    struct weight o;                     /* (dim, heads * head_dim) */
    struct weight_vector o_bias;         /* (dim) */
    struct weight_vector attn_post_norm; /* (dim): of what attention adds */
    struct weight_vector ffn_norm, ffn_norm_bias; /* (dim) */
    struct weight router;                         /* (experts, dim) */
    struct weight gate, up;                       /* (ffn, dim), or (expert_ffn, dim) of each expert */
    struct weight_vector up_bias;                 /* (ffn) */
    struct weight down;                           /* (dim, ffn), or (dim, expert_ffn) of each expert */
    struct weight_vector down_bias;               /* (dim) */
    struct weight_vector ffn_post_norm;           /* (dim): of what the network adds */
};

struct model {
    uint32_t arch;
    uint32_t layers, dim, heads, kv_heads, head_dim, ffn, vocab;
    uint32_t experts, experts_used,
        expert_ffn; /* of a mixture: how many, how many a token asks, rows of each; else 0 */
    uint32_t
        window; /* positions that a token sees, itself included, in layers that have a window; 0: all, everywhere */
    uint32_t window_period;    /* the last of each so many layers sees everything; MODEL_WINDOW_ALWAYS: none does */
    uint32_t context;          /* positions that the RoPE table and the server serve */
    uint32_t context_train;    /* as the file says */
    uint32_t context_original; /* above it the long RoPE factors hold; 0: the file has no such factors */
    uint32_t
        rope_pairs; /* rotated pairs of each head (rotary dimensions / 2); 0: positions are learned, nothing is rotated */
    float norm_eps;
    float attn_scale;         /* 1 / sqrtf(head_dim), but for a few */
    float rope_base;          /* pair i turns by base^(-2 i / (2 rope_pairs)) a position ... */
    float rope_factor;        /* ... divided by this (linear scaling; 1: none) */
    float rope_base_windowed; /* of layers with a window, without any scaling; 0: the same table as all */
    float rope_magnitude;     /* what cos and sin are multiplied by; 1: nothing */
    float embed_scale;        /* what embeddings are multiplied by; 1: nothing */
    float attn_softcap;       /* 0: none */
    float logit_softcap;      /* 0: none */
    uint32_t kv_type;         /* enum kv_type: how K and V lie in pages; model_plan says KV_F16 */
    uint64_t hash;            /* of the file's header; same model, same hash */
    uint64_t parameters;
    uint64_t file_bytes;
    char arch_name[32];
    char name[MODEL_NAME_BYTES];                  /* general.name, or the file's base name */
    struct weight embed;                          /* (vocab, dim) */
    struct weight positions;                      /* (context_train, dim): learned, added to the embeddings */
    struct weight head;                           /* (vocab, dim); equal to embed when tied */
    struct weight_vector out_norm, out_norm_bias; /* (dim) */
    struct weight_vector rope;                    /* (context, rope_pairs, 2) cos and sin; made in double */
    struct weight_vector rope_windowed; /* the same for layers with a window, when they have a base of their own */
    uint64_t weights_bytes;             /* of the whole block */
    struct model_layer layer[MODEL_MAX_LAYERS];
};

#define MODEL_WINDOW_ALWAYS UINT32_MAX

/*
 * Reads hyperparameters and tensor shapes and plans the weights block. Refuses by name: unknown architectures, tensor
 * types without kernel, missing or misshapen tensors, values out of bounds.
 * context 0: as trained. A larger one than trained is refused.
 */
enum err model_plan(struct model *m, const struct gguf *g, const char *path, uint32_t context, struct why *why);

/* Pages of another type from now on. ERR_UNSUPPORTED: the model's heads cannot be kept so. */
enum err model_set_kv_type(struct model *m, enum kv_type type, struct why *why);

/* A plan that came from another process's memory: every offset and shape inside weights_bytes, every count in bounds. */
enum err model_check(const struct model *m, struct why *why);

/*
 * Builds share `rank` of `ranks` of the block at `weights` (64-byte aligned, weights_bytes long): a contiguous run of row tiles
 * of every matrix, and its part of the vectors and tables. Idempotent; all shares together make the whole.
 * progress (may be NULL) is called with bytes done of this share and of its total now and then.
 */
enum err model_build(const struct model *m, const struct gguf *g, uint8_t *weights, uint32_t rank, uint32_t ranks,
                     void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct why *why);

/* Positions that a token sees in this layer, itself included; 0: all. */
static inline uint32_t model_window(const struct model *m, uint32_t layer)
{
    bool sees_everything =
        m->window == 0 || (m->window_period != MODEL_WINDOW_ALWAYS && (layer + 1) % m->window_period == 0);
    return sees_everything ? 0 : m->window;
}

static inline const struct weight_vector *model_rope(const struct model *m, uint32_t layer)
{
    return m->rope_windowed.count && model_window(m, layer) ? &m->rope_windowed : &m->rope;
}

/* The first, or only, matrix of w; model_expert: the one of an expert. */
static inline struct tile_matrix model_matrix(const struct weight *w, const uint8_t *weights)
{
    return (struct tile_matrix){
        .type = (enum tensor_type)w->type, .rows = w->rows, .cols = w->cols, .tiles = weights + w->offset};
}

static inline struct tile_matrix model_expert(const struct weight *w, uint32_t expert, const uint8_t *weights)
{
    struct tile_matrix matrix = model_matrix(w, weights);
    uint64_t bytes;
    if (tiles_bytes(matrix.type, w->rows, w->cols, &bytes)) /* as it is of every matrix that was planned */
        matrix.tiles += expert * bytes;
    return matrix;
}

static inline const float *model_vector(const struct weight_vector *v, const uint8_t *weights)
{
    return (const float *)(const void *)(weights + v->offset);
}

/* Bytes of K, or V, of one kv head in a page. */
static inline uint64_t model_page_side_bytes(const struct model *m)
{
    return kv_side_bytes((enum kv_type)m->kv_type, m->head_dim);
}

/*
 * Pages are of one class, or of two where a sequence can outgrow the window: then layers that see everything keep their K and V in
 * pages of class 0, layers with a window in pages of class 1. A class may be without a layer.
 */
enum { MODEL_PAGE_CLASSES = 2 };

/* The window of class 1; 0: all layers keep theirs in class 0. */
static inline uint32_t model_page_window(const struct model *m)
{
    return m->window < m->context ? m->window : 0;
}

static inline uint32_t model_page_classes(const struct model *m)
{
    return model_page_window(m) ? 2 : 1;
}

static inline uint32_t model_page_class(const struct model *m, uint32_t layer)
{
    return model_page_window(m) && model_window(m, layer) ? 1 : 0;
}

/* Layers of a class among the first `layers`. */
static inline uint32_t model_layers_of_class(const struct model *m, uint32_t page_class, uint32_t layers)
{
    if (!model_page_window(m))
        return page_class == 0 ? layers : 0;
    uint32_t whole = m->window_period == MODEL_WINDOW_ALWAYS ? 0 : layers / m->window_period;
    return page_class == 0 ? whole : layers - whole;
}

/*
 * A KV page holds 16 positions of all layers of its class: per layer and kv head a side of K, then one of V
 * (kv_type.h). Offsets are bytes from the start of the page, multiples of 64.
 */
static inline uint64_t model_page_k_offset(const struct model *m, uint32_t layer, uint32_t kv_head)
{
    uint64_t before = model_layers_of_class(m, model_page_class(m, layer), layer);
    return (before * m->kv_heads + kv_head) * 2 * model_page_side_bytes(m);
}

static inline uint64_t model_page_v_offset(const struct model *m, uint32_t layer, uint32_t kv_head)
{
    return model_page_k_offset(m, layer, kv_head) + model_page_side_bytes(m);
}

/* Bytes of one page; of a class without a layer 64, which hold nothing. */
static inline uint64_t model_page_bytes(const struct model *m, uint32_t page_class)
{
    uint64_t layers = model_layers_of_class(m, page_class, m->layers);
    return layers ? layers * m->kv_heads * 2 * model_page_side_bytes(m) : 64;
}

#endif
