/* The scheduler against a model that is a hash: whoever gets one wrong token has been given somebody else's pages. */
#include "coordinator/scheduler.h"

#include <string.h>

#include "shm/sequence_table.h"
#include "tests/support/fake_world_case.h"
#include "tests/support/malloc_count.h"

/* ---- joining and leaving ---- */

static void continuous_admits_to_free_slots(void **state)
{
    struct fake_world *w = plain_world(state);
    for (uint32_t i = 0; i < 5; i++)
        fake_ask(w, i, 20, 30);
    fake_turn(w);
    assert_int_equal(scheduler_running(w->s), 5);
    struct client *late = fake_ask(w, 9, 20, 4);
    fake_turn(w);
    assert_true(is_running(late)); /* in the middle of what the others do */
    fake_settle(w);
    for (uint32_t i = 0; i < 6; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
}

static void continuous_evicts_on_complete(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *brief = fake_ask(w, 1, 20, 3), *patient = fake_ask(w, 2, 20, 40);
    fake_turn(w);
    while (!brief->ended)
        assert_true(fake_step(w));
    assert_int_equal(scheduler_running(w->s), 1);
    assert_true(is_running(patient));
    fake_settle(w);
    assert_int_equal(scheduler_running(w->s), 0);
    assert_true(fake_pages_are_free(w));
}

static void continuous_respects_max_slots(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_sessions = 3});
    for (uint32_t i = 0; i < 7; i++)
        fake_ask(w, i, 20, 5 + i);
    fake_turn(w);
    do {
        assert_in_range(scheduler_running(w->s), 0, 3);
        assert_true(scheduler_running(w->s) == 3 || scheduler_waiting(w->s) == 0);
    } while (fake_step(w));
    for (uint32_t i = 0; i < 7; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
}

static void continuous_prefill_then_decode(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 40, 3);
    assert_int_equal(c->sequence->state, SEQUENCE_WAITING);
    fake_turn(w);
    assert_int_equal(c->sequence->state, SEQUENCE_PREFILL);
    assert_int_equal(w->groups[0].plans[0].rows[0].count, 40);
    fake_step(w);
    assert_int_equal(c->sequence->state, SEQUENCE_DECODE);
    assert_int_equal(w->groups[0].plans[0].rows[0].count, 1);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void continuous_interleaved_requests(void **state)
{
    struct fake_world *w = plain_world(state);
    for (uint32_t i = 0; i < 40; i++) {
        fake_ask(w, i, 1 + i * 7 % 60, 1 + i * 5 % 17);
        fake_turn(w);
        fake_step(w);
    }
    fake_settle(w);
    for (uint32_t i = 0; i < 40; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
    assert_true(fake_pages_are_free(w));
}

static void the_one_that_waits_longest_comes_first(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 12, .max_sessions = 4});
    struct client *running = fake_ask(w, 1, 80, 40);
    fake_turn(w);
    struct client *large = fake_ask(w, 2, 150, 4), *small[8];
    for (uint32_t i = 0; i < 8; i++)
        small[i] = fake_ask(w, 10 + i, 4, 4);
    fake_turn(w);
    assert_false(is_running(large)); /* no room yet, and nobody passes it */
    while (!large->admitted) {
        for (uint32_t i = 0; i < 8; i++)
            assert_false(small[i]->admitted);
        assert_true(fake_step(w));
    }
    fake_settle(w);
    fake_must_have_all(running, FINISH_LENGTH);
    fake_must_have_all(large, FINISH_LENGTH);
    for (uint32_t i = 0; i < 8; i++)
        fake_must_have_all(small[i], FINISH_LENGTH);
}

/* ---- prompts ---- */

static void prefill_processes_full_prompt(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 700, 1);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(w->positions, 700);
    assert_int_equal(counters(w)->prefilled, 700);
}

static void prefill_populates_kv_cache(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 70, 20);
    fake_turn(w);
    fake_step(w);
    assert_int_equal(c->sequence->n_kv, 70);
    for (uint32_t i = 0; i < 4; i++) {
        page_id page = sequence_row_entry(w->arena, c->sequence->slot, 0, i).page;
        assert_int_equal(w->pages[page].written, 0xffff);
        assert_int_equal(page_pool_state(w->s->pool, page), PAGE_SEALED);
    }
    fake_settle(w);
}

static void decode_uses_prefill_kv(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 70, 20);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(w->positions, 70 + 19); /* each position once: the last token is read by nobody */
}

/* ---- ends ---- */

static void decode_respects_max_tokens(void **state)
{
    struct fake_world *w = plain_world(state);
    for (uint32_t most = 1; most < 40; most++) {
        struct client *c = fake_ask(w, most, 10, most);
        c->keep = false;
        fake_settle(w);
        fake_must_have_all(c, FINISH_LENGTH);
        assert_int_equal(c->heard, most);
    }
}

static void the_context_ends_a_sequence(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.context = 100});
    struct client *c = fake_ask(w, 1, 90, 5000);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(c->heard, 10);
}

static void a_stop_id_ends_a_sequence(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_client(w, 1, 30, 50);
    c->stop_id = fake_token(c, 17);
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_STOP);
    assert_int_equal(c->heard, 18);
}

static void an_owner_that_says_stop_ends_its_sequence(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_client(w, 1, 30, 50);
    c->stop_after = 5;
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_STOP);
}

static void nothing_to_compute_ends_at_once(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_ask(w, 1, 30, 0);
    fake_turn(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(w->plans, 0);
}

static void each_prompt_token_is_scored_once(void **state)
{
    struct fake_world *w = plain_world(state);
    for (uint32_t count = 2; count < 70; count += 13)
        for (uint32_t most = 0; most < 3; most++) {
            struct client *c = fake_client(w, 1, count, most);
            c->score = true;
            c->keep = false;
            assert_int_equal(fake_submit(c, NULL), OK);
            fake_settle(w);
            fake_must_have_all(c, FINISH_LENGTH);
        }
}

static void a_long_prompt_is_scored_in_chunks(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *speaker = fake_ask(w, 5, 4, 60), *c = fake_client(w, 1, 900, 2);
    c->score = true;
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    fake_must_have_all(speaker, FINISH_LENGTH);
}

static void one_token_has_nothing_to_score(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *c = fake_client(w, 1, 1, 0);
    c->score = true;
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

/* ---- what is refused ---- */

static void what_can_never_fit_is_refused_with_both_numbers(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 4, .context = 512});
    struct why why;
    struct client *c = fake_client(w, 1, 65, 0);
    assert_int_equal(fake_submit(c, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "65"));
    assert_non_null(strstr(why.text, "64"));
    c = fake_client(w, 1, 64, 1); /* no room for an answer */
    assert_int_equal(fake_submit(c, &why), ERR_INVALID);
    c = fake_ask(w, 1, 63, 5);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    c = fake_client(w, 2, 64, 0);
    c->score = true;
    assert_int_equal(fake_submit(c, &why), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void a_full_queue_refuses(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_sessions = 2, .max_queue = 3});
    struct why why;
    for (uint32_t i = 0; i < 2; i++)
        fake_ask(w, i, 10, 10);
    fake_turn(w);
    for (uint32_t i = 0; i < 3; i++)
        fake_ask(w, 10 + i, 10, 10);
    assert_int_equal(fake_submit(fake_client(w, 20, 10, 10), &why), ERR_FULL);
    assert_non_null(strstr(why.text, "3"));
    fake_settle(w);
    fake_ask(w, 21, 10, 10);
    fake_settle(w);
}

static void free_slots_are_no_queue(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_sessions = 4, .no_queue = true});
    for (uint32_t i = 0; i < 4; i++) /* in one go, as a request with several choices does */
        fake_ask(w, i, 10, 10);
    assert_int_equal(fake_submit(fake_client(w, 20, 10, 10), NULL), ERR_FULL);
    fake_settle(w);
}

/* ---- leaving early ---- */

static void a_cancelled_sequence_frees_its_pages_within_two_steps(void **state)
{
    struct fake_world *w = plain_world(state);
    for (uint32_t steps = 0; steps < 6; steps++) /* waiting, prefill, decode; with and without plans in flight */
        for (uint32_t turn = 0; turn < 2; turn++) {
            struct client *c = fake_ask(w, 10 * steps + turn, 600, 100);
            c->keep = false;
            if (turn)
                fake_turn(w);
            for (uint32_t i = 0; i < steps; i++)
                fake_step(w);
            fake_cancel(c);
            fake_step(w);
            fake_step(w);
            assert_true(fake_pages_are_free(w));
            assert_int_equal(scheduler_running(w->s) + scheduler_waiting(w->s), 0);
            assert_false(fake_step(w));
        }
}

static void one_sequence_is_cleared_without_touching_the_others(void **state)
{
    struct fake_world *w = plain_world(state);
    struct client *stays = fake_ask(w, 1, 50, 60), *leaves = fake_ask(w, 1, 50, 60), *third = fake_ask(w, 2, 33, 60);
    fake_turn(w);
    for (uint32_t i = 0; i < 20; i++)
        fake_step(w);
    fake_cancel(leaves);
    fake_settle(w);
    fake_must_have_all(stays, FINISH_LENGTH);
    fake_must_have_all(third, FINISH_LENGTH);
}

static void batch_capacity_changes_while_running(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_sessions = 2});
    for (uint32_t i = 0; i < 8; i++)
        fake_ask(w, i, 20, 30 + i);
    fake_turn(w);
    fake_step(w);
    assert_int_equal(scheduler_running(w->s), 2);
    scheduler_set_max_sessions(w->s, 6);
    fake_turn(w);
    assert_int_equal(scheduler_running(w->s), 6);
    scheduler_set_max_sessions(w->s, 1); /* nobody is thrown out */
    fake_step(w);
    assert_int_equal(scheduler_running(w->s), 6);
    while (scheduler_waiting(w->s)) {
        uint32_t before = scheduler_waiting(w->s);
        fake_step(w);
        if (scheduler_waiting(w->s) < before)
            assert_int_equal(scheduler_running(w->s), 1);
    }
    fake_settle(w);
    for (uint32_t i = 0; i < 8; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
}

/* ---- memory of its own ---- */

static void turns_and_answers_allocate_nothing(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 20, .max_sessions = 4});
    struct why why;
    for (uint32_t i = 0; i < 4; i++)
        fake_ask(w, i, 20, 100); /* the pool is too small: preemption and re-admission are in it */
    if (!MALLOC_COUNT_WORKS)
        skip();
    malloc_count_begin();
    scheduler_turn(w->s, w->now);
    while (w->groups[0].plan_count) {
        struct fake_group *g = &w->groups[0];
        fake_compute(w, 0);
        uint64_t step = g->plans[0].step;
        g->plans[0] = g->plans[1];
        g->plan_count--;
        g->computed--;
        w->now += 1000;
        if (scheduler_step_done(w->s, 0, g->epoch, step, w->now, &why))
            break;
        scheduler_turn(w->s, w->now);
    }
    uint64_t allocations = malloc_count_end();
    assert_int_equal(allocations, 0);
    assert_true(counters(w)->preempted > 0);
    for (uint32_t i = 0; i < 4; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(continuous_admits_to_free_slots),
        IN_A_WORLD(continuous_evicts_on_complete),
        IN_A_WORLD(continuous_respects_max_slots),
        IN_A_WORLD(continuous_prefill_then_decode),
        IN_A_WORLD(continuous_interleaved_requests),
        IN_A_WORLD(the_one_that_waits_longest_comes_first),
        IN_A_WORLD(prefill_processes_full_prompt),
        IN_A_WORLD(prefill_populates_kv_cache),
        IN_A_WORLD(decode_uses_prefill_kv),
        IN_A_WORLD(decode_respects_max_tokens),
        IN_A_WORLD(the_context_ends_a_sequence),
        IN_A_WORLD(a_stop_id_ends_a_sequence),
        IN_A_WORLD(an_owner_that_says_stop_ends_its_sequence),
        IN_A_WORLD(nothing_to_compute_ends_at_once),
        IN_A_WORLD(each_prompt_token_is_scored_once),
        IN_A_WORLD(a_long_prompt_is_scored_in_chunks),
        IN_A_WORLD(one_token_has_nothing_to_score),
        IN_A_WORLD(what_can_never_fit_is_refused_with_both_numbers),
        IN_A_WORLD(a_full_queue_refuses),
        IN_A_WORLD(free_slots_are_no_queue),
        IN_A_WORLD(a_cancelled_sequence_frees_its_pages_within_two_steps),
        IN_A_WORLD(one_sequence_is_cleared_without_touching_the_others),
        IN_A_WORLD(batch_capacity_changes_while_running),
        IN_A_WORLD(turns_and_answers_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
