/*
 * worker_process: one child process, from its start to its reaping.
 */
#ifndef QUIRE_COORDINATOR_WORKER_PROCESS_H
#define QUIRE_COORDINATOR_WORKER_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct worker_process {
    pid_t pid; /* 0: none */
    int pidfd; /* readable once it is gone; -1: none */
};

/* Starts the file `program` as argv[0] with standard input from /dev/null; no other descriptor of ours stays open in it. From the main thread only: the
 * child asks to die with the thread that made it. */
enum err worker_process_spawn(struct worker_process *p, const char *program, char *const argv[], struct why *why);

/* Reaps it if it is gone: true, and how it ended. Closes the pidfd. */
bool worker_process_reap(struct worker_process *p, int *status);

/* Ends it and waits until it is reaped. For one that was started a moment ago and has nothing mapped yet: that takes well under a millisecond. */
void worker_process_undo(struct worker_process *p);

void worker_process_kill(const struct worker_process *p);

/*
 * It is dead or as good as that: what is left of its end, the unmapping of much memory, is done on whatever core has time and not on the
 * one that it stayed on while it lived. For how it ended nobody should be waiting any more.
 */
void worker_process_step_aside(const struct worker_process *p);

/* True when somebody stopped it (SIGSTOP, a debugger): it does not hang by its own fault. */
bool worker_process_is_stopped(const struct worker_process *p);

/*
 * How it ends, as soon as the kernel knows: long before it can be reaped when it has much memory mapped. False: it lives, or it is not
 * known yet (an exit with status 0 is known only when it is reaped).
 */
bool worker_process_peek(const struct worker_process *p, int *status);

/* "was killed by signal 11 (Segmentation fault)", "exited with status 3". */
void worker_process_describe(int status, char *out, size_t room);

/* True when it died by its own doing and not by a SIGKILL from outside. */
bool worker_process_died_suspect(int status);

#endif
