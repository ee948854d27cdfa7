#include "coordinator/api_limits.h"

#include <jansson.h>

#include "coordinator/json_scan.h"

static enum err read_limits(const json_t *root, uint32_t session_slots, uint32_t *max_sessions, struct api_error *e)
{
    const json_t *value = json_object_get(root, "max_sessions");
    if (!json_is_integer(value) || json_object_size(root) != 1)
        return api_refuse(e, 400, "max_sessions", "the body is to be {\"max_sessions\": N} with a whole number");
    json_int_t number = json_integer_value(value);
    if (number < 1 || number > session_slots)
        return api_refuse(
            e, 400, "max_sessions",
            "max_sessions is %lld; this server was started with %u session slots (--session-slots), so 1 to %u can be",
            (long long)number, session_slots, session_slots);
    *max_sessions = (uint32_t)number;
    return OK;
}

enum err api_limits_parse(const char *body, size_t length, uint32_t session_slots, uint32_t *max_sessions,
                          struct api_error *e)
{
    json_t *root;
    struct json_fault fault;
    enum err result = json_body_parse(body, length, &root, &fault);
    if (result == ERR_NOMEM)
        return api_no_memory(e);
    if (result)
        return api_refuse(e, 400, *fault.field ? fault.field : NULL, "%s (at byte %zu)", fault.text, fault.offset);
    result = read_limits(root, session_slots, max_sessions, e);
    json_decref(root);
    return result;
}
