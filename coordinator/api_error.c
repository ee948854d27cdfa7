/* api_error: see api_error.h. */
#include "coordinator/api_error.h"

#include <stdarg.h>
#include <stdio.h>

/* What clients turn into their exception classes. */
static const char *type_of(int status)
{
    /* clang-format off: a table */
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 500:
        return "server_error";
    case 501:
        return "not_supported_error";
    case 503:
        return "unavailable_error";
    default:
        return "invalid_request_error";
    }
    /* clang-format on */
}

enum err api_refuse(struct api_error *e, int status, const char *param, const char *format, ...)
{
    *e = (struct api_error){.status = status};
    if (param)
        snprintf(e->param, sizeof e->param, "%s", param);
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    return status == 400 ? ERR_INVALID : ERR_UNSUPPORTED;
}

enum err api_no_memory(struct api_error *e)
{
    api_refuse(e, 500, NULL, "the server has no memory left for this request; try again later");
    return ERR_NOMEM;
}

void api_error_write(struct text *out, const struct api_error *e)
{
    text_add_string(out, "{\"error\":{\"message\":");
    text_json_string_z(out, e->message);
    text_add_string(out, ",\"type\":");
    text_json_string_z(out, e->type ? e->type : type_of(e->status));
    text_add_string(out, ",\"param\":");
    if (e->param[0])
        text_json_string_z(out, e->param);
    else
        text_add_string(out, "null");
    text_add_string(out, ",\"code\":");
    if (e->code)
        text_json_string_z(out, e->code);
    else
        text_add_string(out, "null");
    if (e->context_tokens > 0) {
        text_add_string(out, ",\"n_prompt_tokens\":");
        text_add_u64(out, e->prompt_tokens);
        text_add_string(out, ",\"n_ctx\":");
        text_add_u64(out, e->context_tokens);
    }
    text_add_string(out, "}}");
}

void api_error_write_event(struct text *out, const struct api_error *e)
{
    text_add_string(out, "data: ");
    api_error_write(out, e);
    text_add_string(out, "\n\n");
}
