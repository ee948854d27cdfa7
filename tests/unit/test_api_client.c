/* api_client: what a server may send, whole, in single bytes, broken off and damaged, against a canned server. */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/api_client.h"

/* ---- a server that says one thing to one client ---- */

struct canned {
    pthread_t thread;
    int listener, held; /* held: with hold, the connection that stays open */
    const char *reply;
    size_t length, piece; /* bytes a write */
    bool hold;
    char request[4096]; /* what the client sent, terminated */
};

static void read_request(struct canned *s, int fd)
{
    size_t length = 0;
    ssize_t n;
    do {
        n = recv(fd, s->request + length, sizeof s->request - 1 - length, 0);
        length += n > 0 ? (size_t)n : 0;
        s->request[length] = 0;
    } while (n > 0 && !strstr(s->request, "\r\n\r\n"));
    const char *body = strstr(s->request, "\r\n\r\n"), *field = strstr(s->request, "Content-Length: ");
    size_t wanted = body && field ? (size_t)(body + 4 - s->request) + strtoul(field + 16, NULL, 10) : 0;
    while (length < wanted && (n = recv(fd, s->request + length, sizeof s->request - 1 - length, 0)) > 0)
        length += (size_t)n;
    s->request[length] = 0;
}

static void *serve_once(void *arg)
{
    struct canned *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    read_request(s, fd);
    for (size_t at = 0; at < s->length; at += s->piece) {
        size_t left = s->length - at;
        if (send(fd, s->reply + at, left < s->piece ? left : s->piece, MSG_NOSIGNAL) < 0)
            break;
    }
    if (s->hold)
        s->held = fd;
    else
        close(fd);
    return NULL;
}

static struct api_client open_canned(struct canned *s, const char *reply, size_t length, size_t piece)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *s = (struct canned){.reply = reply, .length = length, .piece = piece, .held = -1};
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(s->listener, 1), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &size), 0);
    char url[64];
    struct api_client client;
    snprintf(url, sizeof url, "http://127.0.0.1:%u/some/where/v1/", ntohs(address.sin_port));
    assert_int_equal(api_client_init(&client, url, "a-key", NULL), OK);
    return client;
}

static void start_canned(struct canned *s)
{
    assert_int_equal(pthread_create(&s->thread, NULL, serve_once, s), 0);
}

static void close_canned(struct canned *s)
{
    pthread_join(s->thread, NULL);
    close(s->listener);
    if (s->held >= 0)
        close(s->held);
}

/* ---- asking it ---- */

struct heard {
    char words[256];
    unsigned events, enough; /* enough: the event that is to be the last, 0: none */
};

static bool on_event(void *owner, const json_t *event)
{
    struct heard *h = owner;
    const char *word = json_string_value(json_object_get(event, "word"));
    size_t used = strlen(h->words);
    snprintf(h->words + used, sizeof h->words - used, "%s", word ? word : "?");
    return ++h->events != h->enough;
}

static enum err stream_bytes(const char *reply, size_t length, size_t piece, struct heard *heard, struct why *why)
{
    struct canned s;
    struct api_client client = open_canned(&s, reply, length, piece);
    json_t *request = json_pack("{s:b}", "stream", 1);
    start_canned(&s);
    enum err e = api_client_stream(&client, "/v1/completions", request, on_event, heard, why);
    close_canned(&s);
    json_decref(request);
    return e;
}

static enum err stream(const char *reply, size_t piece, struct heard *heard, struct why *why)
{
    *heard = (struct heard){.enough = heard->enough};
    return stream_bytes(reply, strlen(reply), piece, heard, why);
}

static enum err get(const char *reply, int *status, json_t **body, struct why *why)
{
    struct canned s;
    struct api_client client = open_canned(&s, reply, strlen(reply), strlen(reply));
    start_canned(&s);
    enum err e = api_client_get(&client, "/v1/models", status, body, why);
    close_canned(&s);
    return e;
}

#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

static const char chunked_stream[] = STREAM_HEAD "Transfer-Encoding: chunked\r\n\r\n"
                                                 "e\r\n: still here\n\n\r\n"
                                                 "1c\r\nid: 0\ndata: {\"word\":\"one \"}\n\r\n"
                                                 "1\r\n\n\r\n"
                                                 "20\r\ndata:{\"word\":\r\ndata: \"t\303\274r\"}\r\n\r\n\r\n"
                                                 "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

/* ---- tests ---- */

static void events_come_out_whole_however_they_are_cut(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 12; piece++) {
        struct heard heard = {0};
        assert_int_equal(stream(chunked_stream, piece, &heard, NULL), OK);
        assert_string_equal(heard.words, "one t\303\274r");
        assert_int_equal(heard.events, 2);
    }
}

static void a_stream_without_length_ends_with_done(void **state)
{
    (void)state;
    struct heard heard = {0};
    assert_int_equal(stream(STREAM_HEAD "\r\ndata: {\"word\":\"x\"}\n\ndata: [DONE]\n\n", 7, &heard, NULL), OK);
    assert_string_equal(heard.words, "x");
}

static void a_stream_that_breaks_off_is_no_whole_answer(void **state)
{
    (void)state;
    struct heard heard = {0};
    assert_int_equal(stream(STREAM_HEAD "\r\ndata: {\"word\":\"x\"}\n\n", 7, &heard, NULL), ERR_IO);
    assert_int_equal(heard.events, 1);
    size_t whole = sizeof chunked_stream - 1, done = whole - strlen("\r\n0\r\n\r\n");
    for (size_t length = 0; length < done; length++) {
        heard = (struct heard){0};
        assert_int_not_equal(stream_bytes(chunked_stream, length, length + 1, &heard, NULL), OK);
    }
}

static void the_listener_ends_a_stream_early(void **state)
{
    (void)state;
    struct heard heard = {.enough = 1};
    assert_int_equal(stream(chunked_stream, 100, &heard, NULL), OK);
    assert_int_equal(heard.events, 1);
}

static void a_refusal_is_told_in_the_servers_words(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct why why;
    assert_int_equal(
        stream("HTTP/1.1 400 Bad Request\r\nContent-Length: 38\r\n\r\n{\"error\":{\"message\":\"too many words\"}}", 9,
               &heard, &why),
        ERR_INVALID);
    assert_string_equal(why.text, "too many words");
    assert_int_equal(stream("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops", 9, &heard, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "502"));
}

static void an_error_within_a_stream_is_told(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct why why;
    assert_int_equal(stream(STREAM_HEAD "\r\ndata: {\"word\":\"x\"}\n\ndata: {\"error\":{\"message\":\"gone\"}}\n\n", 9,
                            &heard, &why),
                     ERR_IO);
    assert_string_equal(why.text, "gone");
    assert_int_equal(heard.events, 1);
}

static void what_is_no_http_or_no_json_is_refused(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "220 mail.example.org ESMTP\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        STREAM_HEAD "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        STREAM_HEAD "\r\ndata: {\"word\":\n\n",
    };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        struct heard heard = {0};
        assert_int_equal(stream(replies[i], 50, &heard, NULL), ERR_FORMAT);
    }
}

static void damaged_replies_end_in_an_answer_or_an_error(void **state)
{
    (void)state;
    const char *given = getenv("QUIRE_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (unsigned run = 0; run < 200; run++) {
        char reply[sizeof chunked_stream];
        memcpy(reply, chunked_stream, sizeof reply);
        for (unsigned change = 0; change <= run % 4; change++)
            reply[(unsigned)rand_r(&seed) % (sizeof reply - 1)] = (char)rand_r(&seed);
        struct heard heard = {0};
        stream_bytes(reply, sizeof reply - 1, 64, &heard, NULL);
        assert_in_range(heard.events, 0, 3);
    }
}

static void get_gives_status_and_json(void **state)
{
    (void)state;
    int status;
    json_t *body;
    assert_int_equal(
        get("HTTP/1.1 404 Not Found\r\ncontent-length:  8 \r\n\r\n{\"a\": 5}and more", &status, &body, NULL), OK);
    assert_int_equal(status, 404);
    assert_int_equal(json_integer_value(json_object_get(body, "a")), 5);
    json_decref(body);
    assert_int_equal(get("HTTP/1.0 200 OK\r\n\r\n[1, 2]", &status, &body, NULL), OK);
    assert_int_equal(json_array_size(body), 2);
    json_decref(body);
    assert_int_equal(get("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", &status, &body, NULL), OK);
    assert_null(body);
    assert_int_equal(get("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1, 2]", &status, &body, NULL), ERR_IO);
}

static void the_request_carries_key_prefix_and_length(void **state)
{
    (void)state;
    struct canned s;
    struct heard heard = {0};
    struct api_client client = open_canned(&s, chunked_stream, sizeof chunked_stream - 1, 1000);
    json_t *request = json_pack("{s:s}", "prompt", "h\303\274");
    start_canned(&s);
    assert_int_equal(api_client_stream(&client, "/v1/completions", request, on_event, &heard, NULL), OK);
    close_canned(&s);
    json_decref(request);
    assert_ptr_equal(strstr(s.request, "POST /some/where/v1/completions HTTP/1.1\r\nHost: 127.0.0.1:"), s.request);
    assert_non_null(strstr(s.request, "\r\nAuthorization: Bearer a-key\r\n"));
    assert_non_null(strstr(s.request, "\r\nContent-Length: 16\r\n"));
    assert_string_equal(strstr(s.request, "\r\n\r\n") + 4, "{\"prompt\":\"h\303\274\"}");
}

static void a_silent_server_can_be_interrupted(void **state)
{
    (void)state;
    int ends[2];
    struct canned s;
    struct heard heard = {0};
    struct api_client client = open_canned(&s, STREAM_HEAD "\r\ndata: ", 60, 60);
    s.length = strlen(s.reply);
    s.hold = true;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "!", 1), 1);
    client.interrupt_fd = ends[0];
    json_t *request = json_object();
    start_canned(&s);
    assert_int_equal(api_client_stream(&client, "/v1/completions", request, on_event, &heard, NULL), ERR_ABORTED);
    json_decref(request);
    shutdown(s.listener, SHUT_RDWR); /* it may wait for a client that has left before it came */
    close_canned(&s);
    close(ends[0]);
    close(ends[1]);
}

static void addresses_are_taken_apart(void **state)
{
    (void)state;
    struct api_client c;
    assert_int_equal(api_client_init(&c, "http://example.org", NULL, NULL), OK);
    assert_string_equal(c.host, "example.org");
    assert_string_equal(c.port, "80");
    assert_string_equal(c.prefix, "");
    assert_int_equal(api_client_init(&c, "http://[::1]:8080/a/v1", NULL, NULL), OK);
    assert_string_equal(c.host, "::1");
    assert_string_equal(c.port, "8080");
    assert_string_equal(c.prefix, "/a");
    assert_int_equal(api_client_init(&c, "https://example.org", NULL, NULL), ERR_UNSUPPORTED);
    static const char *const wrong[] = {"",
                                        "example.org",
                                        "http://",
                                        "http://:80",
                                        "http://a:",
                                        "http://a:b",
                                        "http://a:1234567890",
                                        "http://[::1",
                                        "http://[::1]x",
                                        "http://a b",
                                        "http://a/b c",
                                        "ftp://a"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(api_client_init(&c, wrong[i], NULL, NULL), ERR_INVALID);
    assert_int_equal(api_client_init(&c, "http://a", "key\r\nX: y", NULL), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_out_whole_however_they_are_cut),
        cmocka_unit_test(a_stream_without_length_ends_with_done),
        cmocka_unit_test(a_stream_that_breaks_off_is_no_whole_answer),
        cmocka_unit_test(the_listener_ends_a_stream_early),
        cmocka_unit_test(a_refusal_is_told_in_the_servers_words),
        cmocka_unit_test(an_error_within_a_stream_is_told),
        cmocka_unit_test(what_is_no_http_or_no_json_is_refused),
        cmocka_unit_test(damaged_replies_end_in_an_answer_or_an_error),
        cmocka_unit_test(get_gives_status_and_json),
        cmocka_unit_test(the_request_carries_key_prefix_and_length),
        cmocka_unit_test(a_silent_server_can_be_interrupted),
        cmocka_unit_test(addresses_are_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
