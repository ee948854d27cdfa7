/* fake_clients: who asks, hears, leaves and comes back. See fake_world.h. */
#include "tests/support/fake_world_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/must.h"

static bool on_token(void *owner, const struct result_entry *drawn)
{
    struct client *c = owner;
    const struct session_slot *slot = session_at(c->world->arena, c->sequence->slot);
    assert_true(c->admitted && !c->ended);
    assert_int_equal(drawn->token, fake_next_token(c->running_hash, c->seed));
    c->running_hash = fake_mix(c->running_hash, drawn->token);
    c->tokens[c->heard++] = drawn->token;
    assert_int_equal(session_progress(slot).tokens,
                     c->prompt_tokens + c->heard); /* told after the commit, one by one */
    assert_int_equal(slot->tokens[c->prompt_tokens + c->heard - 1], drawn->token);
    return c->stop_after && c->heard == c->stop_after;
}

static void on_scored(void *owner, uint32_t position, const struct result_entry *entry)
{
    struct client *c = owner;
    uint64_t hash = 1;
    for (uint32_t i = 0; i < position; i++)
        hash = fake_mix(hash, c->prompt[i]);
    assert_true(c->score && c->admitted && !c->ended);
    assert_int_equal(position, ++c->scored); /* each one once, in order, from position 1 on */
    assert_int_equal(entry->token, c->prompt[position]);
    assert_true(entry->logprob == fake_score_of(hash, entry->token));
}

static void on_admitted(void *owner, uint32_t cached)
{
    struct client *c = owner;
    assert_false(c->admitted);
    c->admitted = true;
    c->cached = cached;
}

static void on_ended(void *owner, enum finish_reason reason)
{
    struct client *c = owner;
    assert_false(c->ended);
    c->ended = true;
    c->reason = reason;
    c->sequence = NULL;
}

static const struct sequence_events events = {
    .token = on_token, .scored = on_scored, .admitted = on_admitted, .ended = on_ended};

struct client *fake_client(struct fake_world *w, uint64_t family, uint32_t count, uint32_t max_tokens)
{
    struct client *c = NULL;
    for (uint32_t i = 0; i < w->client_count && !c; i++)
        if (!w->clients[i].sequence && !w->clients[i].keep)
            c = &w->clients[i];
    if (!c) {
        assert_true(w->client_count < FAKE_CLIENTS_MAX);
        c = &w->clients[w->client_count++];
    }
    *c = (struct client){
        .world = w, .prompt_tokens = count, .max_tokens = max_tokens, .seed = 7, .stop_id = UINT32_MAX, .keep = true};
    for (uint32_t i = 0; i < count && i < FAKE_CONTEXT_MAX; i++)
        c->prompt[i] = (uint32_t)(fake_mix(fake_mix(3, family), i) % FAKE_VOCAB);
    return c;
}

void fake_differ(struct client *c, uint32_t position, uint64_t how)
{
    for (uint32_t i = position; i < c->prompt_tokens; i++)
        c->prompt[i] = (uint32_t)(fake_mix(fake_mix(5, how), i) % FAKE_VOCAB);
}

enum err fake_submit(struct client *c, struct why *why)
{
    uint32_t *tokens = malloc((c->prompt_tokens + c->heard) * sizeof *tokens);
    must(tokens);
    memcpy(tokens, c->prompt, c->prompt_tokens * sizeof *tokens);
    memcpy(tokens + c->prompt_tokens, c->tokens, c->heard * sizeof *tokens);
    struct sequence_spec spec = {
        .tokens = tokens,
        .token_count = c->prompt_tokens,
        .max_tokens = c->max_tokens,
        .score_prompt = c->score && !c->heard,
        .said = c->heard,
        .slot = c->slot,
        .slot_generation = c->slot_generation,
        .salt = c->salt,
        .id = "cmpl-of-a-test",
        .sampling = {.seed = c->seed, .prompt_tokens = c->prompt_tokens},
        .events = &events,
        .owner = c,
    };
    if (c->stop_id != UINT32_MAX) {
        spec.sampling.stop_id_count = 1;
        spec.sampling.stop_ids[0] = c->stop_id;
    }
    c->running_hash = fake_prompt_hash(c);
    for (uint32_t i = 0; i < c->heard; i++)
        c->running_hash = fake_mix(c->running_hash, c->tokens[i]);
    enum err e = scheduler_submit(c->world->s, &spec, c->world->now, &c->sequence, why);
    free(tokens);
    scheduler_must_be_sound(c->world->s);
    return e;
}

struct client *fake_ask(struct fake_world *w, uint64_t family, uint32_t count, uint32_t max_tokens)
{
    struct client *c = fake_client(w, family, count, max_tokens);
    struct why why;
    if (fake_submit(c, &why))
        fail_msg("%s", why.text);
    return c;
}

void fake_cancel(struct client *c)
{
    assert_non_null(c->sequence);
    scheduler_cancel(c->world->s, c->sequence);
    c->sequence = NULL;
    scheduler_must_be_sound(c->world->s);
}

/* It is nobody's sequence now; what was scored before the first token is scored again. */
static void leave_sequence(struct client *c)
{
    c->slot = c->sequence->slot;
    c->slot_generation = c->slot == SESSION_NONE ? 0 : c->sequence->generation;
    c->admitted = false;
    c->scored = c->heard ? c->scored : 0;
}

void fake_park(struct client *c)
{
    leave_sequence(c);
    scheduler_park(c->world->s, c->sequence);
    c->sequence = NULL;
    scheduler_must_be_sound(c->world->s);
}

void fake_coordinator_dies(struct fake_world *w)
{
    struct scheduler_hooks hooks = {
        .send = fake_take_plan, .result = fake_read_result, .ask = fake_take_question, .world = w};
    struct why why;
    for (uint32_t i = 0; i < w->client_count; i++)
        if (w->clients[i].sequence)
            leave_sequence(&w->clients[i]);
    scheduler_close(w->s);
    w->config.adopt = true;
    must(scheduler_open(&w->s, &w->config, &hooks, &why) == OK);
    assert_int_equal(scheduler_found(w->s).damaged_sessions + scheduler_found(w->s).damaged_pages, 0);
    for (uint32_t i = 0; i < w->client_count; i++)
        if (w->clients[i].sequence && fake_submit(&w->clients[i], &why)) {
            assert_int_equal(w->clients[i].slot_generation, 0); /* only who had no place yet may be refused */
            w->clients[i].sequence = NULL;
        }
    for (uint32_t g = 0; g < w->arena->geometry.groups; g++) {
        struct fake_group *group = &w->groups[g];
        group->plan_count = group->computed = group->straggling_count = 0;
        group->question = 0;
        group->lost = false;
        fake_group_up(w, g);
    }
}

void fake_must_have_all(const struct client *c, enum finish_reason reason)
{
    uint32_t limit = scheduler_token_limit(c->world->s) - c->prompt_tokens;
    uint32_t most = c->max_tokens < limit ? c->max_tokens : limit, told = 0;
    assert_true(c->ended);
    assert_int_equal(c->reason, reason);
    while (told < most && !(c->stop_after && told == c->stop_after) && !(told && c->tokens[told - 1] == c->stop_id)) {
        assert_true(told < c->heard);
        told++;
    }
    assert_int_equal(c->heard, told); /* which tokens they are was compared when they came */
    assert_int_equal(c->scored, c->score ? c->prompt_tokens - 1 : 0);
}
