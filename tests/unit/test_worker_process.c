/* A child is started clean, watched, and described truly by how it ended. */
#include "coordinator/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct worker_process start(const char *script)
{
    struct worker_process p;
    struct why why;
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    if (worker_process_spawn(&p, argv[0], (char *const *)argv, &why))
        fail_msg("%s", why.text);
    assert_true(p.pid > 0 && p.pidfd >= 0);
    return p;
}

/* Waits on the pidfd for its end. */
static int end_of(struct worker_process *p)
{
    struct pollfd gone = {.fd = p->pidfd, .events = POLLIN};
    int status = 0;
    assert_int_equal(poll(&gone, 1, 20000), 1);
    assert_true(worker_process_reap(p, &status));
    assert_int_equal(p->pid, 0);
    assert_int_equal(p->pidfd, -1);
    return status;
}

static void an_exit_is_told_with_its_status(void **state)
{
    char how[96];
    (void)state;
    struct worker_process p = start("exit 3");
    int status = end_of(&p);
    worker_process_describe(status, how, sizeof how);
    assert_string_equal(how, "exited with status 3");
    assert_true(worker_process_died_suspect(status));
}

static void one_that_is_undone_leaves_neither_a_process_nor_a_descriptor(void **state)
{
    (void)state;
    struct worker_process p = start("exec cat /dev/zero > /dev/null");
    pid_t pid = p.pid;
    int pidfd = p.pidfd;
    worker_process_undo(&p);
    assert_int_equal(p.pid, 0);
    assert_int_equal(p.pidfd, -1);
    assert_int_equal(kill(pid, 0), -1); /* a zombie would still take it */
    assert_int_equal(fcntl(pidfd, F_GETFD), -1);
}

static void a_kill_from_outside_is_not_suspect(void **state)
{
    char how[96];
    (void)state;
    struct worker_process p = start("exec cat /dev/zero > /dev/null");
    int status;
    assert_false(worker_process_reap(&p, &status)); /* it runs */
    worker_process_kill(&p);
    status = end_of(&p);
    worker_process_describe(status, how, sizeof how);
    assert_string_equal(how, "was killed by signal 9 (Killed)");
    assert_false(worker_process_died_suspect(status));
}

static void a_fault_is_suspect(void **state)
{
    (void)state;
    static const char *const faults[] = {"ulimit -c 0; kill -SEGV $$", "ulimit -c 0; kill -ABRT $$", "kill -TERM $$",
                                         "exit 0"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct worker_process p = start(faults[i]);
        assert_true(worker_process_died_suspect(end_of(&p)));
    }
}

/* Before it is reaped: its status stays to be waited for. */
static void how_it_died_is_known_before_it_is_reaped(void **state)
{
    static const char *const ends[] = {"ulimit -c 0; kill -SEGV $$", "kill -KILL $$", "exit 3"};
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct worker_process p = start(ends[i]);
        struct pollfd gone = {.fd = p.pidfd, .events = POLLIN};
        int peeked = 0;
        assert_int_equal(poll(&gone, 1, 20000), 1);
        assert_true(worker_process_peek(&p, &peeked));
        assert_int_equal(end_of(&p), peeked);
    }
    struct worker_process p = start("exec cat /dev/zero > /dev/null");
    int status;
    assert_false(worker_process_peek(&p, &status)); /* it lives */
    kill(p.pid, SIGSTOP);
    assert_false(worker_process_peek(&p, &status));
    worker_process_kill(&p);
    end_of(&p);
    assert_false(worker_process_peek(&p, &status)); /* nobody is there */
}

/* Its last work, the unmapping, is not to be felt by who computes. */
static void one_that_steps_aside_may_be_anywhere_and_goes_last(void **state)
{
    (void)state;
    cpu_set_t ours, one, its;
    assert_int_equal(sched_getaffinity(0, sizeof ours, &ours), 0);
    struct worker_process p = start("exec cat /dev/zero > /dev/null");
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &ours))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(p.pid, sizeof one, &one), 0);
    worker_process_step_aside(&p);
    assert_int_equal(sched_getaffinity(p.pid, sizeof its, &its), 0);
    assert_true(CPU_EQUAL(&its, &ours));
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)p.pid), 19);
    worker_process_kill(&p);
    end_of(&p);
    worker_process_step_aside(&p); /* nobody is there: nothing happens */
    assert_int_not_equal(getpriority(PRIO_PROCESS, 0), 19);
}

static void it_inherits_nothing_of_ours(void **state)
{
    (void)state;
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    void (*handler)(int) = signal(SIGHUP, SIG_IGN);
    int ours = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char script[512];
    snprintf(script, sizeof script,
             "[ ! -e /proc/self/fd/%d ] || exit 11;"
             "[ \"$(readlink /proc/self/fd/0)\" = /dev/null ] || exit 12;"
             "grep -q 'SigBlk:.*0000000000000000' /proc/self/status || exit 13;"
             "grep -Eq 'SigIgn:.*[08]0000000$' /proc/self/status || exit 14;" /* glibc ignores its own 32 and 33 */
             "exit 0",
             ours);
    struct worker_process p = start(script);
    int status = end_of(&p);
    close(ours);
    signal(SIGHUP, handler);
    sigprocmask(SIG_SETMASK, &before, NULL);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void one_that_was_stopped_is_known(void **state)
{
    int status;
    (void)state;
    struct worker_process p = start("exec cat /dev/zero > /dev/null");
    assert_false(worker_process_is_stopped(&p));
    kill(p.pid, SIGSTOP);
    assert_int_equal(waitpid(p.pid, &status, WUNTRACED), p.pid);
    assert_true(worker_process_is_stopped(&p));
    worker_process_kill(&p);
    end_of(&p);
    assert_false(worker_process_is_stopped(&p));
}

static void a_program_that_is_not_there_gives_one_sentence(void **state)
{
    struct worker_process p;
    struct why why;
    const char *argv[] = {"/nowhere/quire-worker", NULL};
    (void)state;
    assert_int_equal(worker_process_spawn(&p, argv[0], (char *const *)argv, &why), ERR_IO);
    assert_string_equal(why.text, "could not start \"/nowhere/quire-worker\": No such file or directory");
    assert_int_equal(p.pid, 0);
    int status;
    assert_false(worker_process_reap(&p, &status));
    worker_process_kill(&p); /* nobody: kill(0) would be us */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_exit_is_told_with_its_status),
        cmocka_unit_test(one_that_is_undone_leaves_neither_a_process_nor_a_descriptor),
        cmocka_unit_test(a_kill_from_outside_is_not_suspect),
        cmocka_unit_test(a_fault_is_suspect),
        cmocka_unit_test(how_it_died_is_known_before_it_is_reaped),
        cmocka_unit_test(one_that_steps_aside_may_be_anywhere_and_goes_last),
        cmocka_unit_test(it_inherits_nothing_of_ours),
        cmocka_unit_test(one_that_was_stopped_is_known),
        cmocka_unit_test(a_program_that_is_not_there_gives_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
