/* json_scan: see json_scan.h. */
#include "coordinator/json_scan.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the scan stands. Strings are [begin, end) in the body, without their quotes. */
struct scan {
    const char *body;
    size_t string_begin, string_end; /* the last string that ended */
    size_t field_begin, field_end;   /* the top-level member that is open; empty: none */
    uint32_t depth, values;
};

static enum err limit(struct json_fault *fault, size_t offset, const char *sentence, unsigned most)
{
    fault->offset = offset;
    snprintf(fault->text, sizeof fault->text, sentence, most);
    return ERR_INVALID;
}

/* The name as a string of a struct api_error: only what needs no thought. */
static void copy_field(const char *body, size_t begin, size_t end, char field[64])
{
    field[0] = '\0';
    if (end - begin >= 64)
        return;
    for (size_t i = begin; i < end; i++)
        if (body[i] <= ' ' || body[i] > '~' || body[i] == '\\')
            return;
    memcpy(field, body + begin, end - begin);
    field[end - begin] = '\0';
}

/* The place behind the string that begins at `at` (behind its quote), or `until`. */
static size_t skip_string(struct scan *s, size_t at, size_t until)
{
    s->string_begin = at;
    while (at < until && s->body[at] != '"')
        at += s->body[at] == '\\' ? 2 : 1;
    s->string_end = at < until ? at : until;
    return at < until ? at + 1 : until;
}

static bool is_structure(char c)
{
    return c != '\0' && strchr("{}[],:\" \t\r\n", c) != NULL;
}

static enum err scan_to(struct scan *s, size_t until, struct json_fault *fault)
{
    size_t at = 0;
    while (at < until) {
        size_t from = at;
        char c = s->body[at++];
        bool begins_value = true;
        switch (c) {
        case '"':
            at = skip_string(s, at, until);
            break;
        case '{':
        case '[':
            if (++s->depth > JSON_MOST_DEPTH)
                return limit(fault, from, "the body is nested deeper than %u levels", JSON_MOST_DEPTH);
            break;
        case '}':
        case ']':
            s->depth -= s->depth > 0;
            begins_value = false;
            break;
        case ':':
            if (s->string_end - s->string_begin > JSON_MOST_KEY_BYTES)
                return limit(fault, s->string_begin, "the name of a member is longer than %u bytes",
                             JSON_MOST_KEY_BYTES);
            if (s->depth == 1) {
                s->field_begin = s->string_begin;
                s->field_end = s->string_end;
            }
            begins_value = false;
            break;
        case ',':
            begins_value = false;
            break;
        default:
            if (is_structure(c))
                begins_value = false;
            else
                while (at < until && !is_structure(s->body[at]))
                    at++;
        }
        if (s->depth == 0 || (s->depth == 1 && c == ','))
            s->field_begin = s->field_end = 0;
        if (begins_value && ++s->values > JSON_MOST_VALUES)
            return limit(fault, from, "the body has more than %u values", JSON_MOST_VALUES);
    }
    return OK;
}

enum err json_scan(const char *body, size_t length, uint32_t *values, struct json_fault *fault)
{
    *fault = (struct json_fault){0};
    struct scan s = {.body = body};
    enum err err = scan_to(&s, length, fault);
    copy_field(body, s.field_begin, s.field_end, fault->field);
    *values = s.values;
    return err;
}

/* Where jansson has no memory for a token it says that the token is wrong: whether it had is noted here. */
static _Thread_local bool memory_lacked;

static void *noted_malloc(size_t bytes)
{
    void *got = malloc(bytes);
    memory_lacked |= !got;
    return got;
}

static void note_lack_of_memory(void)
{
    json_set_alloc_funcs(noted_malloc, free);
}

/* jansson says where; the scan says in which member that is. */
static enum err describe(const char *body, size_t length, const json_error_t *error, struct json_fault *fault)
{
    if (memory_lacked || json_error_code(error) == json_error_out_of_memory)
        return ERR_NOMEM;
    size_t offset = error->position > 0 && (size_t)error->position <= length ? (size_t)error->position : length;
    struct scan s = {.body = body};
    *fault = (struct json_fault){.offset = offset};
    if (scan_to(&s, offset, fault) == OK) {
        bool duplicate = json_error_code(error) == json_error_duplicate_key && s.depth == 1;
        copy_field(body, duplicate ? s.string_begin : s.field_begin, duplicate ? s.string_end : s.field_end,
                   fault->field);
    }
    snprintf(fault->text, sizeof fault->text, "the body is not JSON: %s (byte %zu)", error->text, offset);
    return ERR_INVALID;
}

enum err json_body_parse(const char *body, size_t length, json_t **out, struct json_fault *fault)
{
    *out = NULL;
    uint32_t values;
    enum err err = json_scan(body, length, &values, fault);
    if (err != OK)
        return err;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, note_lack_of_memory);
    memory_lacked = false;
    json_error_t error;
    json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root)
        return describe(body, length, &error, fault);
    if (memory_lacked) { /* it may have left out a member for which there was none */
        json_decref(root);
        return ERR_NOMEM;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        *fault = (struct json_fault){.text = "the body is a JSON array, not an object"};
        return ERR_INVALID;
    }
    *out = root;
    return OK;
}
