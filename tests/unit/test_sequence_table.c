/* Rows of pages: appends, what a worker may read of them, and memory in proportion to tokens. */
#include "shm/sequence_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "shm/page_pool.h"
#include "tests/support/small_arena.h"

struct fixture {
    struct arena *arena;
    struct page_pool *pool;
};

static int open_table(void **state)
{
    static struct fixture f;
    f.arena = small_arena();
    must(page_pool_open(&f.pool, f.arena, NULL) == OK);
    *state = &f;
    return 0;
}

static int close_table(void **state)
{
    struct fixture *f = *state;
    page_pool_must_be_sound(f->pool, NULL);
    page_pool_close(f->pool);
    small_arena_close(f->arena);
    return 0;
}

/* Room for `tokens` positions: takes and appends as many pages as are missing. */
static enum err make_room(struct fixture *f, uint32_t slot, uint32_t tokens)
{
    while (sequence_row_length(f->arena, slot, 0) * PAGE_TOKENS < tokens) {
        page_id page = page_pool_take(f->pool, 0, 0);
        if (page == PAGE_NONE)
            return ERR_FULL;
        enum err err = sequence_row_append(f->arena, slot, 0, page_pool_name(f->pool, page));
        if (err != OK) {
            page_pool_release(f->pool, page, 0);
            return err;
        }
    }
    return OK;
}

static void paged_kv_append_spans_pages(void **state)
{
    struct fixture *f = *state;
    page_id pages[7];
    sequence_row_begin(f->arena, 2, 1);
    for (uint32_t tokens = 1; tokens <= 40; tokens++) {
        assert_int_equal(make_room(f, 2, tokens), OK);
        assert_int_equal(sequence_row_length(f->arena, 2, 0), (tokens + 15) / 16);
    }
    assert_int_equal(sequence_row_read(f->arena, 2, 1, 0, 0, 3, pages, NULL), OK);
    assert_true(pages[0] != pages[1] && pages[1] != pages[2] && pages[0] != pages[2]);
    page_id last;
    assert_int_equal(sequence_row_read(f->arena, 2, 1, 0, 2, 1, &last, NULL), OK);
    assert_int_equal(last, pages[2]);
}

static void paged_kv_memory_bounded(void **state)
{
    struct fixture *f = *state;
    uint32_t tokens = 0;
    for (uint32_t slot = 0; slot < 6; slot++) {
        sequence_row_begin(f->arena, slot, 1);
        assert_int_equal(make_room(f, slot, 7 * slot + 1), OK);
        tokens += 7 * slot + 1;
    }
    uint32_t used = page_pool_counts(f->pool).used;
    assert_true(used * PAGE_TOKENS >= tokens);
    assert_true(used * PAGE_TOKENS < tokens + 6 * PAGE_TOKENS); /* less than one page of waste a sequence */
    enum err err = OK;
    for (uint32_t slot = 0; slot < 6 && err == OK; slot++)
        err = make_room(f, slot, 100);
    assert_int_equal(err, ERR_FULL);
    assert_int_equal(page_pool_counts(f->pool).used, page_pool_counts(f->pool).total);
}

static void a_row_holds_the_context_and_not_a_page_more(void **state)
{
    struct fixture *f = *state;
    sequence_row_begin(f->arena, 0, 1);
    assert_int_equal(make_room(f, 0, 100), OK);
    assert_int_equal(sequence_row_length(f->arena, 0, 0), 7);
    assert_int_equal(make_room(f, 0, 113), ERR_FULL);
}

static enum err read_row(struct fixture *f, uint32_t slot, uint32_t generation, uint32_t first, uint32_t count)
{
    page_id pages[7];
    struct why why = {""};
    enum err err = sequence_row_read(f->arena, slot, generation, 0, first, count, pages, &why);
    assert_true((err == OK) == (why.text[0] == '\0'));
    return err;
}

static void a_worker_reads_only_what_is_there_and_meant(void **state)
{
    struct fixture *f = *state;
    sequence_row_begin(f->arena, 0, 3);
    assert_int_equal(make_room(f, 0, 33), OK);
    assert_int_equal(read_row(f, 0, 3, 0, 3), OK);
    assert_int_equal(read_row(f, 0, 3, 0, 4), ERR_FORMAT);
    assert_int_equal(read_row(f, 0, 3, UINT32_MAX, 3), ERR_FORMAT);
    assert_int_equal(read_row(f, 0, 2, 0, 1), ERR_FORMAT);
    assert_int_equal(read_row(f, 0, 0, 0, 1), ERR_FORMAT);
    assert_int_equal(read_row(f, 6, 3, 0, 1), ERR_FORMAT);
    assert_int_equal(read_row(f, 1, 1, 0, 0), ERR_FORMAT);
    sequence_row_end(f->arena, 0);
    assert_int_equal(read_row(f, 0, 3, 0, 1), ERR_FORMAT);
}

static void a_page_that_has_become_another_is_noticed(void **state)
{
    struct fixture *f = *state;
    sequence_row_begin(f->arena, 0, 1);
    assert_int_equal(make_room(f, 0, 1), OK);
    page_pool_release(f->pool, sequence_row_entry(f->arena, 0, 0, 0).page, 0);
    for (uint32_t i = 0; i < 40; i++)
        page_pool_take(f->pool, 0, 0);
    assert_int_equal(read_row(f, 0, 1, 0, 1), ERR_FORMAT);
}

static void damaged_entries_are_noticed(void **state)
{
    struct fixture *f = *state;
    sequence_row_begin(f->arena, 0, 1);
    assert_int_equal(make_room(f, 0, 1), OK);
    struct sequence_row *row = (void *)(f->arena->table.base + f->arena->layout.rows_at);
    row->entries[0].page = 40;
    assert_int_equal(read_row(f, 0, 1, 0, 1), ERR_FORMAT);
    row->entries[0].page = PAGE_NONE;
    assert_int_equal(read_row(f, 0, 1, 0, 1), ERR_FORMAT);
    atomic_store(&row->length[0], UINT32_MAX);
    assert_int_equal(read_row(f, 0, 1, 6, 2), ERR_FORMAT);
}

static void a_row_begun_anew_is_empty(void **state)
{
    struct fixture *f = *state;
    sequence_row_begin(f->arena, 0, 1);
    assert_int_equal(make_room(f, 0, 20), OK);
    sequence_row_begin(f->arena, 0, 1);
    assert_int_equal(sequence_row_length(f->arena, 0, 0), 0);
    assert_int_equal(read_row(f, 0, 1, 0, 1), ERR_FORMAT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_table, close_table)
    const struct CMUnitTest tests[] = {
        TEST(paged_kv_append_spans_pages),
        TEST(paged_kv_memory_bounded),
        TEST(a_row_holds_the_context_and_not_a_page_more),
        TEST(a_worker_reads_only_what_is_there_and_meant),
        TEST(a_page_that_has_become_another_is_noticed),
        TEST(damaged_entries_are_noticed),
        TEST(a_row_begun_anew_is_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
