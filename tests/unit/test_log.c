/* One event is one line on stderr, whatever its words hold and however long they are. */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static int kept_stderr;
static int log_pipe[2];
static char written[8192];

static int catch_stderr(void **state)
{
    (void)state;
    kept_stderr = dup(2);
    if (kept_stderr < 0 || pipe(log_pipe) != 0 || dup2(log_pipe[1], 2) < 0)
        return -1;
    close(log_pipe[1]);
    return 0;
}

/* Ends the catching and leaves in `written` what came; a line is far smaller than a pipe. */
static const char *caught(void)
{
    dup2(kept_stderr, 2);
    size_t used = 0;
    ssize_t n;
    while (used < sizeof written - 1 && (n = read(log_pipe[0], written + used, sizeof written - 1 - used)) > 0)
        used += (size_t)n;
    written[used] = 0;
    return written;
}

static int release_stderr(void **state)
{
    (void)state;
    dup2(kept_stderr, 2);
    close(kept_stderr);
    close(log_pipe[0]);
    log_set_level(LOG_INFO);
    log_set_prefix("");
    return 0;
}

static void a_line_has_time_level_prefix_and_words(void **state)
{
    (void)state;
    log_set_prefix("worker 3: ");
    log_warn("lost after %d ms", 17);
    int year, month, day, hour, minute, second, ms, at = 0;
    assert_int_equal(
        sscanf(caught(), "%4d-%2d-%2dT%2d:%2d:%2d.%3d %n", &year, &month, &day, &hour, &minute, &second, &ms, &at), 7);
    assert_string_equal(written + at, "warn  worker 3: lost after 17 ms\n");
}

static void a_pipe_that_nobody_empties_stops_nobody(void **state)
{
    (void)state;
    enum { LINES = 5000 }; /* far more than a pipe holds */
    for (int i = 0; i < LINES; i++)
        log_info("line %d of many that nobody reads", i);
    static char full[1 << 20];
    ssize_t held = read(log_pipe[0], full, sizeof full);
    assert_true(held > 0);
    log_info("room again");
    assert_non_null(strstr(caught(), "lines found no room)\n"));
    assert_non_null(strstr(written, "info  room again\n"));
}

static void lines_below_the_level_are_dropped(void **state)
{
    (void)state;
    log_set_level(LOG_WARN);
    log_debug("quiet");
    log_info("quiet");
    log_error("loud");
    assert_null(strstr(caught(), "quiet"));
    assert_non_null(strstr(written, "error loud\n"));
}

static void words_cannot_forge_a_second_line(void **state)
{
    (void)state;
    log_info("model \"%s\"", "a\n12:00:00.000 error all is lost\r\x1b[31m\x7f\xc2\x9b"
                             "31m grün");
    const char *end = strchr(caught(), '\n');
    assert_non_null(end);
    assert_int_equal(end[1], 0);
    for (const char *c = written; c < end; c++)
        assert_true((unsigned char)*c >= ' ' && *c != 127 && (unsigned char)*c != 0x9b);
    assert_non_null(strstr(written, "grün")); /* a letter of two bytes is no control character */
}

static void a_line_too_long_is_cut_and_still_ends(void **state)
{
    (void)state;
    char words[3000];
    memset(words, 'w', sizeof words - 1);
    words[sizeof words - 1] = 0;
    log_info("%s", words);
    size_t length = strlen(caught());
    assert_in_range(length, 900, 1024);
    assert_ptr_equal(strchr(written, '\n'), written + length - 1);
    assert_int_equal(written[length - 2], 'w');
}

#define test_of_lines(name) cmocka_unit_test_setup_teardown(name, catch_stderr, release_stderr)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of_lines(a_line_has_time_level_prefix_and_words), test_of_lines(a_pipe_that_nobody_empties_stops_nobody),
        test_of_lines(lines_below_the_level_are_dropped),      test_of_lines(words_cannot_forge_a_second_line),
        test_of_lines(a_line_too_long_is_cut_and_still_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
