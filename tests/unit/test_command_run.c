/* quire run: its command line. What it says and hears is tested against a real server by tests/api/test_command_run.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/command.h"
#include "tests/support/child_command.h"

#define RUN(input, ...) child_command(command_run, (const char *[]){"run", __VA_ARGS__, NULL}, input)

/* Nothing on stdout and one sentence on stderr. */
static void check_failed(struct command_result r, int code, const char *word)
{
    assert_int_equal(r.exit_code, code);
    assert_string_equal(r.out, "");
    assert_ptr_equal(strstr(r.error, "quire run: "), r.error);
    assert_non_null(strstr(r.error, word));
    assert_ptr_equal(strchr(r.error, '\n'), r.error + strlen(r.error) - 1);
}

static void wrong_usage_is_2_and_says_what_is_wrong(void **state)
{
    (void)state;
    check_failed(RUN("", "hello"), 2, "-m FILE");
    check_failed(RUN("", "-m", "x.gguf", "two", "words"), 2, "quotes");
    check_failed(RUN("", "-m", "x.gguf", "two", "--", "words"), 2, "quotes");
    check_failed(RUN("", "-m", "x.gguf", "--", "two", "words"), 2, "--");
    check_failed(RUN("", "-m", "x.gguf", "--temperature", "hot", "x"), 2, "hot");
    check_failed(RUN("", "-m", "x.gguf", "--temperature=", "x"), 2, "no number");
    check_failed(RUN("", "-m", "x.gguf", "--temperature", "nan", "x"), 2, "nan");
    check_failed(RUN("", "-m", "x.gguf", "--max-tokens", "1.5", "x"), 2, "1.5");
    check_failed(RUN("", "-m", "x.gguf", "--seed", "99999999999999999999", "x"), 2, "whole");
    check_failed(RUN("", "-m", "x.gguf", "--seed"), 2, "seed");
    check_failed(RUN("", "-m", "x.gguf", "--seeds", "5", "x"), 2, "seeds");
    check_failed(RUN("", "--connect", "127.0.0.1:8080", "x"), 2, "http://");
    check_failed(RUN("", "--connect=https://127.0.0.1", "x"), 2, "encrypted");
}

static void help_is_0_and_names_each_option(void **state)
{
    (void)state;
    struct command_result r = RUN("", "--help");
    assert_int_equal(r.exit_code, 0);
    static const char *const words[] = {"--connect", "--api-key",    "--system", "--temperature",
                                        "--top-p",   "--max-tokens", "--seed",   "--raw"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        assert_non_null(strstr(r.out, words[i]));
}

static void a_server_that_is_not_there_is_1_and_named(void **state)
{
    (void)state;
    check_failed(RUN("", "--connect", "http://127.0.0.1:1", "hello"), 1, "127.0.0.1:1");
}

static void a_prompt_that_is_no_text_is_1(void **state)
{
    (void)state;
    check_failed(RUN("", "--connect", "http://127.0.0.1:1", "--raw"), 1, "no prompt");
    check_failed(RUN("\n", "--connect", "http://127.0.0.1:1", "--raw"), 1, "no prompt");
    check_failed(RUN("", "--connect", "http://127.0.0.1:1", "--raw", "\xff"), 1, "UTF-8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_is_2_and_says_what_is_wrong),
        cmocka_unit_test(help_is_0_and_names_each_option),
        cmocka_unit_test(a_server_that_is_not_there_is_1_and_named),
        cmocka_unit_test(a_prompt_that_is_no_text_is_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
