#include "shm/fsck.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/arena.h"
#include "shm/page_pool.h"
#include "shm/sequence_table.h"
#include "shm/session.h"

struct check {
    const struct arena *arena;
    struct fsck_report *report;
    fsck_fault_fn fault;
    void *arg;
    uint8_t *named; /* rows that name a page: 0, 1, more */
};

/* Every load below is relaxed: it is shown as it is now; nothing is handed over. */
#define NOW(word) atomic_load_explicit(&(word), memory_order_relaxed) /* see above */

__attribute__((format(printf, 3, 4))) static void found(const struct check *c, uint32_t rule, const char *format, ...)
{
    char sentence[256];
    va_list list;
    va_start(list, format);
    vsnprintf(sentence, sizeof sentence, format, list);
    va_end(list);
    c->report->faults[rule]++;
    c->fault(c->arg, rule, sentence);
}

static const struct page_descriptor *page_at(const struct check *c, page_id page)
{
    const struct arena *a = c->arena;
    return (const struct page_descriptor *)(const void *)(a->table.base + a->layout.descriptors_at) + page;
}

static bool is_sealed(const struct page_descriptor *d)
{
    uint32_t state = NOW(d->state);
    return state == PAGE_SEALED || state == PAGE_CACHED;
}

static void check_segment(const struct check *c, const char *kind, uint32_t number, uint64_t bytes)
{
    char what[SEGMENT_WHAT_MAX];
    struct segment s = {0};
    struct why why;
    snprintf(what, sizeof what, "%s.%u", kind, number);
    if (segment_attach(&s, &c->arena->home, what, bytes, SEGMENT_READ, &why) != OK)
        found(c, 1, "%s", why.text);
    segment_detach(&s);
}

static void check_segments(const struct check *c)
{
    const struct arena_geometry *g = &c->arena->geometry;
    for (uint32_t n = 0; n < g->nodes; n++) {
        check_segment(c, "pages", n, c->arena->layout.pages_bytes);
        check_segment(c, "weights", n, g->weights_bytes);
    }
    for (uint32_t group = 0; group < g->groups; group++)
        check_segment(c, "work", group, c->arena->layout.group_work_bytes);
    if (NOW(arena_header(c->arena)->weights_built) >> g->nodes)
        found(c, 8, "weights of nodes are called whole that there are not: %llx",
              (unsigned long long)NOW(arena_header(c->arena)->weights_built));
}

static void check_parent(const struct check *c, page_id page, const struct page_descriptor *d)
{
    struct page_name parent = d->parent;
    if (parent.page == PAGE_NONE) {
        if (d->page_class == PAGE_CLASS_WINDOW)
            found(c, 4, "page %u holds a window and hangs on no page", page);
        return;
    }
    if (parent.page >= c->report->pages) {
        found(c, 4, "page %u follows page %u, and there are %u", page, parent.page, c->report->pages);
        return;
    }
    const struct page_descriptor *p = page_at(c, parent.page);
    if (NOW(p->generation) != parent.generation || !is_sealed(p))
        return;
    if (p->salt != d->salt)
        found(c, 4, "page %u follows page %u, which is another tenant's", page, parent.page);
    if (p->page_class != PAGE_CLASS_WHOLE)
        found(c, 4, "page %u follows page %u, which holds a window", page, parent.page);
    else if (d->page_class == PAGE_CLASS_WINDOW && memcmp(p->tokens, d->tokens, sizeof d->tokens) != 0)
        found(c, 4, "page %u holds the window of other tokens than page %u", page, parent.page);
}

static void check_page(const struct check *c, page_id page)
{
    const struct page_descriptor *d = page_at(c, page);
    struct page_place place = page_place(&c->arena->geometry, &c->arena->layout, page);
    uint32_t state = NOW(d->state);
    if (state >= PAGE_STATES)
        found(c, 2, "page %u is in state %u, which is none", page, state);
    else if (state != PAGE_FREE && NOW(d->generation) == 0)
        found(c, 2, "page %u is %s and was never taken", page, page_state_name((enum page_state)state));
    if (d->page_class != place.page_class || d->node != place.node)
        found(c, 2, "page %u calls itself one of class %u and node %u; by its number it is of class %u and node %u",
              page, d->page_class, d->node, place.page_class, place.node);
    if (!is_sealed(d))
        return;
    c->report->sealed++;
    if (!page_descriptor_is_whole(d))
        found(c, 3, "page %u does not hold what was sealed", page);
    else
        check_parent(c, page, d);
}

static void check_list(const struct check *c, uint32_t slot, uint32_t page_class, uint32_t kv)
{
    const struct arena *a = c->arena;
    uint32_t needed = (kv + PAGE_TOKENS - 1) / PAGE_TOKENS, length = sequence_row_length(a, slot, page_class);
    uint32_t seen = page_class == PAGE_CLASS_WINDOW ? window_first_page(a->geometry.window, kv) : 0;
    if (length > a->layout.row_entries[page_class] || length < needed) {
        found(c, 6, "the row of session slot %u has %u pages of class %u, where %u to %u can be", slot, length,
              page_class, needed, a->layout.row_entries[page_class]);
        return;
    }
    for (uint32_t i = 0; i < needed; i++) {
        struct page_name entry = sequence_row_entry(a, slot, page_class, i);
        if (entry.page == PAGE_NONE && i < seen)
            continue;
        if (entry.page >= c->report->pages ||
            page_place(&a->geometry, &a->layout, entry.page).page_class != page_class ||
            entry.generation > NOW(page_at(c, entry.page)->generation)) {
            found(c, 6, "the row of session slot %u names page %u.%u, which is none", slot, entry.page,
                  entry.generation);
            continue;
        }
        const struct page_descriptor *d = page_at(c, entry.page);
        bool filling = NOW(d->state) == PAGE_FILLING && NOW(d->generation) == entry.generation;
        if (filling && c->named[entry.page]++)
            found(c, 7, "page %u is being filled by two sessions, one of them in slot %u", entry.page, slot);
    }
}

static void check_row(const struct check *c, uint32_t slot, const struct session_slot *s)
{
    if (sequence_row_generation(c->arena, slot) != NOW(s->generation))
        return;
    for (uint32_t page_class = 0; page_class < c->arena->geometry.page_classes; page_class++)
        check_list(c, slot, page_class, session_progress(s).kv);
}

static void check_session(const struct check *c, uint32_t slot)
{
    const struct session_slot *s = session_at(c->arena, slot);
    uint32_t state = NOW(s->state);
    if (state >= SESSION_STATES)
        found(c, 5, "session slot %u is in state %u, which is none", slot, state);
    if (state != SESSION_LIVE && state != SESSION_KEPT)
        return;
    if (NOW(s->commit) == 0)
        return; /* taken, and nothing was committed yet: adoption drops it without a loss */
    c->report->sessions++;
    if (!session_is_whole(c->arena, s))
        found(c, 5, "the session in slot %u is damaged", slot);
    else if (state == SESSION_LIVE)
        check_row(c, slot, s);
}

enum err fsck_run(struct fsck_report *out, const struct segment_home *home, fsck_fault_fn fault, void *arg,
                  struct why *why)
{
    struct arena arena;
    struct why reason;
    struct check c = {.arena = &arena, .report = out, .fault = fault, .arg = arg};
    memset(out, 0, sizeof *out);
    enum err err = arena_attach(&arena, home, true, &reason);
    if (err == ERR_FORMAT) {
        found(&c, 1, "%s", reason.text);
        return OK;
    }
    if (err != OK)
        return because(why, err, "%s", reason.text);
    out->pages = arena.layout.page_count;
    c.named = calloc(out->pages, 1);
    if (!c.named) {
        arena_detach(&arena);
        return because(why, ERR_NOMEM, "there is no memory left to look at %u pages", out->pages);
    }
    check_segments(&c);
    for (page_id page = 0; page < out->pages; page++)
        check_page(&c, page);
    for (uint32_t slot = 0; slot < arena.geometry.session_slots; slot++)
        check_session(&c, slot);
    free(c.named);
    arena_detach(&arena);
    return OK;
}

uint32_t fsck_faults(const struct fsck_report *report)
{
    uint32_t faults = 0;
    for (uint32_t rule = 1; rule <= FSCK_RULES; rule++)
        faults += report->faults[rule];
    return faults;
}
