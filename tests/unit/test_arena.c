/* A server's memory as one process sees it: made whole, attached with the right rights, adopted only when all of it
 * fits. */
#include "shm/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

static void a_worker_sees_what_the_coordinator_made(void **state)
{
    (void)state;
    struct arena *a = small_arena();
    struct arena worker;
    assert_int_equal(arena_attach(&worker, &a->home, false, NULL), OK);
    assert_memory_equal(&worker.geometry, &a->geometry, sizeof a->geometry);
    assert_memory_equal(arena_model(&worker), small_model, sizeof small_model);
    assert_int_equal(worker.table.access, SEGMENT_READ);
    assert_int_equal(worker.sessions.access, SEGMENT_READ);
    assert_int_equal(worker.slots.access, SEGMENT_WRITE);
    arena_detach(&worker);
    small_arena_close(a);
}

static void workers_of_two_groups_share_pages_and_have_work_of_their_own(void **state)
{
    (void)state;
    struct arena *a = small_arena();
    struct arena first, second;
    assert_int_equal(arena_attach(&first, &a->home, false, NULL), OK);
    assert_int_equal(arena_attach(&second, &a->home, false, NULL), OK);
    assert_int_equal(arena_join(&first, 0, true, NULL), OK);
    assert_int_equal(arena_join(&second, 1, false, NULL), OK);
    arena_page(&first, 3)[255] = 9;
    assert_int_equal(arena_page(&second, 3)[255], 9);
    arena_work(&first)[999] = 5;
    assert_int_equal(arena_work(&second)[999], 0);
    arena_weights(&first)[8191] = 4;
    assert_int_equal(arena_weights(&second)[8191], 4);
    assert_int_equal(arena_seal_weights(&first, NULL), OK);
    assert_int_equal(first.weights.access, SEGMENT_READ);
    assert_int_equal(arena_join(&first, 1, false, NULL), OK);
    assert_int_equal(arena_join(&first, 2, false, NULL), ERR_INVALID);
    arena_detach(&first);
    arena_detach(&second);
    small_arena_close(a);
}

/* What the next coordinator says to memory that `spoil` has touched. */
static enum err adopt_after(void (*spoil)(struct arena *), const struct arena_geometry *geometry, uint64_t hash,
                            struct why *why)
{
    struct arena *a = small_arena();
    struct segment_home home = a->home;
    arena_set_state(a, ARENA_SERVING);
    if (spoil)
        spoil(a);
    arena_detach(a); /* no farewell: as after SIGKILL */
    free(a);
    struct arena next;
    enum err err = arena_adopt(&next, &home, geometry, hash, small_model, why);
    if (err == OK) {
        assert_int_equal(arena_state(&next), ARENA_ADOPTING);
        assert_int_equal(arena_header(&next)->generation, 2);
        assert_int_equal(arena_header(&next)->owner_pid, getpid());
        arena_set_state(&next, ARENA_SERVING);
        arena_detach(&next);
    }
    forget_small_arena();
    return err;
}

static struct arena_header *writable_header(struct arena *a)
{
    return (struct arena_header *)(void *)a->table.base;
}
static void flip_geometry_bit(struct arena *a)
{
    writable_header(a)->geometry.context ^= 1;
}
static void other_layout_version(struct arena *a)
{
    writable_header(a)->layout_version++;
}
static void other_header_version(struct arena *a)
{
    writable_header(a)->header_version++;
}
static void no_magic(struct arena *a)
{
    writable_header(a)->magic[0] = 0;
}
static void half_made(struct arena *a)
{
    atomic_store(&writable_header(a)->state, ARENA_BUILDING);
}
static void wild_state(struct arena *a)
{
    atomic_store(&writable_header(a)->state, 77);
}
static void other_model_words(struct arena *a)
{
    a->table.base[a->layout.model_at] ^= 1;
}
static void cut_off_while_adopting(struct arena *a)
{
    arena_set_state(a, ARENA_ADOPTING);
}
static void killed_its_owners(struct arena *a)
{
    atomic_store(&writable_header(a)->takeovers, TAKEOVERS_MOST);
}
static void killed_its_owners_once_less(struct arena *a)
{
    atomic_store(&writable_header(a)->takeovers, TAKEOVERS_MOST - 1);
}
static void killed_its_owners_until_one_did_well(struct arena *a)
{
    killed_its_owners(a);
    arena_does_well(a);
}
static void pages_are_gone(struct arena *a)
{
    assert_int_equal(segment_remove(&a->home, "pages.0", NULL), OK);
}
static void pages_are_cut(struct arena *a)
{
    int fd = segment_open_file(&a->home, "pages.0", 2 /* O_RDWR */);
    assert_int_equal(ftruncate(fd, 4096), 0);
    close(fd);
}

static void whole_memory_is_adopted(void **state)
{
    (void)state;
    struct arena_geometry g = small_geometry();
    assert_int_equal(adopt_after(NULL, &g, SMALL_MODEL_HASH, NULL), OK);
    assert_int_equal(adopt_after(cut_off_while_adopting, &g, SMALL_MODEL_HASH, NULL), OK);
    assert_int_equal(adopt_after(killed_its_owners_once_less, &g, SMALL_MODEL_HASH, NULL), OK);
    assert_int_equal(adopt_after(killed_its_owners_until_one_did_well, &g, SMALL_MODEL_HASH, NULL), OK);
}

static void doubtful_memory_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct arena_geometry g = small_geometry(), other = small_geometry();
    other.session_slots++;
    const struct {
        void (*spoil)(struct arena *);
        const char *reason;
    } cases[] = {
        {flip_geometry_bit, "damaged"},
        {other_layout_version, "damaged"},
        {other_header_version, "header version"},
        {no_magic, "not finished"},
        {half_made, "half-made"},
        {wild_state, "half-made"},
        {killed_its_owners, "3 servers in a row"},
        {other_model_words, "describes its model"},
        {pages_are_gone, "could not open"},
        {pages_are_cut, "bytes where"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct why why = {""};
        assert_int_equal(adopt_after(cases[i].spoil, &g, SMALL_MODEL_HASH, &why), ERR_FORMAT);
        if (!strstr(why.text, cases[i].reason))
            fail_msg("\"%s\" should say \"%s\"", why.text, cases[i].reason);
    }
    struct why why = {""};
    assert_int_equal(adopt_after(NULL, &g, SMALL_MODEL_HASH + 1, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "another model"));
    assert_int_equal(adopt_after(NULL, &other, SMALL_MODEL_HASH, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "other sizes"));
    assert_non_null(strstr(why.text, "session slots (--session-slots), not"));
}

static void a_worker_refuses_damaged_memory(void **state)
{
    (void)state;
    struct arena *a = small_arena();
    struct arena worker;
    struct why why;
    flip_geometry_bit(a);
    assert_int_equal(arena_attach(&worker, &a->home, false, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "damaged"));
    small_arena_close(a);
}

static void every_flipped_bit_of_the_frozen_header_is_noticed(void **state)
{
    (void)state;
    struct arena *a = small_arena();
    struct arena worker;
    for (size_t bit = 0; bit < 8 * offsetof(struct arena_header, state); bit++) {
        a->table.base[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(arena_attach(&worker, &a->home, true, NULL), ERR_FORMAT);
        a->table.base[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(arena_attach(&worker, &a->home, true, NULL), OK);
    arena_detach(&worker);
    small_arena_close(a);
}

static void a_half_made_arena_leaves_nothing(void **state)
{
    (void)state;
    struct arena_geometry g = small_geometry();
    struct segment_home home = small_home();
    struct segment in_the_way;
    struct arena a;
    assert_int_equal(segment_create(&in_the_way, &home, "work.1", 4096, -1, NULL), OK);
    segment_detach(&in_the_way);
    assert_int_equal(arena_create(&a, &home, &g, 1, small_model, NULL), ERR_BUSY);
    assert_false(instance_has_leftovers(&home));
}

static void built_weights_are_remembered_per_node(void **state)
{
    (void)state;
    struct arena *a = small_arena();
    assert_false(arena_weights_built(a, 0));
    arena_mark_weights_built(a, 0);
    assert_true(arena_weights_built(a, 0));
    small_arena_close(a);
}

static void a_process_is_named_by_pid_and_start_time(void **state)
{
    (void)state;
    assert_true(process_start_time((int32_t)getpid()) > 0);
    assert_int_equal(process_start_time((int32_t)getpid()), process_start_time((int32_t)getpid()));
    assert_int_equal(process_start_time(INT32_MAX), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_sees_what_the_coordinator_made),
        cmocka_unit_test(workers_of_two_groups_share_pages_and_have_work_of_their_own),
        cmocka_unit_test(whole_memory_is_adopted),
        cmocka_unit_test(doubtful_memory_is_refused_with_the_reason),
        cmocka_unit_test(a_worker_refuses_damaged_memory),
        cmocka_unit_test(every_flipped_bit_of_the_frozen_header_is_noticed),
        cmocka_unit_test(a_half_made_arena_leaves_nothing),
        cmocka_unit_test(built_weights_are_remembered_per_node),
        cmocka_unit_test(a_process_is_named_by_pid_and_start_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
