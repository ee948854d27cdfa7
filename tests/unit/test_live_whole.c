/*
 * test_live_whole: long answers are a helper's work. The helper is held in these tests, so that what happens meanwhile
 * (others ask, the client leaves or gives way) happens in that order, each time.
 */
#include <semaphore.h>
#include <stdio.h>

#include "coordinator/live_request_internal.h"
#include "tests/support/api_rig.h"
#include "tests/support/http_world.h"

enum { TOKENS = 60 };

static const char id[] = "chatcmpl-00000000000000000000000000000001";
static struct server server;
static struct serve_options options;
static struct live_request *request; /* the one that /answer waits for */

/* Holds the pool's one thread until it is let go. */
static struct gate {
    struct job job; /* first: the job is this */
    sem_t go_on;
} gate;

static void wait_at_gate(struct job *job)
{
    (void)job;
    sem_wait(&gate.go_on);
}

static void nothing(struct job *job)
{
    (void)job;
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    live_requests_flush(&server);
}

/* /answer: the client the answer is made for; /pick: another one; all else is answered at once. */
static void on_asked(struct http_request *http, void *arg)
{
    (void)arg;
    if (strcmp(http->path, "/answer") == 0) {
        request->http = http;
        http->user = request;
        live_request_mark_dirty(request);
    } else if (strcmp(http->path, "/pick") == 0) {
        live_request_pick_up(&server, http, API_CHAT, id, 0);
    } else {
        http_reply(http, 204, NULL, NULL, 0, NULL, 0);
    }
}

static void on_left(struct http_request *http, void *arg)
{
    (void)arg;
    world.gone++;
    live_request_gone(&server, http);
}

static void on_drained(struct http_request *http, void *arg)
{
    (void)arg;
    live_request_drained(&server, http);
}

static void finish_choice(uint32_t i)
{
    struct live_choice *c = &request->live[i];
    for (uint32_t t = 0; t < TOKENS; t++) {
        c->tokens[t] = 1000 + 17 * t;
        if (c->scores) {
            c->scores[t] = (struct position_scores){.logprob = -0.1f, .top_count = request->request->top_logprobs};
            for (uint32_t k = 0; k < c->scores[t].top_count; k++)
                c->scores[t].top[k] = (struct result_top){1000 + t + k, -0.37f * (float)k};
        }
        answer_text_push(&c->answer, c->tokens[t]);
    }
    answer_text_finish(&c->answer);
    request->choices[i].finished = true;
    request->choices[i].reason = FINISH_LENGTH;
    request->unfinished--;
}

/* A server around the HTTP of http_world, and one request in it whose answer is whole. */
static void open_world(void **state, uint32_t resume_ttl, const char *logprobs)
{
    struct api_rig *rig = api_rig_of(state);
    struct why why;
    char body[256];
    http_set_up(NULL);
    world.config.callbacks = (struct http_callbacks){.request = on_asked, .gone = on_left, .drained = on_drained};
    open_server();
    options = (struct serve_options){.resume_ttl = resume_ttl, .cors_origin = "*"};
    server = (struct server){.options = &options, .loop = world.base, .phase = SERVER_READY};
    server.inference.checkpoint.api = rig->context;
    server.flush = event_new(world.base, -1, EV_PERSIST, on_flush, NULL);
    server.inference.turn = event_new(world.base, -1, EV_PERSIST, on_flush, NULL);
    assert_int_equal(job_pool_open(&server.jobs, world.base, 1, &why), OK);
    gate.job = (struct job){.run = wait_at_gate, .done = nothing};
    sem_init(&gate.go_on, 0, 0);
    job_pool_submit(server.jobs, &gate.job);

    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"n\":2,\"max_tokens\":%d%s}",
             TOKENS, logprobs);
    request = calloc(1, sizeof *request);
    request->server = &server;
    request->kind = API_CHAT;
    request->request = api_rig_parse(rig, API_CHAT, body);
    snprintf(request->id, sizeof request->id, "%s", id);
    assert_true(live_request_make_choices(request));
    live_request_link(&server, request);
    for (uint32_t i = 0; i < request->count; i++)
        finish_choice(i);
}

static void close_world(void)
{
    http_server_close(world.server);
    world.server = NULL;
    sem_post(&gate.go_on); /* if nobody did */
    job_pool_close(server.jobs);
    live_requests_close(&server);
    event_free(server.flush);
    event_free(server.inference.turn);
    text_fini(&server.scratch);
    sem_destroy(&gate.go_on);
    http_tear_down(NULL);
}

static struct text whole_answer(void)
{
    struct text out = {0};
    struct api_answer answer = live_request_answer(request);
    api_answer_write(&out, &answer);
    assert_false(out.failed);
    return out;
}

static void expect_body(struct client *c, const struct text *body)
{
    UNTIL(receive(c) && strstr(c->got, "\r\n\r\n"));
    size_t head = (size_t)(strstr(c->got, "\r\n\r\n") + 4 - c->got);
    UNTIL(receive(c) && c->got_bytes >= head + body->length);
    assert_int_equal(c->got_bytes, head + body->length);
    assert_memory_equal(c->got + head, body->at, body->length);
}

static const char many[] = ",\"logprobs\":true,\"top_logprobs\":20", none[] = "";
static const char pick_stream[] = HEAD_OF("GET", "/pick") "Accept: text/event-stream\r\n\r\n";

static void long_answer_is_written_while_others_are_answered(void **state)
{
    open_world(state, 60, many);
    struct text want = whole_answer();
    struct client c = connect_client(), other = connect_client();
    send_text(&c, GET("/answer"));
    UNTIL(request->wholes);
    for (int i = 0; i < 3; i++) {
        send_text(&other, GET("/health"));
        expect_reply(&other, 204, "");
    }
    assert_true(receive(&c) && c.got_bytes == 0);
    assert_int_equal(server.metrics.http_responses[METRIC_2XX], 0);
    sem_post(&gate.go_on);
    expect_body(&c, &want);
    assert_ptr_equal(server.kept, request); /* it is over */
    assert_null(request->wholes);
    text_fini(&want);
    leave(&c);
    leave(&other);
    close_world();
}

static void short_answer_wants_no_helper(void **state)
{
    open_world(state, 60, none);
    struct text want = whole_answer();
    struct client c = connect_client();
    send_text(&c, GET("/answer"));
    expect_body(&c, &want);
    assert_ptr_equal(server.kept, request);
    text_fini(&want);
    leave(&c);
    close_world();
}

static void answer_whose_client_leaves_meanwhile_is_kept(void **state)
{
    open_world(state, 60, many);
    struct text want = whole_answer();
    struct client c = connect_client();
    send_text(&c, GET("/answer"));
    UNTIL(request->wholes);
    leave(&c);
    UNTIL(world.gone == 1);
    assert_ptr_equal(server.kept, request);
    struct client again = connect_client();
    send_text(&again, GET("/pick"));
    UNTIL(job_pool_pending(server.jobs) == 3);
    sem_post(&gate.go_on);
    expect_body(&again, &want);
    UNTIL(!request->wholes);
    assert_ptr_equal(server.kept, request);
    text_fini(&want);
    leave(&again);
    close_world();
}

static void answer_that_nobody_may_pick_up_is_freed_behind_its_helper(void **state)
{
    open_world(state, 0, many);
    struct client c = connect_client();
    send_text(&c, GET("/answer"));
    UNTIL(request->wholes);
    leave(&c);
    UNTIL(world.gone == 1);
    assert_null(server.requests);
    assert_true(request->forgotten); /* and still there: the helper reads it */
    sem_post(&gate.go_on);
    UNTIL(job_pool_pending(server.jobs) == 0);
    close_world();
}

static void client_that_gives_way_meanwhile_is_told_so(void **state)
{
    open_world(state, 60, many);
    struct client c = connect_client(), streaming = connect_client();
    send_text(&c, GET("/answer"));
    UNTIL(request->wholes);
    send_text(&streaming, pick_stream);
    assert_int_equal(next_reply(&c).status, 409);
    UNTIL(receive(&streaming) && strstr(streaming.got, "data: [DONE]")); /* it waits for no helper */
    assert_ptr_equal(server.kept, request);
    sem_post(&gate.go_on);
    UNTIL(job_pool_pending(server.jobs) == 0);
    assert_true(receive(&c) && c.got_bytes == 0);
    leave(&c);
    leave(&streaming);
    close_world();
}

static void server_that_stops_meanwhile_gives_all_back(void **state)
{
    open_world(state, 60, many);
    struct client c = connect_client(), other = connect_client();
    send_text(&c, GET("/answer"));
    UNTIL(request->wholes);
    send_text(&other, GET("/pick"));
    UNTIL(job_pool_pending(server.jobs) == 3);
    close_world();
    leave(&c);
    leave(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_answer_is_written_while_others_are_answered),
        cmocka_unit_test(short_answer_wants_no_helper),
        cmocka_unit_test(answer_whose_client_leaves_meanwhile_is_kept),
        cmocka_unit_test(answer_that_nobody_may_pick_up_is_freed_behind_its_helper),
        cmocka_unit_test(client_that_gives_way_meanwhile_is_told_so),
        cmocka_unit_test(server_that_stops_meanwhile_gives_all_back),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
