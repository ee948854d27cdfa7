/* quire tokenize: texts in, ids out, and a sentence and an exit code for everything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/command.h"
#include "tests/support/child_command.h"
#include "tests/support/vectors.h"

static char model[512];

static struct command_result run(const char *option, const char *input)
{
    vectors_path("tokenizers/ggml-vocab-gpt-2.gguf", model);
    return child_command(command_tokenize, (const char *[]){"tokenize", "-m", model, option, NULL}, input);
}

static void texts_become_ids_and_nothing_is_added(void **state)
{
    (void)state;
    struct command_result r = run(NULL, "[\"Hello world\", \"\", \"a\\u0000\"]");
    assert_string_equal(r.out, "[[15496,995],[],[64,188]]\n");
    assert_int_equal(r.exit_code, 0);
}

static void control_tokens_are_recognised_on_demand(void **state)
{
    (void)state;
    assert_string_equal(run("--special", "[\"<|endoftext|>\"]").out, "[[50256]]\n");
    assert_string_equal(run(NULL, "[\"<|endoftext|>\"]").out, "[[27,91,437,1659,5239,91,29]]\n");
}

static void what_is_no_array_of_strings_is_refused(void **state)
{
    (void)state;
    static const char *const inputs[] = {"", "[", "{}", "\"a\"", "[1]", "[\"a\", null]", "{\"a\": 1, \"a\": 2}"};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        struct command_result r = run(NULL, inputs[i]);
        assert_int_equal(r.exit_code, 1);
        assert_string_equal(r.out, "");
        assert_non_null(strstr(r.error, "standard input"));
    }
}

static void a_model_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct command_result r =
        child_command(command_tokenize, (const char *[]){"tokenize", "-m", "/no/such.gguf", NULL}, "[]");
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.error, "/no/such.gguf"));
}

static void wrong_usage_is_2_and_help_is_0(void **state)
{
    (void)state;
    assert_int_equal(child_command(command_tokenize, (const char *[]){"tokenize", NULL}, "[]").exit_code, 2);
    assert_int_equal(child_command(command_tokenize, (const char *[]){"tokenize", "--odd", NULL}, "[]").exit_code, 2);
    struct command_result r = child_command(command_tokenize, (const char *[]){"tokenize", "--help", NULL}, "");
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "usage: quire tokenize"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_become_ids_and_nothing_is_added),
        cmocka_unit_test(control_tokens_are_recognised_on_demand),
        cmocka_unit_test(what_is_no_array_of_strings_is_refused),
        cmocka_unit_test(a_model_that_is_not_there_is_named),
        cmocka_unit_test(wrong_usage_is_2_and_help_is_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
