/* The body of POST /quire/limits: one number within the slots, or a sentence with both. */
#include "coordinator/api_limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void a_number_within_the_slots_is_taken(void **state)
{
    struct api_error e;
    uint32_t n = 0;
    (void)state;
    assert_int_equal(api_limits_parse("{\"max_sessions\": 1}", 19, 8, &n, &e), OK);
    assert_int_equal(n, 1);
    assert_int_equal(api_limits_parse("{\"max_sessions\":8}", 18, 8, &n, &e), OK);
    assert_int_equal(n, 8);
}

static void more_than_the_slots_is_refused_with_both_numbers(void **state)
{
    struct api_error e;
    uint32_t n = 77;
    (void)state;
    const char *body = "{\"max_sessions\": 9}";
    assert_int_equal(api_limits_parse(body, strlen(body), 8, &n, &e), ERR_INVALID);
    assert_int_equal(e.status, 400);
    assert_string_equal(e.param, "max_sessions");
    assert_non_null(strstr(e.message, "9"));
    assert_non_null(strstr(e.message, "8"));
    assert_int_equal(n, 77);
}

static void anything_else_is_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "{}",
        "[]",
        "8",
        "{\"max_sessions\": 0}",
        "{\"max_sessions\": -1}",
        "{\"max_sessions\": 2.0}",
        "{\"max_sessions\": \"2\"}",
        "{\"max_sessions\": null}",
        "{\"max_sessions\": 4294967297}",
        "{\"max_sessions\": 99999999999999999999}",
        "{\"max_sessions\": 2, \"max_queue\": 3}",
        "{\"max_sessions\": 2, \"max_sessions\": 3}",
        "{\"max_sessions\": 2} x",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct api_error e;
        uint32_t n = 77;
        assert_int_equal(api_limits_parse(bodies[i], strlen(bodies[i]), 8, &n, &e), ERR_INVALID);
        assert_int_equal(e.status, 400);
        assert_true(e.message[0]);
        assert_int_equal(n, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_within_the_slots_is_taken),
        cmocka_unit_test(more_than_the_slots_is_refused_with_both_numbers),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
