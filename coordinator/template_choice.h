/*
 * template_choice: the text of the chat template that a model is spoken to with. The first of these that there is: the file that the
 * operator names, the model's own, a plain one of the family whose turn tokens are in the vocabulary (GGUF files often come without their
 * template, seldom without its tokens). With none of them the model continues texts and cannot be spoken to.
 */
#ifndef QUIRE_COORDINATOR_TEMPLATE_CHOICE_H
#define QUIRE_COORDINATOR_TEMPLATE_CHOICE_H

#include <stddef.h>

#include "base/err.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

struct template_choice {
    char *text; /* malloc'ed, the caller's; NULL: there is none */
    size_t length;
    const char *whose; /* for people: "the model's", "that of the file", … */
};

/* file: NULL or "" for none. ERR_IO: it cannot be read; ERR_INVALID: it is empty; ERR_FORMAT: the model's key is no text. */
enum err template_choose(struct template_choice *out, const char *file, const struct gguf *g,
                         const struct tokenizer *tokenizer, struct why *why);

#endif
