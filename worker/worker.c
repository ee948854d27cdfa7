/* worker: see worker.h. One loop: a command comes, is carried out whole, is answered. */
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/must.h"
#include "model/kernels/product_blas.h"
#include "model/model_file.h"
#include "proto/channel.h"
#include "proto/message.h"
#include "shm/barrier.h"
#include "shm/crc32c.h"
#include "worker/affinity.h"
#include "worker/attach.h"
#include "worker/sandbox.h"
#include "worker/step.h"

enum {
    WAIT_MS = 250,         /* for a command; then a sign of life and another look at the stop flag */
    TOUCH_BYTES = 4 << 20, /* of memory at a time, while idle: well under a millisecond */
    TOUCH_WAIT_MS = 1,     /* in between: whoever computes on this core goes on */
    PROGRESS_US = 250 * 1000,
};

/*
 * SPARE -> JOINED -> STEPPING -> VOID -> JOINED …     assign: any -> JOINED;  build: any -> VOID
 * VOID: the epoch ended here, by a peer's death or a refused plan; its plans are dropped until the next assignment.
 */
enum place { SPARE, JOINED, STEPPING, VOID };

#define BIT(place) (1u << (place))
static const uint8_t may_follow[] = {
    [SPARE] = BIT(JOINED) | BIT(VOID),
    [JOINED] = BIT(JOINED) | BIT(STEPPING) | BIT(VOID),
    [STEPPING] = BIT(JOINED) | BIT(VOID),
    [VOID] = BIT(JOINED) | BIT(VOID),
};

struct worker {
    const struct worker_options *options;
    const struct kernels *kernels;
    struct attachment at;
    struct worker_slot *slot;
    struct channel *channel;
    struct step *step; /* NULL: no group joined yet */
    struct barrier barrier;
    enum place place;
    uint64_t last_step; /* while STEPPING */
    uint64_t dropped;   /* plans of another epoch, commands that made no sense */
    uint64_t progress_sent_us;
    uint32_t cores;
    uint32_t cpu; /* that it stays on */
    bool confined;
    struct command command;
    struct report report;
    struct message_scratch scratch;
    uint8_t bytes[MESSAGE_BYTES_MAX];
};

static void move_to(struct worker *w, enum place to)
{
    must(may_follow[w->place] & BIT(to));
    w->place = to;
}

/* One writer: no read-modify-write is needed. */
static void count(_Atomic uint64_t *counter, uint64_t more)
{
    /* relaxed, both: a counter hands nothing over */
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + more, memory_order_relaxed); /* see above */
}

/* ---- reports ---- */

static void send_report(struct worker *w)
{
    uint8_t bytes[1024];
    size_t length;
    enum err err = report_pack(&w->report, bytes, sizeof bytes, &length);
    must(err == OK); /* the longest report is a sentence of FAILED_TEXT_MAX bytes */
    if (fault_point(FAULT_WORKER_REPORT) || channel_send(w->channel, (struct channel_peer){0, 0}, bytes, length) != OK)
        log_warn("a report was lost: the coordinator takes none; it will miss it and act");
}

static void report_failed(struct worker *w, uint32_t epoch, uint64_t step, const char *text)
{
    log_warn("%s", text);
    w->report = (struct report){.kind = REPORT_FAILED, .failed = {.epoch = epoch, .step = step}};
    snprintf(w->report.failed.text, sizeof w->report.failed.text, "%s", text);
    send_report(w);
}

static void report_progress(void *worker, uint64_t done, uint64_t total)
{
    struct worker *w = worker;
    worker_slot_beat(w->slot);
    fault_point(FAULT_WORKER_BUILD);
    if (now_us() - w->progress_sent_us < PROGRESS_US)
        return;
    w->progress_sent_us = now_us();
    w->report = (struct report){.kind = REPORT_PROGRESS, .progress = {.done = done, .total = total}};
    send_report(w);
}

/* ---- build ---- */

static void drop_step(struct worker *w)
{
    step_close(w->step);
    w->step = NULL;
}

static enum err build_share(struct worker *w, struct why *why)
{
    uint32_t group = w->command.build.group, rank = w->command.build.rank, ranks = w->command.build.ranks;
    const char *path = w->command.build.model_path;
    const struct arena *a = &w->at.arena;
    if (rank >= ranks)
        return because(why, ERR_INVALID, "there is no share %u of %u of the weights", rank, ranks);
    enum err err = attach_join(&w->at, group, why);
    if (err != OK || arena_weights_built(a, a->geometry.group_node[group]))
        return err; /* whole already */
    struct gguf *file;
    const struct model_file_options options = {
        .quantize = w->options->quantize, .overrides = w->options->overrides, .part = HUB_WEIGHTS};
    err = model_file_open(&file, path, &options, why);
    if (err != OK)
        return err;
    if (gguf_hash(file) != w->at.served.model.hash)
        err = because(
            why, ERR_FORMAT,
            "could not build weights from \"%.300s\": it is not the file that the server read; start the server again",
            path);
    if (err == OK)
        err = model_build(&w->at.served.model, file, arena_weights(a), rank, ranks, report_progress, w, why);
    gguf_close(file);
    return err == OK ? attach_seal(&w->at, why) : err;
}

/* An assignment comes after it: the memory may lie elsewhere now. */
static void handle_build(struct worker *w)
{
    struct why why;
    drop_step(w);
    move_to(w, VOID);
    worker_slot_beat(w->slot);
    worker_slot_set_state(w->slot, WORKER_COMPUTING);
    if (build_share(w, &why) == OK) {
        w->report = (struct report){.kind = REPORT_BUILT};
        send_report(w);
    } else {
        report_failed(w, 0, 0, why.text);
    }
    worker_slot_set_state(w->slot, WORKER_READY); /* behind the report: who sees it knows that there was one */
}

/* ---- assign ---- */

/* A machine that refuses makes this worker slower, not wrong. Before memory is touched, so that it comes from the core's node. */
static void settle_on_core(struct worker *w, uint32_t cpu)
{
    if (!w->options->pin || cpu == w->cpu)
        return;
    struct why why;
    w->cpu = cpu;
    if (affinity_pin(cpu, &why) != OK)
        log_warn("%s; going on without", why.text);
}

/* Maps the group's memory and makes the step over it; both stay from one epoch of a group to the next. */
static enum err join_group(struct worker *w, uint32_t group, struct why *why)
{
    if (w->step && w->at.arena.group == group)
        return OK;
    drop_step(w);
    enum err err = attach_join(&w->at, group, why);
    if (err == OK)
        err = step_open(&w->step, &w->at.arena, &w->at.served, w->kernels, why);
    if (err == OK && w->options->prefill_blas)
        err = step_use_blas(w->step, why);
    if (err == OK && w->options->float_activations)
        err = step_use_float_activations(w->step, why);
    if (err != OK)
        drop_step(w);
    return err;
}

/* Before it is needed, so that a spare steps in at once. Where weights are still to be built, the step waits for them. */
static enum err prepare_for(struct worker *w, uint32_t group, struct why *why)
{
    const struct arena *a = &w->at.arena;
    enum err err = attach_join(&w->at, group, why);
    return err == OK && arena_weights_built(a, a->geometry.group_node[group]) ? join_group(w, group, why) : err;
}

static void handle_assign(struct worker *w)
{
    uint32_t epoch = w->command.assign.epoch, group = w->command.assign.group;
    uint32_t rank = w->command.assign.rank, ranks = w->command.assign.ranks;
    settle_on_core(w, w->command.assign.cpu);
    struct why why;
    enum err err = OK;
    if (fault_point(FAULT_WORKER_ASSIGN))
        err = because(&why, ERR_NOMEM, "a place was refused: a test wants it so");
    if (err == OK)
        err = join_group(w, group, &why);
    if (err == OK)
        err =
            barrier_join(&w->barrier, &w->at.arena, group, epoch, rank, ranks, w->command.assign.slots, w->cores, &why);
    if (err != OK) {
        move_to(w, VOID);
        report_failed(w, epoch, 0, why.text);
        return;
    }
    step_join(w->step, &w->barrier);
    move_to(w, JOINED);
    worker_slot_trace(w->slot, EVENT_JOINED, epoch, 0);
    log_info("rank %u of %u in group %u, epoch %u, kernels %s", rank, ranks, group, epoch, w->kernels->name);
    w->report = (struct report){.kind = REPORT_ASSIGNED, .assigned = {.epoch = epoch}};
    send_report(w);
    fault_point(FAULT_WORKER_ASSIGNED);
}

/* ---- plan ---- */

/* Plans of an epoch that is over, here or everywhere. A group word that moves later ends the first meeting instead. */
static bool plan_is_void(const struct worker *w, const struct step_plan *plan)
{
    if (w->place == SPARE || w->place == VOID || plan->epoch != w->barrier.epoch)
        return true;
    /* relaxed: nothing is read through it; the barrier looks again */
    return atomic_load_explicit(&w->barrier.group->epoch, memory_order_relaxed) != plan->epoch;
}

/* All ranks must take the same steps in the same order: a gap would let their phases run apart. */
static enum err check_order(const struct worker *w, const struct step_plan *plan, struct why *why)
{
    if (w->place == JOINED && !(plan->flags & PLAN_MEET_FIRST))
        return because(why, ERR_FORMAT, "step %llu was refused: the first of epoch %u must meet first",
                       (unsigned long long)plan->step, plan->epoch);
    if (w->place == STEPPING && plan->step != w->last_step + 1)
        return because(why, ERR_FORMAT, "step %llu was refused: step %llu is next", (unsigned long long)plan->step,
                       (unsigned long long)w->last_step + 1);
    return OK;
}

/* Weights that others built are sealed here before anything reads them. */
static enum err check_weights(struct worker *w, struct why *why)
{
    const struct arena *a = &w->at.arena;
    if (!arena_weights_built(a, a->geometry.group_node[a->group]))
        return because(why, ERR_FORMAT, "a step was refused: the weights are not built yet");
    return a->weights.access == SEGMENT_WRITE ? attach_seal(&w->at, why) : OK;
}

static void step_succeeded(struct worker *w, const struct step_plan *plan, uint64_t took_us)
{
    fault_point(FAULT_WORKER_STEP_DONE);
    if (w->place == JOINED)
        move_to(w, STEPPING);
    w->last_step = plan->step;
    count(&w->slot->steps, 1);
    count(&w->slot->tokens, step_tokens(w->step));
    worker_slot_trace(w->slot, EVENT_DONE, plan->epoch, plan->step);
    /* release: whoever sees the number sees that step's keys, values and results */
    atomic_store_explicit(&w->slot->step_done, plan->step, memory_order_release);
    if (w->barrier.rank != 0)
        return; /* after the last meeting one answer speaks for all */
    w->report = (struct report){.kind = REPORT_RESULT,
                                .result = {.epoch = plan->epoch, .step = plan->step, .compute_us = took_us}};
    send_report(w);
    fault_point(FAULT_WORKER_REPORTED);
}

static enum err take_step(struct worker *w, const struct step_plan *plan, struct why *why)
{
    if (fault_point(FAULT_WORKER_STEP_BEGIN))
        return because(why, ERR_FORMAT, "a step was refused: a test wants it so");
    enum err err = check_order(w, plan, why);
    if (err == OK)
        err = check_weights(w, why);
    return err == OK ? step_run(w->step, plan, why) : err;
}

static void handle_plan(struct worker *w)
{
    const struct step_plan *plan = &w->command.plan;
    if (plan_is_void(w, plan)) {
        w->dropped++;
        return;
    }
    uint64_t began_us = now_us();
    worker_slot_beat(w->slot);
    worker_slot_set_state(w->slot, WORKER_COMPUTING);
    worker_slot_trace(w->slot, EVENT_STEP, plan->epoch, plan->step);
    struct why why;
    enum err err = take_step(w, plan, &why);
    uint64_t took_us = now_us() - began_us;
    count(&w->slot->busy_us, took_us);
    worker_slot_set_state(w->slot, WORKER_READY);
    worker_slot_beat(w->slot);
    if (err == OK) {
        step_succeeded(w, plan, took_us);
    } else if (err == ERR_ABORTED) {
        move_to(w, VOID);
        count(&w->slot->aborts, 1);
        worker_slot_trace(w->slot, EVENT_ABORTED, plan->epoch, plan->step);
    } else {
        move_to(w, VOID);
        worker_slot_trace(w->slot, EVENT_FAILED, plan->epoch, plan->step);
        report_failed(w, plan->epoch, plan->step, why.text);
    }
}

/* ---- checksums ---- */

/* False: it has no place now, or there is no such page. */
static bool sum_pages(struct worker *w)
{
    const struct arena *a = &w->at.arena;
    struct report *r = &w->report;
    *r = (struct report){.kind = REPORT_SUMS};
    r->sums.question = w->command.sum.question;
    r->sums.count = w->command.sum.count;
    for (uint32_t i = 0; i < w->command.sum.count; i++) {
        page_id page = w->command.sum.pages[i];
        if ((w->place != JOINED && w->place != STEPPING) || page >= a->layout.page_count)
            return false;
        uint32_t page_class = page_place(&a->geometry, &a->layout, page).page_class;
        r->sums.sums[i] = crc32c(0, arena_page(a, page), a->geometry.page_bytes[page_class]);
        worker_slot_beat(w->slot);
    }
    return true;
}

/* Whether the page is still the one that is meant, its asker knows. */
static void handle_sum(struct worker *w)
{
    if (sum_pages(w))
        send_report(w);
    else
        w->dropped++;
}

/* ---- the loop ---- */

/* The first message proves that libzmq has connected: from here on nobody needs a new socket. Before it is looked at. */
static void confine(struct worker *w)
{
    struct why why;
    if (w->confined)
        return;
    w->confined = true;
    if (w->options->sandbox && sandbox_close_calls(&why) != OK)
        log_info("%s; going on without", why.text);
}

/*
 * The next command, or ERR_BUSY when the waiting time is over. As long as there is memory that this process has not touched, it does
 * that instead of waiting, a little at a time: a spare that takes a place meets no page fault in its first steps.
 */
static enum err next_command(struct worker *w)
{
    worker_slot_beat(w->slot);
    struct channel_peer from;
    size_t length;
    enum err err = channel_receive(w->channel, &from, w->bytes, sizeof w->bytes, &length);
    bool touching = err == ERR_BUSY && !w->at.borrowed && arena_touch_more(&w->at.arena, TOUCH_BYTES);
    if (err == ERR_BUSY && channel_wait(w->channel, touching ? TOUCH_WAIT_MS : WAIT_MS) == OK)
        err = channel_receive(w->channel, &from, w->bytes, sizeof w->bytes, &length);
    if (err != OK)
        return ERR_BUSY;
    confine(w);
    struct why why;
    if (command_unpack(&w->command, w->bytes, length, &w->scratch, &why) != OK) {
        w->dropped++;
        log_warn("%s", why.text);
        return ERR_BUSY;
    }
    return OK;
}

static bool told_to_stop(const struct worker *w)
{
    /* relaxed: the flag hands nothing over */
    return w->options->stop && atomic_load_explicit(w->options->stop, memory_order_relaxed);
}

static void serve(struct worker *w)
{
    while (!told_to_stop(w)) {
        if (next_command(w) != OK)
            continue;
        switch (w->command.kind) {
        case COMMAND_ASSIGN:
            handle_assign(w);
            break;
        case COMMAND_BUILD:
            handle_build(w);
            break;
        case COMMAND_PLAN:
            handle_plan(w);
            break;
        case COMMAND_SUM:
            handle_sum(w);
            break;
        case COMMAND_STOP:
            log_debug("stopped; %llu plans of ended epochs and senseless commands were dropped",
                      (unsigned long long)w->dropped);
            return;
        }
    }
}

/* ---- life ---- */

static enum err attach(struct worker *w, struct why *why)
{
    const struct worker_options *o = w->options;
    if (o->arena)
        return attach_borrow(&w->at, o->arena, why);
    struct segment_home home;
    enum err err = segment_home_init(&home, o->name, o->shm_dir, why);
    return err == OK ? attach_open(&w->at, &home, why) : err;
}

static enum err connect_channel(struct worker *w, struct why *why)
{
    const struct worker_options *o = w->options;
    char usual[CHANNEL_DIRECTORY_MAX + 1];
    if (!o->channel) {
        enum err err = channel_directory(usual, o->name, why);
        if (err != OK)
            return err;
    }
    return channel_connect(&w->channel, o->channel ? o->channel : usual, (struct channel_peer){o->slot, o->generation},
                           why);
}

static void say_hello(struct worker *w)
{
    w->report = (struct report){.kind = REPORT_HELLO,
                                .hello = {.slot = w->options->slot,
                                          .generation = w->options->generation,
                                          .pid = (uint32_t)getpid(),
                                          .layout_version = LAYOUT_VERSION}};
    send_report(w);
}

static enum err run_in_slot(struct worker *w, struct why *why)
{
    w->slot = worker_slot_at(&w->at.arena, w->options->slot);
    worker_slot_trace(w->slot, EVENT_ENTERED, 0, 0);
    enum err err = w->options->sandbox ? sandbox_close_files(&w->at.arena, w->options->model, why) : OK;
    if (err == ERR_UNSUPPORTED) {
        log_info("%s; going on without", why->text);
        err = OK;
    }
    if (err == OK)
        err = connect_channel(w, why);
    if (err != OK)
        return err;
    affinity_take_long_slices(); /* of this thread, and of none that exists already */
    w->cores = w->options->cores > 0 ? w->options->cores : affinity_cores();
    uint32_t group = w->options->group == WORKER_GROUP_NONE && w->at.arena.geometry.groups == 1 ? 0 : w->options->group;
    if (group != WORKER_GROUP_NONE)
        err = prepare_for(w, group, why);
    if (err == OK && fault_point(FAULT_WORKER_HELLO))
        err = because(why, ERR_NOMEM, "could not say hello: a test wants it so");
    if (err == OK) {
        worker_slot_set_state(w->slot, WORKER_READY);
        say_hello(w);
        serve(w);
    }
    channel_close(w->channel);
    return err;
}

enum err worker_run(const struct worker_options *o, struct why *why)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        return because(why, ERR_NOMEM, "no memory for a worker");
    w->options = o;
    w->cpu = AFFINITY_ANY;
    w->kernels = kernels_choose(o->kernels && *o->kernels ? o->kernels : NULL);
    enum err err = OK;
    if (!w->kernels)
        err = because(why, ERR_UNSUPPORTED, "kernel set \"%.60s\" is unknown or nothing this machine can run",
                      o->kernels ? o->kernels : "");
    if (err == OK && o->prefill_blas)
        err = product_blas_load(why); /* now, while this is the only thread */
    if (err == OK)
        err = attach(w, why);
    if (err != OK)
        goto free_worker;
    err = fault_point(FAULT_WORKER_ATTACH) ? because(why, ERR_NOMEM, "could not attach: a test wants it so")
                                           : worker_slot_enter(&w->at.arena, o->slot, o->generation, why);
    if (err != OK)
        goto detach;
    err = run_in_slot(w, why);
    step_close(w->step);
    worker_slot_leave(&w->at.arena, o->slot);
detach:
    attach_close(&w->at);
free_worker:
    free(w);
    return err;
}
