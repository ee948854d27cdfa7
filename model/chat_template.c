/* chat_template: see chat_template.h. The engine's C face is model/jinja/quire_jinja.h. */
#include "model/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/jinja/quire_jinja.h"

enum {
    MAX_TEMPLATE_BYTES = 1 << 20,  /* the largest published ones have 17 KB */
    MAX_VARIABLE_BYTES = 64 << 20, /* as JSON */
    MAX_OUTPUT_BYTES = 64 << 20,
    MAX_STEPS = 10 * 1000 * 1000, /* a message takes a few hundred */
    MAX_RECURSION = 200,
};

struct chat_template {
    struct quire_jinja *jinja;
};

static enum err code_of(enum quire_jinja_result result)
{
    switch (result) {
    case QUIRE_JINJA_OK:
        return OK;
    case QUIRE_JINJA_SYNTAX:
        return ERR_FORMAT;
    case QUIRE_JINJA_RAISED:
        return ERR_INVALID;
    case QUIRE_JINJA_LIMIT:
        return ERR_FULL;
    case QUIRE_JINJA_NOMEM:
        return ERR_NOMEM;
    case QUIRE_JINJA_RUNTIME:
    case QUIRE_JINJA_PANIC:
        return ERR_UNSUPPORTED;
    }
    must_not_reach();
}

/* Takes over the engine's message. */
static enum err because_engine(struct why *why, enum quire_jinja_result result, struct quire_jinja_text message)
{
    enum err err = code_of(result);
    int length = message.length < sizeof why->text ? (int)message.length : (int)sizeof why->text;
    const char *words = message.at ? message.at : "";
    switch (result) {
    case QUIRE_JINJA_RAISED:
        because(why, err, "%.*s", length, words);
        break;
    case QUIRE_JINJA_SYNTAX:
        because(why, err, "the chat template cannot be read: %.*s", length, words);
        break;
    case QUIRE_JINJA_NOMEM:
        because(why, err, "no memory for the chat template");
        break;
    default:
        because(why, err, "the chat template cannot render this conversation: %.*s", length, words);
    }
    free(message.at);
    return err;
}

static size_t format_time(char *out, size_t capacity, const char *format, const struct quire_jinja_time *time)
{
    struct tm t = {
        .tm_year = time->year - 1900,
        .tm_mon = time->month - 1,
        .tm_mday = time->day,
        .tm_hour = time->hour,
        .tm_min = time->minute,
        .tm_sec = time->second,
        .tm_isdst = -1,
    };
    mktime(&t); /* day of the week and of the year */
    return strftime(out, capacity, format, &t);
}

enum err chat_template_open(struct chat_template **out, const char *text, size_t length, struct why *why)
{
    *out = NULL;
    if (length > MAX_TEMPLATE_BYTES)
        return because(why, ERR_FORMAT, "the chat template has %zu bytes; at most %d are read", length,
                       MAX_TEMPLATE_BYTES);
    struct chat_template *t = calloc(1, sizeof *t);
    if (!t)
        return because(why, ERR_NOMEM, "no memory for the chat template");
    struct quire_jinja_limits limits = {MAX_STEPS, MAX_OUTPUT_BYTES, MAX_RECURSION};
    struct quire_jinja_text message;
    enum quire_jinja_result result =
        quire_jinja_open(&t->jinja, length ? text : "", length, &limits, format_time, &message);
    if (result != QUIRE_JINJA_OK) {
        free(t);
        return because_engine(why, result, message);
    }
    *out = t;
    return OK;
}

void chat_template_close(struct chat_template *t)
{
    if (!t)
        return;
    quire_jinja_close(t->jinja);
    free(t);
}

enum err chat_template_render(const struct chat_template *t, const json_t *variables, const struct tm *now, char **text,
                              size_t *length, struct why *why)
{
    *text = NULL;
    *length = 0;
    char *json = json_dumps(variables, JSON_COMPACT);
    if (!json)
        return because(why, ERR_NOMEM, "no memory for the chat template's variables, or they are nested too deeply");
    size_t json_bytes = strlen(json);
    struct tm present;
    if (!now) {
        time_t seconds = time(NULL);
        now = localtime_r(&seconds, &present);
    }
    struct quire_jinja_time at = {now->tm_year + 1900, now->tm_mon + 1, now->tm_mday,
                                  now->tm_hour,        now->tm_min,     now->tm_sec};
    struct quire_jinja_text out = {0};
    enum quire_jinja_result result = QUIRE_JINJA_LIMIT;
    if (json_bytes <= MAX_VARIABLE_BYTES)
        result = quire_jinja_render(t->jinja, json, json_bytes, &at, &out);
    free(json);
    if (result != QUIRE_JINJA_OK)
        return because_engine(why, result, out);
    *text = out.at;
    *length = out.length;
    return OK;
}
