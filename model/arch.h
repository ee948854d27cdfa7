/*
 * arch: what one family of models adds to the common machinery: the names and shapes of its tensors, and its forward pass.
 * One arch_*.c a family, one line each in the table of arch.c. For files of model/ only.
 */
#ifndef QUIRE_MODEL_ARCH_H
#define QUIRE_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/forward.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/tensor_roles.h"

enum { ARCH_ROLE_GROUPS = 8 };

struct architecture {
    enum arch id;
    const char *name;                                  /* general.architecture */
    bool mixture;                                      /* the feed-forward network is a choice of experts */
    bool learned_positions;                            /* a tensor of positions instead of rotation */
    uint32_t window_period;                            /* see struct model; 0: the family has no windows */
    const struct tensor_role *roles[ARCH_ROLE_GROUPS]; /* of the model as a whole; behind the last group NULL */
    const struct tensor_role *layer_roles[ARCH_ROLE_GROUPS];
    void (*complete)(struct model *m); /* what the family knows and no key says; may be NULL */
    enum err (*run)(struct forward *f, const struct batch *b);
};

extern const struct architecture arch_llama;
extern const struct architecture arch_mistral;
extern const struct architecture arch_qwen2;
extern const struct architecture arch_qwen3;
extern const struct architecture arch_phi3;
extern const struct architecture arch_olmo2;
extern const struct architecture arch_gpt2;
extern const struct architecture arch_gemma2;
extern const struct architecture arch_gemma3;
extern const struct architecture arch_mixtral;
extern const struct architecture arch_qwen3moe;

/* Passes of which several families differ in tensors and numbers alone. */
enum err arch_llama_run(struct forward *f, const struct batch *b);
enum err arch_gemma2_run(struct forward *f, const struct batch *b);
enum err arch_mixtral_run(struct forward *f, const struct batch *b);

/* NULL: this build has none of that name (a plain one or a mixture of experts), or number. */
const struct architecture *arch_named(struct gguf_string name, bool mixture);
const struct architecture *arch_numbered(uint32_t id);

/* The names of all, as "llama, qwen2, ...", for a message. */
void arch_list(char *out, size_t size);

#endif
