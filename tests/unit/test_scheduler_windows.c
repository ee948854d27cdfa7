/* Layers with a sliding window: a sequence holds the pages that its window needs, and what was left behind is found again. */
#include "coordinator/scheduler.h"

#include "tests/support/fake_world_case.h"

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
    struct fake_world *w = plain_world(state);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(a_long_sequence_holds_the_pages_of_its_window_and_no_more),
        IN_A_WORLD(a_model_without_windows_has_one_class),
        IN_A_WORLD(a_prompt_beyond_the_window_is_found_again),
        IN_A_WORLD(a_prompt_whose_window_was_evicted_is_computed_again),
        IN_A_WORLD(windows_outlive_their_coordinator),
        IN_A_WORLD(windows_that_need_more_pages_than_there_are_make_the_youngest_wait),
        IN_A_WORLD(a_window_that_two_hold_counts_for_both),
        IN_A_WORLD(windows_without_room_to_move_limit_a_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
