/* Lives of the scheduler in which anything happens at random: all who are not cancelled hear what the model says. */
#include "coordinator/scheduler.h"

#include <stdlib.h>
#include <time.h>

#include "tests/support/fake_world_case.h"

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

static int tell_seed(void **state)
{
    (void)state;
    print_message("the last life was of QUIRE_SEED=%llu\n", (unsigned long long)life_seed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(random_lives_end_with_the_models_own_tokens, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
