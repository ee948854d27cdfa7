/* A file is mapped whole, or one sentence says why not. */
#include "model/mapped_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_file_is_mapped_whole_and_let_go(void **state)
{
    (void)state;
    char path[] = "/tmp/quire-test-mapped-XXXXXX";
    struct mapped_file f;
    struct why why;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(mapped_file_open(&f, path, "model file", &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "is empty, not a model file"));
    assert_int_equal(write(fd, "bytes", 5), 5);
    close(fd);
    assert_int_equal(mapped_file_open(&f, path, "model file", &why), OK);
    assert_int_equal(f.length, 5);
    assert_memory_equal(f.bytes, "bytes", 5);
    mapped_file_close(&f);
    assert_null(f.bytes);
    mapped_file_close(&f); /* closed is closed */
    unlink(path);
}

static void what_is_no_file_is_refused_and_errno_says_which_way(void **state)
{
    (void)state;
    struct mapped_file f;
    struct why why;
    assert_int_equal(mapped_file_open(&f, "/nowhere/x", "index", &why), ERR_IO);
    assert_int_equal(errno, ENOENT);
    assert_non_null(strstr(why.text, "could not open index \"/nowhere/x\": No such file"));
    assert_int_equal(mapped_file_open(&f, "/tmp", "index", &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "no regular file"));
    assert_null(f.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_mapped_whole_and_let_go),
        cmocka_unit_test(what_is_no_file_is_refused_and_errno_says_which_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
