/*
 * hub_families: the families of models that directories may hold, each in words of config.json and of GGUF: a table of numbers, one of
 * tensors, and a function for what follows from more than one key. Names and defaults: the families' files in
 * https://github.com/huggingface/transformers/tree/main/src/transformers/models
 *
 * What a config says and no table names is either of no consequence for the result (dropout, initialisation) or checked by the family's
 * own function; a tensor that no table names is refused.
 */
#include <stdio.h>
#include <string.h>

#include "model/hub_internal.h"

/* ---- numbers and tensors ---- */

#define LLAMA_NUMBERS                                                                                    \
    {"num_hidden_layers", "block_count", false, true}, {"hidden_size", "embedding_length", false, true}, \
        {"intermediate_size", "feed_forward_length", false, true},                                       \
        {"num_attention_heads", "attention.head_count", false, true},                                    \
        {"num_key_value_heads", "attention.head_count_kv", false, false},                                \
        {"max_position_embeddings", "context_length", false, true},                                      \
    {                                                                                                    \
        "rms_norm_eps", "attention.layer_norm_rms_epsilon", true, true                                   \
    }

static const struct hub_number llama_numbers[] = {LLAMA_NUMBERS, {0}};

static const struct hub_number gemma_numbers[] = {
    LLAMA_NUMBERS,
    {"attn_logit_softcapping", "attn_logit_softcapping", true, false},
    {"final_logit_softcapping", "final_logit_softcapping", true, false},
    {0},
};

static const struct hub_number mixtral_numbers[] = {
    LLAMA_NUMBERS,
    {"num_local_experts", "expert_count", false, true},
    {"num_experts_per_tok", "expert_used_count", false, true},
    {0},
};

static const struct hub_number qwen3_moe_numbers[] = {
    LLAMA_NUMBERS,
    {"num_experts", "expert_count", false, true},
    {"num_experts_per_tok", "expert_used_count", false, true},
    {"moe_intermediate_size", "expert_feed_forward_length", false, true},
    {0},
};

static const struct hub_number gpt2_numbers[] = {
    {"n_layer", "block_count", false, true},
    {"n_embd", "embedding_length", false, true},
    {"n_head", "attention.head_count", false, true},
    {"n_positions", "context_length", false, true},
    {"layer_norm_epsilon", "attention.layer_norm_epsilon", true, true},
    {0},
};

#define WHOLE                                                                                              \
    {"model.embed_tokens.weight", "token_embd.weight", 0}, {"lm_head.weight", "output.weight", PART_HEAD}, \
    {                                                                                                      \
        "model.norm.weight", "output_norm.weight", 0                                                       \
    }
#define LAYER(part) "model.layers.%u." part
#define ATTENTION(order)                                                    \
    {LAYER("self_attn.q_proj.weight"), "blk.%u.attn_q.weight", order},      \
        {LAYER("self_attn.k_proj.weight"), "blk.%u.attn_k.weight", order},  \
        {LAYER("self_attn.v_proj.weight"), "blk.%u.attn_v.weight", 0},      \
        {LAYER("self_attn.o_proj.weight"), "blk.%u.attn_output.weight", 0}, \
    {                                                                       \
        LAYER("self_attn.rotary_emb.inv_freq"), NULL, PART_IGNORED          \
    }
#define NETWORK                                                    \
    {LAYER("mlp.gate_proj.weight"), "blk.%u.ffn_gate.weight", 0},  \
        {LAYER("mlp.up_proj.weight"), "blk.%u.ffn_up.weight", 0},  \
    {                                                              \
        LAYER("mlp.down_proj.weight"), "blk.%u.ffn_down.weight", 0 \
    }
#define NORMS_BEFORE                                                          \
    {LAYER("input_layernorm.weight"), "blk.%u.attn_norm.weight", 0},          \
    {                                                                         \
        LAYER("post_attention_layernorm.weight"), "blk.%u.ffn_norm.weight", 0 \
    }

static const struct hub_tensor llama_tensors[] = {WHOLE, ATTENTION(PART_HALVES), NETWORK, NORMS_BEFORE, {0}};

static const struct hub_tensor qwen2_tensors[] = {
    WHOLE,
    ATTENTION(0),
    NETWORK,
    NORMS_BEFORE,
    {LAYER("self_attn.q_proj.bias"), "blk.%u.attn_q.bias", 0},
    {LAYER("self_attn.k_proj.bias"), "blk.%u.attn_k.bias", 0},
    {LAYER("self_attn.v_proj.bias"), "blk.%u.attn_v.bias", 0},
    {0},
};

static const struct hub_tensor qwen3_tensors[] = {
    WHOLE,
    ATTENTION(0),
    NETWORK,
    NORMS_BEFORE,
    {LAYER("self_attn.q_norm.weight"), "blk.%u.attn_q_norm.weight", 0},
    {LAYER("self_attn.k_norm.weight"), "blk.%u.attn_k_norm.weight", 0},
    {0},
};

static const struct hub_tensor olmo2_tensors[] = {
    WHOLE,
    ATTENTION(0),
    NETWORK,
    {LAYER("self_attn.q_norm.weight"), "blk.%u.attn_q_norm.weight", 0},
    {LAYER("self_attn.k_norm.weight"), "blk.%u.attn_k_norm.weight", 0},
    {LAYER("post_attention_layernorm.weight"), "blk.%u.post_attention_norm.weight", 0},
    {LAYER("post_feedforward_layernorm.weight"), "blk.%u.post_ffw_norm.weight", 0},
    {0},
};

/* Wq, Wk and Wv in one tensor, as in GGUF; so are Wgate and Wup, which GGUF calls up. */
static const struct hub_tensor phi3_tensors[] = {
    WHOLE,
    {LAYER("self_attn.qkv_proj.weight"), "blk.%u.attn_qkv.weight", 0},
    {LAYER("self_attn.o_proj.weight"), "blk.%u.attn_output.weight", 0},
    {LAYER("self_attn.rotary_emb.inv_freq"), NULL, PART_IGNORED},
    {LAYER("mlp.gate_up_proj.weight"), "blk.%u.ffn_up.weight", 0},
    {LAYER("mlp.down_proj.weight"), "blk.%u.ffn_down.weight", 0},
    NORMS_BEFORE,
    {0},
};

static const struct hub_tensor mixtral_tensors[] = {
    WHOLE,
    ATTENTION(PART_HALVES),
    NORMS_BEFORE,
    {LAYER("block_sparse_moe.gate.weight"), "blk.%u.ffn_gate_inp.weight", 0},
    {LAYER("block_sparse_moe.experts.%u.w1.weight"), "blk.%u.ffn_gate_exps.weight", PART_PER_EXPERT},
    {LAYER("block_sparse_moe.experts.%u.w3.weight"), "blk.%u.ffn_up_exps.weight", PART_PER_EXPERT},
    {LAYER("block_sparse_moe.experts.%u.w2.weight"), "blk.%u.ffn_down_exps.weight", PART_PER_EXPERT},
    {0},
};

static const struct hub_tensor qwen3_moe_tensors[] = {
    WHOLE,
    ATTENTION(0),
    NORMS_BEFORE,
    {LAYER("self_attn.q_norm.weight"), "blk.%u.attn_q_norm.weight", 0},
    {LAYER("self_attn.k_norm.weight"), "blk.%u.attn_k_norm.weight", 0},
    {LAYER("mlp.gate.weight"), "blk.%u.ffn_gate_inp.weight", 0},
    {LAYER("mlp.experts.%u.gate_proj.weight"), "blk.%u.ffn_gate_exps.weight", PART_PER_EXPERT},
    {LAYER("mlp.experts.%u.up_proj.weight"), "blk.%u.ffn_up_exps.weight", PART_PER_EXPERT},
    {LAYER("mlp.experts.%u.down_proj.weight"), "blk.%u.ffn_down_exps.weight", PART_PER_EXPERT},
    {0},
};

/* Gemma's norms: the 1 is left out, and stands before and after each half. */
#define GEMMA                                                                                              \
    {"model.embed_tokens.weight", "token_embd.weight", 0}, {"lm_head.weight", "output.weight", PART_HEAD}, \
        {"model.norm.weight", "output_norm.weight", PART_PLUS_ONE}, ATTENTION(0), NETWORK,                 \
        {LAYER("input_layernorm.weight"), "blk.%u.attn_norm.weight", PART_PLUS_ONE},                       \
        {LAYER("post_attention_layernorm.weight"), "blk.%u.post_attention_norm.weight", PART_PLUS_ONE},    \
        {LAYER("pre_feedforward_layernorm.weight"), "blk.%u.ffn_norm.weight", PART_PLUS_ONE},              \
    {                                                                                                      \
        LAYER("post_feedforward_layernorm.weight"), "blk.%u.post_ffw_norm.weight", PART_PLUS_ONE           \
    }

static const struct hub_tensor gemma2_tensors[] = {GEMMA, {0}};

static const struct hub_tensor gemma3_tensors[] = {
    GEMMA,
    {LAYER("self_attn.q_norm.weight"), "blk.%u.attn_q_norm.weight", PART_PLUS_ONE},
    {LAYER("self_attn.k_norm.weight"), "blk.%u.attn_k_norm.weight", PART_PLUS_ONE},
    {0},
};

/* GPT-2's matrices are those of a convolution of width 1: inputs are rows. */
static const struct hub_tensor gpt2_tensors[] = {
    {"transformer.wte.weight", "token_embd.weight", 0},
    {"transformer.wpe.weight", "position_embd.weight", 0},
    {"lm_head.weight", "output.weight", PART_HEAD},
    {"transformer.ln_f.weight", "output_norm.weight", 0},
    {"transformer.ln_f.bias", "output_norm.bias", 0},
    {"transformer.h.%u.ln_1.weight", "blk.%u.attn_norm.weight", 0},
    {"transformer.h.%u.ln_1.bias", "blk.%u.attn_norm.bias", 0},
    {"transformer.h.%u.attn.c_attn.weight", "blk.%u.attn_qkv.weight", PART_TRANSPOSED},
    {"transformer.h.%u.attn.c_attn.bias", "blk.%u.attn_qkv.bias", 0},
    {"transformer.h.%u.attn.c_proj.weight", "blk.%u.attn_output.weight", PART_TRANSPOSED},
    {"transformer.h.%u.attn.c_proj.bias", "blk.%u.attn_output.bias", 0},
    {"transformer.h.%u.ln_2.weight", "blk.%u.ffn_norm.weight", 0},
    {"transformer.h.%u.ln_2.bias", "blk.%u.ffn_norm.bias", 0},
    {"transformer.h.%u.mlp.c_fc.weight", "blk.%u.ffn_up.weight", PART_TRANSPOSED},
    {"transformer.h.%u.mlp.c_fc.bias", "blk.%u.ffn_up.bias", 0},
    {"transformer.h.%u.mlp.c_proj.weight", "blk.%u.ffn_down.weight", PART_TRANSPOSED},
    {"transformer.h.%u.mlp.c_proj.bias", "blk.%u.ffn_down.bias", 0},
    {"transformer.h.%u.attn.bias", NULL, PART_IGNORED}, /* the causal mask, as a buffer */
    {"transformer.h.%u.attn.masked_bias", NULL, PART_IGNORED},
    {0},
};

/* ---- what follows from more than one key ---- */

static void put_head_dim(struct hub_translation *t)
{
    hub_put_count(t, "attention.key_length", t->head_dim);
    hub_put_count(t, "attention.value_length", t->head_dim);
}

static void refuse_true(struct hub_translation *t, const char *key)
{
    if (json_is_true(hub_value(t->config, key)))
        hub_refuse(t, key, "is true, which is not supported");
}

static void refuse_false(struct hub_translation *t, const char *key)
{
    if (json_is_false(hub_value(t->config, key)))
        hub_refuse(t, key, "is false, which is not supported");
}

static void finish_llama(struct hub_translation *t)
{
    put_head_dim(t);
    hub_put_rope(t, hub_rope_scaling(t), hub_number(t, t->config, "rope_theta", 10000.0f), t->head_dim);
}

static void finish_mistral(struct hub_translation *t)
{
    finish_llama(t);
    uint32_t window = hub_count(t, t->config, "sliding_window", 0);
    if (window > 0)
        hub_put_count(t, "attention.sliding_window", window);
}

static void finish_mixtral(struct hub_translation *t)
{
    finish_llama(t);
    if (hub_count(t, t->config, "sliding_window", 0) > 0)
        hub_refuse(t, "sliding_window", "is not supported for mixtures of experts");
}

static void finish_qwen(struct hub_translation *t)
{
    refuse_true(t, "use_sliding_window");
    finish_llama(t);
}

static void finish_qwen3_moe(struct hub_translation *t)
{
    finish_qwen(t);
    refuse_false(t, "norm_topk_prob");
    if (!hub_value(t->config, "norm_topk_prob"))
        hub_refuse(t, "norm_topk_prob", "is not there, which means false; that is not supported");
    if (hub_count(t, t->config, "decoder_sparse_step", 1) != 1 ||
        json_array_size(hub_value(t->config, "mlp_only_layers")) > 0)
        hub_refuse(t, "mlp_only_layers",
                   "or decoder_sparse_step asks for layers without experts, which are not supported");
}

static void finish_phi3(struct hub_translation *t)
{
    const json_t *scaling = hub_rope_scaling(t);
    float part =
        hub_number(t, scaling, "partial_rotary_factor", hub_number(t, t->config, "partial_rotary_factor", 1.0f));
    if (!(part > 0.0f && part <= 1.0f))
        hub_refuse(t, "partial_rotary_factor", "is no part of a whole");
    else
        hub_put_rope(t, scaling, hub_number(t, t->config, "rope_theta", 10000.0f),
                     (uint32_t)((float)t->head_dim * part));
    put_head_dim(t);
    hub_put_count(t, "attention.sliding_window", hub_count(t, t->config, "sliding_window", 0));
}

/* Windowed layers, and after so many one that sees everything; `otherwise` where layer_types does not say. */
static void put_pattern(struct hub_translation *t, uint32_t otherwise)
{
    const json_t *types = hub_value(t->config, "layer_types");
    uint32_t period = 0;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool full = type && strcmp(type, "full_attention") == 0;
        if (!type || (!full && strcmp(type, "sliding_attention") != 0))
            hub_refuse(t, "layer_types", "has a kind of layer that is not supported");
        if (full && period == 0)
            period = (uint32_t)i + 1;
        if (period > 0 && full != ((i + 1) % period == 0))
            hub_refuse(t, "layer_types", "is no regular pattern, which is not supported");
    }
    if (types && json_array_size(types) != t->layers)
        hub_refuse(t, "layer_types", "names another number of layers than num_hidden_layers");
    if (types && period == 0)
        period = otherwise > t->layers ? otherwise : t->layers + 1;
    if (!types)
        period = hub_count(t, t->config, "sliding_window_pattern", otherwise);
    if (period != otherwise)
        hub_put_count(t, "attention.sliding_window_pattern", period);
}

/* Windows, and what scores are scaled by, which follows from the other numbers (see arch_gemma*.c): `deep` layers are the largest model's. */
static void finish_gemma(struct hub_translation *t, uint32_t period, uint32_t deep)
{
    put_head_dim(t);
    if (hub_has(t, "sliding_window", true))
        hub_put_count(t, "attention.sliding_window", hub_count(t, t->config, "sliding_window", 0));
    put_pattern(t, period);
    refuse_true(t, "use_bidirectional_attention");
    float dim = hub_number(t, t->config, "hidden_size", 0), heads = hub_number(t, t->config, "num_attention_heads", 1);
    float expected = t->layers == deep ? dim / heads : (float)t->head_dim;
    if (hub_number(t, t->config, "query_pre_attn_scalar", 256.0f) != expected)
        hub_refuse(t, "query_pre_attn_scalar", "is not the size of a head, which is not supported");
}

static void finish_gemma2(struct hub_translation *t)
{
    hub_put_rope(t, hub_rope_scaling(t), hub_number(t, t->config, "rope_theta", 10000.0f), t->head_dim);
    finish_gemma(t, 2, 46);
}

static void finish_gemma3(struct hub_translation *t)
{
    const json_t *scaling = hub_rope_scaling(t), *global = hub_value(scaling, "full_attention");
    const json_t *local = hub_value(scaling, "sliding_attention");
    hub_put_rope(t, global ? global : scaling, hub_number(t, t->config, "rope_theta", 1e6f), t->head_dim);
    float windowed = hub_number(t, t->config, "rope_local_base_freq", 10000.0f);
    hub_put_number(t, "rope.freq_base_swa", hub_number(t, local, "rope_theta", windowed));
    finish_gemma(t, 6, 62);
}

static void finish_gpt2(struct hub_translation *t)
{
    uint32_t otherwise = 4 * hub_count(t, t->config, "n_embd", 0);
    hub_put_count(t, "feed_forward_length", hub_count(t, t->config, "n_inner", otherwise));
    refuse_true(t, "scale_attn_by_inverse_layer_idx");
    refuse_false(t, "scale_attn_weights");
    refuse_true(t, "add_cross_attention");
}

/* ---- the families ---- */

static const struct hub_prefix may_lack_model[] = {{"model.", ""}, {0}};
static const struct hub_prefix may_lack_transformer[] = {{"transformer.", ""}, {0}};

/* A language model beside one that sees: as it was published, and as newer programs write it. */
static const struct hub_prefix of_language_model[] = {{"model.", "language_model.model."},
                                                      {"lm_head.", "language_model.lm_head."},
                                                      {"model.", "model.language_model."},
                                                      {0}};
static const char *const of_vision[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                        "model.multi_modal_projector.", NULL};

/* Published configs leave out what is so by default. */
#define GEMMA2_DEFAULTS \
    "{\"attn_logit_softcapping\": 50.0, \"final_logit_softcapping\": 30.0, \"sliding_window\": 4096}"
#define GEMMA3_DEFAULTS                                                                 \
    "{\"num_attention_heads\": 8, \"num_key_value_heads\": 4, \"rms_norm_eps\": 1e-6, " \
    "\"max_position_embeddings\": 131072, \"sliding_window\": 4096}"

#define SILU .activation_key = "hidden_act", .activation = "silu", .prefixes = may_lack_model
#define GELU .activation_key = "hidden_activation", .activation = "gelu_pytorch_tanh", .tied = true, .head_dim = 256

static const struct hub_family families[] = {
    {.model_type = "llama",
     .architecture = "llama",
     SILU,
     .numbers = llama_numbers,
     .tensors = llama_tensors,
     .rest = finish_llama},
    {.model_type = "mistral",
     .architecture = "llama",
     .windowed = "mistral",
     SILU,
     .numbers = llama_numbers,
     .tensors = llama_tensors,
     .rest = finish_mistral},
    {.model_type = "mixtral",
     .architecture = "llama",
     SILU,
     .numbers = mixtral_numbers,
     .tensors = mixtral_tensors,
     .rest = finish_mixtral},
    {.model_type = "qwen2",
     .architecture = "qwen2",
     SILU,
     .numbers = llama_numbers,
     .tensors = qwen2_tensors,
     .rest = finish_qwen},
    {.model_type = "qwen3",
     .architecture = "qwen3",
     SILU,
     .head_dim = 128,
     .numbers = llama_numbers,
     .tensors = qwen3_tensors,
     .rest = finish_qwen},
    {.model_type = "qwen3_moe",
     .architecture = "qwen3moe",
     SILU,
     .numbers = qwen3_moe_numbers,
     .tensors = qwen3_moe_tensors,
     .rest = finish_qwen3_moe},
    {.model_type = "phi3",
     .architecture = "phi3",
     SILU,
     .numbers = llama_numbers,
     .tensors = phi3_tensors,
     .rest = finish_phi3},
    {.model_type = "olmo2",
     .architecture = "olmo2",
     SILU,
     .numbers = llama_numbers,
     .tensors = olmo2_tensors,
     .rest = finish_llama},
    {.model_type = "gemma2",
     .architecture = "gemma2",
     GELU,
     .defaults = GEMMA2_DEFAULTS,
     .prefixes = may_lack_model,
     .numbers = gemma_numbers,
     .tensors = gemma2_tensors,
     .rest = finish_gemma2},
    {.model_type = "gemma3_text",
     .architecture = "gemma3",
     GELU,
     .defaults = GEMMA3_DEFAULTS,
     .prefixes = may_lack_model,
     .numbers = gemma_numbers,
     .tensors = gemma3_tensors,
     .rest = finish_gemma3},
    {.model_type = "gemma3",
     .architecture = "gemma3",
     GELU,
     .defaults = GEMMA3_DEFAULTS,
     .prefixes = of_language_model,
     .inside = "text_config",
     .others = of_vision,
     .numbers = gemma_numbers,
     .tensors = gemma3_tensors,
     .rest = finish_gemma3},
    {.model_type = "gpt2",
     .architecture = "gpt2",
     .activation_key = "activation_function",
     .activation = "gelu_new",
     .tied = true,
     .prefixes = may_lack_transformer,
     .numbers = gpt2_numbers,
     .tensors = gpt2_tensors,
     .rest = finish_gpt2},
};
enum { FAMILIES = sizeof families / sizeof *families };

const struct hub_family *hub_family_named(const char *model_type)
{
    for (size_t i = 0; i < FAMILIES; i++)
        if (strcmp(model_type, families[i].model_type) == 0)
            return &families[i];
    return NULL;
}

void hub_family_list(char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < FAMILIES && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", families[i].model_type);
}
