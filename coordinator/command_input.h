/* command_input: what the small commands share: a JSON document on stdin, a text on stdout, a sentence on stderr. */
#ifndef QUIRE_COORDINATOR_COMMAND_INPUT_H
#define QUIRE_COORDINATOR_COMMAND_INPUT_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

/* All of a file or of stdin, malloc'ed, at most INPUT_MAX_BYTES. `name` is for messages. */
enum { INPUT_MAX_BYTES = 256 << 20 };
enum err read_all(FILE *file, const char *name, char **out, size_t *length, struct why *why);

/* The JSON document on stdin; duplicate keys are refused, strings may hold U+0000. The caller owns a reference. */
enum err read_json_input(json_t **out, struct why *why);

/* Writes all of it to stdout and says so when that fails, as with a full disk. */
enum err write_output(const char *text, size_t length, struct why *why);

/* Prints "quire COMMAND: SENTENCE" to stderr, gives the exit code of a failure. */
int fail_with(const char *command, const struct why *why);

#endif
