/* One server to a name: the lock ends with its holder, whatever ends it, and only the holder clears. */
#include "shm/instance.h"

#include <setjmp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

static void the_second_server_of_a_name_learns_the_pid_of_the_first(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    struct instance first, second;
    struct why why = {""};
    char pid[32];
    snprintf(pid, sizeof pid, "(pid %d)", (int)getpid());
    assert_int_equal(instance_hold(&first, home.name, NULL, NULL), OK);
    assert_int_equal(instance_hold(&second, home.name, NULL, &why), ERR_BUSY);
    assert_non_null(strstr(why.text, "is already running"));
    assert_non_null(strstr(why.text, pid));
    assert_int_equal(instance_holder(&home), getpid());
    instance_release(&first);
    assert_int_equal(instance_holder(&home), 0);
    assert_int_equal(instance_hold(&second, home.name, NULL, NULL), OK);
    instance_release(&second);
}

static void a_killed_server_lets_go_of_its_name(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct instance held;
        if (instance_hold(&held, home.name, NULL, NULL) == OK && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(instance_holder(&home), child);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(instance_holder(&home), 0);

    struct instance next;
    assert_int_equal(instance_hold(&next, home.name, NULL, NULL), OK);
    instance_release(&next);
    close(ready[0]);
    close(ready[1]);
}

static void what_a_dead_server_left_is_counted_and_cleared(void **state)
{
    (void)state;
    struct arena *a = small_arena();
    struct segment_home home = small_home();
    uint64_t bytes = a->layout.total_bytes;
    arena_detach(a); /* its owner is gone, its segments stay */
    free(a);
    assert_true(instance_has_leftovers(&home));

    struct instance instance;
    struct leftovers dropped;
    assert_int_equal(instance_hold(&instance, home.name, NULL, NULL), OK);
    assert_int_equal(instance_clear(&instance, &dropped, NULL), OK);
    assert_int_equal(dropped.segments, 3 + 2 + 2); /* table, sessions, slots; pages and weights; work of two groups */
    assert_true(dropped.bytes >= bytes);
    assert_false(instance_has_leftovers(&home));
    instance_release(&instance);
}

static void segment_of(const char *name)
{
    struct segment_home home;
    assert_int_equal(segment_home_init(&home, name, NULL, NULL), OK);
    int fd = segment_open_file(&home, "table", O_RDWR | O_CREAT);
    assert_true(fd >= 0);
    close(fd);
}

static bool is_there(const char *name)
{
    struct segment_home home;
    assert_int_equal(segment_home_init(&home, name, NULL, NULL), OK);
    return instance_has_leftovers(&home);
}

static void a_sweep_removes_the_names_of_the_dead_and_no_others(void **state)
{
    (void)state;
    char prefix[24], dead[2][32], held[32], other[32];
    snprintf(prefix, sizeof prefix, "swept-%d.", (int)getpid());
    snprintf(dead[0], sizeof dead[0], "%s1", prefix);
    snprintf(dead[1], sizeof dead[1], "%s2", prefix);
    snprintf(held, sizeof held, "%s3", prefix);
    snprintf(other, sizeof other, "x-%s4", prefix);
    struct instance living;
    struct leftovers dropped;
    assert_int_equal(instance_hold(&living, held, NULL, NULL), OK);
    segment_of(dead[0]), segment_of(dead[1]), segment_of(held), segment_of(other);
    instance_sweep(prefix, NULL, &dropped);
    assert_int_equal(dropped.segments, 2);
    assert_false(is_there(dead[0]) || is_there(dead[1]));
    assert_true(is_there(held) && is_there(other));
    instance_release(&living);
    instance_sweep(prefix, NULL, &dropped);
    assert_int_equal(dropped.segments, 1);
    instance_sweep(other, NULL, &dropped);
    assert_int_equal(dropped.segments, 1);
}

static void a_name_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct instance instance;
    struct why why = {""};
    assert_int_equal(instance_hold(&instance, "../x", NULL, &why), ERR_INVALID);
    assert_int_equal(instance.lock_fd, -1);
    instance_release(&instance);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_server_of_a_name_learns_the_pid_of_the_first),
        cmocka_unit_test(a_killed_server_lets_go_of_its_name),
        cmocka_unit_test(what_a_dead_server_left_is_counted_and_cleared),
        cmocka_unit_test(a_sweep_removes_the_names_of_the_dead_and_no_others),
        cmocka_unit_test(a_name_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
