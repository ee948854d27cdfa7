/*
 * arch_qwen3: Qwen3: Llama's pass with an RMSNorm on every head of queries and keys before they are rotated.
 * Yang et al., arXiv:2505.09388; QK norm: Dehghani et al., arXiv:2302.05442.
 *
 * Files of this family pair the halves of a head; building brings the pairs together, in the weights of those norms too.
 */
#include "model/arch.h"

const struct architecture arch_qwen3 = {
    .id = ARCH_QWEN3,
    .name = "qwen3",
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk_halves, roles_qk_norms, roles_vo, roles_gated_network},
    .run = arch_llama_run, /* forward_qkv normalises the heads */
};
