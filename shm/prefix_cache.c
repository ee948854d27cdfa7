#include "shm/prefix_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/must.h"

struct key {
    uint64_t salt;
    struct page_name parent;
    uint32_t tokens[PAGE_TOKENS];
    uint64_t page_class, reserve; /* words are hashed in pairs */
};
static_assert(sizeof(struct key) == 12 * sizeof(uint64_t), "no holes: keys are compared and hashed as bytes");

/* verdicts of prefix_cache_adopt about a page's chain of parents */
enum verdict { UNKNOWN, ASKING, WHOLE, BROKEN };

/* entry[page] is that page's; a page stands under one key at most. */
struct entry {
    struct key key;
    uint32_t generation; /* of the page; 0: the page is not in the index */
    uint32_t verdict;
    page_id next; /* in its bucket */
};

struct prefix_cache {
    struct page_pool *pool;
    struct entry *entries; /* by page */
    page_id *buckets;      /* bucket_mask + 1 first pages */
    uint32_t bucket_mask;
    uint32_t page_count;
    uint32_t count;
    uint64_t seed[2];
};

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Keyed multiply-and-fold over the key's words, two at a time (after Wang Yi's wyhash). */
static page_id *bucket_of(const struct prefix_cache *cache, const struct key *key)
{
    uint64_t words[sizeof *key / sizeof(uint64_t)];
    memcpy(words, key, sizeof words);
    uint64_t hash = cache->seed[0];
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i += 2)
        hash = fold(words[i] ^ cache->seed[0] ^ hash, words[i + 1] ^ cache->seed[1]);
    return &cache->buckets[fold(hash ^ cache->seed[1], cache->seed[0]) & cache->bucket_mask];
}

static struct key key_of(uint32_t page_class, uint64_t salt, struct page_name parent, const uint32_t *tokens)
{
    struct key key = {.salt = salt, .parent = parent, .page_class = page_class};
    memcpy(key.tokens, tokens, sizeof key.tokens);
    return key;
}

static uint32_t class_of(const struct prefix_cache *cache, page_id page)
{
    return page_pool_descriptor(cache->pool, page)->page_class;
}

static bool is_sealed(const struct prefix_cache *cache, page_id page)
{
    enum page_state state = page_pool_state(cache->pool, page);
    return state == PAGE_SEALED || state == PAGE_CACHED;
}

static page_id find(const struct prefix_cache *cache, const struct key *key)
{
    for (page_id page = *bucket_of(cache, key); page != PAGE_NONE; page = cache->entries[page].next)
        if (memcmp(&cache->entries[page].key, key, sizeof *key) == 0)
            return page;
    return PAGE_NONE;
}

struct prefix_hit prefix_cache_find(const struct prefix_cache *cache, uint64_t salt, const uint32_t *tokens,
                                    uint32_t count, page_id *out, uint32_t room)
{
    struct prefix_hit hit = {.pages = 0, .computing = PAGE_NONE};
    uint32_t most = count ? (count - 1) / PAGE_TOKENS : 0; /* the last position is computed: its logits are needed */
    struct page_name parent = NO_PAGE;
    while (hit.pages < most && hit.pages < room) {
        struct key key = key_of(PAGE_CLASS_WHOLE, salt, parent, tokens + hit.pages * PAGE_TOKENS);
        page_id page = find(cache, &key);
        if (page == PAGE_NONE)
            break;
        if (page_pool_state(cache->pool, page) == PAGE_FILLING) {
            hit.computing = page;
            break;
        }
        out[hit.pages++] = page;
        parent = page_pool_name(cache->pool, page);
    }
    return hit;
}

uint32_t prefix_cache_find_window(const struct prefix_cache *cache, uint64_t salt, const uint32_t *tokens,
                                  const page_id *found, uint32_t pages, uint32_t window, page_id *out)
{
    uint32_t usable = 0, run = 0; /* window pages found without a gap, up to here */
    for (uint32_t i = 0; i < pages; i++) {
        struct page_name whole = page_pool_name(cache->pool, found[i]);
        struct key key = key_of(PAGE_CLASS_WINDOW, salt, whole, tokens + i * PAGE_TOKENS);
        out[i] = find(cache, &key);
        run = out[i] != PAGE_NONE && is_sealed(cache, out[i]) ? run + 1 : 0;
        if (run >= i + 1 - window_first_page(window, (i + 1) * PAGE_TOKENS))
            usable = i + 1;
    }
    return usable;
}

page_id prefix_cache_insert(struct prefix_cache *cache, page_id page, uint64_t salt, struct page_name parent,
                            const uint32_t tokens[PAGE_TOKENS])
{
    must(page < cache->page_count && cache->entries[page].generation == 0);
    struct key key = key_of(class_of(cache, page), salt, parent, tokens);
    page_id first = find(cache, &key);
    if (first != PAGE_NONE)
        return first;
    page_id *bucket = bucket_of(cache, &key);
    struct entry *entry = &cache->entries[page];
    *entry = (struct entry){.key = key, .generation = page_pool_name(cache->pool, page).generation, .next = *bucket};
    *bucket = page;
    cache->count++;
    page_pool_mark_indexed(cache->pool, page);
    return page;
}

/* The pool's word that a page is no longer what its key says. */
static void forget(void *arg, page_id page)
{
    struct prefix_cache *cache = arg;
    struct entry *entry = &cache->entries[page];
    must(entry->generation != 0);
    page_id *at = bucket_of(cache, &entry->key);
    while (*at != page) {
        must(*at != PAGE_NONE);
        at = &cache->entries[*at].next;
    }
    *at = entry->next;
    entry->generation = 0;
    cache->count--;
}

enum err prefix_cache_open(struct prefix_cache **out, struct page_pool *pool, struct why *why)
{
    uint32_t pages = page_pool_counts(pool).total;
    uint32_t buckets = 16;
    while (buckets < pages && buckets < 1u << 30)
        buckets *= 2;
    struct prefix_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        goto no_memory;
    cache->entries = calloc(pages, sizeof *cache->entries);
    cache->buckets = malloc(buckets * sizeof *cache->buckets);
    if (!cache->entries || !cache->buckets)
        goto free_cache;
    memset(cache->buckets, 0xff, buckets * sizeof *cache->buckets); /* PAGE_NONE */
    cache->pool = pool;
    cache->bucket_mask = buckets - 1;
    cache->page_count = pages;
    if (getrandom(cache->seed, sizeof cache->seed, GRND_NONBLOCK) != (ssize_t)sizeof cache->seed)
        cache->seed[0] = now_us(); /* a machine that has just started: chains may be aimed at, answers stay right */
    cache->seed[0] |= 1;
    cache->seed[1] |= 1;
    page_pool_on_forget(pool, forget, cache);
    *out = cache;
    return OK;

free_cache:
    free(cache->entries);
    free(cache->buckets);
    free(cache);
no_memory:
    return because(why, ERR_NOMEM, "there is no memory left to index %u pages", pages);
}

void prefix_cache_close(struct prefix_cache *cache)
{
    if (!cache)
        return;
    page_pool_on_forget(cache->pool, NULL, NULL);
    free(cache->entries);
    free(cache->buckets);
    free(cache);
}

/* The sealed page of class 0 that a sealed page names as its parent, or PAGE_NONE when that one has become something else. */
static page_id live_parent(const struct prefix_cache *cache, page_id page)
{
    const struct page_descriptor *d = page_pool_descriptor(cache->pool, page);
    struct page_name parent = d->parent;
    if (parent.page >= cache->page_count || !is_sealed(cache, parent.page))
        return PAGE_NONE;
    bool same = page_pool_name(cache->pool, parent.page).generation == parent.generation &&
                class_of(cache, parent.page) == PAGE_CLASS_WHOLE;
    return same ? parent.page : PAGE_NONE;
}

/*
 * Walks up until the chain is known to be whole or broken, then says so to all on the way. A ring is broken, and a window page that
 * hangs on none.
 */
static bool chain_is_whole(struct prefix_cache *cache, page_id page)
{
    struct entry *entries = cache->entries;
    enum verdict verdict = UNKNOWN;
    for (page_id at = page; verdict == UNKNOWN;) {
        if (entries[at].verdict == ASKING) {
            verdict = BROKEN;
        } else if (entries[at].verdict != UNKNOWN) {
            verdict = (enum verdict)entries[at].verdict;
        } else {
            entries[at].verdict = ASKING;
            struct page_name parent = page_pool_descriptor(cache->pool, at)->parent;
            if (parent.page == PAGE_NONE)
                verdict = class_of(cache, at) == PAGE_CLASS_WHOLE ? WHOLE : BROKEN;
            else if ((at = live_parent(cache, at)) == PAGE_NONE)
                verdict = BROKEN;
        }
    }
    for (page_id at = page; at != PAGE_NONE && entries[at].verdict == ASKING; at = live_parent(cache, at))
        entries[at].verdict = (uint32_t)verdict;
    return verdict == WHOLE;
}

uint32_t prefix_cache_adopt(struct prefix_cache *cache)
{
    uint32_t dropped = 0;
    must(cache->count == 0);
    for (page_id page = 0; page < cache->page_count; page++)
        cache->entries[page].verdict = UNKNOWN;
    for (page_id page = 0; page < cache->page_count; page++)
        if (is_sealed(cache, page)) /* asked of all before any is dropped */
            chain_is_whole(cache, page);
    for (page_id page = 0; page < cache->page_count; page++) {
        if (!is_sealed(cache, page))
            continue;
        const struct page_descriptor *d = page_pool_descriptor(cache->pool, page);
        bool indexed = cache->entries[page].verdict == WHOLE &&
                       prefix_cache_insert(cache, page, d->salt, d->parent, d->tokens) == page;
        if (!indexed && page_pool_state(cache->pool, page) == PAGE_CACHED) {
            page_pool_drop(cache->pool, page);
            dropped++;
        }
    }
    return dropped;
}

uint32_t prefix_cache_count(const struct prefix_cache *cache)
{
    return cache->count;
}

void prefix_cache_must_be_sound(const struct prefix_cache *cache)
{
    uint32_t count = 0;
    for (page_id page = 0; page < cache->page_count; page++) {
        const struct entry *entry = &cache->entries[page];
        enum page_state state = page_pool_state(cache->pool, page);
        if (entry->generation == 0) {
            must(state != PAGE_CACHED);
            continue;
        }
        count++;
        must(state == PAGE_FILLING || state == PAGE_SEALED || state == PAGE_CACHED);
        must(entry->generation == page_pool_name(cache->pool, page).generation);
        must(find(cache, &entry->key) == page); /* under its key, and no other before it */
        if (state == PAGE_FILLING)
            continue;
        const struct page_descriptor *d = page_pool_descriptor(cache->pool, page);
        struct key sealed = key_of(d->page_class, d->salt, d->parent, d->tokens);
        must(memcmp(&sealed, &entry->key, sizeof sealed) == 0); /* what was announced is what was sealed */
    }
    must(count == cache->count);
}
