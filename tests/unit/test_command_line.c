/* The worker's command line: what it takes and what it refuses, with the sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/worker.h"

enum { WORDS_MAX = 64 };

static enum err parse(struct worker_options *o, struct why *why, const char *line)
{
    static char text[1024];
    char *argv[WORDS_MAX] = {"quire-worker"};
    int argc = 1;
    strcpy(text, line);
    for (char *word = strtok(text, " "); word && argc < WORDS_MAX - 1; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "''") == 0 ? "" : word;
    return worker_options_parse(o, argc, argv, why);
}

static void every_option_lands_in_its_place(void **state)
{
    (void)state;
    struct worker_options o;
    struct why why;
    assert_int_equal(
        parse(
            &o, &why,
            "--name n --slot 3 --generation 7 --shm-dir /d --channel /c --kernels avx2 --group 1 "
            "--cores 4 --parent 99 --log-level warn --no-pin --prefill-math blas --activations f32 --model m.gguf --no-sandbox "
            "--quantize q8_0 --override a=1,b=2"),
        OK);
    assert_string_equal(o.name, "n");
    assert_string_equal(o.shm_dir, "/d");
    assert_string_equal(o.channel, "/c");
    assert_string_equal(o.kernels, "avx2");
    assert_int_equal(o.slot, 3);
    assert_int_equal(o.generation, 7);
    assert_int_equal(o.group, 1);
    assert_int_equal(o.cores, 4);
    assert_int_equal(o.parent, 99);
    assert_int_equal(o.log_level, LOG_WARN);
    assert_false(o.pin);
    assert_false(o.sandbox);
    assert_string_equal(o.model, "m.gguf");
    assert_string_equal(o.quantize, "q8_0");
    assert_string_equal(o.overrides, "a=1,b=2");
    assert_true(o.prefill_blas);
    assert_true(o.float_activations);
}

static void what_is_not_said_has_its_default(void **state)
{
    (void)state;
    struct worker_options o;
    struct why why;
    assert_int_equal(parse(&o, &why, "--name n --slot 0 --generation 1 --shm-dir '' --kernels ''"), OK);
    assert_string_equal(o.kernels, "");
    assert_null(o.channel);
    assert_int_equal(o.group, WORKER_GROUP_NONE);
    assert_int_equal(o.cores, 0);
    assert_int_equal(o.parent, 0);
    assert_int_equal(o.log_level, LOG_INFO);
    assert_true(o.pin);
    assert_true(o.sandbox);
    assert_null(o.model);
    assert_false(o.prefill_blas);
    assert_false(o.float_activations);
}

static void a_wrong_line_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *line, *said;
    } wrong[] = {
        {"--slot 0 --generation 1", "--name"},
        {"--name n --slot 0", "required"},
        {"--name n --slot 0 --generation 0", "required"},
        {"--name n --generation 1", "required"},
        {"--name n --slot -1 --generation 1", "--slot"},
        {"--name n --slot 1x --generation 1", "--slot"},
        {"--name n --slot 4294967295 --generation 1", "--slot"},
        {"--name n --slot 99999999999999999999 --generation 1", "--slot"},
        {"--name n --slot 1 --generation 1 --parent 2147483648", "--parent"},
        {"--name n --slot 1 --generation 1 --log-level loud", "--log-level"},
        {"--name n --slot 1 --generation 1 --prefill-math fast", "--prefill-math"},
        {"--name n --slot 1 --generation 1 --activations int4", "--activations"},
        {"--name n --slot 1 --generation 1 --wings", "--wings"},
        {"--name n --slot 1 --generation", "--generation"},
        {"--name n --slot 1 --generation 1 more", "more"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct worker_options o;
        struct why why;
        assert_int_equal(parse(&o, &why, wrong[i].line), ERR_INVALID);
        if (!strstr(why.text, wrong[i].said))
            fail_msg("\"%s\" gave \"%s\"", wrong[i].line, why.text);
    }
}

static void the_usage_names_every_option(void **state)
{
    (void)state;
    static const char *const options[] = {"--name",     "--slot",    "--generation",   "--shm-dir",     "--channel",
                                          "--kernels",  "--group",   "--cores",        "--parent",      "--log-level",
                                          "--no-pin",   "--model",   "--prefill-math", "--activations", "--no-sandbox",
                                          "--quantize", "--override"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        assert_non_null(strstr(worker_usage(), options[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_lands_in_its_place),
        cmocka_unit_test(what_is_not_said_has_its_default),
        cmocka_unit_test(a_wrong_line_is_refused_by_name),
        cmocka_unit_test(the_usage_names_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
