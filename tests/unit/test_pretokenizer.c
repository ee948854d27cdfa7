/* Text is cut into words as the models' authors cut it, in linear time, and nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "model/pretokenizer.h"
#include "model/utf8.h"

static const char *const families[] = {
    "default",      "gpt-2",          "smollm",      "starcoder", "llama-bpe", "qwen2",  "qwen35",
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",    "gpt-4o",    "tekken", "dbrx",
};
enum { FAMILIES = sizeof families / sizeof *families };

static struct pretokenizer *open_family(const char *name)
{
    struct pretokenizer *p;
    struct why why;
    if (pretokenizer_open(&p, name, strlen(name), &why) != OK)
        fail_msg("%s", why.text);
    return p;
}

/* The words joined by '|'. */
static void assert_words(const char *family, const char *text, const char *expected)
{
    struct pretokenizer *p = open_family(family);
    struct word_list words = {0};
    char joined[256];
    size_t length = 0, start = 0;
    assert_int_equal(pretokenizer_split(p, text, strlen(text), &words, NULL), OK);
    for (size_t i = 0; i < words.count; i++) {
        if (i > 0)
            joined[length++] = '|';
        memcpy(joined + length, text + start, words.ends[i] - start);
        length += words.ends[i] - start;
        start = words.ends[i];
    }
    joined[length] = '\0';
    assert_string_equal(joined, expected);
    word_list_fini(&words);
    pretokenizer_close(p);
}

static void words_keep_the_blank_in_front_of_them(void **state)
{
    (void)state;
    assert_words("gpt-2", "Hello  world, it's 2024", "Hello| | world|,| it|'s| 2024");
    assert_words("llama-bpe", "Hello  world, it'S 2024\n\nx", "Hello| | world|,| it|'S| |202|4|\n\n|x");
}

static void digits_are_taken_as_each_family_takes_them(void **state)
{
    (void)state;
    assert_words("smollm", "a12345", "a|1|2|3|4|5");
    assert_words("qwen2", "a12345", "a|1|2|3|4|5");
    assert_words("llama-bpe", "a12345", "a|123|45");
    assert_words("gpt-2", "a12345", "a|12345");
    assert_words("falcon", "a12345", "a|123|45");
    assert_words("deepseek-v3", "a12345", "a|123|45");
}

static void case_divides_words_of_gpt_4o(void **state)
{
    (void)state;
    assert_words("gpt-4o", "HTMLParser camelCase", "HTMLParser| camel|Case");
    assert_words("gpt-4o", "don't", "don't");
}

static void a_mark_belongs_to_its_letter_only_where_the_family_says_so(void **state)
{
    (void)state;
    assert_words("qwen2", "e\xCC\x81t", "e|\xCC\x81t");
    assert_words("qwen35", "e\xCC\x81t", "e\xCC\x81t");
}

static void the_mongolian_vowel_separator_is_no_blank(void **state)
{
    (void)state;
    assert_words("gpt-2",
                 "a\xE1\xA0\x8E"
                 "b",
                 "a|\xE1\xA0\x8E|b");
    assert_words("gpt-2",
                 "a\xC2\x85"
                 "b",
                 "a|\xC2\x85|b");
}

static void an_invalid_byte_is_cut_like_a_control_character(void **state)
{
    (void)state;
    assert_words("gpt-2",
                 "ab\xFF"
                 "cd",
                 "ab|\xFF|cd");
    assert_words("gpt-2", "ab \xE4\xB8", "ab| \xE4\xB8");
}

static void nothing_has_no_words(void **state)
{
    (void)state;
    assert_words("gpt-2", "", "");
}

static void an_unknown_name_is_refused_by_name(void **state)
{
    (void)state;
    struct pretokenizer *p;
    struct why why;
    assert_int_equal(pretokenizer_open(&p, "gpt-20", 6, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "\"gpt-20\""));
    assert_int_equal(pretokenizer_open(&p, "gpt", 3, &why), ERR_UNSUPPORTED);
    assert_int_equal(pretokenizer_open(&p, "", 0, &why), ERR_UNSUPPORTED);
}

static void patterns_are_known_by_what_they_say_not_by_their_spelling(void **state)
{
    (void)state;
    const char *coder[] = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
                           "\\p{N}"};
    assert_string_equal(pretokenizer_name(coder, 5, false), "deepseek-coder");
    coder[0] = "[\\r\\n]";
    coder[3] = "[\\x{4e00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+";
    assert_string_equal(pretokenizer_name(coder, 5, false), "deepseek-coder");
    assert_null(pretokenizer_name(coder, 5, true));
    assert_null(pretokenizer_name(coder, 4, false));
    static const char *const others[] = {"[\\\r\\n]",  "[rn]",       "[\\r\\n", "[\\r\\n]]",
                                         "[\\x{D\\n]", "[\\x{}\\n]", "[\\r\\",  ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        coder[0] = others[i];
        assert_null(pretokenizer_name(coder, 5, false));
    }
}

static void words_are_ascending_end_with_the_text_and_cut_no_character(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    static const char *const pool[] = {
        "a",
        "Z",
        "9",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "'",
        "'s",
        "!",
        "\xFF",
        "$",
        "/",
        "x",
        "\xE4\xB8",
        "\xE4\xB8\xAD",
        "\xC3\xA9",
        "\xCC\x81",
        "\xC2\xA0",
        "\xF0\x9F\x98\x80",
    };
    for (size_t f = 0; f < FAMILIES; f++) {
        struct pretokenizer *p = open_family(families[f]);
        struct word_list words = {0};
        for (int round = 0; round < 300; round++) {
            char text[256] = "";
            for (int i = rand_r(&seed) % 30; i > 0; i--)
                strcat(text, pool[(size_t)rand_r(&seed) % (sizeof pool / sizeof *pool)]);
            size_t length = strlen(text), start = 0;
            assert_int_equal(pretokenizer_split(p, text, length, &words, NULL), OK);
            for (size_t i = 0; i < words.count; i++) {
                assert_true(words.ends[i] > start);
                start = words.ends[i];
            }
            assert_int_equal(start, length);
            size_t word = 0;
            for (size_t at = 0; at < length;) {
                struct utf8_step step = utf8_step(text + at, length - at);
                while (words.ends[word] <= at)
                    word++;
                if (step.kind == UTF8_GOOD)
                    assert_true(words.ends[word] >= at + step.bytes);
                at += step.bytes;
            }
        }
        word_list_fini(&words);
        pretokenizer_close(p);
    }
}

static void long_runs_take_no_quadratic_time(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20 };
    static const char *const runs[] = {
        " ", "\n", "a", "A", "1", "!", "'", " \t", "\xE4\xB8\xAD", "\xCC\x81", "\xC2\xA0", "\xFF",
    };
    char *text = malloc(BYTES + 1);
    assert_non_null(text);
    for (size_t f = 0; f < FAMILIES; f++) {
        struct pretokenizer *p = open_family(families[f]);
        struct word_list words = {0};
        for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
            size_t unit = strlen(runs[r]), length = 0;
            for (; length + unit < BYTES; length += unit)
                memcpy(text + length, runs[r], unit);
            text[length++] = 'x'; /* the run is not at the end: blanks are backtracked over */
            uint64_t before = now_us();
            assert_int_equal(pretokenizer_split(p, text, length, &words, NULL), OK);
            assert_true(now_us() - before < 60 * 1000 * 1000); /* the square of it would take hours */
            assert_int_equal(words.ends[words.count - 1], length);
        }
        word_list_fini(&words);
        pretokenizer_close(p);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_keep_the_blank_in_front_of_them),
        cmocka_unit_test(digits_are_taken_as_each_family_takes_them),
        cmocka_unit_test(case_divides_words_of_gpt_4o),
        cmocka_unit_test(a_mark_belongs_to_its_letter_only_where_the_family_says_so),
        cmocka_unit_test(the_mongolian_vowel_separator_is_no_blank),
        cmocka_unit_test(an_invalid_byte_is_cut_like_a_control_character),
        cmocka_unit_test(nothing_has_no_words),
        cmocka_unit_test(an_unknown_name_is_refused_by_name),
        cmocka_unit_test(patterns_are_known_by_what_they_say_not_by_their_spelling),
        cmocka_unit_test(words_are_ascending_end_with_the_text_and_cut_no_character),
        cmocka_unit_test(long_runs_take_no_quadratic_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
