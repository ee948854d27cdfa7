/*
 * arch_gemma3: Gemma 3, text: Gemma 2's pass with an RMSNorm on every head of queries and keys instead of the caps; five layers with
 * a sliding window to one that sees everything, and a RoPE base of their own for the former. Gemma team, arXiv:2503.19786.
 *
 * GGUF files hold the weights of the norms with the 1 added that the published ones leave out, and pair the halves of a head.
 */
#include "model/arch.h"

#include <math.h>

static void complete(struct model *m)
{
    m->embed_scale = sqrtf((float)m->dim);
    if (m->window > 0 && m->rope_base_windowed == 0.0f)
        m->rope_base_windowed = 10000.0f; /* files of before there was a key for it */
    if (m->layers == 62) /* 27B: scores are scaled by the dimensions that a head would have if heads made up dim */
        m->attn_scale = 1.0f / sqrtf((float)m->dim / (float)m->heads);
}

const struct architecture arch_gemma3 = {
    .id = ARCH_GEMMA3,
    .name = "gemma3",
    .window_period = 6,
    .roles = {roles_whole},
    .layer_roles = {roles_norms_before, roles_qk_halves, roles_qk_norms, roles_vo, roles_gated_network,
                    roles_norms_after},
    .complete = complete,
    .run = arch_gemma2_run, /* forward_qkv normalises the heads; there are no caps in its numbers */
};
