/* A sequence that ends workers is found out; nobody else is, and all others get every token. */
#include "coordinator/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/fake_world_case.h"

static struct client *ask_for_poison(struct fake_world *w, uint32_t count, uint32_t at)
{
    struct client *c = fake_client(w, 99, count, 60);
    struct why why;
    c->poison_at = at;
    assert_int_equal(fake_submit(c, &why), OK);
    return c;
}

/* Wherever it strikes: in the first chunk of its prompt, in a later one, while it speaks. */
static void only_the_one_that_ends_workers_ends_with_an_error(void **state)
{
    static const uint32_t at[] = {1, 30, 700, 39, 40, 55};
    for (uint32_t i = 0; i < sizeof at / sizeof *at; i++) {
        struct fake_world *w = world_of(state, (struct fake_sizes){0});
        struct client *others[5];
        for (uint32_t k = 0; k < 5; k++)
            others[k] = fake_ask(w, k, 30 + 10 * k, 80);
        fake_turn(w);
        for (uint32_t k = 0; k < i; k++)
            fake_step(w);
        struct client *poison = ask_for_poison(w, at[i] == 700 ? 800 : 40, at[i]);
        fake_settle(w);
        assert_true(poison->ended);
        assert_int_equal(poison->reason, FINISH_ERROR);
        assert_int_equal(poison->heard,
                         at[i] >= 40 && at[i] < 700 ? at[i] - 39 : 0); /* all that came before was told */
        assert_int_equal(w->poisoned, 3);
        assert_int_equal(w->verdict, VERDICT_GUILTY); /* its deaths were of two ranks */
        assert_int_equal(scheduler_counters(w->s)->convicted, 1);
        for (uint32_t k = 0; k < 5; k++)
            fake_must_have_all(others[k], FINISH_LENGTH);
        assert_true(fake_pages_are_free(w));
        fake_world_close(w);
        *state = NULL;
    }
}

static void several_that_end_workers_are_all_found(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *good = fake_ask(w, 1, 50, 200), *bad[3];
    for (uint32_t i = 0; i < 3; i++)
        bad[i] = ask_for_poison(w, 40, 45 + 3 * i);
    fake_settle(w);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(bad[i]->reason, FINISH_ERROR);
    fake_must_have_all(good, FINISH_LENGTH);
    assert_true(w->poisoned <= 7);
}

static void one_that_is_alone_anyway_dies_three_times(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = ask_for_poison(w, 40, 50);
    fake_settle(w);
    assert_int_equal(c->reason, FINISH_ERROR);
    assert_int_equal(c->heard, 11); /* positions 39 to 49 have drawn one each */
    assert_int_equal(w->poisoned, 3);
}

static void deaths_of_one_rank_may_be_its_own_fault(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 40, 60);
    for (uint32_t i = 0; i < 3; i++) {
        assert_false(c->ended);
        fake_turn(w);
        assert_int_equal(w->groups[0].plan_count, i == 2 ? 1 : 2); /* alone: one plan at a time */
        fake_suspect_death(w, 0, 5, false);
        fake_group_up(w, 0);
    }
    assert_int_equal(w->verdict, VERDICT_GUILTY_AT_RANK);
    assert_int_equal(c->reason, FINISH_ERROR);
}

/* Two in the middle of a crowd are nobody's verdict. */
static void the_innocent_go_on_together_again(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c[6];
    for (uint32_t i = 0; i < 6; i++)
        c[i] = fake_ask(w, i, 40, 200);
    for (uint32_t death = 0; death < 2; death++) {
        fake_turn(w);
        for (uint32_t i = 0; i < 3; i++)
            fake_step(w);
        fake_suspect_death(w, 0, death, true);
        assert_int_equal(w->verdict, VERDICT_NONE);
        fake_group_up(w, 0);
    }
    fake_turn(w);
    bool alone[8] = {false};
    for (uint32_t i = 0; i < 40 && w->groups[0].plan_count < 2; i++) {
        if (w->groups[0].plan_count && w->groups[0].plans[0].row_count == 1)
            alone[w->groups[0].plans[0].rows[0].session] = true;
        fake_step(w);
    }
    for (uint32_t i = 0; i < 6; i++)
        assert_true(alone[c[i]->sequence->slot]); /* each had a plan of its own */
    assert_int_equal(w->groups[0].plan_count, 2);
    assert_int_equal(w->groups[0].plans[1].row_count, 6);
    for (uint32_t i = 0; i < 70; i++) /* probation is over: two more are two again */
        fake_step(w);
    fake_suspect_death(w, 0, 0, false);
    fake_group_up(w, 0);
    fake_turn(w);
    fake_step(w);
    assert_true(w->groups[0].plans[0].row_count > 1);
    fake_settle(w);
    for (uint32_t i = 0; i < 6; i++)
        fake_must_have_all(c[i], FINISH_LENGTH);
}

static void who_is_not_suspect_speaks_on_beside_one_who_runs_alone(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *suspect = fake_ask(w, 1, 900, 5);
    for (uint32_t death = 0; death < 2; death++) {
        fake_turn(w);
        fake_suspect_death(w, 0, death, false);
        fake_group_up(w, 0);
    }
    struct client *good = fake_ask(w, 2, 20, 6);
    fake_turn(w);
    for (uint32_t i = 0; i < 30 && !good->ended; i++)
        fake_step(w);
    fake_must_have_all(good, FINISH_LENGTH);
    assert_false(suspect->ended);
    fake_settle(w);
    fake_must_have_all(suspect, FINISH_LENGTH);
}

static void kills_from_outside_convict_nobody_who_gets_on(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 600, 60);
    for (uint32_t i = 0; i < 50; i++) {
        fake_turn(w);
        fake_step(w);
        fake_group_down(w, 0, i % 2);
        fake_group_up(w, 0);
    }
    assert_false(c->ended && c->reason == FINISH_ERROR);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

/* What dies in a long chunk gets shorter ones; what dies in the shortest is given up: it may be too much for the machine's memory. */
static void what_is_killed_whenever_it_is_computed_gets_less_to_do_and_then_an_error(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 600, 60);
    uint32_t chunk = STEP_BUDGET;
    for (uint32_t i = 0; i < 8; i++) {
        assert_false(c->ended);
        fake_turn(w);
        assert_int_equal(w->groups[0].plans[0].rows[0].count, chunk);
        chunk = chunk > PAGE_TOKENS ? chunk / 2 : PAGE_TOKENS;
        fake_group_down(w, 0, true);
        if (i < 7)
            fake_group_up(w, 0);
    }
    assert_true(c->ended);
    assert_int_equal(c->reason, FINISH_ERROR);
    fake_group_up(w, 0);
    fake_settle(w);
    assert_true(fake_pages_are_free(w));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(only_the_one_that_ends_workers_ends_with_an_error),
        IN_A_WORLD(several_that_end_workers_are_all_found),
        IN_A_WORLD(one_that_is_alone_anyway_dies_three_times),
        IN_A_WORLD(deaths_of_one_rank_may_be_its_own_fault),
        IN_A_WORLD(the_innocent_go_on_together_again),
        IN_A_WORLD(who_is_not_suspect_speaks_on_beside_one_who_runs_alone),
        IN_A_WORLD(kills_from_outside_convict_nobody_who_gets_on),
        IN_A_WORLD(what_is_killed_whenever_it_is_computed_gets_less_to_do_and_then_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
