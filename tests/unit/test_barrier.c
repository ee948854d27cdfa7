/* Ranks meet: nobody passes early, nobody is left behind, and the end of an epoch frees spinners and sleepers alike. */
#include "shm/barrier.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "tests/support/small_arena.h"

enum { RANKS_MAX = 5, DEADLINE_US = 60 * 1000 * 1000, MANY_CORES = 64 };

static int open_arena(void **state)
{
    *state = small_arena();
    return 0;
}

static int close_arena(void **state)
{
    small_arena_close(*state);
    return 0;
}

static const uint32_t slots[RANKS_MAX] = {4, 2, 7, 0, 5};

struct rank {
    struct arena *arena;
    pthread_t thread;
    uint32_t rank, ranks, epoch, meetings, cores;
    uint32_t (*board)[CACHE_LINE /
                      4]; /* (2, ranks) lines: what each wrote in even and odd meetings; plain memory on purpose */
    uint32_t late_at;     /* meeting to which rank 0 comes late; 0: none */
    uint32_t met;
    enum err err;
};

/* Each meeting: write my cell, meet, read everybody's. A rank that passed early would read an old one; ThreadSanitizer
 * watches. */
static void *meet_many(void *arg)
{
    struct rank *r = arg;
    struct barrier b;
    must(barrier_join(&b, r->arena, 0, r->epoch, r->rank, r->ranks, slots, r->cores, NULL) == OK);
    for (uint32_t i = 1; i <= r->meetings; i++) {
        uint32_t(*board)[CACHE_LINE / 4] = r->board + (i & 1) * r->ranks;
        if (i == r->late_at && r->rank == 0)
            for (uint64_t until = now_us() + 30000; now_us() < until;) /* long enough for the others to sleep */
                sched_yield();
        board[r->rank][0] = i;
        r->err = barrier_meet(&b);
        if (r->err != OK)
            return NULL;
        for (uint32_t peer = 0; peer < r->ranks; peer++)
            must(board[peer][0] == i);
        r->met = i;
    }
    return NULL;
}

static void meet_as_threads(struct arena *a, uint32_t ranks, uint32_t epoch, uint32_t meetings, uint32_t cores,
                            uint32_t late_at)
{
    static uint32_t board[2 * RANKS_MAX][CACHE_LINE / 4];
    struct rank r[RANKS_MAX];
    memset(board, 0, sizeof board);
    barrier_set_epoch(a, 0, epoch);
    for (uint32_t i = 0; i < ranks; i++) {
        r[i] = (struct rank){a, 0, i, ranks, epoch, meetings, cores, board, late_at, 0, OK};
        assert_int_equal(pthread_create(&r[i].thread, NULL, meet_many, &r[i]), 0);
    }
    for (uint32_t i = 0; i < ranks; i++) {
        assert_int_equal(pthread_join(r[i].thread, NULL), 0);
        assert_int_equal(r[i].err, OK);
        assert_int_equal(r[i].met, meetings);
    }
}

static void two_to_five_ranks_meet_often_and_nobody_passes_early(void **state)
{
    meet_as_threads(*state, 1, 1, 1000, 0, 0);
    meet_as_threads(*state, 2, 2, 100000, 0, 0);
    for (uint32_t ranks = 3; ranks <= RANKS_MAX; ranks++)
        meet_as_threads(*state, ranks, ranks, 20000, 0, 0);
}

static void ranks_that_spin_on_too_few_cores_meet_too(void **state)
{
    meet_as_threads(*state, 4, 1, 300, MANY_CORES, 0);
}

static void those_who_wait_for_a_late_peer_sleep_and_are_woken(void **state)
{
    struct arena *a = *state;
    meet_as_threads(a, 3, 1, 50, MANY_CORES, 25);
    uint64_t sleeps = 0;
    for (uint32_t rank = 1; rank < 3; rank++)
        sleeps += worker_slot_at(a, slots[rank])->sleeps;
    assert_true(sleeps > 0);
}

static void phases_wrap_without_anybody_noticing(void **state)
{
    struct arena *a = *state;
    (void)a;
    uint64_t epoch = 9ull << 32;
    assert_true(arrival_is_behind(epoch | UINT32_MAX, epoch | 0));
    assert_false(arrival_is_behind(epoch | 0, epoch | UINT32_MAX));
    assert_true(arrival_is_behind(epoch | 1, epoch | 2));
    assert_false(arrival_is_behind(epoch | 2, epoch | 2));
    assert_false(arrival_is_behind((8ull << 32) | 1, epoch | 2)); /* another epoch: no telling */
}

static bool await(_Atomic uint32_t *word, uint32_t value)
{
    uint64_t deadline_us = now_us() + DEADLINE_US;
    while (atomic_load(word) != value)
        if (now_us() > deadline_us)
            return false;
        else
            sched_yield();
    return true;
}

static void the_end_of_an_epoch_frees_spinners_and_sleepers(void **state)
{
    struct arena *a = *state;
    static uint32_t board[2 * RANKS_MAX][CACHE_LINE / 4];
    struct rank r[3];
    barrier_set_epoch(a, 0, 1);
    for (uint32_t i = 1; i < 3; i++) { /* rank 0 never comes */
        r[i] = (struct rank){a, 0, i, 3, 1, 10, i == 1 ? MANY_CORES : 1, board, 0, 0, OK};
        assert_int_equal(pthread_create(&r[i].thread, NULL, meet_many, &r[i]), 0);
    }
    assert_true(await(&worker_slot_at(a, slots[2])->asleep, 1)); /* rank 2 does not spin */
    barrier_set_epoch(a, 0, 2);
    for (uint32_t i = 1; i < 3; i++) {
        assert_int_equal(pthread_join(r[i].thread, NULL), 0);
        assert_int_equal(r[i].err, ERR_ABORTED);
        assert_int_equal(r[i].met, 0);
    }
}

static void a_void_epoch_is_noticed_before_the_meeting(void **state)
{
    struct arena *a = *state;
    struct barrier b;
    barrier_set_epoch(a, 0, 4);
    assert_int_equal(barrier_join(&b, a, 0, 3, 0, 1, slots, 0, NULL), OK);
    assert_int_equal(barrier_meet(&b), ERR_ABORTED);
}

static void after_an_abort_fewer_ranks_meet_in_a_new_epoch(void **state)
{
    the_end_of_an_epoch_frees_spinners_and_sleepers(state);
    meet_as_threads(*state, 2, 3, 1000, 0, 0);
    meet_as_threads(*state, 5, 4, 1000, 0, 0);
}

static void places_that_cannot_be_are_refused(void **state)
{
    struct arena *a = *state;
    struct barrier b;
    struct why why;
    const uint32_t beyond[2] = {0, 8};
    assert_int_equal(barrier_join(&b, a, 2, 1, 0, 1, slots, 0, &why), ERR_INVALID);
    assert_int_equal(barrier_join(&b, a, 0, 1, 1, 1, slots, 0, &why), ERR_INVALID);
    assert_int_equal(barrier_join(&b, a, 0, 1, 0, 0, slots, 0, &why), ERR_INVALID);
    assert_int_equal(barrier_join(&b, a, 0, 0, 0, 1, slots, 0, &why), ERR_INVALID);
    assert_int_equal(barrier_join(&b, a, 0, 1, 0, 2, beyond, 0, &why), ERR_INVALID);
}

/* A worker process: meets until its epoch ends, then once more in the next one, which has one rank less. */
static void work_until_aborted(struct arena *a, uint32_t rank, uint32_t generation)
{
    struct barrier b;
    must(worker_slot_enter(a, slots[rank], generation, NULL) == OK);
    must(barrier_join(&b, a, 0, 1, rank, 3, slots, 0, NULL) == OK);
    while (barrier_meet(&b) == OK)
        atomic_fetch_add(&b.me->steps, 1);
    must(barrier_join(&b, a, 0, 2, rank, 2, slots, 0, NULL) == OK);
    for (uint32_t i = 0; i < 100; i++)
        must(barrier_meet(&b) == OK);
    worker_slot_leave(a, slots[rank]);
    _exit(0);
}

static void when_a_process_is_killed_the_others_go_on_without_it(void **state)
{
    struct arena *a = *state;
    pid_t workers[3];
    barrier_set_epoch(a, 0, 1);
    fflush(NULL);
    for (uint32_t rank = 0; rank < 3; rank++) {
        uint32_t generation = worker_slot_prepare(a, slots[rank], 0);
        workers[rank] = fork();
        if (workers[rank] == 0) {
            signal(SIGABRT, SIG_DFL);
            work_until_aborted(a, rank, generation);
        }
    }
    uint64_t deadline_us = now_us() + DEADLINE_US;
    while (atomic_load(&worker_slot_at(a, slots[2])->steps) < 1000)
        assert_true(now_us() < deadline_us);
    kill(workers[2], SIGKILL);
    while (worker_slot_life(a, slots[2]) != LIFE_DEAD)
        assert_true(now_us() < deadline_us);
    barrier_set_epoch(a, 0, 2);
    for (uint32_t rank = 0; rank < 2; rank++) {
        int status;
        assert_int_equal(waitpid(workers[rank], &status, 0), workers[rank]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(worker_slot_life(a, slots[rank]), LIFE_NOBODY);
    }
    assert_int_equal(waitpid(workers[2], NULL, 0), workers[2]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)
    const struct CMUnitTest tests[] = {
        TEST(two_to_five_ranks_meet_often_and_nobody_passes_early), TEST(ranks_that_spin_on_too_few_cores_meet_too),
        TEST(those_who_wait_for_a_late_peer_sleep_and_are_woken),   TEST(phases_wrap_without_anybody_noticing),
        TEST(the_end_of_an_epoch_frees_spinners_and_sleepers),      TEST(a_void_epoch_is_noticed_before_the_meeting),
        TEST(after_an_abort_fewer_ranks_meet_in_a_new_epoch),       TEST(places_that_cannot_be_are_refused),
        TEST(when_a_process_is_killed_the_others_go_on_without_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
