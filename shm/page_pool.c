#include "shm/page_pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/must.h"
#include "shm/crc32c.h"

enum { TRACE_MOVES = 256 };

/* A doubly linked list of pages, in which each page's links are link[page]. */
struct list {
    page_id first, last;
    uint32_t count;
};

struct link {
    page_id before, after;
};

/* Pages of one class on one node: what may stand in for each other. */
struct zone {
    struct list free;
    struct list cached; /* least recently used first */
};

struct trace_move {
    page_id page;
    uint32_t generation;
    uint8_t from, to;
};

struct page_pool {
    struct page_descriptor *descriptors; /* in `table` */
    uint32_t page_count, page_classes, nodes;
    struct zone zones[PAGE_CLASSES_MAX][NODES_MAX];
    struct list retired;
    struct link *link;
    uint32_t *holders;
    bool *indexed;
    struct page_counts counts[PAGE_CLASSES_MAX];
    uint64_t answered; /* all plans up to this number were answered */
    page_forget_fn forget;
    void *forget_arg;
    uint64_t moves; /* ever made */
    struct trace_move trace[TRACE_MOVES];
};

#define BIT(state) (1u << (state))
static const uint8_t may_follow[PAGE_STATES] = {
    [PAGE_FREE] = BIT(PAGE_FILLING),
    [PAGE_FILLING] = BIT(PAGE_SEALED) | BIT(PAGE_RETIRED),
    [PAGE_SEALED] = BIT(PAGE_CACHED) | BIT(PAGE_RETIRED),
    [PAGE_CACHED] = BIT(PAGE_SEALED) | BIT(PAGE_FREE) | BIT(PAGE_RETIRED),
    [PAGE_RETIRED] = BIT(PAGE_FREE),
};

const char *page_state_name(enum page_state state)
{
    static const char *const names[PAGE_STATES] = {"free", "filling", "sealed", "cached", "retired"};
    return (unsigned)state < PAGE_STATES ? names[state] : "damaged";
}

/* ---- lists ---- */

static void append(struct page_pool *pool, struct list *list, page_id page)
{
    pool->link[page] = (struct link){.before = list->last, .after = PAGE_NONE};
    if (list->last == PAGE_NONE)
        list->first = page;
    else
        pool->link[list->last].after = page;
    list->last = page;
    list->count++;
}

static void unlink_page(struct page_pool *pool, struct list *list, page_id page)
{
    struct link link = pool->link[page];
    if (link.before == PAGE_NONE)
        list->first = link.after;
    else
        pool->link[link.before].after = link.after;
    if (link.after == PAGE_NONE)
        list->last = link.before;
    else
        pool->link[link.after].before = link.before;
    list->count--;
}

/* The list in which pages of that state stand; NULL: they stand in the rows of their holders. */
static struct list *list_of(struct page_pool *pool, page_id page, enum page_state state)
{
    const struct page_descriptor *d = &pool->descriptors[page];
    struct zone *zone = &pool->zones[d->page_class][d->node];
    switch (state) {
    case PAGE_FREE:
        return &zone->free;
    case PAGE_CACHED:
        return &zone->cached;
    case PAGE_RETIRED:
        return &pool->retired;
    default:
        return NULL;
    }
}

static uint32_t *counter_of(struct page_counts *counts, enum page_state state)
{
    switch (state) {
    case PAGE_FREE:
        return &counts->free;
    case PAGE_CACHED:
        return &counts->cached;
    case PAGE_RETIRED:
        return &counts->retired;
    default:
        return &counts->used;
    }
}

/* ---- states and holders ---- */

enum page_state page_pool_state(const struct page_pool *pool, page_id page)
{
    must(page < pool->page_count);
    return (enum page_state)atomic_load_explicit(&pool->descriptors[page].state, memory_order_relaxed); /* own store */
}

struct page_name page_pool_name(const struct page_pool *pool, page_id page)
{
    must(page < pool->page_count);
    /* Relaxed: read by the thread that wrote it. */
    return (struct page_name){page, atomic_load_explicit(&pool->descriptors[page].generation, memory_order_relaxed)};
}

static struct page_counts *counts_of(struct page_pool *pool, page_id page)
{
    return &pool->counts[pool->descriptors[page].page_class];
}

static void put(struct page_pool *pool, page_id page, enum page_state state)
{
    struct list *list = list_of(pool, page, state);
    if (list)
        append(pool, list, page);
    ++*counter_of(counts_of(pool, page), state);
    /* Release: what the descriptor says was stored before; pairs with the acquire of whoever adopts or inspects. */
    atomic_store_explicit(&pool->descriptors[page].state, (uint32_t)state, memory_order_release);
}

/* The one function that moves a page from state to state. */
static void move(struct page_pool *pool, page_id page, enum page_state to)
{
    enum page_state from = page_pool_state(pool, page);
    pool->trace[pool->moves++ % TRACE_MOVES] = (struct trace_move){
        .page = page, .generation = page_pool_name(pool, page).generation, .from = (uint8_t)from, .to = (uint8_t)to};
    if (!(may_follow[from] & BIT(to))) {
        page_pool_print_trace(pool, stderr);
        must_fail("a page moves along the picture of its states", __FILE__, __LINE__);
    }
    struct list *list = list_of(pool, page, from);
    if (list)
        unlink_page(pool, list, page);
    --*counter_of(counts_of(pool, page), from);
    put(pool, page, to);
}

void page_pool_print_trace(const struct page_pool *pool, FILE *to)
{
    uint64_t first = pool->moves > TRACE_MOVES ? pool->moves - TRACE_MOVES : 0;
    for (uint64_t i = first; i < pool->moves; i++) {
        const struct trace_move *m = &pool->trace[i % TRACE_MOVES];
        fprintf(to, "move %llu: page %u.%u %s -> %s\n", (unsigned long long)i, m->page, m->generation,
                page_state_name(m->from), page_state_name(m->to));
    }
}

static void set_holders(struct page_pool *pool, page_id page, uint32_t holders)
{
    counts_of(pool, page)->shared += (uint32_t)(holders > 1) - (uint32_t)(pool->holders[page] > 1);
    pool->holders[page] = holders;
    pool->descriptors[page].holders = holders;
}

/* The index entry goes first, so that nobody finds a page that is on its way. */
static void forget_if_indexed(struct page_pool *pool, page_id page)
{
    if (!pool->indexed[page])
        return;
    pool->indexed[page] = false;
    must(pool->forget);
    pool->forget(pool->forget_arg, page);
}

/* Nobody holds it and nobody will find it. */
static void retire(struct page_pool *pool, page_id page)
{
    must(pool->holders[page] == 0 && !pool->indexed[page]);
    move(pool, page, PAGE_RETIRED);
    if (pool->descriptors[page].last_plan <= pool->answered)
        move(pool, page, PAGE_FREE);
}

/* ---- what the coordinator does ---- */

static page_id oldest_evictable(const struct page_pool *pool, const struct zone *zone)
{
    page_id page = zone->cached.first;
    while (page != PAGE_NONE && pool->descriptors[page].last_plan > pool->answered)
        page = pool->link[page].after;
    return page;
}

page_id page_pool_take(struct page_pool *pool, uint32_t page_class, uint32_t node)
{
    must(page_class < pool->page_classes && node < pool->nodes);
    struct zone *zone = &pool->zones[page_class][node];
    if (zone->free.first == PAGE_NONE) {
        page_id evicted = oldest_evictable(pool, zone);
        if (evicted == PAGE_NONE)
            return PAGE_NONE;
        forget_if_indexed(pool, evicted);
        move(pool, evicted, PAGE_FREE);
    }
    page_id page = zone->free.first;
    struct page_descriptor *d = &pool->descriptors[page];
    uint32_t generation = page_pool_name(pool, page).generation + 1;
    /* Relaxed: no plan in flight names the page; those to come are handed over by their messages. */
    atomic_store_explicit(&d->generation, generation ? generation : 1, memory_order_relaxed);
    d->parent = NO_PAGE;
    d->salt = 0;
    d->seal_crc = 0;
    d->last_plan = 0;
    d->sealed_us = 0;
    d->has_checksum = 0;
    move(pool, page, PAGE_FILLING);
    set_holders(pool, page, 1);
    return page;
}

void page_pool_share(struct page_pool *pool, page_id page)
{
    enum page_state state = page_pool_state(pool, page);
    must(state == PAGE_SEALED || state == PAGE_CACHED);
    if (state == PAGE_CACHED)
        move(pool, page, PAGE_SEALED);
    set_holders(pool, page, pool->holders[page] + 1);
}

void page_pool_release(struct page_pool *pool, page_id page, uint64_t last_plan)
{
    enum page_state state = page_pool_state(pool, page);
    must(state == PAGE_FILLING || state == PAGE_SEALED);
    must(pool->holders[page] > 0);
    struct page_descriptor *d = &pool->descriptors[page];
    if (last_plan > d->last_plan)
        d->last_plan = last_plan;
    set_holders(pool, page, pool->holders[page] - 1);
    if (pool->holders[page] > 0)
        return;
    if (state == PAGE_SEALED && pool->indexed[page]) {
        move(pool, page, PAGE_CACHED);
    } else {
        forget_if_indexed(pool, page);
        retire(pool, page);
    }
}

static uint32_t seal_crc(const struct page_descriptor *d)
{
    struct {
        uint64_t salt;
        struct page_name parent;
        uint32_t generation, page_class;
        uint32_t tokens[PAGE_TOKENS];
    } sealed = {.salt = d->salt, .parent = d->parent, .page_class = d->page_class};
    /* Relaxed: by the writer itself, or by one that maps the memory of a dead writer. */
    sealed.generation = atomic_load_explicit(&d->generation, memory_order_relaxed);
    memcpy(sealed.tokens, d->tokens, sizeof sealed.tokens);
    return crc32c(0, &sealed, sizeof sealed);
}

bool page_descriptor_is_whole(const struct page_descriptor *d)
{
    return d->seal_crc == seal_crc(d);
}

void page_pool_seal(struct page_pool *pool, page_id page, struct page_name parent, uint64_t salt,
                    const uint32_t tokens[PAGE_TOKENS])
{
    must(page_pool_state(pool, page) == PAGE_FILLING);
    struct page_descriptor *d = &pool->descriptors[page];
    d->parent = parent;
    d->salt = salt;
    memcpy(d->tokens, tokens, sizeof d->tokens);
    d->seal_crc = seal_crc(d);
    d->sealed_us = now_us();
    move(pool, page, PAGE_SEALED); /* last: a coordinator that dies before has not sealed it */
}

void page_pool_mark_indexed(struct page_pool *pool, page_id page)
{
    enum page_state state = page_pool_state(pool, page);
    must(state == PAGE_FILLING || state == PAGE_SEALED || state == PAGE_CACHED);
    must(!pool->indexed[page]);
    pool->indexed[page] = true;
}

void page_pool_drop(struct page_pool *pool, page_id page)
{
    enum page_state state = page_pool_state(pool, page);
    must(state == PAGE_FILLING || state == PAGE_SEALED || state == PAGE_CACHED);
    forget_if_indexed(pool, page);
    if (state == PAGE_CACHED)
        retire(pool, page);
}

void page_pool_reclaim(struct page_pool *pool, uint64_t answered)
{
    if (answered <= pool->answered)
        return;
    pool->answered = answered;
    for (page_id page = pool->retired.first, after; page != PAGE_NONE; page = after) {
        after = pool->link[page].after;
        if (pool->descriptors[page].last_plan <= answered)
            move(pool, page, PAGE_FREE);
    }
}

void page_pool_set_checksum(struct page_pool *pool, page_id page, uint32_t checksum)
{
    enum page_state state = page_pool_state(pool, page);
    must(state == PAGE_SEALED || state == PAGE_CACHED);
    pool->descriptors[page].checksum = checksum;
    pool->descriptors[page].has_checksum = 1;
}

void page_pool_on_forget(struct page_pool *pool, page_forget_fn forget, void *arg)
{
    pool->forget = forget;
    pool->forget_arg = arg;
}

uint32_t page_pool_holders(const struct page_pool *pool, page_id page)
{
    must(page < pool->page_count);
    return pool->holders[page];
}

const struct page_descriptor *page_pool_descriptor(const struct page_pool *pool, page_id page)
{
    must(page < pool->page_count);
    return &pool->descriptors[page];
}

struct page_counts page_pool_class_counts(const struct page_pool *pool, uint32_t page_class)
{
    must(page_class < pool->page_classes);
    return pool->counts[page_class];
}

struct page_counts page_pool_counts(const struct page_pool *pool)
{
    struct page_counts sum = pool->counts[0];
    for (uint32_t c = 1; c < pool->page_classes; c++) {
        const struct page_counts *of = &pool->counts[c];
        sum.total += of->total;
        sum.free += of->free;
        sum.used += of->used;
        sum.cached += of->cached;
        sum.retired += of->retired;
        sum.shared += of->shared;
    }
    return sum;
}

uint32_t page_pool_available(const struct page_pool *pool, uint32_t page_class, uint32_t node)
{
    must(page_class < pool->page_classes && node < pool->nodes);
    const struct zone *zone = &pool->zones[page_class][node];
    return zone->free.count + zone->cached.count;
}

/* ---- birth and adoption ---- */

static enum err allocate(struct page_pool **out, struct arena *arena, struct why *why)
{
    uint32_t pages = arena->layout.page_count;
    struct page_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        goto no_memory;
    pool->link = calloc(pages, sizeof *pool->link);
    pool->holders = calloc(pages, sizeof *pool->holders);
    pool->indexed = calloc(pages, sizeof *pool->indexed);
    if (!pool->link || !pool->holders || !pool->indexed)
        goto free_pool;
    pool->descriptors = (struct page_descriptor *)(void *)(arena->table.base + arena->layout.descriptors_at);
    pool->page_count = pages;
    pool->page_classes = arena->geometry.page_classes;
    pool->nodes = arena->geometry.nodes;
    const struct list empty = {PAGE_NONE, PAGE_NONE, 0};
    pool->retired = empty;
    for (uint32_t c = 0; c < PAGE_CLASSES_MAX; c++)
        for (uint32_t n = 0; n < NODES_MAX; n++)
            pool->zones[c][n] = (struct zone){empty, empty};
    for (page_id page = 0; page < pages; page++) {
        struct page_place place = page_place(&arena->geometry, &arena->layout, page);
        pool->descriptors[page].page_class = place.page_class; /* follows from the number: never trusted */
        pool->descriptors[page].node = place.node;
        pool->counts[place.page_class].total++;
    }
    *out = pool;
    return OK;

free_pool:
    page_pool_close(pool);
no_memory:
    return because(why, ERR_NOMEM, "there is no memory left to keep account of %u pages", pages);
}

enum err page_pool_open(struct page_pool **out, struct arena *arena, struct why *why)
{
    enum err err = allocate(out, arena, why);
    for (page_id page = 0; err == OK && page < (*out)->page_count; page++)
        put(*out, page, PAGE_FREE);
    return err;
}

/* What an old descriptor is worth, when that many rows name it. */
static enum page_state adopted_state(const struct page_descriptor *d, uint32_t references)
{
    /* Acquire: pairs with the release in put(). */
    uint32_t state = atomic_load_explicit(&d->state, memory_order_acquire);
    if (state == PAGE_FILLING && references == 1)
        return PAGE_FILLING;
    if ((state == PAGE_SEALED || state == PAGE_CACHED) && page_descriptor_is_whole(d))
        return references ? PAGE_SEALED : PAGE_CACHED;
    return PAGE_FREE;
}

enum err page_pool_adopt(struct page_pool **out, struct arena *arena, uint32_t *references, struct why *why)
{
    enum err err = allocate(out, arena, why);
    if (err != OK)
        return err;
    struct page_pool *pool = *out;
    for (page_id page = 0; page < pool->page_count; page++) {
        struct page_descriptor *d = &pool->descriptors[page];
        enum page_state state = adopted_state(d, references[page]);
        if (state == PAGE_FREE)
            references[page] = 0;
        d->last_plan = 0; /* the groups that had plans are gone */
        set_holders(pool, page, references[page]);
        put(pool, page, state);
    }
    return OK;
}

void page_pool_close(struct page_pool *pool)
{
    if (!pool)
        return;
    free(pool->link);
    free(pool->holders);
    free(pool->indexed);
    free(pool);
}

/* ---- invariants ---- */

static uint32_t walk(const struct page_pool *pool, const struct list *list, enum page_state state, uint8_t *seen)
{
    uint32_t count = 0;
    page_id before = PAGE_NONE;
    for (page_id page = list->first; page != PAGE_NONE; before = page, page = pool->link[page].after) {
        must(page < pool->page_count && !seen[page]); /* 1: in one list, once */
        must(page_pool_state(pool, page) == state);   /* 1: that of its state */
        must(pool->link[page].before == before);      /* 1: linked both ways */
        seen[page] = 1;
        count++;
    }
    must(list->last == before && list->count == count); /* 1 */
    return count;
}

static void page_must_be_sound(const struct page_pool *pool, page_id page, bool listed)
{
    const struct page_descriptor *d = &pool->descriptors[page];
    enum page_state state = page_pool_state(pool, page);
    uint32_t holders = pool->holders[page];
    must(state < PAGE_STATES);
    must(listed == (state == PAGE_FREE || state == PAGE_CACHED || state == PAGE_RETIRED));           /* 1 */
    must(state == PAGE_FILLING ? holders == 1 : state == PAGE_SEALED ? holders >= 1 : holders == 0); /* 2 */
    must(state != PAGE_CACHED || pool->indexed[page]);                                               /* 5 */
    must(!(state == PAGE_FREE || state == PAGE_RETIRED) || !pool->indexed[page]);                    /* 5 */
    must(!(state == PAGE_SEALED || state == PAGE_CACHED) || page_descriptor_is_whole(d));            /* 6 */
    must(state == PAGE_FREE || page_pool_name(pool, page).generation != 0);                          /* 7 */
    must(state != PAGE_RETIRED || d->last_plan > pool->answered);                                    /* 8 */
}

void page_pool_must_be_sound(const struct page_pool *pool, const uint32_t *references)
{
    struct page_counts found[PAGE_CLASSES_MAX] = {0};
    uint8_t *seen = calloc(pool->page_count, 1);
    must(seen);
    for (uint32_t c = 0; c < pool->page_classes; c++)
        for (uint32_t n = 0; n < pool->nodes; n++) {
            found[c].free += walk(pool, &pool->zones[c][n].free, PAGE_FREE, seen);
            found[c].cached += walk(pool, &pool->zones[c][n].cached, PAGE_CACHED, seen);
        }
    walk(pool, &pool->retired, PAGE_RETIRED, seen);
    for (page_id page = 0; page < pool->page_count; page++) {
        page_must_be_sound(pool, page, seen[page]);
        must(!references || pool->holders[page] == references[page]); /* 3 */
        struct page_counts *of = &found[pool->descriptors[page].page_class];
        of->total++;
        of->retired += page_pool_state(pool, page) == PAGE_RETIRED;
        of->used += pool->holders[page] > 0;
        of->shared += pool->holders[page] > 1;
    }
    free(seen);
    must(memcmp(found, pool->counts, sizeof found) == 0); /* 4 */
    for (uint32_t c = 0; c < pool->page_classes; c++)
        must(found[c].total == found[c].free + found[c].used + found[c].cached + found[c].retired); /* 4 */
}
