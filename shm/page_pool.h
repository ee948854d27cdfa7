/*
 * page_pool: which KV pages are free, being filled, sealed, kept for reuse, or waiting for the last plan that names
 * them.
 *
 *             take          seal            last holder leaves       take evicts
 *      FREE ------> FILLING ----> SEALED -------------------> CACHED ----------> FREE
 *       ^              |            |      <-----------------   |
 *       |              | ended      | not in the index  share   | dropped
 *       |              v            v                           v
 *       +--------------------------- RETIRED <------------------+
 *          every plan that names it was answered
 *
 * Plan numbers: each plan sent to any group draws the next number of one counter. A holder that leaves says the
 * number of the last plan that named the page through it; the page is written by nobody else until page_pool_reclaim
 * has been told that all plans up to that number were answered or their group fenced.
 *
 * Holders, free list and order of use are derived and private; page_pool_adopt makes them again from descriptors and
 * counted references. No call allocates after page_pool_open. Coordinator only, one thread.
 */
#ifndef QUIRE_SHM_PAGE_POOL_H
#define QUIRE_SHM_PAGE_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "shm/arena.h"
#include "shm/layout.h"

enum page_state { PAGE_FREE, PAGE_FILLING, PAGE_SEALED, PAGE_CACHED, PAGE_RETIRED, PAGE_STATES };

/*
 * page_descriptor: what a page is and what it holds.
 * Writes:    the coordinator.
 * Reads:     workers compare generation and class with the entry of a row that their plan names; the next
 *            coordinator; inspect.
 * Hand-over: the StepPlan message. generation changes only while no plan in flight names the page.
 * Death:     seal_crc covers what was sealed; a descriptor whose crc differs holds nothing, whatever its state says.
 */
struct page_descriptor {
    _Atomic uint32_t generation; /* raised when the page is taken; never 0 after the first time */
    _Atomic uint32_t state;      /* enum page_state; the other fields are stored before SEALED is */
    uint32_t page_class;
    uint32_t node;
    struct page_name parent; /* of a sealed page: the page before it, of class 1 the one beside it (prefix_cache.h) */
    uint64_t salt;           /* tenant: pages of another are never found */
    uint32_t holders;        /* sequences that hold it; for inspect only, never trusted */
    uint32_t seal_crc;       /* of generation, class, parent, salt, tokens */
    uint64_t last_plan;      /* highest plan number of a holder that left */
    uint64_t sealed_us;      /* monotonic clock */

    alignas(CACHE_LINE) uint32_t tokens[PAGE_TOKENS]; /* ids at its 16 positions, good once sealed */

    alignas(CACHE_LINE) uint32_t has_checksum;
    uint32_t checksum; /* of the page's bytes, as the coordinator was told */
    uint64_t reserve[7];
};
static_assert(sizeof(struct page_descriptor) == 192, "layout changed: bump LAYOUT_VERSION");

/* Whether a sealed page's identity is what was sealed. */
bool page_descriptor_is_whole(const struct page_descriptor *d);

struct page_pool; /* private handle of the coordinator */

/* Over a new arena (all pages FREE). The arena outlives the pool. */
enum err page_pool_open(struct page_pool **out, struct arena *arena, struct why *why);

/*
 * Over an arena that was adopted: references[page] is how many checked rows name it. A page with references stays
 * FILLING or SEALED, a sealed one without becomes CACHED, all others FREE. A sealed page with a wrong crc, and a
 * filling one that two rows name, is refused: references[page] becomes 0 and the caller drops those rows. Follow with
 * prefix_cache_adopt.
 */
enum err page_pool_adopt(struct page_pool **out, struct arena *arena, uint32_t *references, struct why *why);
void page_pool_close(struct page_pool *pool);

/* Called whenever a page that was marked indexed stops being what the index says: evicted, or ended before its seal. */
typedef void (*page_forget_fn)(void *arg, page_id page);
void page_pool_on_forget(struct page_pool *pool, page_forget_fn forget, void *arg);

/*
 * A page to fill, with one holder: a free one, else the least recently used CACHED one that no plan names. PAGE_NONE:
 * neither.
 */
page_id page_pool_take(struct page_pool *pool, uint32_t page_class, uint32_t node);

/* One more holder of a SEALED or CACHED page. */
void page_pool_share(struct page_pool *pool, page_id page);

/*
 * One holder less; last_plan is the number of the last plan that named the page through that holder, 0 for none.
 * Release a sequence's pages last one first: then a page is never evicted before those behind it.
 */
void page_pool_release(struct page_pool *pool, page_id page, uint64_t last_plan);

/* The page's 16 positions are committed: it never changes again. */
void page_pool_seal(struct page_pool *pool, page_id page, struct page_name parent, uint64_t salt,
                    const uint32_t tokens[PAGE_TOKENS]);

/*
 * The index names this FILLING or SEALED page (prefix_cache.c only). Released sealed pages without the mark are not
 * kept.
 */
void page_pool_mark_indexed(struct page_pool *pool, page_id page);

/*
 * Takes a page out of the index: CACHED goes to RETIRED now, SEALED when its last holder leaves. For pages that
 * failed their checksum.
 */
void page_pool_drop(struct page_pool *pool, page_id page);

/* All plans with numbers <= answered were answered or fenced: what waited for them is free. Never goes back. */
void page_pool_reclaim(struct page_pool *pool, uint64_t answered);

/* The bytes' checksum, told by those who computed the page. */
void page_pool_set_checksum(struct page_pool *pool, page_id page, uint32_t checksum);

enum page_state page_pool_state(const struct page_pool *pool, page_id page);
uint32_t page_pool_holders(const struct page_pool *pool, page_id page);
struct page_name page_pool_name(const struct page_pool *pool, page_id page);
const struct page_descriptor *page_pool_descriptor(const struct page_pool *pool, page_id page);

/* total = free + used + cached + retired; shared are those of used with more than one holder. O(1). */
struct page_counts {
    uint32_t total, free, used, cached, retired, shared;
};
struct page_counts page_pool_counts(const struct page_pool *pool); /* of all classes together */
struct page_counts page_pool_class_counts(const struct page_pool *pool, uint32_t page_class);

/*
 * Pages of a class on a node that page_pool_take would give right now, evictions included (an upper bound while plans
 * run). O(1).
 */
uint32_t page_pool_available(const struct page_pool *pool, uint32_t page_class, uint32_t node);

/*
 * Stops the program unless all of this is so:
 *  1. every page is in one state and in the one list of that state (free: per class and node; cached: order of use;
 * retired)
 *  2. FILLING has exactly one holder, SEALED at least one, the others none
 *  3. references, when given: holders of each page equals references[page]
 *  4. counters of each class equal what a scan counts, total = free + used + cached + retired
 *  5. a CACHED page is indexed; a FREE or RETIRED one is not
 *  6. a SEALED or CACHED page's seal_crc is right; class and node are those of its number
 *  7. every page ever taken has a generation that is not 0
 *  8. a RETIRED page waits for a plan that was not answered
 */
void page_pool_must_be_sound(const struct page_pool *pool, const uint32_t *references);

/* The last moves, oldest first: what a failed assertion prints. */
void page_pool_print_trace(const struct page_pool *pool, FILE *to);

const char *page_state_name(enum page_state state);

#endif
