/* Conversations render as the models' authors' library renders them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/chat_template.h"
#include "tests/support/vectors.h"

static struct chat_template *open_template(const char *text)
{
    struct chat_template *t;
    struct why why;
    if (chat_template_open(&t, text, strlen(text), &why) != OK)
        fail_msg("%s", why.text);
    return t;
}

static void assert_renders(const char *template, const char *variables, const char *expected)
{
    struct chat_template *t = open_template(template);
    json_t *json = json_loads(variables, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    char *text;
    size_t length;
    struct why why;
    if (chat_template_render(t, json, &(struct tm){.tm_year = 125, .tm_mon = 2, .tm_mday = 4, .tm_hour = 14}, &text,
                             &length, &why) != OK)
        fail_msg("%s", why.text);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(text, expected, length);
    free(text);
    json_decref(json);
    chat_template_close(t);
}

static enum err render_error(const char *template, const char *variables, struct why *why)
{
    struct chat_template *t = open_template(template);
    json_t *json = json_loads(variables, 0, NULL);
    assert_non_null(json);
    char *text;
    size_t length;
    enum err err = chat_template_render(t, json, NULL, &text, &length, why);
    assert_true((err == OK) == (text != NULL));
    free(text);
    json_decref(json);
    chat_template_close(t);
    return err;
}

/* What a case expects: an output, a refusal in the template's words, or that Python stumbles (where we may not). */
static void check_case(const struct chat_template *t, const json_t *file, const json_t *item, const struct tm *now)
{
    json_t *variables = json_object();
    static const char *const names[] = {"messages", "tools", "documents", "add_generation_prompt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        json_object_set(variables, names[i], json_object_get(item, names[i]));
    json_object_update(variables, json_object_get(file, "special"));
    const json_t *output = json_object_get(item, "output");
    const json_t *error = json_object_get(item, "error");
    char *text;
    size_t length;
    struct why why;
    enum err err = chat_template_render(t, variables, now, &text, &length, &why);
    if (output) {
        if (err != OK)
            fail_msg("%s", why.text);
        assert_int_equal(length, json_string_length(output));
        assert_memory_equal(text, json_string_value(output), length);
    } else if (strcmp(json_string_value(json_object_get(error, "kind")), "raise_exception") == 0) {
        assert_int_equal(err, ERR_INVALID);
        assert_string_equal(why.text, json_string_value(json_object_get(error, "message")));
    }
    free(text);
    json_decref(variables);
}

static void check_file(const char *name)
{
    json_t *file = vectors_json(name);
    struct tm now = {0};
    assert_non_null(strptime(json_string_value(json_object_get(file, "now")), "%Y-%m-%dT%H:%M:%S", &now));
    struct chat_template *t = open_template(json_string_value(json_object_get(file, "template")));
    json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(t, file, json_array_get(cases, i), &now);
    chat_template_close(t);
    json_decref(file);
}

#define VECTOR_TEST(name, path)    \
    static void name(void **state) \
    {                              \
        (void)state;               \
        check_file("chat/" path);  \
    }
VECTOR_TEST(smollm2_renders_as_published, "SmolLM2-135M-Instruct.json")
VECTOR_TEST(llama_3_1_renders_as_published, "meta-llama-Llama-3.1-8B-Instruct.json")
VECTOR_TEST(qwen_2_5_renders_as_published, "Qwen-Qwen2.5-7B-Instruct.json")
VECTOR_TEST(qwen_3_renders_as_published, "Qwen-Qwen3-0.6B.json")
VECTOR_TEST(gemma_2_renders_as_published, "google-gemma-2-2b-it.json")
VECTOR_TEST(mistral_nemo_renders_as_published, "mistralai-Mistral-Nemo-Instruct-2407.json")
VECTOR_TEST(phi_3_5_renders_as_published, "microsoft-Phi-3.5-mini-instruct.json")
VECTOR_TEST(deepseek_r1_renders_as_published, "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.json")
VECTOR_TEST(command_r7b_renders_as_published, "CohereForAI-c4ai-command-r7b-12-2024-tool_use.json")

static void tojson_writes_as_python_does(void **state)
{
    (void)state;
    static const char variables[] =
        "{\"v\": {\"b\": [1, 2.0, true, null], \"a\": \"\\u00e9<&'\\\"\\n\\u0001\", \"e\": [], \"o\": {}}}";
    assert_renders("{{ v|tojson }}", variables,
                   "{\"b\": [1, 2.0, true, null], \"a\": \"\xC3\xA9<&'\\\"\\n\\u0001\", \"e\": [], \"o\": {}}");
    assert_renders("{{ v.b|tojson(indent=2) }}", variables, "[\n  1,\n  2.0,\n  true,\n  null\n]");
    assert_renders("{{ v.e|tojson(indent=2) }}", variables, "[]");
    assert_renders("{{ v.a|tojson(ensure_ascii=True) }}", variables, "\"\\u00e9<&'\\\"\\n\\u0001\"");
    assert_renders("{{ v.b|tojson(separators=(',', ':')) }}", variables, "[1,2.0,true,null]");
    assert_renders("{{ {'z': 1, 'a': 1e20}|tojson(sort_keys=true) }}", variables, "{\"a\": 1e+20, \"z\": 1}");
}

static void values_print_as_python_prints_them(void **state)
{
    (void)state;
    assert_renders("{{ n }} {{ t }} {{ f }} {{ u }}|{{ l }}",
                   "{\"n\": null, \"t\": true, \"f\": 1.5, \"l\": [1, \"a\"]}", "None True 1.5 |[1, 'a']");
}

static void null_is_defined_and_absent_is_not(void **state)
{
    (void)state;
    assert_renders("{{ a is defined }} {{ a is none }} {{ b is defined }}", "{\"a\": null}", "True True False");
}

static void block_tags_take_their_line_with_them(void **state)
{
    (void)state;
    assert_renders("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "{}", "a\n  b\nc");
}

static void generation_blocks_print_their_body(void **state)
{
    (void)state;
    assert_renders("<{% generation %}{{ x }}{% endgeneration %}>", "{\"x\": \"{% generation %}\"}",
                   "<{% generation %}>");
}

static void strftime_now_sees_the_time_given(void **state)
{
    (void)state;
    assert_renders("{{ strftime_now('%d %b %Y %A %j') }}", "{}", "04 Mar 2025 Tuesday 063");
}

static void text_of_a_conversation_is_never_read_as_a_template(void **state)
{
    (void)state;
    assert_renders("{{ m }}", "{\"m\": \"{{ 1 + 1 }}{% raise %}\"}", "{{ 1 + 1 }}{% raise %}");
}

static void a_refusal_is_the_templates_own_sentence(void **state)
{
    (void)state;
    struct why why;
    assert_int_equal(
        render_error("{% macro m() %}{{ raise_exception('no ' + 'system') }}{% endmacro %}{{ m() }}", "{}", &why),
        ERR_INVALID);
    assert_string_equal(why.text, "no system");
}

static void what_cannot_be_done_is_told_from_a_refusal(void **state)
{
    (void)state;
    struct why why;
    assert_int_equal(render_error("{{ 'a' + x }}", "{\"x\": null}", &why), ERR_UNSUPPORTED);
    assert_int_equal(render_error("{{ x.nothing() }}", "{\"x\": \"a\"}", &why), ERR_UNSUPPORTED);
    assert_int_equal(render_error("{% include 'x' %}", "{}", &why), ERR_UNSUPPORTED);
}

static void a_template_that_cannot_be_read_is_refused_with_its_line(void **state)
{
    (void)state;
    struct chat_template *t;
    struct why why;
    static const char broken[] = "fine\n{% if %}";
    assert_int_equal(chat_template_open(&t, broken, sizeof broken - 1, &why), ERR_FORMAT);
    assert_null(t);
    assert_non_null(strstr(why.text, ":2"));
    assert_int_equal(chat_template_open(&t, "\xFF", 1, &why), ERR_FORMAT);
}

static void endless_work_ends(void **state)
{
    (void)state;
    struct why why;
    static const char loop[] =
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    assert_int_equal(render_error(loop, "{}", &why), ERR_FULL);
    static const char flood[] = "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x }}{% endfor %}";
    assert_int_equal(render_error(flood, "{}", &why), ERR_FULL);
    assert_int_equal(render_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", &why), ERR_UNSUPPORTED);
}

static void deep_nesting_is_refused_and_does_not_crash(void **state)
{
    (void)state;
    enum { DEPTH = 20000 };
    char *text = malloc(DEPTH * 16 + 64);
    assert_non_null(text);
    struct chat_template *t;
    struct why why;
    size_t length = 0;
    for (int i = 0; i < DEPTH; i++)
        length += (size_t)sprintf(text + length, "{%% if x %%}");
    assert_int_equal(chat_template_open(&t, text, length, &why), ERR_FORMAT);
    length = (size_t)sprintf(text, "{{ ");
    memset(text + length, '(', DEPTH);
    assert_int_equal(chat_template_open(&t, text, length + DEPTH, &why), ERR_FORMAT);
    free(text);
}

static void a_list_nested_in_itself_as_often_as_steps_allow_does_not_crash(void **state)
{
    (void)state;
    static const char nest[] =
        "{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% for b in range(NNN) %}{% set ns.x = [ns.x] %}"
        "{% endfor %}{% endfor %}{{ ns.x|string|length }}";
    char text[sizeof nest];
    struct why why;
    memcpy(text, nest, sizeof nest);
    memcpy(strstr(text, "NNN"), " 80", 3);
    assert_renders(text, "{}", "1599842"); /* as many brackets of both kinds */
    memcpy(strstr(text, " 80"), "999", 3);
    assert_int_equal(render_error(text, "{}", &why), ERR_FULL);
}

static void *render_often(void *argument)
{
    json_t *json = json_pack("{s:s}", "x", "y");
    for (int i = 0; i < 200; i++) {
        char *text;
        size_t length;
        assert_int_equal(chat_template_render(argument, json, NULL, &text, &length, NULL), OK);
        assert_int_equal(length, 3);
        free(text);
    }
    json_decref(json);
    return NULL;
}

static void threads_render_one_template_at_once(void **state)
{
    (void)state;
    struct chat_template *t = open_template("{% for i in range(3) %}{{ x }}{% endfor %}");
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, t), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    chat_template_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smollm2_renders_as_published),
        cmocka_unit_test(llama_3_1_renders_as_published),
        cmocka_unit_test(qwen_2_5_renders_as_published),
        cmocka_unit_test(qwen_3_renders_as_published),
        cmocka_unit_test(gemma_2_renders_as_published),
        cmocka_unit_test(mistral_nemo_renders_as_published),
        cmocka_unit_test(phi_3_5_renders_as_published),
        cmocka_unit_test(deepseek_r1_renders_as_published),
        cmocka_unit_test(command_r7b_renders_as_published),
        cmocka_unit_test(tojson_writes_as_python_does),
        cmocka_unit_test(values_print_as_python_prints_them),
        cmocka_unit_test(null_is_defined_and_absent_is_not),
        cmocka_unit_test(block_tags_take_their_line_with_them),
        cmocka_unit_test(generation_blocks_print_their_body),
        cmocka_unit_test(strftime_now_sees_the_time_given),
        cmocka_unit_test(text_of_a_conversation_is_never_read_as_a_template),
        cmocka_unit_test(a_refusal_is_the_templates_own_sentence),
        cmocka_unit_test(what_cannot_be_done_is_told_from_a_refusal),
        cmocka_unit_test(a_template_that_cannot_be_read_is_refused_with_its_line),
        cmocka_unit_test(endless_work_ends),
        cmocka_unit_test(deep_nesting_is_refused_and_does_not_crash),
        cmocka_unit_test(a_list_nested_in_itself_as_often_as_steps_allow_does_not_crash),
        cmocka_unit_test(threads_render_one_template_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
