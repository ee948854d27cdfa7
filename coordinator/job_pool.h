/*
 * job_pool: two helper threads for what may take milliseconds in the middle of a request: JSON, templates, tokenizing,
 * long answers.
 *
 * A job is handed over whole and handed back whole: between submit and done only the helper touches it, before and after
 * only the loop's thread. Jobs start in the order of submission and finish in any.
 */
#ifndef QUIRE_COORDINATOR_JOB_POOL_H
#define QUIRE_COORDINATOR_JOB_POOL_H

#include <event2/event.h>
#include <stdint.h>

#include "base/err.h"

struct job {
    void (*run)(struct job *);  /* on a helper thread */
    void (*done)(struct job *); /* back on the loop's thread; may free the job */
    struct job *next;           /* the pool's while it holds the job */
};

struct job_pool;

enum err job_pool_open(struct job_pool **out, struct event_base *loop, uint32_t threads, struct why *why);

/* Waits for the jobs under way; those that wait or are not yet handed back get done() called from here. */
void job_pool_close(struct job_pool *pool);

void job_pool_submit(struct job_pool *pool, struct job *job);

/* Jobs submitted whose done() has not been called. */
uint32_t job_pool_pending(const struct job_pool *pool);

#endif
