/* Bytes cut anywhere come out as whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "model/detokenizer.h"
#include "model/utf8.h"

#define PUSH(d, bytes, out) detokenizer_push(d, bytes, sizeof(bytes) - 1, out)

static void assert_text(const char *out, size_t length, const char *expected)
{
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(out, expected, length);
}

static void a_character_comes_out_when_its_last_byte_comes_in(void **state)
{
    (void)state;
    struct detokenizer d;
    char out[64];
    detokenizer_init(&d);
    assert_int_equal(PUSH(&d, "\xF0", out), 0);
    assert_int_equal(PUSH(&d, "\x9F\x98", out), 0);
    assert_text(out, PUSH(&d, "\x80!", out), "\xF0\x9F\x98\x80!");
    assert_int_equal(detokenizer_flush(&d, out), 0);
}

static void what_cannot_become_a_character_comes_out_at_once(void **state)
{
    (void)state;
    struct detokenizer d;
    char out[64];
    detokenizer_init(&d);
    assert_text(out,
                PUSH(&d,
                     "a\xFF"
                     "b",
                     out),
                "a\xEF\xBF\xBD"
                "b");
    assert_int_equal(PUSH(&d, "\xE4\xB8", out), 0);
    assert_text(out, PUSH(&d, "x", out), "\xEF\xBF\xBDx");
    assert_text(out, PUSH(&d, "\xED\xA0", out), "\xEF\xBF\xBD\xEF\xBF\xBD"); /* would be a surrogate */
}

static void the_end_turns_what_is_held_into_one_replacement(void **state)
{
    (void)state;
    struct detokenizer d;
    char out[64];
    detokenizer_init(&d);
    assert_text(out, PUSH(&d, "ok\xF0\x9F\x98", out), "ok");
    assert_text(out, detokenizer_flush(&d, out), "\xEF\xBF\xBD");
    assert_int_equal(detokenizer_flush(&d, out), 0);
    assert_text(out, PUSH(&d, "again", out), "again");
}

static void zero_bytes_pass(void **state)
{
    (void)state;
    struct detokenizer d;
    char out[64];
    detokenizer_init(&d);
    assert_int_equal(PUSH(&d, "a\0b", out), 3);
    assert_memory_equal(out, "a\0b", 3);
}

/* The whole text at once, decoded by definition. */
static size_t decode_whole(const char *bytes, size_t length, char *out)
{
    size_t written = 0;
    for (size_t at = 0; at < length;) {
        struct utf8_step step = utf8_step(bytes + at, length - at);
        written += utf8_write(step.code, out + written);
        at += step.bytes;
    }
    return written;
}

static void any_bytes_cut_anywhere_give_the_same_text(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    static const char pool[] = "a\0\x7F\x80\x8F\x90\x9F\xA0\xBF\xC0\xC2\xDF\xE0\xE4\xED\xEF\xF0\xF1\xF4\xF5\xFF";
    for (int round = 0; round < 20000; round++) {
        char bytes[24], whole[3 * sizeof bytes + 16], parts[detokenizer_room(sizeof bytes) + 16];
        size_t length = (size_t)rand_r(&seed) % sizeof bytes;
        for (size_t i = 0; i < length; i++)
            bytes[i] = pool[(size_t)rand_r(&seed) % (sizeof pool - 1)];
        size_t expected = decode_whole(bytes, length, whole);
        struct detokenizer d;
        size_t written = 0;
        detokenizer_init(&d);
        for (size_t at = 0; at < length;) {
            size_t take = 1 + (size_t)rand_r(&seed) % (length - at);
            written += detokenizer_push(&d, bytes + at, take, parts + written);
            at += take;
        }
        written += detokenizer_flush(&d, parts + written);
        assert_int_equal(written, expected);
        assert_memory_equal(parts, whole, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_character_comes_out_when_its_last_byte_comes_in),
        cmocka_unit_test(what_cannot_become_a_character_comes_out_at_once),
        cmocka_unit_test(the_end_turns_what_is_held_into_one_replacement),
        cmocka_unit_test(zero_bytes_pass),
        cmocka_unit_test(any_bytes_cut_anywhere_give_the_same_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
