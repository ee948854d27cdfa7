/* Pages and their holders: states, who waits for which plan, what is evicted, and what a dead coordinator's descriptors
 * are worth. */
#include "shm/page_pool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "shm/prefix_cache.h"
#include "tests/support/small_arena.h"

enum { PAGES = 8, SALT = 5 };

struct fixture {
    struct arena *arena;
    struct page_pool *pool;
    page_id forgotten[32];
    uint32_t forgotten_count;
};

static void note_forgotten(void *arg, page_id page)
{
    struct fixture *f = arg;
    f->forgotten[f->forgotten_count++] = page;
}

static int open_pool(void **state)
{
    static struct fixture f;
    struct arena_geometry g = small_geometry();
    g.pages_per_node[0] = PAGES;
    f = (struct fixture){.arena = arena_of(&g)};
    must(page_pool_open(&f.pool, f.arena, NULL) == OK);
    page_pool_on_forget(f.pool, note_forgotten, &f);
    *state = &f;
    return 0;
}

static int open_two_classes(void **state)
{
    static struct fixture f;
    struct arena_geometry g = small_geometry();
    g.page_classes = 2;
    g.window = 20;
    g.pages_per_node[PAGE_CLASS_WHOLE] = PAGES;
    g.pages_per_node[PAGE_CLASS_WINDOW] = 2;
    g.page_bytes[PAGE_CLASS_WINDOW] = 128;
    f = (struct fixture){.arena = arena_of(&g)};
    must(page_pool_open(&f.pool, f.arena, NULL) == OK);
    page_pool_on_forget(f.pool, note_forgotten, &f);
    *state = &f;
    return 0;
}

static int close_pool(void **state)
{
    struct fixture *f = *state;
    page_pool_must_be_sound(f->pool, NULL);
    page_pool_close(f->pool);
    small_arena_close(f->arena);
    return 0;
}

static void seal(struct fixture *f, page_id page, uint32_t first_token)
{
    uint32_t tokens[PAGE_TOKENS];
    for (uint32_t i = 0; i < PAGE_TOKENS; i++)
        tokens[i] = first_token + i;
    page_pool_seal(f->pool, page, NO_PAGE, SALT, tokens);
}

static page_id take_sealed(struct fixture *f, bool indexed)
{
    page_id page = page_pool_take(f->pool, 0, 0);
    seal(f, page, page);
    if (indexed)
        page_pool_mark_indexed(f->pool, page);
    return page;
}

static void page_table_allocate_returns_unique_ids(void **state)
{
    struct fixture *f = *state;
    bool seen[PAGES] = {false};
    for (uint32_t i = 0; i < PAGES; i++) {
        page_id page = page_pool_take(f->pool, 0, 0);
        assert_true(page < PAGES);
        assert_false(seen[page]);
        seen[page] = true;
    }
    assert_int_equal(page_pool_take(f->pool, 0, 0), PAGE_NONE);
}

static void page_table_free_recycles_pages(void **state)
{
    struct fixture *f = *state;
    for (uint32_t round = 0; round < 3; round++) {
        struct page_name names[PAGES];
        for (uint32_t i = 0; i < PAGES; i++)
            names[i] = page_pool_name(f->pool, page_pool_take(f->pool, 0, 0));
        assert_int_equal(page_pool_counts(f->pool).free, 0);
        for (uint32_t i = 0; i < PAGES; i++) {
            assert_int_equal(names[i].generation, round + 1);
            page_pool_release(f->pool, names[i].page, 0);
        }
        assert_int_equal(page_pool_counts(f->pool).free, PAGES);
    }
}

static void shared_page_outlives_its_first_owner(void **state)
{
    struct fixture *f = *state;
    page_id page = take_sealed(f, false);
    page_pool_share(f->pool, page);
    assert_int_equal(page_pool_counts(f->pool).shared, 1);
    page_pool_release(f->pool, page, 0);
    assert_int_equal(page_pool_holders(f->pool, page), 1);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_SEALED);
    assert_int_equal(page_pool_counts(f->pool).shared, 0);
}

static void an_ended_page_waits_for_the_last_plan_that_names_it(void **state)
{
    struct fixture *f = *state;
    page_id page = page_pool_take(f->pool, 0, 0);
    page_pool_reclaim(f->pool, 3);
    page_pool_release(f->pool, page, 5);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_RETIRED);
    page_pool_reclaim(f->pool, 4);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_RETIRED);
    page_pool_reclaim(f->pool, 2); /* old news */
    page_pool_reclaim(f->pool, 5);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_FREE);
}

static void the_latest_plan_of_all_holders_counts(void **state)
{
    struct fixture *f = *state;
    page_id page = take_sealed(f, false);
    page_pool_share(f->pool, page);
    page_pool_release(f->pool, page, 9);
    page_pool_release(f->pool, page, 2);
    page_pool_reclaim(f->pool, 8);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_RETIRED);
    page_pool_reclaim(f->pool, 9);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_FREE);
}

static void a_sealed_page_in_the_index_is_kept_and_found_again(void **state)
{
    struct fixture *f = *state;
    page_id page = take_sealed(f, true);
    struct page_name name = page_pool_name(f->pool, page);
    page_pool_release(f->pool, page, 0);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_CACHED);
    assert_int_equal(page_pool_counts(f->pool).cached, 1);
    page_pool_share(f->pool, page);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_SEALED);
    assert_int_equal(page_pool_name(f->pool, page).generation, name.generation);
    assert_int_equal(f->forgotten_count, 0);
}

static void the_least_recently_used_page_is_evicted_first_and_told(void **state)
{
    struct fixture *f = *state;
    page_id pages[PAGES];
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = take_sealed(f, true);
    for (uint32_t i = 0; i < PAGES; i++)
        page_pool_release(f->pool, pages[i], 0);
    page_pool_share(f->pool, pages[0]); /* used again: the youngest now */
    page_pool_release(f->pool, pages[0], 0);
    assert_int_equal(page_pool_available(f->pool, 0, 0), PAGES);
    assert_int_equal(page_pool_take(f->pool, 0, 0), pages[1]);
    assert_int_equal(f->forgotten_count, 1);
    assert_int_equal(f->forgotten[0], pages[1]);
    assert_int_equal(page_pool_take(f->pool, 0, 0), pages[2]);
    assert_int_equal(page_pool_available(f->pool, 0, 0), PAGES - 2);
}

static void a_held_page_is_never_evicted_nor_one_that_a_plan_names(void **state)
{
    struct fixture *f = *state;
    page_id held = take_sealed(f, true);
    page_id named = take_sealed(f, true);
    page_pool_release(f->pool, named, 4);
    page_id idle = take_sealed(f, true);
    page_pool_release(f->pool, idle, 0);
    for (uint32_t i = 0; i < PAGES - 3; i++)
        page_pool_take(f->pool, 0, 0);
    assert_int_equal(page_pool_take(f->pool, 0, 0), idle);
    assert_int_equal(page_pool_take(f->pool, 0, 0), PAGE_NONE);
    page_pool_reclaim(f->pool, 4);
    assert_int_equal(page_pool_take(f->pool, 0, 0), named);
    assert_int_equal(page_pool_state(f->pool, held), PAGE_SEALED);
}

static void an_announced_page_that_ends_unsealed_is_forgotten(void **state)
{
    struct fixture *f = *state;
    page_id page = page_pool_take(f->pool, 0, 0);
    page_pool_mark_indexed(f->pool, page);
    page_pool_release(f->pool, page, 0);
    assert_int_equal(f->forgotten_count, 1);
    assert_int_equal(page_pool_state(f->pool, page), PAGE_FREE);
}

static void a_dropped_page_is_forgotten_now_and_freed_by_its_last_holder(void **state)
{
    struct fixture *f = *state;
    page_id held = take_sealed(f, true), cached = take_sealed(f, true);
    page_pool_release(f->pool, cached, 0);
    page_pool_drop(f->pool, held);
    page_pool_drop(f->pool, cached);
    assert_int_equal(f->forgotten_count, 2);
    assert_int_equal(page_pool_state(f->pool, cached), PAGE_FREE);
    assert_int_equal(page_pool_state(f->pool, held), PAGE_SEALED);
    page_pool_release(f->pool, held, 0);
    assert_int_equal(page_pool_state(f->pool, held), PAGE_FREE);
}

static void counters_add_up_in_every_state(void **state)
{
    struct fixture *f = *state;
    page_id filling = page_pool_take(f->pool, 0, 0);
    page_id cached = take_sealed(f, true), shared = take_sealed(f, true), retired = page_pool_take(f->pool, 0, 0);
    page_pool_release(f->pool, cached, 0);
    page_pool_share(f->pool, shared);
    page_pool_release(f->pool, retired, 1);
    struct page_counts c = page_pool_counts(f->pool);
    assert_int_equal(c.total, PAGES);
    assert_int_equal(c.free, PAGES - 4);
    assert_int_equal(c.used, 2);
    assert_int_equal(c.cached, 1);
    assert_int_equal(c.retired, 1);
    assert_int_equal(c.shared, 1);
    assert_int_equal(page_pool_state(f->pool, filling), PAGE_FILLING);
}

/* True when doing it ends the process, as a broken assertion does. */
static bool aborts(void (*act)(struct page_pool *, page_id), struct page_pool *pool, page_id page)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        act(pool, page);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void seal_it(struct page_pool *pool, page_id page)
{
    uint32_t tokens[PAGE_TOKENS] = {0};
    page_pool_seal(pool, page, NO_PAGE, 0, tokens);
}
static void release_it(struct page_pool *pool, page_id page)
{
    page_pool_release(pool, page, 0);
}

static void moves_off_the_picture_stop_the_program(void **state)
{
    struct fixture *f = *state;
    page_id filling = page_pool_take(f->pool, 0, 0), sealed = take_sealed(f, false),
            freed = page_pool_take(f->pool, 0, 0);
    page_pool_release(f->pool, freed, 0);
    assert_true(aborts(page_pool_share, f->pool, filling)); /* half-filled pages are never shared */
    assert_true(aborts(page_pool_share, f->pool, freed));
    assert_true(aborts(seal_it, f->pool, sealed));
    assert_true(aborts(release_it, f->pool, freed)); /* twice */
    assert_true(aborts(page_pool_drop, f->pool, freed));
    assert_true(aborts(page_pool_share, f->pool, PAGES));
}

/* A new coordinator over the same memory; references as the rows would say. */
static void adopt(struct fixture *f, uint32_t *references)
{
    page_pool_close(f->pool);
    must(page_pool_adopt(&f->pool, f->arena, references, NULL) == OK);
}

static void adoption_keeps_what_rows_name_and_what_is_sealed(void **state)
{
    struct fixture *f = *state;
    page_id filling = page_pool_take(f->pool, 0, 0), sealed = take_sealed(f, false), cached = take_sealed(f, true);
    page_id orphan = page_pool_take(f->pool, 0, 0), retired = page_pool_take(f->pool, 0, 0);
    page_pool_release(f->pool, cached, 0);
    page_pool_release(f->pool, retired, 7);
    uint32_t references[PAGES] = {0};
    references[filling] = 1;
    references[sealed] = 2;
    adopt(f, references);
    assert_int_equal(page_pool_state(f->pool, filling), PAGE_FILLING);
    assert_int_equal(page_pool_state(f->pool, sealed), PAGE_SEALED);
    assert_int_equal(page_pool_holders(f->pool, sealed), 2);
    assert_int_equal(page_pool_state(f->pool, cached), PAGE_CACHED);
    assert_int_equal(page_pool_state(f->pool, orphan), PAGE_FREE);
    assert_int_equal(page_pool_state(f->pool, retired), PAGE_FREE);

    struct prefix_cache *cache;
    assert_int_equal(prefix_cache_open(&cache, f->pool, NULL), OK);
    assert_int_equal(prefix_cache_adopt(cache), 0);
    page_pool_must_be_sound(f->pool, references);
    prefix_cache_close(cache);
    page_pool_on_forget(f->pool, note_forgotten, f);
}

static void adoption_drops_what_is_damaged(void **state)
{
    struct fixture *f = *state;
    page_id damaged = take_sealed(f, false), twice = page_pool_take(f->pool, 0, 0), wild = take_sealed(f, false);
    struct page_descriptor *descriptors = (void *)(f->arena->table.base + f->arena->layout.descriptors_at);
    descriptors[damaged].tokens[3] ^= 1;
    atomic_store(&descriptors[wild].state, 1234);
    uint32_t references[PAGES] = {0};
    references[damaged] = 1;
    references[twice] = 2; /* no page that is being filled has two owners */
    references[wild] = 1;
    adopt(f, references);
    assert_int_equal(references[damaged] + references[twice] + references[wild], 0);
    assert_int_equal(page_pool_counts(f->pool).free, PAGES);
}

static void a_page_taken_again_has_a_new_generation_after_adoption_too(void **state)
{
    struct fixture *f = *state;
    page_id page = page_pool_take(f->pool, 0, 0);
    uint32_t before = page_pool_name(f->pool, page).generation;
    uint32_t references[PAGES] = {0};
    adopt(f, references);
    for (uint32_t i = 0; i < PAGES; i++)
        page_pool_take(f->pool, 0, 0);
    assert_int_equal(page_pool_name(f->pool, page).generation, before + 1);
}

static void each_class_has_pages_and_counters_of_its_own(void **state)
{
    struct fixture *f = *state;
    page_id window = page_pool_take(f->pool, PAGE_CLASS_WINDOW, 0),
            whole = page_pool_take(f->pool, PAGE_CLASS_WHOLE, 0);
    assert_int_equal(page_pool_descriptor(f->pool, window)->page_class, PAGE_CLASS_WINDOW);
    assert_int_equal(page_pool_descriptor(f->pool, whole)->page_class, PAGE_CLASS_WHOLE);
    assert_int_not_equal(page_pool_take(f->pool, PAGE_CLASS_WINDOW, 0), PAGE_NONE);
    assert_int_equal(page_pool_take(f->pool, PAGE_CLASS_WINDOW, 0), PAGE_NONE); /* not one of the other class instead */
    assert_int_equal(page_pool_available(f->pool, PAGE_CLASS_WHOLE, 0), PAGES - 1);
    seal(f, window, 1);
    page_pool_mark_indexed(f->pool, window);
    page_pool_share(f->pool, window);
    assert_int_equal(page_pool_class_counts(f->pool, PAGE_CLASS_WINDOW).shared, 1);
    page_pool_release(f->pool, window, 0);
    page_pool_release(f->pool, window, 0);
    page_pool_release(f->pool, whole, 3);
    struct page_counts all = page_pool_counts(f->pool), of = page_pool_class_counts(f->pool, PAGE_CLASS_WINDOW);
    assert_int_equal(of.total, 2);
    assert_int_equal(of.cached, 1);
    assert_int_equal(of.used, 1);
    assert_int_equal(page_pool_class_counts(f->pool, PAGE_CLASS_WHOLE).retired, 1);
    assert_int_equal(all.total, PAGES + 2);
    assert_int_equal(all.retired, 1);
    assert_int_equal(all.free, PAGES - 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_pool, close_pool)
    const struct CMUnitTest tests[] = {
        TEST(page_table_allocate_returns_unique_ids),
        TEST(page_table_free_recycles_pages),
        TEST(shared_page_outlives_its_first_owner),
        TEST(an_ended_page_waits_for_the_last_plan_that_names_it),
        TEST(the_latest_plan_of_all_holders_counts),
        TEST(a_sealed_page_in_the_index_is_kept_and_found_again),
        TEST(the_least_recently_used_page_is_evicted_first_and_told),
        TEST(a_held_page_is_never_evicted_nor_one_that_a_plan_names),
        TEST(an_announced_page_that_ends_unsealed_is_forgotten),
        TEST(a_dropped_page_is_forgotten_now_and_freed_by_its_last_holder),
        TEST(counters_add_up_in_every_state),
        TEST(moves_off_the_picture_stop_the_program),
        TEST(adoption_keeps_what_rows_name_and_what_is_sealed),
        TEST(adoption_drops_what_is_damaged),
        cmocka_unit_test_setup_teardown(each_class_has_pages_and_counters_of_its_own, open_two_classes, close_pool),
        TEST(a_page_taken_again_has_a_new_generation_after_adoption_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
