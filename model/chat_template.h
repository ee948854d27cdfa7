/*
 * chat_template: renders a conversation into the text that a model was trained on, by the model's own Jinja template.
 *
 * Rendering is that of the transformers library (trim_blocks, lstrip_blocks, Python's way to print values, tojson as
 * json.dumps, raise_exception, strftime_now, from_json, {% generation %}). The engine is minijinja, see model/jinja.
 *
 * A template comes with the model and is trusted that far; what it may use is bounded all the same: its size, its
 * variables' size and depth, its steps, its recursion and its output. Templates of a client are never opened.
 *
 * An open template never changes; any number of threads may render it at once.
 */
#ifndef QUIRE_MODEL_CHAT_TEMPLATE_H
#define QUIRE_MODEL_CHAT_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <time.h>

#include "base/err.h"

struct chat_template; /* opaque */

/* ERR_FORMAT says what is wrong with the template and in which line. The text is copied. */
enum err chat_template_open(struct chat_template **out, const char *text, size_t length, struct why *why);
void chat_template_close(struct chat_template *t);

/*
 * `variables` is a JSON object: messages, add_generation_prompt, bos_token, … A variable that is null is defined and
 * None; one that is not there is undefined, which is what templates test for: leave out tools and documents that a
 * request has not.
 * `now` is the local time that strftime_now sees; NULL: the present.
 *
 * OK: *text is malloc'ed UTF-8, not terminated, the caller frees it. Else:
 * ERR_INVALID      the template refuses the conversation (raise_exception): why is the template's message, nothing else
 * ERR_UNSUPPORTED  the template cannot do this conversation, such as a text added to None
 * ERR_FULL         it used up its steps or its output
 * ERR_NOMEM
 */
enum err chat_template_render(const struct chat_template *t, const json_t *variables, const struct tm *now, char **text,
                              size_t *length, struct why *why);

#endif
