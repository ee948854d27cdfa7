/*
 * model_file: whatever -m names, as one GGUF view: a GGUF file or a directory of a model hub (hub.h), with the keys that a user
 * overrides and the weights quantised that a user wants smaller.
 *
 * Quantising happens row by row when somebody reads the rows (tensor_rows.h): loading and converting give the same bytes.
 */
#ifndef QUIRE_MODEL_MODEL_FILE_H
#define QUIRE_MODEL_MODEL_FILE_H

#include "base/err.h"
#include "model/gguf.h"
#include "model/hub.h"

struct model_file_options {
    const char *quantize;  /* "q8_0", "q4_0" or "q4_k"; NULL or "": as they are */
    const char *overrides; /* "key=value", several of them parted by commas; NULL or "": none */
    enum hub_part part;    /* of a directory, where that saves work; a GGUF file is opened whole */
};

/*
 * Opens and checks. options may be NULL. Refused: an override of a key that this build does not read, or of a value that is not of the
 * key's kind; one that contradicts a tensor's shape is refused by model_plan. The same path and options give the same gguf_hash.
 */
enum err model_file_open(struct gguf **out, const char *path, const struct model_file_options *options,
                         struct why *why);

/*
 * Writes g as a GGUF file: beside `path` first, then in its place, so that nobody ever sees half a file. ERR_IO: such as a full disk; what was
 * at path before is still there.
 */
enum err model_file_save(const struct gguf *g, const char *path, struct why *why);

#endif
