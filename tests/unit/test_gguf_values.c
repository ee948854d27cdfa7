/* Values of keys: each getter takes the types that it names, and says key and type of any other. */
#include "model/gguf.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/gguf_writer.h"

static struct gguf *opened(const struct file *f)
{
    struct gguf *g;
    struct why why;
    if (gguf_open_memory(&g, f->bytes, f->length, "m.gguf", &why) != OK)
        fail_msg("%s", why.text);
    return g;
}

static void values_of_another_type_are_refused_by_key_and_type(void **state)
{
    (void)state;
    struct file f = small_gguf();
    struct gguf *g = opened(&f);
    struct why why;
    uint32_t number = 99;
    float real = 99;
    bool flag;
    struct gguf_string text;
    const struct gguf_string *strings;
    const uint8_t *array;
    uint64_t count;
    assert_int_equal(gguf_get_u32(g, "general.name", true, &number, &why), ERR_FORMAT);
    assert_string_equal(why.text, "\"m.gguf\": key \"general.name\" is of type string, not an integer");
    assert_int_equal(gguf_get_u32(g, "a.words", true, &number, &why), ERR_FORMAT);
    assert_string_equal(why.text, "\"m.gguf\": key \"a.words\" is an array of string, not an integer");
    assert_int_equal(gguf_get_f32(g, "a.count", true, &real, &why), ERR_FORMAT);
    assert_int_equal(gguf_get_bool(g, "a.count", true, &flag, &why), ERR_FORMAT);
    assert_int_equal(gguf_get_string(g, "a.count", true, &text, &why), ERR_FORMAT);
    assert_int_equal(gguf_get_strings(g, "a.numbers", true, &strings, &count, &why), ERR_FORMAT);
    assert_int_equal(gguf_get_array(g, "a.numbers", true, GGUF_U8, &array, &count, &why), ERR_FORMAT);
    assert_string_equal(why.text, "\"m.gguf\": key \"a.numbers\" is an array of i32, not an array of u8");
    assert_int_equal(gguf_get_array(g, "a.words", true, GGUF_U8, &array, &count, &why), ERR_FORMAT);
    assert_null(array);
    assert_int_equal(count, 0);
    assert_int_equal(number, 99);
    gguf_close(g);
}

static void absent_keys_are_an_error_only_when_required(void **state)
{
    (void)state;
    struct file f = small_gguf();
    struct gguf *g = opened(&f);
    struct why why;
    uint32_t number = 99;
    const struct gguf_string *strings;
    uint64_t count = 1;
    assert_false(gguf_has(g, "b.count"));
    assert_true(gguf_has(g, "a.count"));
    assert_true(gguf_is_array(g, "a.words"));
    assert_false(gguf_is_array(g, "a.count"));
    assert_int_equal(gguf_get_u32(g, "b.count", false, &number, &why), OK);
    assert_int_equal(number, 99);
    assert_int_equal(gguf_get_u32(g, "b.count", true, &number, &why), ERR_FORMAT);
    assert_string_equal(why.text, "\"m.gguf\" lacks the key \"b.count\"");
    assert_int_equal(gguf_get_strings(g, "b.words", false, &strings, &count, &why), OK);
    assert_int_equal(count, 0);
    gguf_close(g);
}

static void integers_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct file f = {.length = 0};
    put_header(&f, 3, 0, 6);
    put_key(&f, "i8", GGUF_I8, "\xff", 1);
    put_key(&f, "u8", GGUF_U8, "\xff", 1);
    put_key(&f, "i16", GGUF_I16, "\xff\x7f", 2);
    put_key(&f, "i64", GGUF_I64, &(int64_t){INT64_MIN}, 8);
    put_key(&f, "u64", GGUF_U64, &(uint64_t){0x100000000}, 8);
    put_key(&f, "flag", GGUF_BOOL, "\2", 1);
    struct gguf *g = opened(&f);
    struct why why;
    uint32_t value = 0;
    bool flag;
    assert_int_equal(gguf_get_u32(g, "i8", true, &value, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "is -1"));
    assert_int_equal(gguf_get_u32(g, "u8", true, &value, &why), OK);
    assert_int_equal(value, 255);
    assert_int_equal(gguf_get_u32(g, "i16", true, &value, &why), OK);
    assert_int_equal(value, 32767);
    assert_int_equal(gguf_get_u32(g, "i64", true, &value, &why), ERR_FORMAT);
    assert_int_equal(gguf_get_u32(g, "u64", true, &value, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "more than 32 bits"));
    assert_int_equal(gguf_get_bool(g, "flag", true, &flag, &why), ERR_FORMAT);
    gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_another_type_are_refused_by_key_and_type),
        cmocka_unit_test(absent_keys_are_an_error_only_when_required),
        cmocka_unit_test(integers_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
