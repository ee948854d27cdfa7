/* shown: a name out of a file made fit for a message: cut, and with everything unprintable shown as '?'. */
#ifndef QUIRE_MODEL_SHOWN_H
#define QUIRE_MODEL_SHOWN_H

#include <stddef.h>

enum { SHOWN_BYTES = 96 };

struct shown {
    char text[SHOWN_BYTES];
};

static inline struct shown shown_bytes(const char *at, size_t length)
{
    struct shown out;
    size_t n = length < sizeof out.text - 1 ? length : sizeof out.text - 1;
    for (size_t i = 0; i < n; i++)
        out.text[i] = at[i] >= ' ' && at[i] < 127 ? at[i] : '?';
    out.text[n] = 0;
    return out;
}

#endif
