/*
 * results: what the sampled rows of a step said. Two slots at the start of each work.G, used in turns by even and odd
 * steps: while step n + 1 writes one, its rows take their input tokens from the other, and the coordinator reads what
 * step n said.
 */
#ifndef QUIRE_SHM_RESULTS_H
#define QUIRE_SHM_RESULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "shm/arena.h"
#include "shm/layout.h"

struct result_top {
    uint32_t token;
    float logprob;
};

/*
 * result_entry: the token of one sampled position, or the log-probability of one position of a scored prompt (token =
 * the prompt's next token). Entry i of a step is the i-th sampled or scored position in the order of the plan's rows.
 * Writes:    the one worker that drew it.
 * Reads:     workers of the next step (token), the coordinator after the StepResult messages of all ranks.
 * Hand-over: stamp, stored with release after the other fields. A reader takes none whose stamp, session or session
 *            generation differs.
 * Death:     a half-written entry has an old stamp. A step done again writes the same.
 */
struct result_entry {
    _Atomic uint64_t stamp; /* result_stamp(epoch, step) */
    uint32_t session, session_generation;
    uint32_t token;
    float logprob;
    uint32_t top_count;
    uint32_t reserve;
    struct result_top top[SAMPLING_MAX_TOP_LOGPROBS]; /* descending, ties by id */
};
static_assert(sizeof(struct result_entry) == 192, "layout changed: bump LAYOUT_VERSION");

/* Never 0, since epochs are not: zeroed memory holds no result. */
static inline uint64_t result_stamp(uint32_t epoch, uint64_t step)
{
    return (uint64_t)epoch << 32 | (uint32_t)step;
}

/* A worker's: entry i of that step, to be filled and then published. index < result_rows. */
struct result_entry *result_entry_at(const struct arena *a, uint64_t step, uint32_t index);

/* All fields but the stamp are filled; from now on others may read the entry. */
void result_publish(struct result_entry *entry, uint32_t epoch, uint64_t step);

/*
 * A worker's, for a row that says "the token that step n sampled": ERR_ABORTED when the entry is of another epoch,
 * step or session; the worker drops the plan.
 */
enum err result_token(const struct arena *a, uint32_t epoch, uint64_t step, uint32_t index, uint32_t session,
                      uint32_t session_generation, uint32_t *token);

/*
 * The coordinator's: it maps each group's results, read-only.
 */
struct results {
    struct segment segment; /* private */
    uint32_t rows;
    uint64_t slot_bytes;
};
enum err results_open(struct results *r, const struct arena *a, uint32_t group, struct why *why);
void results_close(struct results *r);

/*
 * A checked copy of an entry. ERR_FORMAT with the reason: not of that step or session, token not below vocab, more
 * than 20 alternatives.
 */
enum err results_read(const struct results *r, uint32_t epoch, uint64_t step, uint32_t index, uint32_t session,
                      uint32_t session_generation, uint32_t vocab, struct result_entry *out, struct why *why);

#endif
