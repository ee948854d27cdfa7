/*
 * api_fields: members of a JSON object, read one by one into C values. A member that is absent or null leaves *out as
 * it was; one of the wrong type or out of its bounds makes the error of the answer, with its name as param.
 */
#ifndef QUIRE_COORDINATOR_API_FIELDS_H
#define QUIRE_COORDINATOR_API_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/api_error.h"

struct api_fields {
    const json_t *object;
    const char *within; /* name of the member that holds it, for messages; NULL: the body itself */
    struct api_error *error;
};

/* The body of a POST as fields; *root is the caller's (json_decref). */
enum err api_fields_open(struct api_fields *f, const char *body, size_t length, json_t **root, struct api_error *e);

/* The member, or NULL when it is absent or null. */
const json_t *api_field(const struct api_fields *f, const char *name);

enum err api_field_bool(const struct api_fields *f, const char *name, bool *out);
enum err api_field_int(const struct api_fields *f, const char *name, int64_t least, int64_t most, int64_t *out);
enum err api_field_u32(const struct api_fields *f, const char *name, uint32_t least, uint32_t most, uint32_t *out);
/* An integer will do as well. Bounds belong to the range. */
enum err api_field_float(const struct api_fields *f, const char *name, double least, double most, float *out);
/* Points into the JSON; not terminated. */
enum err api_field_string(const struct api_fields *f, const char *name, const char **out, size_t *length);

/* The member as fields of its own; inner->object is NULL when it is absent. */
enum err api_field_object(const struct api_fields *f, const char *name, struct api_fields *inner);

/* 400 with this member as param. `name` may be NULL: the object itself. */
enum err api_field_refuse(const struct api_fields *f, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "a string", "an array": how a message names what came. */
const char *json_kind(const json_t *value);

#endif
