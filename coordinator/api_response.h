/*
 * api_response: answers as bytes. Whole answers, streams, and streams that are picked up again are written from the
 * same choices, so they say the same. Pure: appends to a text and reads only its arguments.
 *
 * A stream is brought up to date by one call, as often as something new came; what was sent already stands in one
 * struct api_sent a choice, so a slow reader costs a cursor and no queue. Every event that moves a choice on carries
 * an id: the index of the last token whose text is fully sent, with several choices one for each, separated by commas
 * ("-1": none).
 */
#ifndef QUIRE_COORDINATOR_API_RESPONSE_H
#define QUIRE_COORDINATOR_API_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/answer_text.h"
#include "coordinator/api_logprobs.h"
#include "coordinator/api_request.h"
#include "coordinator/sequence.h"
#include "coordinator/text.h"

enum { API_ID_BYTES = 48 };

/* "chatcmpl-" or "cmpl-" and 128 random bits in hex. */
void api_id_make(char out[API_ID_BYTES], enum api_kind kind);

/* One choice as it stands. Everything pointed to is the caller's. */
struct api_choice {
    const struct answer_text *answer;
    const uint32_t *tokens;               /* generated, answer->tokens of them */
    const struct position_scores *scores; /* one for each of them; NULL: none were asked for */
    /* One for each prompt token, the first without meaning. NULL: none were asked for, or not all are there yet. */
    const struct position_scores *prompt_scores;
    uint32_t cached_tokens; /* prompt tokens found in pages */
    bool finished;          /* answer->finished, and reason is good */
    enum finish_reason reason;
};

/* One answer: the request and its choices, in order. */
struct api_answer {
    const struct api_context *context;
    const struct api_request *request;
    const char *id;
    int64_t created;                  /* unix seconds */
    const struct api_choice *choices; /* api_request_choices of them */
};

/* The whole answer, all choices finished (or the answer so far: finish_reason null). */
void api_answer_write(struct text *out, const struct api_answer *a);

/* About how many bytes that will be: enough to tell what takes a while to write. */
size_t api_answer_estimate(const struct api_answer *a);

/* How much of one choice a stream has sent. {0}: nothing. */
struct api_sent {
    bool opened;   /* the first chunk of the choice (role, or echo) */
    bool finished; /* its last one */
    uint32_t tokens;
    size_t characters; /* of text that these tokens made, the echoed prompt included */
};

/*
 * Appends chunks for what is new, until nothing is left or `out` has `most` bytes or more. True: all choices are
 * finished, usage (if asked for) and [DONE] are written; do not call again.
 */
bool api_stream_write(struct text *out, const struct api_answer *a, struct api_sent *sent, size_t most);

/*
 * Last-Event-ID: sets sent[] so that a stream goes on behind it. False: it is none of this answer's. Ids beyond what
 * was generated are refused too.
 */
bool api_sent_from_event_id(const struct api_answer *a, const char *id, size_t length, struct api_sent *sent);

#endif
