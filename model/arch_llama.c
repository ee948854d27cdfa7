/*
 * arch_llama: Llama and what is built like it (SmolLM2, TinyLlama, Mistral): RMSNorm before each half of a
 * layer, grouped-query attention with rotary positions, a gated SiLU network. Touvron et al., arXiv:2302.13971; grouped
 * queries: arXiv:2305.13245; rotary positions: arXiv:2104.09864.
 *
 * GGUF files of this family hold the rows of Wq and Wk so that rotated pairs are neighbours.
 */
#include "model/arch.h"
#include "model/forward_internal.h"

/* hidden is (tokens, dim). Each rank computes some rows of every product; a meeting makes them everybody's. */
enum err arch_llama_run(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;

    forward_embed(f, b); /* hidden = embedding of each token */
    forward_fetch_layer(f, 0);
    if (forward_meet(f) != OK)
        return ERR_ABORTED;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const struct model_layer *l = &m->layer[layer];

        forward_share_normed(f, b, &l->attn_norm); /* x = norm(hidden) */
        if (forward_meet_for_inputs(f) != OK)
            return ERR_ABORTED;
        forward_qkv(f, b, layer); /* q, k, v = Wq x, Wk x, Wv x; rope(q), rope(k); k and v to their pages */
        forward_fetch(f, &l->o);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_attend(f, b, layer); /* attn = softmax(q k' / sqrt(head_dim)) v */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_share_rows(f, b, f->shared.attn, m->heads * m->head_dim);
        if (forward_meet_for_inputs(f) != OK)
            return ERR_ABORTED;
        forward_add(f, &l->o); /* hidden += Wo attn */
        forward_fetch(f, &l->gate);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;

        forward_share_normed(f, b, &l->ffn_norm); /* x = norm(hidden) */
        if (forward_meet_for_inputs(f) != OK)
            return ERR_ABORTED;
        forward_gated(f, &l->gate, &l->up); /* act = silu(Wgate x) * (Wup x) */
        forward_fetch(f, &l->down);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take_gated(f, b);
        forward_add(f, &l->down); /* hidden += Wdown act */
        forward_fetch_layer(f, layer + 1);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
    }
    return OK;
}

const struct architecture arch_llama = {
    .id = ARCH_LLAMA,
    .name = "llama",
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk, roles_vo, roles_gated_network},
    .run = arch_llama_run,
};
