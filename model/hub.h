/*
 * hub: a directory as model hubs keep one (config.json, model.safetensors or its shards, tokenizer.json, tokenizer_config.json,
 * chat_template.jinja, generation_config.json), read as if it were the GGUF file that it could be converted to.
 *
 * The directory is translated once, into the keys and tensor names of GGUF; hparams, arch_*.c, tokenizer and weights know one form only.
 * Weights stay where they are: rows that lie otherwise there are made when somebody reads them (tensor_rows.h).
 */
#ifndef QUIRE_MODEL_HUB_H
#define QUIRE_MODEL_HUB_H

#include "base/err.h"
#include "model/gguf.h"

enum hub_part {
    HUB_WHOLE,
    HUB_WEIGHTS,    /* without the vocabulary, for who only builds weights; gguf_hash is that of the whole */
    HUB_VOCABULARY, /* tokenizer.json and what stands beside it; nothing else need be there */
};

/*
 * Refuses by name: model types this build has no arch_*.c for, keys of config.json that are missing or that it does not serve, tensors that
 * are missing or that nobody asked for, whatever safetensors_open_directory refuses, tokenizers of unknown kinds.
 * gguf_close closes all of it.
 */
enum err hub_open(struct gguf **out, const char *directory, enum hub_part part, struct why *why);

#endif
