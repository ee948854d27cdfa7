/* Pages in doubt: nobody reads one whose bytes are not what was computed. The fake world's workers compare all that they read. */
#include "coordinator/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "shm/sequence_table.h"
#include "tests/support/fake_world_case.h"

static page_id page_of_class(const struct client *c, uint32_t page_class, uint32_t index)
{
    return sequence_row_entry(c->world->arena, c->sequence->slot, page_class, index).page;
}

static page_id page_of(const struct client *c, uint32_t index)
{
    return page_of_class(c, PAGE_CLASS_WHOLE, index);
}

static void steps(struct fake_world *w, uint32_t count)
{
    fake_turn(w);
    for (uint32_t i = 0; i < count; i++)
        fake_step(w);
}

static bool has_checksum(const struct fake_world *w, page_id page)
{
    return page_pool_descriptor(w->s->pool, page)->has_checksum;
}

static void a_sealed_page_has_its_checksum_soon_after(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 40, 60);
    steps(w, 4);
    assert_true(has_checksum(w, page_of(c, 0)) && has_checksum(w, page_of(c, 1)));
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(scheduler_counters(w->s)->damaged, 0);
}

static void a_page_that_a_dying_worker_wrote_over_is_computed_again(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 100, 60), *other = fake_ask(w, 2, 40, 60);
    steps(w, 6);
    uint64_t before = w->positions;
    page_id hurt = page_of(c, 3);
    fake_damage(w, hurt);
    fake_suspect_death(w, 0, 0, false);
    assert_int_equal(scheduler_running(w->s), 0); /* nobody holds a page in doubt */
    fake_group_up(w, 0);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    fake_must_have_all(other, FINISH_LENGTH);
    assert_int_equal(scheduler_counters(w->s)->damaged, 1);
    assert_true(w->positions - before <
                2 * 60 + 52 + 2 * 40); /* three good pages before it, and two of the other, were not */
}

static void a_page_that_nobody_summed_up_before_the_death_is_computed_again(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 40, 60);
    fake_turn(w);
    fake_compute(w, 0);
    fake_report(w, 0);
    fake_turn(w);
    assert_true(w->groups[0].question != 0); /* asked, and never answered */
    page_id unknown = page_of(c, 0);
    uint32_t generation = page_pool_name(w->s->pool, unknown).generation;
    assert_false(has_checksum(w, unknown));
    fake_damage(w, unknown);
    fake_suspect_death(w, 0, 0, false);
    fake_group_up(w, 0);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(scheduler_counters(w->s)->damaged, 0);
    assert_true(page_pool_name(w->s->pool, unknown).generation != generation ||
                page_pool_state(w->s->pool, unknown) == PAGE_FREE);
}

static void what_others_left_in_the_cache_is_looked_at_before_it_is_shared(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *first = fake_ask(w, 1, 100, 4);
    steps(w, 3);
    page_id hurt = page_of(first, 4);
    fake_settle(w);
    fake_damage(w, hurt);
    fake_suspect_death(w, 0, 0, false);
    fake_group_up(w, 0);
    struct client *second = fake_ask(w, 1, 100, 4);
    fake_settle(w);
    fake_must_have_all(second, FINISH_LENGTH);
    assert_int_equal(second->cached, 4 * PAGE_TOKENS);
    struct client *third = fake_ask(w, 1, 100, 4); /* what was computed again is found again */
    fake_settle(w);
    fake_must_have_all(third, FINISH_LENGTH);
    assert_int_equal(third->cached, 6 * PAGE_TOKENS);
    assert_int_equal(scheduler_counters(w->s)->damaged, 1);
}

static void a_kill_from_outside_asks_for_nothing_again(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 100, 60);
    steps(w, 6);
    uint64_t summed = scheduler_counters(w->s)->summed;
    assert_int_equal(summed, 6);
    fake_group_down(w, 0, true);
    assert_true(c->sequence->state != SEQUENCE_WAITING); /* it keeps its pages */
    fake_group_up(w, 0);
    fake_step(w);
    assert_int_equal(scheduler_counters(w->s)->summed, summed);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void another_node_is_not_in_doubt(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){.nodes = 2, .pages = 64});
    struct client *a = fake_ask(w, 1, 100, 40), *b = fake_ask(w, 2, 100, 40);
    steps(w, 4);
    uint32_t group = a->sequence->group;
    assert_int_not_equal(b->sequence->group, group);
    fake_suspect_death(w, group, 0, false);
    assert_int_equal(a->sequence->state, SEQUENCE_WAITING);
    assert_int_equal(b->sequence->state, SEQUENCE_DECODE);
    fake_turn(w);
    fake_group_up(w, group);
    fake_settle(w);
    fake_must_have_all(a, FINISH_LENGTH);
    fake_must_have_all(b, FINISH_LENGTH);
}

static void a_death_while_pages_are_being_looked_at_begins_it_anew(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 100, 30);
    steps(w, 5);
    fake_suspect_death(w, 0, 0, false);
    fake_group_up(w, 0);
    fake_turn(w);
    assert_true(w->groups[0].question != 0);
    uint64_t late = w->groups[0].question;
    fake_damage(w, 0);
    fake_suspect_death(w, 0, 1, false);
    uint32_t nothing[SUM_PAGES_MAX] = {0};
    scheduler_sums(w->s, 0, late, nothing, 6); /* of the dead: nobody listens */
    fake_group_up(w, 0);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void what_a_new_coordinator_takes_over_is_looked_at_first(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 100, 60);
    steps(w, 6);
    fake_damage(w, page_of(c, 2));
    fake_coordinator_dies(w);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(scheduler_counters(w->s)->damaged, 1);
}

static void an_answer_that_is_lost_is_asked_for_again(void **state)
{
    struct fake_world *w = world_of(state, (struct fake_sizes){0});
    struct client *c = fake_ask(w, 1, 40, 60);
    fake_turn(w);
    fake_compute(w, 0);
    fake_report(w, 0);
    fake_turn(w);
    page_id page = page_of(c, 0);
    uint64_t lost = w->groups[0].question, since, planned;
    w->groups[0].question = 0;
    fake_turn(w);
    assert_int_equal(w->groups[0].question, 0);
    while (fake_compute(w, 0) && fake_report(w, 0))
        continue;
    assert_true(scheduler_in_flight(w->s, 0, &since, &planned)); /* a worker that does not answer hangs */
    w->now += 11 * 1000 * 1000;
    fake_turn(w);
    assert_true(w->groups[0].question > lost);
    fake_answer(w, 0);
    assert_true(has_checksum(w, page));
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

/* ---- windows ---- */

static struct fake_world *world_of_windows(void **state)
{
    return world_of(state, (struct fake_sizes){.pages = 256, .context = 4096, .window = 100, .window_pages = 120});
}

static void step_until_heard(struct client *c, uint32_t heard)
{
    fake_turn(c->world);
    while (c->heard < heard)
        assert_true(fake_step(c->world));
}

static void pages_of_windows_have_checksums_too(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *c = fake_ask(w, 1, 40, 60);
    steps(w, 4);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(has_checksum(w, page_of_class(c, PAGE_CLASS_WINDOW, i)));
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void a_window_that_was_written_over_is_not_shared(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *first = fake_ask(w, 1, 1000, 4);
    step_until_heard(first, 1);
    page_id hurt = page_of_class(first, PAGE_CLASS_WINDOW, 58);
    fake_settle(w);
    fake_damage(w, hurt);
    fake_suspect_death(w, 0, 0, false);
    fake_group_up(w, 0);
    struct client *second = fake_ask(w, 1, 1000, 4);
    fake_settle(w);
    fake_must_have_all(second, FINISH_LENGTH);
    assert_int_equal(second->cached, 58 * PAGE_TOKENS); /* as far as a window is whole */
    assert_int_equal(scheduler_counters(w->s)->damaged, 1);
    struct client *third = fake_ask(w, 1, 1000, 4); /* what was computed again is found again */
    fake_settle(w);
    fake_must_have_all(third, FINISH_LENGTH);
    assert_int_equal(third->cached, 62 * PAGE_TOKENS);
}

static void a_window_that_nobody_summed_up_before_the_death_is_not_shared(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *c = fake_ask(w, 1, 40, 60);
    fake_turn(w);
    fake_compute(w, 0);
    fake_report(w, 0);
    fake_turn(w);
    page_id unknown = page_of_class(c, PAGE_CLASS_WINDOW, 1);
    assert_false(has_checksum(w, unknown));
    fake_damage(w, unknown);
    fake_suspect_death(w, 0, 0, false);
    fake_group_up(w, 0);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
}

static void a_window_that_a_new_coordinator_takes_over_is_looked_at_first(void **state)
{
    struct fake_world *w = world_of_windows(state);
    struct client *c = fake_ask(w, 1, 1000, 60);
    step_until_heard(c, 5);
    fake_damage(w, page_of_class(c, PAGE_CLASS_WINDOW, 58));
    fake_coordinator_dies(w);
    fake_settle(w);
    fake_must_have_all(c, FINISH_LENGTH);
    assert_int_equal(scheduler_counters(w->s)->damaged, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(a_sealed_page_has_its_checksum_soon_after),
        IN_A_WORLD(a_page_that_a_dying_worker_wrote_over_is_computed_again),
        IN_A_WORLD(a_page_that_nobody_summed_up_before_the_death_is_computed_again),
        IN_A_WORLD(what_others_left_in_the_cache_is_looked_at_before_it_is_shared),
        IN_A_WORLD(a_kill_from_outside_asks_for_nothing_again),
        IN_A_WORLD(another_node_is_not_in_doubt),
        IN_A_WORLD(a_death_while_pages_are_being_looked_at_begins_it_anew),
        IN_A_WORLD(what_a_new_coordinator_takes_over_is_looked_at_first),
        IN_A_WORLD(an_answer_that_is_lost_is_asked_for_again),
        IN_A_WORLD(pages_of_windows_have_checksums_too),
        IN_A_WORLD(a_window_that_was_written_over_is_not_shared),
        IN_A_WORLD(a_window_that_nobody_summed_up_before_the_death_is_not_shared),
        IN_A_WORLD(a_window_that_a_new_coordinator_takes_over_is_looked_at_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
