/*
 * arch_mistral: Mistral 7B: Llama's pass in which every layer sees a window of positions. Jiang et al., arXiv:2310.06825.
 *
 * GGUF files of these models call themselves "llama" and say no window; this name is what a directory with a window becomes (hub.h), and
 * what quire convert writes of one. Rows of Wq and Wk as in arch_llama.c.
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
    {"attn_q.weight", offsetof(struct model_layer, q), EXTENT_HEADS, EXTENT_DIM, 0},
    {"attn_k.weight", offsetof(struct model_layer, k), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_v.weight", offsetof(struct model_layer, v), EXTENT_KV_HEADS, EXTENT_DIM, 0},
    {"attn_output.weight", offsetof(struct model_layer, o), EXTENT_DIM, EXTENT_HEADS, 0},
    {"ffn_norm.weight", offsetof(struct model_layer, ffn_norm), EXTENT_ONE, EXTENT_DIM, 0},
    {"ffn_gate.weight", offsetof(struct model_layer, gate), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_up.weight", offsetof(struct model_layer, up), EXTENT_FFN, EXTENT_DIM, 0},
    {"ffn_down.weight", offsetof(struct model_layer, down), EXTENT_DIM, EXTENT_FFN, 0},
    {0},
};

const struct architecture arch_mistral = {
    .id = ARCH_MISTRAL,
    .name = "mistral",
    .window_period = MODEL_WINDOW_ALWAYS,
    .roles = roles,
    .layer_roles = layer_roles,
    .run = arch_llama_run,
};
