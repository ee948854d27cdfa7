/*
 * text: a growable buffer of bytes, and the only place where bytes become JSON or numbers become digits.
 *
 * What stays true: numbers are printed the same under every locale and shortest-exact, so the same value is the same
 * bytes; whatever goes through text_json_* is valid UTF-8 and valid JSON, whatever came in. When memory runs out
 * `failed` is set, everything after that is dropped, and the caller checks once at the end.
 */
#ifndef QUIRE_COORDINATOR_TEXT_H
#define QUIRE_COORDINATOR_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *at;      /* malloc'ed, not terminated; NULL while capacity is 0 */
    size_t length; /* bytes that are good */
    size_t capacity;
    bool failed;
};

/* {0} is an empty text. Frees the bytes and leaves an empty text. */
void text_fini(struct text *t);

/* Keeps the memory for the next use. */
void text_clear(struct text *t);

/* Room for `more` further bytes; false and `failed` when there is no memory. */
bool text_reserve(struct text *t, size_t more);

void text_add(struct text *t, const void *bytes, size_t length);
void text_add_string(struct text *t, const char *terminated);
void text_add_u64(struct text *t, uint64_t value);
void text_add_i64(struct text *t, int64_t value);

/* Shortest digits that read back as the same number, as JSON writes them; not finite: null. */
void text_add_f64(struct text *t, double value);
void text_add_f32(struct text *t, float value);

/* A JSON string with its quotes. Each maximal invalid part of UTF-8 becomes U+FFFD. */
void text_json_string(struct text *t, const char *bytes, size_t length);
void text_json_string_z(struct text *t, const char *terminated);

/* The inside of a JSON string, without quotes, for strings put together from parts that are whole characters. */
void text_json_string_part(struct text *t, const char *bytes, size_t length);

/* Code points in valid UTF-8. */
size_t utf8_count(const char *bytes, size_t length);

#endif
