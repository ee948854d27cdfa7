/*
 * hub_rope: the rotation of queries and keys as config.json has it, in GGUF's keys and tensors of factors: none, linear, Llama 3's, and
 * longrope (arXiv:2402.13753). What the kinds mean:
 * https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_rope_utils.py
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/hub_internal.h"

const json_t *hub_rope_scaling(const struct hub_translation *t)
{
    const json_t *scaling = hub_value(t->config, "rope_parameters");
    return scaling ? scaling : hub_value(t->config, "rope_scaling");
}

/* Room for `lists` lists of factors. NULL: there is none, or something was wrong before. */
static float *make_factors(struct hub_translation *t, uint32_t lists, uint32_t pairs)
{
    if (t->err != OK)
        return NULL;
    t->hub->rope_factors = malloc((size_t)lists * pairs * sizeof *t->hub->rope_factors);
    if (!t->hub->rope_factors)
        t->err = because(t->why, ERR_NOMEM, "no memory for %u RoPE factors", lists * pairs);
    return t->hub->rope_factors;
}

static void put_factors(struct hub_translation *t, const char *name, const float *factors, uint32_t pairs)
{
    if (t->err == OK)
        t->err = hub_add_tensor(t->hub, name, 1, (const uint64_t[4]){pairs, 1, 1, 1}, TENSOR_F32,
                                (struct tensor_source){.data = (const uint8_t *)factors, .type = TENSOR_F32}, t->why);
}

/* Llama 3: pairs that turn slowly are slowed down by the factor, quick ones not, those between in part. */
static void put_llama3(struct hub_translation *t, const json_t *scaling, float base, uint32_t pairs)
{
    double factor = hub_number(t, scaling, "factor", 0), low = hub_number(t, scaling, "low_freq_factor", 0);
    double high = hub_number(t, scaling, "high_freq_factor", 0);
    double original = hub_number(t, scaling, "original_max_position_embeddings", 0);
    if (!(factor >= 1 && low > 0 && high > low && original > 0) || pairs == 0)
        hub_refuse(t, "rope_scaling", "has numbers that make no sense for \"llama3\"");
    float *factors = make_factors(t, 1, pairs);
    for (uint32_t i = 0; factors && i < pairs; i++) {
        double wavelength = 2 * M_PI * pow((double)base, (double)i / pairs);
        double smooth = (original / wavelength - low) / (high - low);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        factors[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    put_factors(t, "rope_freqs.weight", factors, pairs);
}

static void read_list(struct hub_translation *t, const json_t *scaling, const char *key, float *out, uint32_t pairs)
{
    const json_t *list = hub_value(scaling, key);
    if (json_array_size(list) != pairs)
        hub_refuse(t, key, "of rope_scaling is no list of a number for each rotated pair");
    for (uint32_t i = 0; t->err == OK && i < pairs; i++) {
        const json_t *number = json_array_get(list, i);
        if (!json_is_number(number))
            hub_refuse(t, key, "of rope_scaling holds something that is no number");
        out[i] = (float)json_number_value(number);
    }
}

/* cos and sin grow with the context that was added, unless the config says by how much. */
static void put_magnitude(struct hub_translation *t, const json_t *scaling, double original)
{
    double factor = hub_count(t, t->config, "max_position_embeddings", 0) / original;
    double grows = factor > 1 ? sqrt(1 + log(factor) / log(original)) : 1;
    hub_put_number(t, "rope.scaling.attn_factor", hub_number(t, scaling, "attention_factor", (float)grows));
}

/* One list of factors up to the original context, one beyond it. */
static void put_longrope(struct hub_translation *t, const json_t *scaling, uint32_t pairs)
{
    uint32_t original = hub_count(t, scaling, "original_max_position_embeddings", 0);
    original = hub_count(t, t->config, "original_max_position_embeddings", original);
    if (original < 2 || pairs == 0)
        hub_refuse(t, "original_max_position_embeddings", "is not what \"longrope\" needs");
    hub_put_count(t, "rope.scaling.original_context_length", original);
    put_magnitude(t, scaling, original);
    float *factors = make_factors(t, 2, pairs);
    if (!factors)
        return;
    read_list(t, scaling, "short_factor", factors, pairs);
    read_list(t, scaling, "long_factor", factors + pairs, pairs);
    put_factors(t, "rope_factors_short.weight", factors, pairs);
    put_factors(t, "rope_factors_long.weight", factors + pairs, pairs);
}

/* Phi-3's first files call longrope "su", or "yarn". */
static bool is_longrope(const struct hub_translation *t, const char *kind)
{
    bool phi3 = strcmp(t->family->model_type, "phi3") == 0;
    return phi3 && (strcmp(kind, "longrope") == 0 || strcmp(kind, "su") == 0 || strcmp(kind, "yarn") == 0);
}

void hub_put_rope(struct hub_translation *t, const json_t *scaling, float base, uint32_t rotated)
{
    base = hub_number(t, scaling, "rope_theta", base);
    hub_put_number(t, "rope.freq_base", base);
    hub_put_count(t, "rope.dimension_count", rotated);
    const char *kind = json_string_value(hub_value(scaling, "rope_type"));
    kind = kind ? kind : json_string_value(hub_value(scaling, "type"));
    if (!kind || strcmp(kind, "default") == 0 || t->err != OK)
        return;
    char key[96];
    if (strcmp(kind, "linear") == 0) {
        gguf_header_string(&t->hub->header, hub_key(t, "rope.scaling.type", key), "linear", 6);
        hub_put_number(t, "rope.scaling.factor", hub_number(t, scaling, "factor", 0));
    } else if (strcmp(kind, "llama3") == 0) {
        put_llama3(t, scaling, base, rotated / 2);
    } else if (is_longrope(t, kind)) {
        put_longrope(t, scaling, rotated / 2);
    } else {
        hub_refuse(t, "rope_scaling",
                   "is of a type that is not supported; default, linear, llama3 and (of phi3) longrope are");
    }
}
