/* What the server looks like from inside: GET /quire/state and the gauges of /metrics. */
#include <unistd.h>

#include "base/clock.h"
#include "coordinator/server.h"

enum { SPARES_SHOWN = 64 };

/* "name": in front of a value; a comma first unless it opens an object. */
static void key(struct text *out, const char *name)
{
    char last = out->length ? out->at[out->length - 1] : '{';
    if (last != '{' && last != '[')
        text_add_string(out, ",");
    text_json_string_z(out, name);
    text_add_string(out, ":");
}

static void key_number(struct text *out, const char *name, uint64_t value)
{
    key(out, name);
    text_add_u64(out, value);
}

static void key_text(struct text *out, const char *name, const char *value)
{
    key(out, name);
    text_json_string_z(out, value);
}

static void next_object(struct text *out)
{
    bool first = out->length == 0 || out->at[out->length - 1] == '['; /* nothing at all: there is no memory */
    text_add_string(out, first ? "{" : ",{");
}

static void write_workers(const struct supervisor *v, struct text *out)
{
    key(out, "workers");
    text_add_string(out, "[");
    for (uint32_t i = 0; i < supervisor_ranks(v); i++) {
        struct rank_view rank = supervisor_rank(v, i);
        next_object(out);
        key_number(out, "id", rank.id);
        key_number(out, "group", rank.group);
        key_number(out, "pid", (uint64_t)rank.pid);
        key_number(out, "cpu", rank.cpu);
        key_number(out, "node", rank.node);
        key_text(out, "state", rank.state);
        key_number(out, "restarts", rank.restarts);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
    pid_t pids[SPARES_SHOWN];
    uint32_t spares = supervisor_spares(v, pids, SPARES_SHOWN);
    key(out, "spares");
    text_add_string(out, "[");
    for (uint32_t i = 0; i < spares; i++) {
        next_object(out);
        key_number(out, "pid", (uint64_t)pids[i]);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
}

/* Of a model with windows: what layers keep that see everything, and what layers keep that see a window. */
static void write_page_classes(const struct inference *f, struct text *out)
{
    const struct arena_geometry *g = &f->arena.geometry;
    key(out, "classes");
    text_add_string(out, "[");
    for (uint32_t c = 0; c < g->page_classes; c++) {
        struct page_counts pages = scheduler_class_pages(f->scheduler, c);
        next_object(out);
        key_number(out, "window", c == PAGE_CLASS_WINDOW ? g->window : 0);
        key_number(out, "page_bytes", g->page_bytes[c]);
        key_number(out, "total", pages.total);
        key_number(out, "free", pages.free);
        key_number(out, "used", pages.used);
        key_number(out, "cached", pages.cached);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
}

static void write_pages(const struct inference *f, struct text *out)
{
    struct page_counts pages = scheduler_pages(f->scheduler);
    key(out, "pages");
    text_add_string(out, "{");
    key_number(out, "page_tokens", PAGE_TOKENS);
    key_number(out, "page_bytes", f->arena.geometry.page_bytes[0]);
    key_number(out, "total", pages.total);
    key_number(out, "free", pages.free);
    key_number(out, "used", pages.used);
    key_number(out, "cached", pages.cached);
    key_number(out, "retired", pages.retired);
    key_number(out, "shared", pages.shared);
    write_page_classes(f, out);
    text_add_string(out, "}");
}

static void write_sessions(const struct scheduler *scheduler, bool windows, struct text *out)
{
    key(out, "sessions");
    text_add_string(out, "[");
    for (const struct sequence *q = scheduler_running_list(scheduler)->first; q; q = q->next) {
        next_object(out);
        key_text(out, "id", q->id);
        key_text(out, "state", sequence_state_name(q->state));
        key_number(out, "tokens", q->n_tok);
        key_number(out, "prompt_tokens", q->prompt_tokens);
        key_number(out, "pages", q->pages);
        if (windows)
            key_number(out, "window_pages", q->pages - q->window_first);
        key_number(out, "group", q->group);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
    key_number(out, "waiting", scheduler_waiting(scheduler));
    key_number(out, "max_sessions", scheduler_max_sessions(scheduler));
}

static void write_tokens(const struct scheduler_counters *c, struct text *out)
{
    key(out, "tokens");
    text_add_string(out, "{");
    key_number(out, "prefilled", c->prefilled);
    key_number(out, "generated", c->generated);
    key_number(out, "reused", c->reused);
    key_number(out, "recomputed", c->recomputed);
    text_add_string(out, "}");
}

void server_state_write(struct server *s, struct text *out)
{
    static const char *const phases[] = {
        [SERVER_LOADING] = "loading", [SERVER_READY] = "ready", [SERVER_DRAINING] = "draining"};
    const struct inference *f = &s->inference;
    const struct scheduler_counters *counters = scheduler_counters(f->scheduler);
    text_add_string(out, "{");
    key_text(out, "name", s->options->name);
    key_text(out, "model", f->checkpoint.api.model_name);
    key_text(out, "phase", phases[s->phase]);
    key_number(out, "coordinator_pid", (uint64_t)getpid());
    key(out, "uptime_s");
    text_add_f64(out, (double)(now_us() - s->started_us) * 1e-6);
    key_number(out, "steps", counters->steps);
    if (s->phase == SERVER_LOADING) {
        key(out, "loading");
        text_add_string(out, "{");
        key_number(out, "done", s->build_done);
        key_number(out, "total", s->build_total);
        text_add_string(out, "}");
    }
    write_workers(f->supervisor, out);
    write_pages(f, out);
    write_sessions(f->scheduler, f->arena.geometry.window > 0, out);
    write_tokens(counters, out);
    text_add_string(out, "}");
}

void server_gather_metrics(struct server *s)
{
    const struct inference *f = &s->inference;
    const struct scheduler_counters *c = scheduler_counters(f->scheduler);
    struct page_counts pages = scheduler_pages(f->scheduler);
    struct metrics *m = &s->metrics;
    m->requests_running = scheduler_running(f->scheduler);
    m->requests_waiting = scheduler_waiting(f->scheduler);
    m->kv_cache_usage = 0; /* of the class that is nearest to its end */
    for (uint32_t i = 0; i < f->arena.geometry.page_classes; i++) {
        struct page_counts of = scheduler_class_pages(f->scheduler, i);
        double usage = of.total ? (double)of.used / of.total : 0;
        m->kv_cache_usage = usage > m->kv_cache_usage ? usage : m->kv_cache_usage;
    }
    m->kv_pages[METRIC_PAGES_FREE] = pages.free;
    m->kv_pages[METRIC_PAGES_USED] = pages.used;
    m->kv_pages[METRIC_PAGES_CACHED] = pages.cached;
    m->kv_pages_shared = pages.shared;
    m->prefix_cache_queries = c->prefix_queries;
    m->prefix_cache_hits = c->prefix_hits;
    m->preemptions = c->preempted;
    m->prompt_tokens = c->prefilled;
    m->generation_tokens = c->generated;
    m->recomputed_tokens = c->recomputed;
    m->steps = c->steps;
    m->http_connections = http_server_connections(s->http);
    m->worker_restarts = 0;
    m->workers_ready = m->workers_lost = 0;
    for (uint32_t i = 0; i < supervisor_ranks(f->supervisor); i++) {
        struct rank_view rank = supervisor_rank(f->supervisor, i);
        m->worker_restarts += rank.restarts;
        m->workers_lost += rank.pid == 0;
        m->workers_ready += rank.state[0] == 'r';
    }
    pid_t pids[SPARES_SHOWN];
    m->worker_spares = supervisor_spares(f->supervisor, pids, SPARES_SHOWN);
    m->worker_hangs = supervisor_hangs(f->supervisor);
    m->damaged_pages = c->damaged;
    m->requests_convicted = c->convicted;
}
