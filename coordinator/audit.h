/*
 * audit: a model's forward pass with a clock, prefill and decode, cold and warm. No server, no scheduler and no other process: the
 * ranks are threads on cores of their own, weights and pages lie in shared memory as the server's do, kernels and pass are the
 * server's (audit_clock.h). What a server does beside the pass, sampling and messages, is not in it.
 *
 *   cold: no cache line of weights and pages is in any cache; one run
 *   warm: what the run before left is there; the best of `repeat`
 */
#ifndef QUIRE_COORDINATOR_AUDIT_H
#define QUIRE_COORDINATOR_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/audit_clock.h"
#include "model/model.h"

struct audit_plan {
    const char *model;
    const struct kernels *kernels;
    enum kv_type kv_type;
    uint32_t workers; /* 0: one a core */
    uint32_t prompt;  /* tokens of a prompt, computed in steps of up to AUDIT_STEP_TOKENS */
    uint32_t batch;   /* sequences that decode together; 1 to AUDIT_MAX_BATCH */
    uint32_t gen;     /* steps of a decode */
    uint32_t repeat;
};

enum { AUDIT_STEP_TOKENS = 512, AUDIT_MAX_BATCH = 64 };

enum audit_run { AUDIT_PREFILL_COLD, AUDIT_PREFILL_WARM, AUDIT_DECODE_COLD, AUDIT_DECODE_WARM, AUDIT_RUNS };

/* What a part has to do in a run at least: the roof over its time. */
struct audit_work {
    double bytes;     /* weights once a step, keys and values once a step */
    double int8_macs; /* with quantised weights */
    double f32_macs;  /* with float weights, and with keys and values */
};

struct audit_result {
    uint32_t tokens;                   /* computed in the run */
    double us;                         /* of the run: the sum of all parts */
    double plain_us;                   /* of the same run without a clock; 0: not measured */
    double (*spent)[AUDIT_PART_COUNT]; /* (layers + 1) us, the mean of the ranks; row `layers`: outside the layers */
    struct audit_work work[AUDIT_PART_COUNT]; /* all layers together */
};

struct audit {
    struct model m;
    uint32_t workers;
    struct audit_result run[AUDIT_RUNS];
};

/* Loads the model and measures it. The sentence says what cannot be. */
enum err audit_take(struct audit *a, const struct audit_plan *plan, struct why *why);
void audit_fini(struct audit *a);

/* Fills to->work of a run of to->tokens in that many steps. */
void audit_count_work(const struct audit_plan *p, const struct model *m, bool is_decode, uint32_t steps,
                      struct audit_result *to);

/* A part of a run, all layers together, in us. */
double audit_part_us(const struct audit *a, enum audit_run run, enum audit_part part);

#endif
