/* test_stop_strings: against trying every place. */
#include "coordinator/stop_strings.h"
#include "tests/support/api_rig.h"

/* The first match by trying every place, in the header's words. Gives where it begins, or SIZE_MAX. */
static size_t naive(const struct stop_strings *s, const char *text, size_t length)
{
    for (size_t end = 1; end <= length; end++) {
        size_t longest = 0;
        for (uint32_t i = 0; i < s->count; i++) {
            size_t bytes = s->strings[i].length;
            if (bytes <= end && bytes > longest && memcmp(text + end - bytes, s->strings[i].bytes, bytes) == 0)
                longest = bytes;
        }
        if (longest > 0)
            return end - longest;
    }
    return SIZE_MAX;
}

static size_t naive_held(const struct stop_strings *s, const char *text, size_t length)
{
    for (size_t held = length; held > 0; held--)
        for (uint32_t i = 0; i < s->count; i++)
            if (held < s->strings[i].length && memcmp(text + length - held, s->strings[i].bytes, held) == 0)
                return held;
    return 0;
}

static void it_finds_and_holds_what_trying_every_place_does(void **state)
{
    uint64_t seed = api_rig_seed();
    (void)state;
    for (int round = 0; round < 5000; round++) {
        struct stop_strings s = {0};
        struct stop_state at = {0};
        char text[60], word[8];
        uint32_t strings = 1 + api_rig_random(&seed, 4);
        for (uint32_t i = 0; i < strings; i++) {
            size_t length = 1 + api_rig_random(&seed, sizeof word - 1);
            for (size_t k = 0; k < length; k++)
                word[k] = (char)('a' + api_rig_random(&seed, 2));
            assert_int_equal(stop_strings_add(&s, word, length), OK);
        }
        size_t found = SIZE_MAX, length = 0;
        while (length < sizeof text && found == SIZE_MAX) {
            text[length] = (char)('a' + (api_rig_random(&seed, 5) == 0 ? 2 : api_rig_random(&seed, 2)));
            size_t bytes = stop_strings_feed(&s, &at, text[length]);
            length++;
            if (bytes > 0)
                found = length - bytes;
            else
                assert_int_equal(stop_strings_held(&s, &at), naive_held(&s, text, length));
        }
        assert_int_equal(found, naive(&s, text, length));
        stop_strings_fini(&s);
    }
}

static void the_longest_of_those_that_end_together_wins(void **state)
{
    struct stop_strings s = {0};
    struct stop_state at = {0};
    (void)state;
    assert_int_equal(stop_strings_add(&s, "b", 1), OK);
    assert_int_equal(stop_strings_add(&s, "ab", 2), OK);
    assert_int_equal(stop_strings_feed(&s, &at, 'a'), 0);
    assert_int_equal(stop_strings_feed(&s, &at, 'b'), 2);
    stop_strings_fini(&s);
}

static void hostile_strings_of_full_size_are_found(void **state)
{
    static char word[STOP_MOST_BYTES];
    struct stop_strings s = {0};
    struct stop_state at = {0};
    (void)state;
    memset(word, 'a', sizeof word);
    word[sizeof word - 1] = 'b';
    for (int i = 0; i < STOP_MOST_STRINGS; i++)
        assert_int_equal(stop_strings_add(&s, word, sizeof word), OK);
    for (int i = 0; i < 1 << 20; i++)
        assert_int_equal(stop_strings_feed(&s, &at, 'a'), 0);
    assert_int_equal(stop_strings_held(&s, &at), STOP_MOST_BYTES - 1);
    assert_int_equal(stop_strings_feed(&s, &at, 'b'), STOP_MOST_BYTES);
    stop_strings_fini(&s);
}

static void no_strings_hold_nothing(void **state)
{
    struct stop_strings s = {0};
    struct stop_state at = {0};
    (void)state;
    assert_int_equal(stop_strings_feed(&s, &at, 'a'), 0);
    assert_int_equal(stop_strings_held(&s, &at), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_finds_and_holds_what_trying_every_place_does),
        cmocka_unit_test(the_longest_of_those_that_end_together_wins),
        cmocka_unit_test(hostile_strings_of_full_size_are_found),
        cmocka_unit_test(no_strings_hold_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
