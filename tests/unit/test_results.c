/* Results handed from step to step: only those of the very step and session are taken. */
#include "shm/results.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

enum { EPOCH = 3, VOCAB = 100 };

struct fixture {
    struct arena *arena;
    struct arena worker;
    struct results results;
};

static int open_results(void **state)
{
    static struct fixture f;
    f.arena = small_arena();
    must(arena_attach(&f.worker, &f.arena->home, false, NULL) == OK);
    must(arena_join(&f.worker, 1, false, NULL) == OK);
    must(results_open(&f.results, f.arena, 1, NULL) == OK);
    *state = &f;
    return 0;
}

static int close_results(void **state)
{
    struct fixture *f = *state;
    results_close(&f->results);
    arena_detach(&f->worker);
    small_arena_close(f->arena);
    return 0;
}

static struct result_entry *write_entry(struct fixture *f, uint64_t step, uint32_t index, uint32_t token)
{
    struct result_entry *e = result_entry_at(&f->worker, step, index);
    e->session = 4;
    e->session_generation = 9;
    e->token = token;
    e->logprob = -0.5f;
    e->top_count = 1;
    e->top[0] = (struct result_top){.token = token, .logprob = -0.5f};
    result_publish(e, EPOCH, step);
    return e;
}

static enum err read_entry(struct fixture *f, uint32_t epoch, uint64_t step, uint32_t session, uint32_t generation,
                           struct result_entry *out)
{
    struct why why = {""};
    enum err err = results_read(&f->results, epoch, step, 2, session, generation, VOCAB, out, &why);
    assert_true((err == OK) == (why.text[0] == '\0'));
    return err;
}

static void worker_and_coordinator_read_what_was_published(void **state)
{
    struct fixture *f = *state;
    struct result_entry out;
    uint32_t token = 0;
    write_entry(f, 10, 2, 77);
    assert_int_equal(result_token(&f->worker, EPOCH, 10, 2, 4, 9, &token), OK);
    assert_int_equal(token, 77);
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 9, &out), OK);
    assert_int_equal(out.token, 77);
    assert_int_equal(out.top[0].token, 77);
}

static void results_of_another_step_epoch_or_session_are_not_taken(void **state)
{
    struct fixture *f = *state;
    struct result_entry out;
    uint32_t token;
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 9, &out), ERR_FORMAT); /* zeroed memory */
    write_entry(f, 10, 2, 77);
    assert_int_equal(read_entry(f, EPOCH + 1, 10, 4, 9, &out), ERR_FORMAT);
    assert_int_equal(read_entry(f, EPOCH, 12, 4, 9, &out), ERR_FORMAT);
    assert_int_equal(read_entry(f, EPOCH, 10, 5, 9, &out), ERR_FORMAT);
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 8, &out), ERR_FORMAT);
    assert_int_equal(result_token(&f->worker, EPOCH, 12, 2, 4, 9, &token), ERR_ABORTED);
    assert_int_equal(result_token(&f->worker, EPOCH, 10, 2, 4, 8, &token), ERR_ABORTED);
    assert_int_equal(result_token(&f->worker, EPOCH, 10, 8, 4, 9, &token), ERR_ABORTED);
}

static void two_steps_in_a_row_do_not_touch_each_other(void **state)
{
    struct fixture *f = *state;
    uint32_t token = 0;
    write_entry(f, 10, 7, 1);
    write_entry(f, 11, 0, 2);
    write_entry(f, 11, 7, 3);
    assert_int_equal(result_token(&f->worker, EPOCH, 10, 7, 4, 9, &token), OK);
    assert_int_equal(token, 1);
    write_entry(f, 12, 7, 4);
    assert_int_equal(result_token(&f->worker, EPOCH, 10, 7, 4, 9, &token), ERR_ABORTED);
    assert_int_equal(result_token(&f->worker, EPOCH, 11, 7, 4, 9, &token), OK);
    assert_int_equal(token, 3);
}

static void results_and_the_rest_of_work_do_not_overlap(void **state)
{
    struct fixture *f = *state;
    const uint8_t *end = (const uint8_t *)(result_entry_at(&f->worker, 1, 7) + 1);
    assert_ptr_equal(end, arena_work(&f->worker));
    assert_int_equal((uintptr_t)arena_work(&f->worker) % 64, 0);
}

static void damaged_results_are_noticed(void **state)
{
    struct fixture *f = *state;
    struct result_entry out;
    struct result_entry *e = write_entry(f, 10, 2, VOCAB);
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 9, &out), ERR_FORMAT);
    e->token = 1;
    e->top[0].token = VOCAB;
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 9, &out), ERR_FORMAT);
    e->top_count = SAMPLING_MAX_TOP_LOGPROBS + 1;
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 9, &out), ERR_FORMAT);
    e->top_count = 0;
    assert_int_equal(read_entry(f, EPOCH, 10, 4, 9, &out), OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_results, close_results)
    const struct CMUnitTest tests[] = {
        TEST(worker_and_coordinator_read_what_was_published),
        TEST(results_of_another_step_epoch_or_session_are_not_taken),
        TEST(two_steps_in_a_row_do_not_touch_each_other),
        TEST(results_and_the_rest_of_work_do_not_overlap),
        TEST(damaged_results_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
