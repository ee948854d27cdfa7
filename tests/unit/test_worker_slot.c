/* Life locks: the dead are known at once and for good, the stopped are not dead, and a slot serves the next process. */
#include "shm/worker_slot.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "tests/support/small_arena.h"

enum { SLOT = 3, DEADLINE_US = 10 * 1000 * 1000 };

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

/* A process that lives in SLOT until it is killed. */
static pid_t spawn_worker(struct arena *a, uint32_t generation)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (worker_slot_enter(a, SLOT, generation, NULL) == OK && write(ready[1], "x", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static enum worker_life life_after(struct arena *a, enum worker_life awaited)
{
    uint64_t deadline_us = now_us() + DEADLINE_US;
    while (worker_slot_life(a, SLOT) != awaited && now_us() < deadline_us)
        sched_yield();
    return worker_slot_life(a, SLOT);
}

static void nobody_lives_in_a_slot_before_and_after(void **state)
{
    struct arena *a = *state;
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_NOBODY);
    uint32_t generation = worker_slot_prepare(a, SLOT, 1);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_NOBODY);
    assert_int_equal(worker_slot_enter(a, SLOT, generation, NULL), OK);
    assert_int_equal(worker_slot_at(a, SLOT)->pid, getpid());
    worker_slot_leave(a, SLOT);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_NOBODY);
}

static void a_killed_worker_is_dead_and_stays_dead_until_the_slot_is_prepared(void **state)
{
    struct arena *a = *state;
    uint32_t generation = worker_slot_prepare(a, SLOT, 0);
    pid_t worker = spawn_worker(a, generation);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_HELD);
    kill(worker, SIGKILL);
    assert_int_equal(life_after(a, LIFE_DEAD), LIFE_DEAD);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_DEAD);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
    assert_int_equal(worker_slot_enter(a, SLOT, generation, NULL), ERR_BUSY);

    uint32_t next = worker_slot_prepare(a, SLOT, 0);
    assert_int_equal(next, generation + 1);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_NOBODY);
    worker = spawn_worker(a, next);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_HELD);
    kill(worker, SIGKILL);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_DEAD);
}

static void a_stopped_worker_is_not_dead(void **state)
{
    struct arena *a = *state;
    pid_t worker = spawn_worker(a, worker_slot_prepare(a, SLOT, 0));
    int status;
    kill(worker, SIGSTOP);
    assert_int_equal(waitpid(worker, &status, WUNTRACED), worker);
    assert_int_equal(worker_slot_life(a, SLOT), LIFE_HELD);
    kill(worker, SIGKILL);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
}

static void a_process_of_another_generation_may_not_enter(void **state)
{
    struct arena *a = *state;
    struct why why = {""};
    uint32_t old = worker_slot_prepare(a, SLOT, 0);
    worker_slot_prepare(a, SLOT, 0);
    assert_int_equal(worker_slot_enter(a, SLOT, old, &why), ERR_INVALID);
    assert_true(strlen(why.text) > 0);
    assert_int_equal(worker_slot_enter(a, 8, 1, &why), ERR_INVALID);
    assert_int_equal(worker_slot_enter(a, SLOT, 0, &why), ERR_INVALID);
}

struct thread_worker {
    struct arena *arena;
    uint32_t generation;
};

static void *enter_and_vanish(void *arg)
{
    struct thread_worker *w = arg;
    must(worker_slot_enter(w->arena, SLOT, w->generation, NULL) == OK);
    return NULL; /* without leave, as a thread that is killed */
}

static void a_thread_that_ends_without_leave_is_dead_too(void **state)
{
    struct thread_worker w = {.arena = *state, .generation = worker_slot_prepare(*state, SLOT, 0)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, enter_and_vanish, &w), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(life_after(w.arena, LIFE_DEAD), LIFE_DEAD);
}

static void the_trace_keeps_the_last_events(void **state)
{
    struct arena *a = *state;
    assert_int_equal(worker_slot_enter(a, SLOT, worker_slot_prepare(a, SLOT, 0), NULL), OK);
    struct worker_slot *s = worker_slot_at(a, SLOT);
    for (uint64_t step = 1; step <= 20; step++)
        worker_slot_trace(s, EVENT_STEP, 5, step);
    assert_int_equal(s->event_count, 21); /* and the one of its entering */
    assert_int_equal(s->events[20 % WORKER_EVENTS].step, 20);
    assert_int_equal(s->events[5].step, 5);
    assert_string_equal(worker_event_name(EVENT_STEP), "step");
    worker_slot_leave(a, SLOT);
}

static void states_move_along_their_picture(void **state)
{
    struct arena *a = *state;
    assert_int_equal(worker_slot_enter(a, SLOT, worker_slot_prepare(a, SLOT, 0), NULL), OK);
    struct worker_slot *s = worker_slot_at(a, SLOT);
    assert_int_equal(s->state, WORKER_STARTING);
    worker_slot_set_state(s, WORKER_READY);
    worker_slot_set_state(s, WORKER_COMPUTING);
    worker_slot_set_state(s, WORKER_READY);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        worker_slot_set_state(s, WORKER_ABSENT);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    worker_slot_leave(a, SLOT);
    assert_int_equal(s->state, WORKER_LEFT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)
    const struct CMUnitTest tests[] = {
        TEST(nobody_lives_in_a_slot_before_and_after),
        TEST(a_killed_worker_is_dead_and_stays_dead_until_the_slot_is_prepared),
        TEST(a_stopped_worker_is_not_dead),
        TEST(a_process_of_another_generation_may_not_enter),
        TEST(a_thread_that_ends_without_leave_is_dead_too),
        TEST(the_trace_keeps_the_last_events),
        TEST(states_move_along_their_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
