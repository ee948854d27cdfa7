/*
 * arch_phi3: Phi-3 and Phi-4-mini: Llama's pass; Wq, Wk, Wv stand in one tensor, Wgate and Wup in another, and rotation slows
 * down pair by pair ("longrope": one list of factors up to the original context, one beyond it; cos and sin grow by a constant).
 * Abdin et al., arXiv:2404.14219; longrope: Ding et al., arXiv:2402.13753.
 *
 * Which list: the long one when the context that is served exceeds the original one, for every sequence from its first
 * token on. A list chosen by the length of the moment would change under keys that lie in pages already.
 */
#include "model/arch.h"

static const struct tensor_role fused[] = {
    {"attn_qkv.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_qkv.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_qkv.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"ffn_up.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {0},
};

const struct architecture arch_phi3 = {
    .id = ARCH_PHI3,
    .name = "phi3",
    .window_period = MODEL_WINDOW_ALWAYS,
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, fused},
    .run = arch_llama_run,
};
