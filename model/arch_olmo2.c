/*
 * arch_olmo2: OLMo 2: norms after each half of a layer instead of before it, and RMSNorm over all queries, and all keys, of a token.
 * OLMo team, arXiv:2501.00656.
 *
 * Files of this family pair the halves of a head; building brings the pairs together, in the weights of those norms too.
 */
#include "model/arch.h"
#include "model/forward_internal.h"

static const struct tensor_role norms_of_all_heads[] = {
    {"attn_q_norm.weight", offsetof(struct model_layer, q_norm), EXTENT_ONE, EXTENT_HEADS, ROLE_HALVES},
    {"attn_k_norm.weight", offsetof(struct model_layer, k_norm), EXTENT_ONE, EXTENT_KV_HEADS, ROLE_HALVES},
    {0},
};

/* hidden is (tokens, dim). Each rank computes some rows of every product; a meeting makes them everybody's. */
static enum err run(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;

    forward_embed(f, b); /* hidden = embedding of each token */
    if (forward_meet_for_hidden(f) != OK)
        return ERR_ABORTED;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const struct model_layer *l = &m->layer[layer];

        forward_take(f, b, f->hidden, m->dim); /* x = hidden */
        forward_qkv_unnormed(f, b, layer);     /* q, k, v = Wq x, Wk x, Wv x; v to its pages */
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
        if (forward_meet_for_hidden(f) != OK)
            return ERR_ABORTED;

        forward_take(f, b, f->hidden, m->dim); /* x = hidden */
        forward_gated(f, &l->gate, &l->up);    /* act = silu(Wgate x) * (Wup x) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take_gated(f, b);
        forward_branch(f, &l->down);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_add_normed(f, b, &l->ffn_post_norm); /* hidden += norm(Wdown act) */
        if (forward_meet_for_hidden(f) != OK)
            return ERR_ABORTED;
    }
    return OK;
}

const struct architecture arch_olmo2 = {
    .id = ARCH_OLMO2,
    .name = "olmo2",
    .roles = {roles_whole},
    .layer_roles = {roles_qk_halves, norms_of_all_heads, roles_vo, roles_gated_network, roles_norms_after},
    .run = run,
};
