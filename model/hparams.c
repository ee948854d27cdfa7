/*
 * hparams: see hparams.h. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "LLM" and "RoPE".
 */
#include "model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/arch.h"

/* X(member of struct model, key, least, most): the counts that a file states, with what this build can serve */
#define COUNTS(X)                                              \
    X(layers, "block_count", 1, MODEL_MAX_LAYERS)              \
    X(dim, "embedding_length", 1, MODEL_MAX_DIM)               \
    X(ffn, "feed_forward_length", 1, MODEL_MAX_FFN)            \
    X(heads, "attention.head_count", 1, MODEL_MAX_HEADS)       \
    X(kv_heads, "attention.head_count_kv", 1, MODEL_MAX_HEADS) \
    X(head_dim, "attention.key_length", 2, MODEL_MAX_HEAD_DIM) \
    X(context_train, "context_length", 1, 1 << 24)

/* Reads keys of one architecture; after the first wrong one the rest is left alone and err says what it was. */
struct reader {
    const struct gguf *g;
    const char *path;
    const char *arch;
    uint32_t layers; /* elements of an array that stands for one number a layer; 0: not known yet */
    enum err err;
    struct why *why;
    char key[96]; /* the full name of the key that was asked for last */
};

static bool names_key(struct reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return r->err == OK;
}

/* An array of one number a layer, all the same, is as good as that number. */
static void read_per_layer(struct reader *r, uint32_t *out)
{
    const uint8_t *values = NULL;
    uint64_t count = 0;
    if (gguf_get_array(r->g, r->key, true, GGUF_I32, &values, &count, NULL) != OK)
        r->err = gguf_get_array(r->g, r->key, true, GGUF_U32, &values, &count, r->why);
    if (r->err != OK)
        return;
    bool equal = count > 0 && count == r->layers;
    for (uint64_t i = 1; equal && i < count; i++)
        equal = memcmp(values, values + 4 * i, 4) == 0;
    if (!equal) {
        r->err =
            because(r->why, ERR_UNSUPPORTED,
                    "\"%s\": key \"%s\" differs from layer to layer, which this build cannot serve", r->path, r->key);
        return;
    }
    memcpy(out, values, sizeof *out); /* a negative one is out of every bound */
}

/* The number at a key, or `otherwise` when there is none. */
static uint32_t count_or(struct reader *r, const char *suffix, uint32_t otherwise)
{
    uint32_t value = otherwise;
    if (!names_key(r, suffix))
        return value;
    if (gguf_is_array(r->g, r->key))
        read_per_layer(r, &value);
    else
        r->err = gguf_get_u32(r->g, r->key, false, &value, r->why);
    return value;
}

static uint32_t count_of(struct reader *r, const char *suffix)
{
    if (names_key(r, suffix) && !gguf_has(r->g, r->key))
        r->err = because(r->why, ERR_FORMAT, "\"%s\" lacks the key \"%s\"", r->path, r->key);
    return count_or(r, suffix, 0);
}

static float number_or(struct reader *r, const char *suffix, float otherwise)
{
    float value = otherwise;
    if (names_key(r, suffix))
        r->err = gguf_get_f32(r->g, r->key, false, &value, r->why);
    return value;
}

/* A list of the layers that have a window: good when it says what the family's period says. */
static void check_listed_windows(struct reader *r, uint32_t period)
{
    const uint8_t *windowed = NULL;
    uint64_t count = 0;
    r->err = gguf_get_array(r->g, r->key, true, GGUF_BOOL, &windowed, &count, r->why);
    bool periodic = r->err == OK && count == r->layers;
    for (uint64_t i = 0; periodic && i < count; i++)
        periodic = (windowed[i] != 0) == (period == MODEL_WINDOW_ALWAYS || (i + 1) % period != 0);
    if (r->err == OK && !periodic)
        r->err = because(r->why, ERR_UNSUPPORTED,
                         "\"%s\": key \"%s\" has windows in other layers than this build can serve", r->path, r->key);
}

static void read_window(struct reader *r, struct model *m)
{
    uint32_t period = arch_numbered(m->arch)->window_period;
    if (period == 0)
        return;
    m->window = count_or(r, "attention.sliding_window", 0);
    if (m->window == 0 || !names_key(r, "attention.sliding_window_pattern"))
        return;
    m->window_period = period;
    if (gguf_is_array(r->g, r->key))
        check_listed_windows(r, period);
    else
        m->window_period = count_or(r, "attention.sliding_window_pattern", period);
}

static void read_experts(struct reader *r, struct model *m)
{
    m->experts = count_or(r, "expert_count", 0);
    if (m->experts == 0)
        return;
    m->experts_used = count_of(r, "expert_used_count");
    m->expert_ffn = count_or(r, "expert_feed_forward_length", m->ffn);
    if (r->err == OK && count_or(r, "expert_shared_count", 0) > 0)
        r->err = because(r->why, ERR_UNSUPPORTED, "\"%s\": key \"%s\": experts that every token asks are not supported",
                         r->path, r->key);
}

static void read_attention(struct reader *r, struct model *m)
{
    m->heads = count_of(r, "attention.head_count");
    m->kv_heads = count_or(r, "attention.head_count_kv", m->heads);
    if (m->heads == 0)
        return; /* out of bounds, as hparams_check will say */
    m->head_dim = count_or(r, "attention.key_length", m->dim / m->heads);
    uint32_t value_dim = count_or(r, "attention.value_length", m->head_dim);
    if (r->err == OK && value_dim != m->head_dim)
        r->err = because(r->why, ERR_UNSUPPORTED,
                         "\"%s\": keys of %u and values of %u dimensions a head; this build needs them equal", r->path,
                         m->head_dim, value_dim);
    if (m->head_dim > 0)
        m->attn_scale = 1.0f / sqrtf((float)m->head_dim);
    m->attn_softcap = number_or(r, "attn_logit_softcapping", 0.0f);
    m->logit_softcap = number_or(r, "final_logit_softcapping", 0.0f);
}

static bool kind_is(struct gguf_string kind, const char *name)
{
    return kind.length == strlen(name) && memcmp(kind.at, name, kind.length) == 0;
}

/* Factors of single pairs (Llama 3, longrope) are no keys: model_build reads those tensors. */
static void read_rope(struct reader *r, struct model *m)
{
    m->rope_magnitude = m->rope_factor = 1.0f;
    if (arch_numbered(m->arch)->learned_positions)
        return;
    m->rope_pairs = count_or(r, "rope.dimension_count", m->head_dim) / 2;
    m->rope_base = number_or(r, "rope.freq_base", 10000.0f);
    if (m->window > 0)
        m->rope_base_windowed = number_or(r, "rope.freq_base_swa", 0.0f);
    m->rope_factor = number_or(r, "rope.scale_linear", 1.0f); /* what files said before rope.scaling.* */

    struct gguf_string kind = {"", 0};
    if (!names_key(r, "rope.scaling.type"))
        return;
    r->err = gguf_get_string(r->g, r->key, false, &kind, r->why);
    m->rope_magnitude = number_or(r, "rope.scaling.attn_factor", 1.0f);
    m->context_original = count_or(r, "rope.scaling.original_context_length", 0);
    if (kind_is(kind, "linear"))
        m->rope_factor = number_or(r, "rope.scaling.factor", 1.0f);
    else if (r->err == OK && kind.length != 0 && !kind_is(kind, "none") && !kind_is(kind, "longrope"))
        r->err = because(r->why, ERR_UNSUPPORTED,
                         "\"%s\": RoPE scaling \"%.*s\" is not supported; none, linear, longrope and Llama 3's are",
                         r->path, (int)(kind.length < 32 ? kind.length : 32), kind.at);
}

static void read_context(struct reader *r, struct model *m, uint32_t context)
{
    m->context_train = count_of(r, "context_length");
    m->context = context ? context : m->context_train;
    if (r->err == OK && m->context > m->context_train)
        r->err = because(r->why, ERR_INVALID,
                         "a context of %u tokens was asked for, but \"%s\" was trained for %u: ask for less", context,
                         r->path, m->context_train);
}

enum err hparams_read(struct model *m, const struct gguf *g, const char *path, uint32_t context, struct why *why)
{
    struct reader r = {.g = g, .path = path, .arch = m->arch_name, .err = OK, .why = why};
    m->layers = r.layers = count_of(&r, "block_count");
    m->dim = count_of(&r, "embedding_length");
    m->ffn = count_of(&r, "feed_forward_length");
    m->norm_eps = number_or(&r, "attention.layer_norm_epsilon", 1e-5f);
    m->norm_eps = number_or(&r, "attention.layer_norm_rms_epsilon", m->norm_eps);
    m->embed_scale = 1.0f;
    read_attention(&r, m);
    read_window(&r, m);
    read_experts(&r, m);
    read_rope(&r, m);
    read_context(&r, m, context);
    return r.err;
}

static enum err check_counts(const struct model *m, const char *source, struct why *why)
{
#define X(member, key, least, most)                                                                              \
    if (m->member < (least) || m->member > (most))                                                               \
        return because(why, ERR_UNSUPPORTED, "\"%s\": %s is %u; %d to %d can be served", source, key, m->member, \
                       (least), (most));
    COUNTS(X)
#undef X
    if (m->vocab < 1 || m->vocab > MODEL_MAX_VOCAB)
        return because(why, ERR_UNSUPPORTED, "\"%s\": the vocabulary has %u tokens; 1 to %d can be served", source,
                       m->vocab, MODEL_MAX_VOCAB);
    if (m->context < 1 || m->context > m->context_train || m->context > MODEL_MAX_CONTEXT)
        return because(
            why, ERR_UNSUPPORTED,
            "\"%s\": a context of %u tokens; %u are trained and %d the most that can be served: ask for less", source,
            m->context, m->context_train, MODEL_MAX_CONTEXT);
    return OK;
}

static enum err check_mixture(const struct model *m, const char *source, struct why *why)
{
    bool mixture = arch_numbered(m->arch)->mixture;
    if (!mixture && m->experts == 0 && m->experts_used == 0 && m->expert_ffn == 0)
        return OK;
    if (!mixture || m->experts < 1 || m->experts > MODEL_MAX_EXPERTS || m->experts_used < 1 ||
        m->experts_used > m->experts)
        return because(why, ERR_UNSUPPORTED, "\"%s\": %u experts of which a token asks %u; up to %d can be served",
                       source, m->experts, m->experts_used, MODEL_MAX_EXPERTS);
    if (m->expert_ffn < 1 || m->expert_ffn > MODEL_MAX_FFN)
        return because(why, ERR_UNSUPPORTED, "\"%s\": expert_feed_forward_length is %u; 1 to %d can be served", source,
                       m->expert_ffn, MODEL_MAX_FFN);
    return OK;
}

static enum err check_window(const struct model *m, const char *source, struct why *why)
{
    bool may = arch_numbered(m->arch)->window_period != 0;
    if (m->window == 0 ? m->window_period != 0 : !may || m->window_period < 2)
        return because(why, ERR_UNSUPPORTED,
                       "\"%s\": a window of %u positions in all but one of %u layers cannot be served", source,
                       m->window, m->window_period);
    return OK;
}

static bool between(float value, float least, float most)
{
    return value >= least && value <= most; /* and no NaN */
}

static enum err check_rope(const struct model *m, const char *source, struct why *why)
{
    if (!(m->rope_base > 1.0f && m->rope_base < 1e12f) || !(m->rope_factor > 1e-3f && m->rope_factor < 1e6f))
        return because(why, ERR_FORMAT, "\"%s\": RoPE base %g or factor %g out of bounds", source, (double)m->rope_base,
                       (double)m->rope_factor);
    if (m->rope_base_windowed != 0.0f && !(m->rope_base_windowed > 1.0f && m->rope_base_windowed < 1e12f))
        return because(why, ERR_FORMAT, "\"%s\": RoPE base %g of layers with a window is out of bounds", source,
                       (double)m->rope_base_windowed);
    if (!between(m->rope_magnitude, 0.1f, 100.0f))
        return because(why, ERR_FORMAT, "\"%s\": RoPE attention factor %g out of bounds", source,
                       (double)m->rope_magnitude);
    return OK;
}

static enum err check_scales(const struct model *m, const char *source, struct why *why)
{
    if (!(m->attn_scale > 0.0f && m->attn_scale <= 1.0f))
        return because(why, ERR_FORMAT, "\"%s\": attention scale %g out of bounds", source, (double)m->attn_scale);
    if (!between(m->embed_scale, 1e-3f, 1e6f))
        return because(why, ERR_FORMAT, "\"%s\": embedding scale %g out of bounds", source, (double)m->embed_scale);
    if (!between(m->attn_softcap, 0.0f, 1e6f) || !between(m->logit_softcap, 0.0f, 1e6f))
        return because(why, ERR_FORMAT, "\"%s\": caps of %g and %g for attention scores and logits are out of bounds",
                       source, (double)m->attn_softcap, (double)m->logit_softcap);
    return OK;
}

enum err hparams_check(const struct model *m, const char *source, struct why *why)
{
    const struct architecture *arch = arch_numbered(m->arch);
    enum err err = check_counts(m, source, why);
    if (err != OK)
        return err;
    if (m->heads % m->kv_heads != 0)
        return because(why, ERR_FORMAT, "\"%s\": %u heads cannot share %u key-value heads evenly", source, m->heads,
                       m->kv_heads);
    if (m->head_dim % 2 != 0)
        return because(why, ERR_UNSUPPORTED, "\"%s\": heads of %u dimensions; only even ones can be rotated", source,
                       m->head_dim);
    if (arch->learned_positions ? m->rope_pairs != 0 : m->rope_pairs < 1 || m->rope_pairs > m->head_dim / 2)
        return because(why, ERR_FORMAT, "\"%s\": %u rotated pairs in heads of %u dimensions", source, m->rope_pairs,
                       m->head_dim);
    if (!(m->norm_eps > 0.0f && m->norm_eps < 1.0f))
        return because(why, ERR_FORMAT, "\"%s\": the epsilon of the norms is %g, not between 0 and 1", source,
                       (double)m->norm_eps);
    err = check_mixture(m, source, why);
    if (err == OK)
        err = check_window(m, source, why);
    if (err == OK && m->rope_pairs > 0)
        err = check_rope(m, source, why);
    return err == OK ? check_scales(m, source, why) : err;
}
