#include "coordinator/inference.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "model/kernels/kernels.h"
#include "shm/inspect.h"
#include "shm/room.h"

enum {
    KV_MEMORY_DEFAULT_MOST = 2u << 30,
    LEFTOVER_MOST_US = 30 * 1000 * 1000, /* for a worker with hundreds of GiB mapped to end */
    LEFTOVER_POLL_MS = 100,
    WORKER_SLOTS_LEAST = 64, /* a KiB each: the next server may have more workers, in the same memory */
    DOES_WELL_STEPS = 8, /* answered: what killed a memory's owners before, in its first steps if ever, is not in it */
};

/* ---- hooks between scheduler, supervisor and owner ---- */

static void send_plan(void *world, uint32_t group, const struct step_plan *plan)
{
    struct inference *f = world;
    supervisor_send_plan(f->supervisor, group, plan);
}

static enum err read_result(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint32_t entry,
                            const struct step_row *row, struct result_entry *out, struct why *why)
{
    struct inference *f = world;
    return results_read(&f->results[group], epoch, step, entry, row->session, row->session_generation,
                        f->checkpoint.api.vocab, out, why);
}

static void ask_sums(void *world, uint32_t group, uint64_t question, const page_id *pages, uint32_t count)
{
    struct inference *f = world;
    supervisor_ask_sums(f->supervisor, group, question, pages, count);
}

static void take_sums(void *world, uint32_t group, uint64_t question, const uint32_t *sums, uint32_t count)
{
    struct inference *f = world;
    scheduler_sums(f->scheduler, group, question, sums, count);
    scheduler_turn(f->scheduler, now_us()); /* somebody may have waited for them */
}

static void doubt(void *world, uint32_t group)
{
    struct inference *f = world;
    scheduler_doubt(f->scheduler, group);
    inference_wake(f);
}

static bool blame(void *world, uint32_t group, uint32_t rank, uint32_t ranks)
{
    struct inference *f = world;
    enum verdict verdict = scheduler_blame(f->scheduler, group, rank);
    return verdict == VERDICT_GUILTY || (verdict == VERDICT_GUILTY_AT_RANK && ranks == 1);
}

static void group_down(void *world, uint32_t group)
{
    struct inference *f = world;
    scheduler_group_down(f->scheduler, group);
}

static void note_ready(struct inference *f)
{
    bool all = true;
    for (uint32_t g = 0; g < f->groups; g++)
        all &= f->lost[g] || supervisor_group_is_up(f->supervisor, g);
    if (all && !f->ready) {
        f->ready = true;
        f->hooks.ready(f->hooks.owner);
    }
}

static void group_up(void *world, uint32_t group, uint32_t epoch)
{
    struct inference *f = world;
    scheduler_group_up(f->scheduler, group, epoch);
    note_ready(f);
    scheduler_turn(f->scheduler, now_us()); /* at once: sessions wait for their next token */
}

static void group_lost(void *world, uint32_t group)
{
    struct inference *f = world;
    f->lost[group] = true;
    scheduler_group_lost(f->scheduler, group);
    note_ready(f);
    inference_wake(f);
}

static void step_done(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint64_t compute_us)
{
    struct inference *f = world;
    struct why why;
    if (scheduler_step_done(f->scheduler, group, epoch, step, now_us(), &why)) {
        supervisor_fail_group(f->supervisor, group, why.text);
        return;
    }
    scheduler_turn(f->scheduler, now_us()); /* the next plan first, then the clients */
    f->hooks.stepped(f->hooks.owner, compute_us);
}

static bool in_flight(void *world, uint32_t group, uint64_t *since_us, uint64_t *planned_us)
{
    struct inference *f = world;
    return scheduler_in_flight(f->scheduler, group, since_us, planned_us);
}

static void progress(void *world, uint64_t done, uint64_t total)
{
    struct inference *f = world;
    f->hooks.progress(f->hooks.owner, done, total);
}

static void hopeless(void *world, const char *sentence)
{
    struct inference *f = world;
    f->hooks.hopeless(f->hooks.owner, sentence);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct inference *f = arg;
    scheduler_turn(f->scheduler, now_us());
}

void inference_wake(struct inference *f)
{
    event_active(f->turn, EV_READ, 0);
}

void inference_note_health(struct inference *f, bool owes)
{
    if (f->ready && (!owes || scheduler_counters(f->scheduler)->steps >= DOES_WELL_STEPS))
        arena_does_well(&f->arena);
}

/* ---- how much of everything ---- */

static enum err choose_kv_bytes(const struct serve_options *o, uint64_t *bytes, struct why *why)
{
    struct room room;
    enum err e = room_read(&room, o->shm_dir, why);
    if (e)
        return e;
    if (!room.in_memory)
        log_warn("%s is on a disk: pages will be written there, which is slow; --shm-dir wants a tmpfs or hugetlbfs",
                 o->shm_dir);
    uint64_t third = room_bytes(&room) / 3;
    *bytes = o->kv_memory ? o->kv_memory : third < KV_MEMORY_DEFAULT_MOST ? third : KV_MEMORY_DEFAULT_MOST;
    return OK;
}

static enum err choose_workers(struct inference *f, const struct serve_options *o, struct why *why)
{
    const struct topology *t = &f->topology;
    f->workers = o->workers ? o->workers : t->quota;
    f->groups = o->groups ? o->groups : (t->nodes < f->workers ? t->nodes : f->workers);
    if (f->groups > f->workers)
        return because(why, ERR_INVALID, "--groups %u wants at least as many workers, and there are %u", f->groups,
                       f->workers);
    if (f->groups > GROUPS_MAX)
        return because(why, ERR_INVALID, "--groups %u is more than the %d that there can be", f->groups, GROUPS_MAX);
    if (f->workers + o->spares > WORKER_SLOTS_MAX / 2 - 1)
        return because(why, ERR_INVALID,
                       "--workers %u and --spares %u are more than the %d processes that there can be", f->workers,
                       o->spares, WORKER_SLOTS_MAX / 2 - 1);
    return OK;
}

static enum err check_sessions(const struct serve_options *o, struct why *why)
{
    if (o->max_sessions > o->session_slots)
        return because(why, ERR_INVALID, "--max-sessions %u is more than --session-slots %u", o->max_sessions,
                       o->session_slots);
    return OK;
}

static enum err choose_kv_type(struct inference *f, const struct serve_options *o, struct why *why)
{
    enum kv_type type;
    struct why reason;
    must(kv_type_named(o->kv_type, &type)); /* as the option was checked */
    enum err e = model_set_kv_type(&f->checkpoint.served.model, type, &reason);
    return e ? because(why, e, "--kv-type %s: %s", o->kv_type, reason.text) : OK;
}

/*
 * A node's bytes as pages. With windows half of them for each class; but at most so many pages of class 0 for each of a window as the
 * longest sequence holds of both: more would never be used.
 */
static void divide_bytes(const struct model *m, uint64_t bytes, uint64_t pages[MODEL_PAGE_CLASSES])
{
    uint64_t whole_bytes = model_page_bytes(m, PAGE_CLASS_WHOLE);
    pages[PAGE_CLASS_WHOLE] = bytes / whole_bytes;
    pages[PAGE_CLASS_WINDOW] = 0;
    if (model_page_classes(m) == 1)
        return;
    uint64_t window_bytes = model_page_bytes(m, PAGE_CLASS_WINDOW);
    uint64_t longest = (m->context + PAGE_TOKENS - 1) / PAGE_TOKENS, most = scheduler_window_pages(m->window);
    uint64_t held = most < longest ? most : longest;
    pages[PAGE_CLASS_WINDOW] = bytes / 2 / window_bytes;
    pages[PAGE_CLASS_WHOLE] = (bytes - pages[PAGE_CLASS_WINDOW] * window_bytes) / whole_bytes;
    if ((unsigned __int128)pages[PAGE_CLASS_WHOLE] * held <= (unsigned __int128)pages[PAGE_CLASS_WINDOW] * longest)
        return;
    pages[PAGE_CLASS_WHOLE] = bytes / (whole_bytes + held * window_bytes / longest);
    pages[PAGE_CLASS_WINDOW] = (bytes - pages[PAGE_CLASS_WHOLE] * whole_bytes) / window_bytes;
}

static enum err choose_geometry(struct inference *f, const struct serve_options *o, struct arena_geometry *g,
                                struct why *why)
{
    const struct served_model *served = &f->checkpoint.served;
    uint32_t nodes = f->topology.nodes < f->groups ? f->topology.nodes : f->groups;
    uint32_t classes = model_page_classes(&served->model);
    uint64_t kv, pages[MODEL_PAGE_CLASSES];
    enum err e = choose_kv_bytes(o, &kv, why);
    if (e)
        return e;
    divide_bytes(&served->model, kv / nodes, pages);
    for (uint32_t c = 0; c < classes; c++)
        if (pages[c] < 2 || pages[c] > UINT32_MAX / 4)
            return because(
                why, ERR_INVALID,
                "--kv-memory of %llu bytes makes %llu pages of %llu bytes on each of %u nodes; at least 2 are needed",
                (unsigned long long)kv, (unsigned long long)pages[c],
                (unsigned long long)model_page_bytes(&served->model, c), nodes);
    uint32_t worker_slots = supervisor_worker_slots(f->workers, o->spares);
    *g = (struct arena_geometry){
        .page_classes = classes,
        .window = model_page_window(&served->model),
        .nodes = nodes,
        .groups = f->groups,
        .worker_slots = worker_slots < WORKER_SLOTS_LEAST ? WORKER_SLOTS_LEAST : worker_slots,
        .session_slots = o->session_slots,
        .context = served->model.context,
        .result_rows = served->step_tokens,
        .model_bytes = sizeof *served,
        .weights_bytes = served->model.weights_bytes,
        .work_bytes = served_model_work_bytes(served),
    };
    for (uint32_t c = 0; c < classes; c++) {
        g->pages_per_node[c] = (uint32_t)pages[c];
        g->page_bytes[c] = model_page_bytes(&served->model, c);
    }
    for (uint32_t i = f->topology.cores; i-- > 0;) /* the first core of a node says where the node's memory is to lie */
        if (f->topology.core[i].node < nodes)
            g->os_node[f->topology.core[i].node] = (uint8_t)f->topology.core[i].os_node;
    for (uint32_t i = 0; i < f->groups; i++)
        g->group_node[i] = (uint8_t)((uint64_t)i * nodes / f->groups);
    return OK;
}

/* ---- opening ---- */

/* What computes: said before anything is reserved, not by workers that die of it. */
static enum err check_arithmetic(const struct serve_options *o, struct why *why)
{
    if (*o->kernels && !kernels_choose(o->kernels))
        return because(
            why, ERR_UNSUPPORTED,
            "--kernels %.60s: this machine lacks its instructions; leave the option out for the best that it has",
            o->kernels);
    if (strcmp(o->prefill_math, "blas") == 0)
        log_warn(
            "--prefill-math blas: OpenBLAS computes the prompts of float weights; the same request may give other bytes than before");
    if (strcmp(o->activations, "f32") == 0)
        log_warn(
            "--activations f32: weights are widened at every step, to compare a model with a reference; this is slow");
    return OK;
}

/* The program beside this one. */
static enum err find_worker(struct inference *f, struct why *why)
{
    char self[3800];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return because_errno(why, ERR_IO, "could not find out where this program lies");
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    snprintf(f->worker_path, sizeof f->worker_path, "%s/quire-worker", self);
    if (access(f->worker_path, X_OK))
        return because_errno(why, ERR_IO, "could not find the worker program \"%.300s\"", f->worker_path);
    return OK;
}

/* Ends a process and waits until it is gone: only its pidfd says that it writes nowhere any more. */
static enum err end_process(int32_t pid, struct why *why)
{
    struct pollfd gone = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    if (gone.fd < 0)
        return OK; /* gone by now */
    syscall(SYS_pidfd_send_signal, gone.fd, SIGKILL, NULL, 0);
    uint64_t deadline = now_us() + LEFTOVER_MOST_US;
    int ready = 0;
    while (ready <= 0 && now_us() < deadline)
        ready = poll(&gone, 1, LEFTOVER_POLL_MS);
    close(gone.fd);
    return ready > 0
               ? OK
               : because(why, ERR_BUSY, "worker process %d of the dead server does not end; try again when it is gone",
                         (int)pid);
}

/* Whoever of a dead server still lives is ended before its memory is touched: it could write there. */
static enum err end_leftover_workers(const struct inspection *found, struct why *why)
{
    enum err e = OK;
    for (uint32_t i = 0; !e && i < found->worker_count; i++)
        if (found->workers[i].alive)
            e = end_process((int32_t)found->workers[i].pid, why);
    return e;
}

/*
 * A default that was chosen from what was free then is not chosen anew: the memory in question is the dead server's. So it is with places
 * for workers and for groups, as long as there are enough: what pages hold does not depend on how many computed it, and a group has
 * nothing in the memory but room for its work.
 */
static void choose_same_sizes(const struct serve_options *o, const struct arena_geometry *left,
                              struct arena_geometry *wanted)
{
    bool same_nodes = left->nodes == wanted->nodes && left->groups >= wanted->groups &&
                      memcmp(left->group_node, wanted->group_node, wanted->groups) == 0;
    if (same_nodes && left->groups > wanted->groups) {
        wanted->groups = left->groups; /* the last ones stay empty */
        memcpy(wanted->group_node, left->group_node, sizeof wanted->group_node);
    }
    if (left->worker_slots > wanted->worker_slots)
        wanted->worker_slots = left->worker_slots;
    if (!o->kv_memory && left->nodes == wanted->nodes &&
        memcmp(left->page_bytes, wanted->page_bytes, sizeof left->page_bytes) == 0)
        memcpy(wanted->pages_per_node, left->pages_per_node, sizeof left->pages_per_node);
}

/* Opens the worker program and hashes its bytes (FNV-1a): two builds may compute differently. */
static enum err hold_worker(struct inference *f, struct why *why)
{
    static unsigned char piece[64 * 1024];
    FILE *file = f->worker_file = fopen(f->worker_path, "re");
    size_t n;
    if (!file)
        return because_errno(why, ERR_IO, "could not read the worker program \"%.300s\"", f->worker_path);
    snprintf(f->worker_program, sizeof f->worker_program, "/proc/self/fd/%d", fileno(file));
    f->worker_hash = 0xcbf29ce484222325u;
    while ((n = fread(piece, 1, sizeof piece, file)) > 0)
        for (size_t i = 0; i < n; i++)
            f->worker_hash = (f->worker_hash ^ piece[i]) * 0x100000001b3u;
    return ferror(file) ? because_errno(why, ERR_IO, "could not read the worker program \"%.300s\"", f->worker_path)
                        : OK;
}

/* Keys and values are as good as what computed them: another build, OpenBLAS and unrounded inputs give others. */
static uint64_t memory_hash(const struct inference *f, const struct serve_options *o)
{
    uint64_t hash = f->checkpoint.served.model.hash ^ f->worker_hash;
    hash ^= strcmp(o->prefill_math, "blas") == 0 ? 0x9e3779b97f4a7c15u : 0;
    hash ^= strcmp(o->activations, "f32") == 0 ? 0xd1b54a32d192ed03u : 0;
    hash ^= f->checkpoint.served.model.kv_type * 0xa0761d6478bd642fu; /* f16, which is 0: none */
    return hash;
}

static enum err reserve_memory(struct inference *f, const struct serve_options *o,
                               const struct arena_geometry *geometry, struct why *why)
{
    struct arena_layout layout;
    enum err e = layout_of(geometry, &layout, why);
    if (e)
        return e;
    log_info("reserving %.1f MiB of shared memory: %u pages of %.1f KiB on each of %u nodes, weights %.1f MiB",
             (double)layout.total_bytes / (1 << 20), geometry->pages_per_node[0],
             (double)geometry->page_bytes[0] / 1024, geometry->nodes, (double)geometry->weights_bytes / (1 << 20));
    if (geometry->window)
        log_info("of them for windows of %u tokens: %u more pages of %.1f KiB on each node", geometry->window,
                 geometry->pages_per_node[PAGE_CLASS_WINDOW], (double)geometry->page_bytes[PAGE_CLASS_WINDOW] / 1024);
    return arena_create(&f->arena, &f->instance.home, geometry, memory_hash(f, o), &f->checkpoint.served, why);
}

/* What a dead server of this name left is taken over if it is what this one would make; else it is dropped, and the reason said. */
static enum err adopt_or_drop(struct inference *f, const struct serve_options *o, struct arena_geometry *geometry,
                              struct why *why)
{
    struct inspection found;
    struct why reason;
    enum err unreadable = inspection_read(&found, &f->instance.home, &reason);
    if (!unreadable) {
        enum err e = end_leftover_workers(&found, why);
        choose_same_sizes(o, &found.geometry, geometry);
        inspection_fini(&found);
        if (e)
            return e;
        f->adopted = arena_adopt(&f->arena, &f->instance.home, geometry, memory_hash(f, o), &f->checkpoint.served,
                                 &reason) == OK;
    }
    if (f->adopted)
        return OK;
    struct leftovers dropped;
    enum err e = instance_clear(&f->instance, &dropped, why);
    if (!e)
        log_warn("%s: dropped its %u segments of %.1f MiB", reason.text, dropped.segments,
                 (double)dropped.bytes / (1 << 20));
    return e;
}

static enum err make_memory(struct inference *f, const struct serve_options *o, struct why *why)
{
    struct arena_geometry geometry;
    enum err e = choose_geometry(f, o, &geometry, why);
    if (!e && instance_has_leftovers(&f->instance.home))
        e = adopt_or_drop(f, o, &geometry, why);
    if (!e && !f->adopted)
        e = reserve_memory(f, o, &geometry, why);
    for (uint32_t g = 0; !e && g < f->groups; g++)
        e = results_open(&f->results[g], &f->arena, g, why);
    return e;
}

/* One line of what was worth keeping. */
static void log_adoption(const struct inference *f)
{
    struct scheduler_found found = scheduler_found(f->scheduler);
    bool built = true;
    for (uint32_t n = 0; n < f->arena.geometry.nodes; n++)
        built &= arena_weights_built(&f->arena, n);
    log_info("took over the memory of a former server: weights %s, %u sealed pages, %u sessions",
             built ? "whole" : "to be built again", found.pages, found.sessions);
    if (found.damaged_pages || found.damaged_sessions)
        log_warn("dropped from it: %u pages and %u sessions that are damaged", found.damaged_pages,
                 found.damaged_sessions);
}

static enum err start_scheduler(struct inference *f, const struct serve_options *o, struct why *why)
{
    struct scheduler_config config = {
        .arena = &f->arena,
        .vocab = f->checkpoint.api.vocab,
        .max_sessions = o->max_sessions ? o->max_sessions : o->session_slots,
        .max_queue = o->max_queue,
        .max_gap_us = o->max_gap_ms * 1000,
        .adopt = f->adopted,
    };
    struct scheduler_hooks hooks = {.send = send_plan, .result = read_result, .ask = ask_sums, .world = f};
    enum err e = scheduler_open(&f->scheduler, &config, &hooks, why);
    if (e)
        return e;
    f->checkpoint.api.context_tokens = scheduler_token_limit(f->scheduler);
    if (f->adopted)
        log_adoption(f);
    arena_set_state(&f->arena, ARENA_SERVING);
    return OK;
}

static enum err start_workers(struct inference *f, struct event_base *loop, const struct serve_options *o,
                              struct why *why)
{
    struct supervisor_config config = {
        .loop = loop,
        .arena = &f->arena,
        .worker_path = f->worker_path,
        .worker_program = f->worker_program,
        .model_path = o->model,
        .quantize = o->quantize,
        .overrides = o->overrides,
        .kernels = o->kernels,
        .prefill_math = o->prefill_math,
        .float_activations = strcmp(o->activations, "f32") == 0,
        .log_level = o->log_level,
        .pin = !o->no_pin,
        .no_sandbox = o->no_sandbox,
        .workers = f->workers,
        .groups = f->groups,
        .spares = o->spares,
        .topology = &f->topology,
    };
    struct supervisor_hooks hooks = {
        .group_down = group_down,
        .group_up = group_up,
        .group_lost = group_lost,
        .doubt = doubt,
        .blame = blame,
        .sums = take_sums,
        .step_done = step_done,
        .in_flight = in_flight,
        .progress = progress,
        .hopeless = hopeless,
        .world = f,
    };
    f->turn = event_new(loop, -1, EV_PERSIST, on_turn, f);
    if (!f->turn)
        return because(why, ERR_NOMEM, "could not start: no memory");
    return supervisor_open(&f->supervisor, &config, &hooks, why);
}

enum err inference_open(struct inference *f, struct event_base *loop, const struct serve_options *o,
                        const struct inference_hooks *hooks, struct why *why)
{
    *f = (struct inference){.hooks = *hooks, .instance.lock_fd = -1, .keep = o->keep};
    enum err e = find_worker(f, why);
    if (!e)
        e = hold_worker(f, why);
    if (!e)
        e = check_arithmetic(o, why);
    if (!e)
        e = topology_read(&f->topology, o->fake_nodes, why);
    if (!e)
        e = choose_workers(f, o, why);
    if (!e)
        e = check_sessions(o, why);
    if (!e)
        e = checkpoint_open(&f->checkpoint, o->model,
                            &(struct model_file_options){.quantize = o->quantize, .overrides = o->overrides},
                            o->chat_template, o->ctx, STEP_BUDGET + o->session_slots, why);
    if (!e)
        e = choose_kv_type(f, o, why);
    if (!e && *o->alias)
        f->checkpoint.api.model_name = o->alias;
    if (!e)
        e = instance_hold(&f->instance, o->name, o->shm_dir, why);
    if (!e)
        e = make_memory(f, o, why);
    if (!e)
        e = start_scheduler(f, o, why);
    if (!e)
        e = start_workers(f, loop, o, why);
    if (e)
        inference_close(f);
    return e;
}

void inference_close(struct inference *f)
{
    if (f->supervisor)
        supervisor_close(f->supervisor);
    if (f->turn)
        event_free(f->turn);
    scheduler_close(f->scheduler);
    for (uint32_t g = 0; g < f->groups && g < GROUPS_MAX; g++)
        results_close(&f->results[g]);
    /* What was taken over and never served from is as good as before: this end may be a port that is taken. */
    bool keep = f->arena.table.base && (f->keep || (f->adopted && !f->ready));
    if (f->arena.table.base) {
        if (keep)
            arena_does_well(&f->arena);
        if (arena_state(&f->arena) == ARENA_SERVING)
            arena_set_state(&f->arena, ARENA_ENDED);
        arena_detach(&f->arena);
    }
    if (f->instance.lock_fd >= 0) {
        struct leftovers all;
        struct why why;
        if (!keep && instance_clear(&f->instance, &all, &why))
            log_warn("%s", why.text);
        instance_release(&f->instance);
    }
    checkpoint_close(&f->checkpoint);
    if (f->worker_file)
        fclose(f->worker_file);
    *f = (struct inference){.instance.lock_fd = -1};
}
