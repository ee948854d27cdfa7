/*
 * answer_job: a whole answer written on a helper thread. Megabytes of log-probabilities take a tenth of a second, in
 * which the loop would answer nobody.
 *
 * The job writes what the answer says at the moment of answer_job_init: choices and texts are copied, tokens and scores
 * are read where they stand. So until done() the caller keeps context, request, id, tokens and scores, and may only
 * append to the latter two. Texts it may change and free at once.
 */
#ifndef QUIRE_COORDINATOR_ANSWER_JOB_H
#define QUIRE_COORDINATOR_ANSWER_JOB_H

#include <stdbool.h>

#include "coordinator/api_response.h"
#include "coordinator/job_pool.h"

struct answer_job {
    struct job job;   /* first: the job is this; done() is the caller's */
    bool ran;         /* false in done(): the pool was closed before */
    struct text text; /* the answer, in done() */

    /* private */
    struct api_answer answer;
    struct api_choice *choices; /* (count) */
    struct answer_text *texts;  /* (count) */
    uint32_t count;
};

/* Does not submit it. False: no memory; there is nothing to give back then. */
bool answer_job_init(struct answer_job *j, const struct api_answer *a, void (*done)(struct job *));
/* Not while the pool holds it. */
void answer_job_fini(struct answer_job *j);

#endif
