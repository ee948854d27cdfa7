#include "shm/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "shm/arena.h"
#include "shm/instance.h"
#include "shm/sequence_table.h"

const char *arena_state_name(enum arena_state state)
{
    static const char *const names[] = {"building", "serving", "adopting", "ended"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : "damaged";
}

const char *session_state_name(enum session_state state)
{
    static const char *const names[] = {"free", "live", "retired", "kept"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : "damaged";
}

/* Every load below is relaxed: each word is shown as it is now, together they promise nothing. */
#define NOW(word) atomic_load_explicit(&(word), memory_order_relaxed) /* see above */

static void read_header(struct inspection *out, const struct arena *a)
{
    const struct arena_header *h = arena_header(a);
    out->header_version = h->header_version;
    out->layout_version = h->layout_version;
    out->model_hash = h->model_hash;
    out->state = (enum arena_state)NOW(h->state);
    out->owner_pid = NOW(h->owner_pid);
    out->generation = NOW(h->generation);
    out->weights_built = NOW(h->weights_built);
    out->started_us = NOW(h->started_us);
    out->geometry = a->geometry;
    out->total_bytes = a->layout.total_bytes;
    for (uint32_t g = 0; g < a->geometry.groups; g++)
        out->group_epochs[g] = NOW(group_word_at(a, g)->epoch);
}

static void read_pages(struct inspection *out, const struct arena *a)
{
    const struct page_descriptor *descriptors =
        (const struct page_descriptor *)(const void *)(a->table.base + a->layout.descriptors_at);
    out->page_count = a->layout.page_count;
    for (page_id page = 0; page < out->page_count; page++) {
        const struct page_descriptor *d = &descriptors[page];
        uint32_t state = NOW(d->state);
        if (state < PAGE_STATES)
            out->pages_by_state[state]++;
        bool sealed = state == PAGE_SEALED || state == PAGE_CACHED;
        out->damaged_pages += state >= PAGE_STATES || (sealed && !page_descriptor_is_whole(d));
        out->shared_pages += sealed && d->holders > 1;
    }
}

static void read_worker(struct inspected_worker *w, uint32_t slot, const struct worker_slot *s)
{
    *w = (struct inspected_worker){
        .slot = slot,
        .generation = s->generation,
        .cpu = s->cpu,
        .pid = NOW(s->pid),
        .group = NOW(s->group),
        .rank = NOW(s->rank),
        .epoch = NOW(s->epoch),
        .state = (enum worker_state)NOW(s->state),
        .step_done = NOW(s->step_done),
        .beat_us = NOW(s->beat_us),
        .busy_us = NOW(s->busy_us),
        .wait_us = NOW(s->wait_us),
        .steps = NOW(s->steps),
        .tokens = NOW(s->tokens),
        .aborts = NOW(s->aborts),
        .sleeps = NOW(s->sleeps),
        .arrived = NOW(s->arrived),
    };
    w->spare = w->epoch == 0;
    uint64_t start_time = NOW(s->start_time);
    w->alive = w->pid > 0 && w->pid < INT32_MAX && start_time != 0 && process_start_time((int32_t)w->pid) == start_time;
    uint32_t written = atomic_load_explicit(&s->event_count, memory_order_acquire); /* released by worker_slot_trace */
    w->event_count = written < WORKER_EVENTS ? written : WORKER_EVENTS;
    for (uint32_t i = 0; i < w->event_count; i++)
        w->events[i] = s->events[(written - w->event_count + i) % WORKER_EVENTS];
}

static void read_session(struct inspected_session *i, uint32_t slot, const struct arena *a,
                         const struct session_slot *s)
{
    struct session_progress progress = session_progress(s);
    *i = (struct inspected_session){
        .slot = slot,
        .generation = NOW(s->generation),
        .group = s->group,
        .state = (enum session_state)NOW(s->state),
        .tokens = progress.tokens,
        .kv = progress.kv,
        .prompt_tokens = s->sampling.prompt_tokens,
    };
    memcpy(i->id, s->id, sizeof i->id - 1);
    i->pages = sequence_row_length(a, slot, PAGE_CLASS_WHOLE);
    if (a->geometry.page_classes > PAGE_CLASS_WINDOW) {
        uint32_t length = sequence_row_length(a, slot, PAGE_CLASS_WINDOW);
        uint32_t left = window_first_page(a->geometry.window, progress.kv);
        i->window_pages = length > left ? length - left : 0;
    }
}

static enum err read_slots(struct inspection *out, const struct arena *a, struct why *why)
{
    out->workers = calloc(a->geometry.worker_slots, sizeof *out->workers);
    out->sessions = calloc(a->geometry.session_slots, sizeof *out->sessions);
    if (!out->workers || !out->sessions)
        return because(why, ERR_NOMEM, "there is no memory left to show %u sessions", a->geometry.session_slots);
    for (uint32_t slot = 0; slot < a->geometry.worker_slots; slot++)
        if (worker_slot_at(a, slot)->generation != 0)
            read_worker(&out->workers[out->worker_count++], slot, worker_slot_at(a, slot));
    for (uint32_t slot = 0; slot < a->geometry.session_slots; slot++)
        if (NOW(session_at(a, slot)->state) != SESSION_FREE)
            read_session(&out->sessions[out->session_count++], slot, a, session_at(a, slot));
    return OK;
}

enum err inspection_read(struct inspection *out, const struct segment_home *home, struct why *why)
{
    memset(out, 0, sizeof *out);
    memcpy(out->name, home->name, sizeof out->name);
    out->holder_pid = (uint32_t)instance_holder(home);
    out->server_runs = out->holder_pid != 0;
    struct arena arena;
    enum err err = arena_attach(&arena, home, true, why);
    if (err != OK)
        return err;
    read_header(out, &arena);
    read_pages(out, &arena);
    err = read_slots(out, &arena, why);
    arena_detach(&arena);
    if (err != OK)
        inspection_fini(out);
    return err;
}

void inspection_fini(struct inspection *inspection)
{
    free(inspection->workers);
    free(inspection->sessions);
    inspection->workers = NULL;
    inspection->sessions = NULL;
}

static void print_worker(const struct inspected_worker *w, FILE *to)
{
    uint64_t now = now_us();
    fprintf(to, "  worker %u.%u  pid %u %s  %s", w->slot, w->generation, w->pid, w->alive ? "alive" : "gone",
            worker_state_name(w->state));
    if (w->spare)
        fprintf(to, "  spare");
    else
        fprintf(to, "  group %u rank %u epoch %u", w->group, w->rank, w->epoch);
    fprintf(to, "  step %llu  %llu steps %llu tokens %llu aborted", (unsigned long long)w->step_done,
            (unsigned long long)w->steps, (unsigned long long)w->tokens, (unsigned long long)w->aborts);
    if (w->beat_us != 0 && w->beat_us <= now)
        fprintf(to, "  beat %.1f s ago", (double)(now - w->beat_us) / 1e6);
    fputc('\n', to);
    for (uint32_t i = 0; i < w->event_count; i++)
        fprintf(to, "    %14.6f  %-8s epoch %u step %llu\n", (double)w->events[i].at_us / 1e6,
                worker_event_name((enum worker_event_kind)w->events[i].kind), w->events[i].epoch,
                (unsigned long long)w->events[i].step);
}

void inspection_print(const struct inspection *in, FILE *to)
{
    const struct arena_geometry *g = &in->geometry;
    fprintf(to, "server \"%s\"  %s", in->name, arena_state_name(in->state));
    if (in->server_runs)
        fprintf(to, "  runs (pid %u)\n", in->holder_pid);
    else
        fprintf(to, "  does not run (was pid %u)\n", in->owner_pid);
    fprintf(to, "  header %u  layout %u  model %016llx  owners so far %llu  %.1f MiB in all\n", in->header_version,
            in->layout_version, (unsigned long long)in->model_hash, (unsigned long long)in->generation,
            (double)in->total_bytes / (1024.0 * 1024.0));
    fprintf(to, "  %u nodes  %u groups  %u worker slots  %u session slots of %u tokens\n", g->nodes, g->groups,
            g->worker_slots, g->session_slots, g->context);
    fprintf(to, "pages  ");
    for (uint32_t c = 0; c < g->page_classes; c++)
        fprintf(to, "%s%u of %llu bytes", c ? " and " : "", g->pages_per_node[c] * g->nodes,
                (unsigned long long)g->page_bytes[c]);
    if (g->window)
        fprintf(to, " for windows of %u tokens", g->window);
    fputc(':', to);
    for (uint32_t state = 0; state < PAGE_STATES; state++)
        fprintf(to, "  %u %s", in->pages_by_state[state], page_state_name((enum page_state)state));
    fprintf(to, "  (%u shared, %u damaged)\n", in->shared_pages, in->damaged_pages);
    fprintf(to, "workers  %u\n", in->worker_count);
    for (uint32_t i = 0; i < in->worker_count; i++)
        print_worker(&in->workers[i], to);
    fprintf(to, "sessions  %u\n", in->session_count);
    for (uint32_t i = 0; i < in->session_count; i++) {
        const struct inspected_session *s = &in->sessions[i];
        fprintf(to, "  session %u.%u  %-8s group %u  %u tokens (%u prompt)  %u in pages  %u pages", s->slot,
                s->generation, session_state_name(s->state), s->group, s->tokens, s->prompt_tokens, s->kv, s->pages);
        if (g->window)
            fprintf(to, " and %u of windows", s->window_pages);
        fprintf(to, "  %.*s\n", (int)strspn(s->id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
                s->id);
    }
}
