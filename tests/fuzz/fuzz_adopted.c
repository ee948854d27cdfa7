/*
 * What a dead server left in shared memory, damaged: taken over by a coordinator, looked at by inspect, attached by a worker.
 * Input: the first byte says whether the header's checksum is made to fit afterwards; then records of nine bytes: segment,
 * offset (4), value (4).
 */
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/must.h"
#include "coordinator/scheduler.h"
#include "shm/crc32c.h"
#include "shm/inspect.h"
#include "shm/sequence_table.h"
#include "shm/session.h"
#include "shm/worker_slot.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/small_arena.h"

enum { RECORD_BYTES = 9, KEPT_SEGMENTS = 3 };

static struct arena *victim;
static struct segment *segments[KEPT_SEGMENTS];
static uint8_t *kept[KEPT_SEGMENTS];

static void end(void)
{
    small_arena_close(victim);
}

/* Two sessions that speak, one of them with sealed pages. */
static void fill(void)
{
    struct page_pool *pool;
    struct session_slots *slots;
    uint32_t tokens[PAGE_TOKENS];
    must(page_pool_open(&pool, victim, NULL) == OK && session_slots_open(&slots, victim, NULL) == OK);
    for (uint32_t i = 0; i < PAGE_TOKENS; i++)
        tokens[i] = i;
    for (uint32_t s = 0; s < 2; s++) {
        uint32_t slot = session_slots_take(slots);
        struct session_slot *session = session_at(victim, slot);
        snprintf(session->id, sizeof session->id, "cmpl-%u", s);
        session->sampling.prompt_tokens = 4;
        memcpy(session->tokens, tokens, sizeof tokens);
        session_seal_facts(session);
        sequence_row_begin(victim, slot, atomic_load(&session->generation));
        struct page_name parent = NO_PAGE;
        for (uint32_t p = 0; p < 2; p++) {
            page_id page = page_pool_take(pool, 0, 0);
            must(sequence_row_append(victim, slot, 0, page_pool_name(pool, page)) == OK);
            page_pool_mark_indexed(pool, page);
            if (p + s < 2)
                page_pool_seal(pool, page, parent, 7, tokens);
            parent = page_pool_name(pool, page);
        }
        session_commit(session, (struct session_progress){.tokens = PAGE_TOKENS, .kv = PAGE_TOKENS});
    }
    session_slots_close(slots);
    page_pool_close(pool);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    victim = small_arena();
    log_set_level(LOG_ERROR);
    fill();
    for (uint32_t w = 0; w < 2; w++)
        worker_slot_prepare(victim, w, 0);
    arena_set_state(victim, ARENA_SERVING);
    segments[0] = &victim->table;
    segments[1] = &victim->sessions;
    segments[2] = &victim->slots;
    for (int i = 0; i < KEPT_SEGMENTS; i++) {
        kept[i] = malloc(segments[i]->bytes);
        must(kept[i]);
        memcpy(kept[i], segments[i]->base, segments[i]->bytes);
    }
    atexit(end);
    return 0;
}

static void make_checksum_fit(void)
{
    struct arena_header *h = (struct arena_header *)(void *)victim->table.base;
    h->crc = 0;
    h->crc = crc32c(0, h, offsetof(struct arena_header, state));
}

static void damage(const uint8_t *data, size_t size)
{
    for (int i = 0; i < KEPT_SEGMENTS; i++)
        memcpy(segments[i]->base, kept[i], segments[i]->bytes);
    for (size_t at = 1; at + RECORD_BYTES <= size; at += RECORD_BYTES) {
        uint32_t offset, value;
        const struct segment *s = segments[data[at] % KEPT_SEGMENTS];
        memcpy(&offset, data + at + 1, sizeof offset);
        memcpy(&value, data + at + 5, sizeof value);
        offset %= (uint32_t)(s->bytes - sizeof value);
        memcpy(s->base + offset, &value, sizeof value);
    }
    if (size && data[0] & 1)
        make_checksum_fit();
}

static void inspect(const struct segment_home *home)
{
    struct inspection inspection;
    if (inspection_read(&inspection, home, NULL) != OK)
        return;
    static FILE *nowhere;
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    inspection_print(&inspection, nowhere);
    inspection_fini(&inspection);
}

static void attach(const struct segment_home *home)
{
    struct arena a;
    page_id pages[8];
    if (arena_attach(&a, home, false, NULL) != OK)
        return;
    for (uint32_t slot = 0; slot < a.geometry.session_slots; slot++) {
        uint32_t generation = atomic_load(&session_at(&a, slot)->generation);
        (void)session_read(&a, slot, generation, 0, 1);
        if (sequence_row_read(&a, slot, generation, 0, 0, 2, pages, NULL) == OK)
            must(pages[0] < a.layout.page_count && pages[1] < a.layout.page_count);
    }
    arena_detach(&a);
}

/* What nobody damaged is taken over whole, or the damage proves nothing. */
static void take_over(const struct segment_home *home, bool damaged)
{
    struct arena a;
    struct arena_geometry geometry = small_geometry();
    enum err err = arena_adopt(&a, home, &geometry, SMALL_MODEL_HASH, small_model, NULL);
    must(err == OK || damaged);
    if (err != OK)
        return;
    struct scheduler *scheduler;
    struct scheduler_config config = {
        .arena = &a, .vocab = 1000, .max_sessions = 4, .max_queue = 4, .max_gap_us = 1000, .adopt = true};
    struct scheduler_hooks hooks = {0};
    if (scheduler_open(&scheduler, &config, &hooks, NULL) == OK) {
        scheduler_must_be_sound(scheduler);
        struct scheduler_found found = scheduler_found(scheduler);
        must(damaged || (found.sessions == 2 && found.pages > 0 && found.damaged_sessions == 0));
        scheduler_close(scheduler);
    }
    arena_detach(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_home home = small_home();
    damage(data, size);
    inspect(&home);
    attach(&home);
    take_over(&home, size >= 1 + RECORD_BYTES);
    return 0;
}
