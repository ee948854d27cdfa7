/*
 * arch_qwen2: Qwen2 and Qwen2.5: Llama's pass with biases on queries, keys and values. Yang et al., arXiv:2407.10671.
 *
 * Files of this family pair the halves of a head; building brings the pairs together.
 */
#include "model/arch.h"

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
    {"attn_q.bias", offsetof(struct model_layer, q_bias), EXTENT_ONE, EXTENT_HEADS, ROLE_HALVES},
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_k.bias", offsetof(struct model_layer, k_bias), EXTENT_ONE, EXTENT_KV_HEADS, ROLE_HALVES},
    {"attn_v.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_v.bias", offsetof(struct model_layer, v_bias), EXTENT_ONE, EXTENT_KV_HEADS, 0},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"ffn_norm.weight", offsetof(struct model_layer, ffn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_gate.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {0},
};

const struct architecture arch_qwen2 = {
    .id = ARCH_QWEN2,
    .name = "qwen2",
    .roles = roles,
    .layer_roles = layer_roles,
    .run = arch_llama_run, /* forward_qkv adds the biases */
};
