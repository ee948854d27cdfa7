#include "coordinator/reply.h"

#include <string.h>

#include "base/log.h"

enum { EXTRA_MOST = 8 };

/* What is said when there is no memory to say more. */
static const char no_memory[] = "{\"error\":{\"message\":\"the server has no memory left; try again later\","
                                "\"type\":\"server_error\",\"param\":null,\"code\":null}}";

struct extra {
    struct http_header at[EXTRA_MOST];
    size_t count;
};

static void add(struct extra *x, const char *name, const char *value)
{
    x->at[x->count++] = (struct http_header){name, value};
}

/*
 * Who may read the answer, or NULL. A head that was refused before its Origin had come may be anybody's: it gets what the
 * option says, which is no more than any origin could ask for.
 */
static const char *allowed_origin(const struct server *s, const struct http_request *http)
{
    const char *origin = http_request_header(http, "origin"), *allowed = s->options->cors_origin;
    if (!origin && !*http->path && strcmp(allowed, "none") != 0)
        return allowed;
    return origin && (strcmp(allowed, "*") == 0 || strcmp(allowed, origin) == 0) ? origin : NULL;
}

/* Headers of every answer. */
static struct extra common(const struct server *s, const struct http_request *http, const char *id)
{
    struct extra x = {0};
    const char *origin = allowed_origin(s, http);
    if (origin) {
        add(&x, "Access-Control-Allow-Origin", origin);
        add(&x, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
        add(&x, "Vary", "Origin");
    }
    const char *theirs = http_request_header(http, "x-request-id");
    if (theirs || id)
        add(&x, "X-Request-Id", theirs ? theirs : id);
    return x;
}

static void count_status(struct server *s, int status)
{
    s->metrics.http_responses[status < 300   ? METRIC_2XX
                              : status < 400 ? METRIC_3XX
                              : status < 500 ? METRIC_4XX
                                             : METRIC_5XX]++;
}

static void send_reply(struct server *s, struct http_request *http, int status, const char *type, const void *bytes,
                       size_t length, const struct extra *x)
{
    count_status(s, status);
    http_reply(http, status, type, bytes, length, x->at, x->count);
}

void reply_bytes(struct server *s, struct http_request *http, int status, const char *type, const void *bytes,
                 size_t length)
{
    struct extra x = common(s, http, NULL);
    send_reply(s, http, status, type, bytes, length, &x);
}

void reply_text(struct server *s, struct http_request *http, int status, const char *type, const struct text *body,
                const char *id)
{
    if (body->failed) {
        reply_refusal(s, http, 500, "no memory left to write the answer");
        return;
    }
    struct extra x = common(s, http, id);
    send_reply(s, http, status, type, body->at, body->length, &x);
}

void reply_json(struct server *s, struct http_request *http, int status, const struct text *body, const char *id)
{
    reply_text(s, http, status, "application/json", body, id);
}

void reply_error(struct server *s, struct http_request *http, const struct api_error *e, const char *allow)
{
    struct text body = {0};
    struct extra x = common(s, http, NULL);
    if (e->status == 429 || e->status == 503)
        add(&x, "Retry-After", "1");
    if (e->status == 401)
        add(&x, "WWW-Authenticate", "Bearer");
    if (allow)
        add(&x, "Allow", allow);
    log_debug("%s is answered %d: %s", http->peer, e->status, e->message);
    api_error_write(&body, e);
    if (body.failed)
        send_reply(s, http, e->status < 500 ? 500 : e->status, "application/json", no_memory, sizeof no_memory - 1, &x);
    else
        send_reply(s, http, e->status, "application/json", body.at, body.length, &x);
    text_fini(&body);
}

void reply_refusal(struct server *s, struct http_request *http, int status, const char *sentence)
{
    struct api_error e;
    api_refuse(&e, status, NULL, "%s", sentence);
    reply_error(s, http, &e, NULL);
}

void reply_preflight(struct server *s, struct http_request *http)
{
    struct extra x = common(s, http, NULL);
    add(&x, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    add(&x, "Access-Control-Allow-Headers", "*, Authorization"); /* "*" never covers Authorization (Fetch standard) */
    add(&x, "Access-Control-Max-Age", "86400");
    send_reply(s, http, 200, NULL, NULL, 0, &x);
}

void reply_stream_begin(struct server *s, struct http_request *http, const char *id)
{
    struct extra x = common(s, http, id);
    add(&x, "Cache-Control", "no-cache");
    add(&x, "X-Accel-Buffering", "no"); /* proxies hand each event on at once */
    count_status(s, 200);
    http_stream_begin(http, 200, "text/event-stream", x.at, x.count);
}
