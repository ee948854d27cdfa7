/*
 * json_scan: a request body as JSON, in bounded memory.
 *
 * A scan without allocation looks at depth, number of values and length of strings before jansson sees the body: one
 * MiB of "[]" would cost it 60 to 90 MB. At most 200,000 values of about 100 bytes are left, whatever was sent, so
 * there is no budget beside that: jansson's allocator is one for the process, and two threads parse at once.
 */
#ifndef QUIRE_COORDINATOR_JSON_SCAN_H
#define QUIRE_COORDINATOR_JSON_SCAN_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    JSON_MOST_DEPTH = 64,
    JSON_MOST_VALUES = 200000,
    JSON_MOST_KEY_BYTES = 1024,
};

struct json_fault {
    size_t offset;  /* byte of the body where it was seen */
    char field[64]; /* the top-level member it lies in; "" when it lies in none or its name is not plain */
    char text[256]; /* one sentence for a person */
};

/* Only the limits; OK does not say that it is JSON. *values is what jansson would make of it at the most. */
enum err json_scan(const char *body, size_t length, uint32_t *values, struct json_fault *fault);

/*
 * The body as one JSON object: limits, RFC 8259, UTF-8, no key twice, nothing behind it. *out is the caller's
 * (json_decref). ERR_INVALID: fault says what and where; ERR_NOMEM.
 */
enum err json_body_parse(const char *body, size_t length, json_t **out, struct json_fault *fault);

#endif
