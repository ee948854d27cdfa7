/* private_engine: see private_engine.h. */
#include "coordinator/private_engine.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"

/* No server's, since nobody comes back to such a name. */
#define NAME_PREFIX "private."

static void on_ready(void *owner)
{
    private_engine_pause(owner);
}

static void on_stepped(void *owner, uint64_t step_us)
{
    (void)step_us;
    struct private_engine *e = owner;
    if (e->stepped)
        e->stepped(e->owner);
}

static void on_progress(void *owner, uint64_t done, uint64_t total)
{
    (void)owner;
    if (isatty(2))
        fprintf(stderr, "\rloading: %.0f %%%s", total ? 100.0 * (double)done / (double)total : 0,
                done == total ? "\n" : "");
}

static void on_hopeless(void *owner, const char *sentence)
{
    private_engine_fail(owner, sentence);
}

void private_engine_options(struct serve_options *o, const char *command)
{
    serve_options_init(o);
    snprintf(o->name, sizeof o->name, NAME_PREFIX "%.16s.%d", command, (int)getpid());
    snprintf(o->log_level, sizeof o->log_level, "warn");
}

/* Turns the loop until somebody pauses it or there is a problem. */
static enum err dispatch(struct private_engine *e, struct why *why)
{
    if (!e->fault)
        event_base_dispatch(e->loop);
    return e->fault ? because(why, e->fault, "%s", e->problem) : OK;
}

static void fail(struct private_engine *e, enum err fault, const char *sentence)
{
    e->fault = fault;
    snprintf(e->problem, sizeof e->problem, "%s", sentence);
    private_engine_pause(e);
}

static void on_signal(evutil_socket_t signal, short what, void *arg)
{
    (void)signal, (void)what;
    fail(arg, ERR_ABORTED, "interrupted");
}

/* From here on a signal ends the run, and a reader of our output that went away is an error of writing. */
static enum err watch_signals(struct private_engine *e, struct why *why)
{
    static const int watched[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        e->signals[i] = evsignal_new(e->loop, watched[i], on_signal, e);
        if (!e->signals[i] || event_add(e->signals[i], NULL))
            return because(why, ERR_NOMEM, "could not watch signals: no memory");
    }
    signal(SIGPIPE, SIG_IGN);
    return OK;
}

static void free_loop(struct private_engine *e)
{
    for (size_t i = 0; i < sizeof e->signals / sizeof *e->signals; i++)
        if (e->signals[i])
            event_free(e->signals[i]);
    event_base_free(e->loop);
}

static void sweep(const char *directory)
{
    struct leftovers dropped;
    instance_sweep(NAME_PREFIX, directory, &dropped);
    if (dropped.segments)
        log_info("removed %.0f MiB of shared memory that a killed command had left", (double)dropped.bytes / (1 << 20));
}

enum err private_engine_open(struct private_engine *e, const struct serve_options *o, void (*stepped)(void *owner),
                             void *owner, struct why *why)
{
    *e = (struct private_engine){.loop = event_base_new(), .stepped = stepped, .owner = owner};
    if (!e->loop)
        return because(why, ERR_NOMEM, "could not start: no memory");
    struct inference_hooks hooks = {
        .ready = on_ready, .stepped = on_stepped, .progress = on_progress, .hopeless = on_hopeless, .owner = e};
    sweep(o->shm_dir);
    enum err err = watch_signals(e, why);
    if (err == OK)
        err = inference_open(&e->inference, e->loop, o, &hooks, why);
    if (err == OK && (err = dispatch(e, why)) != OK)
        inference_close(&e->inference);
    if (err != OK)
        free_loop(e);
    return err;
}

void private_engine_close(struct private_engine *e)
{
    inference_close(&e->inference);
    free_loop(e);
}

enum err private_engine_run(struct private_engine *e, struct why *why)
{
    inference_wake(&e->inference);
    return dispatch(e, why);
}

void private_engine_pause(struct private_engine *e)
{
    event_base_loopbreak(e->loop);
}

void private_engine_fail(struct private_engine *e, const char *sentence)
{
    fail(e, ERR_IO, sentence);
}
