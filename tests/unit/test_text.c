/* test_text: numbers, escapes and bad bytes on their way into JSON. */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>

#include "coordinator/text.h"
#include "tests/support/api_rig.h"

static void assert_text(struct text *t, const char *expected)
{
    assert_false(t->failed);
    assert_int_equal(t->length, strlen(expected));
    assert_memory_equal(t->at, expected, t->length);
    text_clear(t);
}

static void integers_are_exact_at_their_ends(void **state)
{
    struct text t = {0};
    (void)state;
    text_add_u64(&t, UINT64_MAX);
    assert_text(&t, "18446744073709551615");
    text_add_i64(&t, INT64_MIN);
    assert_text(&t, "-9223372036854775808");
    text_add_u64(&t, 0);
    assert_text(&t, "0");
    text_fini(&t);
}

static void numbers_look_as_json_wants_them(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.0, "-0"},
                 {1, "1"},
                 {-1.5, "-1.5"},
                 {0.1, "0.1"},
                 {100, "100"},
                 {1e15, "1000000000000000"},
                 {1e16, "1e16"},
                 {1e-5, "0.00001"},
                 {1e-6, "1e-6"},
                 {1.25e300, "1.25e300"},
                 {NAN, "null"},
                 {-INFINITY, "null"}};
    struct text t = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_add_f64(&t, cases[i].value);
        assert_text(&t, cases[i].text);
    }
    text_fini(&t);
}

static void every_float_reads_back_as_itself(void **state)
{
    uint64_t seed = api_rig_seed();
    struct text t = {0};
    (void)state;
    for (int i = 0; i < 20000; i++) {
        union {
            uint32_t bits;
            float value;
        } any = {.bits = api_rig_random(&seed, UINT32_MAX)};
        if (!isfinite(any.value))
            continue;
        text_clear(&t);
        text_add_f32(&t, any.value);
        text_add(&t, "", 1);
        assert_true(strtof(t.at, NULL) == any.value);
    }
    text_fini(&t);
}

static void numbers_have_a_point_under_every_locale(void **state)
{
    struct text t = {0};
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
        skip();
    text_add_f32(&t, -0.25f);
    setlocale(LC_NUMERIC, "C");
    assert_text(&t, "-0.25");
    text_fini(&t);
}

static void strings_escape_what_json_forbids(void **state)
{
    struct text t = {0};
    (void)state;
    text_json_string(&t, "a\"b\\c\n\r\t\x01\0\x7F/", 12);
    assert_text(&t, "\"a\\\"b\\\\c\\n\\r\\t\\u0001\\u0000\x7F/\"");
    text_fini(&t);
}

static void invalid_utf8_becomes_replacement_characters(void **state)
{
    struct text t = {0};
    (void)state;
    text_json_string_z(&t, "a\xFF\xE4\xBDz\xED\xA0\x80");
    assert_text(&t, "\"a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    text_fini(&t);
}

static void any_bytes_make_a_valid_json_string(void **state)
{
    uint64_t seed = api_rig_seed();
    struct text t = {0};
    (void)state;
    for (int round = 0; round < 2000; round++) {
        char bytes[40];
        size_t length = api_rig_random(&seed, sizeof bytes);
        for (size_t i = 0; i < length; i++)
            bytes[i] =
                (char)(api_rig_random(&seed, 2) ? api_rig_random(&seed, 256) : 0x80 + api_rig_random(&seed, 0x70));
        text_add(&t, "[", 1);
        text_json_string(&t, bytes, length);
        text_add(&t, "]", 1);
        json_decref(api_rig_json(&t));
    }
    text_fini(&t);
}

static void a_size_that_cannot_be_fails_and_stays_failed(void **state)
{
    struct text t = {0};
    (void)state;
    text_add_string(&t, "x");
    assert_false(text_reserve(&t, SIZE_MAX));
    text_add_string(&t, "y");
    assert_true(t.failed);
    assert_int_equal(t.length, 1);
    text_fini(&t);
}

static void characters_are_counted_not_bytes(void **state)
{
    (void)state;
    assert_int_equal(utf8_count("a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80", 10), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_exact_at_their_ends),
        cmocka_unit_test(numbers_look_as_json_wants_them),
        cmocka_unit_test(every_float_reads_back_as_itself),
        cmocka_unit_test(numbers_have_a_point_under_every_locale),
        cmocka_unit_test(strings_escape_what_json_forbids),
        cmocka_unit_test(invalid_utf8_becomes_replacement_characters),
        cmocka_unit_test(any_bytes_make_a_valid_json_string),
        cmocka_unit_test(a_size_that_cannot_be_fails_and_stays_failed),
        cmocka_unit_test(characters_are_counted_not_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
