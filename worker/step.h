/*
 * step: carries out one StepPlan in one rank of a group.
 *
 *   read the plan -> (meet) -> forward pass -> for each logit_rows entries: some rows of logits, meet, draw, meet
 *
 * A plan is checked whole, against the arena and the model, before anything is written: one that does not hold is
 * refused, never followed in part. After the last meeting every entry of the step is published and no rank touches the
 * plan's pages any more, so one rank's answer speaks for all. Between step_open and step_close nothing is allocated.
 */
#ifndef QUIRE_WORKER_STEP_H
#define QUIRE_WORKER_STEP_H

#include "base/err.h"
#include "model/served_model.h"
#include "proto/message.h"
#include "shm/arena.h"
#include "shm/barrier.h"

struct step; /* private scratch of one rank */

/* a has joined its group; a, served and kernels must outlive the step. */
enum err step_open(struct step **out, const struct arena *a, const struct served_model *served,
                   const struct kernels *kernels, struct why *why);
void step_close(struct step *s);

/* As forward_use_blas: prompts of float weights by OpenBLAS, outside the promise of equal bits. Once, before the first step. */
enum err step_use_blas(struct step *s, struct why *why);

/* As forward_use_float_activations: slow, for comparing with a float reference. Once, before the first step. */
enum err step_use_float_activations(struct step *s, struct why *why);

/* This rank's place from now on; between steps only. barrier must outlive its use. */
void step_join(struct step *s, struct barrier *barrier);

/*
 * ERR_ABORTED: a peer died; what was written lies above every committed position and counts for nothing.
 * ERR_FORMAT: the plan is refused, nothing was written.
 */
enum err step_run(struct step *s, const struct step_plan *plan, struct why *why);

/* Input rows of the last plan that ran: for counters. */
uint32_t step_tokens(const struct step *s);

#endif
