/* fake_world: opened, a turn at a time, and closed. See fake_world.h. */
#include "tests/support/fake_world_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/small_arena.h"

void fake_turn(struct fake_world *w)
{
    scheduler_turn(w->s, w->now);
    scheduler_must_be_sound(w->s);
}

bool fake_step(struct fake_world *w)
{
    bool any = false;
    for (uint32_t g = 0; g < w->arena->geometry.groups; g++) {
        if (!w->groups[g].up)
            continue;
        any |= fake_compute(w, g);
        any |= fake_report(w, g);
        any |= fake_answer(w, g);
        fake_turn(w);
    }
    return any;
}

void fake_settle(struct fake_world *w)
{
    fake_turn(w);
    for (uint32_t i = 0; fake_step(w); i++)
        assert_true(i < 100000);
}

static uint32_t or_else(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

struct fake_world *fake_world_open(const struct fake_sizes *sizes)
{
    struct fake_world *w = calloc(1, sizeof *w);
    must(w);
    struct arena_geometry geometry = small_geometry();
    geometry.nodes = or_else(sizes->nodes, 1);
    geometry.groups = or_else(sizes->groups, geometry.nodes);
    geometry.session_slots = or_else(sizes->session_slots, 8);
    geometry.context = or_else(sizes->context, 1024);
    geometry.result_rows = STEP_BUDGET + geometry.session_slots;
    geometry.pages_per_node[0] = or_else(sizes->pages, 128);
    if (sizes->window) {
        geometry.page_classes = 2;
        geometry.window = sizes->window;
        geometry.pages_per_node[PAGE_CLASS_WINDOW] = or_else(sizes->window_pages, geometry.pages_per_node[0]);
        geometry.page_bytes[PAGE_CLASS_WINDOW] = 128;
    }
    must((geometry.pages_per_node[0] + geometry.pages_per_node[1]) * geometry.nodes <= FAKE_PAGES_MAX);
    must(geometry.context <= FAKE_CONTEXT_MAX);
    for (uint32_t g = 0; g < geometry.groups; g++)
        geometry.group_node[g] = (uint8_t)(g * geometry.nodes / geometry.groups);
    w->arena = arena_of(&geometry);
    w->decode_us = 1000;
    w->prefill_token_us = 100;
    struct scheduler_config config = {
        .arena = w->arena,
        .vocab = FAKE_VOCAB,
        .max_sessions = or_else(sizes->max_sessions, geometry.session_slots),
        .max_queue = sizes->no_queue ? 0 : or_else(sizes->max_queue, 64),
        .max_gap_us = or_else(sizes->max_gap_us, 100000),
    };
    struct scheduler_hooks hooks = {
        .send = fake_take_plan, .result = fake_read_result, .ask = fake_take_question, .world = w};
    struct why why;
    w->config = config;
    must(scheduler_open(&w->s, &config, &hooks, &why) == OK);
    for (uint32_t g = 0; g < geometry.groups; g++)
        fake_group_up(w, g);
    return w;
}

bool fake_pages_are_free(const struct fake_world *w)
{
    struct page_counts counts = scheduler_pages(w->s);
    return counts.free + counts.cached == counts.total;
}

void fake_world_close(struct fake_world *w)
{
    scheduler_must_be_sound(w->s);
    scheduler_close(w->s);
    small_arena_close(w->arena);
    free(w);
}
