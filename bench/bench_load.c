/*
 * bench_load: load on any OpenAI-compatible server over plain sockets, cheap enough to share two cores with it.
 *
 *   bench_load [--url http://127.0.0.1:8080] [--timeout S] [--each] < PLAN
 *
 * A plan has one JSON object a line, one for each conversation:
 *   lane          conversations of one lane run one after the other, lanes at once (default: a lane of its own)
 *   wave          starts when every conversation of lower waves has ended (default 0)
 *   after_tokens  starts when every one that runs has received so many pieces (default 0: at once)
 *   path, body    what is posted; "stream" and "include_usage" are added
 *   ends_all      true: when this one has ended, the others are cut off, and that is no error
 *   follow        texts of further turns: the answer and the next text are appended to body.messages and posted again
 *
 * Prints the object that load.py prints: time to first token, gaps between pieces of text, tokens a second. With --each,
 * a line for each request instead: {"lane", "wave", "turn", "sent_ms", "times_ms": […], "completion_tokens", "error"}.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"

enum { READ_BYTES = 65536, EVENTS = 64, TICK_MS = 200 };

/* ---- a growing piece of memory ---- */

struct bytes {
    char *at;
    size_t length, room;
};

static void bytes_add(struct bytes *b, const char *more, size_t n)
{
    if (b->length + n + 1 > b->room) {
        b->room = 2 * (b->length + n + 1);
        b->at = realloc(b->at, b->room);
        must(b->at);
    }
    memcpy(b->at + b->length, more, n);
    b->length += n;
    b->at[b->length] = '\0';
}

static void bytes_drop(struct bytes *b, size_t n)
{
    memmove(b->at, b->at + n, b->length - n + 1);
    b->length -= n;
}

struct times {
    double *at;
    size_t count, room;
};

static void times_add(struct times *t, double value)
{
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->at = realloc(t->at, t->room * sizeof *t->at);
        must(t->at);
    }
    t->at[t->count++] = value;
}

/* ---- a conversation ---- */

/*
 * WAITING -> SENDING -> READING -> (SENDING of the next turn | ENDED). begin_turn and end_turn are the only movers.
 */
enum talk_state { TALK_WAITING, TALK_SENDING, TALK_READING, TALK_ENDED };

struct talk {
    enum talk_state state;
    json_int_t lane, wave, after_tokens;
    bool ends_all;
    const char *path;
    json_t *plan, *body, *follow;
    size_t turn;
    int fd;
    uint64_t sent_us;
    struct bytes out, in, stream; /* to be sent; as it came; freed of chunk sizes */
    bool head_done, chunked, done;
    size_t chunk_left;
    struct bytes text;
    struct times times; /* ms since sent, of each piece of text */
    json_int_t prompt_tokens, cached_tokens, completion_tokens;
    char error[200];
};

struct totals {
    size_t requests, errors;
    json_int_t prompt, cached, generated;
    struct times first, gaps;
};

struct load {
    struct sockaddr_in address;
    int epoll;
    bool each;
    uint64_t began_us, deadline_us;
    struct talk *talks;
    size_t count, ended;
    struct totals totals;
};

/* ---- what came in ---- */

static void note_error(struct talk *t, const char *what, const char *detail)
{
    if (!*t->error)
        snprintf(t->error, sizeof t->error, "%s%.120s", what, detail);
}

static json_int_t number_in(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void read_choice(struct talk *t, json_t *choice)
{
    const char *piece = json_string_value(json_object_get(choice, "text"));
    if (!piece)
        piece = json_string_value(json_object_get(json_object_get(choice, "delta"), "content"));
    if (piece && *piece) {
        bytes_add(&t->text, piece, strlen(piece));
        times_add(&t->times, (double)(now_us() - t->sent_us) * 1e-3);
    }
}

static void read_event(struct talk *t, const char *data)
{
    if (strcmp(data, "[DONE]") == 0) {
        t->done = true;
        return;
    }
    json_t *event = json_loads(data, JSON_ALLOW_NUL, NULL);
    if (!event || json_object_get(event, "error"))
        note_error(t, event ? "the server says " : "an event is no JSON: ", data);
    json_t *usage = json_object_get(event, "usage");
    if (json_is_object(usage)) {
        t->prompt_tokens = number_in(usage, "prompt_tokens");
        t->cached_tokens = number_in(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
        t->completion_tokens = number_in(usage, "completion_tokens");
    }
    read_choice(t, json_array_get(json_object_get(event, "choices"), 0));
    json_decref(event);
}

static void read_lines(struct talk *t)
{
    size_t at = 0;
    for (char *end; (end = memchr(t->stream.at + at, '\n', t->stream.length - at));
         at = (size_t)(end - t->stream.at) + 1) {
        char *line = t->stream.at + at;
        *end = '\0';
        if (end > line && end[-1] == '\r')
            end[-1] = '\0';
        if (strncmp(line, "data:", 5) == 0)
            read_event(t, line + 5 + strspn(line + 5, " "));
    }
    bytes_drop(&t->stream, at);
}

/* Status and header fields; true when they are there whole. */
static bool read_head(struct talk *t)
{
    char *end = strstr(t->in.at, "\r\n\r\n");
    if (!end)
        return false;
    *end = '\0';
    if (strncmp(t->in.at, "HTTP/1.", 7) != 0 || strncmp(t->in.at + 8, " 200", 4) != 0)
        note_error(t, "", strncmp(t->in.at, "HTTP/1.", 7) == 0 ? t->in.at + 9 : "the answer is no HTTP");
    t->chunked = strcasestr(t->in.at, "transfer-encoding: chunked") != NULL;
    t->head_done = true;
    bytes_drop(&t->in, (size_t)(end - t->in.at) + 4);
    return true;
}

/* Moves what is there of chunks from `in` to `stream`. */
static void read_chunks(struct talk *t)
{
    while (t->in.length) {
        if (t->chunk_left == 0) { /* "SIZE\r\n", after the first chunk with "\r\n" in front */
            char *size = t->in.at + strspn(t->in.at, "\r\n"), *end = strstr(size, "\r\n");
            if (!end)
                return;
            t->chunk_left = strtoul(size, NULL, 16);
            bytes_drop(&t->in, (size_t)(end - t->in.at) + 2);
            if (t->chunk_left == 0)
                return; /* the last one */
        }
        size_t n = t->in.length < t->chunk_left ? t->in.length : t->chunk_left;
        bytes_add(&t->stream, t->in.at, n);
        bytes_drop(&t->in, n);
        t->chunk_left -= n;
    }
}

static void read_what_came(struct talk *t)
{
    if (!t->head_done && !read_head(t))
        return;
    if (t->chunked) {
        read_chunks(t);
    } else {
        bytes_add(&t->stream, t->in.at, t->in.length);
        bytes_drop(&t->in, t->in.length);
    }
    if (t->stream.length)
        read_lines(t);
}

/* ---- turns ---- */

static void compose(struct talk *t)
{
    char head[400];
    char *body = json_dumps(t->body, JSON_COMPACT);
    must(body);
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     t->path, strlen(body));
    must(n > 0 && (size_t)n < sizeof head);
    t->out.length = 0;
    bytes_add(&t->out, head, (size_t)n);
    bytes_add(&t->out, body, strlen(body));
    free(body);
}

static void end_turn(struct load *l, struct talk *t);

static void begin_turn(struct load *l, struct talk *t)
{
    compose(t);
    t->in.length = t->stream.length = t->text.length = 0;
    bytes_add(&t->text, "", 0);
    t->times.count = 0;
    t->prompt_tokens = t->cached_tokens = t->completion_tokens = 0;
    t->head_done = t->chunked = t->done = false;
    t->chunk_left = 0;
    t->state = TALK_SENDING;
    t->sent_us = now_us();
    t->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(t->fd >= 0);
    if (connect(t->fd, (struct sockaddr *)&l->address, sizeof l->address) < 0 && errno != EINPROGRESS) {
        note_error(t, "no connection: ", strerror(errno));
        end_turn(l, t);
        return;
    }
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT, .data.ptr = t};
    must(epoll_ctl(l->epoll, EPOLL_CTL_ADD, t->fd, &wanted) == 0);
}

static void print_turn(const struct load *l, const struct talk *t)
{
    json_t *times = json_array();
    for (size_t i = 0; i < t->times.count; i++)
        json_array_append_new(times, json_real(t->times.at[i]));
    json_t *line = json_pack("{s:I, s:I, s:I, s:f, s:o, s:I, s:I, s:I, s:s*}", "lane", t->lane, "wave", t->wave, "turn",
                             (json_int_t)t->turn, "sent_ms", (double)(t->sent_us - l->began_us) * 1e-3, "times_ms",
                             times, "prompt_tokens", t->prompt_tokens, "cached_tokens", t->cached_tokens,
                             "completion_tokens", t->completion_tokens, "error", *t->error ? t->error : NULL);
    must(line);
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(line);
}

static void count_turn(struct totals *sum, const struct talk *t)
{
    sum->requests++;
    if (*t->error) {
        sum->errors++;
        return;
    }
    sum->prompt += t->prompt_tokens;
    sum->cached += t->cached_tokens;
    sum->generated += t->completion_tokens ? t->completion_tokens : (json_int_t)t->times.count;
    if (t->times.count)
        times_add(&sum->first, t->times.at[0]);
    for (size_t i = 1; i < t->times.count; i++)
        times_add(&sum->gaps, t->times.at[i] - t->times.at[i - 1]);
}

static void cut_off_others(struct load *l)
{
    for (struct talk *t = l->talks; t < l->talks + l->count; t++) {
        bool runs = t->state == TALK_SENDING || t->state == TALK_READING;
        json_array_clear(t->follow);
        t->done = true;
        if (runs)
            end_turn(l, t);
    }
    l->ended = l->count;
}

static void end_turn(struct load *l, struct talk *t)
{
    close(t->fd);
    if (!t->done)
        note_error(t, "the stream ended without [DONE]", "");
    if (l->each)
        print_turn(l, t);
    count_turn(&l->totals, t);
    const char *next = json_string_value(json_array_get(t->follow, t->turn));
    if (next && !*t->error) {
        json_t *messages = json_object_get(t->body, "messages");
        json_array_append_new(messages,
                              json_pack("{s:s, s:s%}", "role", "assistant", "content", t->text.at, t->text.length));
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user", "content", next));
        t->turn++;
        begin_turn(l, t);
        return;
    }
    t->state = TALK_ENDED;
    l->ended++;
    if (t->ends_all)
        cut_off_others(l);
}

/* ---- who may begin ---- */

static bool may_begin(const struct load *l, const struct talk *t)
{
    for (const struct talk *other = l->talks; other < l->talks + l->count; other++) {
        if (other->state != TALK_ENDED && (other->wave < t->wave || (other < t && other->lane == t->lane)))
            return false;
        bool speaks = other->state != TALK_WAITING && other->times.count >= (size_t)t->after_tokens;
        if (t->after_tokens > 0 && other->after_tokens == 0 && other->wave == t->wave && !speaks)
            return false;
    }
    return true;
}

static void begin_those_that_may(struct load *l)
{
    for (struct talk *t = l->talks; t < l->talks + l->count; t++)
        if (t->state == TALK_WAITING && may_begin(l, t))
            begin_turn(l, t);
}

/* ---- the loop ---- */

static void send_some(struct load *l, struct talk *t)
{
    ssize_t n = send(t->fd, t->out.at, t->out.length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        note_error(t, "no connection: ", strerror(errno));
        end_turn(l, t);
        return;
    }
    if (n > 0)
        bytes_drop(&t->out, (size_t)n);
    if (t->out.length == 0) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = t};
        t->state = TALK_READING;
        must(epoll_ctl(l->epoll, EPOLL_CTL_MOD, t->fd, &wanted) == 0);
    }
}

static void receive_some(struct load *l, struct talk *t)
{
    static char bytes[READ_BYTES];
    ssize_t n = recv(t->fd, bytes, sizeof bytes, 0);
    if (n > 0) {
        bytes_add(&t->in, bytes, (size_t)n);
        read_what_came(t);
    } else if (n < 0 && errno != EAGAIN) {
        note_error(t, "the connection broke: ", strerror(errno));
    }
    if (n == 0 || t->done || (n < 0 && errno != EAGAIN))
        end_turn(l, t);
}

static void give_up(struct load *l)
{
    for (struct talk *t = l->talks; t < l->talks + l->count; t++) {
        note_error(t, "not done in time", "");
        if (t->state == TALK_SENDING || t->state == TALK_READING)
            end_turn(l, t);
    }
    l->ended = l->count;
}

static void run(struct load *l)
{
    struct epoll_event events[EVENTS];
    l->began_us = now_us();
    begin_those_that_may(l);
    while (l->ended < l->count && now_us() < l->deadline_us) {
        int n = epoll_wait(l->epoll, events, EVENTS, TICK_MS);
        for (int i = 0; i < n; i++) {
            struct talk *t = events[i].data.ptr;
            if (t->state == TALK_SENDING)
                send_some(l, t);
            else if (t->state == TALK_READING)
                receive_some(l, t);
        }
        begin_those_that_may(l);
    }
    if (l->ended < l->count)
        give_up(l);
}

/* ---- the summary ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const struct times *t, int p)
{
    size_t i = (size_t)(p / 100.0 * (double)t->count);
    return t->count ? t->at[i < t->count ? i : t->count - 1] : 0;
}

static void print_percentiles(const char *name, struct times *t, int digits)
{
    if (t->count)
        qsort(t->at, t->count, sizeof *t->at, ascending);
    printf(", \"%s\": {\"50\": %.*f, \"90\": %.*f, \"99\": %.*f}", name, digits, percentile(t, 50), digits,
           percentile(t, 90), digits, percentile(t, 99));
}

static void print_summary(struct load *l)
{
    double seconds = (double)(now_us() - l->began_us) * 1e-6;
    struct totals *sum = &l->totals;
    printf("{\"sessions\": %zu, \"requests\": %zu, \"errors\": %zu, \"seconds\": %.2f, \"prompt_tokens\": %lld, "
           "\"cached_tokens\": %lld, \"generated_tokens\": %lld, \"generated_tps\": %.1f",
           l->count, sum->requests, sum->errors, seconds, (long long)sum->prompt, (long long)sum->cached,
           (long long)sum->generated, (double)sum->generated / seconds);
    print_percentiles("first_token_ms", &sum->first, 0);
    print_percentiles("gap_ms", &sum->gaps, 1);
    printf(", \"longest_gap_ms\": %.0f}\n", percentile(&sum->gaps, 100));
}

/* ---- plan and command line ---- */

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "bench_load: %s%s\n", what, detail);
    exit(1);
}

static json_int_t number_or(json_t *plan, const char *key, json_int_t otherwise)
{
    json_t *value = json_object_get(plan, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static void read_plan(struct load *l)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        json_error_t problem;
        json_t *plan = json_loads(line, 0, &problem);
        if (!plan)
            die("a line of the plan is no JSON: ", problem.text);
        l->talks = realloc(l->talks, (l->count + 1) * sizeof *l->talks);
        must(l->talks);
        struct talk *t = &l->talks[l->count];
        *t = (struct talk){
            .plan = plan,
            .lane = number_or(plan, "lane", -1 - (json_int_t)l->count),
            .wave = number_or(plan, "wave", 0),
            .after_tokens = number_or(plan, "after_tokens", 0),
            .ends_all = json_is_true(json_object_get(plan, "ends_all")),
            .path = json_string_value(json_object_get(plan, "path")),
            .body = json_object_get(plan, "body"),
            .follow = json_object_get(plan, "follow"),
            .fd = -1,
        };
        if (!t->path || strlen(t->path) > 200 || !json_is_object(t->body) || t->after_tokens < 0)
            die("a line of the plan lacks path or body: ", line);
        json_object_set_new(t->body, "stream", json_true());
        json_object_set_new(t->body, "stream_options", json_pack("{s:b}", "include_usage", 1));
        l->count++;
    }
    free(line);
}

static void read_url(struct load *l, const char *url)
{
    char host[64];
    unsigned port;
    if (sscanf(url, "http://%63[0-9.]:%u", host, &port) != 2 || port > 65535 ||
        inet_pton(AF_INET, host, &l->address.sin_addr) != 1)
        die("not of the form http://127.0.0.1:8080: ", url);
    l->address.sin_family = AF_INET;
    l->address.sin_port = htons((uint16_t)port);
}

int main(int argc, char **argv)
{
    struct load l = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
    uint64_t timeout_s = 600;
    must(l.epoll >= 0);
    read_url(&l, "http://127.0.0.1:8080");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--each") == 0)
            l.each = true;
        else if (strcmp(argv[i], "--url") == 0 && i + 1 < argc)
            read_url(&l, argv[++i]);
        else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc)
            timeout_s = strtoull(argv[++i], NULL, 10);
        else
            die("usage: bench_load [--url http://127.0.0.1:8080] [--timeout S] [--each] < PLAN", "");
    }
    read_plan(&l);
    l.deadline_us = now_us() + timeout_s * 1000000;
    run(&l);
    if (!l.each)
        print_summary(&l);
    for (size_t i = 0; i < l.count; i++) {
        struct talk *t = &l.talks[i];
        json_decref(t->plan);
        free(t->out.at), free(t->in.at), free(t->stream.at), free(t->text.at), free(t->times.at);
    }
    free(l.totals.first.at), free(l.totals.gaps.at), free(l.talks);
    return l.totals.errors || l.totals.requests < l.count;
}
