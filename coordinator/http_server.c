/*
 * http_server: listens, accepts, and keeps the lists of connections. Accepting pauses at max_connections and when the
 * process is out of descriptors, and looks again every RETRY_MS; at max_connections a connection that has idled for more
 * than YIELD_AFTER_US makes room for a new one. So neither a flood nor idle clients keep others out, and
 * an EMFILE never spins.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/http_internal.h"

enum {
    RETRY_MS = 100,
    WATCH_MS = 50,
    YIELD_AFTER_US = 1000000,
    BACKLOG = 512,
    MOST_CONNECTIONS = 65536,
    LEAST_CONNECTIONS = 8,
};

static struct timeval milliseconds(long ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

struct http_limits http_default_limits(void)
{
    struct rlimit files;
    rlim_t most = MOST_CONNECTIONS;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur / 10 * 9 < most)
        most = files.rlim_cur / 10 * 9;
    return (struct http_limits){
        .head = {.head_bytes = 16 << 10, .uri_bytes = 4 << 10, .fields = HTTP_MOST_FIELDS},
        .body_bytes = 1 << 20,
        .bodies_bytes = 256 << 20,
        .head_ms = 10000,
        .body_ms = 30000,
        .idle_ms = 60000,
        .stall_ms = 30000,
        .linger_ms = 5000,
        .linger_bytes = 128 << 20,
        .stream_soft_bytes = 64 << 10,
        .stream_hard_bytes = 1 << 20,
        .send_buffer_bytes = 128 << 10,
        .max_connections = most > LEAST_CONNECTIONS ? (uint32_t)most : LEAST_CONNECTIONS,
    };
}

/* The connection that makes room for a new one, or NULL. */
static struct http_connection *longest_idle(const struct http_server *s)
{
    struct http_connection *c = TAILQ_FIRST(&s->idle);
    return c && now_us() - c->idle_since_us > YIELD_AFTER_US ? c : NULL;
}

static void pause_accepting(struct http_server *s)
{
    struct timeval again = milliseconds(RETRY_MS);
    evconnlistener_disable(s->listener);
    evtimer_add(s->retry, &again);
}

/* Brings the listener in line with the number of connections. */
static void regulate_accepting(struct http_server *s)
{
    if (!s->listener)
        return;
    bool room = s->connection_count < s->limits.max_connections || longest_idle(s);
    if (!room || evconnlistener_enable(s->listener) != 0)
        pause_accepting(s);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    regulate_accepting(arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int length, void *arg)
{
    (void)listener;
    (void)length;
    struct http_server *s = arg;
    struct http_connection *oldest = longest_idle(s);
    if (s->connection_count >= s->limits.max_connections && oldest)
        connection_close(oldest);
    if (s->connection_count >= s->limits.max_connections || !connection_new(s, fd, peer))
        close(fd);
    regulate_accepting(s);
}

/*
 * accept() itself went wrong. Out of descriptors: the reserve is given up for as long as it takes to tell one waiting
 * client so, then all wait for RETRY_MS.
 */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    static const char no_room[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
                                  "Connection: close\r\n\r\n";
    struct http_server *s = arg;
    int error = EVUTIL_SOCKET_ERROR();
    if ((error == EMFILE || error == ENFILE) && s->reserve_fd >= 0) {
        close(s->reserve_fd);
        int fd = accept4(evconnlistener_get_fd(listener), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            if (send(fd, no_room, sizeof no_room - 1, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
                shutdown(fd, SHUT_WR);
            close(fd);
        }
        s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    log_warn("could not accept a connection with %u open: %s; clients wait", s->connection_count, strerror(error));
    pause_accepting(s);
}

/* A reset shows in poll(2) whatever the loop is told to look for; see http.h: When has a client left? */
static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_server *s = arg;
    for (struct http_connection *c = TAILQ_FIRST(&s->deaf); c; c = TAILQ_NEXT(c, link)) {
        if (connection_was_reset(c))
            connection_lost(c);
    }
    struct timeval again = milliseconds(WATCH_MS);
    if (!TAILQ_EMPTY(&s->deaf))
        evtimer_add(s->watch, &again);
}

void server_connection_idle(struct http_connection *c)
{
    c->idle_since_us = now_us();
    TAILQ_INSERT_TAIL(&c->server->idle, c, link);
}

void server_connection_busy(struct http_connection *c)
{
    TAILQ_REMOVE(&c->server->idle, c, link);
}

void server_connection_deaf(struct http_connection *c)
{
    struct timeval soon = milliseconds(WATCH_MS);
    if (c->deaf)
        return;
    c->deaf = true;
    if (TAILQ_EMPTY(&c->server->deaf))
        evtimer_add(c->server->watch, &soon);
    TAILQ_INSERT_TAIL(&c->server->deaf, c, link);
}

void server_connection_heard(struct http_connection *c)
{
    if (c->deaf)
        TAILQ_REMOVE(&c->server->deaf, c, link);
    c->deaf = false;
}

void server_connection_closed(struct http_connection *c)
{
    struct http_server *s = c->server;
    server_connection_heard(c);
    TAILQ_REMOVE(&s->connections, c, all);
    s->connection_count--;
    if (!s->closing && s->connection_count + 1 == s->limits.max_connections)
        regulate_accepting(s);
}

/* A bound, listening socket on the first address of the name that will have us. */
static enum err listen_on(const char *host, const char *port, uint32_t send_buffer, int *listening, struct why *why)
{
    static const int families[] = {AF_INET, AF_INET6}; /* most clients try IPv4 first for "localhost" */
    int error = EAI_NONAME, one = 1, buffer = (int)send_buffer;
    for (size_t i = 0; i < 2; i++) {
        struct addrinfo hints = {
            .ai_family = families[i], .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
        struct addrinfo *found = NULL;
        int result = getaddrinfo(host, port, &hints, &found);
        if (result != 0) {
            error = result;
            continue;
        }
        int fd = socket(families[i], SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        /* what is set here, accepted sockets inherit */
        bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0 &&
                    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) == 0 &&
                    bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
        error = errno;
        freeaddrinfo(found);
        *listening = fd;
        if (good)
            return OK;
        if (fd >= 0)
            close(fd);
        errno = error;
        if (error == EADDRINUSE)
            return because(why, ERR_BUSY,
                           "could not listen on %s port %s: another program listens there already; stop it or choose "
                           "another port",
                           host, port);
        return because_errno(why, ERR_IO, "could not listen on %s port %s", host, port);
    }
    return because(why, ERR_INVALID, "could not listen on \"%s\": it is no address of this machine (%s)", host,
                   gai_strerror(error));
}

enum err http_server_try(const struct http_server_config *config, struct why *why)
{
    int fd;
    char port[8];
    snprintf(port, sizeof port, "%u", config->port);
    enum err err = listen_on(config->host, port, config->limits.send_buffer_bytes, &fd, why);
    if (err == OK)
        close(fd);
    return err;
}

static uint16_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.any = {.sa_family = AF_UNSPEC}};
    socklen_t length = sizeof address;
    if (getsockname(fd, &address.any, &length) != 0)
        return 0;
    return ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

enum err http_server_open(struct http_server **server, struct event_base *base, const struct http_server_config *config,
                          struct why *why)
{
    must(config->callbacks.request && config->callbacks.gone);
    must(config->limits.max_connections > 0 && config->limits.stream_soft_bytes <= config->limits.stream_hard_bytes);
    int fd = -1;
    char port[8];
    snprintf(port, sizeof port, "%u", config->port);
    struct http_server *s = calloc(1, sizeof *s);
    if (!s)
        return because(why, ERR_NOMEM, "could not listen on %s: there is no memory left", config->host);
    s->base = base;
    s->limits = config->limits;
    s->callbacks = config->callbacks;
    s->arg = config->arg;
    TAILQ_INIT(&s->connections);
    TAILQ_INIT(&s->idle);
    TAILQ_INIT(&s->deaf);
    s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    enum err err = listen_on(config->host, port, config->limits.send_buffer_bytes, &fd, why);
    if (err != OK)
        goto close;
    s->port = port_of(fd);
    signal(SIGPIPE, SIG_IGN);
    s->retry = evtimer_new(base, on_retry, s);
    s->watch = evtimer_new(base, on_watch, s);
    /* Enabled below: libevent would not say that it could not. */
    s->listener =
        evconnlistener_new(base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED, 0, fd);
    if (!s->listener)
        close(fd);
    if (!s->retry || !s->watch || !s->listener || evconnlistener_enable(s->listener) != 0) {
        err = because(why, ERR_NOMEM, "could not listen on %s: there is no memory left", config->host);
        goto close;
    }
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    *server = s;
    return OK;
close:
    http_server_close(s);
    return err;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

uint32_t http_server_open_requests(const struct http_server *server)
{
    return server->open_requests;
}

uint32_t http_server_connections(const struct http_server *server)
{
    return server->connection_count;
}

void http_server_stop_accepting(struct http_server *server)
{
    if (server->listener)
        evconnlistener_free(server->listener);
    server->listener = NULL;
    server->stopping = true;
    while (!TAILQ_EMPTY(&server->idle))
        connection_close(TAILQ_FIRST(&server->idle));
}

void http_server_close(struct http_server *server)
{
    if (!server)
        return;
    server->closing = true;
    while (!TAILQ_EMPTY(&server->connections))
        connection_close(TAILQ_FIRST(&server->connections));
    must(server->open_requests == 0 && server->bodies_bytes == 0);
    if (server->listener)
        evconnlistener_free(server->listener);
    if (server->retry)
        event_free(server->retry);
    if (server->watch)
        event_free(server->watch);
    if (server->reserve_fd >= 0)
        close(server->reserve_fd);
    free(server);
}
