/*
 * hub: a directory as model hubs keep one (config.json, model.safetensors or its shards, tokenizer.json, tokenizer_config.json,
 * chat_template.jinja, generation_config.json), read as if it were the GGUF file that it could be converted to.
 *
 * The directory is translated once, into the keys and tensor names of GGUF; hparams, arch_*.c, tokenizer and weights know one form only.
 * Weights stay where they are: rows that lie otherwise there are made when somebody reads them (tensor_rows.h).
 */
#ifndef QUIRE_MODEL_HUB_H
#define QUIRE_MODEL_HUB_H

#include <stdbool.h>

#include "base/err.h"
#include "model/gguf.h"

/*
 * Refuses by name: model types this build has no arch_*.c for, keys of config.json that are missing or that it does not serve, tensors that
 * are missing or that nobody asked for, whatever safetensors_open_directory refuses, tokenizers of unknown kinds.
 * weights_only: without the vocabulary, for who only builds weights; gguf_hash is the same. gguf_close closes all of it.
 */
enum err hub_open(struct gguf **out, const char *directory, bool weights_only, struct why *why);

#endif
