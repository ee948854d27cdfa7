/* test_api_unbuilt: what is refused by name and what asks for nothing. */
#include <stdio.h>

#include "coordinator/api_request_internal.h"
#include "tests/support/api_rig.h"

static enum err ask(enum api_kind kind, const char *member, struct api_error *e)
{
    char body[256];
    struct api_fields f;
    json_t *root;
    snprintf(body, sizeof body, "{%s}", member);
    *e = (struct api_error){0};
    assert_int_equal(api_fields_open(&f, body, strlen(body), &root, e), OK);
    enum err err = api_refuse_unbuilt(&f, kind);
    json_decref(root);
    return err;
}

static void a_documented_field_that_is_not_built_is_refused_by_name(void **state)
{
    static const struct {
        const char *member, *param;
    } cases[] = {
        {"\"tools\":[{\"type\":\"function\"}]", "tools"},
        {"\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"auto\"", "tools"},
        {"\"tool_choice\":\"required\"", "tool_choice"},
        {"\"tool_choice\":{\"type\":\"function\"}", "tool_choice"},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
        {"\"response_format\":{\"type\":\"json_schema\"}", "response_format"},
        {"\"response_format\":\"text\"", "response_format"},
        {"\"functions\":[{}]", "functions"},
        {"\"best_of\":2", "best_of"},
        {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
        {"\"prediction\":{\"type\":\"content\"}", "prediction"},
        {"\"skip_special_tokens\":false", "skip_special_tokens"},
        {"\"structured_outputs\":{\"json\":{}}", "structured_outputs"},
        {"\"guided_regex\":\"a+\"", "guided_regex"},
        {"\"chat_template\":\"x\"", "chat_template"},
        {"\"mirostat\":2", "mirostat"},
        {"\"grammar\":\"root ::= x\"", "grammar"},
    };
    struct api_error e;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ask(API_CHAT, cases[i].member, &e), ERR_INVALID);
        assert_int_equal(e.status, 400);
        assert_string_equal(e.param, cases[i].param);
    }
    assert_int_equal(ask(API_COMPLETION, "\"suffix\":\"x\"", &e), ERR_INVALID);
    assert_string_equal(e.param, "suffix");
}

static void a_value_that_asks_for_nothing_is_good(void **state)
{
    static const char *const members[] = {
        "\"tools\":null",
        "\"tools\":[]",
        "\"tools\":[{}],\"tool_choice\":\"none\"",
        "\"tool_choice\":\"auto\"",
        "\"response_format\":{\"type\":\"text\"}",
        "\"response_format\":null",
        "\"best_of\":1",
        "\"best_of\":null",
        "\"modalities\":[\"text\"]",
        "\"function_call\":\"none\"",
        "\"typical_p\":1.0",
        "\"mirostat\":0",
        "\"use_beam_search\":false",
        "\"skip_special_tokens\":true",
        "\"grammar\":\"\"",
        "\"suffix\":\"\"",
        "\"user\":\"me\",\"metadata\":{\"a\":1},\"store\":true,\"service_tier\":\"auto\"",
        "\"nobody_documents_this\":[1,2,3]",
    };
    struct api_error e;
    (void)state;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        for (enum api_kind kind = API_CHAT; kind <= API_COMPLETION; kind++)
            if (ask(kind, members[i], &e) != OK)
                fail_msg("%s: %s", members[i], e.message);
}

static void a_field_of_the_other_route_is_nobodys(void **state)
{
    struct api_error e;
    (void)state;
    assert_int_equal(ask(API_CHAT, "\"suffix\":\"x\"", &e), OK);
    assert_int_equal(ask(API_COMPLETION, "\"tools\":[{}]", &e), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_documented_field_that_is_not_built_is_refused_by_name),
        cmocka_unit_test(a_value_that_asks_for_nothing_is_good),
        cmocka_unit_test(a_field_of_the_other_route_is_nobodys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
