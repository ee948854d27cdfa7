/* Size arithmetic that cannot wrap: every result that does not fit is refused, every one that fits is exact. */
#include "base/checked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_sum_that_fits_is_exact(void **state)
{
    (void)state;
    uint64_t out = 0;
    assert_true(checked_add(UINT64_MAX - 1, 1, &out));
    assert_true(out == UINT64_MAX);
}

static void a_sum_that_wraps_is_refused(void **state)
{
    (void)state;
    uint64_t out;
    assert_false(checked_add(UINT64_MAX, 1, &out));
    assert_false(checked_add(1, UINT64_MAX, &out));
}

static void a_product_that_fits_is_exact(void **state)
{
    (void)state;
    uint64_t out = 0;
    assert_true(checked_mul(UINT32_MAX, UINT32_MAX, &out));
    assert_true(out == 0xFFFFFFFE00000001u);
    assert_true(checked_mul(0, UINT64_MAX, &out));
    assert_true(out == 0);
}

static void a_product_that_wraps_is_refused(void **state)
{
    (void)state;
    uint64_t out;
    assert_false(checked_mul((uint64_t)1 << 32, (uint64_t)1 << 32, &out));
    assert_false(checked_mul(UINT64_MAX, 2, &out));
}

static void rounding_up_keeps_multiples_and_lifts_the_rest(void **state)
{
    (void)state;
    static const struct {
        uint64_t from, to, expected;
    } cases[] = {{0, 64, 0}, {1, 64, 64}, {63, 64, 64}, {64, 64, 64}, {65, 64, 128}, {7, 1, 7}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t out = 1;
        assert_true(checked_round_up(cases[i].from, cases[i].to, &out));
        assert_int_equal(out, cases[i].expected);
    }
}

static void rounding_up_beyond_the_largest_number_is_refused(void **state)
{
    (void)state;
    uint64_t out;
    assert_false(checked_round_up(UINT64_MAX - 62, 64, &out));
    assert_true(checked_round_up(UINT64_MAX - 63, 64, &out));
    assert_true(out == UINT64_MAX - 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sum_that_fits_is_exact),
        cmocka_unit_test(a_sum_that_wraps_is_refused),
        cmocka_unit_test(a_product_that_fits_is_exact),
        cmocka_unit_test(a_product_that_wraps_is_refused),
        cmocka_unit_test(rounding_up_keeps_multiples_and_lifts_the_rest),
        cmocka_unit_test(rounding_up_beyond_the_largest_number_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
