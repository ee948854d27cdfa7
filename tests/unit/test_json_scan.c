/* test_json_scan: limits and errors of a body, with the member they lie in. */
#include "coordinator/json_scan.h"
#include "tests/support/api_rig.h"

static json_t *parsed;

static enum err parse(const char *body, struct json_fault *fault)
{
    json_decref(parsed);
    return json_body_parse(body, strlen(body), &parsed, fault);
}

static void refused(const char *body, const char *field)
{
    struct json_fault fault;
    if (parse(body, &fault) == OK)
        fail_msg("%.60s was not refused", body);
    if (strcmp(fault.field, field) != 0)
        fail_msg("%.60s: field \"%s\", expected \"%s\"", body, fault.field, field);
    assert_true(strlen(fault.text) > 10);
    assert_true(fault.offset <= strlen(body));
}

static char *repeated(const char *before, const char *unit, size_t count, const char *after)
{
    size_t unit_bytes = strlen(unit);
    char *text = malloc(strlen(before) + unit_bytes * count + strlen(after) + 1), *at = stpcpy(text, before);
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, unit);
    strcpy(at, after);
    return text;
}

static void plain_objects_are_parsed(void **state)
{
    struct json_fault fault;
    (void)state;
    assert_int_equal(parse("{\"a\":[1,2,{\"b\":\"x\\u0000y\"}],\"c\":1e3}", &fault), OK);
    assert_int_equal(json_string_length(json_object_get(json_array_get(json_object_get(parsed, "a"), 2), "b")), 3);
}

static void what_is_not_json_is_refused_with_its_field(void **state)
{
    (void)state;
    refused("", "");
    refused("{", "");
    refused("[]", "");
    refused("{}{}", "");
    refused("3", "");
    refused("{\"temperature\":NaN}", "temperature");
    refused("{\"a\":1,\"max_tokens\":99999999999999999999999}", "max_tokens");
    refused("{\"top_p\":1e999,\"b\":2}", "top_p");
    refused("{\"a\":{\"b\":[01]}}", "a");
    refused("{\"a\":\"\xFF\"}", "a");
    refused("{\"a\":\"\\ud800\"}", "a");
    refused("{\"a\":'x'}", "a");
    refused("{\"a\":1,}", "");
}

static void a_key_that_comes_twice_is_named(void **state)
{
    (void)state;
    refused("{\"messages\":[],\"n\":1,\"messages\":[]}", "messages");
}

static void depth_is_bounded(void **state)
{
    struct json_fault fault;
    char *body = repeated("{\"a\":", "[", 100000, "");
    (void)state;
    refused(body, "a");
    free(body);
    char *open = repeated("{\"a\":", "[", JSON_MOST_DEPTH - 1, ""),
         *whole = repeated(open, "]", JSON_MOST_DEPTH - 1, "}");
    assert_int_equal(parse(whole, &fault), OK);
    free(open);
    free(whole);
}

static void the_number_of_values_is_bounded(void **state)
{
    struct json_fault fault;
    char *body = repeated("{\"a\":[", "{},", 300000, "1]}");
    (void)state;
    refused(body, "a");
    free(body);
    body = repeated("{\"a\":[", "1,", JSON_MOST_VALUES - 4, "1]}"); /* with the object, the key and the array */
    assert_int_equal(parse(body, &fault), OK);
    free(body);
}

static void names_are_bounded(void **state)
{
    char *body = repeated("{\"", "k", JSON_MOST_KEY_BYTES + 1, "\":1}");
    (void)state;
    refused(body, "");
    free(body);
}

/* Structure within strings does not count; escapes do not end one. */
static void strings_hide_their_content_from_the_scan(void **state)
{
    struct json_fault fault;
    char *body = repeated("{\"a\":\"\\\"", "[{,", 300000, "\\\\\"}");
    uint32_t values;
    (void)state;
    assert_int_equal(json_scan(body, strlen(body), &values, &fault), OK);
    assert_int_equal(values, 3);
    assert_int_equal(parse(body, &fault), OK);
    free(body);
}

static void random_bytes_never_disturb_it(void **state)
{
    static const char alphabet[] = "{}[]\":,\\ntrue1-0. \xC3\xA9\xFF";
    uint64_t seed = api_rig_seed();
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char *body = malloc(40); /* no byte behind it is ours */
        size_t length = api_rig_random(&seed, 40);
        struct json_fault fault;
        for (size_t i = 0; i < length; i++)
            body[i] = alphabet[api_rig_random(&seed, sizeof alphabet - 1)];
        body = realloc(body, length + !length);
        json_decref(parsed);
        if (json_body_parse(body, length, &parsed, &fault) == OK)
            assert_true(json_is_object(parsed));
        else
            assert_null(parsed);
        free(body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_objects_are_parsed),
        cmocka_unit_test(what_is_not_json_is_refused_with_its_field),
        cmocka_unit_test(a_key_that_comes_twice_is_named),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(the_number_of_values_is_bounded),
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(strings_hide_their_content_from_the_scan),
        cmocka_unit_test(random_bytes_never_disturb_it),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(parsed);
    return failed;
}
