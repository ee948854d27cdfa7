/* test_http_reply: whole answers and streams, and clients that do not take them. */
#include <string.h>

#include "tests/support/http_world.h"

static void connection_close_and_http_1_0_end_the_connection(void **state)
{
    (void)state;
    static const char *const texts[] = {HEAD_OF("GET", "/peer") "Connection: close\r\n\r\n",
                                        "GET /peer HTTP/1.0\r\n\r\n"};
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

static void write_a_comment(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    http_stream_write(world.held, ": still here\n\n", 14);
}

/* As when all streams that wait are told so in the turn in which their deadlines are looked at. */
static void reader_who_took_all_is_kept_although_something_new_waits_at_its_deadline(void **state)
{
    (void)state;
    world.config.limits.stall_ms = 40;
    open_server();
    struct client c = held_client("/stream", 0);
    UNTIL(receive(&c) && strstr(c.got, "\r\n\r\n"));
    struct event *writer = evtimer_new(world.base, write_a_comment, NULL);
    evtimer_add(writer, &(struct timeval){.tv_usec = 1000});
    for (uint64_t until = now_us() + 60000; now_us() < until;)
        continue; /* both are due now, the comment first */
    UNTIL(receive(&c) && strstr(c.got, "still here"));
    assert_false(c.closed);
    assert_int_equal(world.gone, 0);
    event_free(writer);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        HTTP_TEST(connection_close_and_http_1_0_end_the_connection),
        HTTP_TEST(head_is_answered_without_a_body),
        HTTP_TEST(header_that_would_split_an_answer_is_left_out),
        HTTP_TEST(stream_is_chunked_and_keeps_the_connection),
        HTTP_TEST(stream_to_http_1_0_ends_with_the_connection),
        HTTP_TEST(slow_reader_is_waited_for_and_told_of_when_it_has_drained),
        HTTP_TEST(stalled_reader_is_dropped),
        HTTP_TEST(reader_who_took_all_is_kept_although_something_new_waits_at_its_deadline),
        HTTP_TEST(stalled_reader_of_a_whole_reply_is_dropped),
        HTTP_TEST(stream_beyond_its_hard_limit_is_dropped_in_a_later_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
