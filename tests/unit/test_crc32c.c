/* The checksum of headers, descriptors and pages: the standard's vectors, and the two forms of it give the same. */
#include "shm/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static void known_vectors_of_rfc_3720_match(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x8A9136AA);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x62A8AB43);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x46DD794E);
}

static void table_and_instruction_agree_at_every_length_and_alignment(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srandom(seed);
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)random();
    for (size_t at = 0; at < 9; at++)
        for (size_t length = 0; length + at < sizeof bytes; length++)
            assert_int_equal(crc32c(7, bytes + at, length), crc32c_by_table(7, bytes + at, length));
}

static void a_sum_goes_on_where_it_stopped(void **state)
{
    (void)state;
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors_of_rfc_3720_match),
        cmocka_unit_test(table_and_instruction_agree_at_every_length_and_alignment),
        cmocka_unit_test(a_sum_goes_on_where_it_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
