/* Session slots: taken and freed, committed once a step, read by workers, adopted by the next coordinator. */
#include "shm/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

struct fixture {
    struct arena *arena;
    struct session_slots *slots;
};

static int open_slots(void **state)
{
    static struct fixture f;
    f.arena = small_arena();
    must(session_slots_open(&f.slots, f.arena, NULL) == OK);
    *state = &f;
    return 0;
}

static int close_slots(void **state)
{
    struct fixture *f = *state;
    session_slots_close(f->slots);
    small_arena_close(f->arena);
    return 0;
}

static uint32_t take_named(struct fixture *f, const char *id)
{
    uint32_t slot = session_slots_take(f->slots);
    must(slot != SESSION_NONE);
    struct session_slot *s = session_at(f->arena, slot);
    strcpy(s->id, id);
    s->sampling.prompt_tokens = 2;
    s->tokens[0] = 11;
    s->tokens[1] = 12;
    session_commit(s, (struct session_progress){.tokens = 2, .kv = 0});
    return slot;
}

static uint32_t generation(struct fixture *f, uint32_t slot)
{
    return atomic_load(&session_at(f->arena, slot)->generation);
}

static void slots_are_unique_until_none_is_left(void **state)
{
    struct fixture *f = *state;
    bool seen[6] = {false};
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t slot = session_slots_take(f->slots);
        assert_false(seen[slot]);
        seen[slot] = true;
    }
    assert_int_equal(session_slots_take(f->slots), SESSION_NONE);
    assert_int_equal(session_slots_live(f->slots), 6);
}

static void an_ended_slot_waits_for_its_last_plan_and_comes_back_as_another(void **state)
{
    struct fixture *f = *state;
    uint32_t slot = take_named(f, "a");
    uint32_t before = generation(f, slot);
    session_slots_release(f->slots, slot, 7);
    session_slots_reclaim(f->slots, 6);
    assert_int_equal(session_slots_free(f->slots), 5);
    assert_int_equal(session_slots_live(f->slots), 0);
    session_slots_reclaim(f->slots, 7);
    assert_int_equal(session_slots_free(f->slots), 6);
    assert_int_equal(session_slots_take(f->slots), slot);
    assert_int_equal(generation(f, slot), before + 1);
    assert_int_equal(session_at(f->arena, slot)->id[0], 0);
    assert_int_equal(session_progress(session_at(f->arena, slot)).tokens, 0);
}

static void tokens_and_positions_are_committed_in_one_word(void **state)
{
    struct fixture *f = *state;
    struct session_slot *s = session_at(f->arena, take_named(f, "a"));
    session_commit(s, (struct session_progress){.tokens = 100, .kv = 99});
    struct session_progress p = session_progress(s);
    assert_int_equal(p.tokens, 100);
    assert_int_equal(p.kv, 99);
}

static void slots_do_not_overlap(void **state)
{
    struct fixture *f = *state;
    for (uint32_t slot = 0; slot < 6; slot++) {
        for (uint32_t i = 0; i < 100; i++)
            session_at(f->arena, slot)->tokens[i] = slot * 1000 + i;
        for (uint32_t word = 0; word < 3; word++)
            session_mask(f->arena, slot)[word] = slot * 10 + word;
    }
    for (uint32_t slot = 0; slot < 6; slot++) {
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(session_at(f->arena, slot)->tokens[i], slot * 1000 + i);
        for (uint32_t word = 0; word < 3; word++)
            assert_int_equal(session_mask(f->arena, slot)[word], slot * 10 + word);
        assert_int_equal((uintptr_t)session_mask(f->arena, slot) % 64, 0);
    }
}

static void a_worker_gets_no_slot_that_its_plan_did_not_mean(void **state)
{
    struct fixture *f = *state;
    uint32_t slot = take_named(f, "a");
    uint32_t g = generation(f, slot);
    assert_non_null(session_read(f->arena, slot, g, 0, 100));
    assert_null(session_read(f->arena, slot, g, 0, 101));
    assert_null(session_read(f->arena, slot, g, UINT32_MAX, 2));
    assert_null(session_read(f->arena, slot, g + 1, 0, 1));
    assert_null(session_read(f->arena, slot, 0, 0, 1));
    assert_null(session_read(f->arena, 6, g, 0, 1));
}

static uint32_t adopt(struct fixture *f)
{
    uint32_t dropped = 77;
    session_slots_close(f->slots);
    must(session_slots_adopt(&f->slots, f->arena, &dropped, NULL) == OK);
    return dropped;
}

static void a_new_coordinator_finds_live_sessions_and_no_others(void **state)
{
    struct fixture *f = *state;
    uint32_t live = take_named(f, "live"), ended = take_named(f, "ended");
    session_slots_release(f->slots, ended, 9);
    uint32_t fresh = session_slots_take(f->slots); /* died before it was filled in */
    assert_int_equal(adopt(f), 1);
    assert_int_equal(session_slots_live(f->slots), 1);
    assert_string_equal(session_at(f->arena, live)->id, "live");
    assert_int_equal(atomic_load(&session_at(f->arena, fresh)->state), SESSION_FREE);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_not_equal(session_slots_take(f->slots), live);
}

static void sessions_with_fields_out_of_bounds_are_dropped(void **state)
{
    struct fixture *f = *state;
    struct session_slot *s[6];
    for (uint32_t i = 0; i < 6; i++)
        s[i] = session_at(f->arena, take_named(f, "x"));
    atomic_store(&s[0]->commit, (uint64_t)3 << 32 | 2); /* more positions than tokens */
    atomic_store(&s[1]->commit, 101);                   /* more tokens than context */
    memset(s[2]->id, 'x', sizeof s[2]->id);
    s[3]->sampling.bias_count = SAMPLING_MAX_BIAS + 1;
    s[4]->sampling.stop_id_count = UINT32_MAX;
    s[5]->group = 2;
    assert_int_equal(adopt(f), 6);
    assert_int_equal(session_slots_free(f->slots), 6);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_slots, close_slots)
    const struct CMUnitTest tests[] = {
        TEST(slots_are_unique_until_none_is_left),
        TEST(an_ended_slot_waits_for_its_last_plan_and_comes_back_as_another),
        TEST(tokens_and_positions_are_committed_in_one_word),
        TEST(slots_do_not_overlap),
        TEST(a_worker_gets_no_slot_that_its_plan_did_not_mean),
        TEST(a_new_coordinator_finds_live_sessions_and_no_others),
        TEST(sessions_with_fields_out_of_bounds_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
