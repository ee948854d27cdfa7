/*
 * private_engine: workers, scheduler and memory for the time of a command, without HTTP. The same steps as the server's.
 *
 * The memory's name is the command's own (private_engine_options), so it meets no server and goes with its owner: an interrupted command
 * ends like any other, and what a killed one left goes with the next that starts.
 */
#ifndef QUIRE_COORDINATOR_PRIVATE_ENGINE_H
#define QUIRE_COORDINATOR_PRIVATE_ENGINE_H

#include "coordinator/inference.h"

struct private_engine {
    struct event_base *loop;
    struct inference inference;
    void (*stepped)(void *owner); /* a step was answered; may call private_engine_pause. NULL: nobody asks */
    void *owner;
    struct event *signals[3]; /* SIGINT, SIGTERM, SIGHUP */
    enum err fault;           /* why it cannot go on, and its sentence */
    char problem[512];
};

/* The defaults of quire serve, under a name of the command's own, with silent workers. */
void private_engine_options(struct serve_options *o, const char *command);

/* Returns when every worker can compute; shows on a terminal how far loading is. e stays where it is until the close. */
enum err private_engine_open(struct private_engine *e, const struct serve_options *o, void (*stepped)(void *owner),
                             void *owner, struct why *why);
void private_engine_close(struct private_engine *e);

/* Computes what was submitted until somebody says private_engine_pause. ERR_IO: it cannot go on, and says why; ERR_ABORTED: a signal came. */
enum err private_engine_run(struct private_engine *e, struct why *why);

/* The run returns once the event at hand is over. */
void private_engine_pause(struct private_engine *e);

/* The run ends with this sentence. */
void private_engine_fail(struct private_engine *e, const char *sentence);

#endif
