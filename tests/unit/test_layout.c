/* What lies where: nothing overlaps, every page has one place, and sizes that cannot be are refused. */
#include "shm/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

static struct arena_geometry two_of_everything(void)
{
    struct arena_geometry g = small_geometry();
    g.page_classes = 2;
    g.window = 20;
    g.nodes = 2;
    g.group_node[1] = 1;
    g.pages_per_node[1] = 5;
    g.page_bytes[1] = 128;
    return g;
}

static void every_page_has_a_place_of_its_own(void **state)
{
    (void)state;
    struct arena_geometry g = two_of_everything();
    struct arena_layout l;
    assert_int_equal(layout_of(&g, &l, NULL), OK);
    assert_int_equal(l.page_count, 2 * 40 + 2 * 5);
    for (page_id page = 0; page < l.page_count; page++) {
        struct page_place p = page_place(&g, &l, page);
        assert_int_equal(p.page_class, page >= 80);
        assert_true(p.offset + g.page_bytes[p.page_class] <= l.pages_bytes);
        for (page_id other = 0; other < page; other++) {
            struct page_place q = page_place(&g, &l, other);
            assert_true(p.node != q.node || p.offset >= q.offset + g.page_bytes[q.page_class] ||
                        q.offset >= p.offset + g.page_bytes[p.page_class]);
        }
    }
}

static void parts_of_a_segment_do_not_overlap(void **state)
{
    (void)state;
    struct arena_geometry g = two_of_everything();
    struct arena_layout l;
    assert_int_equal(layout_of(&g, &l, NULL), OK);
    assert_true(l.model_at >= HEADER_BYTES);
    assert_true(l.descriptors_at >= l.model_at + g.model_bytes);
    assert_true(l.rows_at >= l.descriptors_at + l.page_count * 192ull);
    assert_true(l.table_bytes >= l.rows_at + g.session_slots * l.row_bytes);
    assert_true(l.row_bytes >= 64 + 8ull * (l.row_entries[0] + l.row_entries[1]));
    assert_int_equal(l.row_entries[0], 7);
    assert_int_equal(l.descriptors_at % 64 + l.rows_at % 64 + l.row_bytes % 64 + l.session_bytes % 64, 0);
    assert_true(l.group_work_bytes >= l.results_bytes + g.work_bytes);
}

static void refuses(void (*spoil)(struct arena_geometry *))
{
    struct arena_geometry g = small_geometry();
    struct arena_layout l;
    struct why why = {""};
    spoil(&g);
    assert_int_equal(layout_of(&g, &l, &why), ERR_INVALID);
    assert_true(strlen(why.text) > 0);
}

static void no_pages(struct arena_geometry *g)
{
    g->pages_per_node[0] = 0;
}
static void odd_page_bytes(struct arena_geometry *g)
{
    g->page_bytes[0] = 100;
}
static void huge_pages_overflow(struct arena_geometry *g)
{
    g->pages_per_node[0] = UINT32_MAX - 7;
    g->page_bytes[0] = 1ull << 62;
}
static void too_many_page_numbers(struct arena_geometry *g)
{
    g->nodes = 16;
    g->pages_per_node[0] = 1u << 31;
}
static void unknown_node(struct arena_geometry *g)
{
    g->group_node[1] = 1;
}
static void too_many_sessions(struct arena_geometry *g)
{
    g->session_slots = SESSION_SLOTS_MAX + 1;
}
static void sessions_beyond_any_machine(struct arena_geometry *g)
{
    g->session_slots = SESSION_SLOTS_MAX;
    g->context = CONTEXT_MAX;
    g->mask_words = 1u << 20;
    g->page_classes = 2;
    g->window = 20;
    g->pages_per_node[0] = g->pages_per_node[1] = 1u << 30;
    g->page_bytes[0] = g->page_bytes[1] = 1u << 20;
}

static void a_window_without_pages(struct arena_geometry *g)
{
    g->window = 20;
}
static void pages_without_a_window(struct arena_geometry *g)
{
    *g = two_of_everything();
    g->window = 0;
}

/* Position p sees [p + 1 - window, p]. */
static void a_window_begins_in_the_page_of_its_first_position(void **state)
{
    (void)state;
    for (uint32_t window = 1; window < 70; window++)
        for (uint32_t position = 0; position < 200; position++) {
            uint32_t first = position + 1 > window ? position + 1 - window : 0;
            assert_int_equal(window_first_page(window, position), first / PAGE_TOKENS);
        }
    assert_int_equal(window_first_page(0, 1000), 0);
    assert_int_equal(window_first_page(1, UINT32_MAX), UINT32_MAX / PAGE_TOKENS);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    refuses(no_pages);
    refuses(odd_page_bytes);
    refuses(huge_pages_overflow);
    refuses(too_many_page_numbers);
    refuses(unknown_node);
    refuses(too_many_sessions);
    refuses(sessions_beyond_any_machine);
    refuses(a_window_without_pages);
    refuses(pages_without_a_window);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_has_a_place_of_its_own),
        cmocka_unit_test(parts_of_a_segment_do_not_overlap),
        cmocka_unit_test(a_window_begins_in_the_page_of_its_first_position),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
