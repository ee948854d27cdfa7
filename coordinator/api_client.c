/* api_client: a reply is read in three layers: bytes of the socket, pieces of the body, lines of the event stream. */
#include "coordinator/api_client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "coordinator/http_chunked.h"
#include "coordinator/text.h"

enum {
    HEAD_BYTES = 16 * 1024,
    MOST_BODY_BYTES = 64 << 20,
    MOST_LINE_BYTES = 8 << 20,
    CONNECT_MS = 10 * 1000,
};

struct reply {
    const struct api_client *client;
    int fd;
    int status;
    bool chunked, has_length, whole;
    uint64_t left; /* of a body with a length */
    struct http_chunked chunks;
    size_t at, length; /* bytes[at .. length) are received and not yet taken */
    char bytes[HEAD_BYTES];
};

/* ---- addresses ---- */

static bool copy_part(char *to, size_t room, const char *from, size_t length)
{
    if (length >= room || memchr(from, '\r', length) || memchr(from, '\n', length) || memchr(from, ' ', length))
        return false;
    memcpy(to, from, length);
    to[length] = 0;
    return true;
}

/* HOST, HOST:PORT, [IPV6] or [IPV6]:PORT. */
static bool parse_authority(struct api_client *c, const char *at, size_t length)
{
    const char *end = at + length, *host = at, *host_end, *port = NULL;
    if (*at == '[') {
        host++;
        host_end = memchr(at, ']', length);
        if (!host_end || (host_end + 1 < end && host_end[1] != ':'))
            return false;
        port = host_end + 1 < end ? host_end + 2 : NULL;
    } else {
        host_end = memchr(at, ':', length);
        port = host_end ? host_end + 1 : NULL;
        host_end = host_end ? host_end : end;
    }
    if (host == host_end || !copy_part(c->host, sizeof c->host, host, (size_t)(host_end - host)))
        return false;
    if (!port)
        return copy_part(c->port, sizeof c->port, "80", 2);
    return port < end && strspn(port, "0123456789") >= (size_t)(end - port) &&
           copy_part(c->port, sizeof c->port, port, (size_t)(end - port));
}

static size_t without_end(const char *text, size_t length, const char *ending)
{
    size_t n = strlen(ending);
    return length >= n && memcmp(text + length - n, ending, n) == 0 ? length - n : length;
}

enum err api_client_init(struct api_client *c, const char *url, const char *key, struct why *why)
{
    static const char scheme[] = "http://";
    *c = (struct api_client){.interrupt_fd = -1};
    if (strncmp(url, "https://", 8) == 0)
        return because(why, ERR_UNSUPPORTED,
                       "\"%.200s\" wants an encrypted connection, which is not built yet; use http://", url);
    const char *authority = url + sizeof scheme - 1;
    if (strncmp(url, scheme, sizeof scheme - 1) != 0 || !parse_authority(c, authority, strcspn(authority, "/")))
        return because(why, ERR_INVALID, "\"%.200s\" is no address of a server; one looks like http://127.0.0.1:8080",
                       url);
    const char *prefix = authority + strcspn(authority, "/");
    size_t length = without_end(prefix, strlen(prefix), "/");
    length = without_end(prefix, length, "/v1");
    if (!copy_part(c->prefix, sizeof c->prefix, prefix, length))
        return because(why, ERR_INVALID, "the path of \"%.200s\" is too long or holds a space", url);
    if (key && !copy_part(c->key, sizeof c->key, key, strlen(key)))
        return because(why, ERR_INVALID, "the API key is too long or holds a space");
    return OK;
}

/* ---- the socket ---- */

static enum err interrupted(struct why *why)
{
    return because(why, ERR_ABORTED, "interrupted");
}

/* Until fd is ready for `events`. Ends by the server's doing, by the interrupt, or after milliseconds (-1: never). */
static enum err wait_for(const struct api_client *c, int fd, short events, int milliseconds, struct why *why)
{
    struct pollfd watched[] = {{.fd = fd, .events = events}, {.fd = c->interrupt_fd, .events = POLLIN}};
    int ready;
    do
        ready = poll(watched, 2, milliseconds);
    while (ready < 0 && errno == EINTR);
    if (ready < 0)
        return because_errno(why, ERR_IO, "could not wait for %s", c->host);
    if (ready == 0)
        return because(why, ERR_IO, "could not reach %s:%s: no answer for %d s", c->host, c->port, milliseconds / 1000);
    return watched[1].revents ? interrupted(why) : OK;
}

static enum err connect_one(const struct api_client *c, const struct addrinfo *address, int *fd, struct why *why)
{
    *fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return because_errno(why, ERR_NOMEM, "could not open a socket");
    enum err e = OK;
    int problem = 0;
    socklen_t size = sizeof problem;
    if (connect(*fd, address->ai_addr, address->ai_addrlen) != 0) {
        problem = errno;
        if (problem == EINPROGRESS) {
            e = wait_for(c, *fd, POLLOUT, CONNECT_MS, why);
            if (!e && getsockopt(*fd, SOL_SOCKET, SO_ERROR, &problem, &size) != 0)
                problem = errno;
        }
    }
    if (!e && problem) {
        errno = problem;
        e = because_errno(why, ERR_IO, "could not connect to %s:%s", c->host, c->port);
    }
    if (e) {
        close(*fd);
        *fd = -1;
    }
    return e;
}

static enum err connect_to(const struct api_client *c, int *fd, struct why *why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    int problem = getaddrinfo(c->host, c->port, &hints, &addresses);
    if (problem)
        return because(why, ERR_IO, "could not find %s:%s: %s", c->host, c->port, gai_strerror(problem));
    enum err e = ERR_IO;
    for (const struct addrinfo *a = addresses; a && e && e != ERR_ABORTED; a = a->ai_next)
        e = connect_one(c, a, fd, why);
    freeaddrinfo(addresses);
    return e;
}

static enum err send_all(const struct api_client *c, int fd, const struct text *bytes, struct why *why)
{
    for (size_t sent = 0; sent < bytes->length;) {
        enum err e = wait_for(c, fd, POLLOUT, -1, why);
        if (e)
            return e;
        ssize_t n = send(fd, bytes->at + sent, bytes->length - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EPIPE || errno == ECONNRESET)
            return OK; /* it may have answered before it had read all: the reply tells */
        else if (errno != EAGAIN && errno != EINTR)
            return because_errno(why, ERR_IO, "could not send to %s:%s", c->host, c->port);
    }
    return OK;
}

/* Adds what has come to the reply's bytes; *ended when the server has said its last. */
static enum err receive(struct reply *r, bool *ended, struct why *why)
{
    const struct api_client *c = r->client;
    *ended = false;
    if (r->at == r->length)
        r->at = r->length = 0;
    for (;;) {
        enum err e = wait_for(c, r->fd, POLLIN, -1, why);
        if (e)
            return e;
        ssize_t n = recv(r->fd, r->bytes + r->length, sizeof r->bytes - r->length, 0);
        if (n >= 0) {
            *ended = n == 0;
            r->length += (size_t)n;
            return OK;
        }
        if (errno != EAGAIN && errno != EINTR)
            return because_errno(why, ERR_IO, "could not read the answer of %s:%s", c->host, c->port);
    }
}

/* ---- the head ---- */

static enum err no_http(const struct reply *r, struct why *why)
{
    return because(why, ERR_FORMAT, "what answers at %s:%s does not speak HTTP/1.1", r->client->host, r->client->port);
}

/* The value of this line if it is the header of that name, without spaces in front. */
static const char *header_value(const char *line, const char *name)
{
    size_t length = strlen(name);
    if (strncasecmp(line, name, length) != 0 || line[length] != ':')
        return NULL;
    return line + length + 1 + strspn(line + length + 1, " \t");
}

static bool take_header(struct reply *r, const char *line)
{
    const char *value = header_value(line, "Content-Length");
    if (value) {
        char *end;
        r->has_length = true;
        r->left = strtoull(value, &end, 10);
        return *value >= '0' && *value <= '9' && end[strspn(end, " \t")] == 0 && r->left <= MOST_BODY_BYTES;
    }
    value = header_value(line, "Transfer-Encoding");
    if (value) {
        r->chunked = strncasecmp(value, "chunked", 7) == 0 && value[7 + strspn(value + 7, " \t")] == 0;
        return r->chunked;
    }
    return true;
}

static enum err parse_head(struct reply *r, char *head, struct why *why)
{
    char *line = strsep(&head, "\n"), *number = line + 9;
    if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12 || line[8] != ' ' || strspn(number, "0123456789") != 3)
        return no_http(r, why);
    r->status = (number[0] - '0') * 100 + (number[1] - '0') * 10 + (number[2] - '0');
    while ((line = strsep(&head, "\n"))) {
        size_t length = strlen(line);
        if (length && line[length - 1] == '\r')
            line[length - 1] = 0;
        if (!take_header(r, line))
            return no_http(r, why);
    }
    if (r->chunked && r->has_length)
        return no_http(r, why);
    return OK;
}

static enum err read_head(struct reply *r, struct why *why)
{
    char *end;
    while (!(end = memmem(r->bytes, r->length, "\r\n\r\n", 4))) {
        bool ended = r->length == sizeof r->bytes;
        enum err e = ended ? OK : receive(r, &ended, why);
        if (e)
            return e;
        if (ended)
            return r->length ? no_http(r, why)
                             : because(why, ERR_IO, "the server at %s:%s closed the connection without an answer",
                                       r->client->host, r->client->port);
    }
    if (memchr(r->bytes, 0, (size_t)(end - r->bytes)))
        return no_http(r, why);
    *end = 0;
    r->at = (size_t)(end + 4 - r->bytes);
    http_chunked_init(&r->chunks);
    return parse_head(r, r->bytes, why);
}

/* ---- the body ---- */

static enum err next_chunked(struct reply *r, const char **piece, size_t *length, struct why *why)
{
    size_t taken;
    enum chunked_progress progress =
        http_chunked_feed(&r->chunks, r->bytes + r->at, r->length - r->at, &taken, piece, length);
    r->at += taken;
    if (progress == CHUNKED_BAD)
        return no_http(r, why);
    if (progress != CHUNKED_DATA)
        *length = 0;
    r->whole = progress == CHUNKED_END;
    return OK;
}

static void next_plain(struct reply *r, const char **piece, size_t *length)
{
    size_t here = r->length - r->at;
    *piece = r->bytes + r->at;
    *length = r->has_length && r->left < here ? (size_t)r->left : here;
    r->at += *length;
    if (r->has_length) {
        r->left -= *length;
        r->whole = r->left == 0;
    }
}

/* The next bytes of the body, good until the next call; *length 0: that was all. */
static enum err next_piece(struct reply *r, const char **piece, size_t *length, struct why *why)
{
    *length = 0;
    r->whole |= r->has_length && r->left == 0;
    while (!r->whole && *length == 0) {
        if (r->at == r->length) {
            bool ended;
            enum err e = receive(r, &ended, why);
            if (e)
                return e;
            if (ended && (r->chunked || r->has_length))
                return because(why, ERR_IO, "the server closed the connection in the middle of its answer");
            r->whole = ended;
            if (ended)
                break;
        }
        if (!r->chunked)
            next_plain(r, piece, length);
        else if (next_chunked(r, piece, length, why))
            return ERR_FORMAT;
    }
    return OK;
}

static enum err read_body(struct reply *r, struct text *body, struct why *why)
{
    const char *piece = NULL;
    size_t length;
    do {
        enum err e = next_piece(r, &piece, &length, why);
        if (e)
            return e;
        if (body->length + length > MOST_BODY_BYTES)
            return because(why, ERR_FORMAT, "the answer of %s:%s is too long", r->client->host, r->client->port);
        text_add(body, piece, length);
    } while (length);
    return body->failed ? because(why, ERR_NOMEM, "no memory for the answer") : OK;
}

/* ---- one request ---- */

static void write_request(const struct api_client *c, const char *path, const char *body, struct text *out)
{
    bool is_ipv6 = strchr(c->host, ':') != NULL;
    text_add_string(out, body ? "POST " : "GET ");
    text_add_string(out, c->prefix);
    text_add_string(out, path);
    text_add_string(out, is_ipv6 ? " HTTP/1.1\r\nHost: [" : " HTTP/1.1\r\nHost: ");
    text_add_string(out, c->host);
    text_add_string(out, is_ipv6 ? "]:" : ":");
    text_add_string(out, c->port);
    text_add_string(out, "\r\nConnection: close\r\nAccept: application/json, text/event-stream\r\n");
    if (*c->key) {
        text_add_string(out, "Authorization: Bearer ");
        text_add_string(out, c->key);
        text_add_string(out, "\r\n");
    }
    if (body) {
        text_add_string(out, "Content-Type: application/json\r\nContent-Length: ");
        text_add_u64(out, strlen(body));
        text_add_string(out, "\r\n");
    }
    text_add_string(out, "\r\n");
    if (body)
        text_add_string(out, body);
}

/* Sends the request and reads the head of the answer. *out is to be closed whatever is returned. */
static enum err ask(const struct api_client *c, const char *path, const char *body, struct reply **out, struct why *why)
{
    struct text request = {0};
    struct reply *r = *out = calloc(1, sizeof *r);
    if (!r)
        return because(why, ERR_NOMEM, "no memory for a request");
    r->client = c;
    r->fd = -1;
    write_request(c, path, body, &request);
    enum err e = request.failed ? because(why, ERR_NOMEM, "no memory for a request") : connect_to(c, &r->fd, why);
    if (!e)
        e = send_all(c, r->fd, &request, why);
    if (!e)
        e = read_head(r, why);
    text_fini(&request);
    return e;
}

static void close_reply(struct reply *r)
{
    if (r && r->fd >= 0)
        close(r->fd);
    free(r);
}

static enum err read_json(struct reply *r, json_t **out, struct why *why)
{
    struct text body = {0};
    enum err e = read_body(r, &body, why);
    *out = e || !body.length ? NULL : json_loadb(body.at, body.length, JSON_REJECT_DUPLICATES, NULL);
    text_fini(&body);
    return e;
}

enum err api_client_get(const struct api_client *c, const char *path, int *status, json_t **body, struct why *why)
{
    struct reply *r;
    *body = NULL;
    enum err e = ask(c, path, NULL, &r, why);
    if (!e)
        e = read_json(r, body, why);
    *status = e ? 0 : r->status;
    close_reply(r);
    return e;
}

/* ---- streams ---- */

static const char *message_of(const json_t *answer)
{
    const json_t *error = json_object_get(answer, "error");
    return json_is_string(error) ? json_string_value(error) : json_string_value(json_object_get(error, "message"));
}

/* Its words go to a terminal: they command nothing there. */
static enum err said_by_server(enum err e, const char *message, struct why *why)
{
    because(why, e, "%s", message);
    log_blank_controls(why->text, strlen(why->text));
    return e;
}

/* What the server says instead of a stream. */
static enum err read_refusal(struct reply *r, struct why *why)
{
    json_t *answer = NULL;
    enum err e = read_json(r, &answer, why);
    const char *message = message_of(answer);
    if (!e && message)
        e = said_by_server(ERR_INVALID, message, why);
    else if (!e)
        e = because(why, ERR_INVALID, "the server at %s:%s answers with HTTP status %d", r->client->host,
                    r->client->port, r->status);
    json_decref(answer);
    return e;
}

struct event_reader {
    api_event_fn event;
    void *owner;
    struct text line, data; /* the line that is coming in; the data lines of the event that is coming in */
    bool done;
};

static enum err end_event(struct event_reader *x, struct why *why)
{
    static const char last[] = "[DONE]";
    if (!x->data.length)
        return OK;
    if (x->data.length == sizeof last - 1 && memcmp(x->data.at, last, sizeof last - 1) == 0) {
        x->done = true;
        return OK;
    }
    json_t *event = json_loadb(x->data.at, x->data.length, JSON_REJECT_DUPLICATES, NULL);
    text_clear(&x->data);
    if (!event)
        return because(why, ERR_FORMAT, "an event of the server's stream is not JSON");
    const char *message = message_of(event);
    enum err e = message ? said_by_server(ERR_IO, message, why) : OK;
    if (!e)
        x->done = !x->event(x->owner, event);
    json_decref(event);
    return e;
}

/* Only data counts: comments, ids and names of events are passed over. */
static enum err end_line(struct event_reader *x, struct why *why)
{
    static const char field[] = "data:";
    const char *line = x->line.at;
    size_t length = x->line.length, name = sizeof field - 1;
    if (length && line[length - 1] == '\r')
        length--;
    if (length == 0)
        return end_event(x, why);
    if (length < name || memcmp(line, field, name) != 0)
        return OK;
    name += length > name && line[name] == ' ';
    if (x->data.length)
        text_add(&x->data, "\n", 1);
    text_add(&x->data, line + name, length - name);
    return x->data.length <= MOST_LINE_BYTES ? OK
                                             : because(why, ERR_FORMAT, "an event of the server's stream is too long");
}

static enum err take_events(struct event_reader *x, const char *bytes, size_t length, struct why *why)
{
    const char *end = bytes + length;
    while (bytes < end && !x->done) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        text_add(&x->line, bytes, (size_t)((newline ? newline : end) - bytes));
        if (x->line.length > MOST_LINE_BYTES)
            return because(why, ERR_FORMAT, "a line of the server's stream is too long");
        if (!newline)
            break;
        enum err e = end_line(x, why);
        if (e)
            return e;
        text_clear(&x->line);
        bytes = newline + 1;
    }
    return x->line.failed || x->data.failed ? because(why, ERR_NOMEM, "no memory for the answer") : OK;
}

static enum err read_events(struct reply *r, api_event_fn event, void *owner, struct why *why)
{
    struct event_reader x = {.event = event, .owner = owner};
    const char *piece;
    size_t length;
    enum err e;
    do {
        e = next_piece(r, &piece, &length, why);
        if (!e && !length)
            e = because(why, ERR_IO, "the server ended its stream before the answer was whole");
        if (!e)
            e = take_events(&x, piece, length, why);
    } while (!e && !x.done);
    text_fini(&x.line);
    text_fini(&x.data);
    return e;
}

enum err api_client_stream(const struct api_client *c, const char *path, const json_t *request, api_event_fn event,
                           void *owner, struct why *why)
{
    struct reply *r = NULL;
    char *body = json_dumps(request, JSON_COMPACT);
    enum err e = body ? ask(c, path, body, &r, why) : because(why, ERR_NOMEM, "no memory for a request");
    if (!e)
        e = r->status == 200 ? read_events(r, event, owner, why) : read_refusal(r, why);
    close_reply(r);
    free(body);
    return e;
}
