/* test_api_error: the error object, whole and in a stream. */
#include "coordinator/api_error.h"
#include "tests/support/api_rig.h"

static const char *member(const json_t *root, const char *name)
{
    return json_string_value(json_object_get(json_object_get(root, "error"), name));
}

static void an_error_has_the_four_members_of_the_api(void **state)
{
    struct api_error e;
    struct text out = {0};
    (void)state;
    assert_int_equal(api_refuse(&e, 400, "top_p", "top_p must be %d \"or\" less", 1), ERR_INVALID);
    api_error_write(&out, &e);
    json_t *root = api_rig_json(&out);
    assert_string_equal(member(root, "message"), "top_p must be 1 \"or\" less");
    assert_string_equal(member(root, "type"), "invalid_request_error");
    assert_string_equal(member(root, "param"), "top_p");
    assert_true(json_is_null(json_object_get(json_object_get(root, "error"), "code")));
    assert_int_equal(json_object_size(json_object_get(root, "error")), 4);
    json_decref(root);
    text_fini(&out);
}

static void the_type_follows_from_the_status(void **state)
{
    static const struct {
        int status;
        const char *type;
    } cases[] = {{401, "authentication_error"},  {404, "not_found_error"},       {405, "invalid_request_error"},
                 {413, "invalid_request_error"}, {415, "invalid_request_error"}, {429, "rate_limit_error"},
                 {500, "server_error"},          {503, "unavailable_error"}};
    struct text out = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_error e;
        assert_int_equal(api_refuse(&e, cases[i].status, NULL, "no"), ERR_UNSUPPORTED);
        api_error_write(&out, &e);
        json_t *root = api_rig_json(&out);
        assert_string_equal(member(root, "type"), cases[i].type);
        assert_null(member(root, "param"));
        json_decref(root);
    }
    text_fini(&out);
}

static void an_overflow_says_both_numbers(void **state)
{
    struct text out = {0};
    struct api_error e = {
        .status = 400, .code = "context_length_exceeded", .message = "long", .prompt_tokens = 9, .context_tokens = 8};
    (void)state;
    api_error_write(&out, &e);
    json_t *root = api_rig_json(&out);
    assert_string_equal(member(root, "code"), "context_length_exceeded");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "error"), "n_prompt_tokens")), 9);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "error"), "n_ctx")), 8);
    json_decref(root);
    text_fini(&out);
}

static void in_a_stream_it_is_one_event(void **state)
{
    struct text out = {0};
    struct api_error e;
    (void)state;
    api_refuse(&e, 500, NULL, "two\nlines and a bad byte \xFF");
    api_error_write_event(&out, &e);
    assert_memory_equal(out.at, "data: {", 7);
    assert_memory_equal(out.at + out.length - 3, "}\n\n", 3);
    assert_ptr_equal(memchr(out.at, '\n', out.length), out.at + out.length - 2);
    text_fini(&out);
}

static void a_long_message_is_cut_and_still_valid(void **state)
{
    struct text out = {0};
    struct api_error e;
    char words[1000];
    (void)state;
    memset(words, 0xC3, sizeof words);
    words[sizeof words - 1] = '\0';
    api_refuse(&e, 400, words, "%s", words);
    api_error_write(&out, &e);
    json_decref(api_rig_json(&out));
    text_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_has_the_four_members_of_the_api),
        cmocka_unit_test(the_type_follows_from_the_status),
        cmocka_unit_test(an_overflow_says_both_numbers),
        cmocka_unit_test(in_a_stream_it_is_one_event),
        cmocka_unit_test(a_long_message_is_cut_and_still_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
