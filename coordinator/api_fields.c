/* api_fields: see api_fields.h. */
#include "coordinator/api_fields.h"

#include <stdarg.h>
#include <stdio.h>

#include "coordinator/json_scan.h"
#include "coordinator/text.h"

const char *json_kind(const json_t *value)
{
    /* clang-format off: a table */
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
    /* clang-format on */
}

enum err api_fields_open(struct api_fields *f, const char *body, size_t length, json_t **root, struct api_error *e)
{
    struct json_fault fault;
    enum err err = json_body_parse(body, length, root, &fault);
    if (err == ERR_NOMEM)
        return api_no_memory(e);
    if (err != OK)
        return api_refuse(e, 400, fault.field, "%s", fault.text);
    *f = (struct api_fields){.object = *root, .error = e};
    return OK;
}

const json_t *api_field(const struct api_fields *f, const char *name)
{
    const json_t *value = json_object_get(f->object, name);
    return json_is_null(value) ? NULL : value;
}

enum err api_field_refuse(const struct api_fields *f, const char *name, const char *format, ...)
{
    char message[sizeof f->error->message], param[sizeof f->error->param];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    snprintf(param, sizeof param, "%s%s%s", f->within ? f->within : "", f->within && name ? "." : "", name ? name : "");
    return api_refuse(f->error, 400, param, "%s", message);
}

static enum err wrong_kind(const struct api_fields *f, const char *name, const char *wanted, const json_t *value)
{
    return api_field_refuse(f, name, "%s must be %s, not %s", name, wanted, json_kind(value));
}

enum err api_field_bool(const struct api_fields *f, const char *name, bool *out)
{
    const json_t *value = api_field(f, name);
    if (!value)
        return OK;
    if (!json_is_boolean(value))
        return wrong_kind(f, name, "true or false", value);
    *out = json_is_true(value);
    return OK;
}

enum err api_field_int(const struct api_fields *f, const char *name, int64_t least, int64_t most, int64_t *out)
{
    const json_t *value = api_field(f, name);
    if (!value)
        return OK;
    if (!json_is_integer(value))
        return wrong_kind(f, name, "an integer", value);
    int64_t number = json_integer_value(value);
    if (number < least && most == INT64_MAX)
        return api_field_refuse(f, name, "%s must be at least %lld, not %lld", name, (long long)least,
                                (long long)number);
    if (number < least || number > most)
        return api_field_refuse(f, name, "%s must be from %lld to %lld, not %lld", name, (long long)least,
                                (long long)most, (long long)number);
    *out = number;
    return OK;
}

enum err api_field_u32(const struct api_fields *f, const char *name, uint32_t least, uint32_t most, uint32_t *out)
{
    int64_t number = *out;
    enum err err = api_field_int(f, name, least, most, &number);
    if (err == OK)
        *out = (uint32_t)number;
    return err;
}

/* Digits for a message, the same under every locale. */
static const char *number_text(double value, char out[32])
{
    struct text digits = {0};
    text_add_f64(&digits, value);
    snprintf(out, 32, "%.*s", (int)digits.length, digits.at ? digits.at : "");
    text_fini(&digits);
    return out;
}

enum err api_field_float(const struct api_fields *f, const char *name, double least, double most, float *out)
{
    const json_t *value = api_field(f, name);
    if (!value)
        return OK;
    if (!json_is_number(value))
        return wrong_kind(f, name, "a number", value);
    double number = json_number_value(value);
    char low[32], high[32], got[32];
    if (!(number >= least && number <= most))
        return api_field_refuse(f, name, "%s must be from %s to %s, not %s", name, number_text(least, low),
                                number_text(most, high), number_text(number, got));
    *out = (float)number;
    return OK;
}

enum err api_field_string(const struct api_fields *f, const char *name, const char **out, size_t *length)
{
    const json_t *value = api_field(f, name);
    if (!value)
        return OK;
    if (!json_is_string(value))
        return wrong_kind(f, name, "a string", value);
    *out = json_string_value(value);
    *length = json_string_length(value);
    return OK;
}

enum err api_field_object(const struct api_fields *f, const char *name, struct api_fields *inner)
{
    const json_t *value = api_field(f, name);
    *inner = (struct api_fields){.object = value, .within = name, .error = f->error};
    if (value && !json_is_object(value))
        return wrong_kind(f, name, "an object", value);
    return OK;
}
