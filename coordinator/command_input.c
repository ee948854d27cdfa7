/* command_input: see command_input.h. */
#include "coordinator/command_input.h"

#include <stdlib.h>
#include <string.h>

enum err read_all(FILE *file, const char *name, char **out, size_t *length, struct why *why)
{
    char *text = NULL;
    size_t used = 0, room = 0;
    *out = NULL;
    while (!feof(file)) {
        if (used == room) {
            size_t wanted = room ? 2 * room : 1 << 16;
            char *more = wanted <= 2 * (size_t)INPUT_MAX_BYTES ? realloc(text, wanted) : NULL;
            if (!more) {
                free(text);
                return because(why, ERR_NOMEM, "%s holds more than can be read", name);
            }
            text = more;
            room = wanted;
        }
        used += fread(text + used, 1, room - used, file);
        if (ferror(file)) {
            free(text);
            return because_errno(why, ERR_IO, "could not read %s", name);
        }
    }
    *out = text;
    *length = used;
    return OK;
}

enum err read_json_input(json_t **out, struct why *why)
{
    char *text;
    size_t length;
    enum err err = read_all(stdin, "the standard input", &text, &length, why);
    if (err != OK)
        return err;
    json_error_t error;
    *out = json_loadb(text ? text : "", length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    free(text);
    if (!*out)
        return because(why, ERR_FORMAT, "the standard input is not JSON: %s (line %d, column %d)", error.text,
                       error.line, error.column);
    return OK;
}

enum err write_output(const char *text, size_t length, struct why *why)
{
    if (fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0)
        return because_errno(why, ERR_IO, "could not write to the standard output");
    return OK;
}

int fail_with(const char *command, const struct why *why)
{
    fprintf(stderr, "quire %s: %s\n", command, why->text);
    return 1;
}

int refuse_with(const char *command, const struct why *why)
{
    fail_with(command, why);
    return 2;
}

int end_with(const char *command, enum err e, const struct why *why)
{
    return e == ERR_INVALID ? refuse_with(command, why) : e ? fail_with(command, why) : 0;
}

bool command_options(struct serve_options *o, const struct command_usage *usage, int argc, char **argv,
                     const char **word, int *exit_code)
{
    const char *rest = NULL;
    uint32_t rest_count;
    struct why why;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts(usage->text);
        serve_options_print_help(usage->groups);
        *exit_code = 0;
        return false;
    }
    enum err e = serve_options_parse(o, usage->groups, argc, argv, &rest, word ? 1 : 0, &rest_count, &why);
    if (!e && usage->wanted && !*o->model)
        e = because(&why, ERR_INVALID, "%s", usage->wanted);
    if (e)
        *exit_code = refuse_with(argv[0], &why);
    else if (word)
        *word = rest;
    return !e;
}
