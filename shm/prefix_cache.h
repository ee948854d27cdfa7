/*
 * prefix_cache: finds pages that hold the beginning of a prompt. A page is found by (salt, parent page and
 * generation, its 16 tokens), so a chain of hits from NO_PAGE on is exactly that beginning, computed for the same
 * tenant; hash collisions are compared away.
 *
 * Only pages of class 0 make chains. A page of class 1 (a window's) hangs on the page of class 0 that holds the same
 * positions: that one is its parent. So windows are found in the middle of a prompt, when those before are long gone,
 * and a window page whose class 0 page went is found no more.
 *
 * Pages that are being filled stand in the index too, once their tokens are known: a request that needs one waits for
 * its seal instead of computing it again. Private to the coordinator, derived: rebuilt by a scan of the descriptors.
 * No call allocates after open; the hash is keyed by a random number, so nobody outside can aim at one chain.
 */
#ifndef QUIRE_SHM_PREFIX_CACHE_H
#define QUIRE_SHM_PREFIX_CACHE_H

#include <stdint.h>

#include "base/err.h"
#include "shm/layout.h"
#include "shm/page_pool.h"

struct prefix_cache;

/* Registers itself with the pool as the one to tell about pages to forget. The pool outlives the cache. */
enum err prefix_cache_open(struct prefix_cache **out, struct page_pool *pool, struct why *why);
void prefix_cache_close(struct prefix_cache *cache);

/*
 * After page_pool_adopt: indexes every sealed page whose chain of parents is whole, and drops the other CACHED ones.
 * Returns how many it dropped.
 */
uint32_t prefix_cache_adopt(struct prefix_cache *cache);

struct prefix_hit {
    uint32_t pages;    /* that many of out[] are sealed and hold the prompt's first 16 * pages tokens */
    page_id computing; /* the page after them, which another sequence is filling right now; PAGE_NONE: nobody is */
};

/*
 * The longest beginning of tokens[0..count) that pages hold, at most floor((count - 1) / 16) of them and at most
 * room. Nothing is taken: the caller calls page_pool_share on what it uses, first page first, before any other call.
 */
struct prefix_hit prefix_cache_find(const struct prefix_cache *cache, uint64_t salt, const uint32_t *tokens,
                                    uint32_t count, page_id *out, uint32_t room);

/*
 * In a model with windows: how many of the `pages` pages of class 0 in found[], which prefix_cache_find gave, can be used: the
 * largest number k such that the window pages that position 16 k looks at are sealed. They stand in out[i], i from
 * window_first_page(window, 16 k) to k - 1; the rest of out[] is scratch. As above, nothing is taken.
 */
uint32_t prefix_cache_find_window(const struct prefix_cache *cache, uint64_t salt, const uint32_t *tokens,
                                  const page_id *found, uint32_t pages, uint32_t window, page_id *out);

/*
 * Says which 16 tokens a FILLING or SEALED page holds. Returns the page that stands under that key afterwards: this
 * one, or another that came first; that one's name is the parent to give for the page behind, so that equal chains
 * stay findable. Told once a page. Of class 1: parent is the page of class 0 that stands for the same tokens.
 */
page_id prefix_cache_insert(struct prefix_cache *cache, page_id page, uint64_t salt, struct page_name parent,
                            const uint32_t tokens[PAGE_TOKENS]);

/* Pages in the index. */
uint32_t prefix_cache_count(const struct prefix_cache *cache);

/*
 * Stops the program unless: every entry is FILLING, SEALED or CACHED and found again under its key; no two have one
 * key; every CACHED page has an entry; an entry's generation is its page's.
 */
void prefix_cache_must_be_sound(const struct prefix_cache *cache);

#endif
