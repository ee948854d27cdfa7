/* Who comes in: pages found, pages promised, a slot. */
#include <string.h>

#include "base/must.h"
#include "coordinator/scheduler_internal.h"
#include "shm/sequence_table.h"

/* Whether q, once it has page i of a class, has it still when it says its next token. */
static bool is_kept(const struct scheduler *s, const struct sequence *q, uint32_t page_class, uint32_t i)
{
    return page_class == PAGE_CLASS_WHOLE || i >= window_first_page(s->arena->geometry.window, q->n_tok);
}

/*
 * Pages of a class that q holds and need not find again before its next token: it keeps them, or they make room for others of q's when
 * its window moves on. A page that somebody else holds, too, makes none, nor does one of another node.
 */
static uint32_t pages_counted(const struct scheduler *s, const struct sequence *q, uint32_t page_class)
{
    if (page_class == PAGE_CLASS_WHOLE)
        return q->pages;
    uint32_t counted = 0, node = s->groups[q->group].node;
    for (uint32_t i = q->window_first; i < q->pages; i++) {
        page_id page = sequence_row_entry(s->arena, q->slot, page_class, i).page;
        bool is_own = page_pool_holders(s->pool, page) == 1 && scheduler_node_of_page(s, page) == node;
        counted += is_own || is_kept(s, q, page_class, i);
    }
    return counted;
}

/* Pages of a class that the running sequences of a node will still take before they have said their next token. */
static uint32_t pages_promised(const struct scheduler *s, uint32_t page_class, uint32_t node)
{
    uint32_t promised = 0;
    for (const struct sequence *q = s->running.first; q; q = q->next) {
        if (s->groups[q->group].node != node)
            continue;
        uint32_t need = pages_at_most(s, page_class, first_held(q, page_class), q->n_tok + 1);
        uint32_t held = pages_counted(s, q, page_class);
        promised += 1 + (need > held ? need - held : 0); /* one more each: they all grow */
    }
    return promised;
}

/* Of those that stand; NULL: none does. */
static struct group *least_busy_group(struct scheduler *s)
{
    struct group *best = NULL;
    for (uint32_t g = 0; g < s->group_count; g++)
        if (s->groups[g].up && (!best || s->groups[g].running < best->running))
            best = &s->groups[g];
    return best;
}

/* The first page of a class that a sequence shares when it begins behind `found` pages. */
static uint32_t first_shared(const struct scheduler *s, uint32_t page_class, uint32_t found)
{
    return page_class == PAGE_CLASS_WINDOW ? window_first_page(s->arena->geometry.window, found * PAGE_TOKENS) : 0;
}

/*
 * Whether every node has the pages of a class that q takes there: new ones on its own, and wherever it found kept ones, which
 * nobody can have from then on. What the others there still need stays theirs.
 */
static bool has_room_in_class(const struct scheduler *s, const struct sequence *q, uint32_t page_class, uint32_t node,
                              uint32_t found)
{
    uint64_t need[NODES_MAX] = {0};
    uint32_t first = first_shared(s, page_class, found), counted = 0; /* as in pages_counted */
    for (uint32_t i = first; i < found; i++) {
        page_id page = s->found[page_class][i];
        uint32_t holders = page_pool_holders(s->pool, page), of = scheduler_node_of_page(s, page);
        bool is_own = holders == 0 && of == node;
        bool is_promised = page_class == PAGE_CLASS_WINDOW && holders == 1; /* its holder may count on its room */
        need[of] += holders == 0;
        counted += is_own || (!is_promised && is_kept(s, q, page_class, i));
    }
    uint32_t most = pages_at_most(s, page_class, first, q->n_tok + 1);
    need[node] += most > counted ? most - counted : 0;
    for (uint32_t n = 0; n < s->arena->geometry.nodes; n++)
        if (need[n] && need[n] + pages_promised(s, page_class, n) > page_pool_available(s->pool, page_class, n))
            return false;
    return true;
}

static bool has_room(const struct scheduler *s, const struct sequence *q, uint32_t node, uint32_t found)
{
    for (uint32_t c = 0; c < s->arena->geometry.page_classes; c++)
        if (!has_room_in_class(s, q, c, node, found))
            return false;
    return true;
}

/* Stores what workers read of a sequence, before any plan names it. */
static void fill_slot(struct scheduler *s, struct sequence *q)
{
    struct session_slot *slot = session_at(s->arena, q->slot);
    snprintf(slot->id, sizeof slot->id, "%s", q->id);
    slot->salt = q->spec.salt;
    slot->sampling = q->spec.sampling;
    must(q->spec.client_bytes <= sizeof slot->client);
    slot->client_bytes = q->spec.client_bytes;
    if (q->spec.client_bytes)
        memcpy(slot->client, q->spec.client, q->spec.client_bytes);
    session_seal_facts(slot);
    memcpy(slot->tokens, q->tokens, q->n_tok * sizeof *q->tokens);
    q->generation = atomic_load_explicit(&slot->generation, memory_order_relaxed); /* our own store: no other writer */
}

/* A slot to stand in, if one is free. */
static bool take_slot(struct scheduler *s, struct sequence *q)
{
    q->slot = session_slots_take(s->slots);
    if (q->slot == SESSION_NONE)
        return false;
    fill_slot(s, q);
    scheduler_commit(s, q);
    return true;
}

/* An empty row in its slot. False: it has none, and none is free. */
static bool have_row(struct scheduler *s, struct sequence *q, uint32_t group)
{
    if (q->slot == SESSION_NONE && !take_slot(s, q))
        return false;
    session_at(s->arena, q->slot)->group = group;
    sequence_row_begin(s->arena, q->slot, q->generation);
    return true;
}

static void share_found(struct scheduler *s, struct sequence *q, uint32_t pages)
{
    for (uint32_t c = 0; c < s->arena->geometry.page_classes; c++) {
        uint32_t first = first_shared(s, c, pages);
        for (uint32_t i = first; i < pages; i++)
            page_pool_share(s->pool, s->found[c][i]);
        sequence_row_skip(s->arena, q->slot, c, first);
        for (uint32_t i = first; i < pages; i++)
            must(sequence_row_append(s->arena, q->slot, c, page_pool_name(s->pool, s->found[c][i])) == OK);
    }
    for (uint32_t i = 0; i < pages; i++)
        q->chain[i] = page_pool_name(s->pool, s->found[PAGE_CLASS_WHOLE][i]);
    q->pages = q->indexed = q->sealed = pages;
    q->window_first = first_shared(s, PAGE_CLASS_WINDOW, pages);
    q->n_kv = q->planned_kv = pages * PAGE_TOKENS;
}

/*
 * How much of q's beginning is found in pages that somebody vouches for; of a model with windows as far as its window is there, too.
 * False: checksums are being asked for, and it waits for them.
 */
static bool find_prefix(struct scheduler *s, const struct sequence *q, struct prefix_hit *hit)
{
    bool known = true;
    page_id *whole = s->found[PAGE_CLASS_WHOLE], *of_window = s->found[PAGE_CLASS_WINDOW];
    uint32_t window = s->arena->geometry.window;
    *hit = (struct prefix_hit){.computing = PAGE_NONE};
    if (q->spec.score_prompt)
        return true;
    *hit = prefix_cache_find(s->cache, q->spec.salt, q->tokens, q->n_tok, whole, pages_for(q->n_tok));
    uint32_t vouched = scheduler_vouch(s, PAGE_CLASS_WHOLE, 0, hit->pages, &known);
    if (vouched < hit->pages) /* those behind it are found no more */
        *hit = (struct prefix_hit){.pages = vouched, .computing = PAGE_NONE};
    while (window) { /* each turn but the last two drops a page */
        uint32_t usable =
            prefix_cache_find_window(s->cache, q->spec.salt, q->tokens, whole, hit->pages, window, of_window);
        uint32_t first = window_first_page(window, usable * PAGE_TOKENS);
        bool is_last = usable == hit->pages && scheduler_vouch(s, PAGE_CLASS_WINDOW, first, usable, &known) == usable;
        hit->pages = usable;
        if (is_last)
            break;
    }
    return known;
}

enum admission { ADMITTED, WAITS_FOR_SEAL, WAITS_FOR_SUMS, NO_SLOT, NO_ROOM };

static enum admission admit(struct scheduler *s, struct sequence *q, uint64_t now)
{
    struct group *group = least_busy_group(s);
    if (!group || q->last_plan > s->answered)
        return NO_ROOM; /* nobody computes; or a plan that names its former row was not answered */
    struct prefix_hit hit;
    if (!find_prefix(s, q, &hit))
        return WAITS_FOR_SUMS;
    if (hit.computing != PAGE_NONE)
        return WAITS_FOR_SEAL; /* another sequence is making the very page */
    if (s->running.count > 0 && !has_room(s, q, group->node, hit.pages))
        return NO_ROOM;
    if (!have_row(s, q, (uint32_t)(group - s->groups)))
        return NO_SLOT;

    q->group = (uint32_t)(group - s->groups);
    group->running++;
    share_found(s, q, hit.pages);
    q->planned_tok = q->n_tok;
    scheduler_commit(s, q);
    sequence_list_remove(&s->waiting, q);
    sequence_list_insert_by_order(&s->running, q);
    sequence_move(q, SEQUENCE_PREFILL);
    if (!q->started) {
        q->started = true;
        q->admitted_us = now;
        s->counters.prefix_queries += q->n_tok;
        s->counters.prefix_hits += q->n_kv;
        s->counters.reused += q->n_kv;
        q->spec.events->admitted(q->spec.owner, q->n_kv);
    }
    return ADMITTED;
}

/* Neither a token to say nor one to score: a prompt's first token has nothing before it. */
static bool has_nothing_to_compute(const struct sequence *q)
{
    return q->spec.max_tokens == 0 && (!q->spec.score_prompt || q->prompt_tokens < 2);
}

/* Who waits stands in memory, too, as long as there are slots: the next coordinator goes on with it. In order of arrival. */
static void give_slots(struct scheduler *s)
{
    for (struct sequence *q = s->waiting.first; q; q = q->next)
        if (q->slot == SESSION_NONE && !has_nothing_to_compute(q) && !take_slot(s, q))
            return;
}

void scheduler_admit_waiting(struct scheduler *s, uint64_t now)
{
    give_slots(s);
    for (struct sequence *q = s->waiting.first, *next; q && s->running.count < s->max_sessions; q = next) {
        next = q->next;
        if (has_nothing_to_compute(q)) {
            q->spec.events->admitted(q->spec.owner, 0);
            scheduler_end_sequence(s, q, FINISH_LENGTH);
        } else if (admit(s, q, now) == NO_ROOM) {
            return; /* nobody passes: a long prompt would wait for ever behind short ones (but without a slot whoever has one) */
        }
    }
}
