#include "model/tensor_roles.h"

const struct tensor_role roles_whole[] = {
    {"token_embd.weight", offsetof(struct model, embed), EXTENT_VOCAB, EXTENT_DIM, 0},
    /* absent: the embedding again */
    {"output.weight", offsetof(struct model, head), EXTENT_VOCAB, EXTENT_DIM, ROLE_OPTIONAL},
    {"output_norm.weight", offsetof(struct model, out_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

const struct tensor_role roles_norms_before[] = {
    {"attn_norm.weight", offsetof(struct model_layer, attn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_norm.weight", offsetof(struct model_layer, ffn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

const struct tensor_role roles_norms_after[] = {
    {"post_attention_norm.weight", offsetof(struct model_layer, attn_post_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"post_ffw_norm.weight", offsetof(struct model_layer, ffn_post_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {0},
};

const struct tensor_role roles_qk[] = {
    {"attn_q.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, 0},
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {0},
};

const struct tensor_role roles_qk_halves[] = {
    {"attn_q.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, ROLE_HALVES},
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, ROLE_HALVES},
    {0},
};

const struct tensor_role roles_vo[] = {
    {"attn_v.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {0},
};

const struct tensor_role roles_qk_norms[] = {
    {"attn_q_norm.weight", offsetof(struct model_layer, q_norm), EXTENT_ONE, EXTENT_HEAD, ROLE_HALVES},
    {"attn_k_norm.weight", offsetof(struct model_layer, k_norm), EXTENT_ONE, EXTENT_HEAD, ROLE_HALVES},
    {0},
};

const struct tensor_role roles_gated_network[] = {
    {"ffn_gate.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {0},
};

const struct tensor_role roles_experts[] = {
    {"ffn_gate_inp.weight", offsetof(struct model_layer, router), EXTENT_EXPERTS, EXTENT_DIM, 0},
    {"ffn_gate_exps.weight", offsetof(struct model_layer, gate), EXTENT_EXPERT_FFN, EXTENT_DIM, ROLE_PER_EXPERT},
    {"ffn_up_exps.weight", offsetof(struct model_layer, up), EXTENT_EXPERT_FFN, EXTENT_DIM, ROLE_PER_EXPERT},
    {"ffn_down_exps.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_EXPERT_FFN, ROLE_PER_EXPERT},
    {0},
};
