#include "coordinator/live_request.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/live_request_internal.h"
#include "coordinator/reply.h"
#include "coordinator/request_record.h"

enum {
    PIECE_BYTES = 32 * 1024,       /* written to a stream at a time */
    SILENCE_US = 10 * 1000 * 1000, /* after that a comment says that we are still there */
};

/* ---- memory ---- */

void live_request_free(struct live_request *r)
{
    if (r->wholes) {
        r->forgotten = true;
        return;
    }
    for (uint32_t i = 0; i < r->count; i++) {
        struct live_choice *c = &r->live[i];
        answer_text_fini(&c->answer);
        free(c->tokens);
        free(c->scores);
        free(c->prompt_scores);
        free(c->record);
    }
    free(r->live);
    free(r->choices);
    free(r->sent);
    api_request_free(r->request);
    free(r->body);
    free(r->behind);
    free(r);
}

/* What the next coordinator needs of it; without memory, or for an echo longer than a slot holds, it will not go on there. */
static void make_record(struct live_request *r, uint32_t choice)
{
    struct live_choice *c = &r->live[choice];
    size_t bytes = request_record_bytes(r->request, choice);
    if (!r->server->options->resume_ttl || bytes > SESSION_CLIENT_BYTES)
        return;
    c->record = malloc(bytes);
    if (!c->record)
        return;
    c->record_bytes = (uint32_t)bytes;
    struct request_owner owner = {.tenant = r->salt, .created = r->created};
    request_record_write(r->request, choice, &owner, c->record);
}

/* All that the answer will need, so that no token has to wait for memory. */
bool live_request_make_choices(struct live_request *r)
{
    const struct api_context *context = &r->server->inference.checkpoint.api;
    uint32_t count = api_request_choices(r->request);
    r->live = calloc(count, sizeof *r->live);
    r->choices = calloc(count, sizeof *r->choices);
    r->sent = calloc(count, sizeof *r->sent);
    if (!r->live || !r->choices || !r->sent)
        return false;
    r->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct live_choice *c = &r->live[i];
        const struct api_prompt *prompt = api_request_prompt(r->request, i);
        c->request = r;
        answer_text_init(&c->answer, context, r->request);
        c->tokens = calloc(prompt->max_tokens + 1u, sizeof *c->tokens);
        if (r->request->logprobs)
            c->scores = calloc(prompt->max_tokens + 1u, sizeof *c->scores);
        if (r->request->score_prompt)
            c->prompt_scores = calloc(prompt->count, sizeof *c->prompt_scores);
        if (!c->tokens || (r->request->logprobs && !c->scores) || (r->request->score_prompt && !c->prompt_scores))
            return false;
        r->choices[i] = (struct api_choice){.answer = &c->answer, .tokens = c->tokens, .scores = c->scores};
        make_record(r, i);
    }
    r->unfinished = count;
    return true;
}

/* ---- the list of all, and of those with something to say ---- */

void live_request_link(struct server *s, struct live_request *r)
{
    r->previous = NULL;
    r->next = s->requests;
    if (r->next)
        r->next->previous = r;
    s->requests = r;
}

void live_request_unlink(struct server *s, struct live_request *r)
{
    if (r->previous)
        r->previous->next = r->next;
    else
        s->requests = r->next;
    if (r->next)
        r->next->previous = r->previous;
    for (struct live_request **at = &s->dirty; r->dirty && *at; at = &(*at)->next_dirty)
        if (*at == r) {
            *at = r->next_dirty;
            break;
        }
    r->dirty = false;
}

void live_request_mark_dirty(struct live_request *r)
{
    struct server *s = r->server;
    if (r->dirty)
        return;
    r->dirty = true;
    r->next_dirty = s->dirty;
    s->dirty = r;
    event_active(s->flush, EV_READ, 0);
}

/* ---- the end ---- */

static void count_end(struct live_request *r, const struct live_choice *c, enum finish_reason reason, uint64_t now)
{
    static const enum metric_finished finished[] = {[FINISH_STOP] = METRIC_STOP,
                                                    [FINISH_LENGTH] = METRIC_LENGTH,
                                                    [FINISH_CANCELLED] = METRIC_ABORT,
                                                    [FINISH_ERROR] = METRIC_ERROR};
    struct metrics *m = &r->server->metrics;
    m->request_success[finished[reason]]++;
    metrics_observe(m, request_generation_tokens, (double)c->answer.tokens);
    if (c->first_us)
        metrics_observe(m, request_decode_time, (double)(now - c->first_us) * 1e-6);
}

void live_request_log(const struct live_request *r, const char *how)
{
    uint64_t now = now_us(), first = 0;
    uint32_t prompt = 0, cached = 0, generated = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        if (i % r->request->n == 0) { /* the further choices share the first one's prompt */
            prompt += api_request_prompt(r->request, i)->count;
            cached += r->choices[i].cached_tokens;
        }
        generated += r->live[i].answer.tokens;
        if (r->live[i].first_us && (!first || r->live[i].first_us < first))
            first = r->live[i].first_us;
    }
    log_info("%s %s: %u prompt tokens (%u cached), %u generated, first after %.0f ms, %.0f ms in all", r->id, how,
             prompt, cached, generated, first ? (double)(first - r->arrived_us) / 1000 : 0.0,
             (double)(now - r->arrived_us) / 1000);
}

void live_request_stop(struct live_request *r)
{
    uint64_t now = now_us();
    for (uint32_t i = 0; i < r->count; i++) {
        struct live_choice *c = &r->live[i];
        if (!c->sequence)
            continue;
        c->slot = c->sequence->slot; /* it may have waited there and not been admitted */
        c->slot_generation = c->sequence->slot == SESSION_NONE ? 0 : c->sequence->generation;
        scheduler_park(r->server->inference.scheduler, c->sequence);
        c->sequence = NULL;
        count_end(r, c, FINISH_CANCELLED, now);
    }
}

void live_request_end(struct live_request *r, const char *how)
{
    struct server *s = r->server;
    metrics_observe(&s->metrics, e2e_request_latency, (double)(now_us() - r->arrived_us) * 1e-6);
    live_request_keep(r, how);
    inference_wake(&s->inference);
}

void live_request_gone(struct server *s, struct http_request *http)
{
    struct live_request *r = http->user;
    if (!r)
        return; /* a small route: it has no state */
    must(r->server == s);
    live_whole_gone(r, http);
    if (r->http != http)
        return; /* it asked for what there is, and was not who the answer is made for */
    r->http = NULL;
    if (r->parsing)
        return; /* on_parsed frees it */
    live_request_end(r, "left by its client");
}

/* ---- events of its sequences: no call of the scheduler in here ---- */

static void keep_scores(struct position_scores *to, const struct result_entry *from)
{
    to->logprob = from->logprob;
    to->top_count = from->top_count;
    memcpy(to->top, from->top, from->top_count * sizeof *to->top);
}

static bool on_token(void *owner, const struct result_entry *drawn)
{
    struct live_choice *c = owner;
    struct live_request *r = c->request;
    struct metrics *m = &r->server->metrics;
    uint64_t now = now_us();
    if (c->first_us) {
        metrics_observe(m, inter_token_latency, (double)(now - c->last_us) * 1e-6);
    } else {
        c->first_us = now;
        metrics_observe(m, time_to_first_token, (double)(now - r->arrived_us) * 1e-6);
        metrics_observe(m, request_prefill_time, (double)(now - c->admitted_us) * 1e-6);
    }
    c->last_us = now;
    uint32_t at = c->answer.tokens;
    c->tokens[at] = drawn->token;
    r->choices[c - r->live].prompt_scores = c->prompt_scores; /* all there: the prompt comes first */
    if (c->scores)
        keep_scores(&c->scores[at], drawn);
    live_request_mark_dirty(r);
    return answer_text_push(&c->answer, drawn->token);
}

static void on_scored(void *owner, uint32_t position, const struct result_entry *entry)
{
    struct live_choice *c = owner;
    keep_scores(&c->prompt_scores[position], entry);
}

static void on_admitted(void *owner, uint32_t cached)
{
    struct live_choice *c = owner;
    const struct live_request *r = c->request;
    uint32_t index = (uint32_t)(c - r->live), prompt = api_request_prompt(r->request, index)->count;
    if (!c->admitted_us)
        r->choices[index].cached_tokens = cached < prompt ? cached : prompt;
    c->admitted_us = now_us();
    c->slot = c->sequence->slot;
    c->slot_generation = c->sequence->slot == SESSION_NONE ? 0 : c->sequence->generation;
    metrics_observe(&c->request->server->metrics, request_queue_time,
                    (double)(c->admitted_us - c->request->arrived_us) * 1e-6);
}

static void on_ended(void *owner, enum finish_reason reason)
{
    struct live_choice *c = owner;
    struct live_request *r = c->request;
    struct api_choice *choice = &r->choices[c - r->live];
    c->sequence = NULL;
    answer_text_finish(&c->answer);
    if (c->answer.text.failed)
        reason = FINISH_ERROR; /* its text ends where the memory did, not where the answer would */
    choice->prompt_scores = c->prompt_scores;
    choice->finished = true;
    choice->reason = reason;
    r->unfinished--;
    r->failed |= reason == FINISH_ERROR;
    count_end(r, c, reason, now_us());
    live_request_mark_dirty(r);
}

static const struct sequence_events events = {
    .token = on_token, .scored = on_scored, .admitted = on_admitted, .ended = on_ended};

/* ---- sending ---- */

struct api_answer live_request_answer(const struct live_request *r)
{
    return (struct api_answer){.context = &r->server->inference.checkpoint.api,
                               .request = r->request,
                               .id = r->id,
                               .created = r->created,
                               .choices = r->choices};
}

static void send_failure(struct live_request *r)
{
    struct server *s = r->server;
    struct api_error e;
    api_refuse(&e, 500, NULL, "the workers could not go on with this request; the server's log says why");
    for (uint32_t i = 0; i < r->count; i++)
        if (r->live[i].answer.text.failed)
            api_no_memory(&e);
    if (s->scratch.failed)
        api_no_memory(&e);
    if (r->streaming) {
        text_clear(&s->scratch);
        api_error_write_event(&s->scratch, &e);
        if (!s->scratch.failed) /* without memory for that either, the missing [DONE] tells */
            http_stream_write(r->http, s->scratch.at, s->scratch.length);
        http_stream_end(r->http);
    } else {
        reply_error(s, r->http, &e, NULL);
    }
    live_request_end(r, "failed");
}

static void send_stream(struct live_request *r)
{
    struct server *s = r->server;
    struct api_answer answer = live_request_answer(r);
    while (http_stream_writable(r->http)) {
        text_clear(&s->scratch);
        bool done = api_stream_write(&s->scratch, &answer, r->sent, PIECE_BYTES);
        if (s->scratch.failed) { /* half an event helps nobody */
            r->failed = true;
            send_failure(r);
            return;
        }
        if (s->scratch.length) {
            http_stream_write(r->http, s->scratch.at, s->scratch.length);
            r->sent_us = now_us();
        }
        if (done) {
            http_stream_end(r->http);
            live_request_end(r, "done");
            return;
        }
        if (s->scratch.length < PIECE_BYTES)
            return; /* up to date; otherwise live_request_drained comes back */
    }
}

static void send_whole(struct live_request *r)
{
    if (!r->unfinished)
        live_whole_send(r, r->http);
}

/* An answer that is computed again catches up with what its client has already. True: it has. */
static bool has_caught_up(struct live_request *r)
{
    struct api_answer answer = live_request_answer(r);
    if (!r->behind)
        return true;
    if (!api_sent_from_event_id(&answer, r->behind, strlen(r->behind), r->sent) && r->unfinished)
        return false;
    free(r->behind);
    r->behind = NULL;
    return true;
}

static void send_news(struct live_request *r)
{
    if (!r->http) {
        if (!r->unfinished || r->failed)
            live_request_end(r, "done, with nobody listening");
    } else if (!r->failed && !has_caught_up(r)) {
        return;
    } else if (r->failed)
        send_failure(r);
    else if (r->streaming)
        send_stream(r);
    else
        send_whole(r);
}

void live_requests_flush(struct server *s)
{
    for (struct live_request *r; (r = s->dirty);) {
        s->dirty = r->next_dirty;
        r->dirty = false;
        send_news(r);
    }
}

void live_request_drained(struct server *s, struct http_request *http)
{
    struct live_request *r = http->user;
    if (r && r->server == s)
        live_request_mark_dirty(r);
}

void live_requests_ping(struct server *s, uint64_t now)
{
    static const char comment[] = ": still here\n\n";
    for (struct live_request *r = s->requests; r; r = r->next)
        if (r->streaming && r->http && now - r->sent_us > SILENCE_US && http_stream_writable(r->http)) {
            http_stream_write(r->http, comment, sizeof comment - 1);
            r->sent_us = now;
        }
}

/* ---- the beginning ---- */

static void run_parse(struct job *job)
{
    struct live_request *r = (struct live_request *)job;
    r->parsed = api_request_parse(&r->server->inference.checkpoint.api, r->kind, r->body, r->body_bytes, &r->request,
                                  &r->error);
}

/* Answers with an error and forgets the request. */
static void refuse(struct live_request *r, const struct api_error *e)
{
    reply_error(r->server, r->http, e, NULL);
    live_request_unlink(r->server, r);
    live_request_free(r);
}

/* The sequence of one choice, behind what it has said. What was said with log-probabilities that are lost is drawn again: the same. */
static enum err submit_choice(struct live_request *r, uint32_t i, struct why *why)
{
    struct live_choice *c = &r->live[i];
    const struct api_prompt *prompt = api_request_prompt(r->request, i);
    uint32_t said = c->answer.tokens;
    uint32_t *tokens = said ? malloc((prompt->count + said) * sizeof *tokens) : prompt->tokens;
    if (!tokens)
        return because(why, ERR_FULL, "no memory for another request; try again later");
    if (said) {
        memcpy(tokens, prompt->tokens, prompt->count * sizeof *tokens);
        memcpy(tokens + prompt->count, c->tokens, said * sizeof *tokens);
    }
    struct sequence_spec spec = {
        .tokens = tokens,
        .token_count = prompt->count,
        .max_tokens = prompt->max_tokens,
        .score_prompt = r->request->score_prompt && !said,
        .salt = api_keys_salt(&r->server->keys, r->salt, r->request->cache_salt),
        .id = r->id,
        .events = &events,
        .owner = c,
        .said = said,
        .slot = c->slot,
        .slot_generation = c->slot_generation,
        .client = c->record,
        .client_bytes = c->record_bytes,
        .keep = r->server->options->resume_ttl > 0,
    };
    api_request_sampling(r->request, i, &spec.sampling);
    enum err e = scheduler_submit(r->server->inference.scheduler, &spec, r->arrived_us, &c->sequence, why);
    if (said)
        free(tokens);
    return e;
}

enum err live_request_submit(struct live_request *r, struct why *why)
{
    enum err e = OK;
    for (uint32_t i = 0; !e && i < r->count; i++)
        if (!r->choices[i].finished)
            e = submit_choice(r, i, why);
    for (uint32_t i = 0; e && i < r->count; i++)
        if (r->live[i].sequence) {
            scheduler_park(r->server->inference.scheduler, r->live[i].sequence);
            r->live[i].sequence = NULL;
        }
    return e;
}

static void start(struct live_request *r)
{
    struct server *s = r->server;
    struct api_error e;
    struct why why;
    if (!live_request_make_choices(r)) {
        api_no_memory(&e);
        refuse(r, &e);
        return;
    }
    switch (live_request_submit(r, &why)) {
    case OK:
        break;
    case ERR_FULL:
        s->metrics.requests_rejected++;
        api_refuse(&e, 429, NULL, "%s", why.text);
        refuse(r, &e);
        return;
    default:
        api_refuse(&e, 400, NULL, "%s", why.text);
        refuse(r, &e);
        return;
    }
    for (uint32_t i = 0; i < r->request->prompt_count; i++)
        metrics_observe(&s->metrics, request_prompt_tokens, (double)r->request->prompts[i].count);
    if (r->request->stream) {
        r->streaming = true;
        reply_stream_begin(s, r->http, r->id);
        live_request_mark_dirty(r); /* the first chunks carry no token */
    }
    inference_wake(&s->inference);
}

static void on_parsed(struct job *job)
{
    struct live_request *r = (struct live_request *)job;
    struct server *s = r->server;
    struct api_error e;
    r->parsing = false;
    free(r->body);
    r->body = NULL;
    if (!r->http) {
        live_request_unlink(s, r);
        live_request_free(r);
    } else if (r->parsed) {
        refuse(r, &r->error);
    } else if (s->phase != SERVER_READY || !r->request) {
        api_refuse(&e, 503, NULL, "the server is shutting down");
        refuse(r, &e);
    } else {
        start(r);
    }
}

void live_request_begin(struct server *s, struct http_request *http, enum api_kind kind, uint64_t salt)
{
    struct live_request *r = calloc(1, sizeof *r);
    char *body = malloc(http->body_bytes + 1);
    if (!r || !body) {
        free(r);
        free(body);
        reply_refusal(s, http, 503, "no memory for another request; try again later");
        return;
    }
    memcpy(body, http->body, http->body_bytes);
    *r = (struct live_request){
        .job = {.run = run_parse, .done = on_parsed},
        .server = s,
        .http = http,
        .body = body,
        .body_bytes = http->body_bytes,
        .kind = kind,
        .salt = salt,
        .created = (int64_t)time(NULL),
        .arrived_us = now_us(),
        .parsing = true,
    };
    r->sent_us = r->arrived_us;
    api_id_make(r->id, kind);
    http->user = r;
    live_request_link(s, r);
    job_pool_submit(s->jobs, &r->job);
}

uint32_t live_requests_count(const struct server *s)
{
    uint32_t n = 0;
    for (const struct live_request *r = s->requests; r; r = r->next)
        n++;
    return n;
}
