/*
 * arch_gemma2: Gemma 2: norms before and after both halves of a layer, a gated GELU network, scaled embeddings, attention scores and
 * logits capped softly, a sliding window in every other layer, the first of them included. Gemma team, arXiv:2408.00118.
 *
 * GGUF files hold the weights of the norms with the 1 added that the published ones leave out, and pair the halves of a head.
 */
#include "model/arch.h"

#include <math.h>

#include "model/forward_internal.h"

static void complete(struct model *m)
{
    m->embed_scale = sqrtf((float)m->dim);
    if (m->layers == 46) /* 27B: scores are scaled by the dimensions that a head would have if heads made up dim */
        m->attn_scale = 1.0f / sqrtf((float)m->dim / (float)m->heads);
}

/* hidden is (tokens, dim). Each rank computes some rows of every product; a meeting makes them everybody's. */
enum err arch_gemma2_run(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;

    forward_embed(f, b); /* hidden = sqrt(dim) * embedding of each token */
    forward_fetch_layer(f, 0);
    if (forward_meet_for_hidden(f) != OK)
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
        forward_attend(f, b, layer); /* attn = softmax(cap(scale q k')) v, in the window if there is one */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_share_rows(f, b, f->shared.attn, m->heads * m->head_dim);
        if (forward_meet_for_inputs(f) != OK)
            return ERR_ABORTED;
        forward_branch(f, &l->o);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_add_normed(f, b, &l->attn_post_norm); /* hidden += norm(Wo attn) */
        forward_fetch(f, &l->gate);
        if (forward_meet_for_hidden(f) != OK)
            return ERR_ABORTED;

        forward_share_normed(f, b, &l->ffn_norm); /* x = norm(hidden) */
        if (forward_meet_for_inputs(f) != OK)
            return ERR_ABORTED;
        forward_gated_gelu(f, &l->gate, &l->up); /* act = gelu(Wgate x) * (Wup x) */
        forward_fetch(f, &l->down);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take_gated(f, b);
        forward_branch(f, &l->down);
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_add_normed(f, b, &l->ffn_post_norm); /* hidden += norm(Wdown act) */
        forward_fetch_layer(f, layer + 1);
        if (forward_meet_for_hidden(f) != OK)
            return ERR_ABORTED;
    }
    return OK;
}

const struct architecture arch_gemma2 = {
    .id = ARCH_GEMMA2,
    .name = "gemma2",
    .window_period = 2,
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk_halves, roles_vo, roles_gated_network, roles_norms_after},
    .complete = complete,
    .run = arch_gemma2_run,
};
