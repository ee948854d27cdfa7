#include "shm/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/must.h"
#include "shm/crc32c.h"

struct session_slot *session_at(const struct arena *a, uint32_t slot)
{
    must(slot < a->geometry.session_slots);
    return (struct session_slot *)(void *)(a->sessions.base + slot * a->layout.session_bytes);
}

uint64_t *session_mask(const struct arena *a, uint32_t slot)
{
    if (a->geometry.mask_words == 0)
        return NULL;
    uint64_t offset = sizeof(struct session_slot) + a->geometry.context * sizeof(uint32_t);
    must(checked_round_up(offset, CACHE_LINE, &offset));
    return (uint64_t *)(void *)((uint8_t *)session_at(a, slot) + offset);
}

void session_commit(struct session_slot *s, struct session_progress progress)
{
    must(progress.kv <= progress.tokens);
    uint32_t before = session_progress(s).tokens;
    if (progress.tokens > before)
        s->tokens_crc[progress.tokens % 2] = crc32c(before ? s->tokens_crc[before % 2] : 0, s->tokens + before,
                                                    (progress.tokens - before) * sizeof *s->tokens);
    /* Release: the tokens below are stored before; pairs with session_progress in the next coordinator. */
    atomic_store_explicit(&s->commit, (uint64_t)progress.kv << 32 | progress.tokens, memory_order_release);
}

static uint32_t facts_crc(const struct session_slot *s)
{
    uint32_t crc = crc32c(0, s->id, sizeof s->id);
    crc = crc32c(crc, &s->salt, sizeof s->salt);
    crc = crc32c(crc, &s->sampling, sizeof s->sampling);
    crc = crc32c(crc, &s->client_bytes, sizeof s->client_bytes);
    return crc32c(crc, s->client, s->client_bytes);
}

void session_seal_facts(struct session_slot *s)
{
    must(s->client_bytes <= sizeof s->client);
    s->facts_crc = facts_crc(s);
}

struct session_progress session_progress(const struct session_slot *s)
{
    /* Acquire: pairs with session_commit. */
    uint64_t word = atomic_load_explicit(&s->commit, memory_order_acquire);
    return (struct session_progress){.tokens = (uint32_t)word, .kv = (uint32_t)(word >> 32)};
}

const struct session_slot *session_read(const struct arena *a, uint32_t slot, uint32_t generation, uint32_t first,
                                        uint32_t count)
{
    if (slot >= a->geometry.session_slots || generation == 0)
        return NULL;
    const struct session_slot *s = session_at(a, slot);
    /* Acquire: pairs with the release of generation in session_slots_take. */
    if (atomic_load_explicit(&s->generation, memory_order_acquire) != generation)
        return NULL;
    uint64_t end;
    if (!checked_add(first, count, &end) || end > a->geometry.context)
        return NULL;
    return s;
}

/* ---- which slots are taken ---- */

struct session_slots {
    struct arena *arena;
    uint32_t slots;
    uint32_t *free; /* a stack of free_count slot numbers */
    uint32_t free_count;
    uint32_t *retired; /* retired_count slot numbers, in no order */
    uint32_t retired_count;
    uint32_t *kept; /* kept_count slot numbers, the longest kept first */
    uint32_t kept_count;
    uint64_t answered; /* all plans up to this number were answered */
};

static const uint8_t may_follow[] = {
    [SESSION_FREE] = 1u << SESSION_LIVE,
    [SESSION_LIVE] = 1u << SESSION_RETIRED | 1u << SESSION_KEPT,
    [SESSION_RETIRED] = 1u << SESSION_FREE,
    [SESSION_KEPT] = 1u << SESSION_LIVE | 1u << SESSION_RETIRED,
};

/* The one function that moves a slot from state to state. */
static void move(struct session_slots *slots, uint32_t slot, enum session_state to)
{
    struct session_slot *s = session_at(slots->arena, slot);
    /* Relaxed: read by the thread that wrote it. */
    uint32_t from = atomic_load_explicit(&s->state, memory_order_relaxed);
    must(from < SESSION_STATES && (may_follow[from] >> to & 1));
    /* Release: the slot's fields before its state; pairs with the acquire in session_slots_adopt. */
    atomic_store_explicit(&s->state, (uint32_t)to, memory_order_release);
}

static enum err allocate(struct session_slots **out, struct arena *arena, struct why *why)
{
    uint32_t count = arena->geometry.session_slots;
    struct session_slots *slots = calloc(1, sizeof *slots);
    if (slots) {
        slots->free = calloc(count, sizeof *slots->free);
        slots->retired = calloc(count, sizeof *slots->retired);
        slots->kept = calloc(count, sizeof *slots->kept);
    }
    if (!slots || !slots->free || !slots->retired || !slots->kept) {
        session_slots_close(slots);
        return because(why, ERR_NOMEM, "there is no memory left to keep account of %u sessions", count);
    }
    slots->arena = arena;
    slots->slots = count;
    *out = slots;
    return OK;
}

enum err session_slots_open(struct session_slots **out, struct arena *arena, struct why *why)
{
    enum err err = allocate(out, arena, why);
    if (err != OK)
        return err;
    struct session_slots *slots = *out;
    while (slots->free_count < slots->slots) { /* a stack: the lowest is taken first */
        slots->free[slots->free_count] = slots->slots - 1 - slots->free_count;
        slots->free_count++;
    }
    return OK;
}

/* Bounds first: they say how much there is to sum. */
static bool is_undamaged(const struct session_slot *s)
{
    uint32_t tokens = session_progress(s).tokens;
    return s->client_bytes <= sizeof s->client && s->facts_crc == facts_crc(s) &&
           s->tokens_crc[tokens % 2] == crc32c(0, s->tokens, tokens * sizeof *s->tokens);
}

/* Everything that a later reader takes from a slot without asking again. */
static bool is_in_bounds(const struct arena *a, const struct session_slot *s)
{
    struct session_progress progress = session_progress(s);
    const struct sampling *p = &s->sampling;
    return s->id[0] != '\0' && memchr(s->id, '\0', sizeof s->id) && s->group < a->geometry.groups &&
           progress.kv <= progress.tokens && progress.tokens <= a->geometry.context && progress.tokens > 0 &&
           p->prompt_tokens > 0 && p->prompt_tokens <= progress.tokens && p->bias_count <= SAMPLING_MAX_BIAS &&
           p->stop_id_count <= SAMPLING_MAX_STOP_IDS && p->logprobs <= SAMPLING_MAX_TOP_LOGPROBS + 1 &&
           atomic_load_explicit(&s->generation, memory_order_relaxed) != 0; /* the state was read with acquire */
}

bool session_is_whole(const struct arena *a, const struct session_slot *s)
{
    return is_in_bounds(a, s) && is_undamaged(s);
}

enum err session_slots_adopt(struct session_slots **out, struct arena *arena, uint32_t *dropped, struct why *why)
{
    *dropped = 0;
    enum err err = allocate(out, arena, why);
    if (err != OK)
        return err;
    struct session_slots *slots = *out;
    for (uint32_t slot = slots->slots; slot-- > 0;) {
        struct session_slot *s = session_at(arena, slot);
        /* Acquire: pairs with the release in move(). */
        uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
        bool wanted = state == SESSION_LIVE || state == SESSION_KEPT;
        bool good = wanted && session_is_whole(arena, s);
        *dropped += wanted && !good;
        atomic_store_explicit(&s->last_plan, 0, memory_order_relaxed); /* the groups that had plans are gone */
        if (good && state == SESSION_KEPT)
            slots->kept[slots->kept_count++] = slot;
        if (!good) {
            /* Not by move(): what a dead coordinator left may be no state at all. Release as in move(). */
            atomic_store_explicit(&s->state, SESSION_FREE, memory_order_release);
            slots->free[slots->free_count++] = slot;
        }
    }
    return OK;
}

void session_slots_close(struct session_slots *slots)
{
    if (!slots)
        return;
    free(slots->free);
    free(slots->retired);
    free(slots->kept);
    free(slots);
}

static void forget_kept(struct session_slots *slots, uint32_t slot)
{
    uint32_t at = 0;
    while (at < slots->kept_count && slots->kept[at] != slot)
        at++;
    must(at < slots->kept_count);
    slots->kept_count--;
    memmove(slots->kept + at, slots->kept + at + 1, (slots->kept_count - at) * sizeof *slots->kept);
}

static uint64_t last_plan_of(const struct session_slots *slots, uint32_t slot)
{
    return atomic_load_explicit(&session_at(slots->arena, slot)->last_plan, memory_order_relaxed); /* our own store */
}

static enum session_state state_of(const struct session_slots *slots, uint32_t slot)
{
    return (enum session_state)atomic_load_explicit(&session_at(slots->arena, slot)->state,
                                                    memory_order_relaxed); /* our own store */
}

static bool is_same_request(const struct session_slots *slots, uint32_t slot, uint32_t other)
{
    return strcmp(session_at(slots->arena, slot)->id, session_at(slots->arena, other)->id) == 0;
}

/* Another choice of its request is not at its end yet: a new coordinator would need this one, too. */
static bool is_part_of_live(const struct session_slots *slots, uint32_t slot)
{
    for (uint32_t i = 0; i < slots->arena->geometry.session_slots; i++)
        if (state_of(slots, i) == SESSION_LIVE && is_same_request(slots, slot, i))
            return true;
    return false;
}

/* A request goes with all its choices: with some of them nobody could do anything. */
static void free_longest_kept(struct session_slots *slots)
{
    uint32_t chosen = SESSION_NONE;
    for (uint32_t i = 0; i < slots->kept_count;) {
        uint32_t slot = slots->kept[i];
        bool goes = chosen == SESSION_NONE ? !is_part_of_live(slots, slot) : is_same_request(slots, slot, chosen);
        if (!goes || last_plan_of(slots, slot) > slots->answered) {
            i++;
            continue;
        }
        chosen = slot; /* its id stays readable until the slot is taken */
        forget_kept(slots, slot);
        move(slots, slot, SESSION_RETIRED);
        move(slots, slot, SESSION_FREE);
        slots->free[slots->free_count++] = slot;
    }
}

uint32_t session_slots_take(struct session_slots *slots)
{
    if (slots->free_count == 0)
        free_longest_kept(slots);
    if (slots->free_count == 0)
        return SESSION_NONE;
    uint32_t slot = slots->free[--slots->free_count];
    struct session_slot *s = session_at(slots->arena, slot);
    /* Relaxed: only this thread writes it. */
    uint32_t generation = atomic_load_explicit(&s->generation, memory_order_relaxed) + 1;
    memset(s->id, 0, sizeof s->id);
    s->salt = 0;
    s->group = 0;
    memset(&s->sampling, 0, sizeof s->sampling);
    memset(s->client, 0, s->client_bytes <= sizeof s->client ? s->client_bytes : sizeof s->client);
    s->client_bytes = 0;
    atomic_store_explicit(&s->last_plan, 0, memory_order_relaxed); /* published by state */
    session_commit(s, (struct session_progress){0, 0});
    /* Release: pairs with the acquire in session_read. */
    atomic_store_explicit(&s->generation, generation ? generation : 1, memory_order_release);
    move(slots, slot, SESSION_LIVE);
    return slot;
}

void session_slots_keep(struct session_slots *slots, uint32_t slot, uint64_t last_plan)
{
    atomic_store_explicit(&session_at(slots->arena, slot)->last_plan, last_plan,
                          memory_order_relaxed); /* as in release */
    move(slots, slot, SESSION_KEPT);
    slots->kept[slots->kept_count++] = slot;
}

void session_slots_resume(struct session_slots *slots, uint32_t slot)
{
    forget_kept(slots, slot);
    move(slots, slot, SESSION_LIVE);
}

bool session_slots_hold(const struct session_slots *slots, uint32_t slot, uint32_t generation)
{
    enum session_state state = state_of(slots, slot);
    return (state == SESSION_LIVE || state == SESSION_KEPT) &&
           atomic_load_explicit(&session_at(slots->arena, slot)->generation, memory_order_relaxed) ==
               generation; /* our own store */
}

void session_slots_release(struct session_slots *slots, uint32_t slot, uint64_t last_plan)
{
    struct session_slot *s = session_at(slots->arena, slot);
    if (state_of(slots, slot) == SESSION_KEPT)
        forget_kept(slots, slot);
    atomic_store_explicit(&s->last_plan, last_plan, memory_order_relaxed); /* for this thread and inspect */
    move(slots, slot, SESSION_RETIRED);
    slots->retired[slots->retired_count++] = slot;
}

void session_slots_reclaim(struct session_slots *slots, uint64_t answered)
{
    slots->answered = answered;
    for (uint32_t i = 0; i < slots->retired_count;) {
        uint32_t slot = slots->retired[i];
        /* Relaxed: only this thread writes it. */
        if (atomic_load_explicit(&session_at(slots->arena, slot)->last_plan, memory_order_relaxed) > answered) {
            i++;
            continue;
        }
        slots->retired[i] = slots->retired[--slots->retired_count];
        move(slots, slot, SESSION_FREE);
        slots->free[slots->free_count++] = slot;
    }
}

uint32_t session_slots_free(const struct session_slots *slots)
{
    return slots->free_count;
}

uint32_t session_slots_live(const struct session_slots *slots)
{
    return slots->slots - slots->free_count - slots->retired_count - slots->kept_count;
}

uint32_t session_slots_kept(const struct session_slots *slots)
{
    return slots->kept_count;
}
