/*
 * arch_gpt2: GPT-2: learned positions, LayerNorm before each half of a layer, biases everywhere, a GELU network, all heads with keys
 * of their own. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; GELU: arXiv:1606.08415, its tanh form.
 */
#include "model/arch.h"
#include "model/forward_internal.h"

static const struct tensor_role roles[] = {
    {"token_embd.weight", offsetof(struct model, embed), EXTENT_VOCAB, EXTENT_DIM, 0},
    {"position_embd.weight", offsetof(struct model, positions), EXTENT_POSITIONS, EXTENT_DIM, 0},
    /* absent: the embedding again */
    {"output.weight", offsetof(struct model, head), EXTENT_VOCAB, EXTENT_DIM, ROLE_OPTIONAL},
    {"output_norm.weight", offsetof(struct model, out_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"output_norm.bias", offsetof(struct model, out_norm_bias), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

static const struct tensor_role layer_roles[] = {
    {"attn_norm.weight", offsetof(struct model_layer, attn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"attn_norm.bias", offsetof(struct model_layer, attn_norm_bias), EXTENT_ONE, EXTENT_DIM, 0},
    {"attn_qkv.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, 0},
    {"attn_qkv.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_qkv.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_qkv.bias", offsetof(struct model_layer, q_bias), EXTENT_ONE, EXTENT_HEADS, 0},
    {"attn_qkv.bias", offsetof(struct model_layer, k_bias), EXTENT_ONE, EXTENT_KV_HEADS, 0},
    {"attn_qkv.bias", offsetof(struct model_layer, v_bias), EXTENT_ONE, EXTENT_KV_HEADS, 0},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"attn_output.bias", offsetof(struct model_layer, o_bias), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_norm.weight", offsetof(struct model_layer, ffn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_norm.bias", offsetof(struct model_layer, ffn_norm_bias), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.bias", offsetof(struct model_layer, up_bias), EXTENT_ONE, EXTENT_FFN, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {"ffn_down.bias", offsetof(struct model_layer, down_bias), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

/* hidden is (tokens, dim). Each rank computes some rows of every product; a meeting makes them everybody's. */
static enum err run(struct forward *f, const struct batch *b)
{
    const struct model *m = f->m;

    forward_embed(f, b); /* hidden = embedding of each token + its position's */
    if (forward_meet(f) != OK)
        return ERR_ABORTED;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const struct model_layer *l = &m->layer[layer];

        forward_take_layer_normed(f, b, &l->attn_norm, &l->attn_norm_bias); /* x = norm(hidden) */
        forward_qkv(f, b, layer); /* q, k, v = W x + b; k and v to their pages */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_attend(f, b, layer); /* attn = softmax(q k' / sqrt(head_dim)) v */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take(f, b, f->shared.attn, m->heads * m->head_dim);
        forward_add_biased(f, &l->o, &l->o_bias); /* hidden += Wo attn + b */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;

        forward_take_layer_normed(f, b, &l->ffn_norm, &l->ffn_norm_bias); /* x = norm(hidden) */
        forward_gelu(f, &l->up, &l->up_bias);                             /* act = gelu(Wup x + b) */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
        forward_take(f, b, f->shared.act, m->ffn);
        forward_add_biased(f, &l->down, &l->down_bias); /* hidden += Wdown act + b */
        if (forward_meet(f) != OK)
            return ERR_ABORTED;
    }
    return OK;
}

const struct architecture arch_gpt2 = {
    .id = ARCH_GPT2,
    .name = "gpt2",
    .learned_positions = true,
    .roles = {roles},
    .layer_roles = {layer_roles},
    .run = run,
};
