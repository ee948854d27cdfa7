/* Errors carry one sentence for a person, whatever its length, and the code they were given. */
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void because_gives_back_its_code_and_fills_the_sentence(void **state)
{
    (void)state;
    struct why why = {""};
    assert_int_equal(because(&why, ERR_FORMAT, "\"%s\" has %d heads", "a.gguf", 7), ERR_FORMAT);
    assert_string_equal(why.text, "\"a.gguf\" has 7 heads");
}

static void a_caller_who_wants_no_sentence_gets_the_code(void **state)
{
    (void)state;
    assert_int_equal(because(NULL, ERR_BUSY, "nobody reads this %d", 1), ERR_BUSY);
    assert_int_equal(because_errno(NULL, ERR_IO, "nor this"), ERR_IO);
}

static void because_errno_ends_with_the_systems_reason_and_keeps_errno(void **state)
{
    (void)state;
    struct why why = {""};
    errno = ENOSPC;
    assert_int_equal(because_errno(&why, ERR_IO, "could not map \"%s\"", "/quire.0"), ERR_IO);
    assert_int_equal(errno, ENOSPC);
    assert_string_equal(why.text, "could not map \"/quire.0\": No space left on device");
}

static void a_sentence_too_long_is_cut_at_the_end_of_its_room(void **state)
{
    (void)state;
    char long_name[2 * sizeof(((struct why *)0)->text)];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    struct {
        struct why why;
        uint64_t behind;
    } room = {.behind = 0x5AFE5AFE5AFE5AFEu};

    because(&room.why, ERR_FORMAT, "%s", long_name);
    assert_int_equal(strlen(room.why.text), sizeof room.why.text - 1);
    errno = ENOENT;
    because_errno(&room.why, ERR_IO, "%s", long_name);
    assert_int_equal(strlen(room.why.text), sizeof room.why.text - 1);
    assert_true(room.behind == 0x5AFE5AFE5AFE5AFEu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(because_gives_back_its_code_and_fills_the_sentence),
        cmocka_unit_test(a_caller_who_wants_no_sentence_gets_the_code),
        cmocka_unit_test(because_errno_ends_with_the_systems_reason_and_keeps_errno),
        cmocka_unit_test(a_sentence_too_long_is_cut_at_the_end_of_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
