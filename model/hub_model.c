/*
 * hub_model: config.json and the tensors of a model hub's directory in the words of GGUF: which key is which, which tensor is which, and what
 * has to be done to its rows. Names: the families' files in https://github.com/huggingface/transformers/tree/main/src/transformers/models
 *
 * One table of numbers and one of tensors a family. What a config says and no table names is either of no consequence for the result
 * (dropout, initialisation) or checked by the family's own function; a tensor that no table names is refused.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hub_internal.h"
#include "model/model.h"
#include "model/shown.h"

/* ---- tables ---- */

struct hub_number {
    const char *key;    /* of config.json */
    const char *suffix; /* of the GGUF key, behind the architecture's name */
    bool is_float;
    bool required;
};

enum {
    PART_OPTIONAL = 1,
    PART_IGNORED = 2,    /* may be there; says nothing */
    PART_TRANSPOSED = 4, /* (columns, rows) */
    PART_HALVES = 8,     /* rows of heads: GGUF wants rotated pairs as neighbours */
    PART_PLUS_ONE = 16,
    PART_HEAD = 32, /* the output matrix: not there when it is the embedding again */
};

struct hub_tensor {
    const char *hub, *gguf; /* with %u: one a layer */
    uint32_t flags;
};

struct translating;

struct hub_family {
    const char *model_type;   /* of config.json */
    const char *architecture; /* of GGUF */
    const char *activation_key, *activation;
    const char *prefix; /* that some files put before every name */
    bool tied;          /* unless the config says otherwise */
    const struct hub_number *numbers;
    const struct hub_tensor *tensors;
    void (*rest)(struct translating *t); /* keys that follow from more than one */
    uint32_t head_dim;                   /* unless the config says otherwise; 0: hidden size / heads */
};

/* The work on one directory; after the first thing wrong the rest is left alone and err says what it was. */
struct translating {
    struct hub *hub;
    const struct hub_family *family;
    const json_t *config;
    const char *architecture;
    uint32_t layers, head_dim;
    enum err err;
    struct why *why;
};

static const struct hub_number llama_numbers[] = {
    {"num_hidden_layers", "block_count", false, true},
    {"hidden_size", "embedding_length", false, true},
    {"intermediate_size", "feed_forward_length", false, true},
    {"num_attention_heads", "attention.head_count", false, true},
    {"num_key_value_heads", "attention.head_count_kv", false, false},
    {"max_position_embeddings", "context_length", false, true},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", true, true},
    {"attn_logit_softcapping", "attn_logit_softcapping", true, false},
    {"final_logit_softcapping", "final_logit_softcapping", true, false},
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

static const struct hub_tensor gemma3_tensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight", 0},
    {"lm_head.weight", "output.weight", PART_HEAD},
    {"model.norm.weight", "output_norm.weight", PART_PLUS_ONE},
    ATTENTION(0),
    NETWORK,
    {LAYER("self_attn.q_norm.weight"), "blk.%u.attn_q_norm.weight", PART_PLUS_ONE},
    {LAYER("self_attn.k_norm.weight"), "blk.%u.attn_k_norm.weight", PART_PLUS_ONE},
    {LAYER("input_layernorm.weight"), "blk.%u.attn_norm.weight", PART_PLUS_ONE},
    {LAYER("post_attention_layernorm.weight"), "blk.%u.post_attention_norm.weight", PART_PLUS_ONE},
    {LAYER("pre_feedforward_layernorm.weight"), "blk.%u.ffn_norm.weight", PART_PLUS_ONE},
    {LAYER("post_feedforward_layernorm.weight"), "blk.%u.post_ffw_norm.weight", PART_PLUS_ONE},
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

/* ---- reading config.json ---- */

static void refuse(struct translating *t, const char *key, const char *what)
{
    if (t->err == OK)
        t->err = because(t->why, ERR_UNSUPPORTED, "\"%.200s/config.json\": \"%s\" %s", t->hub->directory, key, what);
}

/* NULL: it is not there, or null. */
static const json_t *value_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool want(struct translating *t, const char *key, bool required)
{
    bool there = value_at(t->config, key);
    if (!there && required && t->err == OK)
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\" lacks the key \"%s\"", t->hub->directory, key);
    return there && t->err == OK;
}

static uint32_t count_in(struct translating *t, const json_t *object, const char *key, uint32_t otherwise)
{
    const json_t *value = value_at(object, key);
    if (!value || t->err != OK)
        return otherwise;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > UINT32_MAX) {
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\": \"%s\" is no whole number of 32 bits",
                         t->hub->directory, key);
        return otherwise;
    }
    return (uint32_t)json_integer_value(value);
}

static float number_in(struct translating *t, const json_t *object, const char *key, float otherwise)
{
    const json_t *value = value_at(object, key);
    if (!value || t->err != OK)
        return otherwise;
    if (!json_is_number(value)) {
        t->err = because(t->why, ERR_FORMAT, "\"%.200s/config.json\": \"%s\" is no number", t->hub->directory, key);
        return otherwise;
    }
    return (float)json_number_value(value);
}

static const char *gguf_key(const struct translating *t, const char *suffix, char key[96])
{
    snprintf(key, 96, "%s.%s", t->architecture, suffix);
    return key;
}

static void put_count(struct translating *t, const char *suffix, uint32_t value)
{
    char key[96];
    if (t->err == OK)
        gguf_header_u32(&t->hub->header, gguf_key(t, suffix, key), value);
}

static void put_number(struct translating *t, const char *suffix, float value)
{
    char key[96];
    if (t->err == OK)
        gguf_header_f32(&t->hub->header, gguf_key(t, suffix, key), value);
}

static void put_numbers(struct translating *t)
{
    for (const struct hub_number *n = t->family->numbers; n->key; n++) {
        if (!want(t, n->key, n->required))
            continue;
        if (n->is_float)
            put_number(t, n->suffix, number_in(t, t->config, n->key, 0));
        else
            put_count(t, n->suffix, count_in(t, t->config, n->key, 0));
    }
}

/* ---- rotation ---- */

/* Llama 3: pairs that turn slowly are slowed down by the factor, quick ones not, those between in part. */
static void put_llama3_factors(struct translating *t, const json_t *scaling, float base)
{
    double factor = number_in(t, scaling, "factor", 0), low = number_in(t, scaling, "low_freq_factor", 0);
    double high = number_in(t, scaling, "high_freq_factor", 0);
    double original = number_in(t, scaling, "original_max_position_embeddings", 0);
    uint32_t pairs = t->head_dim / 2;
    if (t->err != OK)
        return;
    if (!(factor >= 1 && low > 0 && high > low && original > 0) || pairs == 0) {
        refuse(t, "rope_scaling", "has numbers that make no sense for \"llama3\"");
        return;
    }
    float *factors = t->hub->rope_factors = malloc(pairs * sizeof *factors);
    if (!factors) {
        t->err = because(t->why, ERR_NOMEM, "no memory for %u RoPE factors", pairs);
        return;
    }
    for (uint32_t i = 0; i < pairs; i++) {
        double wavelength = 2 * M_PI * pow((double)base, (double)i / pairs);
        double smooth = (original / wavelength - low) / (high - low);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        factors[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    t->err = hub_add_tensor(t->hub, "rope_freqs.weight", 1, (const uint64_t[4]){pairs, 1, 1, 1}, TENSOR_F32,
                            (struct tensor_source){.data = (const uint8_t *)factors, .type = TENSOR_F32}, t->why);
}

/* `scaling` may hold the base as well, as newer configs have it. */
static void put_rope(struct translating *t, const json_t *scaling, float base)
{
    base = number_in(t, scaling, "rope_theta", base);
    put_number(t, "rope.freq_base", base);
    put_count(t, "rope.dimension_count", t->head_dim);
    const char *kind = json_string_value(value_at(scaling, "rope_type"));
    kind = kind ? kind : json_string_value(value_at(scaling, "type"));
    if (!kind || strcmp(kind, "default") == 0 || t->err != OK)
        return;
    char key[96];
    if (strcmp(kind, "linear") == 0) {
        gguf_header_string(&t->hub->header, gguf_key(t, "rope.scaling.type", key), "linear", 6);
        put_number(t, "rope.scaling.factor", number_in(t, scaling, "factor", 0));
    } else if (strcmp(kind, "llama3") == 0) {
        put_llama3_factors(t, scaling, base);
    } else {
        refuse(t, "rope_scaling", "is of a type that is not supported; default, linear and llama3 are");
    }
}

static const json_t *scaling_of(const struct translating *t)
{
    const json_t *scaling = value_at(t->config, "rope_parameters");
    return scaling ? scaling : value_at(t->config, "rope_scaling");
}

/* ---- families ---- */

static void put_head_dim(struct translating *t)
{
    put_count(t, "attention.key_length", t->head_dim);
    put_count(t, "attention.value_length", t->head_dim);
}

static void finish_llama(struct translating *t)
{
    put_head_dim(t);
    put_rope(t, scaling_of(t), number_in(t, t->config, "rope_theta", 10000.0f));
}

/* With a window it is an architecture of its own: GGUF's "llama" has none. */
static void finish_mistral(struct translating *t)
{
    finish_llama(t);
    uint32_t window = count_in(t, t->config, "sliding_window", 0);
    if (window > 0)
        put_count(t, "attention.sliding_window", window);
}

static void finish_qwen(struct translating *t)
{
    if (json_is_true(value_at(t->config, "use_sliding_window")))
        refuse(t, "use_sliding_window", "is true, which is not supported");
    finish_llama(t);
}

/* Five windowed layers to one that sees everything, unless layer_types says otherwise: every so many. */
static void put_pattern(struct translating *t)
{
    const json_t *types = value_at(t->config, "layer_types");
    uint32_t period = 0;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool full = type && strcmp(type, "full_attention") == 0;
        if (!type || (!full && strcmp(type, "sliding_attention") != 0))
            refuse(t, "layer_types", "has a kind of layer that is not supported");
        if (full && period == 0)
            period = (uint32_t)i + 1;
        if (period > 0 && full != ((i + 1) % period == 0))
            refuse(t, "layer_types", "is no regular pattern, which is not supported");
    }
    if (types && json_array_size(types) != t->layers)
        refuse(t, "layer_types", "names another number of layers than num_hidden_layers");
    if (types && period == 0)
        period = 6 > t->layers ? 6 : t->layers + 1;
    if (!types)
        period = count_in(t, t->config, "sliding_window_pattern", 6);
    if (period != 6)
        put_count(t, "attention.sliding_window_pattern", period);
}

static void finish_gemma3(struct translating *t)
{
    const json_t *scaling = scaling_of(t), *global = value_at(scaling, "full_attention");
    const json_t *local = value_at(scaling, "sliding_attention");
    put_head_dim(t);
    put_rope(t, global ? global : scaling, number_in(t, t->config, "rope_theta", 1e6f));
    float windowed = number_in(t, t->config, "rope_local_base_freq", 10000.0f);
    put_number(t, "rope.freq_base_swa", number_in(t, local, "rope_theta", windowed));
    if (want(t, "sliding_window", true))
        put_count(t, "attention.sliding_window", count_in(t, t->config, "sliding_window", 0));
    put_pattern(t);
    if (json_is_true(value_at(t->config, "use_bidirectional_attention")))
        refuse(t, "use_bidirectional_attention", "is true, which is not supported");
    /* see arch_gemma3.c: what scores are scaled by follows from the other numbers */
    float dim = number_in(t, t->config, "hidden_size", 0), heads = number_in(t, t->config, "num_attention_heads", 1);
    float expected = t->layers == 62 ? dim / heads : (float)t->head_dim;
    if (number_in(t, t->config, "query_pre_attn_scalar", 256.0f) != expected)
        refuse(t, "query_pre_attn_scalar", "is not the size of a head, which is not supported");
}

static void finish_gpt2(struct translating *t)
{
    put_count(t, "feed_forward_length", count_in(t, t->config, "n_inner", 4 * count_in(t, t->config, "n_embd", 0)));
    if (json_is_true(value_at(t->config, "scale_attn_by_inverse_layer_idx")))
        refuse(t, "scale_attn_by_inverse_layer_idx", "is true, which is not supported");
    if (json_is_false(value_at(t->config, "scale_attn_weights")))
        refuse(t, "scale_attn_weights", "is false, which is not supported");
    if (json_is_true(value_at(t->config, "add_cross_attention")))
        refuse(t, "add_cross_attention", "is true, which is not supported");
}

static const struct hub_family families[] = {
    {"llama", "llama", "hidden_act", "silu", "model.", false, llama_numbers, llama_tensors, finish_llama, 0},
    {"mistral", "llama", "hidden_act", "silu", "model.", false, llama_numbers, llama_tensors, finish_mistral, 0},
    {"qwen2", "qwen2", "hidden_act", "silu", "model.", false, llama_numbers, qwen2_tensors, finish_qwen, 0},
    {"qwen3", "qwen3", "hidden_act", "silu", "model.", false, llama_numbers, qwen3_tensors, finish_qwen, 128},
    {"gemma3_text", "gemma3", "hidden_activation", "gelu_pytorch_tanh", "model.", true, llama_numbers, gemma3_tensors,
     finish_gemma3, 256},
    {"gpt2", "gpt2", "activation_function", "gelu_new", "transformer.", true, gpt2_numbers, gpt2_tensors, finish_gpt2,
     0},
};
enum { FAMILIES = sizeof families / sizeof *families };

static void choose_family(struct translating *t)
{
    if (!want(t, "model_type", true))
        return;
    const char *type = json_string_value(value_at(t->config, "model_type"));
    char known[256] = "";
    for (size_t i = 0; i < FAMILIES; i++) {
        if (type && strcmp(type, families[i].model_type) == 0)
            t->family = &families[i];
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", families[i].model_type);
    }
    if (!t->family) {
        t->err = because(t->why, ERR_UNSUPPORTED,
                         "\"%.200s/config.json\": the model type \"%s\" is not supported; these are: %s",
                         t->hub->directory, type ? shown_bytes(type, strlen(type)).text : "", known);
        return;
    }
    t->architecture = t->family->architecture;
    if (strcmp(t->family->model_type, "mistral") == 0 && count_in(t, t->config, "sliding_window", 0) > 0)
        t->architecture = "mistral";
}

static void check_activation(struct translating *t)
{
    const json_t *value = value_at(t->config, t->family->activation_key);
    const char *name = json_string_value(value);
    bool tanh_twin = name && strcmp(t->family->activation, "gelu_new") == 0 && strcmp(name, "gelu_pytorch_tanh") == 0;
    if (value && !tanh_twin && (!name || strcmp(name, t->family->activation) != 0))
        refuse(t, t->family->activation_key, "is an activation that is not supported for this model type");
}

/* ---- tensors ---- */

/* Some files leave the common prefix out. */
static const struct safetensors_tensor *find_part(const struct translating *t, const struct hub_tensor *part,
                                                  uint32_t layer, char name[160])
{
    snprintf(name, 160, part->hub, layer);
    const struct safetensors_tensor *found = safetensors_find(t->hub->weights, name);
    size_t prefix = strlen(t->family->prefix);
    if (!found && strncmp(name, t->family->prefix, prefix) == 0)
        found = safetensors_find(t->hub->weights, name + prefix);
    return found;
}

static enum err misfit(struct translating *t, const struct safetensors_tensor *from, const char *what)
{
    return because(t->why, ERR_FORMAT, "\"%.200s\": tensor \"%s\" %s", t->hub->directory,
                   shown_bytes(from->name, strlen(from->name)).text, what);
}

static enum err put_part(struct translating *t, const struct hub_tensor *part, const struct safetensors_tensor *from,
                         uint32_t layer)
{
    if (!from->is_float)
        return misfit(t, from, "is of no type that weights can have; F32, F16 and BF16 are");
    if (from->dims < 1 || from->dims > 2 || (part->flags & PART_TRANSPOSED && from->dims != 2))
        return misfit(t, from, "has neither one nor two sides");
    if (from->bytes == 0)
        return misfit(t, from, "is empty");
    struct tensor_source source = {.data = from->data, .type = from->type};
    uint64_t extent[4] = {from->extent[from->dims - 1], from->dims == 2 ? from->extent[0] : 1, 1, 1};
    if (part->flags & PART_TRANSPOSED) {
        extent[0] = from->extent[0];
        extent[1] = from->extent[1];
        source.transposed = true;
    }
    if (part->flags & PART_HALVES) {
        source.head_rows = t->head_dim;
        if (extent[1] % t->head_dim != 0)
            return misfit(t, from, "has rows for no whole number of heads, as config.json has them");
    }
    source.added = part->flags & PART_PLUS_ONE ? 1.0f : 0.0f;
    char name[96];
    snprintf(name, sizeof name, part->gguf, layer);
    return hub_add_tensor(t->hub, name, from->dims, extent, from->dims == 1 ? TENSOR_F32 : from->type, source, t->why);
}

static enum err take_part(struct translating *t, const struct hub_tensor *part, uint32_t layer, bool tied)
{
    char name[160];
    const struct safetensors_tensor *from = find_part(t, part, layer, name);
    bool ignored = part->flags & PART_IGNORED || (part->flags & PART_HEAD && tied);
    if (!from)
        return ignored || part->flags & PART_OPTIONAL
                   ? OK
                   : because(t->why, ERR_FORMAT, "\"%.200s\" lacks the tensor \"%s\"", t->hub->directory, name);
    t->hub->claimed[from - safetensors_at(t->hub->weights, 0)] = true;
    return ignored ? OK : put_part(t, part, from, layer);
}

/* The first tensor of every family is the embedding. */
static void check_vocabulary(struct translating *t)
{
    char name[160];
    const struct safetensors_tensor *embedding = find_part(t, t->family->tensors, 0, name);
    uint32_t says = count_in(t, t->config, "vocab_size", 0);
    if (t->err == OK && embedding && says > 0 && embedding->extent[0] != says)
        t->err = because(t->why, ERR_FORMAT,
                         "\"%.200s\": config.json says \"vocab_size\": %u, but tensor \"%s\" has %llu rows",
                         t->hub->directory, says, name, (unsigned long long)embedding->extent[0]);
}

static void put_tensors(struct translating *t)
{
    const json_t *says = value_at(t->config, "tie_word_embeddings");
    bool tied = says ? json_is_true(says) : t->family->tied;
    for (const struct hub_tensor *part = t->family->tensors; part->hub && t->err == OK; part++) {
        uint32_t layers = strstr(part->hub, "%u") ? t->layers : 1;
        for (uint32_t layer = 0; layer < layers && t->err == OK; layer++)
            t->err = take_part(t, part, layer, tied);
    }
    for (uint32_t i = 0; t->err == OK && i < safetensors_count(t->hub->weights); i++)
        if (!t->hub->claimed[i])
            t->err = misfit(t, safetensors_at(t->hub->weights, i), "is nothing that a model of this type has");
}

/* ---- all of it ---- */

static void read_layers(struct translating *t)
{
    bool gpt2 = t->family->numbers == gpt2_numbers;
    const char *layers = gpt2 ? "n_layer" : "num_hidden_layers", *dim = gpt2 ? "n_embd" : "hidden_size";
    const char *heads = gpt2 ? "n_head" : "num_attention_heads";
    if (!want(t, layers, true) || !want(t, dim, true) || !want(t, heads, true))
        return;
    t->layers = count_in(t, t->config, layers, 0);
    uint32_t head_count = count_in(t, t->config, heads, 0);
    if (t->err == OK && (t->layers == 0 || t->layers > MODEL_MAX_LAYERS))
        refuse(t, layers, "is out of bounds");
    if (t->err == OK && (head_count == 0 || head_count > MODEL_MAX_HEADS))
        refuse(t, heads, "is out of bounds");
    if (t->err != OK)
        return;
    t->head_dim = t->family->head_dim ? t->family->head_dim : count_in(t, t->config, dim, 0) / head_count;
    t->head_dim = count_in(t, t->config, "head_dim", t->head_dim);
    if (t->err == OK && (t->head_dim == 0 || t->head_dim > MODEL_MAX_HEAD_DIM))
        refuse(t, "head_dim", "is out of bounds");
}

enum err hub_translate_model(struct hub *h, struct why *why)
{
    struct translating t = {.hub = h, .config = h->config, .why = why};
    h->claimed = calloc(safetensors_count(h->weights) + 1, sizeof *h->claimed);
    if (!h->claimed)
        return because(why, ERR_NOMEM, "no memory for the tensors of \"%.300s\"", h->directory);
    choose_family(&t);
    if (t.err != OK)
        return t.err;
    gguf_header_string(&h->header, "general.architecture", t.architecture, strlen(t.architecture));
    read_layers(&t);
    check_activation(&t);
    put_numbers(&t);
    if (t.err == OK)
        t.family->rest(&t);
    check_vocabulary(&t);
    if (t.err == OK)
        put_tensors(&t);
    return t.err;
}
