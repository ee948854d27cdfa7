/* private_engine: see private_engine.h. */
#include "coordinator/private_engine.h"

#include <stdio.h>
#include <unistd.h>

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
    snprintf(o->name, sizeof o->name, "%.100s-%d", command, (int)getpid());
    snprintf(o->log_level, sizeof o->log_level, "warn");
}

/* Turns the loop until somebody pauses it or there is a problem. */
static enum err dispatch(struct private_engine *e, struct why *why)
{
    if (!*e->problem)
        event_base_dispatch(e->loop);
    return *e->problem ? because(why, ERR_IO, "%s", e->problem) : OK;
}

enum err private_engine_open(struct private_engine *e, const struct serve_options *o, void (*stepped)(void *owner),
                             void *owner, struct why *why)
{
    *e = (struct private_engine){.loop = event_base_new(), .stepped = stepped, .owner = owner};
    if (!e->loop)
        return because(why, ERR_NOMEM, "could not start: no memory");
    struct inference_hooks hooks = {
        .ready = on_ready, .stepped = on_stepped, .progress = on_progress, .hopeless = on_hopeless, .owner = e};
    enum err err = inference_open(&e->inference, e->loop, o, &hooks, why);
    if (err == OK && (err = dispatch(e, why)) != OK)
        inference_close(&e->inference);
    if (err != OK)
        event_base_free(e->loop);
    return err;
}

void private_engine_close(struct private_engine *e)
{
    inference_close(&e->inference);
    event_base_free(e->loop);
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
    snprintf(e->problem, sizeof e->problem, "%s", sentence);
    private_engine_pause(e);
}
