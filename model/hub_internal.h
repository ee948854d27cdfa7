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
    float *rope_factors; /* of Llama 3, (rotary dimensions / 2); NULL: none */
    uint8_t *header_bytes;
};

/* config.json and the tensors it speaks of, into keys, tensors and sources. */
enum err hub_translate_model(struct hub *h, struct why *why);

/* Appends a tensor of the header and where its rows come from. The bytes stay the caller's. */
enum err hub_add_tensor(struct hub *h, const char *name, uint32_t dims, const uint64_t extent[4], enum tensor_type type,
                        struct tensor_source source, struct why *why);

#endif
