/*
 * arch_olmo2: OLMo 2: norms after each half of a layer instead of before it, and RMSNorm over all queries, and all keys, of a token.
 * OLMo team, arXiv:2501.00656.
 *
 * Files of this family pair the halves of a head; building brings the pairs together, in the weights of those norms too.
 */
#include "model/arch.h"
#include "model/forward_internal.h"

static const struct tensor_role roles[] = {
    {"token_embd.weight", offsetof(struct model, embed), EXTENT_VOCAB, EXTENT_DIM, 0},
    /* absent: the embedding again */
    {"output.weight", offsetof(struct model, head), EXTENT_VOCAB, EXTENT_DIM, ROLE_OPTIONAL},
    {"output_norm.weight", offsetof(struct model, out_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

static const struct tensor_role layer_roles[] = {
    {"attn_q.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_v.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_q_norm.weight", offsetof(struct model_layer, q_norm), EXTENT_ONE, EXTENT_HEADS, ROLE_HALVES},
    {"attn_k_norm.weight", offsetof(struct model_layer, k_norm), EXTENT_ONE, EXTENT_KV_HEADS, ROLE_HALVES},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"post_attention_norm.weight", offsetof(struct model_layer, attn_post_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_gate.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {"post_ffw_norm.weight", offsetof(struct model_layer, ffn_post_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

/* hidden is (tokens, dim). Each rank computes its own rows of every product; a meeting makes them everybody's. */
static enum err run(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;

    forward_embed(f, b); /* hidden = embedding of each token */
    if (forward_meet(f) != OK)
        return ERR_ABORTED;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const struct model_layer *l = &m->layer[layer];

        forward_take(f, b, f->shared.hidden, m->dim); /* x = hidden */
        forward_qkv_unnormed(f, b, layer);            /* q, k, v = Wq x, Wk x, Wv x; v to its pages */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_norm_qk(f, b, layer); /* rope(norm(q)), rope(norm(k)); k to its pages */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_attend(f, b, layer); /* attn = softmax(q k' / sqrt(head_dim)) v */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take(f, b, f->shared.attn, m->heads * m->head_dim);
        forward_branch(f, &l->o);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_add_normed(f, b, &l->attn_post_norm); /* hidden += norm(Wo attn) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;

        forward_take(f, b, f->shared.hidden, m->dim); /* x = hidden */
        forward_gated(f, &l->gate, &l->up);           /* act = silu(Wgate x) * (Wup x) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take(f, b, f->shared.act, m->ffn);
        forward_branch(f, &l->down);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_add_normed(f, b, &l->ffn_post_norm); /* hidden += norm(Wdown act) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
    }
    return OK;
}

const struct architecture arch_olmo2 = {
    .id = ARCH_OLMO2,
    .name = "olmo2",
    .roles = roles,
    .layer_roles = layer_roles,
    .run = run,
};
