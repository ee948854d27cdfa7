/*
 * handout: the ranks of a group do a piece of work together, in parts that are handed out as ranks come for them.
 *
 * Each rank has an even share of the work. It takes the parts of that share in order, and when none is left, also in order,
 * those that others have not begun: a core that something else slows down keeps nobody waiting for more than the part it
 * is at. Each share has a counter on a line of its own, so that a rank is alone with its share until another one is done.
 * (Work stealing, Blumofe and Leiserson, JACM 46(5), 1999, of work that is known beforehand.)
 *
 * Nothing may depend on who did a part.
 */
#ifndef QUIRE_MODEL_HANDOUT_H
#define QUIRE_MODEL_HANDOUT_H

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

enum { HANDOUT_PARTS_MAX = UINT16_MAX }; /* of one share */

/*
 * One for each rank, by rank, in memory that the ranks share; zero in the beginning.
 * Writes:    any rank, by compare and exchange.
 * Reads:     any rank, all in relaxed order.
 * Hand-over: none here; the meeting behind the work makes its results visible.
 * Death:     what a dead rank took stays taken, and the meeting behind the work, which it never reaches, ends the step. The
 *            next epoch begins anew, since a word says which work of which epoch it counts.
 */
struct handout_word {
    /* epoch << 32 | number of the work << 16 | parts of this rank's share that are taken */
    alignas(64) _Atomic uint64_t taken;
};

/* One rank's private side. */
struct handout {
    struct handout_word *words;
    uint32_t rank, ranks;
    uint64_t work;        /* epoch << 32 | number << 16, of the work at hand */
    uint32_t units, part; /* of it */
    uint32_t asked;       /* ranks whose shares have no part left, from the own one on */
};

/* Where the even share of `rank` in n things begins; it ends where that of rank + 1 begins. */
static inline uint32_t share_begin(uint32_t n, uint32_t rank, uint32_t ranks)
{
    return (uint32_t)((uint64_t)n * rank / ranks);
}

/* epoch: not 0, the same for all ranks, and another one than any that joined over these words before. */
void handout_join(struct handout *h, struct handout_word *words, uint32_t rank, uint32_t ranks, uint32_t epoch);

/*
 * The next work: `units` things in parts of `part`; the last part of a share may be smaller. Every rank begins the same work in
 * the same order, and all of them meet between the last handout_take of one and this.
 */
void handout_begin(struct handout *h, uint32_t units, uint32_t part);

/* True: units [*first, *last) are the caller's to do. False: all are taken; others may still be at theirs. */
bool handout_take(struct handout *h, uint32_t *first, uint32_t *last);

#endif
