/* Prompts find the pages of prompts that began like them, and nobody else's; pool and index stay sound under random
 * use. */
#include "shm/prefix_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

enum { PAGES = 24, PROMPT = 5 * PAGE_TOKENS, ROOM = 8, WINDOW = 20 /* from the start of a page it reaches back two */ };

struct fixture {
    struct arena *arena;
    struct page_pool *pool;
    struct prefix_cache *cache;
};

static int open_cache_over(void **state, const struct arena_geometry *g)
{
    static struct fixture f;
    f = (struct fixture){.arena = arena_of(g)};
    must(page_pool_open(&f.pool, f.arena, NULL) == OK);
    must(prefix_cache_open(&f.cache, f.pool, NULL) == OK);
    *state = &f;
    return 0;
}

static int open_cache(void **state)
{
    struct arena_geometry g = small_geometry();
    g.pages_per_node[0] = PAGES;
    return open_cache_over(state, &g);
}

static int open_windows(void **state)
{
    struct arena_geometry g = small_geometry();
    g.page_classes = 2;
    g.window = WINDOW;
    g.pages_per_node[PAGE_CLASS_WHOLE] = g.pages_per_node[PAGE_CLASS_WINDOW] = PAGES;
    g.page_bytes[PAGE_CLASS_WINDOW] = 128;
    return open_cache_over(state, &g);
}

static int close_cache(void **state)
{
    struct fixture *f = *state;
    prefix_cache_must_be_sound(f->cache);
    page_pool_must_be_sound(f->pool, NULL);
    prefix_cache_close(f->cache);
    page_pool_close(f->pool);
    small_arena_close(f->arena);
    return 0;
}

static void write_prompt(uint32_t tokens[PROMPT], uint32_t first)
{
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = first + i;
}

/* A sequence that has computed `count` tokens: its sealed pages are in pages[]. */
static void compute(struct fixture *f, uint64_t salt, const uint32_t *tokens, uint32_t count, page_id *pages)
{
    struct page_name parent = NO_PAGE;
    for (uint32_t i = 0; i < count / PAGE_TOKENS; i++) {
        pages[i] = page_pool_take(f->pool, 0, 0);
        page_id known = prefix_cache_insert(f->cache, pages[i], salt, parent, tokens + i * PAGE_TOKENS);
        page_pool_seal(f->pool, pages[i], parent, salt, tokens + i * PAGE_TOKENS);
        parent = page_pool_name(f->pool, known);
    }
}

static void release(struct fixture *f, const page_id *pages, uint32_t count)
{
    while (count-- > 0)
        page_pool_release(f->pool, pages[count], 0);
}

static void a_prompt_finds_all_its_pages_but_the_one_of_its_last_token(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id pages[ROOM], out[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, PROMPT, pages);
    struct {
        uint32_t count, pages;
    } const cases[] = {{0, 0}, {1, 0}, {16, 0}, {17, 1}, {32, 1}, {33, 2}, {79, 4}, {80, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct prefix_hit hit = prefix_cache_find(f->cache, 1, tokens, cases[i].count, out, ROOM);
        assert_int_equal(hit.pages, cases[i].pages);
        assert_memory_equal(out, pages, hit.pages * sizeof out[0]);
    }
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens, PROMPT, out, 2).pages, 2);
}

static void another_tenant_another_token_or_another_beginning_find_nothing(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT], other[PROMPT];
    page_id pages[ROOM], out[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, PROMPT, pages);
    assert_int_equal(prefix_cache_find(f->cache, 2, tokens, PROMPT, out, ROOM).pages, 0);
    memcpy(other, tokens, sizeof other);
    other[20]++;
    assert_int_equal(prefix_cache_find(f->cache, 1, other, PROMPT, out, ROOM).pages, 1);
    memcpy(other, tokens, sizeof other);
    other[0]++;
    assert_int_equal(prefix_cache_find(f->cache, 1, other, PROMPT, out, ROOM).pages, 0);
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens + PAGE_TOKENS, PROMPT - PAGE_TOKENS, out, ROOM).pages, 0);
}

static void a_page_that_another_is_computing_is_named_and_waited_for(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id out[ROOM];
    write_prompt(tokens, 0);
    page_id page = page_pool_take(f->pool, 0, 0);
    assert_int_equal(prefix_cache_insert(f->cache, page, 1, NO_PAGE, tokens), page);
    struct prefix_hit hit = prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM);
    assert_int_equal(hit.pages, 0);
    assert_int_equal(hit.computing, page);
    page_pool_seal(f->pool, page, NO_PAGE, 1, tokens);
    hit = prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM);
    assert_int_equal(hit.pages, 1);
    assert_int_equal(hit.computing, PAGE_NONE);
}

static void when_the_one_that_computes_gives_up_nobody_waits_on(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id out[ROOM];
    write_prompt(tokens, 0);
    page_id page = page_pool_take(f->pool, 0, 0);
    prefix_cache_insert(f->cache, page, 1, NO_PAGE, tokens);
    page_pool_release(f->pool, page, 0);
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM).computing, PAGE_NONE);
    assert_int_equal(prefix_cache_count(f->cache), 0);
}

static void equal_pages_stand_in_the_index_once(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id first[ROOM], second[ROOM], out[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 2 * PAGE_TOKENS, first);
    compute(f, 1, tokens, 3 * PAGE_TOKENS, second); /* its third page hangs on the first one's second */
    assert_int_equal(prefix_cache_count(f->cache), 3);
    release(f, first, 2);
    release(f, second, 3);
    assert_int_equal(page_pool_counts(f->pool).cached, 3);
    assert_int_equal(page_pool_counts(f->pool).free, PAGES - 3);
    struct prefix_hit hit = prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM);
    assert_int_equal(hit.pages, 3);
    assert_int_equal(out[1], first[1]);
    assert_int_equal(out[2], second[2]);
}

static void an_evicted_page_takes_those_behind_it_out_of_reach(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id pages[ROOM], out[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 3 * PAGE_TOKENS, pages);
    release(f, pages, 3);
    page_pool_drop(f->pool, pages[0]);
    while (page_pool_state(f->pool, pages[0]) == PAGE_FREE)
        page_pool_take(f->pool, 0, 0); /* until the same number is another page */
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM).pages, 0);
}

static void eviction_takes_the_tail_of_a_chain_first(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id pages[ROOM], out[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 4 * PAGE_TOKENS, pages);
    release(f, pages, 4);
    for (uint32_t i = 0; i < PAGES - 4 + 2; i++)
        assert_int_not_equal(page_pool_take(f->pool, 0, 0), PAGE_NONE);
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM).pages, 2);
}

/* A new coordinator over the same memory. */
static uint32_t adopt(struct fixture *f, uint32_t *references)
{
    prefix_cache_close(f->cache);
    page_pool_close(f->pool);
    must(page_pool_adopt(&f->pool, f->arena, references, NULL) == OK);
    must(prefix_cache_open(&f->cache, f->pool, NULL) == OK);
    return prefix_cache_adopt(f->cache);
}

static void an_adopted_chain_is_found_again(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT], references[PAGES] = {0};
    page_id pages[ROOM], out[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 3 * PAGE_TOKENS, pages);
    release(f, pages, 3);
    assert_int_equal(adopt(f, references), 0);
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM).pages, 3);
    assert_memory_equal(out, pages, 3 * sizeof out[0]);
}

static void an_adopted_chain_without_its_beginning_is_dropped(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT], references[PAGES] = {0};
    page_id pages[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 3 * PAGE_TOKENS, pages);
    release(f, pages, 3);
    struct page_descriptor *descriptors = (void *)(f->arena->table.base + f->arena->layout.descriptors_at);
    descriptors[pages[0]].seal_crc ^= 1;
    assert_int_equal(adopt(f, references), 2);
    assert_int_equal(page_pool_counts(f->pool).free, PAGES);
}

static void an_adopted_ring_of_parents_is_dropped(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT], references[PAGES] = {0};
    write_prompt(tokens, 0);
    page_id a = page_pool_take(f->pool, 0, 0), b = page_pool_take(f->pool, 0, 0);
    page_pool_seal(f->pool, a, page_pool_name(f->pool, b), 1, tokens);
    page_pool_seal(f->pool, b, page_pool_name(f->pool, a), 1, tokens + PAGE_TOKENS);
    assert_int_equal(adopt(f, references), 2);
}

/* ---- random use: sequences of few different prompts come, grow, share, end, and coordinators die ---- */

enum { SEQUENCES = 6, STEPS = 4000 };

struct sequence {
    bool live;
    uint64_t salt;
    uint32_t tokens[PROMPT];
    uint32_t page_count, sealed;
    page_id pages[PROMPT / PAGE_TOKENS];
    struct page_name parent; /* of page `sealed` */
};

struct world {
    struct fixture *f;
    struct sequence sequences[SEQUENCES];
    uint64_t plans, answered;
    uint64_t random;
};

static uint32_t dice(struct world *w, uint32_t sides)
{
    w->random ^= w->random << 13; /* xorshift64: Marsaglia, "Xorshift RNGs", 2003 */
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (uint32_t)(w->random >> 33) % sides;
}

static void begin(struct world *w, struct sequence *s)
{
    *s = (struct sequence){.live = true, .salt = dice(w, 2), .parent = NO_PAGE};
    for (uint32_t i = 0; i < PROMPT; i++)
        s->tokens[i] = i / PAGE_TOKENS < 3 ? dice(w, 2) * (i % PAGE_TOKENS == 0) : dice(w, 1000);
    struct prefix_hit hit = prefix_cache_find(w->f->cache, s->salt, s->tokens, PROMPT, s->pages, PROMPT / PAGE_TOKENS);
    for (uint32_t i = 0; i < hit.pages; i++) {
        assert_memory_equal(page_pool_descriptor(w->f->pool, s->pages[i])->tokens, s->tokens + i * PAGE_TOKENS,
                            PAGE_TOKENS * sizeof(uint32_t));
        assert_int_equal(page_pool_descriptor(w->f->pool, s->pages[i])->salt, s->salt);
        page_pool_share(w->f->pool, s->pages[i]);
        s->parent = page_pool_name(w->f->pool, s->pages[i]);
    }
    s->page_count = s->sealed = hit.pages;
}

static void grow(struct world *w, struct sequence *s)
{
    if (s->sealed < s->page_count) {
        page_pool_seal(w->f->pool, s->pages[s->sealed], s->parent, s->salt, s->tokens + s->sealed * PAGE_TOKENS);
        page_id out[PROMPT / PAGE_TOKENS];
        uint32_t tokens = (s->sealed + 1) * PAGE_TOKENS;
        struct prefix_hit hit =
            prefix_cache_find(w->f->cache, s->salt, s->tokens, tokens + 1, out, PROMPT / PAGE_TOKENS);
        s->parent = page_pool_name(w->f->pool, hit.pages > s->sealed ? out[s->sealed] : s->pages[s->sealed]);
        s->sealed++;
        return;
    }
    if (s->page_count == PROMPT / PAGE_TOKENS)
        return;
    page_id page = page_pool_take(w->f->pool, 0, 0);
    if (page == PAGE_NONE)
        return;
    prefix_cache_insert(w->f->cache, page, s->salt, s->parent, s->tokens + s->page_count * PAGE_TOKENS);
    s->pages[s->page_count++] = page;
}

static void end(struct world *w, struct sequence *s)
{
    uint64_t last_plan = dice(w, 2) ? w->plans : 0;
    for (uint32_t i = s->page_count; i-- > 0;)
        page_pool_release(w->f->pool, s->pages[i], last_plan);
    s->live = false;
}

static void count_references(const struct world *w, uint32_t *references)
{
    memset(references, 0, PAGES * sizeof *references);
    for (uint32_t i = 0; i < SEQUENCES; i++)
        for (uint32_t p = 0; w->sequences[i].live && p < w->sequences[i].page_count; p++)
            references[w->sequences[i].pages[p]]++;
}

static void die_and_adopt(struct world *w)
{
    uint32_t before[PAGES], references[PAGES];
    count_references(w, before);
    memcpy(references, before, sizeof before);
    adopt(w->f, references);
    assert_memory_equal(before, references, sizeof before); /* nothing that a row names is lost */
    w->plans = w->answered = 0;
}

static void pool_and_index_stay_sound_whatever_happens(void **state)
{
    struct world w = {.f = *state, .random = (uint64_t)time(NULL) * 2 + 1};
    const char *given = getenv("QUIRE_TEST_SEED");
    if (given)
        w.random = strtoull(given, NULL, 10) | 1;
    print_message("QUIRE_TEST_SEED=%llu\n", (unsigned long long)w.random);
    uint32_t references[PAGES];
    for (uint32_t step = 0; step < STEPS; step++) {
        struct sequence *s = &w.sequences[dice(&w, SEQUENCES)];
        uint32_t what = dice(&w, 100);
        if (what < 1)
            die_and_adopt(&w);
        else if (what < 10)
            page_pool_reclaim(w.f->pool, w.answered += dice(&w, (uint32_t)(w.plans - w.answered) + 1));
        else if (!s->live)
            begin(&w, s);
        else if (what < 80)
            grow(&w, s);
        else
            end(&w, s);
        w.plans++;
        count_references(&w, references);
        page_pool_must_be_sound(w.f->pool, references);
        prefix_cache_must_be_sound(w.f->cache);
    }
    for (uint32_t i = 0; i < SEQUENCES; i++)
        if (w.sequences[i].live)
            end(&w, &w.sequences[i]);
    page_pool_reclaim(w.f->pool, UINT64_MAX);
    struct page_counts c = page_pool_counts(w.f->pool);
    assert_int_equal(c.free + c.cached, PAGES); /* nothing leaked */
}

/* ---- windows ---- */

/* The window pages that hang on those chains. */
static void compute_windows(struct fixture *f, uint64_t salt, const uint32_t *tokens, const page_id *whole,
                            uint32_t count, page_id *out)
{
    for (uint32_t i = 0; i < count; i++) {
        struct page_name parent = page_pool_name(f->pool, whole[i]);
        out[i] = page_pool_take(f->pool, PAGE_CLASS_WINDOW, 0);
        page_pool_seal(f->pool, out[i], parent, salt, tokens + i * PAGE_TOKENS);
        assert_int_equal(prefix_cache_insert(f->cache, out[i], salt, parent, tokens + i * PAGE_TOKENS), out[i]);
    }
}

/* How many of the prompt's first pages can be used, and that the window's are the right ones. */
static uint32_t usable(struct fixture *f, const uint32_t *tokens, const page_id *windows)
{
    page_id whole[ROOM], out[ROOM];
    struct prefix_hit hit = prefix_cache_find(f->cache, 1, tokens, PROMPT, whole, ROOM);
    uint32_t pages = prefix_cache_find_window(f->cache, 1, tokens, whole, hit.pages, WINDOW, out);
    for (uint32_t i = window_first_page(WINDOW, pages * PAGE_TOKENS); i < pages; i++)
        assert_int_equal(out[i], windows[i]);
    return pages;
}

static void a_beginning_is_used_as_far_as_its_window_is_there(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id whole[ROOM], windows[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 4 * PAGE_TOKENS, whole);
    assert_int_equal(usable(f, tokens, NULL), 0);
    compute_windows(f, 1, tokens, whole, 4, windows);
    assert_int_equal(usable(f, tokens, windows), 4);
    release(f, whole, 4);
    release(f, windows, 4);
    page_pool_drop(f->pool, windows[0]);
    assert_int_equal(usable(f, tokens, windows), 4); /* pages 2 and 3 are enough */
    page_pool_drop(f->pool, windows[3]);
    assert_int_equal(usable(f, tokens, windows), 3);
    page_pool_drop(f->pool, windows[1]);
    assert_int_equal(usable(f, tokens, windows), 0);
}

static void a_lost_window_page_is_found_again_when_another_made_it(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT];
    page_id whole[ROOM], windows[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 4 * PAGE_TOKENS, whole);
    compute_windows(f, 1, tokens, whole, 4, windows);
    page_pool_drop(f->pool, windows[3]);
    assert_int_equal(usable(f, tokens, windows), 3);
    compute_windows(f, 1, tokens + 3 * PAGE_TOKENS, whole + 3, 1, windows + 3);
    assert_int_equal(usable(f, tokens, windows), 4);
}

/* The window page of page i and the page after it have one parent, and here one list of tokens. */
static void a_window_page_is_never_taken_for_the_next_page(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT] = {0};
    page_id whole[ROOM], windows[ROOM], out[ROOM];
    compute(f, 1, tokens, PAGE_TOKENS, whole);
    compute_windows(f, 1, tokens, whole, 1, windows);
    assert_int_equal(prefix_cache_find(f->cache, 1, tokens, PROMPT, out, ROOM).pages, 1);
    assert_int_equal(usable(f, tokens, windows), 1);
}

static void a_window_page_without_its_page_is_dropped_when_adopted(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PROMPT], references[2 * PAGES] = {0};
    page_id whole[ROOM], windows[ROOM];
    write_prompt(tokens, 0);
    compute(f, 1, tokens, 4 * PAGE_TOKENS, whole);
    compute_windows(f, 1, tokens, whole, 4, windows);
    release(f, whole, 4);
    release(f, windows, 4);
    assert_int_equal(adopt(f, references), 0);
    assert_int_equal(usable(f, tokens, windows), 4);
    page_pool_drop(f->pool, whole[2]);
    assert_int_equal(adopt(f, references), 3); /* the page behind it, and what hung on both */
    assert_int_equal(usable(f, tokens, windows), 2);
    prefix_cache_must_be_sound(f->cache);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_cache, close_cache)
#define WITH_WINDOWS(name) cmocka_unit_test_setup_teardown(name, open_windows, close_cache)
    const struct CMUnitTest tests[] = {
        TEST(a_prompt_finds_all_its_pages_but_the_one_of_its_last_token),
        TEST(another_tenant_another_token_or_another_beginning_find_nothing),
        TEST(a_page_that_another_is_computing_is_named_and_waited_for),
        TEST(when_the_one_that_computes_gives_up_nobody_waits_on),
        TEST(equal_pages_stand_in_the_index_once),
        TEST(an_evicted_page_takes_those_behind_it_out_of_reach),
        TEST(eviction_takes_the_tail_of_a_chain_first),
        TEST(an_adopted_chain_is_found_again),
        TEST(an_adopted_chain_without_its_beginning_is_dropped),
        TEST(an_adopted_ring_of_parents_is_dropped),
        WITH_WINDOWS(a_beginning_is_used_as_far_as_its_window_is_there),
        WITH_WINDOWS(a_lost_window_page_is_found_again_when_another_made_it),
        WITH_WINDOWS(a_window_page_is_never_taken_for_the_next_page),
        WITH_WINDOWS(a_window_page_without_its_page_is_dropped_when_adopted),
        TEST(pool_and_index_stay_sound_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
