/* What a step does: who is in it, how much of a prompt, and what the next one may begin with. */
#include "coordinator/scheduler_internal.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/fake_world_case.h"

/* ---- who is in a step ---- */

static void those_who_speak_come_before_prompts(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *speakers[3];
    for (uint32_t i = 0; i < 3; i++)
        speakers[i] = fake_ask(w, i, 10, 50);
    fake_turn(w);
    fake_step(w);
    fake_step(w);
    fake_ask(w, 9, 300, 1);
    fake_step(w);
    const struct step_plan *plan = &w->groups[0].plans[w->groups[0].plan_count - 1];
    assert_int_equal(plan->row_count, 4);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(plan->rows[i].session, speakers[i]->sequence->slot);
        assert_int_equal(plan->rows[i].count, 1);
    }
    assert_true(plan->rows[3].count > 1);
    fake_settle(w);
}

static void two_plans_are_in_flight_at_the_most(void **state)
{
    struct fake_world *w = plain_world(state);
    fake_ask(w, 2, 900, 20);
    for (uint32_t i = 0; i < 4; i++)
        fake_turn(w);
    assert_int_equal(w->groups[0].plan_count, 2);
    fake_settle(w);
}

static void the_second_plan_begins_with_what_the_first_one_draws(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *a = fake_ask(w, 1, 20, 9), *b = fake_ask(w, 2, 30, 9);
    fake_turn(w);
    const struct step_plan *first = &w->groups[0].plans[0], *second = &w->groups[0].plans[1];
    assert_int_equal(first->row_count, 2);
    assert_int_equal(first->flags, PLAN_MEET_FIRST);
    assert_int_equal(second->row_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct step_row *row = &second->rows[i];
        assert_int_equal(first->rows[i].previous, 0);
        assert_int_equal(row->previous, 1 + i); /* the entry that row i of the first plan fills */
        assert_int_equal(row->first, (i ? b : a)->prompt_tokens);
        assert_int_equal(row->history, row->first);
        assert_int_equal(row->flags, ROW_SAMPLE);
    }
    fake_settle(w);
}

static void the_last_token_is_not_fed_back(void **state)
{
    struct fake_world *w = plain_world(state);
    fake_ask(w, 1, 20, 1);
    fake_turn(w);
    assert_int_equal(w->groups[0].plan_count, 1);
    fake_settle(w);
    assert_int_equal(w->plans, 1);
}

static void a_scored_row_has_an_entry_for_each_position(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_client(w, 1, 20, 5), *d = fake_client(w, 2, 20, 0);
    c->score = d->score = true;
    assert_int_equal(fake_submit(c, NULL), OK);
    assert_int_equal(fake_submit(d, NULL), OK);
    fake_turn(w);
    const struct step_row *rows = w->groups[0].plans[0].rows;
    assert_int_equal(rows[0].flags, ROW_SCORE | ROW_SAMPLE);
    assert_int_equal(step_row_entries(&rows[0]), 20);
    assert_int_equal(rows[1].flags, ROW_SCORE);
    assert_int_equal(rows[1].count, 19);                          /* the last token predicts nobody */
    assert_int_equal(w->groups[0].plans[1].rows[0].previous, 20); /* the drawn one comes last */
    fake_settle(w);
}

/* ---- how much of a prompt ---- */

static uint32_t plans_for(uint32_t max_gap_us)
{
    struct fake_sizes sizes = {.max_gap_us = max_gap_us};
    struct fake_world *w = fake_world_open(&sizes);
    struct client *speaker = fake_ask(w, 1, 4, 300);
    fake_turn(w);
    for (uint32_t i = 0; i < 60; i++) /* the scheduler learns what a step takes */
        fake_step(w);
    struct client *c = fake_ask(w, 2, 640, 1);
    uint64_t before = w->plans;
    while (!c->ended)
        fake_step(w);
    uint64_t plans = w->plans - before;
    fake_settle(w);
    fake_must_have_all(speaker, FINISH_LENGTH);
    fake_world_close(w);
    return (uint32_t)plans;
}

static void prefill_chunk_size_affects_parallelism(void **state)
{
    (void)state;
    uint32_t coarse = plans_for(1000000), fine = plans_for(5000);
    assert_in_range(coarse, 2, 6);
    assert_in_range(fine, 2 * coarse, 60);
}

static void nobody_waits_longer_than_max_gap_while_prompts_come_in(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_gap_us = 20000, .pages = 256, .context = 2048});
    struct client *speaker = fake_ask(w, 1, 4, 400);
    fake_turn(w);
    for (uint32_t i = 0; i < 60; i++)
        fake_step(w);
    fake_ask(w, 2, 1900, 1);
    for (uint32_t i = 0; i < 4; i++) /* the first chunks tell what a token costs */
        fake_step(w);
    uint32_t heard = speaker->heard, most = 0;
    while (w->clients[1].sequence && !speaker->ended) {
        uint64_t before = w->now;
        fake_step(w);
        assert_in_range(w->now - before, 0, 20000);
        assert_int_equal(speaker->heard, ++heard);
        most = w->largest_prefill > most ? w->largest_prefill : most;
    }
    assert_in_range(most, 64, 200); /* and what there is is used */
    fake_settle(w);
}

static void alone_a_prompt_takes_whole_steps(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_gap_us = 1});
    fake_ask(w, 1, 1000, 1);
    fake_turn(w);
    assert_int_equal(w->groups[0].plans[0].rows[0].count, STEP_BUDGET);
    fake_settle(w);
}

static void several_prompts_share_a_step(void **state)
{
    struct fake_world *w = plain_world(state);
    for (uint32_t i = 0; i < 4; i++)
        fake_ask(w, i, 100, 1);
    fake_turn(w);
    assert_int_equal(w->groups[0].plans[0].row_count, 4);
    fake_settle(w);
}

/* ---- time ---- */

static const struct scheduler bounded = {.config = {.max_gap_us = 100000}}; /* a step may take 80 ms */

/* Speaking takes `speech_us` of every step, a prompt token `token_us`: what the group may take of prompts after that many steps. */
static double fit_after(uint32_t steps, double speech_us, double token_us, double first)
{
    struct group g = {.prefill_fit = first};
    for (uint32_t i = 0; i < steps; i++) {
        struct flight f = {.decodes = 4, .prefills = (uint32_t)g.prefill_fit};
        scheduler_learn_time(&bounded, &g, &f, (uint64_t)(speech_us + token_us * f.prefills));
    }
    return g.prefill_fit;
}

static void the_prompt_tokens_that_just_fit_are_found_from_below_and_from_above(void **state)
{
    (void)state;
    assert_in_range((uint64_t)fit_after(12, 20000, 300, 16), 160, 201); /* (80 - 20) ms / 0.3 ms = 200 */
    assert_in_range((uint64_t)fit_after(40, 20000, 300, 16), 185, 201);
    assert_in_range((uint64_t)fit_after(12, 20000, 300, 500), 195, 210);
    assert_in_range((uint64_t)fit_after(30, 60000, 1000, 500), 19, 24); /* 20 fit */
}

/* Every eighth step takes 1.7 times as long as the others: nobody may wait longer than the gap and a fifth. */
static void what_a_quick_step_says_is_not_relied_on_before_others_say_it_too(void **state)
{
    (void)state;
    struct group g = {.prefill_fit = 128};
    uint32_t taken = 0;
    for (uint32_t i = 0; i < 80; i++) {
        struct flight f = {.decodes = 8, .prefills = (uint32_t)g.prefill_fit / PAGE_TOKENS * PAGE_TOKENS};
        uint64_t took = (uint64_t)((8000 + 500 * f.prefills) * (i % 8 == 7 ? 1.7 : 1.0));
        if (i >= 16)
            assert_in_range(took, 1, 120000);
        taken += f.prefills;
        scheduler_learn_time(&bounded, &g, &f, took);
    }
    assert_in_range(taken / 80, 104, 144); /* 144 would just fit if no step were slow: what there is is used */
}

static void where_speech_alone_breaks_the_bound_prompts_still_come_in(void **state)
{
    (void)state;
    assert_in_range((uint64_t)fit_after(12, 90000, 300, 500), PAGE_TOKENS, PAGE_TOKENS);
}

static void one_slow_step_is_forgotten_within_a_few(void **state)
{
    (void)state;
    struct group g = {.prefill_fit = 200};
    struct flight f = {.decodes = 4, .prefills = 200};
    scheduler_learn_time(&bounded, &g, &f, 800000);
    assert_in_range((uint64_t)g.prefill_fit, 16, 30);
    assert_in_range((uint64_t)fit_after(8, 20000, 300, g.prefill_fit), 150, 201);
}

static void a_step_that_takes_longer_is_believed_at_once_and_a_shorter_one_slowly(void **state)
{
    struct group g = {.decode_us = 1000, .prefill_token_us = 100};
    struct flight decode = {.decodes = 3}, prefill = {.prefills = 100};
    (void)state;
    scheduler_learn_time(&bounded, &g, &decode, 9000);
    assert_in_range((uint64_t)g.decode_us, 4000, 6000);
    g.decode_us = 1000;
    scheduler_learn_time(&bounded, &g, &decode, 200);
    assert_in_range((uint64_t)g.decode_us, 850, 950);
    scheduler_learn_time(&bounded, &g, &prefill, 100 * 500);
    assert_in_range((uint64_t)g.prefill_token_us, 250, 350);
}

static void a_few_prompt_tokens_teach_nothing(void **state)
{
    struct group g = {.decode_us = 1000, .prefill_token_us = 100};
    struct flight f = {.decodes = 1, .prefills = PAGE_TOKENS - 1};
    (void)state;
    scheduler_learn_time(&bounded, &g, &f, 1000000);
    assert_true(g.decode_us == 1000 && g.prefill_token_us == 100);
}

static void a_plan_says_how_long_it_should_take(void **state)
{
    struct fake_world *w = plain_world(state);
    uint64_t since, planned;
    assert_false(scheduler_in_flight(w->s, 0, &since, &planned));
    w->now = 77;
    w->s->groups[0].decode_us = 1000;
    w->s->groups[0].prefill_token_us = 10;
    fake_ask(w, 1, 100, 1);
    fake_turn(w);
    assert_true(scheduler_in_flight(w->s, 0, &since, &planned));
    assert_int_equal(since, 77);
    assert_int_equal(planned, 1000 + 100 * 10);
    fake_settle(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(those_who_speak_come_before_prompts),
        IN_A_WORLD(two_plans_are_in_flight_at_the_most),
        IN_A_WORLD(the_second_plan_begins_with_what_the_first_one_draws),
        IN_A_WORLD(the_last_token_is_not_fed_back),
        IN_A_WORLD(a_scored_row_has_an_entry_for_each_position),
        cmocka_unit_test(prefill_chunk_size_affects_parallelism),
        IN_A_WORLD(nobody_waits_longer_than_max_gap_while_prompts_come_in),
        IN_A_WORLD(alone_a_prompt_takes_whole_steps),
        IN_A_WORLD(several_prompts_share_a_step),
        cmocka_unit_test(a_step_that_takes_longer_is_believed_at_once_and_a_shorter_one_slowly),
        cmocka_unit_test(the_prompt_tokens_that_just_fit_are_found_from_below_and_from_above),
        cmocka_unit_test(what_a_quick_step_says_is_not_relied_on_before_others_say_it_too),
        cmocka_unit_test(where_speech_alone_breaks_the_bound_prompts_still_come_in),
        cmocka_unit_test(one_slow_step_is_forgotten_within_a_few),
        cmocka_unit_test(a_few_prompt_tokens_teach_nothing),
        IN_A_WORLD(a_plan_says_how_long_it_should_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
