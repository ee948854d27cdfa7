/*
 * hparams: the numbers of a model: read from the metadata of a GGUF file, and held to their bounds wherever they came from.
 * For files of model/ only.
 */
#ifndef QUIRE_MODEL_HPARAMS_H
#define QUIRE_MODEL_HPARAMS_H

#include "base/err.h"
#include "model/gguf.h"
#include "model/model.h"

/*
 * Fills the numbers of *m from the keys "<arch_name>.*"; arch and arch_name are set already, vocab is not touched.
 * context 0: as trained. Values are not held to bounds yet.
 */
enum err hparams_read(struct model *m, const struct gguf *g, const char *path, uint32_t context, struct why *why);

/* Every number of *m in its bounds and in agreement with the others; m->arch is one that this build has. `source` is where they came from, for messages. */
enum err hparams_check(const struct model *m, const char *source, struct why *why);

#endif
