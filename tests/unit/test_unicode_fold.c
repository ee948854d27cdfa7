/* Characters decomposed, without marks and small, and the classes that cut words. Expected: the Unicode character database. */
#include "model/unicode_fold.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void folds(uint32_t code, size_t count, uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t out[UNICODE_FOLD_MOST], expected[3] = {a, b, c};
    size_t made = unicode_fold(code, out);
    if (made != count || memcmp(out, expected, count * sizeof *out) != 0)
        fail_msg("U+%04X became %zu characters, the first U+%04X", code, made, made ? out[0] : 0);
}

static void letters_lose_their_marks_and_their_size(void **state)
{
    (void)state;
    folds('A', 1, 'a', 0, 0);
    folds('z', 1, 'z', 0, 0);
    folds('7', 1, '7', 0, 0);
    folds(0xc9, 1, 'e', 0, 0);    /* E with acute */
    folds(0xdf, 1, 0xdf, 0, 0);   /* sharp s */
    folds(0xe6, 1, 0xe6, 0, 0);   /* ae stands between two that fold */
    folds(0x130, 1, 'i', 0, 0);   /* I with dot above */
    folds(0x1d6, 1, 'u', 0, 0);   /* u with two marks */
    folds(0x1e9e, 1, 0xdf, 0, 0); /* capital sharp s */
    folds(0x391, 1, 0x3b1, 0, 0); /* Alpha */
    folds(0x3ac, 1, 0x3b1, 0, 0); /* alpha with tonos */
    folds(0x419, 1, 0x438, 0, 0); /* short I */
    folds(0x212b, 1, 'a', 0, 0);  /* Angstrom sign */
    folds(0xff21, 1, 0xff41, 0, 0);
    folds(0x10400, 1, 0x10428, 0, 0);
    folds(0x4e2d, 1, 0x4e2d, 0, 0);
    folds(0x1f600, 1, 0x1f600, 0, 0);
    folds(0x10ffff, 1, 0x10ffff, 0, 0);
    folds(0x301, 0, 0, 0, 0); /* a mark alone */
    folds(0x5b0, 0, 0, 0, 0);
}

static void syllables_become_their_letters(void **state)
{
    (void)state;
    folds(0xac00, 2, 0x1100, 0x1161, 0);
    folds(0xac01, 3, 0x1100, 0x1161, 0x11a8);
    folds(0xd55c, 3, 0x1112, 0x1161, 0x11ab);
    folds(0xd7a3, 3, 0x1112, 0x1175, 0x11c2);
    folds(0x9cb, 2, 0x9c7, 0x9be, 0);
}

static void classes_are_those_of_unicode(void **state)
{
    (void)state;
    assert_true(unicode_is_punctuation('!') && unicode_is_punctuation(0x2014) && unicode_is_punctuation(0x3002));
    assert_false(unicode_is_punctuation('$') || unicode_is_punctuation('a') || unicode_is_punctuation(0x20ac));
    assert_true(unicode_is_control(7) && unicode_is_control(0x200d) && unicode_is_control(0xe000) &&
                unicode_is_control('\n'));
    assert_false(unicode_is_control(' ') || unicode_is_control(0x301) || unicode_is_control(0x378));
    assert_true(unicode_is_blank('\t') && unicode_is_blank(0xa0) && unicode_is_blank(0x3000));
    assert_false(unicode_is_blank(0x200b) || unicode_is_blank('_'));
}

/* Folding twice is folding once, but for what decomposes only when it has become small; and nothing has more than four. */
static void every_code_point_folds_to_a_few(void **state)
{
    uint32_t out[UNICODE_FOLD_MOST], again[UNICODE_FOLD_MOST];
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        size_t count = unicode_fold(code, out);
        assert_true(count <= UNICODE_FOLD_MOST);
        for (size_t i = 0; i < count; i++) {
            assert_true(out[i] < 0x110000);
            if (unicode_fold(out[i], again) != 1 || again[0] != out[i])
                fail_msg("U+%04X folds to U+%04X, which folds again", code, out[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_lose_their_marks_and_their_size),
        cmocka_unit_test(syllables_become_their_letters),
        cmocka_unit_test(classes_are_those_of_unicode),
        cmocka_unit_test(every_code_point_folds_to_a_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
