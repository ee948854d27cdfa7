/*
 * http_connection: one client's connection, from its first byte to its last. Requests are served one at a time; what the
 * client sends beyond the current one waits, up to twice READ_AHEAD_BYTES here and the rest in the kernel. One turn of
 * the loop takes at most READ_AHEAD_BYTES from one connection.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/must.h"
#include "coordinator/http_internal.h"

enum {
    READ_AHEAD_BYTES = 16 << 10,
    BODY_FIRST_BYTES = 4 << 10,
    STALL_PROGRESS_BYTES = 16 << 10, /* what a client must take in stall_ms */
};

/* What a step of serve() has come to. */
enum turn { TURN_AGAIN, TURN_WAIT, TURN_CLOSE };

#define BIT(phase) (1u << (phase))
static const uint16_t may_follow[] = {
    [CONN_IDLE] = BIT(CONN_HEAD) | BIT(CONN_CLOSED),
    [CONN_HEAD] = BIT(CONN_CHECKING) | BIT(CONN_FLUSHING) | BIT(CONN_CLOSED),
    [CONN_CHECKING] = BIT(CONN_BODY) | BIT(CONN_RUNNING) | BIT(CONN_FLUSHING) | BIT(CONN_CLOSED),
    [CONN_BODY] = BIT(CONN_RUNNING) | BIT(CONN_FLUSHING) | BIT(CONN_CLOSED),
    [CONN_RUNNING] = BIT(CONN_STREAMING) | BIT(CONN_FLUSHING) | BIT(CONN_CLOSED),
    [CONN_STREAMING] = BIT(CONN_FLUSHING) | BIT(CONN_CLOSED),
    [CONN_FLUSHING] = BIT(CONN_IDLE) | BIT(CONN_LINGERING) | BIT(CONN_CLOSED),
    [CONN_LINGERING] = BIT(CONN_CLOSED),
    [CONN_CLOSED] = 0,
};

void connection_move(struct http_connection *c, enum connection_phase to)
{
    must(may_follow[c->phase] & BIT(to));
    if (c->phase == CONN_IDLE)
        server_connection_busy(c);
    c->phase = to;
    if (to == CONN_IDLE)
        server_connection_idle(c);
}

bool connection_deadline(struct http_connection *c, uint32_t after_ms)
{
    if (c->lost)
        after_ms = 0; /* nothing puts off the close */
    struct timeval after = {.tv_sec = after_ms / 1000, .tv_usec = after_ms % 1000 * 1000};
    bool set = evtimer_add(c->timer, &after) == 0;
    if (!set && c->lost)
        event_active(c->timer, EV_TIMEOUT, 0); /* wants no memory */
    return set;
}

static void drop_body(struct http_connection *c)
{
    c->server->bodies_bytes -= c->body_room;
    free(c->body);
    c->body = NULL;
    c->body_room = 0;
}

static void drop_head(struct http_connection *c)
{
    if (c->head)
        http_head_fini(c->head);
    free(c->head);
    c->head = NULL;
}

void connection_request_over(struct http_connection *c)
{
    server_connection_heard(c);
    if (c->request.passed)
        c->server->open_requests--;
    c->request.passed = false;
    drop_body(c);
}

void connection_close(struct http_connection *c)
{
    connection_move(c, CONN_CLOSED);
    bool owed = c->request.passed;
    if (owed)
        c->server->callbacks.gone(&c->request, c->server->arg);
    connection_request_over(c);
    drop_head(c);
    bufferevent_free(c->io); /* closes the socket */
    event_free(c->timer);
    server_connection_closed(c);
    free(c);
}

void connection_lost(struct http_connection *c)
{
    c->lost = true;
    connection_deadline(c, 0);
}

bool connection_was_reset(const struct http_connection *c)
{
    struct pollfd look = {.fd = bufferevent_getfd(c->io), .events = 0};
    return poll(&look, 1, 0) == 1 && (look.revents & (POLLERR | POLLHUP));
}

bool connection_expects_body(const struct http_connection *c)
{
    return c->head->chunked || c->head->content_length > 0;
}

/* A FIN while a request is open: ask whether anybody is still there, and look for the answer. */
static void peer_finished_early(struct http_connection *c)
{
    connection_probe(c);
    server_connection_deaf(c);
}

static void refuse_large_body(struct http_connection *c)
{
    char problem[128];
    snprintf(problem, sizeof problem, "The request's body is larger than the %llu bytes that this server takes.",
             (unsigned long long)c->server->limits.body_bytes);
    connection_refuse(c, 413, problem);
}

static enum turn run_request(struct http_connection *c)
{
    connection_move(c, CONN_RUNNING);
    if (!c->lost)
        evtimer_del(c->timer);
    c->request.body = c->body ? c->body : "";
    if (c->peer_finished)
        peer_finished_early(c);
    c->server->callbacks.request(&c->request, c->server->arg);
    return TURN_AGAIN;
}

/* The head is good: limits first, then the caller's early check, then a 100-continue. */
static enum turn check_request(struct http_connection *c)
{
    struct http_server *s = c->server;
    connection_move(c, CONN_CHECKING);
    c->request.method = c->head->method;
    c->request.path = c->head->path;
    c->request.query = c->head->query;
    c->closing = !c->head->keep_alive;
    if (c->head->content_length > s->limits.body_bytes) {
        refuse_large_body(c);
        return TURN_AGAIN;
    }
    if (s->callbacks.early)
        s->callbacks.early(&c->request, s->arg);
    if (c->phase != CONN_CHECKING)
        return TURN_AGAIN; /* answered */
    c->request.passed = true;
    s->open_requests++;
    if (!connection_expects_body(c))
        return run_request(c);
    connection_move(c, CONN_BODY);
    connection_deadline(c, s->limits.body_ms);
    http_chunked_init(&c->chunked);
    if (c->head->expect_continue && evbuffer_get_length(bufferevent_get_input(c->io)) == 0)
        connection_send(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return TURN_AGAIN;
}

static enum turn begin_request(struct http_connection *c)
{
    if (evbuffer_get_length(bufferevent_get_input(c->io)) == 0)
        return c->peer_finished || c->server->stopping ? TURN_CLOSE : TURN_WAIT;
    c->head = malloc(sizeof *c->head);
    if (!c->head)
        return TURN_CLOSE;
    http_head_init(c->head, &c->server->limits.head);
    c->request = (struct http_request){
        .method = HTTP_OTHER, .path = "", .query = "", .body = "", .peer = c->peer, .connection = c};
    c->closing = c->refusing = c->begun = c->probed = c->full = c->no_body = c->chunk_answer = c->stall_watched = false;
    connection_move(c, CONN_HEAD);
    connection_deadline(c, c->server->limits.head_ms);
    return TURN_AGAIN;
}

/* The first unread bytes that lie in one piece; no bytes: length 0. */
static struct evbuffer_iovec unread(struct http_connection *c)
{
    struct evbuffer_iovec piece = {.iov_len = 0};
    evbuffer_peek(bufferevent_get_input(c->io), -1, NULL, &piece, 1);
    return piece;
}

static enum turn read_head(struct http_connection *c)
{
    struct evbuffer_iovec piece = unread(c);
    size_t taken;
    if (piece.iov_len == 0 && !c->peer_finished)
        return TURN_WAIT;
    if (piece.iov_len == 0) {
        connection_refuse(c, 400, "The connection was closed before the request's head was complete.");
        return TURN_AGAIN;
    }
    enum http_progress progress = http_head_feed(c->head, piece.iov_base, piece.iov_len, &taken);
    evbuffer_drain(bufferevent_get_input(c->io), taken);
    if (progress == HTTP_REFUSED)
        connection_refuse(c, c->head->status, c->head->problem);
    return progress == HTTP_DONE ? check_request(c) : TURN_AGAIN;
}

/* Grows with what has come, not with what Content-Length announces. False: refused. */
static bool append_to_body(struct http_connection *c, const char *data, size_t bytes)
{
    struct http_limits *limits = &c->server->limits;
    uint64_t need = c->request.body_bytes + bytes + 1;
    if (need - 1 > limits->body_bytes) {
        refuse_large_body(c);
        return false;
    }
    if (need > c->body_room) {
        uint64_t room = c->body_room ? c->body_room : BODY_FIRST_BYTES;
        while (room < need)
            room *= 2;
        if (!c->head->chunked && room > c->head->content_length + 1)
            room = c->head->content_length + 1;
        char *body = NULL;
        if (c->server->bodies_bytes + room - c->body_room <= limits->bodies_bytes)
            body = realloc(c->body, room);
        if (!body) {
            connection_refuse(c, 503, "There is no memory for another request's body just now; try again soon.");
            return false;
        }
        c->server->bodies_bytes += room - c->body_room;
        c->body = body;
        c->body_room = room;
    }
    memcpy(c->body + c->request.body_bytes, data, bytes);
    c->request.body_bytes += bytes;
    c->body[c->request.body_bytes] = 0;
    return true;
}

static enum turn read_chunked_body(struct http_connection *c, struct evbuffer_iovec piece)
{
    const char *data;
    size_t taken, data_bytes;
    enum chunked_progress progress =
        http_chunked_feed(&c->chunked, piece.iov_base, piece.iov_len, &taken, &data, &data_bytes);
    if (progress == CHUNKED_BAD)
        connection_refuse(c, 400, c->chunked.problem);
    if (progress == CHUNKED_DATA)
        append_to_body(c, data, data_bytes);
    evbuffer_drain(bufferevent_get_input(c->io), taken);
    return progress == CHUNKED_END ? run_request(c) : TURN_AGAIN;
}

static enum turn read_body(struct http_connection *c)
{
    struct evbuffer_iovec piece = unread(c);
    if (piece.iov_len == 0 && !c->peer_finished)
        return TURN_WAIT;
    if (piece.iov_len == 0) {
        connection_refuse(c, 400, "The connection was closed before the request's body was complete.");
        return TURN_AGAIN;
    }
    if (c->head->chunked)
        return read_chunked_body(c, piece);
    uint64_t missing = c->head->content_length - c->request.body_bytes;
    size_t taken = piece.iov_len < missing ? piece.iov_len : (size_t)missing;
    if (!append_to_body(c, piece.iov_base, taken))
        return TURN_AGAIN;
    evbuffer_drain(bufferevent_get_input(c->io), taken);
    return taken == missing ? run_request(c) : TURN_AGAIN;
}

/* The rest of what was refused, or what comes after our last answer. */
static enum turn drop_input(struct http_connection *c)
{
    struct evbuffer *input = bufferevent_get_input(c->io);
    c->dropped += evbuffer_get_length(input);
    evbuffer_drain(input, evbuffer_get_length(input));
    if (c->dropped > c->server->limits.linger_bytes || (c->phase == CONN_LINGERING && c->peer_finished))
        return TURN_CLOSE;
    return TURN_WAIT;
}

/*
 * The current request is not over. With the read-ahead full, reading stops here and not by a high-water mark: libevent
 * 2.1.12 calls on_read again and again while the input stands at its mark, and dies when there is no memory to set one.
 */
static enum turn wait_for_answer(struct http_connection *c)
{
    if (c->reading_paused || evbuffer_get_length(bufferevent_get_input(c->io)) < READ_AHEAD_BYTES)
        return TURN_WAIT;
    c->reading_paused = true;
    bufferevent_disable(c->io, EV_READ);
    if (c->request.passed)
        server_connection_deaf(c);
    return TURN_WAIT;
}

static enum turn serve_step(struct http_connection *c)
{
    switch (c->phase) {
    case CONN_IDLE:
        return begin_request(c);
    case CONN_HEAD:
        return read_head(c);
    case CONN_BODY:
        return read_body(c);
    case CONN_RUNNING:
    case CONN_STREAMING:
        return wait_for_answer(c);
    case CONN_FLUSHING:
        return c->closing ? drop_input(c) : wait_for_answer(c);
    case CONN_LINGERING:
        return drop_input(c);
    case CONN_CHECKING:
    case CONN_CLOSED:
        break;
    }
    must_not_reach();
}

/* Goes on as far as what has been read allows. From the loop only; may free c. */
static void serve(struct http_connection *c)
{
    enum turn turn;
    do
        turn = serve_step(c);
    while (turn == TURN_AGAIN);
    if (turn == TURN_CLOSE)
        connection_close(c);
}

/* The answer has left us. */
static void finish_answer(struct http_connection *c)
{
    drop_head(c);
    if (c->reading_paused && !c->peer_finished)
        bufferevent_enable(c->io, EV_READ);
    c->reading_paused = false;
    if (c->closing || c->server->stopping) {
        c->closing = true;
        shutdown(bufferevent_getfd(c->io), SHUT_WR);
        connection_move(c, CONN_LINGERING);
        connection_deadline(c, c->server->limits.linger_ms);
    } else {
        connection_move(c, CONN_IDLE);
        connection_deadline(c, c->server->limits.idle_ms);
    }
    serve(c);
}

static void on_read(struct bufferevent *io, void *arg)
{
    (void)io;
    serve(arg);
}

/* The output has fallen to its low-water mark: half of the soft limit in a stream, nothing otherwise. */
static void on_write(struct bufferevent *io, void *arg)
{
    (void)io;
    struct http_connection *c = arg;
    if (c->lost)
        return; /* the timer closes it */
    if (c->phase == CONN_FLUSHING && connection_output(c) == 0) {
        finish_answer(c);
    } else if (c->phase == CONN_STREAMING && c->full) {
        c->full = false;
        if (c->server->callbacks.drained)
            c->server->callbacks.drained(&c->request, c->server->arg);
    }
}

static void on_event(struct bufferevent *io, short what, void *arg)
{
    (void)io;
    struct http_connection *c = arg;
    if (!(what & BEV_EVENT_EOF) || (what & BEV_EVENT_WRITING)) {
        connection_close(c); /* reset, or another error of the socket */
        return;
    }
    c->peer_finished = true;
    if (c->phase == CONN_RUNNING || c->phase == CONN_STREAMING)
        peer_finished_early(c);
    serve(c);
}

/* In STREAMING and FLUSHING: has the client taken enough since the timer was set? */
static void check_stall(struct http_connection *c)
{
    uint64_t waiting = connection_output(c), sent = c->queued - waiting;
    c->stall_watched = false;
    if (waiting == 0)
        return;
    if (sent < c->stall_owed && sent - c->stall_mark < STALL_PROGRESS_BYTES)
        connection_close(c);
    else
        connection_watch_stall(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_connection *c = arg;
    if (c->lost || c->phase == CONN_IDLE || c->phase == CONN_LINGERING) {
        connection_close(c);
    } else if (c->phase == CONN_HEAD || c->phase == CONN_BODY) {
        connection_refuse(c, 408, "The request took too long to arrive.");
        serve(c);
    } else if (c->phase == CONN_FLUSHING && connection_output(c) == 0) {
        finish_answer(c); /* it had nothing to send */
    } else {
        check_stall(c);
    }
}

static void write_peer(struct http_connection *c, const struct sockaddr *peer)
{
    const void *address = peer->sa_family == AF_INET6
                              ? (const void *)&((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr
                              : (const void *)&((const struct sockaddr_in *)(const void *)peer)->sin_addr;
    if (!inet_ntop(peer->sa_family, address, c->peer, sizeof c->peer))
        c->peer[0] = 0;
}

struct http_connection *connection_new(struct http_server *server, int fd, const struct sockaddr *peer)
{
    struct http_connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->server = server;
    c->timer = evtimer_new(server->base, on_timer, c);
    c->io = c->timer ? bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (!c->io) {
        if (c->timer)
            event_free(c->timer);
        free(c);
        return NULL;
    }
    write_peer(c, peer);
    bufferevent_setcb(c->io, on_read, on_write, on_event, c);
    bufferevent_set_max_single_read(c->io, READ_AHEAD_BYTES);
    if (bufferevent_enable(c->io, EV_READ | EV_WRITE) != 0 || !connection_deadline(c, server->limits.idle_ms)) {
        bufferevent_setfd(c->io, -1); /* the socket stays the caller's */
        bufferevent_free(c->io);
        event_free(c->timer);
        free(c);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&server->connections, c, all);
    server->connection_count++;
    c->phase = CONN_IDLE;
    server_connection_idle(c);
    return c;
}
