/*
 * api_error: an answer that says no. {"error": {"message", "type", "param", "code"}}, as clients of OpenAI's API
 * expect it; the type follows from the status.
 */
#ifndef QUIRE_COORDINATOR_API_ERROR_H
#define QUIRE_COORDINATOR_API_ERROR_H

#include <stdint.h>

#include "base/err.h"
#include "coordinator/text.h"

struct api_error {
    int status;             /* HTTP's */
    const char *type;       /* NULL: the usual one of the status */
    const char *code;       /* a constant; NULL: null */
    char param[64];         /* the field at fault; "": null */
    char message[512];      /* one sentence for a person */
    uint32_t prompt_tokens; /* with a context overflow: both numbers are fields of the answer too; 0: they are not */
    uint32_t context_tokens;
};

/*
 * Fills *e; gives ERR_INVALID for 400 and ERR_UNSUPPORTED for other statuses, to be returned at once. param may be
 * NULL.
 */
enum err api_refuse(struct api_error *e, int status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* 500: the helper thread found no memory. */
enum err api_no_memory(struct api_error *e);

/* {"error": {...}}, a body of its own. */
void api_error_write(struct text *out, const struct api_error *e);

/*
 * data: {"error": {...}} and a blank line: what a stream that has begun can still say. The connection closes behind
 * it.
 */
void api_error_write_event(struct text *out, const struct api_error *e);

#endif
