/*
 * arch_qwen3moe: Qwen3 with experts: Mixtral's pass with an RMSNorm on every head of queries and keys, and experts of a width of
 * their own. The shares of the chosen experts make 1. Yang et al., arXiv:2505.09388.
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
    {"ffn_gate_inp.weight", offsetof(struct model_layer, router), EXTENT_EXPERTS, EXTENT_DIM, 0},
    {"ffn_gate_exps.weight", offsetof(struct model_layer, gate), EXTENT_EXPERT_FFN, EXTENT_DIM, ROLE_PER_EXPERT},
    {"ffn_up_exps.weight", offsetof(struct model_layer, up), EXTENT_EXPERT_FFN, EXTENT_DIM, ROLE_PER_EXPERT},
    {"ffn_down_exps.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_EXPERT_FFN, ROLE_PER_EXPERT},
    {0},
};

const struct architecture arch_qwen3moe = {
    .id = ARCH_QWEN3MOE,
    .name = "qwen3moe",
    .mixture = true,
    .roles = roles,
    .layer_roles = layer_roles,
    .run = arch_mixtral_run, /* forward_qkv normalises the heads */
};
