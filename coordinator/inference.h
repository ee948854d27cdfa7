/*
 * inference: a model in memory, workers that compute it, and the scheduler that feeds them, on one event loop. No HTTP: the
 * server and `quire bench` stand on it alike.
 *
 * Opening takes over the memory that a dead server of this name left, if it is of the same model and size; else it reserves and touches new; the workers then build the weights, and `ready` is called once every group is up.
 */
#ifndef QUIRE_COORDINATOR_INFERENCE_H
#define QUIRE_COORDINATOR_INFERENCE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include <stdio.h>

#include "coordinator/checkpoint.h"
#include "coordinator/options.h"
#include "coordinator/scheduler.h"
#include "coordinator/supervisor.h"
#include "coordinator/topology.h"
#include "shm/instance.h"
#include "shm/results.h"

struct inference_hooks {
    void (*ready)(void *owner);                     /* every group is up for the first time */
    void (*stepped)(void *owner, uint64_t step_us); /* a step was answered; events of its sequences have been called */
    void (*progress)(void *owner, uint64_t done, uint64_t total); /* bytes of weights built */
    void (*hopeless)(void *owner, const char *sentence);          /* it cannot go on */
    void *owner;
};

struct inference {
    struct checkpoint checkpoint;
    struct topology topology;
    struct instance instance;
    struct arena arena;
    struct scheduler *scheduler;
    struct supervisor *supervisor;
    struct results results[GROUPS_MAX];
    uint32_t workers, groups;
    bool lost[GROUPS_MAX]; /* groups all of whose workers died too often */
    bool ready;
    bool adopted; /* the memory is a dead server's, or one's that ended with --keep */
    bool keep;    /* closing leaves the memory to the next server of this name */
    struct inference_hooks hooks;
    struct event *turn; /* runs scheduler_turn once the loop is back */
    char worker_path[4096];
    FILE *
        worker_file; /* that program, held open: whoever replaces it on the disk gives us no workers of another build */
    char worker_program[32]; /* its name as long as it is held */
    uint64_t worker_hash;    /* of its bytes */
};

/* The options say what and how much. On an error nothing is left behind. */
enum err inference_open(struct inference *f, struct event_base *loop, const struct serve_options *o,
                        const struct inference_hooks *hooks, struct why *why);
void inference_close(struct inference *f);

/*
 * The one rule of who does well with a memory that it took over (arena_does_well): a memory kills its owner at the takeover or while it answers
 * on, so that an owner that is ready, and owes no answer or has answered some steps, dies of something else. To be asked after steps and
 * once in a while. (A clean end that keeps the memory says the same of itself.)
 */
void inference_note_health(struct inference *f, bool owes);

/* Something changed for the scheduler: it gets a turn before the loop waits again. */
void inference_wake(struct inference *f);

#endif
