/* The computing thread stays on its core, threads made before it stay free, and a core that is not there is only a sentence. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "worker/affinity.h"

struct pinned {
    uint32_t cpu, cores_before, cores_after;
    enum err err;
    struct why why;
};

static void *pin(void *arg)
{
    struct pinned *p = arg;
    p->cores_before = affinity_cores();
    p->err = affinity_pin(p->cpu, &p->why);
    p->cores_after = affinity_cores();
    return NULL;
}

static struct pinned pin_in_a_thread(uint32_t cpu)
{
    struct pinned p = {.cpu = cpu};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, pin, &p), 0);
    pthread_join(thread, NULL);
    return p;
}

static uint32_t first_core(void)
{
    cpu_set_t mask;
    assert_int_equal(sched_getaffinity(0, sizeof mask, &mask), 0);
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask))
            return cpu;
    fail_msg("this thread may run nowhere");
    return 0;
}

static void only_the_calling_thread_is_pinned(void **state)
{
    (void)state;
    uint32_t before = affinity_cores();
    struct pinned p = pin_in_a_thread(first_core());
    assert_int_equal(p.err, OK);
    assert_int_equal(p.cores_before, before);
    assert_int_equal(p.cores_after, 1);
    assert_int_equal(affinity_cores(), before);
}

static void a_core_that_is_not_there_changes_nothing(void **state)
{
    (void)state;
    static const uint32_t far[] = {4000, 1u << 20}; /* the second no Linux can have */
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        char core[32];
        struct pinned p = pin_in_a_thread(far[i]);
        snprintf(core, sizeof core, "core %u:", far[i]);
        assert_int_equal(p.err, ERR_INVALID);
        assert_non_null(strstr(p.why.text, core));
        assert_int_equal(p.cores_after, p.cores_before);
    }
}

static void any_core_means_no_pin(void **state)
{
    (void)state;
    struct pinned p = pin_in_a_thread(AFFINITY_ANY);
    assert_int_equal(p.err, OK);
    assert_int_equal(p.cores_after, p.cores_before);
}

static void *take_long_slices(void *arg)
{
    int *priorities = arg;
    (void)setpriority(PRIO_PROCESS, 0, 3); /* on Linux: of this thread */
    priorities[0] = getpriority(PRIO_PROCESS, 0);
    affinity_take_long_slices();
    priorities[1] = getpriority(PRIO_PROCESS, 0);
    priorities[2] = sched_getscheduler(0);
    return NULL;
}

static void long_slices_change_neither_priority_nor_policy(void **state)
{
    (void)state;
    int priorities[3], before = getpriority(PRIO_PROCESS, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, take_long_slices, priorities), 0);
    pthread_join(thread, NULL);
    assert_int_equal(priorities[1], priorities[0]);
    assert_int_equal(priorities[2], SCHED_OTHER);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_calling_thread_is_pinned),
        cmocka_unit_test(a_core_that_is_not_there_changes_nothing),
        cmocka_unit_test(any_core_means_no_pin),
        cmocka_unit_test(long_slices_change_neither_priority_nor_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
