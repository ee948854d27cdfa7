/* Lives of sequences and groups; see also scheduler_admit.c, scheduler_plan.c and scheduler_results.c. */
#include "coordinator/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "coordinator/scheduler_internal.h"
#include "shm/sequence_table.h"

/* ---- life of the scheduler ---- */

static enum err open_new_memory(struct scheduler *s, struct why *why)
{
    enum err e = page_pool_open(&s->pool, s->arena, why);
    if (!e)
        e = prefix_cache_open(&s->cache, s->pool, why);
    return e ? e : session_slots_open(&s->slots, s->arena, why);
}

static uint32_t count_damaged_pages(const struct arena *a)
{
    const struct page_descriptor *d =
        (const struct page_descriptor *)(const void *)(a->table.base + a->layout.descriptors_at);
    uint32_t damaged = 0;
    for (page_id page = 0; page < a->layout.page_count; page++) {
        uint32_t state = atomic_load_explicit(&d[page].state, memory_order_relaxed); /* its writer is dead */
        damaged += state >= PAGE_STATES ||
                   ((state == PAGE_SEALED || state == PAGE_CACHED) && !page_descriptor_is_whole(&d[page]));
    }
    return damaged;
}

/*
 * Takes nothing that was being changed: no row, no page that was being filled. Every sequence begins as one that gave all its pages
 * back, and finds the sealed ones again like anybody's prefix. So adopting changes no session, and can be cut off and done again.
 */
static enum err open_adopted_memory(struct scheduler *s, struct why *why)
{
    struct scheduler_found *found = &s->adopted;
    uint32_t *references = calloc(s->arena->layout.page_count, sizeof *references);
    if (!references)
        return because(why, ERR_NOMEM, "could not open the scheduler: no memory");
    found->damaged_pages = count_damaged_pages(s->arena);
    for (uint32_t slot = 0; slot < s->arena->geometry.session_slots; slot++)
        sequence_row_end(s->arena, slot);
    enum err e = session_slots_adopt(&s->slots, s->arena, &found->damaged_sessions, why);
    if (!e)
        e = page_pool_adopt(&s->pool, s->arena, references, why);
    if (!e)
        e = prefix_cache_open(&s->cache, s->pool, why);
    free(references);
    if (e)
        return e;
    prefix_cache_adopt(s->cache);
    found->sessions = session_slots_live(s->slots) + session_slots_kept(s->slots);
    found->pages = page_pool_counts(s->pool).cached;
    return OK;
}

static enum err open_parts(struct scheduler *s, struct why *why)
{
    enum err e = s->config.adopt ? open_adopted_memory(s, why) : open_new_memory(s, why);
    if (e)
        return e;
    e = scheduler_checksums_open(s, why);
    if (e)
        return e;
    for (uint32_t c = 0; c < s->arena->geometry.page_classes; c++)
        if (!(s->found[c] = calloc(pages_for(s->arena->geometry.context), sizeof *s->found[c])))
            return because(why, ERR_NOMEM, "could not open the scheduler: no memory");
    for (uint32_t g = 0; g < s->group_count; g++)
        for (uint32_t i = 0; i < MAX_FLIGHTS; i++)
            if (!(s->groups[g].flights[i] = calloc(1, sizeof(struct flight))))
                return because(why, ERR_NOMEM, "could not open the scheduler: no memory");
    return OK;
}

static uint32_t token_limit(const struct arena_geometry *g)
{
    uint64_t limit = (uint64_t)g->pages_per_node[PAGE_CLASS_WHOLE] * PAGE_TOKENS;
    uint64_t windows = (uint64_t)g->pages_per_node[PAGE_CLASS_WINDOW] * PAGE_TOKENS;
    if (g->window && g->pages_per_node[PAGE_CLASS_WINDOW] < scheduler_window_pages(g->window) && windows < limit)
        limit = windows; /* too few for a window that moves on */
    return limit < g->context ? (uint32_t)limit : g->context;
}

enum err scheduler_open(struct scheduler **out, const struct scheduler_config *config,
                        const struct scheduler_hooks *hooks, struct why *why)
{
    const struct arena_geometry *geometry = &config->arena->geometry;
    struct scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return because(why, ERR_NOMEM, "could not open the scheduler: no memory");
    s->config = *config;
    s->hooks = *hooks;
    s->arena = config->arena;
    s->max_sessions = config->max_sessions;
    s->group_count = geometry->groups;
    s->next_number = 1;
    s->token_limit = token_limit(geometry);
    for (uint32_t g = 0; g < s->group_count; g++)
        s->groups[g] = (struct group){.node = geometry->group_node[g],
                                      .next_step = 1,
                                      .decode_us = 5000,
                                      .prefill_token_us = 500,
                                      .prefill_fit = 128};
    enum err e = open_parts(s, why);
    if (e) {
        scheduler_close(s);
        return e;
    }
    *out = s;
    return OK;
}

static void sequence_free(struct sequence *q)
{
    free(q->tokens);
    free(q->chain);
    free(q);
}

void scheduler_close(struct scheduler *s)
{
    if (!s)
        return;
    for (struct sequence *q; (q = s->waiting.first);) {
        sequence_list_remove(&s->waiting, q);
        sequence_free(q);
    }
    for (struct sequence *q; (q = s->running.first);) {
        sequence_list_remove(&s->running, q);
        sequence_free(q);
    }
    for (uint32_t g = 0; g < s->group_count; g++)
        for (uint32_t i = 0; i < MAX_FLIGHTS; i++)
            free(s->groups[g].flights[i]);
    for (uint32_t c = 0; c < PAGE_CLASSES_MAX; c++)
        free(s->found[c]);
    scheduler_checksums_close(s);
    if (s->slots)
        session_slots_close(s->slots);
    if (s->cache)
        prefix_cache_close(s->cache);
    if (s->pool)
        page_pool_close(s->pool);
    free(s);
}

/* ---- coming ---- */

static struct sequence *sequence_new(const struct scheduler *s, const struct sequence_spec *spec)
{
    uint32_t have = spec->token_count + spec->said;
    uint64_t room = (uint64_t)spec->token_count + spec->max_tokens;
    if (room > s->token_limit)
        room = s->token_limit;
    struct sequence *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->tokens = malloc(room * sizeof *q->tokens);
    q->chain = malloc(pages_for((uint32_t)room) * sizeof *q->chain);
    if (!q->tokens || !q->chain) {
        sequence_free(q);
        return NULL;
    }
    memcpy(q->tokens, spec->tokens, have * sizeof *q->tokens);
    q->spec = *spec;
    q->spec.tokens = q->tokens;
    q->spec.max_tokens = (uint32_t)(room - spec->token_count);
    snprintf(q->id, sizeof q->id, "%s", spec->id);
    q->spec.id = q->id;
    q->slot = SESSION_NONE;
    q->prompt_tokens = spec->token_count;
    q->n_tok = have;
    return q;
}

/* It goes on where it stood, if that is still what it was; else it gets another place when it is admitted. */
static void take_former_slot(struct scheduler *s, struct sequence *q)
{
    uint32_t slot = q->spec.slot;
    if (!q->spec.slot_generation || !session_slots_hold(s->slots, slot, q->spec.slot_generation))
        return;
    struct session_slot *session = session_at(s->arena, slot);
    if (atomic_load_explicit(&session->state, memory_order_relaxed) == SESSION_KEPT) /* our own store */
        session_slots_resume(s->slots, slot);
    q->slot = slot;
    q->generation = q->spec.slot_generation;
    q->last_plan = atomic_load_explicit(&session->last_plan, memory_order_relaxed); /* our own store */
}

enum err scheduler_submit(struct scheduler *s, const struct sequence_spec *spec, uint64_t now, struct sequence **out,
                          struct why *why)
{
    must(spec->token_count > 0 && (!spec->said || spec->said < spec->max_tokens));
    uint64_t least = (uint64_t)spec->token_count + (spec->max_tokens > 0);
    if (least + spec->said > s->token_limit)
        return because(why, ERR_INVALID, "the prompt has %u tokens, and a sequence can have %u, the answer included",
                       spec->token_count, s->token_limit);
    uint32_t free_places = s->running.count < s->max_sessions ? s->max_sessions - s->running.count : 0;
    if (!spec->slot_generation && s->waiting.count >= (uint64_t)s->config.max_queue + free_places)
        return because(why, ERR_FULL, "%u requests wait already; try again later", s->waiting.count);
    struct sequence *q = sequence_new(s, spec);
    if (!q)
        return because(why, ERR_FULL, "no memory for another request; try again later");
    q->order = s->next_order++;
    q->arrived_us = now;
    take_former_slot(s, q);
    sequence_list_append(&s->waiting, q);
    *out = q;
    return OK;
}

/* ---- leaving ---- */

/* Also in the plan that is being made. */
static void forget_in_flights(struct group *group, const struct sequence *q)
{
    for (uint32_t i = 0; i < MAX_FLIGHTS; i++)
        for (uint32_t r = 0; r < group->flights[i]->row_count; r++)
            if (group->flights[i]->owners[r] == q)
                group->flights[i]->owners[r] = NULL;
}

/*
 * Gives the pages back; who takes them next waits for the last plan that names them. The row stays as it is until then: a
 * worker that has such a plan before it still reads it.
 */
static void leave_pages(struct scheduler *s, struct sequence *q)
{
    struct group *group = &s->groups[q->group];
    forget_in_flights(group, q);
    for (uint32_t c = 0; c < s->arena->geometry.page_classes; c++)
        for (uint32_t i = q->pages;
             i-- > first_held(q, c);) /* last first: a page is never evicted before those behind it */
            page_pool_release(s->pool, sequence_row_entry(s->arena, q->slot, c, i).page, q->last_plan);
    q->pages = q->window_first = q->indexed = q->sealed = 0;
    group->running--;
    sequence_list_remove(&s->running, q);
}

static void remove_sequence(struct scheduler *s, struct sequence *q, bool keep)
{
    if (q->state == SEQUENCE_WAITING)
        sequence_list_remove(&s->waiting, q);
    else
        leave_pages(s, q);
    if (q->slot != SESSION_NONE && keep)
        session_slots_keep(s->slots, q->slot, q->last_plan);
    else if (q->slot != SESSION_NONE)
        session_slots_release(s->slots, q->slot, q->last_plan);
    session_slots_reclaim(s->slots, s->answered); /* no answer may be awaited that would do it */
    sequence_move(q, SEQUENCE_DONE);
}

void scheduler_cancel(struct scheduler *s, struct sequence *q)
{
    remove_sequence(s, q, false);
    sequence_free(q);
}

void scheduler_park(struct scheduler *s, struct sequence *q)
{
    remove_sequence(s, q, true);
    sequence_free(q);
}

void scheduler_forget(struct scheduler *s, uint32_t slot, uint32_t generation)
{
    if (!session_slots_hold(s->slots, slot, generation))
        return;
    uint64_t last_plan =
        atomic_load_explicit(&session_at(s->arena, slot)->last_plan, memory_order_relaxed); /* our own store */
    session_slots_release(s->slots, slot, last_plan);
    session_slots_reclaim(s->slots, s->answered); /* as in remove_sequence */
}

void scheduler_end_sequence(struct scheduler *s, struct sequence *q, enum finish_reason reason)
{
    remove_sequence(s, q, q->spec.keep && (reason == FINISH_STOP || reason == FINISH_LENGTH));
    q->spec.events->ended(q->spec.owner, reason);
    sequence_free(q);
}

void scheduler_send_back(struct scheduler *s, struct sequence *q)
{
    leave_pages(s, q);
    sequence_move(q, SEQUENCE_WAITING);
    q->n_kv = q->planned_kv = 0;
    q->planned_tok = q->n_tok;
    q->drawn_step = 0;
    scheduler_commit(s, q);
    sequence_list_insert_by_order(&s->waiting, q);
}

uint32_t scheduler_node_of_page(const struct scheduler *s, page_id page)
{
    return page_place(&s->arena->geometry, &s->arena->layout, page).node;
}

static struct sequence *youngest_of_node(const struct scheduler *s, struct sequence *q, uint32_t node)
{
    while (q && s->groups[q->group].node != node)
        q = q->previous;
    return q;
}

bool scheduler_holds_pages_of(const struct scheduler *s, const struct sequence *q, uint32_t node)
{
    for (uint32_t c = 0; c < s->arena->geometry.page_classes; c++)
        for (uint32_t i = first_held(q, c); i < q->pages; i++)
            if (scheduler_node_of_page(s, sequence_row_entry(s->arena, q->slot, c, i).page) == node)
                return true;
    return false;
}

/*
 * The youngest that is computed on the node. When that one is alone there, the youngest of those after it that have found the
 * beginning of their prompts there; NULL: alone it fits, once the plans in flight are answered. Nobody leaves for a younger one,
 * so that the oldest of all always gets on.
 */
static struct sequence *who_leaves(const struct scheduler *s, uint32_t node)
{
    struct sequence *local = youngest_of_node(s, s->running.last, node);
    if (local && youngest_of_node(s, local->previous, node))
        return local;
    for (struct sequence *q = s->running.last; q && q != local; q = q->previous)
        if (scheduler_holds_pages_of(s, q, node))
            return q;
    return NULL;
}

bool scheduler_preempt_youngest(struct scheduler *s, uint32_t node)
{
    if (s->answered < s->preempted_at)
        return false; /* what the last one gave is not free yet */
    struct sequence *youngest = who_leaves(s, node);
    if (!youngest)
        return false;
    scheduler_send_back(s, youngest);
    s->preempted_at = youngest->last_plan;
    s->counters.preempted++;
    return true;
}

/* ---- groups ---- */

void scheduler_group_down(struct scheduler *s, uint32_t g)
{
    struct group *group = &s->groups[g];
    group->up = false;
    for (uint32_t i = 0; i < group->flight_count; i++) {
        const struct flight *f = group->flights[i];
        if (!group->void_number)
            group->void_number = f->number;
        for (uint32_t r = 0; r < f->row_count; r++)
            s->counters.recomputed += f->rows[r].count;
    }
    scheduler_accuse(s, group);
    group->flight_count = 0;
    scheduler_void_question(s, group);
    for (struct sequence *q = s->running.first; q; q = q->next)
        if (q->group == g) {
            q->planned_kv = q->n_kv;
            q->planned_tok = q->n_tok;
            q->drawn_step = 0;
        }
    scheduler_end_hopeless(s, group);
}

void scheduler_group_up(struct scheduler *s, uint32_t g, uint32_t epoch)
{
    struct group *group = &s->groups[g];
    must(!group->up && group->flight_count == 0);
    group->up = true;
    group->meet_first = true;
    group->epoch = epoch;
    group->void_number = 0;
    scheduler_acquit(s, group);
    scheduler_reclaim(s);
}

void scheduler_group_lost(struct scheduler *s, uint32_t g)
{
    struct group *group = &s->groups[g];
    must(!group->up);
    for (struct sequence *q = s->running.first, *next; q; q = next) {
        next = q->next;
        if (q->group == g)
            scheduler_send_back(s, q);
    }
    group->void_number = 0;
    scheduler_reclaim(s);
}

bool scheduler_in_flight(const struct scheduler *s, uint32_t g, uint64_t *since_us, uint64_t *planned_us)
{
    const struct group *group = &s->groups[g];
    *since_us = group->flight_count ? group->flights[0]->since_us : group->question.since_us;
    *planned_us = group->flight_count ? group->flights[0]->planned_us : 0;
    return group->flight_count || group->question.id;
}

/* ---- a turn ---- */

/* Admit what fits, then plan the next steps. */
void scheduler_turn(struct scheduler *s, uint64_t now)
{
    scheduler_admit_waiting(s, now);
    for (uint32_t g = 0; g < s->group_count; g++) {
        struct group *group = &s->groups[g];
        while (group->up && group->flight_count < MAX_FLIGHTS && scheduler_plan_step(s, group, now))
            s->hooks.send(s->hooks.world, g, &s->plan);
    }
    scheduler_ask(s, now); /* behind the plans: nobody speaks slower for it */
}

/* ---- what others want to know ---- */

struct scheduler_found scheduler_found(const struct scheduler *s)
{
    return s->adopted;
}

uint32_t scheduler_token_limit(const struct scheduler *s)
{
    return s->token_limit;
}

struct page_counts scheduler_pages(const struct scheduler *s)
{
    return page_pool_counts(s->pool);
}

struct page_counts scheduler_class_pages(const struct scheduler *s, uint32_t page_class)
{
    return page_pool_class_counts(s->pool, page_class);
}

void scheduler_set_max_sessions(struct scheduler *s, uint32_t max_sessions)
{
    must(max_sessions <= s->arena->geometry.session_slots);
    s->max_sessions = max_sessions;
}

uint32_t scheduler_max_sessions(const struct scheduler *s)
{
    return s->max_sessions;
}

uint32_t scheduler_running(const struct scheduler *s)
{
    return s->running.count;
}

uint32_t scheduler_waiting(const struct scheduler *s)
{
    return s->waiting.count;
}

const struct sequence_list *scheduler_running_list(const struct scheduler *s)
{
    return &s->running;
}

const struct scheduler_counters *scheduler_counters(const struct scheduler *s)
{
    return &s->counters;
}

void scheduler_must_be_sound(const struct scheduler *s)
{
    uint32_t pages = page_pool_counts(s->pool).total;
    uint32_t *references = calloc(pages, sizeof *references);
    must(references);
    for (const struct sequence *q = s->running.first; q; q = q->next) {
        must(q->n_kv <= q->n_tok && q->planned_kv <= q->planned_tok);
        must(pages_for(q->planned_kv) <= q->pages);
        must(q->window_first == window_first_page(s->arena->geometry.window, q->n_kv));
        for (uint32_t c = 0; c < s->arena->geometry.page_classes; c++) {
            must(sequence_row_length(s->arena, q->slot, c) == q->pages);
            for (uint32_t i = first_held(q, c); i < q->pages; i++)
                references[sequence_row_entry(s->arena, q->slot, c, i).page]++;
        }
    }
    page_pool_must_be_sound(s->pool, references);
    prefix_cache_must_be_sound(s->cache);
    free(references);
}
