/*
 * http_chunked: takes the chunked coding (RFC 9112 7.1) off a request's body. No sockets and no memory of its own: it
 * points into the bytes it is given. Strict: a size is 1 to 16 hexadecimal digits below 2^63 and nothing else, lines end
 * with CR LF; extensions and trailer fields are checked for form, bounded (4 KiB of each in a body) and passed over.
 */
#ifndef QUIRE_COORDINATOR_HTTP_CHUNKED_H
#define QUIRE_COORDINATOR_HTTP_CHUNKED_H

#include <stddef.h>
#include <stdint.h>

enum chunked_progress {
    CHUNKED_MORE, /* all taken, nothing more to give out */
    CHUNKED_DATA, /* *data and *data_bytes are a part of the body; call again with the rest of the input */
    CHUNKED_END,  /* the body is whole */
    CHUNKED_BAD,  /* problem is set; where the next request would begin is unknown */
};

/* SIZE -> [EXTENSION ->] SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE;
 * after size 0: SIZE_LF -> TRAILER -> (NAME -> VALUE -> VALUE_LF -> TRAILER)* -> LAST_LF -> END */
enum chunked_state {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER,
    CHUNK_NAME,
    CHUNK_VALUE,
    CHUNK_VALUE_LF,
    CHUNK_LAST_LF,
    CHUNK_END,
};

struct http_chunked {
    enum chunked_state state;
    unsigned digits;      /* of the size so far */
    uint64_t size;        /* bytes of the current chunk not yet given out */
    uint32_t extra_bytes; /* of extensions and trailers so far */
    const char *problem;  /* one sentence, constant */
};

void http_chunked_init(struct http_chunked *c);

/* Takes *taken bytes of the input. Not to be called after CHUNKED_END or CHUNKED_BAD. */
enum chunked_progress http_chunked_feed(struct http_chunked *c, const char *bytes, size_t length, size_t *taken,
                                        const char **data, size_t *data_bytes);

#endif
