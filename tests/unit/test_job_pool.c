/* Jobs go to helper threads and come back to the loop, each once, also when the pool closes under them. */
#include "coordinator/job_pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <cmocka.h>

enum { JOBS = 200 };

struct counted {
    struct job job; /* first: the job is this */
    pthread_t ran_on, done_on;
    uint32_t ran, done;
    sem_t *begun, *go_on; /* NULL: it does not wait */
};

static struct event_base *loop;
static uint32_t left; /* jobs that the running loop waits for */

static void run(struct job *job)
{
    struct counted *c = (struct counted *)job;
    if (c->begun)
        sem_post(c->begun);
    if (c->go_on)
        sem_wait(c->go_on);
    c->ran_on = pthread_self();
    c->ran++;
}

static void done(struct job *job)
{
    struct counted *c = (struct counted *)job;
    c->done_on = pthread_self();
    c->done++;
    if (left && --left == 0)
        event_base_loopbreak(loop);
}

static struct counted counted_job(void)
{
    return (struct counted){.job = {.run = run, .done = done}};
}

static void too_late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    fail_msg("the jobs did not come back");
}

static void loop_until_done(uint32_t jobs)
{
    struct timeval deadline = {.tv_sec = 20};
    struct event *timer = evtimer_new(loop, too_late, NULL);
    left = jobs;
    evtimer_add(timer, &deadline);
    assert_int_equal(event_base_dispatch(loop), 0);
    event_free(timer);
    assert_int_equal(left, 0);
}

static struct job_pool *open_pool(uint32_t threads)
{
    struct job_pool *pool;
    struct why why;
    assert_int_equal(job_pool_open(&pool, loop, threads, &why), OK);
    return pool;
}

static int open_loop(void **state)
{
    (void)state;
    loop = event_base_new();
    return loop ? 0 : -1;
}

static int close_loop(void **state)
{
    (void)state;
    event_base_free(loop);
    return 0;
}

static void each_job_runs_once_elsewhere_and_comes_back_to_the_loop(void **state)
{
    static struct counted jobs[JOBS];
    struct job_pool *pool = open_pool(2);
    (void)state;
    for (uint32_t i = 0; i < JOBS; i++) {
        jobs[i] = counted_job();
        job_pool_submit(pool, &jobs[i].job);
    }
    assert_int_equal(job_pool_pending(pool), JOBS); /* none comes back before the loop runs */
    loop_until_done(JOBS);
    assert_int_equal(job_pool_pending(pool), 0);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].ran, 1);
        assert_int_equal(jobs[i].done, 1);
        assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
        assert_true(pthread_equal(jobs[i].done_on, pthread_self()));
    }
    job_pool_close(pool);
}

static void a_long_job_does_not_hold_up_a_short_one(void **state)
{
    sem_t begun, go_on;
    sem_init(&begun, 0, 0);
    sem_init(&go_on, 0, 0);
    struct job_pool *pool = open_pool(2);
    struct counted slow = counted_job(), quick = counted_job();
    (void)state;
    slow.begun = &begun;
    slow.go_on = &go_on;
    job_pool_submit(pool, &slow.job);
    sem_wait(&begun);
    job_pool_submit(pool, &quick.job);
    loop_until_done(1);
    assert_int_equal(quick.done, 1);
    assert_int_equal(slow.done, 0);
    sem_post(&go_on);
    loop_until_done(1);
    assert_int_equal(slow.done, 1);
    job_pool_close(pool);
}

static void closing_waits_for_what_runs_and_hands_back_what_waits(void **state)
{
    sem_t begun;
    sem_init(&begun, 0, 0);
    struct job_pool *pool = open_pool(1);
    struct counted running = counted_job(), waiting[20];
    (void)state;
    running.begun = &begun;
    job_pool_submit(pool, &running.job);
    for (uint32_t i = 0; i < 20; i++) {
        waiting[i] = counted_job();
        job_pool_submit(pool, &waiting[i].job);
    }
    sem_wait(&begun);
    job_pool_close(pool);
    assert_int_equal(running.ran, 1);
    assert_int_equal(running.done, 1);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(waiting[i].done, 1); /* run or not */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_job_runs_once_elsewhere_and_comes_back_to_the_loop),
        cmocka_unit_test(a_long_job_does_not_hold_up_a_short_one),
        cmocka_unit_test(closing_waits_for_what_runs_and_hands_back_what_waits),
    };
    return cmocka_run_group_tests(tests, open_loop, close_loop);
}
