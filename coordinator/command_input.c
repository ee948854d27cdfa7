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
