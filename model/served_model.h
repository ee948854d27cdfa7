/*
 * served_model: what coordinator and workers must agree on before the first step: the model, and how large a step may be.
 *
 * Plain data without pointers. The coordinator puts it where workers find it (the arena's model block) and reserves
 * served_model_work_bytes for each group; a worker copies it, checks the copy and lays step_buffers out over that memory.
 */
#ifndef QUIRE_MODEL_SERVED_MODEL_H
#define QUIRE_MODEL_SERVED_MODEL_H

#include <stdint.h>

#include "base/err.h"
#include "model/forward.h"
#include "model/model.h"
#include "model/sampler.h"

enum {
    SERVED_STEP_TOKENS_MAX = FORWARD_MAX_CAPACITY,
    SERVED_LOGIT_ROWS_DEFAULT = 16, /* more sampled rows take more rounds over the output matrix, not more memory */
};

struct served_model {
    struct model model;
    uint32_t step_tokens; /* most rows of one step */
    uint32_t logit_rows;  /* rows whose logits are made at a time, <= step_tokens */
};

/* What the ranks of a group share within a step. Rows of logits and processed are logits_stride floats apart. */
struct step_buffers {
    struct shared_buffers forward;
    float *processed;                /* (logit_rows, logits_stride): logits after bias and penalties */
    struct sample_partial *partials; /* (logit_rows, logit_blocks) */
    uint32_t logits_stride;          /* vocab rounded up to a tile */
    uint32_t logit_blocks;           /* blocks of SAMPLE_BLOCK rows */
};

/* ERR_INVALID or ERR_FORMAT with the reason: the numbers of a step are out of bounds, or model_check says no. */
enum err served_model_check(const struct served_model *s, struct why *why);

/* Lays the buffers out from base (64-byte aligned; NULL only counts). Returns the bytes. s has passed served_model_check. */
uint64_t step_buffers_place(struct step_buffers *b, const struct served_model *s, uint8_t *base);

static inline uint64_t served_model_work_bytes(const struct served_model *s)
{
    struct step_buffers ignored;
    return step_buffers_place(&ignored, s, NULL);
}

#endif
