#include "shm/layout.h"

#include <string.h>

#include "base/checked.h"
#include "base/must.h"
#include "shm/page_pool.h"
#include "shm/results.h"
#include "shm/sequence_table.h"
#include "shm/session.h"
#include "shm/worker_slot.h"

enum { SYSTEM_PAGE = 4096, BYTES_MAX_LOG2 = 46 };

/* A running sum of sizes; one bad step spoils it and the caller asks once. */
struct sum {
    uint64_t bytes;
    bool bad;
};

static void add(struct sum *s, uint64_t count, uint64_t each)
{
    uint64_t bytes;
    if (!checked_mul(count, each, &bytes) || !checked_add(s->bytes, bytes, &s->bytes))
        s->bad = true;
}

static void round_to(struct sum *s, uint64_t to)
{
    if (!checked_round_up(s->bytes, to, &s->bytes))
        s->bad = true;
}

static enum err check_counts(const struct arena_geometry *g, struct why *why)
{
    const struct {
        const char *what;
        uint64_t value, least, most;
    } bounds[] = {
        {"page classes", g->page_classes, 1, PAGE_CLASSES_MAX},
        {"NUMA nodes", g->nodes, 1, NODES_MAX},
        {"worker groups", g->groups, 1, GROUPS_MAX},
        {"worker slots", g->worker_slots, 1, WORKER_SLOTS_MAX},
        {"session slots", g->session_slots, 1, SESSION_SLOTS_MAX},
        {"context tokens", g->context, 1, CONTEXT_MAX},
        {"token mask words", g->mask_words, 0, 1u << 20},
        {"result rows", g->result_rows, 1, RESULT_ROWS_MAX},
        {"model bytes", g->model_bytes, 0, 1u << 30},
        {"weights bytes", g->weights_bytes, 1, 1ull << BYTES_MAX_LOG2},
        {"work bytes", g->work_bytes, 0, 1ull << BYTES_MAX_LOG2},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
        if (bounds[i].value < bounds[i].least || bounds[i].value > bounds[i].most)
            return because(why, ERR_INVALID, "cannot lay out shared memory for %llu %s: it must be %llu to %llu",
                           (unsigned long long)bounds[i].value, bounds[i].what, (unsigned long long)bounds[i].least,
                           (unsigned long long)bounds[i].most);
    for (uint32_t c = 0; c < g->page_classes; c++)
        if (g->pages_per_node[c] == 0 || g->page_bytes[c] == 0 || g->page_bytes[c] % CACHE_LINE != 0)
            return because(why, ERR_INVALID, "cannot lay out %u pages of %llu bytes: a page is a multiple of %d bytes",
                           g->pages_per_node[c], (unsigned long long)g->page_bytes[c], CACHE_LINE);
    if (g->window > CONTEXT_MAX || (g->window > 0) != (g->page_classes > PAGE_CLASS_WINDOW))
        return because(why, ERR_INVALID, "cannot lay out %u page classes for a window of %u positions", g->page_classes,
                       g->window);
    for (uint32_t group = 0; group < g->groups; group++)
        if (g->group_node[group] >= g->nodes)
            return because(why, ERR_INVALID, "group %u works on node %u, but there are %u nodes", group,
                           g->group_node[group], g->nodes);
    return OK;
}

/* The bytes of a sum; one that went wrong is kept in *bad. */
static uint64_t bytes_of(struct sum s, bool *bad)
{
    *bad = *bad || s.bad;
    return s.bytes;
}

/* Numbers of pages run through the classes in turn; rows of the table name a page of each class for every position. */
static enum err lay_out_pages(const struct arena_geometry *g, struct arena_layout *out, bool *bad, struct why *why)
{
    uint64_t page_count = 0;
    struct sum row = {sizeof(struct sequence_row), false}, pages = {0};
    for (uint32_t c = 0; c < g->page_classes; c++) {
        out->class_first[c] = (uint32_t)page_count;
        page_count += (uint64_t)g->pages_per_node[c] * g->nodes; /* 2^36 each at most */
        if (page_count >= PAGE_NONE)
            return because(why, ERR_INVALID, "cannot lay out %llu pages: there are numbers for %u",
                           (unsigned long long)page_count, PAGE_NONE - 1);
        out->class_at[c] = pages.bytes;
        add(&pages, g->pages_per_node[c], g->page_bytes[c]);
        out->row_entries[c] = (g->context + PAGE_TOKENS - 1) / PAGE_TOKENS;
        add(&row, out->row_entries[c], sizeof(struct page_name));
    }
    round_to(&pages, SYSTEM_PAGE);
    round_to(&row, CACHE_LINE);
    out->page_count = (uint32_t)page_count;
    out->pages_bytes = bytes_of(pages, bad);
    out->row_bytes = bytes_of(row, bad);
    return OK;
}

static void lay_out_table(const struct arena_geometry *g, struct arena_layout *out, bool *bad)
{
    struct sum table = {HEADER_BYTES, false};
    out->model_at = table.bytes;
    add(&table, 1, g->model_bytes);
    round_to(&table, CACHE_LINE);
    out->descriptors_at = table.bytes;
    add(&table, out->page_count, sizeof(struct page_descriptor));
    out->rows_at = table.bytes;
    add(&table, g->session_slots, out->row_bytes);
    round_to(&table, SYSTEM_PAGE);
    out->table_bytes = bytes_of(table, bad);
}

static void lay_out_sessions(const struct arena_geometry *g, struct arena_layout *out, bool *bad)
{
    struct sum session = {sizeof(struct session_slot), false}, sessions = {0};
    add(&session, g->context, sizeof(uint32_t));
    round_to(&session, CACHE_LINE);
    add(&session, g->mask_words, sizeof(uint64_t));
    round_to(&session, CACHE_LINE);
    out->session_bytes = bytes_of(session, bad);
    add(&sessions, g->session_slots, session.bytes);
    round_to(&sessions, SYSTEM_PAGE);
    out->sessions_bytes = bytes_of(sessions, bad);
}

static void lay_out_slots(const struct arena_geometry *g, struct arena_layout *out, bool *bad)
{
    struct sum slots = {GROUPS_MAX * sizeof(struct group_word), false};
    out->worker_slots_at = slots.bytes;
    add(&slots, g->worker_slots, sizeof(struct worker_slot));
    out->slots_bytes = bytes_of(slots, bad);
}

static void lay_out_work(const struct arena_geometry *g, struct arena_layout *out, bool *bad)
{
    struct sum slot = {0}, work = {0};
    add(&slot, g->result_rows, sizeof(struct result_entry));
    out->result_slot_bytes = bytes_of(slot, bad);
    add(&work, 2, slot.bytes);
    out->results_bytes = work.bytes;
    add(&work, 1, g->work_bytes);
    round_to(&work, SYSTEM_PAGE);
    out->group_work_bytes = bytes_of(work, bad);
}

enum err layout_of(const struct arena_geometry *g, struct arena_layout *out, struct why *why)
{
    bool bad = false;
    enum err err = check_counts(g, why);
    if (err != OK)
        return err;
    memset(out, 0, sizeof *out);
    err = lay_out_pages(g, out, &bad, why);
    if (err != OK)
        return err;
    lay_out_table(g, out, &bad);
    lay_out_sessions(g, out, &bad);
    lay_out_slots(g, out, &bad);
    lay_out_work(g, out, &bad);

    struct sum total = {0};
    add(&total, 1, out->slots_bytes);
    add(&total, 1, out->table_bytes);
    add(&total, 1, out->sessions_bytes);
    add(&total, g->nodes, out->pages_bytes);
    add(&total, g->nodes, g->weights_bytes);
    add(&total, g->groups, out->group_work_bytes);
    out->total_bytes = bytes_of(total, &bad);
    if (bad || total.bytes >> BYTES_MAX_LOG2 != 0)
        return because(why, ERR_INVALID, "cannot lay out shared memory: its size is beyond %d TiB",
                       1 << (BYTES_MAX_LOG2 - 40));
    return OK;
}

struct page_place page_place(const struct arena_geometry *g, const struct arena_layout *l, page_id page)
{
    must(page < l->page_count);
    struct page_place place = {0};
    while (place.page_class + 1 < g->page_classes && page >= l->class_first[place.page_class + 1])
        place.page_class++;
    uint32_t c = place.page_class;
    uint32_t index = page - l->class_first[c];
    place.node = index / g->pages_per_node[c];
    place.offset = l->class_at[c] + (uint64_t)(index % g->pages_per_node[c]) * g->page_bytes[c];
    return place;
}
