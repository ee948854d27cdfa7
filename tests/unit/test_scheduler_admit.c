/* Who comes in, with which pages: those of equal beginnings are shared, and when there are too few the youngest waits. */
#include "coordinator/scheduler.h"

#include <string.h>

#include "tests/support/fake_world_case.h"

/* ---- pages that are shared ---- */

static void a_prompt_finds_its_beginning_in_pages(void **state)
{
    struct fake_world *w = plain_world(state);
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
    struct fake_world *w = plain_world(state);
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
    struct fake_world *w = plain_world(state);
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
    struct fake_world *w = plain_world(state);
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
    struct fake_world *w = plain_world(state);
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
    struct fake_world *w = plain_world(state);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
