/* A broken promise says what and where, and ends the process by SIGABRT; a kept one costs nothing. */
#include "base/must.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Runs the promise in a child: its stderr goes to said, its wait status comes back. */
static int die_in_a_child(void (*promise)(void), char said[static 512])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL); /* a sanitizer may have its own */
        dup2(ends[1], 2);
        promise();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t n;
    while (used < 511 && (n = read(ends[0], said + used, 511 - used)) > 0)
        used += (size_t)n;
    said[used] = 0;
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void promise_that_two_is_three(void)
{
    volatile int two = 2;
    must(two == 3);
}

static void promise_that_is_kept(void)
{
    volatile int two = 2;
    must(two == 2);
}

static void reach(void)
{
    must_not_reach();
}

static void a_broken_promise_names_itself_and_aborts(void **state)
{
    (void)state;
    char said[512];
    int status = die_in_a_child(promise_that_two_is_three, said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(said, "test_must.c:"));
    assert_non_null(strstr(said, "two == 3\n"));
}

static void a_kept_promise_says_nothing(void **state)
{
    (void)state;
    char said[512];
    int status = die_in_a_child(promise_that_is_kept, said);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(said, "");
}

static void a_place_that_no_path_may_reach_aborts(void **state)
{
    (void)state;
    char said[512];
    int status = die_in_a_child(reach, said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(said, "test_must.c:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_promise_names_itself_and_aborts),
        cmocka_unit_test(a_kept_promise_says_nothing),
        cmocka_unit_test(a_place_that_no_path_may_reach_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
