/* model_overrides: see model_overrides.h. The keys are those that hparams.c and tokenizer.c read. */
#include "model/model_overrides.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the architecture: behind its name and a dot. */
static const struct known_key {
    const char *name;
    bool of_architecture;
    enum gguf_value_type type;
} known_keys[] = {
    {"block_count", true, GGUF_U32},
    {"context_length", true, GGUF_U32},
    {"embedding_length", true, GGUF_U32},
    {"feed_forward_length", true, GGUF_U32},
    {"attention.head_count", true, GGUF_U32},
    {"attention.head_count_kv", true, GGUF_U32},
    {"attention.key_length", true, GGUF_U32},
    {"attention.value_length", true, GGUF_U32},
    {"attention.layer_norm_epsilon", true, GGUF_F32},
    {"attention.layer_norm_rms_epsilon", true, GGUF_F32},
    {"attention.sliding_window", true, GGUF_U32},
    {"attention.sliding_window_pattern", true, GGUF_U32},
    {"attn_logit_softcapping", true, GGUF_F32},
    {"final_logit_softcapping", true, GGUF_F32},
    {"expert_count", true, GGUF_U32},
    {"expert_used_count", true, GGUF_U32},
    {"expert_feed_forward_length", true, GGUF_U32},
    {"rope.dimension_count", true, GGUF_U32},
    {"rope.freq_base", true, GGUF_F32},
    {"rope.freq_base_swa", true, GGUF_F32},
    {"rope.scale_linear", true, GGUF_F32},
    {"rope.scaling.type", true, GGUF_STRING},
    {"rope.scaling.factor", true, GGUF_F32},
    {"rope.scaling.attn_factor", true, GGUF_F32},
    {"rope.scaling.original_context_length", true, GGUF_U32},
    {"general.name", false, GGUF_STRING},
    {"tokenizer.ggml.pre", false, GGUF_STRING},
    {"tokenizer.ggml.bos_token_id", false, GGUF_U32},
    {"tokenizer.ggml.eos_token_id", false, GGUF_U32},
    {"tokenizer.ggml.eot_token_id", false, GGUF_U32},
    {"tokenizer.ggml.eom_token_id", false, GGUF_U32},
    {"tokenizer.ggml.padding_token_id", false, GGUF_U32},
    {"tokenizer.ggml.unknown_token_id", false, GGUF_U32},
    {"tokenizer.ggml.add_bos_token", false, GGUF_BOOL},
    {"tokenizer.ggml.add_eos_token", false, GGUF_BOOL},
    {"tokenizer.ggml.add_space_prefix", false, GGUF_BOOL},
};

static bool equal(struct gguf_string s, const char *text)
{
    return strlen(text) == s.length && memcmp(s.at, text, s.length) == 0;
}

static const struct known_key *find_key(struct gguf_string name, struct gguf_string architecture)
{
    struct gguf_string rest = name;
    size_t prefix = architecture.length + 1;
    if (name.length > prefix && memcmp(name.at, architecture.at, architecture.length) == 0 &&
        name.at[architecture.length] == '.')
        rest = (struct gguf_string){name.at + prefix, name.length - prefix};
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++)
        if (equal(known_keys[i].of_architecture ? rest : name, known_keys[i].name))
            return &known_keys[i];
    return NULL;
}

static bool parse_value(struct model_override *o, struct gguf_string value)
{
    char text[64], *end = text;
    snprintf(text, sizeof text, "%.*s", (int)(value.length < 60 ? value.length : 60), value.at);
    errno = 0;
    if (o->type == GGUF_STRING) {
        o->text = value;
        return true;
    }
    if (o->type == GGUF_BOOL) {
        o->flag = equal(value, "true");
        return o->flag || equal(value, "false");
    }
    if (o->type == GGUF_F32) {
        o->number = strtof(text, &end);
        return end != text && !*end && isfinite(o->number);
    }
    unsigned long long number = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : UINT64_MAX;
    o->count = (uint32_t)number;
    return end != text && !*end && errno == 0 && number <= UINT32_MAX;
}

static enum err parse_one(struct model_overrides *o, struct gguf_string item, struct gguf_string architecture,
                          struct why *why)
{
    const char *equals = memchr(item.at, '=', item.length);
    if (!equals)
        return because(why, ERR_INVALID, "the override \"%.*s\" is not of the form key=value",
                       (int)(item.length < 80 ? item.length : 80), item.at);
    struct gguf_string name = {item.at, (size_t)(equals - item.at)};
    struct gguf_string value = {equals + 1, item.length - name.length - 1};
    int shown = (int)(name.length < 80 ? name.length : 80);
    const struct known_key *known = find_key(name, architecture);
    if (!known)
        return because(why, ERR_UNSUPPORTED, "\"%.*s\" is no key of a %.*s model that can be overridden", shown,
                       name.at, (int)(architecture.length < 32 ? architecture.length : 32), architecture.at);
    if (o->count == MODEL_OVERRIDES_MAX)
        return because(why, ERR_INVALID, "more than %d keys are overridden", MODEL_OVERRIDES_MAX);
    struct model_override *new = &o->at[o->count];
    snprintf(new->key, sizeof new->key, "%.*s%s%s", known->of_architecture ? (int)architecture.length : 0,
             architecture.at, known->of_architecture ? "." : "", known->name);
    new->type = known->type;
    if (model_overrides_has(o, (struct gguf_string){new->key, strlen(new->key)}))
        return because(why, ERR_INVALID, "the key \"%.*s\" is overridden twice", shown, name.at);
    if (!parse_value(new, value))
        return because(why, ERR_INVALID, "the override \"%.*s\" wants %s, not \"%.*s\"", shown, name.at,
                       known->type == GGUF_U32   ? "a whole number"
                       : known->type == GGUF_F32 ? "a number"
                                                 : "true or false",
                       (int)(value.length < 60 ? value.length : 60), value.at);
    o->count++;
    return OK;
}

enum err model_overrides_parse(struct model_overrides *o, const char *text, struct gguf_string architecture,
                               struct why *why)
{
    *o = (struct model_overrides){0};
    enum err err = OK;
    while (err == OK && *text) {
        size_t length = strcspn(text, ",");
        err = parse_one(o, (struct gguf_string){text, length}, architecture, why);
        text += length + (text[length] == ',');
    }
    return err;
}

bool model_overrides_has(const struct model_overrides *o, struct gguf_string key)
{
    for (uint32_t i = 0; i < o->count; i++)
        if (equal(key, o->at[i].key))
            return true;
    return false;
}

void model_overrides_put(const struct model_overrides *o, struct gguf_header *header)
{
    for (uint32_t i = 0; i < o->count; i++) {
        const struct model_override *v = &o->at[i];
        switch ((int)v->type) {
        case GGUF_U32:
            gguf_header_u32(header, v->key, v->count);
            break;
        case GGUF_F32:
            gguf_header_f32(header, v->key, v->number);
            break;
        case GGUF_BOOL:
            gguf_header_bool(header, v->key, v->flag);
            break;
        default:
            gguf_header_string(header, v->key, v->text.at, v->text.length);
            break;
        }
    }
}
