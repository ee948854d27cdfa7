/*
 * quire_jinja: the C face of the Rust library beside it (minijinja): one chat template, opened once, rendered often.
 * Only model/chat_template.c includes this.
 *
 * Nothing here unwinds into C: a panic inside is caught and comes back as QUIRE_JINJA_PANIC. Strings that come out are
 * malloc'ed, not terminated, and the caller's to free. An open template may be rendered by several threads at once.
 */
#ifndef QUIRE_MODEL_JINJA_QUIRE_JINJA_H
#define QUIRE_MODEL_JINJA_QUIRE_JINJA_H

#include <stddef.h>
#include <stdint.h>

struct quire_jinja; /* opaque */

enum quire_jinja_result {
    QUIRE_JINJA_OK = 0,
    QUIRE_JINJA_SYNTAX = 1,  /* the template (or the JSON given) cannot be read */
    QUIRE_JINJA_RAISED = 2,  /* the template called raise_exception; the text is its message and nothing else */
    QUIRE_JINJA_RUNTIME = 3, /* the template did what cannot be done, such as adding None to a text */
    QUIRE_JINJA_LIMIT = 4,   /* it ran out of fuel or of output */
    QUIRE_JINJA_PANIC = 5,
    QUIRE_JINJA_NOMEM = 6,
};

struct quire_jinja_limits {
    uint64_t fuel;         /* instructions of one rendering */
    uint64_t output_bytes; /* bytes of one rendering */
    uint32_t recursion;    /* nested blocks and macro calls */
};

/* Local time as strftime_now sees it: fields as in struct tm, but the year is the year and the month begins at 1. */
struct quire_jinja_time {
    int32_t year, month, day, hour, minute, second;
};

/* Formats like strftime. Gives the bytes written, 0 when they do not fit. `format` is terminated. */
typedef size_t (*quire_jinja_format_time)(char *out, size_t capacity, const char *format,
                                          const struct quire_jinja_time *time);

/* Length-prefixed text that comes out. */
struct quire_jinja_text {
    char *at;
    size_t length;
};

/* `out` is NULL and `message` filled unless the result is QUIRE_JINJA_OK. */
enum quire_jinja_result quire_jinja_open(struct quire_jinja **out, const char *template_text, size_t template_length,
                                         const struct quire_jinja_limits *limits, quire_jinja_format_time format_time,
                                         struct quire_jinja_text *message);
void quire_jinja_close(struct quire_jinja *j);

/* `context` is a JSON object: the template's variables. `text` is the rendering, or the message of what went wrong. */
enum quire_jinja_result quire_jinja_render(const struct quire_jinja *j, const char *context, size_t context_length,
                                           const struct quire_jinja_time *now, struct quire_jinja_text *text);

#endif
