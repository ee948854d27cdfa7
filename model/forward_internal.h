/*
 * forward_internal: the parts of which an arch_*.c puts its forward pass together. For forward*.c and arch_*.c only.
 *
 * Each part does what this rank takes of it and meets nobody; the pass says where ranks meet. Some parts hand rows out, one part at
 * most between two meetings; of others a rank has its even share, "my rows". Between two meetings every rank reads only what was
 * written before the first of them, and writes only what is its own or was handed to it.
 */
#ifndef QUIRE_MODEL_FORWARD_INTERNAL_H
#define QUIRE_MODEL_FORWARD_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "model/forward.h"

/* Which tokens go to which experts; every rank works it out for itself. */
struct expert_routes {
    float *logits;   /* (capacity, experts rounded up to 16); of the chosen ones then their shares */
    uint8_t *chosen; /* (capacity, experts) */
    uint32_t *first; /* (experts + 1): rows [first[e], first[e + 1]) are those of expert e */
    uint32_t *token; /* (capacity * experts_used), by row: ascending within an expert */
    float *share;    /* (capacity * experts_used), by row: what the token takes of the expert's answer */
    float *x;        /* (capacity, dim): inputs of one expert */
};

struct forward {
    const struct model *m;
    const uint8_t *weights;
    const struct kernels *k;
    uint32_t capacity, logit_rows;
    bool quantise;  /* some matrix is of a quantised type */
    bool share_in;  /* nothing reads the inputs of products but products with their codes */
    bool round_act; /* a network's activations may go to the other ranks as codes alone */

    /* forward_join */
    uint32_t rank, ranks;
    struct shared_buffers shared;
    struct handout handout;
    bool handed_out; /* something was, since the last meeting */
    meet_fn meet;
    void *meet_arg;

    /* private memory, one block */
    uint8_t *memory;
    float *x; /* (capacity, dim): normed rows */
    float *
        own_hidden; /* (the first tokens, dim): a residual stream of the rank's own; of models with norms on branches */
    float *out[2];  /* (capacity, CHUNK_ROWS): outputs on their way elsewhere */
    void *quantised; /* behind `in` */
    void *product_scratch;
    void *attention_scratch;
    void *blas_scratch; /* NULL: every product is the kernel set's */
    float *
        panel; /* (columns, 16) and a row: quantised weights widened to floats; NULL: inputs are rounded to 8 bits instead */

    struct expert_routes routes; /* of models with experts */

    /* of the step at hand */
    bool inputs_shared;    /* each rank rounds some tokens for all */
    float *hidden;         /* (tokens, dim): the residual stream, shared hidden or own_hidden */
    struct activations in; /* the inputs of the products that come next */
};

/* hidden[t] = embedding of token t, scaled, and its learned position where the model has those; every ranks-th row of hidden. */
void forward_embed(struct forward *f, const struct batch *b);

/* The next inputs: rms_norm(hidden) * weight, all rows. */
void forward_take_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight);

/*
 * The same, and rows of a shared buffer of `cols` columns, as inputs that ranks may share: of few tokens every rank rounds all rows for
 * itself; of many, where it can, its share of them. They are inputs behind forward_meet_for_inputs.
 */
void forward_share_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight);
void forward_share_rows(struct forward *f, const struct batch *b, const float *x, uint32_t cols);

/* The next inputs: layer_norm(hidden) * weight + bias, all rows. */
void forward_take_layer_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight,
                               const struct weight_vector *bias);

/* The next inputs: rows of a shared buffer of `cols` columns, all rows. */
void forward_take(struct forward *f, const struct batch *b, const float *x, uint32_t cols);

/*
 * My rows of q, k and v, with their biases and with heads normalised where the model does that: q, rotated, into shared q;
 * k, rotated, and v into the pages. Reads the inputs.
 */
void forward_qkv(struct forward *f, const struct batch *b, uint32_t layer);

/*
 * The same for models that normalise q and k whole, in two parts with a meeting between them: my rows of q, k into shared q, k and
 * of v into the pages, reading the inputs; then, for every ranks-th token, q and k normalised and rotated, and k into the pages.
 */
void forward_qkv_unnormed(struct forward *f, const struct batch *b, uint32_t layer);
void forward_norm_qk(struct forward *f, const struct batch *b, uint32_t layer);

/* My units of softmax(scale q k') v over the positions of each sequence so far, or in its window: shared q and pages into shared attn. */
void forward_attend(struct forward *f, const struct batch *b, uint32_t layer);

/* hidden += w x (+ bias). Reads the inputs. */
void forward_add(struct forward *f, const struct weight *w);
void forward_add_biased(struct forward *f, const struct weight *w, const struct weight_vector *bias);

/* In two parts with a meeting between them: branch = w x, reading the inputs; hidden += rms_norm(branch) * weight, every ranks-th row of hidden. */
void forward_branch(struct forward *f, const struct weight *w);
void forward_add_normed(struct forward *f, const struct batch *b, const struct weight_vector *weight);

/*
 * act = silu(gate x) * (up x), or gelu(gate x) * (up x). Reads the inputs. Behind the next meeting forward_take_gated makes
 * them the inputs: they may be in shared memory as codes only.
 */
void forward_gated(struct forward *f, const struct weight *gate, const struct weight *up);
void forward_gated_gelu(struct forward *f, const struct weight *gate, const struct weight *up);
void forward_take_gated(struct forward *f, const struct batch *b);

/* act = gelu(up x + bias). Reads the inputs. */
void forward_gelu(struct forward *f, const struct weight *up, const struct weight_vector *bias);

/* Sends each token to the experts whose logits, router x, are largest; of equal ones to the lowest. Reads the inputs, all of it. */
void forward_route(struct forward *f, const struct weight *router);

/*
 * In two parts with a meeting between them: act = silu(gate_e x) * (up_e x) for every expert e and its tokens, reading
 * the inputs; hidden += the sum, in order of e, of shares * (down_e act). Each rank does its even share of the rows. The routes stay as they are in between.
 */
void forward_experts_gated(struct forward *f, const struct weight *gate, const struct weight *up);
void forward_experts_add(struct forward *f, const struct weight *down);

/*
 * Asks for the beginning of this rank's share of what is multiplied behind the next meeting: w, or what layer `layer` begins
 * with (the head, when there is no such layer). While ranks wait for each other and normalise, nothing else is read,
 * and a step of few tokens takes as long as its weights take to read.
 */
void forward_fetch(const struct forward *f, const struct weight *w);
void forward_fetch_layer(const struct forward *f, uint32_t layer);

static inline enum err forward_meet(struct forward *f)
{
    f->handed_out = false;
    return f->meet ? f->meet(f->meet_arg) : OK;
}

static inline enum err forward_meet_for_inputs(struct forward *f)
{
    return f->inputs_shared ? forward_meet(f) : OK;
}

/*
 * The meeting behind forward_embed and forward_add_normed, which a rank that keeps the residual stream by itself can do without: all
 * rows of hidden are its own then, since nothing but norms of the shared branch is added to them. Of a few tokens that takes less time
 * than to meet and to read what others wrote.
 */
static inline enum err forward_meet_for_hidden(struct forward *f)
{
    return f->hidden == f->own_hidden ? OK : forward_meet(f);
}

#endif
