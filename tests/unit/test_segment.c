/* Named memory: made whole or not at all, found under its name only, read-only where asked. */
#include "shm/segment.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

enum { HUGE = 2 << 20 };

static int forget(void **state)
{
    (void)state;
    forget_small_arena();
    return 0;
}

static void names_that_could_mean_another_file_are_refused(void **state)
{
    (void)state;
    struct segment_home home;
    const char *const bad[] = {"", "a/b", "a b", "ü", "0123456789012345678901234567890123456789x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(segment_home_init(&home, bad[i], NULL, NULL), ERR_INVALID);
    assert_int_equal(segment_home_init(&home, "0123456789012345678901234567890123456789", NULL, NULL), OK);
    assert_int_equal(segment_home_init(&home, "a.B_c-9", NULL, NULL), OK);
}

static void what_one_maps_another_sees(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    struct segment a, b;
    assert_int_equal(segment_create(&a, &home, "slots", 5000, -1, NULL), OK);
    assert_true(a.bytes >= 5000);
    segment_populate(&a);
    a.base[4999] = 7;
    assert_int_equal(segment_attach(&b, &home, "slots", 5000, SEGMENT_READ, NULL), OK);
    segment_populate(&b);
    assert_int_equal(b.base[4999], 7);
    assert_int_equal(b.base[0], 0);
    segment_detach(&a);
    segment_detach(&b);
}

static void a_second_one_of_the_same_name_is_refused(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    struct segment a, b;
    assert_int_equal(segment_create(&a, &home, "slots", 4096, -1, NULL), OK);
    assert_int_equal(segment_create(&b, &home, "slots", 4096, -1, NULL), ERR_BUSY);
    segment_detach(&a);
}

static void another_size_than_expected_is_refused(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    struct segment a, b;
    struct why why;
    assert_int_equal(segment_create(&a, &home, "slots", 4096, -1, NULL), OK);
    assert_int_equal(segment_attach(&b, &home, "slots", 8192, SEGMENT_READ, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "8192"));
    assert_int_equal(segment_attach(&b, &home, "table", 0, SEGMENT_READ, &why), ERR_INVALID);
    segment_detach(&a);
}

static bool write_kills(uint8_t *at)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* the test frame has its own */
        *(volatile uint8_t *)at = 1;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status);
}

static void a_sealed_or_read_only_mapping_cannot_be_written(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    struct segment a, b;
    assert_int_equal(segment_create(&a, &home, "weights.0", 4096, -1, NULL), OK);
    assert_int_equal(segment_attach(&b, &home, "weights.0", 4096, SEGMENT_READ, NULL), OK);
    assert_true(write_kills(b.base));
    assert_false(write_kills(a.base));
    assert_int_equal(segment_seal(&a, NULL), OK);
    assert_true(write_kills(a.base));
    segment_detach(&a);
    segment_detach(&b);
}

static void too_small_a_file_system_is_said_with_both_numbers_and_leaves_nothing(void **state)
{
    (void)state;
    char directory[] = "/tmp/quire-test-XXXXXX";
    assert_non_null(mkdtemp(directory));
    if (mount("tmpfs", directory, "tmpfs", 0, "size=1m") != 0) {
        rmdir(directory);
        print_message("no right to mount a tmpfs here\n");
        skip();
    }
    struct segment_home home;
    struct segment s;
    struct why why = {""};
    assert_int_equal(segment_home_init(&home, "small", directory, NULL), OK);
    enum err err = segment_create(&s, &home, "pages.0", 5 << 20, -1, &why);
    bool left = instance_has_leftovers(&home);
    enum err fits = segment_create(&s, &home, "pages.0", 1 << 19, -1, NULL);
    segment_detach(&s);
    assert_int_equal(umount2(directory, MNT_DETACH), 0);
    rmdir(directory);

    assert_int_equal(err, ERR_FULL);
    assert_non_null(strstr(why.text, "5.0 MiB"));
    assert_non_null(strstr(why.text, "1.0 MiB"));
    assert_non_null(strstr(why.text, "--kv-memory"));
    assert_false(left);
    assert_int_equal(fits, OK);
}

struct found {
    char text[1000];
};

/* Such a file says of itself that its blocks are huge once it is large, and did not when it was made. */
static void where_pages_are_huge_for_large_files_it_is_found_as_it_was_made(void **state)
{
    (void)state;
    enum { BYTES = (3 << 20) + 4096 };
    char directory[] = "/tmp/quire-segment-XXXXXX";
    struct why why = {""};
    struct segment made, found;
    struct segment_home home;
    assert_non_null(mkdtemp(directory));
    if (mount("tmpfs", directory, "tmpfs", 0, "size=16m,huge=within_size") != 0) {
        rmdir(directory);
        print_message("no right to mount a tmpfs here, or none with huge pages\n");
        skip();
    }
    assert_int_equal(segment_home_init(&home, "test", directory, &why), OK);
    assert_int_equal(segment_create(&made, &home, "pages.0", BYTES, -1, &why), OK);
    enum err err = segment_attach(&found, &home, "pages.0", BYTES, SEGMENT_READ, &why);
    if (err == OK)
        segment_detach(&found);
    segment_detach(&made);
    assert_int_equal(umount2(directory, MNT_DETACH), 0);
    assert_int_equal(rmdir(directory), 0);
    assert_int_equal(err, OK);
}

/* Asked with a file of our own, so that the answer is the kernel's. */
static bool kernel_makes_huge_pages(void)
{
    enum { COLLAPSE = 25 }; /* MADV_COLLAPSE */
    char path[] = "/dev/shm/quire-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ftruncate(fd, HUGE), 0);
    uint8_t *room = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(room != MAP_FAILED);
    uint8_t *at = room + (HUGE - (uintptr_t)room % HUGE) % HUGE;
    assert_true(mmap(at, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at);
    memset(at, 1, HUGE);
    bool made = madvise(at, HUGE, COLLAPSE) == 0;
    assert_int_equal(munmap(room, 2 * HUGE), 0);
    close(fd);
    return made;
}

static bool is_zero(const struct segment *s)
{
    for (uint64_t i = 0; i < s->bytes; i++)
        if (s->base[i] != 0)
            return false;
    return true;
}

static void a_large_one_is_in_huge_pages_whatever_the_mount_says(void **state)
{
    (void)state;
    enum { BYTES = 3 * HUGE + 8192 };
    struct segment_home home = small_home();
    struct segment made, found;
    assert_int_equal(segment_create(&made, &home, "pages.0", BYTES, -1, NULL), OK);
    assert_int_equal(segment_attach(&found, &home, "pages.0", BYTES, SEGMENT_READ, NULL), OK);
    assert_int_equal(made.bytes, BYTES);
    assert_int_equal((uintptr_t)made.base % HUGE, 0);
    assert_int_equal((uintptr_t)found.base % HUGE, 0);
    bool huge = segment_populate(&made), huge_for_others = segment_populate(&found);
    assert_true(is_zero(&made));
    made.base[BYTES - 1] = 9;
    made.base[HUGE] = 8;
    assert_int_equal(found.base[BYTES - 1], 9);
    assert_int_equal(found.base[HUGE], 8);
    segment_detach(&found);
    segment_detach(&made);
    if (!kernel_makes_huge_pages()) {
        print_message("this kernel makes no huge pages here\n");
        skip();
    }
    assert_true(huge);
    assert_true(huge_for_others);
}

static void note(void *arg, const char *name, const char *what, uint64_t bytes)
{
    struct found *f = arg;
    (void)bytes;
    char line[100];
    snprintf(line, sizeof line, "%s:%s;", name, what);
    strcat(f->text, line);
}

static void make_file(const char *directory, const char *rest)
{
    char path[200];
    snprintf(path, sizeof path, "%s/quire.%u.%s", directory, (unsigned)getuid(), rest);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static void segments_of_a_longer_name_are_not_mistaken_for_ours(void **state)
{
    (void)state;
    char directory[] = "/tmp/quire-test-XXXXXX", command[100];
    assert_non_null(mkdtemp(directory));
    const char *const files[] = {"a.table",     "a.pages.0", "a.b.table", "a.pages.3.table",
                                 "a.b.pages.1", "a.notes",   "a.7",       "table"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        make_file(directory, files[i]);
    struct segment_home home;
    struct found mine = {""}, all = {""};
    assert_int_equal(segment_home_init(&home, "a", directory, NULL), OK);
    assert_int_equal(segment_list(&home, false, note, &mine, NULL), OK);
    assert_int_equal(segment_list(&home, true, note, &all, NULL), OK);
    snprintf(command, sizeof command, "rm -r %s", directory);
    assert_int_equal(system(command), 0);

    assert_int_equal(strlen(mine.text), strlen("a:table;a:pages.0;"));
    assert_non_null(strstr(mine.text, "a:table;"));
    assert_non_null(strstr(mine.text, "a:pages.0;"));
    assert_non_null(strstr(all.text, "a.b:table;"));
    assert_non_null(strstr(all.text, "a.pages.3:table;"));
    assert_non_null(strstr(all.text, "a.b:pages.1;"));
    assert_null(strstr(all.text, "notes"));
}

static void removing_what_is_not_there_is_no_error(void **state)
{
    (void)state;
    struct segment_home home = small_home();
    assert_int_equal(segment_remove(&home, "table", NULL), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_that_could_mean_another_file_are_refused),
        cmocka_unit_test_teardown(what_one_maps_another_sees, forget),
        cmocka_unit_test_teardown(a_second_one_of_the_same_name_is_refused, forget),
        cmocka_unit_test_teardown(another_size_than_expected_is_refused, forget),
        cmocka_unit_test_teardown(a_sealed_or_read_only_mapping_cannot_be_written, forget),
        cmocka_unit_test(too_small_a_file_system_is_said_with_both_numbers_and_leaves_nothing),
        cmocka_unit_test(where_pages_are_huge_for_large_files_it_is_found_as_it_was_made),
        cmocka_unit_test_teardown(a_large_one_is_in_huge_pages_whatever_the_mount_says, forget),
        cmocka_unit_test(segments_of_a_longer_name_are_not_mistaken_for_ours),
        cmocka_unit_test(removing_what_is_not_there_is_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
