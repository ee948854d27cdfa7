/*
 * test_http: a real server on a free port of the loopback, driven by raw sockets in the same thread: each wait runs the
 * loop until its condition holds or five seconds have passed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "coordinator/http.h"

/* The server under test and what its callbacks have seen. */
static struct world {
    struct event_base *base;
    struct event *tick; /* lets a turn end when nothing happens */
    struct http_server *server;
    struct http_server_config config;
    struct http_request *held; /* the last request of /hold or /stream, NULL once gone */
    unsigned early, requests, gone, drained;
} world;

/* Runs the loop until the condition holds. */
#define UNTIL(condition)                                              \
    do {                                                              \
        uint64_t deadline = now_us() + 5000000;                       \
        while (!(condition)) {                                        \
            if (now_us() > deadline)                                  \
                fail_msg("five seconds have passed: " #condition);    \
            event_base_loop(world.base, EVLOOP_ONCE);                 \
        }                                                             \
    } while (0)

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

/* ---- what the server does ------------------------------------------------------------------------------------------ */

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

static void open_server(void)
{
    struct why why;
    if (http_server_open(&world.server, world.base, &world.config, &why) != OK)
        fail_msg("%s", why.text);
}

static int set_up(void **state)
{
    (void)state;
    struct timeval ms = {.tv_usec = 1000};
    memset(&world, 0, sizeof world);
    world.base = event_base_new();
    world.tick = event_new(world.base, -1, EV_PERSIST, on_tick, NULL);
    event_add(world.tick, &ms);
    world.config = (struct http_server_config){.host = "127.0.0.1",
                                               .limits = http_default_limits(),
                                               .callbacks = {on_early, on_request, on_gone, on_drained},
                                               .arg = &world};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    http_server_close(world.server);
    event_free(world.tick);
    event_base_free(world.base);
    return 0;
}

/* ---- clients ------------------------------------------------------------------------------------------------------- */

struct client {
    int fd;
    char *got; /* got_bytes bytes and a zero byte: received and not yet taken */
    size_t got_bytes;
    bool closed, reset;
};

static struct client connect_to(int family, int receive_buffer)
{
    struct client c = {.fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .got = calloc(1, 1)};
    struct sockaddr_in v4 = {.sin_family = AF_INET,
                             .sin_port = htons(http_server_port(world.server)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = v4.sin_port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    assert_true(c.fd >= 0);
    if (receive_buffer)
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    int result = family == AF_INET ? connect(c.fd, (struct sockaddr *)&v4, sizeof v4)
                                   : connect(c.fd, (struct sockaddr *)&v6, sizeof v6);
    assert_true(result == 0 || errno == EINPROGRESS);
    return c;
}

static struct client connect_client(void)
{
    return connect_to(AF_INET, 0);
}

static void leave(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    free(c->got);
    c->got = NULL;
}

static void leave_by_reset(struct client *c)
{
    struct linger at_once = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    leave(c);
}

/* Sends all of it, the server taking it meanwhile. False when the server has reset the connection. */
static bool send_bytes(struct client *c, const char *bytes, size_t length)
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

static void send_text(struct client *c, const char *text)
{
    assert_true(send_bytes(c, text, strlen(text)));
}

/* Takes what has arrived; true, so that it fits into a condition. */
static bool receive(struct client *c)
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

struct reply {
    int status;
    char head[1024], body[8192];
};

/* The next whole reply with a Content-Length. */
static struct reply next_reply(struct client *c)
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

static void expect_reply(struct client *c, int status, const char *body)
{
    struct reply r = next_reply(c);
    assert_int_equal(r.status, status);
    assert_string_equal(r.body, body);
}

#define HEAD_OF(method, path) method " " path " HTTP/1.1\r\nHost: a\r\n"
#define GET(path) HEAD_OF("GET", path) "\r\n"

/* A client whose request the server holds unanswered. */
static struct client held_client(const char *path, int receive_buffer)
{
    char request[128];
    struct client c = connect_to(AF_INET, receive_buffer);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    send_text(&c, request);
    UNTIL(world.held);
    return c;
}

/* ---- whole requests ------------------------------------------------------------------------------------------------ */

static void names_and_addresses_of_both_families_can_be_listened_on(void **state)
{
    (void)state;
    static const struct {
        const char *host, *peer;
        int family;
    } hosts[] = {{"127.0.0.1", "127.0.0.1", AF_INET},
                 {"0.0.0.0", "127.0.0.1", AF_INET},
                 {"localhost", "127.0.0.1", AF_INET},
                 {"::1", "::1", AF_INET6}};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct why why;
        world.config.host = hosts[i].host;
        if (http_server_open(&world.server, world.base, &world.config, &why) != OK) {
            assert_int_equal(hosts[i].family, AF_INET6); /* a machine without IPv6 */
            continue;
        }
        struct client c = connect_to(hosts[i].family, 0);
        send_text(&c, GET("/peer"));
        expect_reply(&c, 200, hosts[i].peer);
        leave(&c);
        http_server_close(world.server);
        world.server = NULL;
    }
}

static void taken_port_and_unknown_host_are_told_in_a_sentence(void **state)
{
    (void)state;
    struct http_server *second = NULL;
    struct why why;
    open_server();
    world.config.port = http_server_port(world.server);
    assert_int_equal(http_server_open(&second, world.base, &world.config, &why), ERR_BUSY);
    assert_non_null(strstr(why.text, "another program listens there already"));
    world.config.host = "256.1.1.1";
    assert_int_equal(http_server_open(&second, world.base, &world.config, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "256.1.1.1"));
    assert_null(second);
}

static void connection_is_kept_for_the_next_request(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    for (int i = 0; i < 3; i++) {
        send_text(&c, HEAD_OF("POST", "/echo") "Content-Length: 5\r\n\r\nhello");
        expect_reply(&c, 200, "hello");
        send_text(&c, GET("/nope"));
        expect_reply(&c, 404, "no");
        send_text(&c, GET("/none"));
        expect_reply(&c, 204, "");
    }
    assert_int_equal(world.requests, 9);
    assert_int_equal(world.gone, 0);
    assert_int_equal(http_server_connections(world.server), 1);
    leave(&c);
    UNTIL(http_server_connections(world.server) == 0);
}

static void request_may_come_byte_by_byte(void **state)
{
    (void)state;
    static const char text[] = HEAD_OF("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    open_server();
    struct client c = connect_client();
    for (size_t i = 0; i < sizeof text - 1; i++)
        assert_true(send_bytes(&c, text + i, 1));
    expect_reply(&c, 200, "abcde");
    leave(&c);
}

static void connection_close_and_http_1_0_end_the_connection(void **state)
{
    (void)state;
    static const char *const texts[] = {HEAD_OF("GET", "/peer") "Connection: close\r\n\r\n", "GET /peer HTTP/1.0\r\n\r\n"};
    open_server();
    for (size_t i = 0; i < 2; i++) {
        struct client c = connect_client();
        send_text(&c, texts[i]);
        struct reply r = next_reply(&c);
        assert_non_null(strstr(r.head, "Connection: close\r\n"));
        UNTIL(receive(&c) && c.closed);
        leave(&c);
    }
    struct client c = connect_client();
    send_text(&c, "GET /peer HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_non_null(strstr(next_reply(&c).head, "Connection: keep-alive\r\n"));
    send_text(&c, GET("/peer"));
    expect_reply(&c, 200, "127.0.0.1");
    leave(&c);
}

static void pipelined_requests_are_served_one_at_a_time_and_in_order(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, GET("/peer") GET("/hold") GET("/nope") GET("/none"));
    expect_reply(&c, 200, "127.0.0.1");
    UNTIL(world.held);
    assert_int_equal(world.early, 2);
    http_reply(world.held, 200, "text/plain", "now", 3, NULL, 0);
    assert_int_equal(world.early, 2); /* not from inside a call */
    expect_reply(&c, 200, "now");
    expect_reply(&c, 404, "no");
    expect_reply(&c, 204, "");
    leave(&c);
}

static void pipelined_requests_beyond_the_read_ahead_are_all_served(void **state)
{
    (void)state;
    static const char one[] = GET("/none");
    static char all[2000 * (sizeof one - 1) + 1];
    for (size_t i = 0; i < 2000; i++)
        memcpy(all + i * (sizeof one - 1), one, sizeof one);
    open_server();
    struct client c = held_client("/hold", 0);
    assert_true(send_bytes(&c, all, sizeof all - 1));
    unsigned turns = 0;
    for (uint64_t begin = now_us(); now_us() - begin < 20000; turns++)
        event_base_loop(world.base, EVLOOP_ONCE);
    assert_true(turns < 200); /* the tick comes each ms; a loop that spins on unread input turns thousands of times */
    http_reply(world.held, 204, NULL, NULL, 0, NULL, 0);
    for (unsigned i = 0; i < 2001; i++)
        expect_reply(&c, 204, "");
    assert_int_equal(world.requests, 2001);
    leave(&c);
}

static void head_is_answered_without_a_body(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, HEAD_OF("HEAD", "/peer") "\r\n" GET("/none"));
    UNTIL(receive(&c) && strstr(c.got, " 204 "));
    assert_non_null(strstr(c.got, "Content-Length: 9\r\n"));
    assert_null(strstr(c.got, "127.0.0.1"));
    leave(&c);
}

static void header_that_would_split_an_answer_is_left_out(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, GET("/refused"));
    struct reply r = next_reply(&c);
    assert_int_equal(r.status, 401);
    assert_non_null(strstr(r.head, "X-Good: yes\r\n"));
    assert_null(strstr(r.head, "Evil"));
    assert_null(strstr(r.head, "X Bad"));
    assert_null(strstr(r.head, "\r\n: a"));
    leave(&c);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

static void each_hostile_request_gets_its_status_and_an_error_object(void **state)
{
    (void)state;
    static char long_uri[100000] = "GET /", long_field[200000] = GET("/") "X: ", many_fields[60000] = GET("/");
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {HEAD_OF("POST", "/echo") "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
        {HEAD_OF("POST", "/echo") "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {HEAD_OF("POST", "/echo") "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
        {HEAD_OF("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400},
        {HEAD_OF("POST", "/echo") "Content-Length: 99999999999999999999\r\n\r\n", 400},
        {HEAD_OF("POST", "/echo") "Content-Length: 1048577\r\n\r\n", 413},
        {HEAD_OF("POST", "/echo") "Expect: tea\r\n\r\n", 417},
        {"GET / HTTP/1.1\nHost: a\n\n", 400},
        {"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505},
        {"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", 421},
        {"\x16\x03\x01", 400},
        {long_uri, 414},
        {long_field, 431},
        {many_fields, 431},
    };
    memset(long_uri + 5, 'a', sizeof long_uri - 6);
    size_t used = strlen(long_field) - 5;
    memcpy(long_field + used, "X: ", 4);
    memset(long_field + used + 3, 'a', sizeof long_field - used - 4);
    many_fields[strlen(many_fields) - 2] = 0;
    for (used = strlen(many_fields); used + 8 < sizeof many_fields; used += 6)
        memcpy(many_fields + used, "X: 1\r\n", 7);
    open_server();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c = connect_client();
        send_bytes(&c, cases[i].text, strlen(cases[i].text));
        struct reply r = next_reply(&c);
        if (r.status != cases[i].status)
            fail_msg("case %zu: %d, expected %d", i, r.status, cases[i].status);
        assert_int_equal(strncmp(r.body, "{\"error\":{\"message\":\"", 21), 0);
        assert_non_null(strstr(r.body, "\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}"));
        assert_non_null(strstr(r.head, "Content-Type: application/json\r\n"));
        UNTIL(receive(&c) && c.closed);
        leave(&c);
    }
    UNTIL(http_server_connections(world.server) == 0);
    assert_int_equal(world.requests, 0);
    assert_int_equal(world.gone, world.early); /* the one bad chunk came after early() had agreed */
}

static void chunks_are_counted_against_the_body_limit(void **state)
{
    (void)state;
    world.config.limits.body_bytes = 8;
    open_server();
    struct client c = connect_client();
    send_text(&c, HEAD_OF("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n");
    expect_reply(&c, 200, "abcdefgh");
    send_text(&c, HEAD_OF("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n5\r\nefghi\r\n0\r\n\r\n");
    assert_int_equal(next_reply(&c).status, 413);
    assert_int_equal(world.gone, 1);
    assert_int_equal(http_server_open_requests(world.server), 0);
    leave(&c);
}

static void all_bodies_together_have_a_bound(void **state)
{
    (void)state;
    world.config.limits.bodies_bytes = 10000;
    open_server();
    static char body[6000];
    memset(body, 'x', sizeof body);
    struct client first = connect_client(), second = connect_client();
    send_text(&first, HEAD_OF("POST", "/hold") "Content-Length: 6000\r\n\r\n");
    send_bytes(&first, body, sizeof body);
    UNTIL(world.held);
    send_text(&second, HEAD_OF("POST", "/echo") "Content-Length: 6000\r\n\r\n");
    send_bytes(&second, body, sizeof body);
    struct reply r = next_reply(&second);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.head, "Retry-After: 1\r\n"));
    http_reply(world.held, 200, NULL, NULL, 0, NULL, 0);
    expect_reply(&first, 200, "");
    send_text(&first, HEAD_OF("POST", "/echo") "Content-Length: 6000\r\n\r\n");
    send_bytes(&first, body, sizeof body);
    assert_int_equal(next_reply(&first).status, 200);
    leave(&first);
    leave(&second);
}

static void continue_is_sent_only_after_the_early_check_agreed(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, HEAD_OF("POST", "/echo") "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    expect_reply(&c, 100, "");
    send_text(&c, "ok");
    expect_reply(&c, 200, "ok");
    send_text(&c, HEAD_OF("POST", "/refused") "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    struct reply r = next_reply(&c);
    assert_int_equal(r.status, 401);
    assert_non_null(strstr(r.head, "Connection: close\r\n"));
    leave(&c);
    c = connect_client();
    send_text(&c, HEAD_OF("POST", "/echo") "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n");
    assert_int_equal(next_reply(&c).status, 413);
    leave(&c);
    assert_int_equal(world.requests, 1);
    assert_int_equal(world.gone, 0);
}

static void client_that_sends_all_of_a_refused_body_can_still_read_why(void **state)
{
    (void)state;
    static char piece[1 << 20];
    open_server();
    struct client c = connect_client();
    send_text(&c, HEAD_OF("POST", "/echo") "Content-Length: 16777216\r\n\r\n");
    for (int i = 0; i < 16; i++)
        assert_true(send_bytes(&c, piece, sizeof piece));
    assert_int_equal(next_reply(&c).status, 413);
    UNTIL(receive(&c) && c.closed);
    leave(&c);
    UNTIL(http_server_connections(world.server) == 0);
}

static void refused_upload_is_not_read_without_end(void **state)
{
    (void)state;
    static char piece[1 << 20];
    world.config.limits.linger_bytes = 4 << 20;
    open_server();
    struct client c = connect_client();
    send_text(&c, HEAD_OF("POST", "/echo") "Content-Length: 1000000000\r\n\r\n");
    int pieces = 0;
    while (pieces < 64 && send_bytes(&c, piece, sizeof piece))
        pieces++;
    assert_in_range(pieces, 4, 20);
    leave(&c);
}

/* ---- deadlines ----------------------------------------------------------------------------------------------------- */

static void slow_head_and_slow_body_end_at_their_deadlines(void **state)
{
    (void)state;
    world.config.limits.head_ms = 60;
    world.config.limits.body_ms = 60;
    open_server();
    static const char *const texts[] = {"GET /peer HT", HEAD_OF("POST", "/echo") "Content-Length: 5\r\n\r\nhe"};
    for (size_t i = 0; i < 2; i++) {
        struct client c = connect_client();
        send_text(&c, texts[i]);
        uint64_t begin = now_us();
        while (receive(&c) && c.got_bytes == 0 && now_us() - begin < 5000000) {
            send_bytes(&c, "x", i == 0); /* a byte each turn does not put off the head's deadline */
            event_base_loop(world.base, EVLOOP_ONCE);
        }
        assert_int_equal(next_reply(&c).status, 408);
        assert_in_range(now_us() - begin, 50000, 2000000);
        UNTIL(receive(&c) && c.closed);
        leave(&c);
    }
    assert_int_equal(world.early, 1);
    assert_int_equal(world.gone, 1);
}

static void idle_connection_is_closed_without_a_word(void **state)
{
    (void)state;
    world.config.limits.idle_ms = 30;
    open_server();
    struct client fresh = connect_client(), used = connect_client();
    send_text(&used, GET("/none"));
    expect_reply(&used, 204, "");
    UNTIL(receive(&fresh) && fresh.closed && receive(&used) && used.closed);
    assert_int_equal(fresh.got_bytes + used.got_bytes, 0);
    leave(&fresh);
    leave(&used);
}

/* ---- streams ------------------------------------------------------------------------------------------------------- */

static void stream_is_chunked_and_keeps_the_connection(void **state)
{
    (void)state;
    open_server();
    struct client c = held_client("/stream", 0);
    http_stream_write(world.held, "data: 1\n\n", 9);
    http_stream_write(world.held, "", 0);
    UNTIL(receive(&c) && strstr(c.got, "\r\n\r\n9\r\ndata: 1\n\n\r\n"));
    assert_non_null(strstr(c.got, "Transfer-Encoding: chunked\r\n"));
    http_stream_write(world.held, "0123456789abcdef", 16);
    http_stream_end(world.held);
    UNTIL(receive(&c) && strstr(c.got, "\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"));
    c.got[c.got_bytes = 0] = 0;
    send_text(&c, GET("/peer"));
    expect_reply(&c, 200, "127.0.0.1");
    assert_int_equal(http_server_open_requests(world.server), 0);
    leave(&c);
}

static void stream_to_http_1_0_ends_with_the_connection(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, "GET /stream HTTP/1.0\r\nHost: a\r\n\r\n");
    UNTIL(world.held);
    http_stream_write(world.held, "abc", 3);
    UNTIL(receive(&c) && strstr(c.got, "\r\n\r\nabc"));
    http_stream_end(world.held);
    UNTIL(receive(&c) && c.closed);
    assert_null(strstr(c.got, "chunked"));
    assert_string_equal(strstr(c.got, "\r\n\r\n"), "\r\n\r\nabc");
    leave(&c);
}

/* Writes until http_stream_writable says no, in two turns each, so that the kernel's buffers are full too. */
static size_t fill_stream(void)
{
    static const char event[4096];
    size_t written = 0;
    while (world.held && written < 64 << 20) {
        if (!http_stream_writable(world.held)) {
            event_base_loop(world.base, EVLOOP_ONCE);
            event_base_loop(world.base, EVLOOP_ONCE);
            if (!world.held || !http_stream_writable(world.held))
                break;
        }
        http_stream_write(world.held, event, sizeof event);
        written += sizeof event;
    }
    return written;
}

static void slow_reader_is_waited_for_and_told_of_when_it_has_drained(void **state)
{
    (void)state;
    open_server();
    struct client c = held_client("/stream", 4096);
    size_t written = fill_stream();
    assert_in_range(written, 64 << 10, 1 << 20); /* 64 KiB here, the rest in the kernel's fixed buffers */
    unsigned before = world.drained;
    UNTIL(receive(&c) && world.drained > before);
    http_stream_end(world.held);
    UNTIL(receive(&c) && c.got_bytes > written && strcmp(c.got + c.got_bytes - 5, "0\r\n\r\n") == 0);
    assert_int_equal(world.gone, 0);
    leave(&c);
}

static void stalled_reader_is_dropped(void **state)
{
    (void)state;
    world.config.limits.stall_ms = 40;
    open_server();
    struct client c = held_client("/stream", 4096);
    fill_stream();
    UNTIL(world.gone == 1);
    assert_null(world.held);
    UNTIL(http_server_connections(world.server) == 0);
    leave(&c);
}

static void stalled_reader_of_a_whole_reply_is_dropped(void **state)
{
    (void)state;
    static const char body[8 << 20];
    world.config.limits.stall_ms = 40;
    open_server();
    struct client c = held_client("/hold", 4096);
    http_reply(world.held, 200, "text/plain", body, sizeof body, NULL, 0);
    UNTIL(http_server_connections(world.server) == 0);
    assert_int_equal(world.gone, 0); /* it was answered */
    leave(&c);
}

static void stream_beyond_its_hard_limit_is_dropped_in_a_later_turn(void **state)
{
    (void)state;
    static const char event[1 << 16];
    open_server();
    struct client c = held_client("/stream", 4096);
    for (int i = 0; i < 64; i++)
        http_stream_write(world.held, event, sizeof event);
    assert_int_equal(world.gone, 0);
    UNTIL(world.gone == 1);
    leave(&c);
}

/* ---- clients that leave -------------------------------------------------------------------------------------------- */

static void reset_by_the_client_is_told_at_once(void **state)
{
    (void)state;
    static const char *const paths[] = {"/hold", "/stream"};
    open_server();
    for (unsigned i = 0; i < 2; i++) {
        struct client c = held_client(paths[i], 0);
        assert_int_equal(http_server_open_requests(world.server), 1);
        leave_by_reset(&c);
        UNTIL(world.gone == i + 1);
        assert_null(world.held);
        UNTIL(http_server_connections(world.server) == 0);
    }
}

static void closed_socket_is_told_from_a_half_closed_one(void **state)
{
    (void)state;
    static const char *const paths[] = {"/hold", "/stream"};
    open_server();
    for (unsigned i = 0; i < 2; i++) {
        struct client c = held_client(paths[i], 0);
        UNTIL(receive(&c) && (i == 0 || strstr(c.got, "\r\n\r\n"))); /* nothing unread: close sends a FIN, no reset */
        leave(&c);
        UNTIL(world.gone == i + 1);
    }
}

static void half_closed_client_gets_its_answer_unchanged(void **state)
{
    (void)state;
    open_server();
    struct client c = held_client("/hold", 0);
    shutdown(c.fd, SHUT_WR);
    UNTIL(receive(&c) && c.got_bytes > 0); /* the first bytes of any answer: the server has seen the FIN */
    uint64_t seen = now_us();
    UNTIL(now_us() - seen > 150000);
    assert_int_equal(world.gone, 0);
    http_reply(world.held, 200, "text/plain", "late", 4, NULL, 0);
    expect_reply(&c, 200, "late");
    UNTIL(receive(&c) && c.closed);
    leave(&c);

    world.held = NULL;
    c = held_client("/stream", 0);
    UNTIL(receive(&c) && strstr(c.got, "\r\n\r\n"));
    size_t head_bytes = c.got_bytes;
    shutdown(c.fd, SHUT_WR);
    UNTIL(receive(&c) && c.got_bytes > head_bytes);
    http_stream_write(world.held, "abc", 3);
    http_stream_end(world.held);
    UNTIL(receive(&c) && c.closed);
    assert_string_equal(c.got + head_bytes, "03\r\nabc\r\n0\r\n\r\n");
    assert_int_equal(world.gone, 0);
    leave(&c);
}

static void half_closed_client_gets_all_pipelined_answers(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, GET("/peer") GET("/nope"));
    shutdown(c.fd, SHUT_WR);
    expect_reply(&c, 200, "127.0.0.1");
    expect_reply(&c, 404, "no");
    UNTIL(receive(&c) && c.closed);
    leave(&c);
}

static void reset_is_seen_behind_a_full_read_ahead(void **state)
{
    (void)state;
    static char more[65536];
    memset(more, 'x', sizeof more);
    open_server();
    struct client c = held_client("/hold", 0);
    assert_true(send_bytes(&c, more, sizeof more));
    leave_by_reset(&c);
    UNTIL(world.gone == 1);
}

static void client_that_leaves_amid_its_body_is_told(void **state)
{
    (void)state;
    open_server();
    struct client c = connect_client();
    send_text(&c, HEAD_OF("POST", "/echo") "Content-Length: 5\r\n\r\nhe");
    UNTIL(world.early == 1);
    leave(&c);
    UNTIL(world.gone == 1);
    assert_int_equal(world.requests, 0);
    UNTIL(http_server_connections(world.server) == 0);
}

/* ---- many clients, and the end ------------------------------------------------------------------------------------- */

static void clients_beyond_the_limit_wait_for_a_place(void **state)
{
    (void)state;
    struct client clients[20];
    world.config.limits.max_connections = 2;
    open_server();
    for (int i = 0; i < 20; i++)
        clients[i] = connect_client();
    UNTIL(http_server_connections(world.server) == 2);
    for (int i = 0; i < 20; i++) {
        send_text(&clients[i], HEAD_OF("GET", "/peer") "Connection: close\r\n\r\n");
        expect_reply(&clients[i], 200, "127.0.0.1");
        assert_in_range(http_server_connections(world.server), 1, 2);
        leave(&clients[i]);
    }
}

static void long_idle_connection_makes_room(void **state)
{
    (void)state;
    world.config.limits.max_connections = 1;
    open_server();
    struct client idle = connect_client();
    UNTIL(http_server_connections(world.server) == 1);
    struct client second = connect_client();
    send_text(&second, GET("/peer"));
    expect_reply(&second, 200, "127.0.0.1");
    UNTIL(receive(&idle) && idle.closed);
    leave(&idle);
    leave(&second);
}

static void server_recovers_from_a_lack_of_descriptors(void **state)
{
    (void)state;
    struct client clients[8];
    struct rlimit before, few;
    open_server();
    for (int i = 0; i < 8; i++)
        clients[i] = connect_client();
    int highest = dup(clients[7].fd);
    close(highest);
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = (rlim_t)highest; /* none free but the server's reserve */
    setrlimit(RLIMIT_NOFILE, &few);
    expect_reply(&clients[0], 503, "");
    unsigned turns = 0;
    for (uint64_t begin = now_us(); now_us() - begin < 50000; turns++)
        event_base_loop(world.base, EVLOOP_ONCE);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_true(turns < 200); /* the tick comes each ms; a spinning loop would turn thousands of times */
    for (int i = 7; i >= 0; i--) {
        if (receive(&clients[i]) && !clients[i].closed) {
            send_text(&clients[i], GET("/peer"));
            expect_reply(&clients[i], 200, "127.0.0.1");
        } else {
            assert_true(i < 3); /* turned away while there were none: one each 100 ms */
        }
        leave(&clients[i]);
    }
}

static void stopping_closes_idle_clients_and_finishes_the_others(void **state)
{
    (void)state;
    open_server();
    struct client idle = connect_client(), running = held_client("/hold", 0);
    http_server_stop_accepting(world.server);
    UNTIL(receive(&idle) && idle.closed);
    assert_int_equal(http_server_open_requests(world.server), 1);
    http_reply(world.held, 200, "text/plain", "done", 4, NULL, 0);
    assert_int_equal(http_server_open_requests(world.server), 0);
    struct reply r = next_reply(&running);
    assert_string_equal(r.body, "done");
    assert_non_null(strstr(r.head, "Connection: close\r\n"));
    UNTIL(receive(&running) && running.closed);
    struct client late = connect_client();
    UNTIL(recv(late.fd, &(char){0}, 1, 0) < 0 && errno == ECONNREFUSED);
    leave(&late);
    leave(&idle);
    leave(&running);
    UNTIL(http_server_connections(world.server) == 0);
}

static void closing_the_server_ends_open_requests(void **state)
{
    (void)state;
    open_server();
    struct client c = held_client("/stream", 0);
    http_server_close(world.server);
    world.server = NULL;
    assert_int_equal(world.gone, 1);
    UNTIL(receive(&c) && (c.closed || c.reset));
    leave(&c);
}

static void idle_connection_costs_at_most_16_kib(void **state)
{
    (void)state;
    enum { CLIENTS = 200 };
    static struct client clients[CLIENTS];
    open_server();
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connect_client();
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < CLIENTS; i++) {
        send_text(&clients[i], HEAD_OF("POST", "/echo") "Content-Length: 5\r\n\r\nhello");
        expect_reply(&clients[i], 200, "hello");
    }
    assert_int_equal(http_server_connections(world.server), CLIENTS);
    size_t each = (mallinfo2().uordblks - before) / CLIENTS;
    print_message("an idle connection holds %zu bytes, the test client's buffer among them\n", each);
    assert_true(each < 16 << 10);
    for (int i = 0; i < CLIENTS; i++)
        leave(&clients[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(names_and_addresses_of_both_families_can_be_listened_on),
        TEST(taken_port_and_unknown_host_are_told_in_a_sentence),
        TEST(connection_is_kept_for_the_next_request),
        TEST(request_may_come_byte_by_byte),
        TEST(connection_close_and_http_1_0_end_the_connection),
        TEST(pipelined_requests_are_served_one_at_a_time_and_in_order),
        TEST(pipelined_requests_beyond_the_read_ahead_are_all_served),
        TEST(head_is_answered_without_a_body),
        TEST(header_that_would_split_an_answer_is_left_out),
        TEST(each_hostile_request_gets_its_status_and_an_error_object),
        TEST(chunks_are_counted_against_the_body_limit),
        TEST(all_bodies_together_have_a_bound),
        TEST(continue_is_sent_only_after_the_early_check_agreed),
        TEST(client_that_sends_all_of_a_refused_body_can_still_read_why),
        TEST(refused_upload_is_not_read_without_end),
        TEST(slow_head_and_slow_body_end_at_their_deadlines),
        TEST(idle_connection_is_closed_without_a_word),
        TEST(stream_is_chunked_and_keeps_the_connection),
        TEST(stream_to_http_1_0_ends_with_the_connection),
        TEST(slow_reader_is_waited_for_and_told_of_when_it_has_drained),
        TEST(stalled_reader_is_dropped),
        TEST(stalled_reader_of_a_whole_reply_is_dropped),
        TEST(stream_beyond_its_hard_limit_is_dropped_in_a_later_turn),
        TEST(reset_by_the_client_is_told_at_once),
        TEST(closed_socket_is_told_from_a_half_closed_one),
        TEST(half_closed_client_gets_its_answer_unchanged),
        TEST(half_closed_client_gets_all_pipelined_answers),
        TEST(reset_is_seen_behind_a_full_read_ahead),
        TEST(client_that_leaves_amid_its_body_is_told),
        TEST(clients_beyond_the_limit_wait_for_a_place),
        TEST(long_idle_connection_makes_room),
        TEST(server_recovers_from_a_lack_of_descriptors),
        TEST(stopping_closes_idle_clients_and_finishes_the_others),
        TEST(closing_the_server_ends_open_requests),
        TEST(idle_connection_costs_at_most_16_kib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
