#include "coordinator/routes.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "coordinator/api_limits.h"
#include "coordinator/live_request.h"
#include "coordinator/reply.h"
#include "coordinator/version.h"
#include "coordinator/web_page.h"
#include "model/kernels/kernels.h"

typedef void (*answer_fn)(struct server *s, struct http_request *http, uint64_t salt);

struct route {
    enum http_method method;
    const char *path; /* a trailing * stands for the rest of the path */
    bool open;        /* asks for no key */
    enum metric_route metric;
    answer_fn answer;
};

/* ---- generation ---- */

static void post_chat(struct server *s, struct http_request *http, uint64_t salt)
{
    live_request_begin(s, http, API_CHAT, salt);
}

static void post_completions(struct server *s, struct http_request *http, uint64_t salt)
{
    live_request_begin(s, http, API_COMPLETION, salt);
}

static void get_answer(struct server *s, struct http_request *http, enum api_kind kind, uint64_t salt)
{
    live_request_pick_up(s, http, kind, strrchr(http->path, '/') + 1, salt);
}

static void get_chat(struct server *s, struct http_request *http, uint64_t salt)
{
    get_answer(s, http, API_CHAT, salt);
}

static void get_completion(struct server *s, struct http_request *http, uint64_t salt)
{
    get_answer(s, http, API_COMPLETION, salt);
}

/* ---- the tokenizer, on a helper thread: a text may be megabytes long ---- */

typedef enum err (*text_fn)(const struct api_context *context, const char *body, size_t length, struct text *out,
                            struct api_error *e);

struct text_job {
    struct job job; /* first: the job is this */
    struct server *server;
    struct http_request *http; /* NULL: the client has left */
    text_fn run;
    char *body;
    size_t length;
    struct text out;
    struct api_error error;
    enum err result;
    bool ran;
};

static void run_text_job(struct job *job)
{
    struct text_job *t = (struct text_job *)job;
    t->result = t->run(&t->server->inference.checkpoint.api, t->body, t->length, &t->out, &t->error);
    t->ran = true;
}

static void text_job_done(struct job *job)
{
    struct text_job *t = (struct text_job *)job;
    if (t->http && !t->ran)
        reply_refusal(t->server, t->http, 503, "the server is shutting down");
    else if (t->http && t->result)
        reply_error(t->server, t->http, &t->error, NULL);
    else if (t->http)
        reply_json(t->server, t->http, 200, &t->out, NULL);
    text_fini(&t->out);
    free(t->body);
    free(t);
}

static void begin_text_job(struct server *s, struct http_request *http, text_fn run)
{
    struct text_job *t = calloc(1, sizeof *t);
    char *body = malloc(http->body_bytes + 1);
    if (!t || !body) {
        free(t);
        free(body);
        reply_refusal(s, http, 503, "no memory for another request; try again later");
        return;
    }
    memcpy(body, http->body, http->body_bytes);
    *t = (struct text_job){.job = {.run = run_text_job, .done = text_job_done},
                           .server = s,
                           .http = http,
                           .run = run,
                           .body = body,
                           .length = http->body_bytes};
    http->user = t;
    job_pool_submit(s->jobs, &t->job);
}

static void post_tokenize(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    begin_text_job(s, http, api_tokenize);
}

static void post_detokenize(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    begin_text_job(s, http, api_detokenize);
}

static void get_tokenizer_info(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    text_clear(&s->scratch);
    api_tokenizer_info(&s->inference.checkpoint.api, &s->scratch);
    reply_json(s, http, 200, &s->scratch, NULL);
}

/* ---- models ---- */

static void get_models(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    text_clear(&s->scratch);
    api_models_write(&s->scratch, &s->inference.checkpoint.api, &s->inference.checkpoint.card);
    reply_json(s, http, 200, &s->scratch, NULL);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False: a % without two hex digits, a NUL, or too long. */
static bool percent_decode(const char *from, char *to, size_t room)
{
    size_t n = 0;
    for (; *from && n + 1 < room; n++) {
        int high = *from == '%' ? hex_digit(from[1]) : 0, low = *from == '%' && high >= 0 ? hex_digit(from[2]) : 0;
        if (high < 0 || low < 0)
            return false;
        to[n] = *from == '%' ? (char)(high * 16 + low) : *from;
        if (!to[n])
            return false;
        from += *from == '%' ? 3 : 1;
    }
    to[n] = 0;
    return !*from;
}

static void get_model(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    char id[512];
    struct api_error e;
    text_clear(&s->scratch);
    const char *name = strstr(http->path, "models/") + strlen("models/");
    if (!percent_decode(name, id, sizeof id))
        reply_refusal(s, http, 404, "there is no model of that name here");
    else if (api_model_write(&s->scratch, &s->inference.checkpoint.api, &s->inference.checkpoint.card, id, &e))
        reply_error(s, http, &e, NULL);
    else
        reply_json(s, http, 200, &s->scratch, NULL);
}

/* ---- the server itself ---- */

static void get_health(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    static const char ok[] = "{\"status\":\"ok\"}";
    struct api_error e;
    if (s->phase == SERVER_READY) {
        reply_bytes(s, http, 200, "application/json", ok, sizeof ok - 1);
        return;
    }
    double share = s->build_total ? 100.0 * (double)s->build_done / (double)s->build_total : 0;
    if (s->phase == SERVER_LOADING)
        api_refuse(&e, 503, NULL, "the model is being loaded: %.0f %% done", share);
    else
        api_refuse(&e, 503, NULL, "the server is shutting down");
    reply_error(s, http, &e, NULL);
}

static void get_metrics(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    struct metrics_constants constants = {
        .model_name = s->inference.checkpoint.api.model_name,
        .version = QUIRE_VERSION,
        .kernels = kernels_choose(*s->options->kernels ? s->options->kernels : NULL)->name,
        .start_seconds = (double)s->started_unix,
    };
    server_gather_metrics(s);
    text_clear(&s->scratch);
    metrics_write(&s->scratch, &s->metrics, &constants);
    reply_text(s, http, 200, "text/plain; version=0.0.4; charset=utf-8", &s->scratch, NULL);
}

static void get_state(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    text_clear(&s->scratch);
    server_state_write(s, &s->scratch);
    reply_json(s, http, 200, &s->scratch, NULL);
}

static void post_limits(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    struct api_error e;
    uint32_t max_sessions;
    if (api_limits_parse(http->body, http->body_bytes, s->options->session_slots, &max_sessions, &e)) {
        reply_error(s, http, &e, NULL);
        return;
    }
    scheduler_set_max_sessions(s->inference.scheduler, max_sessions);
    inference_wake(&s->inference);
    text_clear(&s->scratch);
    text_add_string(&s->scratch, "{\"max_sessions\":");
    text_add_u64(&s->scratch, max_sessions);
    text_add_string(&s->scratch, "}");
    reply_json(s, http, 200, &s->scratch, NULL);
}

static void get_page(struct server *s, struct http_request *http, uint64_t salt)
{
    (void)salt;
    struct web_file file;
    if (web_file_find(http->path, &file)) /* find_route has seen that it is there */
        reply_bytes(s, http, 200, file.type, file.bytes, file.length);
}

/* ---- the table ---- */

static const struct route routes[] = {
    {HTTP_POST, "/v1/chat/completions", false, METRIC_ROUTE_CHAT, post_chat},
    {HTTP_POST, "/chat/completions", false, METRIC_ROUTE_CHAT, post_chat},
    {HTTP_POST, "/v1/completions", false, METRIC_ROUTE_COMPLETIONS, post_completions},
    {HTTP_POST, "/completions", false, METRIC_ROUTE_COMPLETIONS, post_completions},
    {HTTP_GET, "/v1/chat/completions/*", false, METRIC_ROUTE_CHAT, get_chat},
    {HTTP_GET, "/chat/completions/*", false, METRIC_ROUTE_CHAT, get_chat},
    {HTTP_GET, "/v1/completions/*", false, METRIC_ROUTE_COMPLETIONS, get_completion},
    {HTTP_GET, "/completions/*", false, METRIC_ROUTE_COMPLETIONS, get_completion},
    {HTTP_GET, "/v1/models", false, METRIC_ROUTE_MODELS, get_models},
    {HTTP_GET, "/models", false, METRIC_ROUTE_MODELS, get_models},
    {HTTP_GET, "/v1/models/*", false, METRIC_ROUTE_MODELS, get_model},
    {HTTP_POST, "/tokenize", false, METRIC_ROUTE_TOKENIZER, post_tokenize},
    {HTTP_POST, "/detokenize", false, METRIC_ROUTE_TOKENIZER, post_detokenize},
    {HTTP_GET, "/tokenizer_info", false, METRIC_ROUTE_TOKENIZER, get_tokenizer_info},
    {HTTP_GET, "/health", true, METRIC_ROUTE_HEALTH, get_health},
    {HTTP_GET, "/v1/health", true, METRIC_ROUTE_HEALTH, get_health},
    {HTTP_GET, "/metrics", false, METRIC_ROUTE_METRICS, get_metrics},
    {HTTP_GET, "/quire/state", false, METRIC_ROUTE_STATE, get_state},
    {HTTP_POST, "/quire/limits", false, METRIC_ROUTE_STATE, post_limits},
};
static const struct route page_route = {HTTP_GET, "/", true, METRIC_ROUTE_PAGE, get_page};
enum { ROUTE_COUNT = sizeof routes / sizeof *routes };

static bool path_fits(const struct route *route, const char *path)
{
    size_t length = strlen(route->path);
    if (route->path[length - 1] != '*')
        return strcmp(route->path, path) == 0;
    return strncmp(route->path, path, length - 1) == 0 && path[length - 1];
}

/* An answer that is picked up is taken over and goes on: a GET alone may do that. */
static bool takes_head(const struct route *route)
{
    return route->method == HTTP_GET && route->answer != get_chat && route->answer != get_completion;
}

static bool method_fits(const struct route *route, enum http_method method)
{
    return route->method == method || (method == HTTP_HEAD && takes_head(route));
}

static const char *methods_of(const struct route *route)
{
    return takes_head(route) ? "GET, HEAD, OPTIONS" : route->method == HTTP_GET ? "GET, OPTIONS" : "POST, OPTIONS";
}

/* The route, or NULL; *other receives one of the same path and another method. */
static const struct route *find_route(const struct http_request *http, const struct route **other)
{
    *other = NULL;
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        if (!path_fits(&routes[i], http->path))
            continue;
        if (method_fits(&routes[i], http->method))
            return &routes[i];
        *other = &routes[i];
    }
    struct web_file file;
    if (!*other && web_file_find(http->path, &file)) {
        if (method_fits(&page_route, http->method))
            return &page_route;
        *other = &page_route;
    }
    return NULL;
}

static bool is_preflight(const struct http_request *http)
{
    return http->method == HTTP_OPTIONS;
}

static bool key_fits(const struct server *s, const struct http_request *http, uint64_t *salt)
{
    return api_keys_allow(&s->keys, http_request_header(http, "authorization"), http_request_header(http, "x-api-key"),
                          salt);
}

/* JSON by its name, or nothing said; and what curl says of a body when it is told nothing else. */
static bool speaks_json(const struct http_request *http)
{
    const char *type = http_request_header(http, "content-type"),
               *coding = http_request_header(http, "content-encoding");
    if (coding && strcasecmp(coding, "identity") != 0)
        return false;
    if (!type)
        return true;
    size_t length = strcspn(type, "; \t");
    return (length >= 4 && strncasecmp(type + length - 4, "json", 4) == 0) ||
           (length == strlen("application/x-www-form-urlencoded") &&
            strncasecmp(type, "application/x-www-form-urlencoded", length) == 0);
}

/* What stands at a path where nothing is: a client that was made for another server learns what this one has. */
static void refuse_path(struct api_error *e, const char *path)
{
    static const char *const unbuilt[] = {
        "/v1/embeddings", "/v1/responses",  "/v1/messages", "/v1/rerank",  "/v1/moderations",
        "/v1/audio/",     "/v1/images/",    "/v1/files",    "/v1/batches", "/v1/fine_tuning/",
        "/v1/realtime",   "/v1/assistants", "/v1/threads",  "/api/"};
    const char *what = "there is nothing at";
    for (size_t i = 0; i < sizeof unbuilt / sizeof *unbuilt; i++)
        if (strncmp(path, unbuilt[i], strlen(unbuilt[i])) == 0)
            what = "not built:";
    api_refuse(
        e, 404, NULL,
        "%s %.200s; this server answers /v1/chat/completions, /v1/completions, /v1/models, /tokenize, /detokenize, "
        "/health and /metrics",
        what, path);
}

static void count_request(struct server *s, const struct route *route, const struct route *other)
{
    s->metrics.http_requests[route ? route->metric : other ? other->metric : METRIC_ROUTE_OTHER]++;
}

/* Before a byte of the body is read: the key first, so that a stranger learns nothing about routes. */
static void on_early(struct http_request *http, void *arg)
{
    struct server *s = arg;
    const struct route *other, *route = find_route(http, &other);
    struct api_error e;
    uint64_t salt;
    count_request(s, route, other);
    if (is_preflight(http))
        return;
    if (!(route && route->open) && !key_fits(s, http, &salt)) {
        api_refuse(&e, 401, NULL,
                   "a valid API key is needed: send \"Authorization: Bearer KEY\" or \"X-Api-Key: KEY\"");
        e.code = "invalid_api_key";
        reply_error(s, http, &e, NULL);
    } else if (!route && other) {
        api_refuse(&e, 405, NULL, "%s takes %s", other->path, other->method == HTTP_GET ? "GET" : "POST");
        reply_error(s, http, &e, methods_of(other));
    } else if (!route && http->method == HTTP_OTHER) {
        reply_refusal(s, http, 501, "this method is none that the server knows");
    } else if (!route) {
        refuse_path(&e, http->path);
        reply_error(s, http, &e, NULL);
    } else if (route->method == HTTP_POST && s->phase != SERVER_READY) {
        s->metrics.requests_rejected++;
        reply_refusal(s, http, 503,
                      s->phase == SERVER_LOADING ? "the model is still being loaded" : "the server is shutting down");
    } else if (route->method == HTTP_POST && !speaks_json(http)) {
        reply_refusal(
            s, http, 415,
            "the body is to be JSON, neither compressed nor of another type: send Content-Type: application/json");
    }
}

static void on_request(struct http_request *http, void *arg)
{
    struct server *s = arg;
    const struct route *other, *route = find_route(http, &other);
    uint64_t salt = 0;
    if (is_preflight(http)) {
        reply_preflight(s, http);
        return;
    }
    key_fits(s, http, &salt); /* on_early let it pass; this is for the salt */
    route->answer(s, http, salt);
}

static void on_refused(struct http_request *http, int status, const char *problem, void *arg)
{
    struct server *s = arg;
    const struct route *other, *route = find_route(http, &other);
    if (!http->passed) /* on_early has not seen it */
        count_request(s, route, other);
    reply_refusal(s, http, status, problem);
}

static void on_gone(struct http_request *http, void *arg)
{
    struct server *s = arg;
    const struct route *other, *route = find_route(http, &other);
    if (!route || !http->user)
        return;
    if (route->answer == post_tokenize || route->answer == post_detokenize)
        ((struct text_job *)http->user)->http = NULL;
    else
        live_request_gone(s, http);
}

static void on_drained(struct http_request *http, void *arg)
{
    live_request_drained(arg, http); /* only generations stream */
}

struct http_callbacks routes_callbacks(void)
{
    return (struct http_callbacks){
        .early = on_early, .request = on_request, .refused = on_refused, .gone = on_gone, .drained = on_drained};
}
