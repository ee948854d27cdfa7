/*
 * control_guard: keeps the words of users from being read as control tokens. A chat template puts "<|im_end|>" and
 * what a user wrote into one text, and that text is tokenized with control tokens recognised; whoever writes
 * "<|im_end|>" into a message could otherwise end it and speak as the system.
 *
 * Every spelling of a control token in a message gets a mark behind its first character before the template sees it.
 * The rendered text is cut at the marks, and each part is tokenized by itself: no spelling is whole in any of them.
 * The mark is a code point that no text may carry (U+FDD0 to U+FDEF, "for internal use": Unicode 15, section 23.7),
 * one that this request has not. A message without such a spelling is tokenized as if there were no guard.
 *
 * Not covered: a spelling of a single character, and one that a template puts together from two strings of the
 * request with nothing between them.
 */
#ifndef QUIRE_COORDINATOR_CONTROL_GUARD_H
#define QUIRE_COORDINATOR_CONTROL_GUARD_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/tokenizer.h"

struct control_guard; /* opaque, read-only, shared by threads */

enum err control_guard_open(struct control_guard **out, const struct tokenizer *tokenizer, struct why *why);
void control_guard_close(struct control_guard *g);

/* Of one request: the mark it uses, "\xEF\xB7\x90" to "\xEF\xB7\xAF". */
struct guard_mark {
    char bytes[3];
};

/* A mark that no string in `value` holds. ERR_FULL: it holds them all. */
enum err control_guard_choose(const json_t *value, struct guard_mark *mark);

/* A deep copy with marked strings and names. NULL: no memory. */
json_t *control_guard_copy(const struct control_guard *g, struct guard_mark mark, const json_t *value);

/* Appends the tokens of a rendered text, control tokens recognised, marks left out. On an error `out` is as before. */
enum err control_guard_encode(const struct tokenizer *tokenizer, struct guard_mark mark, const char *text,
                              size_t length, struct token_list *out, struct why *why);

#endif
