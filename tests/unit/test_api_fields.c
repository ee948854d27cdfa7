/* test_api_fields: kinds and bounds of single members. */
#include <stdio.h>

#include "coordinator/api_fields.h"
#include "tests/support/api_rig.h"

static struct api_error error;

/* Fields of a body that must be good; the root lives until the next call. */
static struct api_fields fields_of(const char *body)
{
    static json_t *root;
    struct api_fields f;
    json_decref(root);
    root = NULL;
    if (!body)
        return (struct api_fields){0};
    error = (struct api_error){0};
    assert_int_equal(api_fields_open(&f, body, strlen(body), &root, &error), OK);
    return f;
}

static void absent_and_null_leave_the_value_alone(void **state)
{
    struct api_fields f = fields_of("{\"x\":null}");
    bool b = true;
    int64_t i = 7;
    float d = 0.5f;
    const char *s = "kept";
    size_t length = 4;
    (void)state;
    for (int absent = 0; absent < 2; absent++) {
        const char *name = absent ? "nowhere" : "x";
        assert_null(api_field(&f, name));
        assert_int_equal(api_field_bool(&f, name, &b), OK);
        assert_int_equal(api_field_int(&f, name, 0, 1, &i), OK);
        assert_int_equal(api_field_float(&f, name, 0, 1, &d), OK);
        assert_int_equal(api_field_string(&f, name, &s, &length), OK);
    }
    assert_true(b && i == 7 && d == 0.5f && strcmp(s, "kept") == 0);
}

static void bounds_belong_to_the_range(void **state)
{
    struct api_fields f = fields_of("{\"low\":-1,\"high\":3,\"below\":-2,\"above\":4}");
    int64_t i;
    float d;
    (void)state;
    assert_int_equal(api_field_int(&f, "low", -1, 3, &i), OK);
    assert_int_equal(api_field_int(&f, "high", -1, 3, &i), OK);
    assert_int_equal(api_field_float(&f, "high", -1, 3, &d), OK);
    assert_int_equal(api_field_int(&f, "below", -1, 3, &i), ERR_INVALID);
    assert_string_equal(error.message, "below must be from -1 to 3, not -2");
    assert_int_equal(api_field_float(&f, "above", -1, 3, &d), ERR_INVALID);
    assert_string_equal(error.message, "above must be from -1 to 3, not 4");
    assert_string_equal(error.param, "above");
}

static void each_reader_refuses_every_other_kind(void **state)
{
    static const char *const values[] = {"true", "3", "1.5", "\"s\"", "[]", "{}"};
    (void)state;
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        char body[64];
        bool b;
        int64_t i;
        float d;
        const char *s;
        size_t length;
        struct api_fields inner;
        snprintf(body, sizeof body, "{\"x\":%s}", values[v]);
        struct api_fields f = fields_of(body);
        assert_int_equal(api_field_bool(&f, "x", &b), v == 0 ? OK : ERR_INVALID);
        assert_int_equal(api_field_int(&f, "x", 0, 9, &i), v == 1 ? OK : ERR_INVALID);
        assert_int_equal(api_field_float(&f, "x", 0, 9, &d), v == 1 || v == 2 ? OK : ERR_INVALID);
        assert_int_equal(api_field_string(&f, "x", &s, &length), v == 3 ? OK : ERR_INVALID);
        assert_int_equal(api_field_object(&f, "x", &inner), v == 5 ? OK : ERR_INVALID);
    }
}

static void a_member_within_a_member_is_named_with_both(void **state)
{
    struct api_fields f = fields_of("{\"stream_options\":{\"include_usage\":3}}"), inner;
    bool b;
    (void)state;
    assert_int_equal(api_field_object(&f, "stream_options", &inner), OK);
    assert_int_equal(api_field_bool(&inner, "include_usage", &b), ERR_INVALID);
    assert_string_equal(error.param, "stream_options.include_usage");
}

static void a_body_that_is_no_object_becomes_the_answer(void **state)
{
    struct api_fields f;
    json_t *root;
    (void)state;
    assert_int_equal(api_fields_open(&f, "[1]", 3, &root, &error), ERR_INVALID);
    assert_int_equal(error.status, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_and_null_leave_the_value_alone),
        cmocka_unit_test(bounds_belong_to_the_range),
        cmocka_unit_test(each_reader_refuses_every_other_kind),
        cmocka_unit_test(a_member_within_a_member_is_named_with_both),
        cmocka_unit_test(a_body_that_is_no_object_becomes_the_answer),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fields_of(NULL);
    return failed;
}
