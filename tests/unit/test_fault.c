/* fault: what fires when, in children that die of it. Compiled with the points whatever the variant. */
#ifndef QUIRE_FAULTS
#define QUIRE_FAULTS 1
#endif
#include "base/fault.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>

#include <cmocka.h>

static void forget(void)
{
    memset(&own_board, 0, sizeof own_board);
    boards[0] = boards[1] = NULL;
    unsetenv("QUIRE_FAULT");
    unsetenv("QUIRE_FAULT_BOARD");
}

static void arm(const char *text)
{
    forget();
    setenv("QUIRE_FAULT", text, 1);
    fault_open(3, 7);
}

/* How a child ends that passes a point so often. */
static int end_of_child(enum fault which, int passings)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* cmocka catches them */
        signal(SIGABRT, SIG_DFL);
        for (int i = 0; i < passings; i++)
            fault_point(which);
        _exit(42);
    }
    int status;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    if (WIFSTOPPED(status)) {
        int ignored;
        kill(child, SIGKILL);
        waitpid(child, &ignored, 0);
    }
    return status;
}

static void nothing_happens_at_a_point_that_nobody_armed(void **state)
{
    (void)state;
    forget();
    fault_open(3, 7);
    assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_HELLO, 3)), 42);
    arm("worker.attach:kill:1");
    assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_HELLO, 3)), 42);
}

static void the_process_ends_at_the_nth_passing_as_it_was_told(void **state)
{
    (void)state;
    static const struct {
        const char *action;
        int signal;
    } deaths[] = {{"kill", SIGKILL}, {"abort", SIGABRT}, {"segv", SIGSEGV}};
    for (size_t i = 0; i < sizeof deaths / sizeof deaths[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "worker.kv_written:%s:3", deaths[i].action);
        arm(text);
        assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_KV_WRITTEN, 2)), 42);
        int status = end_of_child(FAULT_WORKER_KV_WRITTEN, 3);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), deaths[i].signal);
    }
    arm("worker.kv_written:exit:1");
    assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_KV_WRITTEN, 1)), 1);
    arm("worker.kv_written:stop:1");
    assert_true(WIFSTOPPED(end_of_child(FAULT_WORKER_KV_WRITTEN, 1)));
}

static void a_point_fails_once_and_then_passes(void **state)
{
    (void)state;
    arm("worker.assign:fail:2");
    assert_false(fault_point(FAULT_WORKER_ASSIGN));
    assert_true(fault_point(FAULT_WORKER_ASSIGN));
    assert_false(fault_point(FAULT_WORKER_ASSIGN));
    forget();
}

static void a_fault_for_one_worker_leaves_the_others_alone(void **state)
{
    (void)state;
    arm("worker.assign:fail:1:4");
    assert_false(fault_point(FAULT_WORKER_ASSIGN));
    arm("worker.assign:fail:1:3");
    assert_true(fault_point(FAULT_WORKER_ASSIGN));
    arm("worker.assign:fail:1:3.8");
    assert_false(fault_point(FAULT_WORKER_ASSIGN));
    arm("worker.assign:fail:1:3.7");
    assert_true(fault_point(FAULT_WORKER_ASSIGN));
    forget();
}

static void what_arms_nothing_ends_the_process(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "worker.assign", "worker.assign:kill", "worker.assign:kill:0", "nowhere:kill:1", "worker.assign:sing:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pid_t child = fork();
        if (child == 0) {
            assert_non_null(freopen("/dev/null", "w", stderr));
            arm(bad[i]);
            _exit(42);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(WEXITSTATUS(status), 2);
    }
}

static void a_board_counts_over_all_processes_and_an_arm_can_wait_for_another(void **state)
{
    (void)state;
    char path[] = "/tmp/quire-test-fault-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, FAULT_BOARD_BYTES), 0);
    close(fd);
    forget();
    setenv("QUIRE_FAULT_BOARD", path, 1);
    fault_open(3, 7);
    struct fault_board *board = boards[1];
    assert_non_null(board);
    board->arms[0].action = board->arms[1].action = FAULT_KILL;
    board->arms[0].nth = 3;
    board->arms[1].nth = board->arms[0].times = board->arms[1].times = 1;
    board->arms[1].after = 1;
    atomic_store(&board->arms[1].point, FAULT_WORKER_ASSIGN + 1u);
    atomic_store(&board->arms[0].point, FAULT_WORKER_HELLO + 1u);

    assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_ASSIGN, 5)), 42); /* its turn has not come */
    assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_HELLO, 2)), 42);
    assert_int_equal(WTERMSIG(end_of_child(FAULT_WORKER_HELLO, 1)), SIGKILL); /* the third, over both children */
    assert_int_equal(WEXITSTATUS(end_of_child(FAULT_WORKER_HELLO, 5)), 42);   /* once */
    assert_int_equal(WTERMSIG(end_of_child(FAULT_WORKER_ASSIGN, 1)), SIGKILL);
    assert_int_equal(atomic_load(&board->arms[0].fired), 1);
    assert_int_equal(atomic_load(&board->passed[FAULT_WORKER_HELLO]), 8);
    assert_int_equal(munmap(board, FAULT_BOARD_BYTES), 0);
    unlink(path);
    forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_happens_at_a_point_that_nobody_armed),
        cmocka_unit_test(the_process_ends_at_the_nth_passing_as_it_was_told),
        cmocka_unit_test(a_point_fails_once_and_then_passes),
        cmocka_unit_test(a_fault_for_one_worker_leaves_the_others_alone),
        cmocka_unit_test(what_arms_nothing_ends_the_process),
        cmocka_unit_test(a_board_counts_over_all_processes_and_an_arm_can_wait_for_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
