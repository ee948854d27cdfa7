/* command_input: what the commands share: options and help, a JSON document on stdin, a text on stdout, a sentence on stderr. */
#ifndef QUIRE_COORDINATOR_COMMAND_INPUT_H
#define QUIRE_COORDINATOR_COMMAND_INPUT_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"
#include "coordinator/options.h"

/* All of a file or of stdin, malloc'ed, at most INPUT_MAX_BYTES. `name` is for messages. */
enum { INPUT_MAX_BYTES = 256 << 20 };
enum err read_all(FILE *file, const char *name, char **out, size_t *length, struct why *why);

/* The JSON document on stdin; duplicate keys are refused, strings may hold U+0000. The caller owns a reference. */
enum err read_json_input(json_t **out, struct why *why);

/* Writes all of it to stdout and says so when that fails, as with a full disk. */
enum err write_output(const char *text, size_t length, struct why *why);

/* Prints "quire COMMAND: SENTENCE" to stderr, gives the exit code of a failure, of wrong usage. */
int fail_with(const char *command, const struct why *why);
int refuse_with(const char *command, const struct why *why);

/* How a command ends that reads nothing but its arguments and files: ERR_INVALID is what was asked for and can never be. */
int end_with(const char *command, enum err e, const struct why *why);

struct command_usage {
    const char *text;   /* of the help; the lines of the options follow */
    uint32_t groups;    /* of options.h: what the command takes */
    const char *wanted; /* the sentence when no model is said; NULL: it needs none */
};

/*
 * Reads options over what stands in *o, and one word beside them into *word where the command takes one (else NULL). False: the command
 * is over with *exit_code, since its help was wanted and stands on stdout (0), or the usage is wrong and stderr says why (2).
 */
bool command_options(struct serve_options *o, const struct command_usage *usage, int argc, char **argv,
                     const char **word, int *exit_code);

#endif
