/* Workers, groups and coordinators die; nobody hears a wrong token, or one twice. */
#include "coordinator/scheduler.h"

#include "tests/support/fake_world_case.h"

/* ---- workers die ---- */

/* Down after `steps` steps, with `computed` of the two plans in flight computed and perhaps half of the next. */
static void fall_after(struct fake_world *w, uint32_t steps, uint32_t computed, bool in_the_middle)
{
    fake_turn(w);
    for (uint32_t i = 0; i < steps; i++)
        fake_step(w);
    for (uint32_t i = 0; i < computed; i++)
        fake_compute(w, 0);
    uint64_t before = counters(w)->recomputed, in_flight = 0;
    for (uint32_t i = 0; i < w->groups[0].plan_count; i++)
        for (uint32_t r = 0; r < w->groups[0].plans[i].row_count; r++)
            in_flight += w->groups[0].plans[i].rows[r].count;
    assert_in_range(w->groups[0].plan_count, 0, 2);
    fake_group_down(w, 0, in_the_middle);
    fake_turn(w);
    assert_int_equal(w->groups[0].plan_count, 0); /* nothing is sent to a group that is down */
    assert_int_equal(counters(w)->recomputed - before, in_flight);
}

static void tokens_are_the_same_wherever_a_worker_dies(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.session_slots = 4});
    for (uint32_t steps = 0; steps < 12; steps++)
        for (uint32_t computed = 0; computed < 3; computed++)
            for (uint32_t middle = 0; middle < 2; middle++) {
                struct client *a = fake_ask(w, 1, 40, 9), *b = fake_ask(w, 2, 600, 5), *c = fake_ask(w, 3, 1, 12);
                fall_after(w, steps, computed, middle);
                fake_group_up(w, 0);
                fake_settle(w);
                fake_must_have_all(a, FINISH_LENGTH);
                fake_must_have_all(b, FINISH_LENGTH);
                fake_must_have_all(c, FINISH_LENGTH);
                a->keep = b->keep = c->keep = false;
                assert_true(fake_pages_are_free(w));
            }
}

static void who_is_cancelled_while_a_group_is_down_keeps_its_pages_until_it_stands(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 40, 100);
    fall_after(w, 5, 0, true);
    fake_cancel(c);
    assert_false(fake_pages_are_free(w)); /* a late hand may still write there */
    fake_group_up(w, 0);
    assert_true(fake_pages_are_free(w));
}

static void results_of_a_void_plan_are_ignored(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 40, 10);
    struct why why;
    fake_turn(w);
    uint64_t step = w->groups[0].plans[0].step;
    uint32_t epoch = w->groups[0].epoch;
    assert_int_equal(scheduler_step_done(w->s, 0, epoch, step + 1, w->now, &why), OK);
    assert_int_equal(scheduler_step_done(w->s, 0, epoch - 1, step, w->now, &why), OK);
    fake_group_down(w, 0, false);
    assert_int_equal(scheduler_step_done(w->s, 0, epoch, step, w->now, &why), OK);
    fake_group_up(w, 0);
    assert_int_equal(c->heard, 0);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void a_spoiled_result_voids_the_step_and_loses_no_token(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *a = fake_ask(w, 1, 40, 10), *b = fake_client(w, 2, 40, 10);
    b->score = true;
    assert_int_equal(fake_submit(b, NULL), OK);
    fake_turn(w);
    for (uint32_t reads = 0; reads < 12; reads++) {
        struct why why;
        if (!w->groups[0].plan_count)
            break;
        fake_compute(w, 0);
        w->spoiled_result = true;
        assert_int_equal(scheduler_step_done(w->s, 0, w->groups[0].epoch, w->groups[0].plans[0].step, w->now, &why),
                         ERR_FORMAT);
        assert_string_equal(why.text, "spoiled by the test");
        fake_group_down(w, 0, false);
        fake_group_up(w, 0);
        fake_turn(w);
        fake_step(w);
    }
    fake_settle(w);
    fake_must_have_all(a, FINISH_LENGTH);
    fake_must_have_all(b, FINISH_LENGTH);
}

/* ---- groups ---- */

static void two_groups_on_two_nodes_share_the_work(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.nodes = 2, .groups = 2, .pages = 32});
    for (uint32_t i = 0; i < 8; i++)
        fake_ask(w, i % 3, 40, 20);
    fake_turn(w);
    while (scheduler_running(w->s) < 8) /* those with an equal prompt wait for it */
        assert_true(fake_step(w));
    assert_int_equal(w->s->groups[0].running, 4);
    assert_int_equal(w->s->groups[1].running, 4);
    fake_settle(w);
    for (uint32_t i = 0; i < 8; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
}

static void one_group_goes_on_while_another_is_down(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.nodes = 2, .groups = 2, .pages = 32});
    struct client *a = fake_ask(w, 1, 40, 20), *b = fake_ask(w, 2, 40, 20);
    fake_turn(w);
    fake_step(w);
    fake_group_down(w, 0, true);
    struct client *late = fake_ask(w, 3, 40, 20);
    fake_settle(w);
    assert_int_equal(a->ended + b->ended, 1);
    fake_must_have_all(late, FINISH_LENGTH); /* it went to the group that stands */
    fake_group_up(w, 0);
    fake_settle(w);
    fake_must_have_all(a, FINISH_LENGTH);
    fake_must_have_all(b, FINISH_LENGTH);
}

static void what_a_lost_group_computed_goes_on_in_another(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.nodes = 2, .groups = 2, .pages = 32});
    for (uint32_t i = 0; i < 6; i++)
        fake_ask(w, i, 40, 20);
    fake_turn(w);
    for (uint32_t i = 0; i < 5; i++)
        fake_step(w);
    fake_group_down(w, 1, true);
    fake_group_lost(w, 1);
    fake_settle(w);
    for (uint32_t i = 0; i < 6; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
    assert_true(fake_pages_are_free(w));
}

static void shared_pages_of_another_node_cannot_lock_two_nodes(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.nodes = 2, .groups = 2, .pages = 12, .context = 192});
    struct client *makers[2];
    for (uint32_t i = 0; i < 2; i++)
        makers[i] = fake_ask(w, i, 120, 2); /* one prompt on each node */
    fake_settle(w);
    struct client *crossed[2];
    crossed[0] = fake_ask(w, 1, 120, 70);
    crossed[1] = fake_ask(w, 0, 120, 70);
    struct client *more[2];
    for (uint32_t i = 0; i < 2; i++)
        more[i] = fake_ask(w, 5 + i, 100, 90);
    fake_settle(w);
    for (uint32_t i = 0; i < 2; i++) {
        fake_must_have_all(makers[i], FINISH_LENGTH);
        fake_must_have_all(crossed[i], FINISH_LENGTH);
        fake_must_have_all(more[i], FINISH_LENGTH);
    }
}

/* ---- what outlives a coordinator ---- */

static void sessions_and_pages_outlive_their_coordinator(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c[3];
    for (uint32_t i = 0; i < 3; i++)
        c[i] = fake_ask(w, i, 100, 60);
    fake_turn(w);
    for (uint32_t i = 0; i < 20; i++)
        fake_step(w);
    uint32_t heard = c[0]->heard;
    assert_true(heard > 10);
    uint64_t before = w->positions;
    fake_coordinator_dies(w);
    assert_int_equal(scheduler_found(w->s).sessions, 3);
    fake_turn(w);
    assert_int_equal(c[0]->heard, heard);
    fake_step(w);
    assert_true(w->positions - before < 3 * 2 * PAGE_TOKENS); /* what was not sealed, no more */
    fake_settle(w);
    for (uint32_t i = 0; i < 3; i++)
        fake_must_have_all(c[i], FINISH_LENGTH);
    assert_true(fake_pages_are_free(w));
}

static void who_waits_outlives_the_coordinator_too_as_long_as_there_are_slots(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.session_slots = 3, .max_sessions = 1});
    struct client *c[4];
    for (uint32_t i = 0; i < 4; i++)
        c[i] = fake_ask(w, i, 40, 10);
    fake_turn(w);
    fake_step(w);
    assert_true(is_running(c[0]) && !is_running(c[1]) && !is_running(c[2]));
    assert_int_equal(c[3]->sequence->slot, SESSION_NONE);
    fake_coordinator_dies(w);
    assert_int_equal(scheduler_found(w->s).sessions, 3);
    fake_settle(w);
    for (uint32_t i = 0; i < 4; i++)
        fake_must_have_all(c[i], FINISH_LENGTH);
}

static void a_parked_sequence_goes_on_in_its_slot(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 40, 30);
    struct why why;
    fake_turn(w);
    for (uint32_t i = 0; i < 8; i++)
        fake_step(w);
    fake_park(c);
    assert_true(c->slot_generation != 0);
    fake_settle(w);
    assert_true(fake_pages_are_free(w));
    assert_int_equal(fake_submit(c, &why), OK);
    assert_int_equal(c->sequence->slot, c->slot);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void a_slot_that_was_given_away_is_not_gone_on_in(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.session_slots = 1});
    struct client *c = fake_ask(w, 1, 40, 30);
    struct why why;
    fake_turn(w);
    for (uint32_t i = 0; i < 8; i++)
        fake_step(w);
    fake_park(c);
    fake_settle(w);
    fake_ask(w, 2, 20, 4);
    fake_settle(w);
    scheduler_forget(w->s, c->slot, c->slot_generation); /* another's by now: nothing happens */
    assert_int_equal(fake_submit(c, &why), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    fake_must_have_all(&w->clients[1], FINISH_LENGTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(tokens_are_the_same_wherever_a_worker_dies),
        IN_A_WORLD(who_is_cancelled_while_a_group_is_down_keeps_its_pages_until_it_stands),
        IN_A_WORLD(results_of_a_void_plan_are_ignored),
        IN_A_WORLD(a_spoiled_result_voids_the_step_and_loses_no_token),
        IN_A_WORLD(two_groups_on_two_nodes_share_the_work),
        IN_A_WORLD(one_group_goes_on_while_another_is_down),
        IN_A_WORLD(what_a_lost_group_computed_goes_on_in_another),
        IN_A_WORLD(shared_pages_of_another_node_cannot_lock_two_nodes),
        IN_A_WORLD(sessions_and_pages_outlive_their_coordinator),
        IN_A_WORLD(who_waits_outlives_the_coordinator_too_as_long_as_there_are_slots),
        IN_A_WORLD(a_parked_sequence_goes_on_in_its_slot),
        IN_A_WORLD(a_slot_that_was_given_away_is_not_gone_on_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
