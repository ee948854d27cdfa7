/*
 * detokenizer: turns the bytes of tokens, which may end anywhere, into UTF-8 that never does. Fixed size, in place.
 *
 * At most three bytes are held back, and only while they may still become a character. Bytes that cannot become one are
 * U+FFFD, one for each maximal subpart, as Python's errors="replace" does. However the bytes are cut into pushes, the
 * text put together is the same.
 */
#ifndef QUIRE_MODEL_DETOKENIZER_H
#define QUIRE_MODEL_DETOKENIZER_H

#include <stddef.h>
#include <stdint.h>

struct detokenizer {
    uint8_t held[3];
    uint8_t held_bytes;
};

void detokenizer_init(struct detokenizer *d);

/* Bytes that a push of `bytes` bytes, and a flush, may need: each byte may become a U+FFFD. */
static inline size_t detokenizer_room(size_t bytes)
{
    return 3 * (bytes + 3);
}

/* Writes what is certain now, gives its length. Caller has detokenizer_room(length) bytes at `out`; not terminated. */
size_t detokenizer_push(struct detokenizer *d, const char *piece, size_t length, char *out);

/* The end of the text: what is held becomes U+FFFD. Ready for another text after. */
size_t detokenizer_flush(struct detokenizer *d, char *out);

#endif
