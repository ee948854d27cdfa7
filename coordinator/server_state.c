/* What the server looks like from inside: GET /quire/state and the gauges of /metrics. */
#include <unistd.h>

#include "base/clock.h"
#include "coordinator/server.h"
#include "coordinator/text_json.h"

enum { SPARES_SHOWN = 64 };

static void write_workers(const struct supervisor *v, struct text *out)
{
    json_open(out, "workers", '[');
    for (uint32_t i = 0; i < supervisor_ranks(v); i++) {
        struct rank_view rank = supervisor_rank(v, i);
        json_open(out, NULL, '{');
        json_u64(out, "id", rank.id);
        json_u64(out, "group", rank.group);
        json_u64(out, "pid", (uint64_t)rank.pid);
        json_u64(out, "cpu", rank.cpu);
        json_u64(out, "node", rank.node);
        json_text(out, "state", rank.state);
        json_u64(out, "restarts", rank.restarts);
        json_close(out, '}');
    }
    json_close(out, ']');
    pid_t pids[SPARES_SHOWN];
    uint32_t spares = supervisor_spares(v, pids, SPARES_SHOWN);
    json_open(out, "spares", '[');
    for (uint32_t i = 0; i < spares; i++) {
        json_open(out, NULL, '{');
        json_u64(out, "pid", (uint64_t)pids[i]);
        json_close(out, '}');
    }
    json_close(out, ']');
}

/* Of a model with windows: what layers keep that see everything, and what layers keep that see a window. */
static void write_page_classes(const struct inference *f, struct text *out)
{
    const struct arena_geometry *g = &f->arena.geometry;
    json_open(out, "classes", '[');
    for (uint32_t c = 0; c < g->page_classes; c++) {
        struct page_counts pages = scheduler_class_pages(f->scheduler, c);
        json_open(out, NULL, '{');
        json_u64(out, "window", c == PAGE_CLASS_WINDOW ? g->window : 0);
        json_u64(out, "page_bytes", g->page_bytes[c]);
        json_u64(out, "total", pages.total);
        json_u64(out, "free", pages.free);
        json_u64(out, "used", pages.used);
        json_u64(out, "cached", pages.cached);
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void write_pages(const struct inference *f, struct text *out)
{
    struct page_counts pages = scheduler_pages(f->scheduler);
    json_open(out, "pages", '{');
    json_u64(out, "page_tokens", PAGE_TOKENS);
    json_u64(out, "page_bytes", f->arena.geometry.page_bytes[0]);
    json_u64(out, "total", pages.total);
    json_u64(out, "free", pages.free);
    json_u64(out, "used", pages.used);
    json_u64(out, "cached", pages.cached);
    json_u64(out, "retired", pages.retired);
    json_u64(out, "shared", pages.shared);
    write_page_classes(f, out);
    json_close(out, '}');
}

static void write_sessions(const struct scheduler *scheduler, bool windows, struct text *out)
{
    json_open(out, "sessions", '[');
    for (const struct sequence *q = scheduler_running_list(scheduler)->first; q; q = q->next) {
        json_open(out, NULL, '{');
        json_text(out, "id", q->id);
        json_text(out, "state", sequence_state_name(q->state));
        json_u64(out, "tokens", q->n_tok);
        json_u64(out, "prompt_tokens", q->prompt_tokens);
        json_u64(out, "pages", q->pages);
        if (windows)
            json_u64(out, "window_pages", q->pages - q->window_first);
        json_u64(out, "group", q->group);
        json_close(out, '}');
    }
    json_close(out, ']');
    json_u64(out, "waiting", scheduler_waiting(scheduler));
    json_u64(out, "max_sessions", scheduler_max_sessions(scheduler));
}

static void write_tokens(const struct scheduler_counters *c, struct text *out)
{
    json_open(out, "tokens", '{');
    json_u64(out, "prefilled", c->prefilled);
    json_u64(out, "generated", c->generated);
    json_u64(out, "reused", c->reused);
    json_u64(out, "recomputed", c->recomputed);
    json_close(out, '}');
}

void server_state_write(struct server *s, struct text *out)
{
    static const char *const phases[] = {
        [SERVER_LOADING] = "loading", [SERVER_READY] = "ready", [SERVER_DRAINING] = "draining"};
    const struct inference *f = &s->inference;
    const struct scheduler_counters *counters = scheduler_counters(f->scheduler);
    json_open(out, NULL, '{');
    json_text(out, "name", s->options->name);
    json_text(out, "model", f->checkpoint.api.model_name);
    json_text(out, "phase", phases[s->phase]);
    json_u64(out, "coordinator_pid", (uint64_t)getpid());
    json_f64(out, "uptime_s", (double)(now_us() - s->started_us) * 1e-6);
    json_u64(out, "steps", counters->steps);
    if (s->phase == SERVER_LOADING) {
        json_open(out, "loading", '{');
        json_u64(out, "done", s->build_done);
        json_u64(out, "total", s->build_total);
        json_close(out, '}');
    }
    write_workers(f->supervisor, out);
    write_pages(f, out);
    write_sessions(f->scheduler, f->arena.geometry.window > 0, out);
    write_tokens(counters, out);
    json_close(out, '}');
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
    m->kv_pages[METRIC_PAGES_RETIRED] = pages.retired;
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
