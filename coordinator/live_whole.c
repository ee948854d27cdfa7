/*
 * Whole answers: written at once when they are short, by a helper thread (answer_job.h) when they are long. A request
 * that is read by such jobs is not freed: live_request_free leaves that to the last of them. A client that leaves, or
 * gives way to another, takes its connection out of the job; what the job has written is dropped then.
 */
#include <stdlib.h>

#include "coordinator/answer_job.h"
#include "coordinator/live_request_internal.h"
#include "coordinator/reply.h"

enum { SHORT_BYTES = 16 * 1024 }; /* a millisecond at most */

struct live_whole {
    struct answer_job job; /* first: the job is this */
    struct live_request *request;
    struct http_request *http; /* NULL: nobody waits for it any more */
    struct live_whole *next;   /* of request->wholes */
};

static void unlink_whole(struct live_whole *w)
{
    struct live_whole **at = &w->request->wholes;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
}

/* `http` has its answer; if the request waited for that, it is over, and r may be gone. */
static void answered(struct live_request *r, const struct http_request *http)
{
    if (r->http == http)
        live_request_end(r, "done");
}

static void on_written(struct job *job)
{
    struct live_whole *w = (struct live_whole *)job;
    struct live_request *r = w->request;
    struct server *s = r->server;
    if (w->http && w->job.ran)
        reply_json(s, w->http, 200, &w->job.text, r->id);
    else if (w->http)
        reply_refusal(s, w->http, 503, "the server is shutting down");
    if (w->http)
        answered(r, w->http);
    unlink_whole(w); /* not before: r stays until here */
    answer_job_fini(&w->job);
    free(w);
    if (r->forgotten && !r->wholes)
        live_request_free(r);
    event_active(s->flush, EV_READ, 0); /* a server that drains may be idle now */
}

/* False: no memory. */
static bool hand_over(struct live_request *r, struct http_request *http, const struct api_answer *answer)
{
    struct live_whole *w = calloc(1, sizeof *w);
    if (!w || !answer_job_init(&w->job, answer, on_written)) {
        free(w);
        return false;
    }
    w->request = r;
    w->http = http;
    w->next = r->wholes;
    r->wholes = w;
    http->user = r;
    job_pool_submit(r->server->jobs, &w->job.job);
    return true;
}

void live_whole_send(struct live_request *r, struct http_request *http)
{
    struct server *s = r->server;
    struct api_answer answer = live_request_answer(r);
    for (const struct live_whole *w = r->wholes; w; w = w->next)
        if (w->http == http)
            return; /* under way */
    if (api_answer_estimate(&answer) > SHORT_BYTES && hand_over(r, http, &answer))
        return;
    text_clear(&s->scratch);
    api_answer_write(&s->scratch, &answer);
    reply_json(s, http, 200, &s->scratch, r->id);
    answered(r, http);
}

void live_whole_gone(struct live_request *r, const struct http_request *http)
{
    for (struct live_whole *w = r->wholes; w; w = w->next)
        if (w->http == http)
            w->http = NULL;
}
