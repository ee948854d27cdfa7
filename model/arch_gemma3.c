/*
 * arch_gemma3: Gemma 3, text: Gemma 2's pass with an RMSNorm on every head of queries and keys instead of the caps; five layers with
 * a sliding window to one that sees everything, and a RoPE base of their own for the former. Gemma team, arXiv:2503.19786.
 *
 * GGUF files hold the weights of the norms with the 1 added that the published ones leave out, and pair the halves of a head.
 */
#include "model/arch.h"

#include <math.h>

static const struct tensor_role roles[] = {
    {"token_embd.weight", offsetof(struct model, embed), EXTENT_VOCAB, EXTENT_DIM, 0},
    /* absent: the embedding again */
    {"output.weight", offsetof(struct model, head), EXTENT_VOCAB, EXTENT_DIM, ROLE_OPTIONAL},
    {"output_norm.weight", offsetof(struct model, out_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

static const struct tensor_role layer_roles[] = {
    {"attn_norm.weight", offsetof(struct model_layer, attn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"attn_q.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_v.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_q_norm.weight", offsetof(struct model_layer, q_norm), EXTENT_ONE, EXTENT_HEAD, ROLE_HALVES},
    {"attn_k_norm.weight", offsetof(struct model_layer, k_norm), EXTENT_ONE, EXTENT_HEAD, ROLE_HALVES},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"post_attention_norm.weight", offsetof(struct model_layer, attn_post_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_norm.weight", offsetof(struct model_layer, ffn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_gate.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {"post_ffw_norm.weight", offsetof(struct model_layer, ffn_post_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

static void complete(struct model *m)
{
    m->embed_scale = sqrtf((float)m->dim);
    if (m->window > 0 && m->rope_base_windowed == 0.0f)
        m->rope_base_windowed = 10000.0f; /* files of before there was a key for it */
    if (m->layers == 62) /* 27B: scores are scaled by the dimensions that a head would have if heads made up dim */
        m->attn_scale = 1.0f / sqrtf((float)m->dim / (float)m->heads);
}

const struct architecture arch_gemma3 = {
    .id = ARCH_GEMMA3,
    .name = "gemma3",
    .window_period = 6,
    .roles = roles,
    .layer_roles = layer_roles,
    .complete = complete,
    .run = arch_gemma2_run, /* forward_qkv normalises the heads; there are no caps in its numbers */
};
