/*
 * audit_clock: where the time of a forward pass goes. A set of kernels around the real one: each function reads the clock when it is
 * entered and when it is left. The pass itself is the server's, unchanged, and has no place where it would ask for a clock.
 *
 * Every moment belongs to one part of one layer. Which product or norm is meant follows from the weights that it reads. What the pass
 * does between two kernels counts with the kernel before it, as audit_part says; behind a meeting, with the one after it.
 *
 * One clock a thread: the kernels that audit_clock_kernels gives find that of their thread.
 */
#ifndef QUIRE_COORDINATOR_AUDIT_CLOCK_H
#define QUIRE_COORDINATOR_AUDIT_CLOCK_H

#include <stdint.h>

#include "base/err.h"
#include "model/kernels/kernels.h"
#include "model/model.h"

/* X(part, "key", "for people") in the order of a layer. */
#define AUDIT_PARTS(X)                                            \
    X(AUDIT_EMBED, "embedding", "embedding")                      \
    X(AUDIT_NORM, "norm", "norms of the hidden state")            \
    X(AUDIT_QUANTISE, "quantise", "rounding of inputs to 8 bits") \
    X(AUDIT_QKV, "qkv", "Q, K, V")                                \
    X(AUDIT_QK_NORM, "qk_norm", "norm of Q and K")                \
    X(AUDIT_ROPE, "rope", "RoPE")                                 \
    X(AUDIT_STORE, "store", "biases, K and V into pages")         \
    X(AUDIT_SCORES, "qk", "Q K^T")                                \
    X(AUDIT_SOFTMAX, "softmax", "softmax")                        \
    X(AUDIT_VALUES, "av", "A V")                                  \
    X(AUDIT_ATTENTION, "attention", "attention, of one piece")    \
    X(AUDIT_OUTPUT, "output", "output")                           \
    X(AUDIT_MLP, "mlp", "MLP")                                    \
    X(AUDIT_HEAD, "head", "head")                                 \
    X(AUDIT_WAIT, "wait", "waiting for the other workers")

enum audit_part {
#define X(part, key, words) part,
    AUDIT_PARTS(X)
#undef X
        AUDIT_PART_COUNT
};

const char *audit_part_key(enum audit_part part);
const char *audit_part_words(enum audit_part part);

/* Which weights belong to which part: by offset in the weights block. */
struct audit_map;
enum err audit_map_open(struct audit_map **out, const struct model *m, const uint8_t *weights, struct why *why);
void audit_map_close(struct audit_map *map);

/* Time by layer and part; row `layers` is what stands outside the layers: the embedding, the last norm, the head. */
struct audit_clock {
    const struct audit_map *map;
    uint64_t (*spent)[AUDIT_PART_COUNT]; /* (layers + 1), ticks; the caller's memory */
    uint32_t layer;
    enum audit_part part; /* who gets what passes until the next reading */
    uint64_t last;        /* when the clock was read */
};

/* Ticks of the clock now; how long one is, the caller finds out. Runs on at the same rate on every core. */
uint64_t audit_ticks(void);

/* The kernels of `real` with the clock around them; one set at a time. */
const struct kernels *audit_clock_kernels(const struct kernels *real);

/* From here to audit_clock_stop this thread's time goes to c. A pass begins with the embedding. */
void audit_clock_start(struct audit_clock *c);
/* Before a meeting and behind it: what passes in between is AUDIT_WAIT. Harmless while no clock runs. */
void audit_clock_wait(void);
void audit_clock_stop(void);

#endif
