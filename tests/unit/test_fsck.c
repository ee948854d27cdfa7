/* Each rule of fsck: sound memory has no fault, and one broken word is a fault of that rule. */
#include "shm/fsck.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "shm/page_pool.h"
#include "shm/sequence_table.h"
#include "shm/session.h"
#include "tests/support/small_arena.h"

struct fixture {
    struct arena *arena;
    struct page_pool *pool;
    struct session_slots *slots;
    page_id first, second;
    page_id left, seen; /* of windows */
    uint32_t slot;
};

/* One session of 20 tokens: a sealed page and one that is being filled. */
static int open_arena(void **state, const struct arena_geometry *geometry)
{
    static struct fixture f;
    f.arena = arena_of(geometry);
    must(page_pool_open(&f.pool, f.arena, NULL) == OK && session_slots_open(&f.slots, f.arena, NULL) == OK);
    f.slot = session_slots_take(f.slots);
    struct session_slot *s = session_at(f.arena, f.slot);
    strcpy(s->id, "cmpl-1");
    s->sampling.prompt_tokens = 20;
    for (uint32_t i = 0; i < 20; i++)
        s->tokens[i] = i;
    session_seal_facts(s);
    sequence_row_begin(f.arena, f.slot, atomic_load(&s->generation));
    f.first = page_pool_take(f.pool, 0, 0);
    f.second = page_pool_take(f.pool, 0, 0);
    must(sequence_row_append(f.arena, f.slot, 0, page_pool_name(f.pool, f.first)) == OK);
    must(sequence_row_append(f.arena, f.slot, 0, page_pool_name(f.pool, f.second)) == OK);
    page_pool_seal(f.pool, f.first, NO_PAGE, 0, s->tokens);
    session_commit(s, (struct session_progress){.tokens = 20, .kv = 18});
    *state = &f;
    return 0;
}

static int open_memory(void **state)
{
    struct arena_geometry geometry = small_geometry();
    return open_arena(state, &geometry);
}

/* The same session in a model with a window of 2: its first page has been left behind, the second is being filled. */
static int open_windows(void **state)
{
    struct arena_geometry geometry = small_geometry();
    geometry.page_classes = 2;
    geometry.window = 2;
    geometry.pages_per_node[PAGE_CLASS_WINDOW] = 4;
    geometry.page_bytes[PAGE_CLASS_WINDOW] = 128;
    open_arena(state, &geometry);
    struct fixture *f = *state;
    f->left = page_pool_take(f->pool, PAGE_CLASS_WINDOW, 0);
    f->seen = page_pool_take(f->pool, PAGE_CLASS_WINDOW, 0);
    sequence_row_skip(f->arena, f->slot, PAGE_CLASS_WINDOW, 1);
    must(sequence_row_append(f->arena, f->slot, PAGE_CLASS_WINDOW, page_pool_name(f->pool, f->seen)) == OK);
    page_pool_seal(f->pool, f->left, page_pool_name(f->pool, f->first), 0, session_at(f->arena, f->slot)->tokens);
    return 0;
}

static int close_memory(void **state)
{
    struct fixture *f = *state;
    page_pool_close(f->pool);
    session_slots_close(f->slots);
    small_arena_close(f->arena);
    return 0;
}

static void no_talk(void *arg, uint32_t rule, const char *sentence)
{
    (void)arg;
    assert_in_range(rule, 1, FSCK_RULES);
    assert_true(strlen(sentence) > 10);
}

static struct fsck_report look(struct fixture *f)
{
    struct fsck_report report;
    assert_int_equal(fsck_run(&report, &f->arena->home, no_talk, NULL, NULL), OK);
    return report;
}

static void must_break(struct fixture *f, uint32_t rule)
{
    struct fsck_report report = look(f);
    for (uint32_t i = 1; i <= FSCK_RULES; i++)
        assert_true((report.faults[i] > 0) == (i == rule));
}

static struct page_descriptor *page_of(struct fixture *f, page_id page)
{
    return (struct page_descriptor *)(void *)(f->arena->table.base + f->arena->layout.descriptors_at) + page;
}

static void sound_memory_has_no_fault(void **state)
{
    struct fsck_report report = look(*state);
    assert_int_equal(fsck_faults(&report), 0);
    assert_int_equal(report.sealed, 1);
    assert_int_equal(report.sessions, 1);
}

static void a_damaged_header_and_a_cut_segment_break_rule_1(void **state)
{
    struct fixture *f = *state;
    f->arena->table.base[40] ^= 1;
    must_break(f, 1);
    f->arena->table.base[40] ^= 1;
    int fd = segment_open_file(&f->arena->home, "work.0", 2 /* O_RDWR */);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    must_break(f, 1);
}

static void a_wild_state_or_class_breaks_rule_2(void **state)
{
    struct fixture *f = *state;
    struct page_descriptor *d = page_of(f, f->second);
    d->node += 7;
    must_break(f, 2);
    d->node -= 7;
    atomic_store(&d->state, 99);
    must_break(f, 2);
}

static void another_token_in_a_sealed_page_breaks_rule_3(void **state)
{
    struct fixture *f = *state;
    page_of(f, f->first)->tokens[3]++;
    must_break(f, 3);
}

static void a_parent_of_another_tenant_breaks_rule_4(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PAGE_TOKENS] = {0};
    page_pool_seal(f->pool, f->second, page_pool_name(f->pool, f->first), 5, tokens);
    must_break(f, 4);
}

static void another_token_in_a_session_breaks_rule_5(void **state)
{
    struct fixture *f = *state;
    struct session_slot *s = session_at(f->arena, f->slot);
    s->tokens[19]++;
    must_break(f, 5);
    s->tokens[19]--;
    s->sampling.temperature += 1;
    must_break(f, 5);
    s->sampling.temperature = 0;
    atomic_store(&s->state, 9);
    must_break(f, 5);
}

static void a_row_with_no_such_page_breaks_rule_6(void **state)
{
    struct fixture *f = *state;
    atomic_fetch_sub(&page_of(f, f->second)->generation, 1);
    atomic_store(&page_of(f, f->second)->state, PAGE_FREE);
    must_break(f, 6);
}

static void a_page_that_two_sessions_fill_breaks_rule_7(void **state)
{
    struct fixture *f = *state;
    uint32_t other = session_slots_take(f->slots);
    struct session_slot *s = session_at(f->arena, other);
    strcpy(s->id, "cmpl-2");
    s->sampling.prompt_tokens = 2;
    session_seal_facts(s);
    sequence_row_begin(f->arena, other, atomic_load(&s->generation));
    must(sequence_row_append(f->arena, other, 0, page_pool_name(f->pool, f->second)) == OK);
    session_commit(s, (struct session_progress){.tokens = 2, .kv = 1});
    must_break(f, 7);
}

static void weights_of_no_node_break_rule_8(void **state)
{
    struct fixture *f = *state;
    struct arena_header *h = (struct arena_header *)(void *)f->arena->table.base;
    atomic_fetch_or(&h->weights_built, 1ull << 63);
    must_break(f, 8);
}

static void windows_that_moved_on_have_no_fault(void **state)
{
    struct fsck_report report = look(*state);
    assert_int_equal(fsck_faults(&report), 0);
    assert_int_equal(report.sealed, 2);
}

static void a_window_page_that_hangs_on_nothing_breaks_rule_4(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PAGE_TOKENS] = {0};
    page_pool_seal(f->pool, f->seen, NO_PAGE, 0, tokens);
    must_break(f, 4);
}

static void a_window_page_of_other_tokens_breaks_rule_4(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PAGE_TOKENS] = {0};
    page_pool_seal(f->pool, f->seen, page_pool_name(f->pool, f->first), 0, tokens);
    must_break(f, 4);
}

static void a_page_that_follows_a_windows_breaks_rule_4(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens[PAGE_TOKENS] = {0};
    page_pool_seal(f->pool, f->second, page_pool_name(f->pool, f->left), 0, tokens);
    must_break(f, 4);
}

static void a_row_without_a_page_that_its_window_sees_breaks_rule_6(void **state)
{
    struct fixture *f = *state;
    sequence_row_begin(f->arena, f->slot, atomic_load(&session_at(f->arena, f->slot)->generation));
    must(sequence_row_append(f->arena, f->slot, 0, page_pool_name(f->pool, f->first)) == OK);
    must(sequence_row_append(f->arena, f->slot, 0, page_pool_name(f->pool, f->second)) == OK);
    must_break(f, 6);
    sequence_row_skip(f->arena, f->slot, PAGE_CLASS_WINDOW, 2);
    must_break(f, 6);
}

static void memory_that_is_not_there_is_an_error(void **state)
{
    struct segment_home home;
    struct fsck_report report;
    struct why why;
    (void)state;
    assert_int_equal(segment_home_init(&home, "nobody-has-this-name", "", &why), OK);
    assert_int_equal(fsck_run(&report, &home, no_talk, NULL, &why), ERR_INVALID);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_memory, close_memory)
#define WITH_WINDOWS(name) cmocka_unit_test_setup_teardown(name, open_windows, close_memory)
    const struct CMUnitTest tests[] = {
        TEST(sound_memory_has_no_fault),
        TEST(a_damaged_header_and_a_cut_segment_break_rule_1),
        TEST(a_wild_state_or_class_breaks_rule_2),
        TEST(another_token_in_a_sealed_page_breaks_rule_3),
        TEST(a_parent_of_another_tenant_breaks_rule_4),
        TEST(another_token_in_a_session_breaks_rule_5),
        TEST(a_row_with_no_such_page_breaks_rule_6),
        TEST(a_page_that_two_sessions_fill_breaks_rule_7),
        TEST(weights_of_no_node_break_rule_8),
        TEST(memory_that_is_not_there_is_an_error),
        WITH_WINDOWS(windows_that_moved_on_have_no_fault),
        WITH_WINDOWS(a_window_page_that_hangs_on_nothing_breaks_rule_4),
        WITH_WINDOWS(a_window_page_of_other_tokens_breaks_rule_4),
        WITH_WINDOWS(a_page_that_follows_a_windows_breaks_rule_4),
        WITH_WINDOWS(a_row_without_a_page_that_its_window_sees_breaks_rule_6),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
