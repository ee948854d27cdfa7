/* http_chunked: one byte moves the state machine by one step; only chunk data is taken in runs. */
#include "coordinator/http_chunked.h"

#include "base/must.h"
#include "coordinator/http_head.h"

enum { EXTRA_BYTES = 4096, SIZE_DIGITS = 16 };

void http_chunked_init(struct http_chunked *c)
{
    *c = (struct http_chunked){.state = CHUNK_SIZE};
}

static enum chunked_progress bad(struct http_chunked *c, const char *problem)
{
    c->problem = problem;
    return CHUNKED_BAD;
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

static enum chunked_progress size_byte(struct http_chunked *c, char byte)
{
    int digit = hex_digit(byte);
    if (digit >= 0) {
        if (++c->digits > SIZE_DIGITS || c->size > (INT64_MAX >> 4))
            return bad(c, "A chunk of the body says that it is larger than any body can be.");
        c->size = c->size << 4 | (uint64_t)digit;
        return CHUNKED_MORE;
    }
    if (c->digits == 0 || (byte != ';' && byte != '\r'))
        return bad(c, "A chunk of the body does not begin with a plain hexadecimal size.");
    c->state = byte == ';' ? CHUNK_EXTENSION : CHUNK_SIZE_LF;
    return CHUNKED_MORE;
}

/* Extensions and trailer fields: a byte that is passed over. */
static enum chunked_progress extra_byte(struct http_chunked *c, char byte)
{
    if (++c->extra_bytes > EXTRA_BYTES)
        return bad(c, "The chunk extensions and trailer fields of the body are too long.");
    if (!http_is_value_byte((unsigned char)byte))
        return bad(c, "A chunk extension or trailer field of the body holds a control character.");
    return CHUNKED_MORE;
}

static enum chunked_progress want(struct http_chunked *c, char byte, char expected, enum chunked_state next)
{
    if (byte != expected)
        return bad(c, "A line of the chunked body does not end with CR LF where it must.");
    c->state = next;
    return CHUNKED_MORE;
}

static enum chunked_progress feed_byte(struct http_chunked *c, char byte)
{
    switch (c->state) {
    case CHUNK_SIZE:
        return size_byte(c, byte);
    case CHUNK_EXTENSION:
        return byte == '\r' ? want(c, byte, '\r', CHUNK_SIZE_LF) : extra_byte(c, byte);
    case CHUNK_SIZE_LF:
        return want(c, byte, '\n', c->size ? CHUNK_DATA : CHUNK_TRAILER);
    case CHUNK_DATA_CR:
        return want(c, byte, '\r', CHUNK_DATA_LF);
    case CHUNK_DATA_LF:
        c->digits = 0;
        return want(c, byte, '\n', CHUNK_SIZE);
    case CHUNK_TRAILER:
        if (byte == '\r')
            return want(c, byte, '\r', CHUNK_LAST_LF);
        c->state = CHUNK_NAME;
        if (byte == ':')
            return bad(c, "A trailer field of the body has no name.");
        return feed_byte(c, byte);
    case CHUNK_NAME:
        if (byte == ':')
            c->state = CHUNK_VALUE;
        else if (!http_is_token_byte((unsigned char)byte))
            return bad(c, "A trailer field of the body does not begin with a name directly followed by a colon.");
        return extra_byte(c, byte);
    case CHUNK_VALUE:
        return byte == '\r' ? want(c, byte, '\r', CHUNK_VALUE_LF) : extra_byte(c, byte);
    case CHUNK_VALUE_LF:
        return want(c, byte, '\n', CHUNK_TRAILER);
    case CHUNK_LAST_LF:
        return want(c, byte, '\n', CHUNK_END) == CHUNKED_BAD ? CHUNKED_BAD : CHUNKED_END;
    case CHUNK_DATA:
    case CHUNK_END:
        break;
    }
    must_not_reach();
}

enum chunked_progress http_chunked_feed(struct http_chunked *c, const char *bytes, size_t length, size_t *taken,
                                        const char **data, size_t *data_bytes)
{
    must(c->state != CHUNK_END && !c->problem);
    enum chunked_progress progress = CHUNKED_MORE;
    size_t i = 0;
    while (i < length && progress == CHUNKED_MORE) {
        if (c->state == CHUNK_DATA) {
            size_t run = length - i < c->size ? length - i : (size_t)c->size;
            *data = bytes + i;
            *data_bytes = run;
            i += run;
            c->size -= run;
            if (c->size == 0)
                c->state = CHUNK_DATA_CR;
            progress = CHUNKED_DATA;
        } else {
            progress = feed_byte(c, bytes[i++]);
        }
    }
    *taken = i;
    return progress;
}
