/* test_http_connection: what a client may send, in which order and how slowly, and what happens when it leaves. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/support/http_world.h"

/* ---- whole requests ------------------------------------------------------------------------------------------------ */

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
    static const char text[] =
        HEAD_OF("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    open_server();
    struct client c = connect_client();
    for (size_t i = 0; i < sizeof text - 1; i++)
        assert_true(send_bytes(&c, text + i, 1));
    expect_reply(&c, 200, "abcde");
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

static struct {
    unsigned calls, passed;
    int status;
    char problem[128], path[32], origin[64];
} refusal;

static void word_refusal(struct http_request *r, int status, const char *problem, void *arg)
{
    static const struct http_header extra = {"X-Worded", "yes"};
    const char *origin = http_request_header(r, "origin");
    assert_ptr_equal(arg, &world);
    refusal.calls++;
    refusal.passed += r->passed;
    refusal.status = status;
    snprintf(refusal.problem, sizeof refusal.problem, "%s", problem);
    snprintf(refusal.path, sizeof refusal.path, "%s", r->path);
    snprintf(refusal.origin, sizeof refusal.origin, "%s", origin ? origin : "-");
    http_reply(r, status, "text/plain", "worded", 6, &extra, 1);
}

static void what_http_forbids_is_worded_by_the_caller(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
        const char *path, *origin;
        bool passed;
    } cases[] = {
        {"nonsense\r\n", 400, "", "-", false},
        {HEAD_OF("GET", "/x") "Origin: http://b\r\nContent-Length: x\r\n", 400, "", "http://b", false},
        {HEAD_OF("GET", "/x") "Content-Length: x\r\nOrigin: http://b\r\n\r\n", 400, "", "-", false},
        {HEAD_OF("POST", "/echo") "Origin: http://b\r\nContent-Length: 9\r\n\r\n", 413, "/echo", "http://b", false},
        {HEAD_OF("POST", "/echo") "Origin: http://b\r\nTransfer-Encoding: chunked\r\n\r\nx", 400, "/echo", "http://b",
         true},
        {HEAD_OF("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n9\r\n123456789", 413, "/echo", "-", true},
    };
    memset(&refusal, 0, sizeof refusal);
    world.config.limits.body_bytes = 8;
    world.config.callbacks.refused = word_refusal;
    open_server();
    unsigned passed = 0;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c = connect_client();
        send_text(&c, cases[i].text);
        struct reply r = next_reply(&c);
        assert_int_equal(r.status, cases[i].status);
        assert_string_equal(r.body, "worded");
        assert_non_null(strstr(r.head, "X-Worded: yes\r\n"));
        assert_non_null(strstr(r.head, "Connection: close\r\n"));
        assert_int_equal(refusal.calls, i + 1);
        assert_int_equal(refusal.status, cases[i].status);
        assert_true(strlen(refusal.problem) > 10);
        assert_string_equal(refusal.path, cases[i].path);
        assert_string_equal(refusal.origin, cases[i].origin);
        assert_int_equal(refusal.passed, passed += cases[i].passed);
        assert_int_equal(world.gone, passed); /* what early() was told of is told to be over */
        UNTIL(receive(&c) && c.closed);
        leave(&c);
    }
    UNTIL(http_server_connections(world.server) == 0);
    assert_int_equal(http_server_open_requests(world.server), 0);
    assert_int_equal(world.requests, 0);
}

static void slow_head_and_slow_body_are_worded_by_the_caller(void **state)
{
    (void)state;
    memset(&refusal, 0, sizeof refusal);
    world.config.limits.head_ms = world.config.limits.body_ms = 20;
    world.config.callbacks.refused = word_refusal;
    open_server();
    static const char *const beginnings[] = {"GET / HTTP/1.1\r\n",
                                             HEAD_OF("POST", "/echo") "Content-Length: 5\r\n\r\nab"};
    for (unsigned i = 0; i < 2; i++) {
        struct client c = connect_client();
        send_text(&c, beginnings[i]);
        expect_reply(&c, 408, "worded");
        assert_int_equal(refusal.passed, i);
        assert_int_equal(world.gone, i);
        leave(&c);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        HTTP_TEST(connection_is_kept_for_the_next_request),
        HTTP_TEST(request_may_come_byte_by_byte),
        HTTP_TEST(pipelined_requests_are_served_one_at_a_time_and_in_order),
        HTTP_TEST(pipelined_requests_beyond_the_read_ahead_are_all_served),
        HTTP_TEST(each_hostile_request_gets_its_status_and_an_error_object),
        HTTP_TEST(what_http_forbids_is_worded_by_the_caller),
        HTTP_TEST(slow_head_and_slow_body_are_worded_by_the_caller),
        HTTP_TEST(chunks_are_counted_against_the_body_limit),
        HTTP_TEST(all_bodies_together_have_a_bound),
        HTTP_TEST(continue_is_sent_only_after_the_early_check_agreed),
        HTTP_TEST(client_that_sends_all_of_a_refused_body_can_still_read_why),
        HTTP_TEST(refused_upload_is_not_read_without_end),
        HTTP_TEST(slow_head_and_slow_body_end_at_their_deadlines),
        HTTP_TEST(idle_connection_is_closed_without_a_word),
        HTTP_TEST(reset_by_the_client_is_told_at_once),
        HTTP_TEST(closed_socket_is_told_from_a_half_closed_one),
        HTTP_TEST(half_closed_client_gets_its_answer_unchanged),
        HTTP_TEST(half_closed_client_gets_all_pipelined_answers),
        HTTP_TEST(reset_is_seen_behind_a_full_read_ahead),
        HTTP_TEST(client_that_leaves_amid_its_body_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
