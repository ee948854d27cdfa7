/* Tokens that stand in a text under their own name: leftmost, longest, against trying every name at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "model/special_tokens.h"

static void make(struct special_tokens *s, const char *const *names, size_t count)
{
    struct special_token *tokens = malloc((count + 1) * sizeof *tokens);
    assert_non_null(tokens);
    for (size_t i = 0; i < count; i++)
        tokens[i] = (struct special_token){{names[i], strlen(names[i])}, (uint32_t)i};
    special_tokens_init(s, tokens, count);
}

static void the_longest_name_at_the_first_place_is_found(void **state)
{
    (void)state;
    static const char *const names[] = {"<|im|>", "<|im_end|>", "<|im", "nd|"};
    static const char text[] = "a <|im_end|> b <|im_e";
    struct special_tokens s;
    size_t at;
    make(&s, names, 4);
    const struct special_token *found = special_tokens_find(&s, text, sizeof text - 1, 0, &at);
    assert_non_null(found);
    assert_int_equal(found->id, 1);
    assert_int_equal(at, 2);
    found = special_tokens_find(&s, text, sizeof text - 1, 12, &at);
    assert_non_null(found);
    assert_int_equal(found->id, 2);
    assert_int_equal(at, 15);
    assert_null(special_tokens_find(&s, text, sizeof text - 1, 16, &at));
    special_tokens_fini(&s);
}

static void of_two_tokens_with_one_name_the_later_is_found(void **state)
{
    (void)state;
    static const char *const names[] = {"<x>", "<x>", "<"};
    struct special_tokens s;
    size_t at;
    make(&s, names, 3);
    assert_int_equal(special_tokens_find(&s, "<x>", 3, 0, &at)->id, 1);
    special_tokens_fini(&s);
}

static void none_are_found_among_none(void **state)
{
    (void)state;
    struct special_tokens zeroed = {0}, s;
    size_t at;
    assert_null(special_tokens_find(&zeroed, "abc", 3, 0, &at));
    make(&s, NULL, 0);
    assert_null(special_tokens_find(&s, "abc", 3, 0, &at));
    special_tokens_fini(&s);
}

static void it_finds_what_trying_everything_finds(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (int round = 0; round < 3000; round++) {
        char room[12][8], text[64];
        const char *names[12];
        size_t count = (size_t)rand_r(&seed) % 12, length = (size_t)rand_r(&seed) % sizeof text;
        for (size_t i = 0; i < count; i++) {
            size_t bytes = 1 + (size_t)rand_r(&seed) % 6;
            for (size_t b = 0; b < bytes; b++)
                room[i][b] = (char)("ab\xFF"[rand_r(&seed) % 3]);
            room[i][bytes] = '\0';
            names[i] = room[i];
        }
        for (size_t i = 0; i < length; i++)
            text[i] = (char)("ab\xFF."[rand_r(&seed) % 4]);
        struct special_tokens s;
        make(&s, names, count);
        size_t expected_at = length, expected_bytes = 0, at = 0;
        for (size_t place = 0; place < length && expected_bytes == 0; place++)
            for (size_t i = 0; i < count; i++) {
                size_t bytes = strlen(names[i]);
                if (bytes > expected_bytes && bytes <= length - place && memcmp(text + place, names[i], bytes) == 0) {
                    expected_at = place;
                    expected_bytes = bytes;
                }
            }
        const struct special_token *found = special_tokens_find(&s, text, length, 0, &at);
        assert_int_equal(found ? found->text.length : 0, expected_bytes);
        if (found)
            assert_int_equal(at, expected_at);
        special_tokens_fini(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_name_at_the_first_place_is_found),
        cmocka_unit_test(of_two_tokens_with_one_name_the_later_is_found),
        cmocka_unit_test(none_are_found_among_none),
        cmocka_unit_test(it_finds_what_trying_everything_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
