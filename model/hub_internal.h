/* hub_internal: what the parts of the translation share. For model/hub*.c only. */
#ifndef QUIRE_MODEL_HUB_INTERNAL_H
#define QUIRE_MODEL_HUB_INTERNAL_H

#include <jansson.h>

#include "model/gguf_header.h"
#include "model/hub.h"
#include "model/safetensors.h"
#include "model/tensor_rows.h"

struct hub {
    const char *directory; /* the caller's, while it is being opened */
    json_t *config, *generation;
    struct safetensors *weights;
    bool *claimed; /* (tensors of the files) */
    struct gguf_header header;
    struct tensor_source *sources; /* (tensors of the header) */
    uint32_t source_count, source_room;
    float *rope_factors; /* a list, or two, of (rotary dimensions / 2) numbers; NULL: none */
    uint8_t *header_bytes;
};

/* config.json and the tensors it speaks of, into keys, tensors and sources. */
enum err hub_translate_model(struct hub *h, struct why *why);

/* Appends a tensor of the header and where its rows come from: source.pieces is the hub's from then on, all else stays the caller's. */
enum err hub_add_tensor(struct hub *h, const char *name, uint32_t dims, const uint64_t extent[4], enum tensor_type type,
                        struct tensor_source source, struct why *why);

/* ---- families: hub_families.c ---- */

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
    PART_HEAD = 32,       /* the output matrix: not there when it is the embedding again */
    PART_PER_EXPERT = 64, /* one for each expert, which GGUF holds as one tensor */
};

struct hub_tensor {
    const char *hub, *gguf; /* with %u: one a layer; with a second: one an expert */
    uint32_t flags;
};

/* Another way to begin names: where the tables say `usual`, files may say `instead`. */
struct hub_prefix {
    const char *usual, *instead;
};

struct hub_translation;

struct hub_family {
    const char *model_type;   /* of config.json */
    const char *architecture; /* of GGUF */
    const char *windowed;     /* the same where every layer has a window; NULL: its name does not change */
    const char *inside;       /* the object of config.json that speaks of the language model; NULL: all of it */
    const char *defaults;     /* JSON: what holds where the config does not say; NULL: nothing */
    const char *activation_key, *activation;
    bool tied;         /* unless the config says otherwise */
    uint32_t head_dim; /* unless the config says otherwise; 0: hidden size / heads */
    const struct hub_number *numbers;
    const struct hub_tensor *tensors;  /* the first is the embedding */
    const struct hub_prefix *prefixes; /* ended by a NULL */
    const char *const *others; /* how names begin of what is no part of the language model, ended by NULL; or NULL */
    void (*rest)(struct hub_translation *t); /* keys that follow from more than one */
};

/* NULL: none is called so. */
const struct hub_family *hub_family_named(const char *model_type);
/* "llama, mistral, ...", for a message. */
void hub_family_list(char *out, size_t size);

/* ---- one translation: hub_model.c ---- */

/* The work on one directory; after the first thing wrong the rest is left alone and err says what it was. */
struct hub_translation {
    struct hub *hub;
    const struct hub_family *family;
    json_t *config; /* of the language model, with what the family has by default */
    const char *architecture;
    uint32_t layers, head_dim, experts;
    enum err err;
    struct why *why;
};

void hub_refuse(struct hub_translation *t, const char *key, const char *what);
/* NULL: it is not there, or null. */
const json_t *hub_value(const json_t *object, const char *key);
/* Whether the config has the key, and nothing was wrong so far. */
bool hub_has(struct hub_translation *t, const char *key, bool required);
uint32_t hub_count(struct hub_translation *t, const json_t *object, const char *key, uint32_t otherwise);
float hub_number(struct hub_translation *t, const json_t *object, const char *key, float otherwise);

/* Keys of GGUF, behind the architecture's name. */
const char *hub_key(const struct hub_translation *t, const char *suffix, char key[96]);
void hub_put_count(struct hub_translation *t, const char *suffix, uint32_t value);
void hub_put_number(struct hub_translation *t, const char *suffix, float value);

/* ---- rotation: hub_rope.c ---- */

/* rope_parameters, or as it was called before, rope_scaling. */
const json_t *hub_rope_scaling(const struct hub_translation *t);
/* Keys and factors of the rotation of `rotated` dimensions a head. `scaling` may hold the base as well, as newer configs have it. */
void hub_put_rope(struct hub_translation *t, const json_t *scaling, float base, uint32_t rotated);

#endif
