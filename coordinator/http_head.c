/*
 * http_head: reads a request's head line by line. Each byte is checked as it comes and each line as it ends, so that a
 * bad head is refused at its first bad byte and not at a deadline. Names, values and the target are closed by zero
 * bytes inside `text`; offsets are kept until the end because text moves while it grows.
 */
#include "coordinator/http_head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/must.h"

enum {
    METHOD_BYTES = 20,      /* longest method name that is read */
    REQUEST_LINE_REST = 32, /* method, two spaces and version, beside the target */
    TEXT_FIRST_BYTES = 512,
};

/* Fields that may come once only: a second one would be read differently by somebody. */
static const char *const once_only[] = {"host",         "content-length", "transfer-encoding", "expect",
                                        "content-type", "authorization",  "x-api-key"};
enum { ONCE_HOST, ONCE_LENGTH, ONCE_CODING, ONCE_EXPECT };

static const struct {
    const char *name;
    enum http_method method;
} methods[] = {{"GET", HTTP_GET},     {"HEAD", HTTP_HEAD},     {"POST", HTTP_POST},      {"PUT", HTTP_PUT},
               {"PATCH", HTTP_PATCH}, {"DELETE", HTTP_DELETE}, {"OPTIONS", HTTP_OPTIONS}};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool http_is_token_byte(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool http_is_value_byte(unsigned char c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

void http_head_init(struct http_head *h, const struct http_head_limits *limits)
{
    must(limits->fields <= HTTP_MOST_FIELDS && limits->uri_bytes <= limits->head_bytes &&
         limits->head_bytes < 1u << 30);
    memset(h, 0, offsetof(struct http_head, fields));
    h->text = NULL;
    h->limits = *limits;
    h->progress = HTTP_MORE;
}

void http_head_fini(struct http_head *h)
{
    free(h->text);
    h->text = NULL;
}

static enum http_progress refuse(struct http_head *h, int status, const char *problem)
{
    h->status = status;
    h->problem = problem;
    return h->progress = HTTP_REFUSED;
}

static bool append(struct http_head *h, char byte)
{
    if (h->used == h->room) {
        uint32_t room = h->room ? h->room * 2 : TEXT_FIRST_BYTES;
        char *text = realloc(h->text, room);
        if (!text)
            return false;
        h->text = text;
        h->room = room;
    }
    h->text[h->used++] = byte;
    return true;
}

/* "HTTP/1.1" or "HTTP/1.0"; any other digits are another version, anything else is no HTTP. */
static enum http_progress read_version(struct http_head *h, const char *version)
{
    if (strcmp(version, "HTTP/1.1") == 0)
        return HTTP_MORE;
    if (strcmp(version, "HTTP/1.0") == 0) {
        h->http_1_0 = true;
        return HTTP_MORE;
    }
    if (strlen(version) == 8 && strncmp(version, "HTTP/", 5) == 0 && version[6] == '.' &&
        strspn(version + 5, "0123456789") == 1 && strspn(version + 7, "0123456789") == 1)
        return refuse(h, 505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
    return refuse(h, 400, "The request line does not end with an HTTP version.");
}

/* request-line = method SP request-target SP HTTP-version (RFC 9112 3) */
static enum http_progress read_request_line(struct http_head *h)
{
    char *line = h->text + h->line;
    char *target = strchr(line, ' ');
    if (!target || target == line)
        return refuse(h, 400, "The request line is not of the form: method, target, version.");
    *target++ = 0;
    char *version = strchr(target, ' ');
    if (!version || version == target)
        return refuse(h, 400, "The request line is not of the form: method, target, version.");
    *version++ = 0;

    for (const char *p = line; *p; p++)
        if (!http_is_token_byte((unsigned char)*p))
            return refuse(h, 400, "The request's method holds a character that no method has.");
    h->method = HTTP_OTHER;
    for (size_t i = 0; i < COUNT(methods); i++)
        if (strcmp(line, methods[i].name) == 0)
            h->method = methods[i].method;

    h->target = (uint32_t)(target - h->text);
    h->target_bytes = (uint32_t)(version - 1 - target);
    if (h->target_bytes > h->limits.uri_bytes)
        return refuse(h, 414, "The request's target is too long.");
    for (const char *p = target; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '#')
            return refuse(h, 400, "The request's target holds a character that must be percent-encoded.");
    if (read_version(h, version) == HTTP_REFUSED)
        return HTTP_REFUSED;
    h->request_line_seen = true;
    return HTTP_MORE;
}

/* Content-Length = 1*DIGIT; no sign, no list, no space, below 2^63. */
static bool read_length(const char *value, uint64_t *length)
{
    uint64_t n = 0;
    if (!*value)
        return false;
    for (; *value; value++) {
        if (*value < '0' || *value > '9' || n > (uint64_t)(INT64_MAX - (*value - '0')) / 10)
            return false;
        n = n * 10 + (uint64_t)(*value - '0');
    }
    *length = n;
    return true;
}

/* uri-host [ ":" port ] of RFC 3986, an address in brackets included. */
static bool is_host(const char *value)
{
    const char *p = value;
    if (*p == '[') {
        p += 1 + strspn(p + 1, "0123456789abcdefABCDEF:.");
        if (*p != ']' || p == value + 1)
            return false;
        p++;
    } else {
        while (*p && *p != ':') {
            bool alnum = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
            if (!alnum && !strchr("-._~%!$&'()*+,;=", *p))
                return false;
            p++;
        }
        if (p == value)
            return false;
    }
    return *p == 0 || (*p == ':' && strspn(p + 1, "0123456789") == strlen(p + 1));
}

/* Connection = #connection-option (RFC 9110 7.6.1); options that mean nothing here are passed over. */
static void read_connection(struct http_head *h, const char *value)
{
    while (*value) {
        value += strspn(value, " \t,");
        size_t length = strcspn(value, " \t,");
        if (length == 5 && strncasecmp(value, "close", length) == 0)
            h->connection_close = true;
        if (length == 10 && strncasecmp(value, "keep-alive", length) == 0)
            h->connection_keep_alive = true;
        value += length;
    }
}

/* What the field means for framing, if anything. */
static enum http_progress note_field(struct http_head *h, const char *name, const char *value)
{
    if (strcmp(name, "connection") == 0)
        read_connection(h, value);
    for (unsigned i = 0; i < COUNT(once_only); i++) {
        if (strcmp(name, once_only[i]) != 0)
            continue;
        if (h->seen & 1u << i)
            return refuse(h, 400, "A field that may come once only (such as Host or Content-Length) came twice.");
        h->seen |= 1u << i;
        if (i == ONCE_HOST && !is_host(value))
            return refuse(h, 400, "The Host field is not a host name or address with an optional port.");
        if (i == ONCE_HOST)
            h->host = (uint32_t)(value - h->text);
        if (i == ONCE_LENGTH && !read_length(value, &h->content_length))
            return refuse(h, 400, "Content-Length is not a plain decimal number.");
        if (i == ONCE_CODING)
            h->chunked = strcasecmp(value, "chunked") == 0;
        if (i == ONCE_EXPECT)
            h->expect_continue = strcasecmp(value, "100-continue") == 0;
    }
    return HTTP_MORE;
}

/* field-line = field-name ":" OWS field-value OWS (RFC 9112 5); the line is closed by a zero byte. */
static enum http_progress read_field(struct http_head *h)
{
    char *name = h->text + h->line;
    if (*name == ' ' || *name == '\t')
        return refuse(h, 400, "A field is folded over two lines, which HTTP no longer allows.");
    char *p = name;
    for (; http_is_token_byte((unsigned char)*p); p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    if (p == name || *p != ':')
        return refuse(h, 400, "A field does not begin with a name directly followed by a colon.");
    if (h->field_count == h->limits.fields)
        return refuse(h, 431, "The request has too many fields.");
    *p++ = 0;
    char *value = p + strspn(p, " \t");
    char *end = h->text + h->used - 1;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = 0;
    h->fields[h->field_count++] =
        (struct http_field){.name = (uint32_t)(name - h->text), .value = (uint32_t)(value - h->text)};
    return note_field(h, name, value);
}

/* origin-form, absolute-form of this host, or "*" for OPTIONS (RFC 9112 3.2); sets path and query. */
static enum http_progress read_target(struct http_head *h)
{
    char *target = h->text + h->target;
    if (strcmp(target, "*") == 0 && h->method == HTTP_OPTIONS) {
        h->path = target;
        h->query = "";
        return HTTP_MORE;
    }
    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        const char *host = h->seen & 1u << ONCE_HOST ? h->text + h->host : "";
        char *authority = strchr(target, ':') + 3;
        size_t length = strcspn(authority, "/?");
        if (target[4] != ':' || length != strlen(host) || strncasecmp(authority, host, length) != 0)
            return refuse(h, 421, "The request's target names another host than this one.");
        target = authority + length;
    } else if (*target != '/') {
        return refuse(h, 400, "The request's target does not begin with a slash.");
    }
    char *question = strchr(target, '?');
    if (question)
        *question = 0;
    h->query = question ? question + 1 : "";
    h->path = *target ? target : "/";
    return HTTP_MORE;
}

/* The empty line has come: what only the whole head can tell. */
static enum http_progress finish(struct http_head *h)
{
    bool has_length = h->seen & 1u << ONCE_LENGTH, has_coding = h->seen & 1u << ONCE_CODING;
    if (has_length && has_coding)
        return refuse(h, 400, "The request has both Content-Length and Transfer-Encoding.");
    if (has_coding && !h->chunked)
        return refuse(h, 501, "The only transfer coding known here is chunked.");
    if (has_coding && h->http_1_0)
        return refuse(h, 400, "An HTTP/1.0 request cannot be chunked.");
    if (!(h->seen & 1u << ONCE_HOST) && !h->http_1_0)
        return refuse(h, 400, "The request has no Host field.");
    if (read_target(h) == HTTP_REFUSED)
        return HTTP_REFUSED;
    if (h->http_1_0)
        h->expect_continue = false; /* RFC 9110 10.1.1: a 1.0 client cannot mean it */
    else if (h->seen & 1u << ONCE_EXPECT && !h->expect_continue)
        return refuse(h, 417, "The only expectation known here is 100-continue.");
    h->keep_alive = !h->connection_close && (!h->http_1_0 || h->connection_keep_alive);
    return h->progress = HTTP_DONE;
}

/* A line has ended with CR LF; it stands at text + line, without them. */
static enum http_progress end_line(struct http_head *h)
{
    bool empty = h->used == h->line;
    if (!append(h, 0))
        return refuse(h, 503, "There is no memory for this request just now.");
    enum http_progress progress = HTTP_MORE;
    if (!h->request_line_seen && empty && !h->empty_line_seen)
        h->empty_line_seen = true; /* old clients send one after a body */
    else if (!h->request_line_seen)
        progress = read_request_line(h);
    else if (empty)
        progress = finish(h);
    else
        progress = read_field(h);
    h->line = h->used;
    return progress;
}

static enum http_progress feed_byte(struct http_head *h, char byte)
{
    if (++h->bytes > h->limits.head_bytes)
        return refuse(h, h->request_line_seen ? 431 : 414, "The request's head is too long.");
    if (h->after_cr) {
        h->after_cr = false;
        return byte == '\n' ? end_line(h) : refuse(h, 400, "A line of the head holds a CR that does not end it.");
    }
    if (byte == '\r') {
        h->after_cr = true;
        return HTTP_MORE;
    }
    if (byte == '\n')
        return refuse(h, 400, "A line of the head ends with LF alone and not with CR LF.");
    if (!http_is_value_byte((unsigned char)byte))
        return refuse(h, 400, "The head holds a control character.");
    if (!append(h, byte))
        return refuse(h, 503, "There is no memory for this request just now.");
    if (!h->request_line_seen) { /* garbage need not send 4 KiB before it is told */
        uint32_t length = h->used - h->line;
        if (length > METHOD_BYTES && !memchr(h->text + h->line, ' ', METHOD_BYTES + 1))
            return refuse(h, 400, "The request's method is too long.");
        if (length > h->limits.uri_bytes + REQUEST_LINE_REST)
            return refuse(h, 414, "The request's target is too long.");
    }
    return HTTP_MORE;
}

enum http_progress http_head_feed(struct http_head *h, const char *bytes, size_t length, size_t *taken)
{
    must(h->progress == HTTP_MORE);
    size_t i = 0;
    while (i < length && h->progress == HTTP_MORE)
        feed_byte(h, bytes[i++]);
    *taken = i;
    return h->progress;
}

const char *http_head_field(const struct http_head *h, const char *lower_name)
{
    for (uint32_t i = 0; i < h->field_count; i++)
        if (strcmp(h->text + h->fields[i].name, lower_name) == 0)
            return h->text + h->fields[i].value;
    return NULL;
}
