/* detokenizer: see detokenizer.h. */
#include "model/detokenizer.h"

#include <string.h>

#include "base/must.h"
#include "model/utf8.h"

static const char REPLACEMENT[3] = {'\xEF', '\xBF', '\xBD'};

void detokenizer_init(struct detokenizer *d)
{
    d->held_bytes = 0;
}

/* Writes all that is certain of `bytes`, gives how many bytes of it are left: a character that has not ended. */
static size_t write_certain(const char *bytes, size_t length, char *out, size_t *written)
{
    size_t at = 0;
    while (at < length) {
        struct utf8_step step = utf8_step(bytes + at, length - at);
        if (step.kind == UTF8_CUT)
            break;
        const char *from = step.kind == UTF8_GOOD ? bytes + at : REPLACEMENT;
        size_t count = step.kind == UTF8_GOOD ? step.bytes : sizeof REPLACEMENT;
        memcpy(out + *written, from, count);
        *written += count;
        at += step.bytes;
    }
    return length - at;
}

size_t detokenizer_push(struct detokenizer *d, const char *piece, size_t length, char *out)
{
    size_t written = 0;
    /* First the character that is held, byte by byte, until it has ended one way or the other. */
    while (d->held_bytes > 0 && length > 0) {
        char joined[4];
        memcpy(joined, d->held, d->held_bytes);
        joined[d->held_bytes] = *piece;
        size_t left = write_certain(joined, d->held_bytes + 1u, out, &written);
        must(left <= sizeof d->held);
        memcpy(d->held, joined + d->held_bytes + 1u - left, left);
        d->held_bytes = (uint8_t)left;
        piece++;
        length--;
    }
    if (length == 0)
        return written;
    size_t left = write_certain(piece, length, out, &written);
    must(left <= sizeof d->held);
    memcpy(d->held, piece + length - left, left);
    d->held_bytes = (uint8_t)left;
    return written;
}

size_t detokenizer_flush(struct detokenizer *d, char *out)
{
    if (d->held_bytes == 0)
        return 0;
    d->held_bytes = 0; /* what is held is one maximal subpart */
    memcpy(out, REPLACEMENT, sizeof REPLACEMENT);
    return sizeof REPLACEMENT;
}
