/*
 * arch_qwen2: Qwen2 and Qwen2.5: Llama's pass with biases on queries, keys and values. Yang et al., arXiv:2407.10671.
 *
 * Files of this family pair the halves of a head; building brings the pairs together.
 */
#include "model/arch.h"

static const struct tensor_role biases[] = {
    {"attn_q.bias", offsetof(struct model_layer, q_bias), EXTENT_ONE, EXTENT_HEADS, ROLE_HALVES},
    {"attn_k.bias", offsetof(struct model_layer, k_bias), EXTENT_ONE, EXTENT_KV_HEADS, ROLE_HALVES},
    {"attn_v.bias", offsetof(struct model_layer, v_bias), EXTENT_ONE, EXTENT_KV_HEADS, 0},
    {0},
};

const struct architecture arch_qwen2 = {
    .id = ARCH_QWEN2,
    .name = "qwen2",
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk_halves, roles_vo, biases, roles_gated_network},
    .run = arch_llama_run, /* forward_qkv adds the biases */
};
