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
    session_seal_facts(s);
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
    session_commit(s, (struct session_progress){.tokens = 3, .kv = 2});
    struct session_progress p = session_progress(s);
    assert_int_equal(p.tokens, 3);
    assert_int_equal(p.kv, 2);
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

static void a_kept_session_stays_until_its_slot_is_needed(void **state)
{
    struct fixture *f = *state;
    uint32_t old = take_named(f, "old"), young = take_named(f, "young");
    uint32_t was = generation(f, old);
    session_slots_keep(f->slots, old, 3);
    session_slots_keep(f->slots, young, 2);
    session_slots_reclaim(f->slots, 2);
    for (uint32_t i = 0; i < 4; i++)
        take_named(f, "x");
    assert_int_equal(session_slots_take(f->slots), young); /* a plan may still name the older one */
    assert_int_equal(session_slots_take(f->slots), SESSION_NONE);
    assert_true(session_slots_hold(f->slots, old, was));
    session_slots_reclaim(f->slots, 3);
    session_slots_resume(f->slots, old);
    assert_int_equal(session_slots_take(f->slots), SESSION_NONE);
    session_slots_keep(f->slots, old, 3);
    assert_int_equal(session_slots_take(f->slots), old);
    assert_false(session_slots_hold(f->slots, old, was));
}

static void a_kept_request_goes_as_a_whole_and_not_while_it_runs(void **state)
{
    struct fixture *f = *state;
    uint32_t said = take_named(f, "runs"), speaks = take_named(f, "runs");
    uint32_t first = take_named(f, "over"), second = take_named(f, "over");
    uint32_t other = take_named(f, "other");
    take_named(f, "x");
    session_slots_keep(f->slots, said, 0);
    session_slots_keep(f->slots, first, 0);
    session_slots_keep(f->slots, other, 0);
    session_slots_keep(f->slots, second, 0);
    uint32_t taken[2] = {take_named(f, "new"), take_named(f, "new")};
    assert_true((taken[0] == first && taken[1] == second) || (taken[0] == second && taken[1] == first));
    assert_int_equal(session_slots_kept(f->slots), 2);
    assert_int_equal(session_slots_take(f->slots), other);
    assert_int_equal(session_slots_take(f->slots), SESSION_NONE); /* a choice of "runs" runs */
    session_slots_keep(f->slots, speaks, 0);
    assert_int_not_equal(session_slots_take(f->slots), SESSION_NONE);
    assert_int_equal(session_slots_kept(f->slots), 0);
    assert_int_not_equal(session_slots_take(f->slots), SESSION_NONE);
}

static void kept_sessions_are_found_by_the_next_coordinator(void **state)
{
    struct fixture *f = *state;
    uint32_t kept = take_named(f, "kept");
    session_slots_keep(f->slots, kept, 9);
    assert_int_equal(adopt(f), 0);
    assert_int_equal(session_slots_kept(f->slots), 1);
    assert_string_equal(session_at(f->arena, kept)->id, "kept");
    session_slots_release(f->slots, kept, 0);
    session_slots_reclaim(f->slots, 0);
    assert_int_equal(session_slots_free(f->slots), 6);
}

/* A coordinator that dies between the tokens and the commit word leaves what was committed before. */
static void a_commit_that_was_cut_off_never_was(void **state)
{
    struct fixture *f = *state;
    struct session_slot *s = session_at(f->arena, take_named(f, "a"));
    s->tokens[2] = 13;
    s->tokens_crc[1] = 0xbad; /* the next commit's */
    assert_int_equal(adopt(f), 0);
    session_commit(s, (struct session_progress){.tokens = 3, .kv = 2});
    assert_int_equal(adopt(f), 0);
    assert_int_equal(session_progress(s).tokens, 3);
}

static void every_flipped_bit_of_a_session_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct session_slot *s = session_at(f->arena, take_named(f, "a"));
    s->client_bytes = 40;
    session_seal_facts(s);
    const struct {
        void *at;
        size_t bytes;
    } parts[] = {{s->id, sizeof s->id}, {&s->salt, 8},  {&s->sampling, sizeof s->sampling},
                 {s->client, 40},       {s->tokens, 8}, {&s->facts_crc, 4}};
    for (size_t part = 0; part < sizeof parts / sizeof *parts; part++)
        for (size_t byte = 0; byte < parts[part].bytes; byte++) {
            uint8_t *at = (uint8_t *)parts[part].at + byte;
            *at ^= 4;
            assert_int_equal(adopt(f), 1);
            *at ^= 4;
            atomic_store(&s->state, SESSION_LIVE);
        }
    s->client_bytes = UINT32_MAX;
    assert_int_equal(adopt(f), 1);
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
        TEST(a_kept_session_stays_until_its_slot_is_needed),
        TEST(a_kept_request_goes_as_a_whole_and_not_while_it_runs),
        TEST(kept_sessions_are_found_by_the_next_coordinator),
        TEST(a_commit_that_was_cut_off_never_was),
        TEST(every_flipped_bit_of_a_session_is_noticed),
        TEST(sessions_with_fields_out_of_bounds_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
