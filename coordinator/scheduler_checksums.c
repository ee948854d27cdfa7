/*
 * Which sealed pages are vouched for. Workers tell the checksum of each page soon after its seal. A death of which one cannot say that it
 * wrote nowhere puts every page of its node in doubt, a takeover puts all; a page in doubt is shared again only when its bytes still have
 * the checksum that they had, and is dropped and computed again when they have not, or when nobody had told one.
 *
 * What stays true:
 *  1. No sequence holds a page that is in doubt: scheduler_doubt sends all holders back, scheduler_vouch lets none in.
 *  2. A checksum is taken in only while no doubt has come up since it was asked for: the bytes were good then.
 *  3. A page stands once in the queue or in one question.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/must.h"
#include "coordinator/scheduler_internal.h"

enum { QUESTION_MOST_US = 10 * 1000 * 1000 }; /* an answer that got lost is asked for again */

enum err scheduler_checksums_open(struct scheduler *s, struct why *why)
{
    struct checksums *c = &s->checksums;
    uint32_t pages = s->arena->layout.page_count;
    c->vouched = calloc(pages, sizeof *c->vouched);
    c->asked = calloc(pages, sizeof *c->asked);
    c->queue = calloc(pages, sizeof *c->queue);
    return c->vouched && c->asked && c->queue ? OK : because(why, ERR_NOMEM, "could not open the scheduler: no memory");
}

void scheduler_checksums_close(struct scheduler *s)
{
    free(s->checksums.vouched);
    free(s->checksums.asked);
    free(s->checksums.queue);
}

/* ---- who is vouched for ---- */

static uint32_t doubts_about(const struct scheduler *s, page_id page)
{
    return s->checksums.doubts[scheduler_node_of_page(s, page)];
}

static bool is_vouched(const struct scheduler *s, page_id page)
{
    return s->checksums.vouched[page] == doubts_about(s, page) + 1;
}

static bool is_sealed(const struct scheduler *s, page_id page)
{
    enum page_state state = page_pool_state(s->pool, page);
    return state == PAGE_SEALED || state == PAGE_CACHED;
}

static void enqueue(struct scheduler *s, page_id page)
{
    struct checksums *c = &s->checksums;
    uint32_t room = s->arena->layout.page_count;
    if (c->asked[page])
        return;
    must(c->queue_count < room);
    c->asked[page] = true;
    c->queue[(c->queue_first + c->queue_count++) % room] = page;
}

void scheduler_page_sealed(struct scheduler *s, page_id page)
{
    s->checksums.vouched[page] = doubts_about(s, page) + 1;
    enqueue(s, page);
}

uint32_t scheduler_vouch(struct scheduler *s, uint32_t page_class, uint32_t first, uint32_t end, bool *known)
{
    for (uint32_t i = first; i < end; i++) {
        page_id page = s->found[page_class][i];
        if (is_vouched(s, page))
            continue;
        if (!page_pool_descriptor(s->pool, page)->has_checksum) {
            page_pool_drop(s->pool, page);
            return i;
        }
        enqueue(s, page);
        *known = false;
    }
    return end;
}

void scheduler_doubt(struct scheduler *s, uint32_t g)
{
    uint32_t node = s->groups[g].node;
    s->checksums.doubts[node]++;
    for (struct sequence *q = s->running.first, *next; q; q = next) {
        next = q->next;
        if (s->groups[q->group].node == node || scheduler_holds_pages_of(s, q, node))
            scheduler_send_back(s, q);
    }
}

/* ---- questions ---- */

static void fill_question(struct scheduler *s, struct question *question, page_id *pages)
{
    struct checksums *c = &s->checksums;
    while (c->queue_count && question->count < SUM_PAGES_MAX) {
        page_id page = c->queue[c->queue_first];
        c->queue_first = (c->queue_first + 1) % s->arena->layout.page_count;
        c->queue_count--;
        if (!is_sealed(s, page)) { /* has become another since */
            c->asked[page] = false;
            continue;
        }
        pages[question->count] = page;
        question->pages[question->count] = page_pool_name(s->pool, page);
        question->doubts[question->count++] = doubts_about(s, page);
    }
}

void scheduler_ask(struct scheduler *s, uint64_t now)
{
    for (uint32_t g = 0; g < s->group_count; g++) {
        struct group *group = &s->groups[g];
        page_id pages[SUM_PAGES_MAX];
        if (group->question.id && now > group->question.since_us + QUESTION_MOST_US)
            scheduler_void_question(s, group);
        if (!group->up || group->question.id)
            continue;
        group->question = (struct question){.since_us = now};
        fill_question(s, &group->question, pages);
        if (!group->question.count)
            return;
        group->question.id = ++s->checksums.next_question;
        s->hooks.ask(s->hooks.world, g, group->question.id, pages, group->question.count);
    }
}

void scheduler_void_question(struct scheduler *s, struct group *group)
{
    struct question *question = &group->question;
    for (uint32_t i = 0; question->id && i < question->count; i++) {
        s->checksums.asked[question->pages[i].page] = false;
        if (is_sealed(s, question->pages[i].page))
            enqueue(s, question->pages[i].page);
    }
    *question = (struct question){0};
}

/* What a page's bytes are, when it is still the page that was asked about and nothing has come up since. */
static void take_sum(struct scheduler *s, page_id page, uint32_t sum)
{
    const struct page_descriptor *d = page_pool_descriptor(s->pool, page);
    s->counters.summed++;
    if (!d->has_checksum && is_vouched(s, page)) {
        page_pool_set_checksum(s->pool, page, sum);
    } else if (d->has_checksum && d->checksum == sum) {
        s->checksums.vouched[page] = doubts_about(s, page) + 1;
    } else if (d->has_checksum) {
        s->counters.damaged++;
        log_warn("page %u is not what was computed: dropped, its tokens are computed again", page);
        page_pool_drop(s->pool, page);
    }
}

void scheduler_sums(struct scheduler *s, uint32_t g, uint64_t id, const uint32_t *sums, uint32_t count)
{
    struct question *question = &s->groups[g].question;
    if (!question->id || question->id != id || question->count != count)
        return;
    for (uint32_t i = 0; i < count; i++) {
        page_id page = question->pages[i].page;
        bool same = page_pool_name(s->pool, page).generation == question->pages[i].generation &&
                    question->doubts[i] == doubts_about(s, page);
        s->checksums.asked[page] = false;
        if (!is_sealed(s, page))
            continue;
        if (same)
            take_sum(s, page, sums[i]);
        else if (is_vouched(s, page))
            enqueue(s, page); /* sealed since the question */
    }
    *question = (struct question){0};
}
