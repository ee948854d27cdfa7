/*
 * answer_text: tokens of one choice in, text out. Detokenizes, looks for stop strings, and knows after which token
 * how much text is good.
 *
 * What stays true: the text is a function of the tokens, not of when they came, so that a streamed answer, a whole
 * one and one that is picked up again are the same bytes. Text is shown by whole tokens only: tokens [0, shown) have
 * all their text out, as whole characters, and no beginning of a stop string lies in it. A stop string is cut off,
 * with what follows it in its token. The text of an end token and of control tokens is not part of it. Stop strings
 * are looked for behind the first min_tokens tokens only.
 */
#ifndef QUIRE_COORDINATOR_ANSWER_TEXT_H
#define QUIRE_COORDINATOR_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/api_request.h"
#include "coordinator/text.h"
#include "model/detokenizer.h"

struct answer_text {
    const struct tokenizer *tokenizer;
    const struct api_request *request; /* stop strings, end tokens, min_tokens */
    struct detokenizer detokenizer;
    struct stop_state stop_state;
    struct text text; /* all of it, the held part too; failed: there was no memory, and the choice cannot be answered */
    uint32_t *ends;   /* of token i: bytes of text behind it, and a flag bit; see answer_text_end */
    uint32_t room;    /* entries of ends */
    uint32_t tokens;  /* taken so far */
    uint32_t shown;   /* see above; once finished: tokens that the text consists of, without the end token and without
                           those that lie wholly in or behind a stop string */
    bool finished;
};

/* Context and request must outlive it. */
void answer_text_init(struct answer_text *a, const struct api_context *context, const struct api_request *request);
void answer_text_fini(struct answer_text *a);

/*
 * The next token; not after it is finished. True: it ends the answer, which is finished now: an end token, a stop id, a
 * stop string, or no memory (text.failed).
 */
bool answer_text_push(struct answer_text *a, uint32_t token);

/* No more tokens come: what was held is shown now. Nothing happens when it is finished already. */
void answer_text_finish(struct answer_text *a);

/* Bytes of text before and behind token i; i < shown. */
size_t answer_text_begin(const struct answer_text *a, uint32_t i);
size_t answer_text_end(const struct answer_text *a, uint32_t i);

/* Bytes of text that may be seen now. */
size_t answer_text_shown_bytes(const struct answer_text *a);

#endif
