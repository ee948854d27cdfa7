/*
 * answer_text: tokens of one choice in, text out. Detokenizes, looks for stop strings, and knows after which token how
 * much text is good.
 *
 * What stays true: the text is a function of the tokens, not of when they came, so that a streamed answer, a whole one and
 * one that is picked up again are the same bytes. Text is shown by whole tokens only: shown tokens [0, shown) have all their
 * text below shown_bytes, valid UTF-8, and no beginning of a stop string lies in it. A stop string and what follows it in
 * its token is cut off. The text of an end token and of special tokens is not part of it.
 */
#ifndef QUIRE_COORDINATOR_ANSWER_TEXT_H
#define QUIRE_COORDINATOR_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/api_request.h"
#include "coordinator/text.h"
#include "model/detokenizer.h"

struct answer_text {
    const struct api_request *request; /* stop strings, end tokens, min_tokens */
    struct detokenizer detokenizer;
    struct stop_state stop_state;
    struct text text;       /* all of it, the held part too */
    uint32_t *ends;         /* ends[i]: bytes of text after token i; `room` entries */
    uint32_t room;
    uint32_t tokens;        /* taken so far */
    uint32_t shown;         /* the first so many have all their text below held parts */
    uint32_t worded;        /* once finished: tokens that the text consists of; the end token, and tokens behind a stop string's beginning, are not */
    bool finished;
    bool stopped;           /* finished by an end token or a stop string; otherwise by its length */
};

/* Takes all the memory for the token positions now; text grows as it comes. `prompt` is the one that this choice answers. */
enum err answer_text_open(struct answer_text *a, const struct api_context *context, const struct api_request *request,
                          const struct api_prompt *prompt);
void answer_text_close(struct answer_text *a);

/* The next token. True: it ends the answer (end token, stop id, stop string); only before it is finished, at most max_tokens times. */
bool answer_text_push(struct answer_text *a, uint32_t token);

/* No more tokens come: what was held is shown now. After this shown == worded. Again: nothing happens. */
void answer_text_finish(struct answer_text *a);

/* Where the text of token i begins and ends; i < shown. */
size_t answer_text_begin(const struct answer_text *a, uint32_t i);
size_t answer_text_end(const struct answer_text *a, uint32_t i);

#endif
