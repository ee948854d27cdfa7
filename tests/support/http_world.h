/*
 * http_world: a real HTTP server on a free port of the loopback, driven by raw sockets in the same thread: each wait runs
 * the loop until its condition holds or five seconds have passed. A test includes this once and uses http_set_up and
 * http_tear_down. What the server does: /hold keeps the request, /stream begins a stream and keeps it, /echo gives the
 * body back, /peer the client's address, /none an empty 204, /refused is refused by the early check; all else is 404.
 */
#ifndef QUIRE_TESTS_SUPPORT_HTTP_WORLD_H
#define QUIRE_TESTS_SUPPORT_HTTP_WORLD_H

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "coordinator/http.h"

/* The server under test and what its callbacks have seen. */
struct http_world {
    struct event_base *base;
    struct event *tick; /* lets a turn end when nothing happens */
    struct http_server *server;
    struct http_server_config config;
    struct http_request *held; /* the last request of /hold or /stream, NULL once gone */
    unsigned early, requests, gone, drained;
};
extern struct http_world world;

/* Runs the loop until the condition holds. */
#define UNTIL(condition)                                           \
    do {                                                           \
        uint64_t deadline = now_us() + 5000000;                    \
        while (!(condition)) {                                     \
            if (now_us() > deadline)                               \
                fail_msg("five seconds have passed: " #condition); \
            event_base_loop(world.base, EVLOOP_ONCE);              \
        }                                                          \
    } while (0)

/* Opens it as world.config says. */
void open_server(void);

int http_set_up(void **state);
int http_tear_down(void **state);

#define HTTP_TEST(name) cmocka_unit_test_setup_teardown(name, http_set_up, http_tear_down)

struct client {
    int fd;
    char *got; /* got_bytes bytes and a zero byte: received and not yet taken */
    size_t got_bytes;
    bool closed, reset;
};

/* receive_buffer 0: the kernel's default. */
struct client connect_to(int family, int receive_buffer);
struct client connect_client(void);

/* A client whose request for the path the server holds unanswered. */
struct client held_client(const char *path, int receive_buffer);

/* By FIN when all was received; by reset otherwise. */
void leave(struct client *c);
void leave_by_reset(struct client *c);

/* Sends all of it, the server taking it meanwhile. False when the server has reset the connection. */
bool send_bytes(struct client *c, const char *bytes, size_t length);
void send_text(struct client *c, const char *text);

/* Takes what has arrived; true, so that it fits into a condition. */
bool receive(struct client *c);

struct reply {
    int status;
    char head[1024], body[8192];
};

/* The next whole reply with a Content-Length or without a body. */
struct reply next_reply(struct client *c);
void expect_reply(struct client *c, int status, const char *body);

#define HEAD_OF(method, path) method " " path " HTTP/1.1\r\nHost: a\r\n"
#define GET(path) HEAD_OF("GET", path) "\r\n"

#endif
