/* How much shared memory there is room for. */
#include "shm/room.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cmocka.h>

static void dev_shm_is_memory_and_has_no_more_than_the_machine(void **state)
{
    (void)state;
    struct room room;
    struct why why;
    struct sysinfo machine;
    assert_int_equal(sysinfo(&machine), 0);
    assert_int_equal(room_read(&room, "", &why), OK);
    assert_true(room.in_memory);
    assert_true(room.memory <= (uint64_t)machine.totalram * machine.mem_unit);
    assert_true(room_bytes(&room) <= room.memory && room_bytes(&room) <= room.file_system);
}

static void a_disk_is_not_memory(void **state)
{
    (void)state;
    struct room room;
    struct why why;
    assert_int_equal(room_read(&room, "/proc", &why), OK);
    assert_false(room.in_memory);
    assert_true(room.memory == UINT64_MAX);
}

static void a_directory_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct room room;
    struct why why;
    assert_int_equal(room_read(&room, "/nowhere/at/all", &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "\"/nowhere/at/all\""));
}

static void what_fits_is_agreed_to_and_what_does_not_is_refused_with_both_numbers(void **state)
{
    (void)state;
    struct room room;
    struct why why;
    double wanted, left;
    assert_int_equal(room_check("", 4096, &why), OK);
    assert_int_equal(room_check("", 1ull << 50, &why), ERR_FULL);
    assert_int_equal(room_read(&room, "", NULL), OK);
    const char *numbers = strpbrk(why.text, "0123456789");
    assert_non_null(numbers);
    assert_int_equal(sscanf(numbers, "%lf", &wanted), 1);
    assert_true(wanted == 1024.0 * 1024.0 * 1024.0);
    numbers = strchr(why.text, ':');
    assert_non_null(numbers);
    numbers = strpbrk(numbers, "0123456789");
    assert_non_null(numbers);
    assert_int_equal(sscanf(numbers, "%lf", &left), 1);
    assert_true(left < wanted);
    assert_non_null(strstr(why.text, "--kv-memory"));
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void kills_for_want_of_memory_are_those_of_our_control_group(void **state)
{
    (void)state;
    char root[] = "/tmp/quire-test-room-XXXXXX", group[64], events[96], membership[96];
    assert_non_null(mkdtemp(root));
    snprintf(group, sizeof group, "%s/service", root);
    snprintf(events, sizeof events, "%s/memory.events", group);
    snprintf(membership, sizeof membership, "%s/membership", root);
    assert_int_equal(mkdir(group, 0700), 0);
    write_file(membership, "4:memory:/old\n0::/service\n");
    assert_int_equal(room_oom_kills(root, membership), 0); /* nothing to read there */
    write_file(events, "low 0\nhigh 7\nmax 3\noom 5\noom_kill 2\noom_group_kill 1\n");
    assert_int_equal(room_oom_kills(root, membership), 2);
    assert_int_equal(room_oom_kills(root, events), 0);
    assert_int_equal(room_oom_kills(root, "/nowhere/at/all"), 0);
    unlink(events);
    unlink(membership);
    rmdir(group);
    rmdir(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dev_shm_is_memory_and_has_no_more_than_the_machine),
        cmocka_unit_test(a_disk_is_not_memory),
        cmocka_unit_test(a_directory_that_is_not_there_is_named),
        cmocka_unit_test(kills_for_want_of_memory_are_those_of_our_control_group),
        cmocka_unit_test(what_fits_is_agreed_to_and_what_does_not_is_refused_with_both_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
