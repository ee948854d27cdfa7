/* The scheduler against a model that is a hash: whoever gets one wrong token has been given somebody else's pages. */
#include "coordinator/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "shm/sequence_table.h"
#include "tests/support/fake_world.h"
#include "tests/support/malloc_count.h"

static int close_world(void **state)
{
    if (*state)
        fake_world_close(*state);
    return 0;
}

static struct fake_world *world_of(void **state, struct fake_sizes sizes)
{
    *state = fake_world_open(&sizes);
    return *state;
}

static struct fake_world *world(void **state)
{
    return world_of(state, (struct fake_sizes){0});
}

static const struct scheduler_counters *counters(const struct fake_world *w)
{
    return scheduler_counters(w->s);
}

static bool is_running(const struct client *c)
{
    return c->sequence && c->sequence->state != SEQUENCE_WAITING;
}

/* ---- joining and leaving ---- */

static void continuous_admits_to_free_slots(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
    struct client *c = fake_ask(w, 1, 700, 1);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(w->positions, 700);
    assert_int_equal(counters(w)->prefilled, 700);
}

static void prefill_populates_kv_cache(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
    struct client *c = fake_ask(w, 1, 70, 20);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(w->positions, 70 + 19); /* each position once: the last token is read by nobody */
}

/* ---- ends ---- */

static void decode_respects_max_tokens(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
    struct client *c = fake_client(w, 1, 30, 50);
    c->stop_id = fake_token(c, 17);
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_STOP);
    assert_int_equal(c->heard, 18);
}

static void an_owner_that_says_stop_ends_its_sequence(void **state)
{
    struct fake_world *w = world(state);
    struct client *c = fake_client(w, 1, 30, 50);
    c->stop_after = 5;
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_STOP);
}

static void nothing_to_compute_ends_at_once(void **state)
{
    struct fake_world *w = world(state);
    struct client *c = fake_ask(w, 1, 30, 0);
    fake_turn(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(w->plans, 0);
}

static void each_prompt_token_is_scored_once(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
    struct client *speaker = fake_ask(w, 5, 4, 60), *c = fake_client(w, 1, 900, 2);
    c->score = true;
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    fake_must_have_all(speaker, FINISH_LENGTH);
}

static void one_token_has_nothing_to_score(void **state)
{
    struct fake_world *w = world(state);
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

/* ---- pages that are shared ---- */

static void a_prompt_finds_its_beginning_in_pages(void **state)
{
    struct fake_world *w = world(state);
    for (uint32_t count = 1; count < 70; count++) {
        struct client *first = fake_ask(w, count, count, 1);
        fake_settle(w);
        struct client *second = fake_ask(w, count, count, 1);
        fake_settle(w);
        assert_int_equal(first->cached, 0);
        assert_int_equal(second->cached, (count - 1) / PAGE_TOKENS * PAGE_TOKENS);
    }
}

static void an_answer_is_found_by_the_next_turn_of_the_chat(void **state)
{
    struct fake_world *w = world(state);
    struct client *first = fake_ask(w, 1, 40, 40);
    fake_settle(w);
    struct client *second = fake_client(w, 1, 90, 5);
    memcpy(second->prompt + 40, first->tokens, 40 * sizeof *first->tokens);
    assert_int_equal(fake_submit(second, NULL), OK);
    fake_settle(w);
    fake_must_have_all(second, FINISH_LENGTH);
    assert_int_equal(second->cached, 64); /* of the 79 positions that were computed */
}

static void tenants_do_not_share(void **state)
{
    struct fake_world *w = world(state);
    for (uint64_t salt = 0; salt < 3; salt++)
        for (uint32_t again = 0; again < 2; again++) {
            struct client *c = fake_client(w, 1, 50, 5);
            c->salt = salt;
            assert_int_equal(fake_submit(c, NULL), OK);
            fake_settle(w);
            assert_int_equal(c->cached, again ? 48 : 0);
        }
}

static void scores_are_computed_and_not_found(void **state)
{
    struct fake_world *w = world(state);
    fake_ask(w, 1, 50, 1);
    fake_settle(w);
    struct client *c = fake_client(w, 1, 50, 1);
    c->score = true;
    assert_int_equal(fake_submit(c, NULL), OK);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(c->cached, 0);
}

static void who_needs_a_page_that_is_being_made_waits_for_it(void **state)
{
    struct fake_world *w = world(state);
    struct client *first = fake_ask(w, 1, 600, 5);
    fake_turn(w);
    struct client *second = fake_ask(w, 1, 600, 5), *other = fake_ask(w, 2, 20, 5);
    fake_turn(w);
    assert_false(is_running(second));
    assert_true(is_running(other)); /* nobody else waits for that */
    fake_settle(w);
    assert_int_equal(second->cached, 592);
    fake_must_have_all(first, FINISH_LENGTH);
    fake_must_have_all(second, FINISH_LENGTH);
    assert_int_equal(counters(w)->reused, 592);
}

static void who_waits_for_a_page_goes_on_when_its_maker_leaves(void **state)
{
    struct fake_world *w = world(state);
    struct client *first = fake_ask(w, 1, 600, 5);
    fake_turn(w);
    struct client *second = fake_ask(w, 1, 600, 5);
    fake_turn(w);
    fake_cancel(first);
    fake_settle(w);
    fake_must_have_all(second, FINISH_LENGTH);
}

static void equal_prompts_computed_at_once_become_one_chain(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.max_sessions = 4});
    struct client *a = fake_ask(w, 1, 20, 40);
    fake_settle(w);
    struct client *b = fake_ask(w, 1, 20, 40), *c = fake_ask(w, 1, 20, 40);
    fake_settle(w); /* both speak the same tokens, page by page */
    fake_must_have_all(b, FINISH_LENGTH);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_memory_equal(a->tokens, c->tokens, 40 * sizeof *a->tokens);
    assert_int_equal(prefix_cache_count(w->s->cache), (20 + 39) / PAGE_TOKENS);
}

/* ---- a pool that is too small for all ---- */

static void a_full_pool_makes_the_youngest_wait_and_changes_no_token(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 16, .max_sessions = 4});
    for (uint32_t i = 0; i < 4; i++)
        fake_ask(w, i, 20, 150);
    fake_settle(w);
    assert_true(counters(w)->preempted > 0);
    for (uint32_t i = 0; i < 4; i++)
        fake_must_have_all(&w->clients[i], FINISH_LENGTH);
    assert_true(fake_pages_are_free(w));
}

static void the_oldest_is_never_sent_back(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 16, .max_sessions = 4});
    for (uint32_t i = 0; i < 4; i++)
        fake_ask(w, i, 20, 150);
    fake_turn(w);
    do
        assert_true(w->clients[0].ended || is_running(&w->clients[0]));
    while (fake_step(w));
}

static void alone_a_sequence_may_have_all_pages(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 8});
    struct client *other = fake_ask(w, 1, 30, 2);
    fake_settle(w);
    struct client *c = fake_ask(w, 2, 100, 1000);
    fake_settle(w);
    fake_must_have_all(other, FINISH_LENGTH);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(c->heard, 28);
    assert_int_equal(counters(w)->preempted, 0);
}

static void who_is_alone_waits_for_pages_that_are_on_their_way(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 8});
    for (uint32_t prompt = 1; prompt <= PAGE_TOKENS; prompt++)
        for (uint32_t steps = 1; steps < 4; steps++) {
            struct client *stays = fake_ask(w, prompt, prompt, 40), *leaves = fake_ask(w, 50, 90, 40);
            fake_turn(w);
            for (uint32_t i = 0; i < steps; i++)
                fake_step(w);
            fake_cancel(leaves);
            fake_settle(w);
            fake_must_have_all(stays, FINISH_LENGTH);
        }
    assert_int_equal(counters(w)->preempted, 0);
}

static void a_sequence_that_gave_its_pages_back_is_told_admitted_once(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.pages = 12, .max_sessions = 6});
    for (uint32_t i = 0; i < 6; i++)
        fake_ask(w, i, 5, 100);
    fake_settle(w); /* on_admitted of the rig fails at a second one */
    assert_true(counters(w)->preempted > 0);
}

/* ---- leaving early ---- */

static void a_cancelled_sequence_frees_its_pages_within_two_steps(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
    struct client *c = fake_ask(w, 1, 40, 100);
    fall_after(w, 5, 0, true);
    fake_cancel(c);
    assert_false(fake_pages_are_free(w)); /* a late hand may still write there */
    fake_group_up(w, 0);
    assert_true(fake_pages_are_free(w));
}

static void results_of_a_void_plan_are_ignored(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
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

/* ---- what outlives a coordinator ---- */

static void sessions_and_pages_outlive_their_coordinator(void **state)
{
    struct fake_world *w = world(state);
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
    struct fake_world *w = world(state);
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

/* ---- anything ---- */

static uint64_t life_seed, dice;

static uint32_t below(uint32_t n)
{
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return (uint32_t)((dice * 0x2545f4914f6cdd1dull >> 32) % n);
}

static void ask_at_random(struct fake_world *w)
{
    uint32_t room = scheduler_token_limit(w->s);
    struct client *c = fake_client(w, below(3), 1 + below(below(4) ? room / 4 : room - 2), below(40));
    c->keep = false;
    c->seed = below(2);
    c->salt = below(4) == 0;
    c->score = below(5) == 0;
    c->stop_after = below(4) ? 0 : 1 + below(20);
    c->poison_at = below(30) ? 0 : 1 + below(c->prompt_tokens + 20);
    if (below(2))
        fake_differ(c, below(c->prompt_tokens), below(5));
    struct why why;
    enum err e = fake_submit(c, &why);
    assert_true(e == OK || e == ERR_FULL);
}

static void check_ended(const struct fake_world *w)
{
    for (uint32_t i = 0; i < w->client_count; i++) {
        const struct client *c = &w->clients[i];
        if (!c->ended)
            continue;
        bool stopped = c->stop_after && c->heard == c->stop_after;
        if (c->reason == FINISH_ERROR)
            assert_true(c->poison_at || c->deaths >= 8 ||
                        c->suspect_deaths > 2); /* nobody else: what it heard was compared when it came */
        else
            fake_must_have_all(c, stopped ? FINISH_STOP : FINISH_LENGTH);
    }
}

static void cancel_at_random(struct fake_world *w)
{
    uint32_t i = below(w->client_count + 1);
    if (i < w->client_count && w->clients[i].sequence)
        fake_cancel(&w->clients[i]);
}

/* It may have written into any page of its node that was sealed; who reads it afterwards must find out. */
static void die_of_own_fault(struct fake_world *w, uint32_t g)
{
    page_id page = below(w->arena->layout.page_count);
    enum page_state state = page_pool_state(w->s->pool, page);
    if ((state == PAGE_SEALED || state == PAGE_CACHED) &&
        scheduler_node_of_page(w->s, page) == w->arena->geometry.group_node[g])
        fake_damage(w, page);
    fake_suspect_death(w, g, below(3), false);
}

static void fall_or_rise(struct fake_world *w)
{
    uint32_t groups = w->arena->geometry.groups, g = below(groups), others = 0;
    for (uint32_t i = 0; i < groups; i++)
        others += i != g && !w->groups[i].lost;
    if (w->groups[g].lost)
        return;
    if (w->groups[g].up && below(2))
        fake_group_down(w, g, below(2));
    else if (w->groups[g].up)
        die_of_own_fault(w, g);
    else if (others && below(5) == 0)
        fake_group_lost(w, g);
    else
        fake_group_up(w, g);
}

static void leave_and_come_back(struct fake_world *w)
{
    uint32_t i = below(w->client_count + 1);
    struct why why;
    if (i == w->client_count || !w->clients[i].sequence)
        return;
    fake_park(&w->clients[i]);
    enum err e = fake_submit(&w->clients[i], &why);
    assert_true(e == OK || (e == ERR_FULL && !w->clients[i].slot_generation));
}

static void live_at_random(struct fake_world *w, uint32_t events)
{
    uint32_t groups = w->arena->geometry.groups;
    for (uint32_t i = 0; i < events; i++) {
        uint32_t what = below(100), g = below(groups);
        if (what < 12)
            ask_at_random(w);
        else if (what < 16)
            cancel_at_random(w);
        else if (what < 19)
            fall_or_rise(w);
        else if (what < 20 && below(8) == 0)
            fake_coordinator_dies(w);
        else if (what < 21)
            leave_and_come_back(w);
        else if (what < 22)
            scheduler_set_max_sessions(w->s, 1 + below(w->arena->geometry.session_slots));
        else if (what < 55 && w->groups[g].up)
            fake_compute(w, g);
        else if (what < 88 && w->groups[g].up)
            fake_report(w, g);
        else if (what < 92 && w->groups[g].up)
            fake_answer(w, g);
        fake_turn(w);
        check_ended(w);
    }
    for (uint32_t g = 0; g < groups; g++)
        if (!w->groups[g].up && !w->groups[g].lost)
            fake_group_up(w, g);
    fake_settle(w);
    check_ended(w);
}

static void random_lives_end_with_the_models_own_tokens(void **state)
{
    const char *given = getenv("QUIRE_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    const char *count = getenv("QUIRE_LIVES"); /* make check-sim N=… */
    uint32_t lives = count ? (uint32_t)strtoul(count, NULL, 10) : getenv("QUIRE_LONG") ? 10000 : 1000;
    (void)state;
    print_message("lives from QUIRE_SEED=%llu on\n", (unsigned long long)seed);
    for (uint32_t life = 0; life < lives; life++) {
        life_seed = seed + life;
        dice = life_seed * 0x9e3779b97f4a7c15ull | 1;
        struct fake_sizes sizes = {.pages = 5 + below(30),
                                   .context = 40 + below(300),
                                   .session_slots = 1 + below(8),
                                   .max_queue = 1 + below(20)};
        if (below(2)) {
            sizes.window = 1 + below(100);
            sizes.window_pages = 5 + below(30);
        }
        if (below(16) == 0) { /* room for windows to move on behind long prompts */
            sizes.window = 1 + below(200);
            sizes.window_pages = scheduler_window_pages(sizes.window) + below(40);
            sizes.context = 1000 + below(1500);
            sizes.pages = 70 + below(60);
        }
        sizes.nodes = 1 + below(2);
        sizes.groups = sizes.nodes * (1 + below(2));
        struct fake_world *w = fake_world_open(&sizes);
        live_at_random(w, 1500);
        assert_int_equal(scheduler_running(w->s) + scheduler_waiting(w->s), 0);
        assert_true(fake_pages_are_free(w));
        fake_world_close(w);
    }
}

/* ---- windows ---- */

static uint32_t pages_used(const struct fake_world *w, uint32_t page_class)
{
    return scheduler_class_pages(w->s, page_class).used;
}

static struct fake_world *world_of_windows(void **state)
{
    return world_of(state, (struct fake_sizes){.pages = 256, .context = 4096, .window = 100, .window_pages = 120});
}

static void a_long_sequence_holds_the_pages_of_its_window_and_no_more(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *c = fake_ask(w, 1, 3000, 200);
    uint32_t most = 0;
    fake_turn(w);
    while (c->heard == 0) {
        assert_true(fake_step(w));
        most = pages_used(w, PAGE_CLASS_WINDOW) > most ? pages_used(w, PAGE_CLASS_WINDOW) : most;
    }
    assert_in_range(most, pages_for(100 + STEP_BUDGET), scheduler_window_pages(100));
    while (c->heard < 100)
        assert_true(fake_step(w));
    assert_int_equal(pages_used(w, PAGE_CLASS_WHOLE), pages_for(c->sequence->planned_kv));
    assert_in_range(pages_used(w, PAGE_CLASS_WINDOW), pages_for(100), pages_for(100) + 2);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void a_model_without_windows_has_one_class(void **state)
{
    struct fake_world *w = world(state);
    struct client *c = fake_ask(w, 1, 100, 10);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(scheduler_pages(w->s).total, scheduler_class_pages(w->s, PAGE_CLASS_WHOLE).total);
}

/* What the first one's window left behind stays findable until somebody needs the room. */
static void a_prompt_beyond_the_window_is_found_again(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *first = fake_ask(w, 1, 1000, 4);
    fake_settle(w);
    struct client *same = fake_ask(w, 1, 1000, 4), *shorter = fake_ask(w, 1, 500, 4),
                  *other = fake_client(w, 1, 900, 4);
    struct why why;
    fake_differ(other, 700, 1);
    assert_int_equal(fake_submit(other, &why), OK);
    fake_settle(w);
    assert_int_equal(same->cached, 999 / PAGE_TOKENS * PAGE_TOKENS);
    assert_int_equal(shorter->cached, 499 / PAGE_TOKENS * PAGE_TOKENS);
    assert_int_equal(other->cached, 700 / PAGE_TOKENS * PAGE_TOKENS);
    fake_must_have_all(first, FINISH_LENGTH);
    fake_must_have_all(same, FINISH_LENGTH);
    fake_must_have_all(shorter, FINISH_LENGTH);
    fake_must_have_all(other, FINISH_LENGTH);
}

static void a_prompt_whose_window_was_evicted_is_computed_again(void **state)
{
    struct fake_world *w = world_of_windows(state);
    fake_ask(w, 1, 1500, 4); /* 94 pages of either class */
    fake_settle(w);
    fake_ask(w, 2, 1500, 4); /* 120 of windows are not enough for both: the oldest go */
    fake_settle(w);
    struct client *begins_like_it = fake_ask(w, 1, 500, 4), *goes_on = fake_ask(w, 1, 1490, 4);
    fake_settle(w);
    assert_int_equal(begins_like_it->cached, 0);
    assert_int_equal(goes_on->cached, 1489 / PAGE_TOKENS * PAGE_TOKENS);
    fake_must_have_all(begins_like_it, FINISH_LENGTH);
    fake_must_have_all(goes_on, FINISH_LENGTH);
    struct client *again = fake_ask(w, 1, 500, 4); /* whoever computed it left it behind */
    fake_settle(w);
    assert_int_equal(again->cached, 499 / PAGE_TOKENS * PAGE_TOKENS);
}

static void windows_outlive_their_coordinator(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *c = fake_ask(w, 1, 1400, 300);
    fake_turn(w);
    while (c->heard < 50)
        assert_true(fake_step(w));
    uint32_t kv = c->sequence->n_kv;
    fake_coordinator_dies(w);
    for (fake_turn(w); c->sequence->state == SEQUENCE_WAITING; fake_turn(w))
        assert_true(fake_answer(w, 0));                          /* what is found is looked at first */
    assert_int_equal(c->cached, kv / PAGE_TOKENS * PAGE_TOKENS); /* no more than a page is computed again */
    assert_in_range(pages_used(w, PAGE_CLASS_WINDOW), pages_for(100), pages_for(100) + 2);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void windows_that_need_more_pages_than_there_are_make_the_youngest_wait(void **state)
{
    struct fake_world *w =
        world_of(state, (struct fake_sizes){.pages = 256, .context = 4096, .window = 500, .window_pages = 100});
    struct client *clients[5];
    for (uint32_t i = 0; i < 5; i++)
        clients[i] = fake_ask(w, i, 20, 600); /* 33 pages of windows each in the end */
    fake_settle(w);
    for (uint32_t i = 0; i < 5; i++)
        fake_must_have_all(clients[i], FINISH_LENGTH);
    assert_true(counters(w)->preempted > 0);
}

/* What both hold of a window is not given back when one of them moves on: each has to find room for a window of its own. */
static void a_window_that_two_hold_counts_for_both(void **state)
{
    struct fake_world *w =
        world_of(state, (struct fake_sizes){.pages = 700, .context = 6144, .window = 1800, .window_pages = 250});
    struct client *first = fake_ask(w, 1, 6000, 4);
    fake_turn(w);
    while (first->sequence->n_kv < 2048)
        assert_true(fake_step(w));
    struct client *second = fake_client(w, 1, 3000, 4);
    struct why why;
    fake_differ(second, 2032, 1);
    assert_int_equal(fake_submit(second, &why), OK);
    fake_settle(w);
    fake_must_have_all(first, FINISH_LENGTH);
    fake_must_have_all(second, FINISH_LENGTH);
    assert_int_equal(counters(w)->preempted, 0);
}

static void windows_without_room_to_move_limit_a_sequence(void **state)
{
    struct fake_world *w =
        world_of(state, (struct fake_sizes){.pages = 256, .context = 4096, .window = 100, .window_pages = 20});
    assert_int_equal(scheduler_token_limit(w->s), 20 * PAGE_TOKENS);
    struct client *c = fake_ask(w, 1, 200, 1000);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static int tell_seed(void **state)
{
    (void)state;
    print_message("the last life was of QUIRE_SEED=%llu\n", (unsigned long long)life_seed);
    return 0;
}

#define IN_A_WORLD(test) cmocka_unit_test_teardown(test, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(continuous_admits_to_free_slots),
        IN_A_WORLD(sessions_and_pages_outlive_their_coordinator),
        IN_A_WORLD(who_waits_outlives_the_coordinator_too_as_long_as_there_are_slots),
        IN_A_WORLD(a_parked_sequence_goes_on_in_its_slot),
        IN_A_WORLD(a_slot_that_was_given_away_is_not_gone_on_in),
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
        IN_A_WORLD(a_prompt_finds_its_beginning_in_pages),
        IN_A_WORLD(an_answer_is_found_by_the_next_turn_of_the_chat),
        IN_A_WORLD(tenants_do_not_share),
        IN_A_WORLD(scores_are_computed_and_not_found),
        IN_A_WORLD(who_needs_a_page_that_is_being_made_waits_for_it),
        IN_A_WORLD(who_waits_for_a_page_goes_on_when_its_maker_leaves),
        IN_A_WORLD(equal_prompts_computed_at_once_become_one_chain),
        IN_A_WORLD(a_full_pool_makes_the_youngest_wait_and_changes_no_token),
        IN_A_WORLD(the_oldest_is_never_sent_back),
        IN_A_WORLD(alone_a_sequence_may_have_all_pages),
        IN_A_WORLD(who_is_alone_waits_for_pages_that_are_on_their_way),
        IN_A_WORLD(a_sequence_that_gave_its_pages_back_is_told_admitted_once),
        IN_A_WORLD(a_cancelled_sequence_frees_its_pages_within_two_steps),
        IN_A_WORLD(one_sequence_is_cleared_without_touching_the_others),
        IN_A_WORLD(batch_capacity_changes_while_running),
        IN_A_WORLD(tokens_are_the_same_wherever_a_worker_dies),
        IN_A_WORLD(who_is_cancelled_while_a_group_is_down_keeps_its_pages_until_it_stands),
        IN_A_WORLD(results_of_a_void_plan_are_ignored),
        IN_A_WORLD(a_spoiled_result_voids_the_step_and_loses_no_token),
        IN_A_WORLD(two_groups_on_two_nodes_share_the_work),
        IN_A_WORLD(one_group_goes_on_while_another_is_down),
        IN_A_WORLD(what_a_lost_group_computed_goes_on_in_another),
        IN_A_WORLD(shared_pages_of_another_node_cannot_lock_two_nodes),
        IN_A_WORLD(turns_and_answers_allocate_nothing),
        IN_A_WORLD(a_long_sequence_holds_the_pages_of_its_window_and_no_more),
        IN_A_WORLD(a_model_without_windows_has_one_class),
        IN_A_WORLD(a_prompt_beyond_the_window_is_found_again),
        IN_A_WORLD(a_prompt_whose_window_was_evicted_is_computed_again),
        IN_A_WORLD(windows_outlive_their_coordinator),
        IN_A_WORLD(windows_that_need_more_pages_than_there_are_make_the_youngest_wait),
        IN_A_WORLD(a_window_that_two_hold_counts_for_both),
        IN_A_WORLD(windows_without_room_to_move_limit_a_sequence),
        cmocka_unit_test_teardown(random_lives_end_with_the_models_own_tokens, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
