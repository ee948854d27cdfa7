/*
 * stop_strings: finds the first of several strings in a text that comes byte by byte (Knuth, Morris and Pratt, "Fast
 * pattern matching in strings", 1977; one automaton a string), in constant time a byte however hostile the strings.
 *
 * The set is read-only and shared; the state is one choice's. What is found does not depend on how the text was cut:
 * the match that ends first wins, among those that end at one byte the longest.
 */
#ifndef QUIRE_COORDINATOR_STOP_STRINGS_H
#define QUIRE_COORDINATOR_STOP_STRINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    STOP_MOST_STRINGS = 16,
    STOP_MOST_BYTES = 1024, /* of one string */
};

struct stop_string {
    char *bytes;
    uint16_t *fallback; /* fallback[i]: longest proper border of the first i + 1 bytes */
    uint16_t length;
};

struct stop_strings {
    uint32_t count;
    struct stop_string strings[STOP_MOST_STRINGS];
};

/*
 * Adds a copy; length is 1 to STOP_MOST_BYTES and fewer than STOP_MOST_STRINGS are there: the caller has checked.
 * ERR_NOMEM.
 */
enum err stop_strings_add(struct stop_strings *s, const char *bytes, size_t length);
void stop_strings_fini(struct stop_strings *s);

struct stop_state {
    uint16_t matched[STOP_MOST_STRINGS]; /* bytes of each string that the tail of the text agrees with */
};

/* Takes the next byte. Gives the length of the string that it completes, or 0. */
size_t stop_strings_feed(const struct stop_strings *s, struct stop_state *state, char byte);

/* Bytes at the tail of the text that may be the beginning of a stop string. */
size_t stop_strings_held(const struct stop_strings *s, const struct stop_state *state);

#endif
