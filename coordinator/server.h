/*
 * server: what `quire serve` runs: HTTP in front, inference behind, one event loop in between. It holds the parts
 * together; routes.c says who may ask for what, live_request.c follows one generation, server_state.c shows the inside.
 *
 * The loop's thread parses at most 64 KiB of a connection a turn and computes nothing: bodies, templates, tokens and long
 * answers are the helper threads' work, steps the workers'.
 */
#ifndef QUIRE_COORDINATOR_SERVER_H
#define QUIRE_COORDINATOR_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/api_keys.h"
#include "coordinator/http.h"
#include "coordinator/inference.h"
#include "coordinator/job_pool.h"
#include "coordinator/metrics.h"
#include "coordinator/options.h"
#include "coordinator/text.h"

struct live_request;

/* READY only moves on: LOADING -> READY -> DRAINING. */
enum server_phase { SERVER_LOADING, SERVER_READY, SERVER_DRAINING };

struct server {
    const struct serve_options *options;
    struct event_base *loop;
    struct inference inference;
    struct http_server *http;
    struct job_pool *jobs;
    struct api_keys keys;
    struct metrics metrics;
    enum server_phase phase;
    uint64_t started_us;
    int64_t started_unix;
    struct event *on_term, *on_int, *every_second, *drain_deadline;
    struct live_request *requests; /* all that are parsed, computed or listened to, newest first */
    struct live_request *kept;     /* those that only wait to be picked up, newest first */
    uint32_t kept_count;
    uint64_t kept_bytes;
    struct live_request *dirty;       /* those that have something to send */
    struct event *flush;              /* sends for the dirty ones once the scheduler had its turn */
    struct text scratch;              /* one answer or piece of it on its way out */
    uint64_t build_done, build_total; /* bytes of weights, while LOADING */
    bool stopping_hard;
    int exit_code;
};

/* Runs until it is told to stop; the exit code. One line on stderr says why when it is not 0. */
int server_run(const struct serve_options *options);

/* GET /quire/state */
void server_state_write(struct server *s, struct text *out);

/* Brings gauges up to date before /metrics is written. */
void server_gather_metrics(struct server *s);

#endif
