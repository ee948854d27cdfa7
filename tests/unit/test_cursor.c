/* A cursor never reads beyond its end, and once it has been asked to it gives zeros for ever. */
#include "base/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void numbers_come_in_order_and_little_endian(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 1, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0x20, 0x40};
    struct cursor c = cursor_over(bytes, sizeof bytes);
    assert_int_equal(cursor_u8(&c), 1);
    assert_int_equal(cursor_u16(&c), 0x0102);
    assert_int_equal(cursor_u32(&c), 0x01020304);
    assert_true(cursor_u64(&c) == 0x0102030405060708u);
    assert_true(cursor_f32(&c) == 2.5f);
    assert_false(c.bad);
    assert_int_equal(c.at, sizeof bytes);
}

static void taking_nothing_at_the_end_is_good(void **state)
{
    (void)state;
    static const uint8_t bytes[4];
    struct cursor c = cursor_over(bytes, sizeof bytes);
    assert_ptr_equal(cursor_take(&c, 4), bytes);
    assert_ptr_equal(cursor_take(&c, 0), bytes + 4);
    assert_false(c.bad);
}

static void a_read_across_the_end_gives_zero_and_takes_nothing(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0xFF, 0xFF, 0xFF};
    struct cursor c = cursor_over(bytes, sizeof bytes);
    assert_int_equal(cursor_u32(&c), 0);
    assert_true(c.bad);
    assert_int_equal(c.at, 0);
}

static void after_one_bad_read_every_other_gives_zero(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0xFF, 0xFF, 0xFF};
    struct cursor c = cursor_over(bytes, sizeof bytes);
    cursor_u64(&c);
    assert_int_equal(cursor_u8(&c), 0);
    assert_int_equal(cursor_u16(&c), 0);
    assert_null(cursor_take(&c, 0));
}

static void a_size_near_the_largest_number_does_not_wrap(void **state)
{
    (void)state;
    static const uint8_t bytes[8];
    struct cursor c = cursor_over(bytes, sizeof bytes);
    cursor_u8(&c);
    assert_null(cursor_take(&c, UINT64_MAX));
    assert_true(c.bad);
    c = cursor_over(bytes, sizeof bytes);
    cursor_u8(&c);
    assert_null(cursor_take(&c, UINT64_MAX - 7));
    assert_true(c.bad);
}

static void an_empty_range_holds_nothing(void **state)
{
    (void)state;
    struct cursor c = cursor_over("", 0);
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_come_in_order_and_little_endian),
        cmocka_unit_test(taking_nothing_at_the_end_is_good),
        cmocka_unit_test(a_read_across_the_end_gives_zero_and_takes_nothing),
        cmocka_unit_test(after_one_bad_read_every_other_gives_zero),
        cmocka_unit_test(a_size_near_the_largest_number_does_not_wrap),
        cmocka_unit_test(an_empty_range_holds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
