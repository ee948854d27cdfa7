/*
 * checkpoint: everything that is read from a model (a file or a directory) before a server starts: plan of the weights, tokenizer, chat
 * template, and what request parsing needs of them. Constant once open; helper threads read it at will.
 */
#ifndef QUIRE_COORDINATOR_CHECKPOINT_H
#define QUIRE_COORDINATOR_CHECKPOINT_H

#include <stdint.h>

#include "base/err.h"
#include "coordinator/api_request.h"
#include "coordinator/api_tokenize.h"
#include "model/chat_template.h"
#include "model/model_file.h"
#include "model/served_model.h"
#include "model/tokenizer.h"

struct checkpoint {
    struct served_model served; /* what workers are told */
    struct tokenizer *tokenizer;
    struct chat_template *chat_template; /* NULL: there is none */
    char *template_text;                 /* its source */
    const char *template_whose;          /* for people; see template_choice.h */
    struct api_context api;              /* context_tokens is set by the server, once its pages are counted */
    struct api_model_card card;
    char fingerprint[32];
};

/*
 * options: NULL for none. template_file: of the operator, or NULL or "". step_tokens: rows of the largest step. context 0: as trained. The
 * sentence names the file and what is wrong in it.
 */
enum err checkpoint_open(struct checkpoint *c, const char *path, const struct model_file_options *options,
                         const char *template_file, uint32_t context, uint32_t step_tokens, struct why *why);
void checkpoint_close(struct checkpoint *c);

#endif
