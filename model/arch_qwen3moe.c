/*
 * arch_qwen3moe: Qwen3 with experts: Mixtral's pass with an RMSNorm on every head of queries and keys, and experts of a width of
 * their own. The shares of the chosen experts make 1. Yang et al., arXiv:2505.09388.
 *
 * Files of this family pair the halves of a head; building brings the pairs together, in the weights of those norms too.
 */
#include "model/arch.h"

const struct architecture arch_qwen3moe = {
    .id = ARCH_QWEN3MOE,
    .name = "qwen3moe",
    .mixture = true,
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk_halves, roles_qk_norms, roles_vo, roles_experts},
    .run = arch_mixtral_run, /* forward_qkv normalises the heads */
};
