/*
 * arch_qwen3: Qwen3: Llama's pass with an RMSNorm on every head of queries and keys before they are rotated.
 * Yang et al., arXiv:2505.09388; QK norm: Dehghani et al., arXiv:2302.05442.
 *
 * Files of this family pair the halves of a head; building brings the pairs together, in the weights of those norms too.
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
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_v.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_q_norm.weight", offsetof(struct model_layer, q_norm), EXTENT_ONE, EXTENT_HEAD, ROLE_HALVES},
    {"attn_k_norm.weight", offsetof(struct model_layer, k_norm), EXTENT_ONE, EXTENT_HEAD, ROLE_HALVES},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"ffn_norm.weight", offsetof(struct model_layer, ffn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_gate.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {0},
};

const struct architecture arch_qwen3 = {
    .id = ARCH_QWEN3,
    .name = "qwen3",
    .roles = roles,
    .layer_roles = layer_roles,
    .run = arch_llama_run, /* forward_qkv normalises the heads */
};
