/* model_overrides: keys that a user gives other values when a model is loaded: "rope.freq_base=20000,context_length=4096". */
#ifndef QUIRE_MODEL_MODEL_OVERRIDES_H
#define QUIRE_MODEL_MODEL_OVERRIDES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf_header.h"

enum { MODEL_OVERRIDES_MAX = 32 };

struct model_override {
    char key[96]; /* in full */
    enum gguf_value_type type;
    union {
        uint32_t count;
        float number;
        bool flag;
        struct gguf_string text; /* within the text that was parsed */
    };
};

struct model_overrides {
    struct model_override at[MODEL_OVERRIDES_MAX];
    uint32_t count;
};

/*
 * Keys may leave out "<architecture>." in front. Refused: keys that this build does not read, values of another kind, one key twice.
 * `text` is kept.
 */
enum err model_overrides_parse(struct model_overrides *o, const char *text, struct gguf_string architecture,
                               struct why *why);
bool model_overrides_has(const struct model_overrides *o, struct gguf_string key);
void model_overrides_put(const struct model_overrides *o, struct gguf_header *header);

#endif
