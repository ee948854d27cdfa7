/* test_http_head: every form of a request's head that is taken or refused, however its bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "coordinator/http_head.h"

static const struct http_head_limits limits = {.head_bytes = 16384, .uri_bytes = 4096, .fields = 100};

#define GET "GET /health HTTP/1.1\r\nHost: a\r\n"
#define POST "POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
#define CASE(text, status)             \
    {                                  \
        text, sizeof(text) - 1, status \
    }

/* status 0: accepted */
static const struct {
    const char *text;
    size_t length;
    int status;
} cases[] = {
    CASE(GET "\r\n", 0),
    CASE("\r\n" GET "\r\n", 0),
    CASE("\r\n\r\n" GET "\r\n", 400),
    CASE("GET / HTTP/1.0\r\n\r\n", 0),
    CASE("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    CASE("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    CASE("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    CASE("GET HTTP://A/x HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    CASE(GET "X-Empty:\r\nX-Text: \xc3\xa9 and\ttab \r\n\r\n", 0),
    CASE(GET "Host-Like: b\r\nAccept: a\r\nAccept: b\r\n\r\n", 0),
    CASE(POST "Content-Length: 9223372036854775807\r\n\r\n", 0),
    CASE(POST "Transfer-Encoding: Chunked\r\n\r\n", 0),
    CASE(POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n", 0),
    CASE("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 0),
    CASE("GET / HTTP/1.1\r\nHost: 127.0.0.1:\r\n\r\n", 0),
    /* request line */
    CASE("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    CASE(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET /\r\nHost: a\r\n\r\n", 400),
    CASE("GET\r\n", 400),
    CASE("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 400),
    CASE("GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET nopath HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", 421),
    CASE("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 421),
    CASE("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421),
    CASE("GET http:/// HTTP/1.0\r\n\r\n", 0),
    CASE("GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
    CASE("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    CASE("PRI * HTTP/2.0\r\n\r\n", 505),
    CASE("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    CASE("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    CASE("GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
    CASE("\x16\x03\x01\x02\x00\x01\x00", 400),
    /* lines and characters */
    CASE("GET / HTTP/1.1\nHost: a\n\n", 400),
    CASE(GET "X: a\n\r\n", 400),
    CASE(GET "X: a\rb\r\n\r\n", 400),
    CASE(GET "X: 1\r\n 2\r\n\r\n", 400),
    CASE(GET "X: 1\r\n\t2\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    CASE(GET "X: a\0b\r\n\r\n", 400),
    CASE(GET "X\0Y: b\r\n\r\n", 400),
    CASE(GET "X: a\x01\r\n\r\n", 400),
    CASE(GET "X: a\x7f\r\n\r\n", 400),
    CASE("GET /health HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    CASE(GET "X\xc3: a\r\n\r\n", 400),
    CASE(GET "X Y: a\r\n\r\n", 400),
    CASE(GET ": a\r\n\r\n", 400),
    CASE(GET "no colon\r\n\r\n", 400),
    /* Host */
    CASE("GET / HTTP/1.1\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    CASE(GET "Host: a\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    CASE("GET / HTTP/1.1\r\nHost: []\r\n\r\n", 400),
    /* lengths and codings */
    CASE(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    CASE(POST "Content-Length: 5\r\ncontent-length: 5\r\n\r\n", 400),
    CASE(POST "Content-Length: 5, 5\r\n\r\n", 400),
    CASE(POST "Content-Length: +5\r\n\r\n", 400),
    CASE(POST "Content-Length: -1\r\n\r\n", 400),
    CASE(POST "Content-Length: 0x5\r\n\r\n", 400),
    CASE(POST "Content-Length: 5 5\r\n\r\n", 400),
    CASE(POST "Content-Length:\r\n\r\n", 400),
    CASE(POST "Content-Length: 9223372036854775808\r\n\r\n", 400),
    CASE(POST "Content-Length: 99999999999999999999\r\n\r\n", 400),
    CASE(POST "Content-Length: 18446744073709551617\r\n\r\n", 400),
    CASE(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    CASE(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    CASE(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    CASE(POST "Transfer-Encoding: xchunked\r\n\r\n", 501),
    CASE(POST "Transfer-Encoding: chunked, chunked\r\n\r\n", 501),
    CASE(POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    CASE(POST "Transfer-Encoding: identity\r\n\r\n", 501),
    CASE(POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 501),
    CASE(POST "Transfer-Encoding:\r\n\r\n", 501),
    CASE("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    CASE(POST "Expect: 200-ok\r\n\r\n", 417),
    CASE("POST / HTTP/1.0\r\nExpect: 200-ok\r\n\r\n", 0),
    CASE(GET "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    CASE(GET "X-Api-Key: a\r\nX-Api-Key: a\r\n\r\n", 400),
};

/* Feeds in pieces of `step` bytes; the caller frees h. */
static enum http_progress feed(struct http_head *h, const char *text, size_t length, size_t step, size_t *total)
{
    enum http_progress progress = HTTP_MORE;
    http_head_init(h, &limits);
    *total = 0;
    while (*total < length && progress == HTTP_MORE) {
        size_t piece = length - *total < step ? length - *total : step, taken;
        progress = http_head_feed(h, text + *total, piece, &taken);
        assert_true(taken == piece || progress != HTTP_MORE);
        *total += taken;
    }
    return progress;
}

static void each_form_gets_its_status(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_head h;
        size_t total;
        enum http_progress progress = feed(&h, cases[i].text, cases[i].length, SIZE_MAX, &total);
        int status = progress == HTTP_DONE ? 0 : progress == HTTP_REFUSED ? h.status : -1;
        if (status != cases[i].status)
            fail_msg("case %zu: %d, expected %d: %s", i, status, cases[i].status, cases[i].text);
        if (status)
            assert_non_null(h.problem);
        http_head_fini(&h);
    }
}

static void bytes_one_by_one_give_the_same_as_all_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t step = 1; step < 8; step++) {
            struct http_head whole, cut;
            size_t whole_bytes, cut_bytes;
            enum http_progress a = feed(&whole, cases[i].text, cases[i].length, SIZE_MAX, &whole_bytes);
            enum http_progress b = feed(&cut, cases[i].text, cases[i].length, step, &cut_bytes);
            assert_int_equal(a, b);
            assert_int_equal(whole_bytes, cut_bytes);
            if (a == HTTP_REFUSED) {
                assert_int_equal(whole.status, cut.status);
                assert_string_equal(whole.problem, cut.problem);
            } else {
                assert_string_equal(whole.path, cut.path);
                assert_string_equal(whole.query, cut.query);
                assert_int_equal(whole.field_count, cut.field_count);
                assert_int_equal(whole.content_length, cut.content_length);
                assert_int_equal(whole.chunked, cut.chunked);
            }
            http_head_fini(&whole);
            http_head_fini(&cut);
        }
    }
}

static void good_head_is_taken_apart(void **state)
{
    (void)state;
    static const char text[] = "POST /v1/chat?a=b?c HTTP/1.1\r\nHOST: Example.org:80\r\nX-Mixed-Case: \t v 1 \t\r\n"
                               "Content-Length: 0042\r\nExpect: 100-continue\r\n\r\nBODY";
    struct http_head h;
    size_t total;
    assert_int_equal(feed(&h, text, sizeof text - 1, SIZE_MAX, &total), HTTP_DONE);
    assert_int_equal(total, sizeof text - 1 - 4);
    assert_int_equal(h.method, HTTP_POST);
    assert_string_equal(h.path, "/v1/chat");
    assert_string_equal(h.query, "a=b?c");
    assert_string_equal(http_head_field(&h, "host"), "Example.org:80");
    assert_string_equal(http_head_field(&h, "x-mixed-case"), "v 1");
    assert_null(http_head_field(&h, "x-absent"));
    assert_int_equal(h.content_length, 42);
    assert_true(h.expect_continue);
    assert_true(h.keep_alive);
    assert_false(h.chunked);
    http_head_fini(&h);
}

static void absolute_target_gives_its_path(void **state)
{
    (void)state;
    static const struct {
        const char *text, *path, *query;
    } targets[] = {
        {"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "/x", "y"},
        {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "/", ""},
        {"GET http://a?y HTTP/1.1\r\nHost: a\r\n\r\n", "/", "y"},
        {"GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "/", ""},
        {"GET //a/../%2e HTTP/1.1\r\nHost: a\r\n\r\n", "//a/../%2e", ""},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        struct http_head h;
        size_t total;
        assert_int_equal(feed(&h, targets[i].text, strlen(targets[i].text), SIZE_MAX, &total), HTTP_DONE);
        assert_string_equal(h.path, targets[i].path);
        assert_string_equal(h.query, targets[i].query);
        http_head_fini(&h);
    }
}

static void connection_field_decides_keep_alive(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep_alive;
    } heads[] = {
        {GET "\r\n", true},
        {GET "Connection: close\r\n\r\n", false},
        {GET "Connection: x, CLOSE ,y\r\n\r\n", false},
        {GET "Connection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {GET "Connection: closed\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct http_head h;
        size_t total;
        assert_int_equal(feed(&h, heads[i].text, strlen(heads[i].text), SIZE_MAX, &total), HTTP_DONE);
        assert_int_equal(h.keep_alive, heads[i].keep_alive);
        http_head_fini(&h);
    }
}

/* A GET whose target has `uri` bytes, with `fields` fields of 2 + 2 + `value` + 2 bytes beside Host. */
static int status_of_size(size_t uri, size_t fields, size_t value)
{
    static char text[1 << 20];
    struct http_head h;
    size_t total;
    char *p = text;
    p += sprintf(p, "GET /");
    memset(p, 'a', uri - 1);
    p += uri - 1;
    p += sprintf(p, " HTTP/1.1\r\nHost: a\r\n");
    for (size_t i = 0; i < fields; i++) {
        p += sprintf(p, "X: ");
        memset(p, 'v', value);
        p += value;
        p += sprintf(p, "\r\n");
    }
    p += sprintf(p, "\r\n");
    int status = feed(&h, text, (size_t)(p - text), SIZE_MAX, &total) == HTTP_DONE ? 0 : h.status;
    http_head_fini(&h);
    return status;
}

static void each_limit_holds_on_both_sides(void **state)
{
    (void)state;
    assert_int_equal(status_of_size(4096, 0, 0), 0);
    assert_int_equal(status_of_size(4097, 0, 0), 414);
    assert_int_equal(status_of_size(100000, 0, 0), 414);
    assert_int_equal(status_of_size(1, 99, 1), 0);
    assert_int_equal(status_of_size(1, 100, 1), 431);
    size_t rest = strlen("GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n");
    assert_int_equal(status_of_size(1, 1, 16384 - rest), 0);
    assert_int_equal(status_of_size(1, 1, 16384 - rest + 1), 431);
    assert_int_equal(status_of_size(1, 1, 200000), 431);
}

/* Run under AddressSanitizer by `make asan`; here at least nothing crashes and every end is one of the three. */
static void random_changes_are_refused_or_taken(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (unsigned round = 0; round < 100000; round++) {
        size_t which = (size_t)rand_r(&seed) % (sizeof cases / sizeof cases[0]);
        char text[512];
        size_t length = cases[which].length;
        memcpy(text, cases[which].text, length);
        for (int changes = rand_r(&seed) % 4; changes >= 0; changes--) {
            static const char spice[] = "\r\n\0 \t:,/*?\x7f\xff"
                                        "0aZ";
            size_t at = (size_t)rand_r(&seed) % length;
            if (rand_r(&seed) % 3 == 0)
                memmove(text + at, text + at + 1, --length - at);
            else
                text[at] = spice[(size_t)rand_r(&seed) % (sizeof spice - 1)];
        }
        struct http_head h;
        size_t total;
        enum http_progress progress = feed(&h, text, length, 1 + (size_t)rand_r(&seed) % 64, &total);
        if (progress == HTTP_REFUSED)
            assert_in_range(h.status, 400, 505);
        if (progress == HTTP_DONE)
            assert_true(h.path[0] == '/' || strcmp(h.path, "*") == 0);
        http_head_fini(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_gets_its_status),
        cmocka_unit_test(bytes_one_by_one_give_the_same_as_all_at_once),
        cmocka_unit_test(good_head_is_taken_apart),
        cmocka_unit_test(absolute_target_gives_its_path),
        cmocka_unit_test(connection_field_decides_keep_alive),
        cmocka_unit_test(each_limit_holds_on_both_sides),
        cmocka_unit_test(random_changes_are_refused_or_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
