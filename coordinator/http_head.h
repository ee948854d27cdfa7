/*
 * http_head: the head of an HTTP/1.1 request (request line and fields), read strictly after RFC 9112 and RFC 9110.
 * No sockets and no clock: bytes in, a checked head or a refusal out; the same result however the bytes were cut.
 *
 * Why an own parser: what smuggles requests lies in the raw bytes (two lengths, folded lines, a space before the colon,
 * a bare LF), and Debian's http-parser 2.9.4 accepts four of those even in strict mode and has no upstream any more. The
 * check that would have to stand before it already reads every line, so the check is the parser.
 *
 * Refused, with the status in brackets:
 *   request line not "method SP target SP version" or with other bytes than visible ASCII (400), target longer than
 *   uri_bytes (414), version not HTTP/1.0 or HTTP/1.1 (505), absolute target whose authority is not Host (421);
 *   head over head_bytes, more than `fields` fields (431);
 *   bare CR or LF, NUL and control bytes, folded lines, a name that is no token, space before the colon (400);
 *   no Host in 1.1, two, or one that is no host[:port] (400); a second Content-Length, Transfer-Encoding, Expect,
 *   Content-Type, Authorization or X-Api-Key (400): whoever stands before us might believe the other one;
 *   Content-Length not 1*DIGIT below 2^63 (400), with Transfer-Encoding (400), chunking in 1.0 (400);
 *   Transfer-Encoding other than exactly "chunked" (501); Expect other than 100-continue (417).
 * Accepted: one empty line before the request line (RFC 9112 2.2), any method that is a token of up to 20 bytes.
 * The path is not decoded and not normalised: routes are compared with the bytes that came.
 */
#ifndef QUIRE_COORDINATOR_HTTP_HEAD_H
#define QUIRE_COORDINATOR_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_OPTIONS, HTTP_OTHER };

enum { HTTP_MOST_FIELDS = 100 };

struct http_head_limits {
    uint32_t head_bytes; /* all of the head with its line ends */
    uint32_t uri_bytes;  /* the request target */
    uint32_t fields;     /* at most HTTP_MOST_FIELDS */
};

/* Offsets into http_head.text of two strings, each closed by a zero byte. */
struct http_field {
    uint32_t name; /* in lower case */
    uint32_t value;
};

enum http_progress {
    HTTP_MORE,    /* good so far; give more bytes */
    HTTP_DONE,    /* whole; the public fields are set */
    HTTP_REFUSED, /* status and problem are set; this connection can carry no further request */
};

struct http_head {
    /* set by HTTP_DONE; strings live until http_head_fini */
    enum http_method method;
    const char *path;  /* raw, begins with "/", or is "*" (OPTIONS only) */
    const char *query; /* raw, without "?"; "" when there is none */
    bool http_1_0;
    bool keep_alive;      /* as version and Connection say */
    bool expect_continue; /* 1.1 only */
    bool chunked;
    uint64_t content_length; /* 0 when absent or chunked */

    /* set by HTTP_REFUSED */
    int status;
    const char *problem; /* one sentence, constant, needs no JSON escape */

    /* private */
    struct http_head_limits limits;
    enum http_progress progress;
    bool request_line_seen, empty_line_seen, after_cr, connection_close, connection_keep_alive;
    uint32_t seen;       /* a bit for each field of the list that may come once only */
    uint32_t bytes;      /* of the head so far, line ends included */
    uint32_t line;       /* offset in text where the current line begins */
    uint32_t used, room; /* bytes of text */
    uint32_t target, target_bytes, host;
    uint32_t field_count;
    struct http_field fields[HTTP_MOST_FIELDS];
    char *text;
};

void http_head_init(struct http_head *h, const struct http_head_limits *limits);
void http_head_fini(struct http_head *h);

/*
 * Takes bytes up to the end of the head; *taken says how many belonged to it. To be called only while the last answer
 * was HTTP_MORE. Without memory: HTTP_REFUSED with 503.
 */
enum http_progress http_head_feed(struct http_head *h, const char *bytes, size_t length, size_t *taken);

/* The value of the first field of that name (given in lower case), or NULL; before HTTP_DONE of those that have come. */
const char *http_head_field(const struct http_head *h, const char *lower_name);

/* Character classes of RFC 9110 5.5 and 5.6.2, shared with the trailer fields of a chunked body and with replies. */
bool http_is_token_byte(unsigned char c);
bool http_is_value_byte(unsigned char c); /* visible, space, tab, and 0x80 to 0xff */

#endif
