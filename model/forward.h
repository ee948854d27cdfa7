/*
 * forward: one step of the network over a batch of tokens of several sequences, shared by the ranks of a group.
 *
 * Every rank calls forward_run with the same batch. hidden, qkv, attn and act are shared by all ranks; each rank writes
 * only the rows that it took (or its own units of attention) and meets the others after QKV, attention, output, gate/up and down,
 * and where a norm needs what several of them computed. Of a few tokens norms and rounding are recomputed by every rank into
 * private memory; of many, ranks share them and meet once more behind each. No allocation, no system call but those of meet.
 *
 * The result never depends on the number of ranks, the neighbours in the batch, or how a prompt was cut into chunks, unless
 * forward_use_blas was called.
 */
#ifndef QUIRE_MODEL_FORWARD_H
#define QUIRE_MODEL_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/handout.h"
#include "model/kernels/kernels.h"
#include "model/model.h"

/* A run of consecutive positions of one sequence. Its tokens are rows [first_row, first_row + count) of the batch. */
struct batch_run {
    uint32_t first_row;
    uint32_t count;
    uint32_t position; /* of the first of them; positions before it have their K and V in pages already */
    /*
     * pages[class][p]: positions [16 p, 16 p + 16), up to the last position of the run. Of class 1, those before the window of
     * `position` may be anything.
     */
    uint8_t *const *pages[MODEL_PAGE_CLASSES];
};

struct batch {
    uint32_t tokens; /* rows, <= the capacity that the buffers were made for */
    uint32_t run_count;
    const struct batch_run *runs; /* ascending rows, without holes */
    const uint32_t *token_ids;    /* (tokens), each below vocab */
};

/* Shared by the ranks: (capacity, …) floats each, 64-byte aligned. */
struct shared_buffers {
    struct handout_word *handed; /* (FORWARD_MAX_RANKS): zero in the beginning */
    float *hidden;               /* (capacity, dim): the residual stream */
    float *q;                    /* (capacity, heads * head_dim) */
    float *k;                    /* (capacity, kv_heads * head_dim): keys on their way to the pages */
    float *attn;                 /* (capacity, heads * head_dim) */
    float *branch; /* (capacity, dim): what a half of a layer adds, before its norm; of models that have such a norm */
    float *act;    /* (capacity, ffn); of a mixture (capacity * experts_used, expert_ffn) */
    void *rounded_act; /* the same as activations' quantised copy, where nothing reads more of them; else empty */
    void *
        rounded_in; /* the inputs of products as activations' quantised copy, where nothing reads more of them; else empty */
    float *logits; /* (logit_rows, vocab rounded up to 16) */
};

/* Lays the buffers out in one block; base NULL only counts. Returns the bytes. */
uint64_t shared_buffers_place(struct shared_buffers *b, const struct model *m, uint32_t capacity, uint32_t logit_rows,
                              uint8_t *base);

/*
 * A batch that came from elsewhere, held against what forward_run demands: 1 to capacity tokens, runs ascending and
 * without holes, positions below the context, ids below vocab. ERR_INVALID says which run or row is wrong.
 * The page pointers are the caller's word.
 */
enum err batch_check(const struct batch *b, const struct model *m, uint32_t capacity, struct why *why);

enum { FORWARD_MAX_CAPACITY = 1024, FORWARD_MAX_RANKS = 512 };

struct forward; /* one rank's private side: scratch and pointers */

/* Waits for the other ranks; ERR_ABORTED ends the step at once. arg is the caller's. */
typedef enum err (*meet_fn)(void *arg);

/*
 * weights: the built block, which must outlive f, like *m and *k. Everything a step needs is allocated here.
 * A capacity of 0 or above FORWARD_MAX_CAPACITY is ERR_INVALID; logit_rows is at most capacity.
 */
enum err forward_open(struct forward **out, const struct model *m, const uint8_t *weights, const struct kernels *k,
                      uint32_t capacity, uint32_t logit_rows, struct why *why);
void forward_close(struct forward *f);

/*
 * From now on OpenBLAS computes the products of float weights with many tokens, no longer with the same bits in every
 * batch (kernels/product_blas.h). Takes its memory here. ERR_UNSUPPORTED: there is no OpenBLAS; nothing has changed.
 */
enum err forward_use_blas(struct forward *f, struct why *why);

/*
 * From now on inputs are not rounded to 8 bits: quantised weights are widened to floats, and multiplied as float weights are.
 * Slow, and meant for comparing a model with a float reference; equal bits hold among ranks that all do so. Takes its memory here.
 */
enum err forward_use_float_activations(struct forward *f, struct why *why);

/*
 * Sets this rank's place in its group, of FORWARD_MAX_RANKS at most; between steps only. epoch: not 0, the same for all ranks, and
 * never one that joined over these buffers before; steps of two epochs do not overlap. meet may be NULL when ranks is 1.
 */
void forward_join(struct forward *f, uint32_t rank, uint32_t ranks, uint32_t epoch, const struct shared_buffers *shared,
                  meet_fn meet, void *meet_arg);

/* All layers of a batch that batch_check has passed. On return hidden holds the residual stream of all rows, whole for every rank. OK or ERR_ABORTED. */
enum err forward_run(struct forward *f, const struct batch *b);

/*
 * Logits of `count` rows of the batch (row indices in rows), 1 to logit_rows: all ranks begin, and each goes on to the next until
 * there is none. True: it took the vocabulary rows [*first, *last), whole blocks of 256, and they are in logits[(0..count)].
 * Does not meet: the caller does before it reads others' rows or begins again.
 */
void forward_logits_begin(struct forward *f, const uint32_t *rows, uint32_t count);
bool forward_logits_next(struct forward *f, uint32_t *first, uint32_t *last);

#endif
