/*
 * worker: one rank of a group, or a spare waiting for one. Takes commands from the coordinator, computes, reports.
 *
 *   hello -> [build -> progress … built] -> assign -> assigned -> plan -> result, plan -> result, … -> stop
 *
 * worker_run needs nothing of its process: it can be a thread of a test program, several of them on one arena.
 */
#ifndef QUIRE_WORKER_WORKER_H
#define QUIRE_WORKER_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/log.h"
#include "shm/arena.h"

/* How the process ends. A death by signal is the supervisor's to read; 0 only after a stop command. */
enum worker_exit {
    WORKER_EXIT_STOPPED = 0,
    WORKER_EXIT_FAILED = 1,   /* could not start or go on; one line on stderr says why */
    WORKER_EXIT_USAGE = 2,    /* wrong command line */
    WORKER_EXIT_ORPHANED = 3, /* the coordinator was gone before the watch on it began */
};

enum { WORKER_GROUP_NONE = UINT32_MAX };

struct worker_options {
    const char *name;    /* of the server */
    const char *shm_dir; /* NULL or "": POSIX shared memory */
    const char *channel; /* directory where the coordinator listens; NULL: the usual place for name */
    uint32_t slot, generation;
    uint32_t cores;         /* that the whole group may run on; 0: as many as this thread may */
    uint32_t group;         /* whose memory to map before hello; WORKER_GROUP_NONE: the only one there is, if so */
    bool pin;               /* to the core that comes with the assignment */
    const char *kernels;    /* NULL or "": the best set */
    bool prefill_blas;      /* prompts of float weights by OpenBLAS */
    bool float_activations; /* inputs of quantised weights are not rounded to 8 bits */

    /* for main() */
    pid_t parent; /* who must be alive; 0: not checked */
    enum log_level log_level;

    /* for a process of its own: see sandbox.h */
    bool sandbox;
    const char *model; /* the only file or directory that may be read; NULL: none */

    const char *quantize, *overrides; /* of the model that is built, see model_file.h; NULL or "": none */

    /* for threads of a test program */
    const struct arena *arena; /* mapped and joined already; NULL: attach by name */
    const atomic_bool *stop;   /* NULL, or set to end the worker within a quarter of a second */
};

/* Fills options from a command line; ERR_INVALID with the sentence to print. Strings point into argv. */
enum err worker_options_parse(struct worker_options *o, int argc, char **argv, struct why *why);

/* One line for each option. */
const char *worker_usage(void);

/*
 * Runs until stopped. The calling thread is the computing thread: it holds the life lock of its slot.
 * OK: a stop command or the stop flag. Anything else: it could not start or go on; the slot's lock is left.
 */
enum err worker_run(const struct worker_options *o, struct why *why);

#endif
