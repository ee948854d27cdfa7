/* quire template: a conversation in, the model's text out, and the template's own refusal on stderr. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/command.h"
#include "tests/support/child_command.h"
#include "tests/support/vectors.h"

static struct command_result run_file(const char *template, const char *input)
{
    char path[] = "/tmp/quire-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, template, strlen(template)), strlen(template));
    close(fd);
    struct command_result r =
        child_command(command_template, (const char *[]){"template", "--file", path, NULL}, input);
    unlink(path);
    return r;
}

static void what_is_given_is_what_the_template_sees(void **state)
{
    (void)state;
    struct command_result r =
        run_file("{{ bos_token }}{{ messages[0].content }}{{ tools is none }}{{ documents is defined }}"
                 "{{ strftime_now('%Y') }}",
                 "{\"messages\": [{\"content\": \"hi\"}], \"tools\": null, \"special\": {\"bos_token\": "
                 "\"<s>\"}, \"now\": \"2025-03-04T14:05:09\"}");
    assert_string_equal(r.out, "<s>hiTrueFalse2025");
    assert_int_equal(r.exit_code, 0);
}

static void the_models_own_template_and_tokens_are_used(void **state)
{
    (void)state;
    char model[512];
    vectors_path("models/smollm2.gguf", model);
    struct command_result r = child_command(command_template, (const char *[]){"template", "-m", model, NULL},
                                            "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], "
                                            "\"add_generation_prompt\": true}");
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"));
}

static void a_refusal_of_the_template_is_told(void **state)
{
    (void)state;
    struct command_result r = run_file("{{ raise_exception('no system role') }}", "{}");
    assert_int_equal(r.exit_code, 1);
    assert_string_equal(r.out, "");
    assert_string_equal(r.error, "quire template: no system role\n");
}

static void odd_input_is_refused(void **state)
{
    (void)state;
    static const char *const inputs[] = {"", "[]", "{\"now\": 5}", "{\"now\": \"2025\"}", "{\"messages\": "};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        assert_int_equal(run_file("x", inputs[i]).exit_code, 1);
    assert_int_equal(run_file("{% if %}", "{}").exit_code, 1);
}

static void wrong_usage_is_2_and_help_is_0(void **state)
{
    (void)state;
    assert_int_equal(child_command(command_template, (const char *[]){"template", NULL}, "{}").exit_code, 2);
    assert_int_equal(
        child_command(command_template, (const char *[]){"template", "--file", "/no/such", NULL}, "{}").exit_code, 1);
    struct command_result r = child_command(command_template, (const char *[]){"template", "--help", NULL}, "");
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "usage: quire template"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_given_is_what_the_template_sees),
        cmocka_unit_test(the_models_own_template_and_tokens_are_used),
        cmocka_unit_test(a_refusal_of_the_template_is_told),
        cmocka_unit_test(odd_input_is_refused),
        cmocka_unit_test(wrong_usage_is_2_and_help_is_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
