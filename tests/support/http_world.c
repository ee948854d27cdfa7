/* http_world: see the header. */
#include "tests/support/http_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct http_world world;

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

static void on_early(struct http_request *r, void *arg)
{
    static const struct http_header headers[] = {
        {"X-Good", "yes"}, {"X-Split", "a\r\nX-Evil: 1"}, {"X Bad", "a"}, {"", "a"}};
    world.early++;
    assert_ptr_equal(arg, &world);
    r->user = &world;
    if (strcmp(r->path, "/refused") == 0)
        http_reply(r, 401, "text/plain", "no", 2, headers, 4);
}

static void on_request(struct http_request *r, void *arg)
{
    (void)arg;
    world.requests++;
    assert_ptr_equal(r->user, &world);
    assert_int_equal(r->body[r->body_bytes], 0);
    if (strcmp(r->path, "/hold") == 0) {
        world.held = r;
    } else if (strcmp(r->path, "/stream") == 0) {
        world.held = r;
        http_stream_begin(r, 200, "text/event-stream", NULL, 0);
    } else if (strcmp(r->path, "/peer") == 0) {
        http_reply(r, 200, "text/plain", r->peer, strlen(r->peer), NULL, 0);
    } else if (strcmp(r->path, "/none") == 0) {
        http_reply(r, 204, NULL, NULL, 0, NULL, 0);
    } else if (strcmp(r->path, "/echo") == 0) {
        http_reply(r, 200, "text/plain", r->body, r->body_bytes, NULL, 0);
    } else {
        http_reply(r, 404, "text/plain", "no", 2, NULL, 0);
    }
}

static void on_gone(struct http_request *r, void *arg)
{
    (void)arg;
    world.gone++;
    assert_ptr_equal(r->user, &world);
    assert_non_null(http_request_header(r, "host"));
    if (world.held == r)
        world.held = NULL;
}

static void on_drained(struct http_request *r, void *arg)
{
    (void)arg;
    assert_ptr_equal(r, world.held);
    assert_true(http_stream_writable(r));
    world.drained++;
}

void open_server(void)
{
    struct why why;
    if (http_server_open(&world.server, world.base, &world.config, &why) != OK)
        fail_msg("%s", why.text);
}

int http_set_up(void **state)
{
    (void)state;
    struct timeval ms = {.tv_usec = 1000};
    memset(&world, 0, sizeof world);
    world.base = event_base_new();
    world.tick = event_new(world.base, -1, EV_PERSIST, on_tick, NULL);
    event_add(world.tick, &ms);
    world.config = (struct http_server_config){
        .host = "127.0.0.1",
        .limits = http_default_limits(),
        .callbacks = {.early = on_early, .request = on_request, .gone = on_gone, .drained = on_drained},
        .arg = &world};
    return 0;
}

int http_tear_down(void **state)
{
    (void)state;
    http_server_close(world.server);
    event_free(world.tick);
    event_base_free(world.base);
    return 0;
}

struct client connect_to(int family, int receive_buffer)
{
    struct client c = {.fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .got = calloc(1, 1)};
    struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_port = htons(http_server_port(world.server)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = v4.sin_port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    assert_true(c.fd >= 0);
    if (receive_buffer)
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    int result = family == AF_INET ? connect(c.fd, (struct sockaddr *)&v4, sizeof v4)
                                   : connect(c.fd, (struct sockaddr *)&v6, sizeof v6);
    assert_true(result == 0 || errno == EINPROGRESS);
    return c;
}

struct client connect_client(void)
{
    return connect_to(AF_INET, 0);
}

void leave(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    free(c->got);
    c->got = NULL;
}

void leave_by_reset(struct client *c)
{
    struct linger at_once = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    leave(c);
}

bool send_bytes(struct client *c, const char *bytes, size_t length)
{
    size_t sent = 0;
    uint64_t deadline = now_us() + 5000000;
    do {
        ssize_t n = send(c->fd, bytes + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != ENOTCONN)
            return false;
        if (n > 0)
            sent += (size_t)n;
        event_base_loop(world.base, n > 0 ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
    } while (sent < length && now_us() < deadline);
    assert_int_equal(sent, length);
    return true;
}

void send_text(struct client *c, const char *text)
{
    assert_true(send_bytes(c, text, strlen(text)));
}

bool receive(struct client *c)
{
    char part[65536];
    ssize_t n;
    while ((n = recv(c->fd, part, sizeof part, 0)) > 0) {
        c->got = realloc(c->got, c->got_bytes + (size_t)n + 1);
        memcpy(c->got + c->got_bytes, part, (size_t)n);
        c->got_bytes += (size_t)n;
        c->got[c->got_bytes] = 0;
    }
    c->closed = c->closed || n == 0;
    c->reset = c->reset || (n < 0 && errno == ECONNRESET);
    return true;
}

struct reply next_reply(struct client *c)
{
    struct reply r;
    char *body, *length;
    UNTIL(receive(c) && (strstr(c->got, "\r\n\r\n") || c->closed || c->reset));
    if (!strstr(c->got, "\r\n\r\n"))
        fail_msg("the connection ended without a reply: \"%s\"", c->got);
    body = strstr(c->got, "\r\n\r\n") + 4;
    size_t head_bytes = (size_t)(body - c->got);
    snprintf(r.head, sizeof r.head, "%.*s", (int)head_bytes, c->got);
    assert_int_equal(sscanf(r.head, "HTTP/1.1 %d", &r.status), 1);
    length = strstr(r.head, "Content-Length: ");
    size_t bytes = length ? strtoul(length + 16, NULL, 10) : 0;
    assert_true(bytes < sizeof r.body);
    UNTIL(receive(c) && c->got_bytes >= head_bytes + bytes);
    memcpy(r.body, c->got + head_bytes, bytes);
    r.body[bytes] = 0;
    c->got_bytes -= head_bytes + bytes;
    memmove(c->got, c->got + head_bytes + bytes, c->got_bytes + 1);
    return r;
}

void expect_reply(struct client *c, int status, const char *body)
{
    struct reply r = next_reply(c);
    assert_int_equal(r.status, status);
    assert_string_equal(r.body, body);
}

struct client held_client(const char *path, int receive_buffer)
{
    char request[128];
    struct client c = connect_to(AF_INET, receive_buffer);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    send_text(&c, request);
    UNTIL(world.held);
    return c;
}
