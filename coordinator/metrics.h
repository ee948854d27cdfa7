/*
 * metrics: what /metrics says. One list makes the structure, the names, the help and the text; to count is a plain
 * addition by the loop's thread, without lock or allocation. Label values are closed enums: no client can make a new
 * one.
 *
 * Names are vLLM's stems behind "quire_", so that dashboards and gateways are one rename away.
 * Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4)
 */
#ifndef QUIRE_COORDINATOR_METRICS_H
#define QUIRE_COORDINATOR_METRICS_H

#include <stdint.h>

#include "coordinator/text.h"

/* clang-format off: tables */

/* X(enumerator, "label value") */
#define METRIC_FINISHED_REASONS(X) \
    X(METRIC_STOP, "stop")         \
    X(METRIC_LENGTH, "length")     \
    X(METRIC_ABORT, "abort")       \
    X(METRIC_ERROR, "error")
#define METRIC_PAGE_STATES(X)        \
    X(METRIC_PAGES_FREE, "free")     \
    X(METRIC_PAGES_USED, "used")     \
    X(METRIC_PAGES_CACHED, "cached") \
    X(METRIC_PAGES_RETIRED, "retired")
#define METRIC_ROUTES(X)                       \
    X(METRIC_ROUTE_CHAT, "chat")               \
    X(METRIC_ROUTE_COMPLETIONS, "completions") \
    X(METRIC_ROUTE_TOKENIZER, "tokenizer")     \
    X(METRIC_ROUTE_MODELS, "models")           \
    X(METRIC_ROUTE_HEALTH, "health")           \
    X(METRIC_ROUTE_METRICS, "metrics")         \
    X(METRIC_ROUTE_STATE, "state")             \
    X(METRIC_ROUTE_PAGE, "page")               \
    X(METRIC_ROUTE_OTHER, "other")
#define METRIC_STATUS_CLASSES(X) \
    X(METRIC_2XX, "2xx")         \
    X(METRIC_3XX, "3xx")         \
    X(METRIC_4XX, "4xx")         \
    X(METRIC_5XX, "5xx")

#define METRIC_ENUMERATOR(name, label) name,
enum metric_finished { METRIC_FINISHED_REASONS(METRIC_ENUMERATOR) METRIC_FINISHED_COUNT };
enum metric_page_state { METRIC_PAGE_STATES(METRIC_ENUMERATOR) METRIC_PAGE_STATE_COUNT };
enum metric_route { METRIC_ROUTES(METRIC_ENUMERATOR) METRIC_ROUTE_COUNT };
enum metric_status { METRIC_STATUS_CLASSES(METRIC_ENUMERATOR) METRIC_STATUS_COUNT };
#undef METRIC_ENUMERATOR

/*
 * The list, in the order of /metrics.
 *   C(field, "name", "help")                                       counter, uint64_t
 *   G(field, "name", "help")                                       gauge, double
 *   L(field, "name", "help", type, "label", VALUES, count)         one counter or gauge a label value, uint64_t[count]
 *   H(field, "name", "help", buckets)                              histogram
 */
#define METRICS(C, G, L, H)                                                                                            \
    G(requests_running, "num_requests_running", "Sequences that hold a session slot.")                                 \
    G(requests_waiting, "num_requests_waiting", "Sequences in the queue.")                                             \
    G(kv_cache_usage, "kv_cache_usage_perc", "Share of KV pages that running sequences hold, 0 to 1.")                 \
    L(kv_pages, "kv_pages", "KV pages by state.", "gauge", "state", METRIC_PAGE_STATES, METRIC_PAGE_STATE_COUNT)       \
    G(kv_pages_shared, "kv_pages_shared", "KV pages that more than one sequence holds.")                               \
    C(prefix_cache_queries, "prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.")              \
    C(prefix_cache_hits, "prefix_cache_hits_total", "Prompt tokens whose keys and values were found in pages.")        \
    C(preemptions, "num_preemptions_total", "Sequences that gave their pages back and were rebuilt from tokens.")      \
    C(prompt_tokens, "prompt_tokens_total", "Prompt tokens computed.")                                                 \
    C(generation_tokens, "generation_tokens_total", "Tokens generated.")                                               \
    C(recomputed_tokens, "recomputed_tokens_total", "Positions computed again after a fault.")                         \
    L(request_success, "request_success_total", "Choices that ended, by reason.", "counter", "finished_reason",        \
      METRIC_FINISHED_REASONS, METRIC_FINISHED_COUNT)                                                                  \
    L(http_requests, "http_requests_total", "HTTP requests by route.", "counter", "route", METRIC_ROUTES,              \
      METRIC_ROUTE_COUNT)                                                                                              \
    L(http_responses, "http_responses_total", "HTTP responses by class of status.", "counter", "status",               \
      METRIC_STATUS_CLASSES, METRIC_STATUS_COUNT)                                                                      \
    C(requests_rejected, "requests_rejected_total",                                                                    \
      "Requests refused because the queue was full or the server drains.")                                             \
    G(http_connections, "http_connections", "Open client connections.")                                                \
    C(steps, "steps_total", "Steps that the workers finished.")                                                        \
    C(worker_restarts, "worker_restarts_total", "Times that a rank changed its process.")                              \
    C(worker_hangs, "worker_hangs_total", "Workers killed because a step missed its deadline.")                        \
    C(damaged_pages, "damaged_pages_total", "Pages whose checksum was wrong; their tokens were computed again.")       \
    C(requests_convicted, "requests_convicted_total", "Sequences that ended with an error since they ended workers.")  \
    G(workers_ready, "workers_ready", "Ranks that stand.")                                                             \
    G(workers_lost, "workers_lost", "Ranks without a process.")                                                        \
    G(worker_spares, "worker_spares", "Attached processes that wait for a rank.")                                      \
    H(time_to_first_token, "time_to_first_token_seconds", "From a request's arrival to its first token.",              \
      metric_request_buckets)                                                                                          \
    H(inter_token_latency, "inter_token_latency_seconds", "Between two tokens of a sequence.", metric_token_buckets)   \
    H(e2e_request_latency, "e2e_request_latency_seconds", "From a request's arrival to its end.",                      \
      metric_request_buckets)                                                                                          \
    H(request_queue_time, "request_queue_time_seconds", "From a request's arrival to its admission.",                  \
      metric_request_buckets)                                                                                          \
    H(request_prefill_time, "request_prefill_time_seconds", "From admission to the first token.",                      \
      metric_request_buckets)                                                                                          \
    H(request_decode_time, "request_decode_time_seconds", "From the first token to the last.", metric_request_buckets) \
    H(request_prompt_tokens, "request_prompt_tokens", "Prompt tokens of a request.", metric_size_buckets)              \
    H(request_generation_tokens, "request_generation_tokens", "Tokens generated for a choice.", metric_size_buckets)   \
    H(step_time, "step_time_seconds", "Time of a step, from its plan to its results.", metric_token_buckets)           \
    H(step_tokens, "iteration_tokens", "Positions computed in a step.", metric_size_buckets)

/* clang-format on */

enum { METRIC_BUCKETS = 16 };

/* Upper bounds, ascending; +Inf is not among them. */
extern const double metric_request_buckets[METRIC_BUCKETS]; /* seconds of a request */
extern const double metric_token_buckets[METRIC_BUCKETS];   /* seconds of a token or a step */
extern const double metric_size_buckets[METRIC_BUCKETS];    /* tokens */

struct metric_histogram {
    uint64_t counts[METRIC_BUCKETS + 1]; /* each its own bucket only; the last one is above all bounds */
    double sum;
};

struct metrics {
#define C(field, name, help) uint64_t field;
#define G(field, name, help) double field;
#define L(field, name, help, type, label, values, count) uint64_t field[count];
#define H(field, name, help, buckets) struct metric_histogram field;
    METRICS(C, G, L, H)
#undef C
#undef G
#undef L
#undef H
};

/* Adds one observation, in the unit of `bounds`. A negative or not finite one counts as 0. */
void metric_observe(struct metric_histogram *h, const double *bounds, double value);

/* metrics_observe(&m, inter_token_latency, seconds) finds the bounds that the list gives the field. */
#define metrics_observe(m, field, value) metrics_observe_##field((m), (value))
#define C(field, name, help)
#define G(field, name, help)
#define L(field, name, help, type, label, values, count)
#define H(field, name, help, buckets)                                           \
    static inline void metrics_observe_##field(struct metrics *m, double value) \
    {                                                                           \
        metric_observe(&m->field, buckets, value);                              \
    }
METRICS(C, G, L, H)
#undef C
#undef G
#undef L
#undef H

/* What does not change while the server runs. */
struct metrics_constants {
    const char *model_name;        /* label model_name on every sample */
    const char *version, *kernels; /* labels of quire_build_info */
    double start_seconds;          /* unix time of the start */
};

/* The whole page. */
void metrics_write(struct text *out, const struct metrics *m, const struct metrics_constants *constants);

#endif
