/* text_json: see text_json.h. */
#include "coordinator/text_json.h"

#include "base/must.h"

void json_key(struct text *out, const char *name)
{
    char last = out->length ? out->at[out->length - 1] : '{';
    if (last != '{' && last != '[')
        text_add(out, ",", 1);
    if (!name)
        return;
    text_json_string_z(out, name);
    text_add(out, ":", 1);
}

void json_open(struct text *out, const char *name, char bracket)
{
    must(bracket == '{' || bracket == '[');
    json_key(out, name);
    text_add(out, &bracket, 1);
}

void json_close(struct text *out, char bracket)
{
    must(bracket == '}' || bracket == ']');
    text_add(out, &bracket, 1);
}

void json_u64(struct text *out, const char *name, uint64_t value)
{
    json_key(out, name);
    text_add_u64(out, value);
}

void json_f64(struct text *out, const char *name, double value)
{
    json_key(out, name);
    text_add_f64(out, value);
}

void json_bool(struct text *out, const char *name, bool value)
{
    json_key(out, name);
    text_add_string(out, value ? "true" : "false");
}

void json_text(struct text *out, const char *name, const char *terminated)
{
    json_key(out, name);
    text_json_string_z(out, terminated);
}

void json_nothing(struct text *out, const char *name)
{
    json_key(out, name);
    text_add_string(out, "null");
}
