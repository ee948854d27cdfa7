/*
 * arch_mistral: Mistral 7B: Llama's pass in which every layer sees a window of positions. Jiang et al., arXiv:2310.06825.
 *
 * GGUF files of these models call themselves "llama" and say no window; this name is what a directory with a window becomes (hub.h), and
 * what quire convert writes of one. Rows of Wq and Wk as in arch_llama.c.
 */
#include "model/arch.h"

const struct architecture arch_mistral = {
    .id = ARCH_MISTRAL,
    .name = "mistral",
    .window_period = MODEL_WINDOW_ALWAYS,
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk, roles_vo, roles_gated_network},
    .run = arch_llama_run,
};
