/* Answers that outlive their client or their coordinator: kept for a while, picked up, taken over from session slots. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/live_request_internal.h"
#include "coordinator/reply.h"
#include "coordinator/request_record.h"
#include "shm/session.h"

enum {
    KEPT_MOST = 256, /* requests; the oldest is forgotten first */
    KEPT_BYTES_MOST = 32 << 20,
    EVENT_ID_MOST = 4096, /* bytes of a Last-Event-ID: API_MOST_CHOICES numbers */
};

/* ---- keeping ---- */

static uint64_t bytes_of(const struct live_request *r)
{
    uint64_t bytes = sizeof *r + r->count * (sizeof *r->live + sizeof *r->choices + sizeof *r->sent);
    for (uint32_t i = 0; i < r->count; i++) {
        const struct api_prompt *prompt = api_request_prompt(r->request, i);
        bytes +=
            (prompt->max_tokens + 1u) * (sizeof(uint32_t) + (r->live[i].scores ? sizeof(struct position_scores) : 0));
        bytes += prompt->count * (sizeof(uint32_t) + (r->live[i].prompt_scores ? sizeof(struct position_scores) : 0));
        bytes += r->live[i].answer.text.length + prompt->echo_bytes + r->live[i].record_bytes;
    }
    return bytes;
}

static void unlink_kept(struct server *s, struct live_request *r)
{
    must(r->kept);
    if (r->previous)
        r->previous->next = r->next;
    else
        s->kept = r->next;
    if (r->next)
        r->next->previous = r->previous;
    r->kept = false;
    s->kept_count--;
    s->kept_bytes -= bytes_of(r);
}

static void link_kept(struct server *s, struct live_request *r)
{
    r->kept = true;
    r->previous = NULL;
    r->next = s->kept;
    if (r->next)
        r->next->previous = r;
    s->kept = r;
    s->kept_count++;
    s->kept_bytes += bytes_of(r);
}

/* Nobody will pick it up. It stands in no list. */
static void forget(struct live_request *r)
{
    for (uint32_t i = 0; i < r->count; i++)
        if (r->live[i].slot_generation)
            scheduler_forget(r->server->inference.scheduler, r->live[i].slot, r->live[i].slot_generation);
    live_request_free(r);
}

static void forget_the_oldest(struct server *s)
{
    struct live_request *oldest = s->kept;
    while (oldest->next)
        oldest = oldest->next;
    unlink_kept(s, oldest);
    forget(oldest);
}

static uint64_t deadline(const struct server *s, uint64_t now)
{
    return now + (uint64_t)s->options->resume_ttl * 1000 * 1000;
}

void live_request_keep(struct live_request *r, const char *how)
{
    struct server *s = r->server;
    live_request_stop(r);
    live_request_log(r, how);
    live_request_unlink(s, r);
    r->http = NULL;
    r->streaming = false;
    r->until_us = deadline(s, now_us());
    if (r->failed || !s->options->resume_ttl) {
        forget(r);
        return;
    }
    link_kept(s, r);
    while (s->kept_count > KEPT_MOST || s->kept_bytes > KEPT_BYTES_MOST)
        forget_the_oldest(s);
}

void live_requests_expire(struct server *s, uint64_t now)
{
    for (struct live_request *r = s->requests, *next; r; r = next) {
        next = r->next;
        if (!r->http && !r->parsing && (now > r->until_us || s->phase == SERVER_DRAINING))
            live_request_keep(r, "not picked up");
    }
    for (struct live_request *r = s->kept, *next; r; r = next) {
        next = r->next;
        if (now > r->until_us) {
            unlink_kept(s, r);
            forget(r);
        }
    }
}

void live_requests_close(struct server *s)
{
    for (struct live_request *r; (r = s->requests);) {
        if (r->count) {
            live_request_keep(r, "ended by the server's stop");
        } else {
            live_request_unlink(s, r);
            live_request_free(r);
        }
    }
    for (struct live_request *r; (r = s->kept);) { /* not forgotten: with --keep the next server finds them */
        unlink_kept(s, r);
        live_request_free(r);
    }
}

/* ---- picking up ---- */

static struct live_request *find_in(struct live_request *list, const char *id, enum api_kind kind, uint64_t salt)
{
    for (struct live_request *r = list; r; r = r->next)
        if (r->count && r->kind == kind && r->salt == salt && strcmp(r->id, id) == 0)
            return r;
    return NULL;
}

/* What was stopped goes on. */
static enum err go_on(struct live_request *r, struct why *why)
{
    struct server *s = r->server;
    r->until_us = deadline(s, now_us());
    if (!r->kept || !r->unfinished || s->phase == SERVER_DRAINING)
        return OK;
    unlink_kept(s, r);
    enum err e = live_request_submit(r, why);
    if (e) {
        link_kept(s, r);
        return e;
    }
    live_request_link(s, r);
    inference_wake(&s->inference);
    return OK;
}

/* Whoever says behind which event asks for events, whatever it accepts. */
static bool wants_stream(const struct http_request *http, const char *event_id)
{
    const char *accept = http_request_header(http, "accept");
    return http->method == HTTP_GET && (event_id || (accept && strcasestr(accept, "text/event-stream")));
}

static bool is_event_id(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && length <= EVENT_ID_MOST && strspn(text, "0123456789-,") == length;
}

/* The connection that listened until now gives way: its client may have lost it without our knowing. */
static void leave_to_another(struct live_request *r)
{
    struct http_request *old = r->http;
    if (!old)
        return;
    old->user = NULL;
    r->http = NULL;
    live_whole_gone(r, old);
    if (r->streaming)
        http_stream_end(old);
    else
        reply_refusal(r->server, old, 409, "this answer was picked up by another connection");
}

static void listen_again(struct live_request *r, struct http_request *http, const char *event_id)
{
    struct server *s = r->server;
    char *behind = event_id ? strdup(event_id) : NULL;
    if (event_id && !behind) {
        reply_refusal(s, http, 503, "no memory to pick the answer up; try again later");
        return;
    }
    leave_to_another(r);
    if (r->kept) { /* whole: it only has to be sent */
        unlink_kept(s, r);
        live_request_link(s, r);
    }
    free(r->behind);
    r->behind = behind;
    memset(r->sent, 0, r->count * sizeof *r->sent);
    r->http = http;
    r->streaming = true;
    r->sent_us = now_us();
    http->user = r;
    reply_stream_begin(s, http, r->id);
    live_request_mark_dirty(r);
}

void live_request_pick_up(struct server *s, struct http_request *http, enum api_kind kind, const char *id,
                          uint64_t salt)
{
    struct live_request *r = find_in(s->requests, id, kind, salt);
    if (!r)
        r = find_in(s->kept, id, kind, salt);
    struct why why;
    const char *event_id = http_request_header(http, "last-event-id");
    if (!r) {
        reply_refusal(
            s, http, 404,
            "there is no answer of that id here; it may have been picked up too late, or belong to another key");
    } else if (event_id && !is_event_id(event_id)) {
        reply_refusal(s, http, 400, "Last-Event-ID is none that this server has given");
    } else if (s->phase == SERVER_DRAINING && r->kept && r->unfinished && wants_stream(http, event_id)) {
        reply_refusal(s, http, 503, "the server is shutting down and goes on with no answer that was left");
    } else if (go_on(r, &why)) {
        reply_refusal(s, http, 429, why.text);
    } else if (wants_stream(http, event_id)) {
        listen_again(r, http, event_id);
    } else {
        live_whole_send(r, http);
    }
}

/* ---- taking over ---- */

static struct live_request *find_adopted(struct server *s, const char *id)
{
    struct live_request *r = s->requests;
    while (r && strcmp(r->id, id) != 0)
        r = r->next;
    return r;
}

/* What the dead coordinator's client was told, word by word; its end, if this was all. */
static void say_again(struct live_request *r, uint32_t i, const uint32_t *tokens, uint32_t count)
{
    struct live_choice *c = &r->live[i];
    struct api_choice *choice = &r->choices[i];
    uint32_t most = api_request_prompt(r->request, i)->max_tokens;
    bool stop = false;
    for (uint32_t t = 0; t < count && t < most && !stop; t++) {
        c->tokens[t] = tokens[t];
        stop = answer_text_push(&c->answer, tokens[t]);
    }
    if (!stop && c->answer.tokens < most)
        return;
    answer_text_finish(&c->answer);
    choice->finished = true;
    choice->reason = c->answer.text.failed ? FINISH_ERROR : stop ? FINISH_STOP : FINISH_LENGTH;
    r->failed |= choice->reason == FINISH_ERROR;
    r->unfinished--;
}

static bool ids_are_good(const struct server *s, const struct session_slot *slot, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (slot->tokens[i] >= s->inference.checkpoint.api.vocab)
            return false;
    return true;
}

/* One slot as a choice of a request, which is made when its first choice is found. */
static enum err adopt_slot(struct server *s, const struct session_slot *slot, uint32_t *choice,
                           struct live_request **out, struct why *why)
{
    uint32_t said = session_progress(slot).tokens;
    struct request_owner owner;
    if (said > s->inference.checkpoint.api.context_tokens || !ids_are_good(s, slot, said))
        return because(why, ERR_FORMAT, "its tokens are none of this model's");
    struct live_request *r = find_adopted(s, slot->id);
    bool first = !r;
    if (first && !(r = calloc(1, sizeof *r)))
        return because(why, ERR_NOMEM, "there is no memory for it");
    enum err e = request_record_read(slot->client, slot->client_bytes, &slot->sampling, slot->tokens,
                                     s->inference.checkpoint.api.context_tokens, &r->request, choice, &owner, why);
    if (first && e) {
        live_request_free(r);
        return e;
    }
    if (first) {
        r->server = s;
        r->kind = r->request->kind;
        r->salt = owner.tenant;
        r->created = owner.created;
        r->arrived_us = now_us();
        r->until_us = deadline(s, r->arrived_us);
        memcpy(r->id, slot->id, sizeof r->id);
        live_request_link(s, r);
    }
    *out = r;
    return e;
}

/* The slots that belong to it, in which its tokens stand, once all prompts are known. */
static void take_slots(struct live_request *r, bool *was_running)
{
    const struct arena *a = &r->server->inference.arena;
    for (uint32_t i = 0; i < a->geometry.session_slots; i++) {
        const struct session_slot *slot = session_at(a, i);
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed); /* our own store */
        uint32_t choice;
        struct request_owner owner;
        struct why why;
        if ((state != SESSION_LIVE && state != SESSION_KEPT) || strcmp(slot->id, r->id) != 0 ||
            request_record_read(slot->client, slot->client_bytes, &slot->sampling, slot->tokens,
                                r->server->inference.checkpoint.api.context_tokens, &r->request, &choice, &owner,
                                &why) ||
            r->live[choice].slot_generation)
            continue;
        r->live[choice].slot = i;
        r->live[choice].slot_generation =
            atomic_load_explicit(&slot->generation, memory_order_relaxed); /* our own store */
        *was_running |= state == SESSION_LIVE;
        uint32_t prompt = slot->sampling.prompt_tokens;
        if (!r->request->logprobs)
            say_again(r, choice, slot->tokens + prompt, session_progress(slot).tokens - prompt);
    }
}

/* True: it goes on, or is kept. A choice without a slot begins again from its prompt, which another choice has: it says the same. */
static bool adopt_request(struct live_request *r, struct why *why)
{
    struct server *s = r->server;
    for (uint32_t i = 0; i < r->request->prompt_count; i++)
        if (!r->request->prompts[i].tokens) {
            because(why, ERR_FORMAT, "one of its prompts is gone");
            return false;
        }
    if (!live_request_make_choices(r)) {
        because(why, ERR_NOMEM, "there is no memory for it");
        return false;
    }
    bool was_running = false;
    take_slots(r, &was_running);
    if (r->failed) {
        because(why, ERR_NOMEM, "there is no memory for its text");
        return false;
    }
    if (was_running && r->unfinished)
        return live_request_submit(r, why) == OK;
    live_request_unlink(s, r);
    link_kept(s, r);
    return true;
}

static void release_slots_of(struct server *s, const char *id)
{
    const struct arena *a = &s->inference.arena;
    for (uint32_t i = 0; i < a->geometry.session_slots; i++)
        if (strcmp(session_at(a, i)->id, id) == 0)
            scheduler_forget(
                s->inference.scheduler, i,
                atomic_load_explicit(&session_at(a, i)->generation, memory_order_relaxed)); /* our own store */
}

void live_requests_adopt(struct server *s)
{
    const struct arena *a = &s->inference.arena;
    struct live_request *r;
    struct why why;
    uint32_t choice, running = 0;
    for (uint32_t i = 0; i < a->geometry.session_slots; i++) {
        const struct session_slot *slot = session_at(a, i);
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed); /* our own store */
        if (state != SESSION_LIVE && state != SESSION_KEPT)
            continue;
        enum err e = s->options->resume_ttl ? adopt_slot(s, slot, &choice, &r, &why)
                                            : because(&why, ERR_UNSUPPORTED, "--resume-ttl is 0");
        if (e) {
            log_warn("a session could not be taken over: %s", why.text);
            scheduler_forget(s->inference.scheduler, i,
                             atomic_load_explicit(&slot->generation, memory_order_relaxed)); /* our own store */
        }
    }
    struct live_request *next;
    for (r = s->requests; r; r = next) {
        next = r->next;
        if (adopt_request(r, &why)) {
            running += !r->kept;
            continue;
        }
        log_warn("%s could not be taken over: %s", r->id, why.text);
        live_request_unlink(s, r);
        release_slots_of(s, r->id);
        live_request_free(r);
    }
    if (running || s->kept_count)
        log_info("%u unfinished answers go on for %u s, %u are kept for who picks them up", running,
                 s->options->resume_ttl, s->kept_count);
}
