/* served_model: see served_model.h. */
#include "model/served_model.h"

enum { BUFFER_ALIGN = 64 };

enum err served_model_check(const struct served_model *s, struct why *why)
{
    if (s->step_tokens == 0 || s->step_tokens > SERVED_STEP_TOKENS_MAX)
        return because(why, ERR_INVALID, "a step of %u tokens cannot be served: it may have 1 to %d", s->step_tokens,
                       SERVED_STEP_TOKENS_MAX);
    if (s->logit_rows == 0 || s->logit_rows > s->step_tokens)
        return because(why, ERR_INVALID,
                       "a step of %u tokens cannot have logits of %u rows at a time: 1 to as many as tokens",
                       s->step_tokens, s->logit_rows);
    return model_check(&s->model, why);
}

static void *take(uint8_t *base, uint64_t *used, uint64_t bytes)
{
    void *at = base ? base + *used : NULL;
    *used += (bytes + BUFFER_ALIGN - 1) & ~(uint64_t)(BUFFER_ALIGN - 1);
    return at;
}

uint64_t step_buffers_place(struct step_buffers *b, const struct served_model *s, uint8_t *base)
{
    uint32_t vocab = s->model.vocab; /* at most 2^22, rows at most 2^10: nothing below overflows */
    b->logits_stride = (vocab + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    b->logit_blocks = (vocab + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
    uint64_t used = 0;
    uint64_t forward_bytes = shared_buffers_place(&b->forward, &s->model, s->step_tokens, s->logit_rows, NULL);
    uint8_t *forward_at = take(base, &used, forward_bytes);
    shared_buffers_place(&b->forward, &s->model, s->step_tokens, s->logit_rows, forward_at);
    b->processed = take(base, &used, (uint64_t)s->logit_rows * b->logits_stride * sizeof *b->processed);
    b->partials = take(base, &used, (uint64_t)s->logit_rows * b->logit_blocks * sizeof *b->partials);
    return used;
}
