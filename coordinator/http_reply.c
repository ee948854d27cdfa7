/* http_reply: writes answers, whole or piece by piece, and keeps their output within its bounds. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/must.h"
#include "coordinator/http_internal.h"

static const char status_begin[] = "HTTP/1.1 "; /* what any answer begins with, to 1.0 too (RFC 9110 2.5) */

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}

size_t connection_output(const struct http_connection *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->io));
}

void connection_send(struct http_connection *c, const void *bytes, size_t length)
{
    c->queued += length;
    if (bufferevent_write(c->io, bytes, length) != 0)
        connection_lost(c); /* no memory: half an answer helps nobody */
}

static void send_format(struct http_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void send_format(struct http_connection *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = evbuffer_add_vprintf(bufferevent_get_output(c->io), format, args);
    va_end(args);
    if (length < 0)
        connection_lost(c);
    else
        c->queued += (uint64_t)length;
}

void connection_watch_stall(struct http_connection *c)
{
    /* libevent hears of new output by a hook that it allocates without looking whether there was memory for it */
    if (connection_output(c) > 0 && bufferevent_enable(c->io, EV_WRITE) != 0)
        connection_lost(c);
    if (c->stall_watched || c->lost)
        return;
    c->stall_watched = true;
    c->stall_mark = c->queued - connection_output(c);
    c->stall_owed = c->queued;
    connection_deadline(c, c->server->limits.stall_ms);
}

void connection_probe(struct http_connection *c)
{
    if (c->probed)
        return;
    c->probed = true;
    if (c->phase == CONN_RUNNING) {
        c->begun = true;
        connection_send(c, status_begin, sizeof status_begin - 1);
    } else if (c->chunk_answer && !c->no_body) {
        connection_send(c, "0", 1);
    }
}

/* IMF-fixdate (RFC 9110 5.6.7), made once a second. */
static const char *date_now(struct http_server *s)
{
    time_t now = time(NULL);
    struct tm utc;
    if (now != s->date_s && gmtime_r(&now, &utc)) {
        s->date_s = now;
        strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    }
    return s->date;
}

static bool header_is_sound(const struct http_header *header)
{
    if (!*header->name)
        return false;
    for (const char *p = header->name; *p; p++)
        if (!http_is_token_byte((unsigned char)*p))
            return false;
    for (const char *p = header->value; *p; p++)
        if (!http_is_value_byte((unsigned char)*p))
            return false;
    return true;
}

/* Status line and all fields but those of framing, which the caller adds with the empty line. */
static void send_head(struct http_connection *c, int status, const char *content_type, const struct http_header *extra,
                      size_t extra_count)
{
    must(status >= 200 && status <= 599);
    send_format(c, "%s%d %s\r\nDate: %s\r\n", c->begun ? "" : status_begin, status, reason_of(status),
                date_now(c->server));
    if (content_type)
        send_format(c, "Content-Type: %s\r\n", content_type);
    for (size_t i = 0; i < extra_count; i++) {
        if (header_is_sound(&extra[i]))
            send_format(c, "%s: %s\r\n", extra[i].name, extra[i].value);
        else
            log_warn("left a header out of an answer to %s: its name or value holds bytes that HTTP does not allow",
                     c->peer);
    }
    if (c->closing)
        send_format(c, "Connection: close\r\n");
    else if (c->head->http_1_0)
        send_format(c, "Connection: keep-alive\r\n");
    c->no_body = c->request.method == HTTP_HEAD || status == 204 || status == 304;
}

/* The answer is whole; what is left of it waits for the client. */
static void end_answer(struct http_connection *c)
{
    connection_move(c, CONN_FLUSHING);
    bufferevent_setwatermark(c->io, EV_WRITE, 0, 0);
    connection_watch_stall(c);
    if (connection_output(c) == 0)
        connection_deadline(c, 0); /* no write will tell */
}

static void reply(struct http_connection *c, int status, const char *content_type, const void *body, size_t body_bytes,
                  const struct http_header *extra, size_t extra_count)
{
    send_head(c, status, content_type, extra, extra_count);
    if (status == 204 || status == 304) /* RFC 9110 8.6: no Content-Length in a 204 */
        send_format(c, "\r\n");
    else
        send_format(c, "Content-Length: %zu\r\n\r\n", body_bytes);
    if (!c->no_body && body_bytes)
        connection_send(c, body, body_bytes);
    end_answer(c);
}

void http_reply(struct http_request *request, int status, const char *content_type, const void *body, size_t body_bytes,
                const struct http_header *extra, size_t extra_count)
{
    struct http_connection *c = request->connection;
    must(c->phase == CONN_CHECKING || c->phase == CONN_RUNNING || c->refusing);
    if (c->server->stopping || (c->phase == CONN_CHECKING && connection_expects_body(c)))
        c->closing = true;
    reply(c, status, content_type, body, body_bytes, extra, extra_count);
    if (!c->refusing)
        connection_request_over(c);
}

/* What is said when the caller words no refusals. */
static void reply_plainly(struct http_request *request, int status, const char *problem)
{
    static const struct http_header retry = {"Retry-After", "1"};
    char body[512];
    int length =
        snprintf(body, sizeof body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}",
                 problem, status == 503 ? "unavailable_error" : "invalid_request_error");
    must(length > 0 && (size_t)length < sizeof body);
    http_reply(request, status, "application/json", body, (size_t)length, &retry, status == 503);
}

void connection_refuse(struct http_connection *c, int status, const char *problem)
{
    const struct http_callbacks *callbacks = &c->server->callbacks;
    c->closing = c->refusing = true;
    if (callbacks->refused)
        callbacks->refused(&c->request, status, problem, c->server->arg);
    else
        reply_plainly(&c->request, status, problem);
    must(c->phase == CONN_FLUSHING);
    c->refusing = false;
    if (c->request.passed)
        callbacks->gone(&c->request, c->server->arg);
    connection_request_over(c);
}

void http_stream_begin(struct http_request *request, int status, const char *content_type,
                       const struct http_header *extra, size_t extra_count)
{
    struct http_connection *c = request->connection;
    must(c->phase == CONN_RUNNING && status != 204 && status != 304);
    if (c->server->stopping || c->head->http_1_0)
        c->closing = true;
    send_head(c, status, content_type, extra, extra_count);
    c->chunk_answer = !c->head->http_1_0;
    send_format(c, c->chunk_answer ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    connection_move(c, CONN_STREAMING);
    bufferevent_setwatermark(c->io, EV_WRITE, c->server->limits.stream_soft_bytes / 2, 0);
    connection_watch_stall(c);
}

void http_stream_write(struct http_request *request, const void *data, size_t bytes)
{
    struct http_connection *c = request->connection;
    const struct http_limits *limits = &c->server->limits;
    must(c->phase == CONN_STREAMING);
    if (bytes == 0 || c->no_body || c->lost)
        return;
    if (connection_output(c) + bytes > limits->stream_hard_bytes) {
        connection_lost(c);
        return;
    }
    if (c->chunk_answer)
        send_format(c, "%zx\r\n", bytes);
    connection_send(c, data, bytes);
    if (c->chunk_answer)
        connection_send(c, "\r\n", 2);
    c->full = c->full || connection_output(c) >= limits->stream_soft_bytes;
    connection_watch_stall(c);
}

bool http_stream_writable(const struct http_request *request)
{
    struct http_connection *c = request->connection;
    must(c->phase == CONN_STREAMING);
    bool writable = connection_output(c) < c->server->limits.stream_soft_bytes;
    c->full = c->full || !writable;
    return writable;
}

void http_stream_end(struct http_request *request)
{
    struct http_connection *c = request->connection;
    must(c->phase == CONN_STREAMING);
    if (c->chunk_answer && !c->no_body)
        send_format(c, "0\r\n\r\n");
    end_answer(c);
    connection_request_over(c);
}

const char *http_request_header(const struct http_request *request, const char *lower_name)
{
    return http_head_field(request->connection->head, lower_name);
}
