/* stop_strings: see stop_strings.h. */
#include "coordinator/stop_strings.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"

/* Longest border of what has matched that `byte` continues. */
static uint16_t advance(const struct stop_string *s, uint16_t matched, char byte)
{
    while (matched > 0 && s->bytes[matched] != byte)
        matched = s->fallback[matched - 1];
    return (uint16_t)(matched + (s->bytes[matched] == byte));
}

enum err stop_strings_add(struct stop_strings *s, const char *bytes, size_t length)
{
    must(length > 0 && length <= STOP_MOST_BYTES && s->count < STOP_MOST_STRINGS);
    struct stop_string *string = &s->strings[s->count];
    string->bytes = malloc(length);
    string->fallback = calloc(length, sizeof *string->fallback);
    if (!string->bytes || !string->fallback) {
        free(string->bytes);
        free(string->fallback);
        return ERR_NOMEM;
    }
    memcpy(string->bytes, bytes, length);
    string->length = (uint16_t)length;
    for (size_t i = 1; i < length; i++)
        string->fallback[i] = advance(string, string->fallback[i - 1], bytes[i]);
    s->count++;
    return OK;
}

void stop_strings_fini(struct stop_strings *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        free(s->strings[i].bytes);
        free(s->strings[i].fallback);
    }
    s->count = 0;
}

size_t stop_strings_feed(const struct stop_strings *s, struct stop_state *state, char byte)
{
    size_t found = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct stop_string *string = &s->strings[i];
        uint16_t matched = advance(string, state->matched[i], byte);
        if (matched == string->length) {
            if (matched > found)
                found = matched;
            matched = string->fallback[matched - 1];
        }
        state->matched[i] = matched;
    }
    return found;
}

size_t stop_strings_held(const struct stop_strings *s, const struct stop_state *state)
{
    size_t held = 0;
    for (uint32_t i = 0; i < s->count; i++)
        if (state->matched[i] > held)
            held = state->matched[i];
    return held;
}
