#include "model/handout.h"

#include <stdatomic.h>

#include "base/fault.h"
#include "base/must.h"

enum { RANKS_ASKED = 8 }; /* with the own one; each line of another rank is a cache miss, and a barrier is near */

void handout_join(struct handout *h, struct handout_word *words, uint32_t rank, uint32_t ranks, uint32_t epoch)
{
    must(rank < ranks && epoch > 0);
    *h = (struct handout){.words = words, .rank = rank, .ranks = ranks, .work = (uint64_t)epoch << 32, .asked = ranks};
}

/* The parts of it that are taken, when the word is about this work; a word about another says that none is. */
static uint32_t taken_of(uint64_t word, uint64_t work)
{
    return (word & ~(uint64_t)HANDOUT_PARTS_MAX) == work ? (uint32_t)(word & HANDOUT_PARTS_MAX) : 0;
}

/* Puts `with` into the word where *seen is in it; else says what is. */
static bool replace(_Atomic uint64_t *word, uint64_t *seen, uint64_t with)
{
    return atomic_compare_exchange_weak_explicit(word, seen, with, memory_order_relaxed, /* see handout_word */
                                                 memory_order_relaxed);                  /* the same */
}

void handout_begin(struct handout *h, uint32_t units, uint32_t part)
{
    uint32_t number = ((uint32_t)h->work + HANDOUT_PARTS_MAX + 1) & ~(uint32_t)HANDOUT_PARTS_MAX; /* wraps */
    must(part > 0 && units / h->ranks / part < HANDOUT_PARTS_MAX);
    h->work = (h->work >> 32 << 32) | number;
    h->units = units;
    h->part = part;
    h->asked = 0;

    /* So that no word is older than the work before this one: 2^16 works ago there was one of the same number. */
    _Atomic uint64_t *mine = &h->words[h->rank].taken;
    uint64_t seen = atomic_load_explicit(mine, memory_order_relaxed); /* see handout_word */
    while ((seen & ~(uint64_t)HANDOUT_PARTS_MAX) != h->work && !replace(mine, &seen, h->work))
        ;
}

/* Takes a part of the share of `rank`, which has `parts`. */
static bool take_of(struct handout *h, uint32_t rank, uint32_t parts, uint32_t *taken)
{
    _Atomic uint64_t *word = &h->words[rank].taken;
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed); /* see handout_word */
    do {
        *taken = taken_of(seen, h->work);
        if (*taken >= parts)
            return false;
    } while (!replace(word, &seen, h->work | (*taken + 1)));
    return true;
}

bool handout_take(struct handout *h, uint32_t *first, uint32_t *last)
{
    uint32_t most = h->ranks < RANKS_ASKED ? h->ranks : RANKS_ASKED;
    for (; h->asked < most; h->asked++) {
        uint32_t rank = (h->rank + h->asked) % h->ranks, taken;
        uint32_t begin = share_begin(h->units, rank, h->ranks), end = share_begin(h->units, rank + 1, h->ranks);
        if (!take_of(h, rank, (end - begin + h->part - 1) / h->part, &taken))
            continue;
        *first = begin + taken * h->part;
        *last = end - *first < h->part ? end : *first + h->part;
        fault_point(FAULT_WORKER_PART_TAKEN);
        return true;
    }
    return false;
}
