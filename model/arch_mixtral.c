/*
 * arch_mixtral: Mixtral: Llama whose network is a choice of experts, a few for each token. Jiang et al., arXiv:2401.04088.
 *
 * GGUF files of this family call themselves "llama" and state a number of experts; they hold the rows of Wq and Wk so that rotated
 * pairs are neighbours.
 */
#include "model/arch.h"
#include "model/forward_internal.h"

/* hidden is (tokens, dim). Each rank computes some rows of every product; a meeting makes them everybody's. */
enum err arch_mixtral_run(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;

    forward_embed(f, b); /* hidden = embedding of each token */
    if (forward_meet(f) != OK)
        return ERR_ABORTED;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const struct model_layer *l = &m->layer[layer];

        forward_take_normed(f, b, &l->attn_norm); /* x = norm(hidden) */
        forward_qkv(f, b, layer); /* q, k, v = Wq x, Wk x, Wv x; rope(q), rope(k); k and v to their pages */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_attend(f, b, layer); /* attn = softmax(q k' / sqrt(head_dim)) v */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take(f, b, f->shared.attn, m->heads * m->head_dim);
        forward_add(f, &l->o); /* hidden += Wo attn */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;

        forward_take_normed(f, b, &l->ffn_norm);    /* x = norm(hidden) */
        forward_route(f, &l->router);               /* experts of each token, and shares = softmax(their logits) */
        forward_experts_gated(f, &l->gate, &l->up); /* act_e = silu(Wgate_e x) * (Wup_e x) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_experts_add(f, &l->down); /* hidden += sum of share_e * (Wdown_e act_e) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
    }
    return OK;
}

const struct architecture arch_mixtral = {
    .id = ARCH_MIXTRAL,
    .name = "llama",
    .mixture = true,
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk, roles_vo, roles_experts},
    .run = arch_mixtral_run,
};
