/* What the small commands read and write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/command_input.h"

static void a_file_of_any_length_is_read_whole(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 300000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        FILE *file = tmpfile();
        assert_non_null(file);
        for (size_t b = 0; b < lengths[i]; b++)
            fputc((int)(b % 251), file);
        rewind(file);
        char *text;
        size_t length;
        assert_int_equal(read_all(file, "a file", &text, &length, NULL), OK);
        assert_int_equal(length, lengths[i]);
        for (size_t b = 0; b < length; b++)
            assert_int_equal((uint8_t)text[b], b % 251);
        free(text);
        fclose(file);
    }
}

static void a_folder_cannot_be_read_and_is_named(void **state)
{
    (void)state;
    FILE *folder = fopen("/", "rb");
    assert_non_null(folder);
    char *text;
    size_t length;
    struct why why;
    assert_int_equal(read_all(folder, "the root", &text, &length, &why), ERR_IO);
    assert_null(text);
    assert_non_null(strstr(why.text, "the root"));
    fclose(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_of_any_length_is_read_whole),
        cmocka_unit_test(a_folder_cannot_be_read_and_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
