#include "tests/support/server_rig.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "shm/sequence_table.h"
#include "tests/support/model_rig.h"

enum { SMALL_CONTEXT = 512 };

static void must_be_ok(enum err err, const struct why *why)
{
    if (err != OK)
        fail_msg("%s", why->text);
}

static void plan_model(struct server_rig *r)
{
    struct why why;
    struct gguf *file;
    must_be_ok(gguf_open(&file, r->model_path, &why), &why);
    must_be_ok(model_plan(&r->served.model, file, r->model_path, SMALL_CONTEXT, &why), &why);
    gguf_close(file);
}

static uint32_t or_else(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

bool server_rig_open(struct server_rig *r, const char *file, struct server_sizes sizes)
{
    static unsigned opened;
    memset(r, 0, sizeof *r);
    if (!rig_find(file, r->model_path)) {
        print_message("%s is not there\n", r->model_path);
        return false;
    }
    plan_model(r);
    r->served.step_tokens = or_else(sizes.step_tokens, 64);
    r->served.logit_rows = or_else(sizes.logit_rows, 4);
    struct arena_geometry g = {
        .page_classes = model_page_classes(&r->served.model),
        .window = model_page_window(&r->served.model),
        .nodes = 1,
        .groups = or_else(sizes.groups, 1),
        .worker_slots = or_else(sizes.workers, 4),
        .session_slots = 8,
        .context = SMALL_CONTEXT,
        .mask_words = (r->served.model.vocab + 63) / 64,
        .result_rows = or_else(sizes.result_rows, 64),
        .model_bytes = sizeof r->served,
        .weights_bytes = r->served.model.weights_bytes,
        .work_bytes = served_model_work_bytes(&r->served),
    };
    for (uint32_t c = 0; c < g.page_classes; c++) {
        g.pages_per_node[c] = or_else(sizes.pages, 64);
        g.page_bytes[c] = model_page_bytes(&r->served.model, c);
    }
    char name[INSTANCE_NAME_MAX];
    snprintf(name, sizeof name, "test-%d-%u", (int)getpid(), opened++);
    struct why why;
    must_be_ok(instance_hold(&r->instance, name, NULL, &why), &why);
    must_be_ok(arena_create(&r->arena, &r->instance.home, &g, r->served.model.hash, &r->served, &why), &why);
    must_be_ok(page_pool_open(&r->pool, &r->arena, &why), &why);
    must_be_ok(session_slots_open(&r->sessions, &r->arena, &why), &why);
    return true;
}

void server_rig_close(struct server_rig *r)
{
    struct leftovers dropped;
    struct why why;
    session_slots_close(r->sessions);
    page_pool_close(r->pool);
    arena_detach(&r->arena);
    must_be_ok(instance_clear(&r->instance, &dropped, &why), &why);
    instance_release(&r->instance);
}

void server_rig_attach(const struct server_rig *r, struct arena *worker)
{
    struct why why;
    must_be_ok(arena_attach(worker, &r->instance.home, false, &why), &why);
    must_be_ok(arena_join(worker, 0, !arena_weights_built(worker, 0), &why), &why);
}

void server_rig_build(struct server_rig *r, struct arena *worker)
{
    struct why why;
    struct gguf *file;
    must_be_ok(gguf_open(&file, r->model_path, &why), &why);
    must_be_ok(model_build(&r->served.model, file, arena_weights(worker), 0, 1, NULL, NULL, &why), &why);
    gguf_close(file);
    arena_mark_weights_built(&r->arena, 0);
}

uint32_t server_rig_session(struct server_rig *r, const uint32_t *prompt, uint32_t count, uint32_t room,
                            const struct sampling *sampling)
{
    uint32_t slot = session_slots_take(r->sessions);
    if (slot == SESSION_NONE)
        fail_msg("the test has no session slot left");
    struct session_slot *s = session_at(&r->arena, slot);
    s->sampling = *sampling;
    memcpy(s->tokens, prompt, count * sizeof *prompt);
    session_commit(s, (struct session_progress){.tokens = count});
    /* relaxed: this thread wrote it */
    sequence_row_begin(&r->arena, slot, atomic_load_explicit(&s->generation, memory_order_relaxed));
    for (uint32_t c = 0; c < r->arena.geometry.page_classes; c++)
        for (uint32_t p = 0; p * PAGE_TOKENS < room; p++) {
            page_id page = page_pool_take(r->pool, c, 0);
            if (page == PAGE_NONE || sequence_row_append(&r->arena, slot, c, page_pool_name(r->pool, page)) != OK)
                fail_msg("the test has no page left");
        }
    return slot;
}

void server_rig_commit(struct server_rig *r, uint32_t slot, uint32_t token)
{
    struct session_slot *s = session_at(&r->arena, slot);
    struct session_progress progress = session_progress(s);
    s->tokens[progress.tokens] = token;
    progress.kv = progress.tokens; /* all but the new one */
    progress.tokens++;
    session_commit(s, progress);
}

struct step_row server_rig_row(const struct server_rig *r, uint32_t slot, uint32_t first, uint32_t count,
                               uint32_t flags)
{
    const struct session_slot *s = session_at(&r->arena, slot);
    return (struct step_row){
        .session = slot,
        .session_generation = atomic_load_explicit(&s->generation, memory_order_relaxed), /* this thread wrote it */
        .first = first,
        .count = count,
        .flags = flags,
        .history = session_progress(s).tokens,
    };
}

struct sampling greedy_sampling(uint32_t prompt_tokens)
{
    return (struct sampling){.prompt_tokens = prompt_tokens, .top_p = 1, .repetition_penalty = 1};
}

static uint32_t read_ids(const json_t *list, uint32_t *out, uint32_t room)
{
    uint32_t n = (uint32_t)json_array_size(list);
    if (n > room)
        n = room;
    for (uint32_t i = 0; i < n; i++)
        out[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return n;
}

bool golden_read(struct golden *g, const char *file, uint32_t index)
{
    const double clear_gap = 0.01; /* below it the order may differ: keys and values are rounded to f16 here */
    char path[512];
    json_error_t error;
    memset(g, 0, sizeof *g);
    json_t *all = rig_find(file, path) ? json_load_file(path, 0, &error) : NULL;
    const json_t *prompt = json_array_get(json_object_get(all, "prompts"), index);
    const json_t *greedy = json_object_get(prompt, "greedy"), *gaps = json_object_get(greedy, "gap");
    g->prompt_count = read_ids(json_object_get(prompt, "ids"), g->prompt, 512);
    g->greedy_count = read_ids(json_object_get(greedy, "ids"), g->greedy, 128);
    for (uint32_t i = 0; i < g->greedy_count; i++)
        if (json_number_value(json_array_get(gaps, i)) < clear_gap)
            g->greedy_count = i;
    const json_t *logprobs = json_object_get(prompt, "logprobs");
    for (uint32_t i = 0; i + 1 < g->prompt_count; i++)
        g->logprobs[i] = json_number_value(json_array_get(logprobs, i));
    json_decref(all);
    return g->greedy_count > 0;
}
