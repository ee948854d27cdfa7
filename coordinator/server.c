#include "coordinator/server.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/live_request.h"
#include "coordinator/routes.h"
#include "coordinator/version.h"

enum {
    HELPER_THREADS = 2,
    DESCRIPTORS_ENOUGH = 1 << 17,
    ADDRESS_BYTES = 256, /* of the address that is printed */
};

/* ---- phases ---- */

static void finish_when_idle(struct server *s)
{
    if (s->phase != SERVER_DRAINING)
        return;
    if (!s->stopping_hard) {
        if (s->requests || job_pool_pending(s->jobs))
            return;
        http_server_stop_accepting(s->http); /* not before: /health is to say that we drain */
        if (http_server_connections(s->http))
            return; /* the ends of answers are still on their way out */
    }
    event_base_loopbreak(s->loop);
}

/* First signal: no new requests, running ones may finish. Second: now. */
static void on_stop_signal(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct server *s = arg;
    if (s->phase == SERVER_DRAINING || s->phase == SERVER_LOADING) {
        s->stopping_hard = true;
    } else {
        log_info("draining: %u requests may finish within %u s", live_requests_count(s), s->options->drain);
        struct timeval wait = {.tv_sec = (time_t)s->options->drain};
        event_add(s->drain_deadline, &wait);
    }
    s->phase = SERVER_DRAINING;
    live_requests_expire(s, now_us());
    finish_when_idle(s);
}

static void on_drain_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct server *s = arg;
    if (live_requests_count(s))
        log_warn("%u requests did not finish in time", live_requests_count(s));
    s->stopping_hard = true;
    finish_when_idle(s);
}

static void note_health(struct server *s)
{
    inference_note_health(&s->inference, live_requests_count(s) > 0);
}

/* http://HOST:PORT/, as one pastes it: an IPv6 address stands in brackets. */
static const char *address(const struct server *s, char out[static ADDRESS_BYTES])
{
    const char *host = s->options->host;
    bool brackets = strchr(host, ':') != NULL;
    snprintf(out, ADDRESS_BYTES, "http://%s%.200s%s:%u/", brackets ? "[" : "", host, brackets ? "]" : "",
             http_server_port(s->http));
    return out;
}

static void on_ready(void *owner)
{
    struct server *s = owner;
    if (s->phase != SERVER_LOADING)
        return;
    s->phase = SERVER_READY;
    char url[ADDRESS_BYTES];
    log_info("ready after %.1f s: %s", (double)(now_us() - s->started_us) * 1e-6, address(s, url));
    note_health(s);
}

static void on_stepped(void *owner, uint64_t step_us)
{
    struct server *s = owner;
    metrics_observe(&s->metrics, step_time, (double)step_us * 1e-6);
    live_requests_flush(s);
    note_health(s);
    finish_when_idle(s);
}

static void on_progress(void *owner, uint64_t done, uint64_t total)
{
    struct server *s = owner;
    uint64_t tenth = s->build_total ? 10 * s->build_done / s->build_total : 0;
    s->build_done = done;
    s->build_total = total;
    if (total && 10 * done / total > tenth)
        log_info("loading: %.0f of %.0f MiB of weights arranged", (double)done / (1 << 20), (double)total / (1 << 20));
}

static void on_hopeless(void *owner, const char *sentence)
{
    struct server *s = owner;
    log_error("%s", sentence);
    s->exit_code = 1;
    event_base_loopbreak(s->loop);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct server *s = arg;
    live_requests_flush(s);
    finish_when_idle(s);
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct server *s = arg;
    live_requests_ping(s, now_us());
    live_requests_expire(s, now_us());
    note_health(s);
    finish_when_idle(s);
}

/* ---- opening and closing ---- */

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 || strncmp(host, "127.", 4) == 0;
}

static enum err check_options(const struct serve_options *o, struct why *why)
{
    if (!*o->model)
        return because(why, ERR_INVALID, "no model: say which file or directory to serve with -m FILE");
    if (!is_loopback(o->host) && !*o->api_key_file)
        return because(why, ERR_INVALID, "--host %s lets others in: give them keys with --api-key-file FILE", o->host);
    return OK;
}

/* libzmq and fork break when one of the first three descriptors is free for other uses. */
static void hold_standard_descriptors(void)
{
    struct stat ignored;
    for (int fd = 0; fd <= 2; fd++)
        if (fstat(fd, &ignored)) {
            int opened = open("/dev/null", O_RDWR);
            (void)opened; /* the lowest free number: fd */
        }
}

static enum err open_loop(struct server *s, struct why *why)
{
    static const struct timeval second = {.tv_sec = 1};
    s->loop = event_base_new();
    if (!s->loop)
        return because_errno(why, ERR_NOMEM, "could not make an event loop");
    s->on_term = evsignal_new(s->loop, SIGTERM, on_stop_signal, s);
    s->on_int = evsignal_new(s->loop, SIGINT, on_stop_signal, s);
    s->every_second = event_new(s->loop, -1, EV_PERSIST, on_second, s);
    s->drain_deadline = evtimer_new(s->loop, on_drain_deadline, s);
    s->flush = event_new(s->loop, -1, EV_PERSIST, on_flush, s);
    if (!s->on_term || !s->on_int || !s->every_second || !s->drain_deadline || !s->flush ||
        event_add(s->on_term, NULL) || event_add(s->on_int, NULL) || event_add(s->every_second, &second))
        return because(why, ERR_NOMEM, "could not watch signals and time: no memory");
    return OK;
}

static struct http_server_config http_config(struct server *s)
{
    struct http_server_config config = {.host = s->options->host,
                                        .port = (uint16_t)s->options->port,
                                        .limits = http_default_limits(),
                                        .callbacks = routes_callbacks(),
                                        .arg = s};
    config.limits.body_bytes = s->options->max_body;
    if (s->options->max_connections)
        config.limits.max_connections = s->options->max_connections;
    return config;
}

static enum err server_open(struct server *s, struct why *why)
{
    struct inference_hooks hooks = {
        .ready = on_ready, .stepped = on_stepped, .progress = on_progress, .hopeless = on_hopeless, .owner = s};
    struct http_server_config http = http_config(s);
    enum err e = check_options(s->options, why);
    if (!e)
        e = api_keys_open(&s->keys, s->options->api_key_file, NULL, why); /* only to see whether it can be read */
    if (!e)
        e = http_server_try(&http, why); /* now, not after minutes of reserving memory */
    if (!e)
        e = open_loop(s, why);
    if (!e)
        e = inference_open(&s->inference, s->loop, s->options, &hooks, why);
    if (!e)
        e = api_keys_open(&s->keys, s->options->api_key_file, arena_header(&s->inference.arena)->secret, why);
    if (!e)
        e = job_pool_open(&s->jobs, s->loop, HELPER_THREADS, why);
    if (!e)
        e = http_server_open(&s->http, s->loop, &http, why);
    if (!e && s->inference.adopted)
        live_requests_adopt(s);
    return e;
}

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

static void server_close(struct server *s)
{
    http_server_close(s->http);
    if (s->jobs)
        job_pool_close(s->jobs);
    if (s->inference.scheduler)
        live_requests_close(s);
    inference_close(&s->inference);
    free_event(s->on_term);
    free_event(s->on_int);
    free_event(s->every_second);
    free_event(s->drain_deadline);
    free_event(s->flush);
    text_fini(&s->scratch);
    if (s->loop)
        event_base_free(s->loop);
}

/* Shells hand out 1024 descriptors and allow many more: connections that wait shall not be what is short. */
static void raise_descriptor_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= DESCRIPTORS_ENOUGH)
        return;
    files.rlim_cur = files.rlim_max < DESCRIPTORS_ENOUGH ? files.rlim_max : DESCRIPTORS_ENOUGH;
    setrlimit(RLIMIT_NOFILE, &files); /* what was there before will do, too */
}

int server_run(const struct serve_options *options)
{
    struct server *s = calloc(1, sizeof *s);
    struct why why;
    if (!s) {
        log_error("could not start: no memory");
        return 1;
    }
    hold_standard_descriptors();
    raise_descriptor_limit();
    s->options = options;
    s->started_us = now_us();
    s->started_unix = (int64_t)time(NULL);
    s->inference.instance.lock_fd = -1;
    enum err e = server_open(s, &why);
    if (e) {
        log_error("%s", why.text);
        s->exit_code = e == ERR_INVALID ? 2 : 1; /* what was asked for can never be; or not here and now */
    } else {
        char url[ADDRESS_BYTES];
        log_info("quire %s: listening on %s, %u worker%s in %u group%s", QUIRE_VERSION, address(s, url),
                 s->inference.workers, s->inference.workers == 1 ? "" : "s", s->inference.groups,
                 s->inference.groups == 1 ? "" : "s");
        log_info("chat template: %s", s->inference.checkpoint.template_whose
                                          ? s->inference.checkpoint.template_whose
                                          : "none, the model continues texts (--chat-template FILE)");
        if (event_base_dispatch(s->loop) < 0)
            s->exit_code = 1;
    }
    server_close(s);
    int exit_code = s->exit_code;
    if (!e && !exit_code)
        log_info("ended");
    free(s);
    return exit_code;
}
