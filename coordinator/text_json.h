/*
 * text_json: JSON objects and lists, one value after another, at the end of a text.
 *
 * Rules:
 * 1. `name` is the key of a value in an object, or NULL: for the values of a list, and for the outermost one.
 * 2. Nobody counts commas: one is written in front of each value but the first of its object or list. The last byte of
 *    the text tells which one that is, so nothing else is added between these calls, but the value behind json_key.
 * 3. Each of them is safe on a text that is empty or has failed, and leaves a failed one as it is: who writes asks
 *    `failed` once, at the end.
 */
#ifndef QUIRE_COORDINATOR_TEXT_JSON_H
#define QUIRE_COORDINATOR_TEXT_JSON_H

#include "coordinator/text.h"

/* '{' and '}' around an object, '[' and ']' around a list. */
void json_open(struct text *out, const char *name, char bracket);
void json_close(struct text *out, char bracket);

void json_u64(struct text *out, const char *name, uint64_t value);
void json_f64(struct text *out, const char *name, double value); /* not finite: null */
void json_bool(struct text *out, const char *name, bool value);
void json_text(struct text *out, const char *name, const char *terminated); /* as text_json_string_z */
void json_nothing(struct text *out, const char *name);                      /* null */

/* A comma if there must be one, and the name; the caller adds the value. */
void json_key(struct text *out, const char *name);

#endif
