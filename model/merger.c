/* merger: see merger.h. */
#include "model/merger.h"

#include <stdlib.h>

#include "base/must.h"

void merger_fini(struct merger *m)
{
    free(m->symbols);
    free(m->heap);
    *m = (struct merger){0};
}

void merger_begin(struct merger *m)
{
    m->count = 0;
    m->heap_count = 0;
}

bool merger_add(struct merger *m, uint32_t start, uint32_t bytes, uint32_t id)
{
    must(bytes > 0 && m->count < SYMBOL_NONE);
    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? 2 * m->capacity : 64;
        struct symbol *symbols = realloc(m->symbols, capacity * sizeof *symbols);
        if (!symbols)
            return false;
        m->symbols = symbols;
        m->capacity = capacity;
    }
    uint32_t place = (uint32_t)m->count++;
    m->symbols[place] = (struct symbol){start, bytes, place - 1, SYMBOL_NONE, id}; /* 0 - 1 is SYMBOL_NONE */
    if (place > 0)
        m->symbols[place - 1].next = place;
    return true;
}

static bool heap_push(struct merger *m, struct candidate c)
{
    if (m->heap_count == m->heap_capacity) {
        size_t capacity = m->heap_capacity ? 2 * m->heap_capacity : 64;
        struct candidate *heap = realloc(m->heap, capacity * sizeof *heap);
        if (!heap)
            return false;
        m->heap = heap;
        m->heap_capacity = capacity;
    }
    size_t at = m->heap_count++;
    while (at > 0 && m->heap[(at - 1) / 2].order > c.order) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = c;
    return true;
}

/* The smallest; caller has seen that there is one. */
static struct candidate heap_pop(struct merger *m)
{
    struct candidate top = m->heap[0];
    struct candidate last = m->heap[--m->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= m->heap_count)
            break;
        if (child + 1 < m->heap_count && m->heap[child + 1].order < m->heap[child].order)
            child++;
        if (m->heap[child].order >= last.order)
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = last;
    return top;
}

/* Asks the rule about a symbol and the one after it. */
static bool propose(struct merger *m, uint32_t left, merge_rule rule, const void *context)
{
    if (left == SYMBOL_NONE || m->symbols[left].next == SYMBOL_NONE)
        return true;
    const struct symbol *a = &m->symbols[left], *b = &m->symbols[a->next];
    uint32_t order, id;
    if (!rule(context, a, b, &order, &id))
        return true;
    return heap_push(m, (struct candidate){(uint64_t)order << 32 | left, a->bytes + b->bytes, id});
}

bool merger_run(struct merger *m, merge_rule rule, const void *context)
{
    for (uint32_t i = 0; i + 1 < m->count; i++)
        if (!propose(m, i, rule, context))
            return false;
    while (m->heap_count > 0) {
        struct candidate c = heap_pop(m);
        struct symbol *left = &m->symbols[(uint32_t)c.order];
        if (left->bytes == 0 || left->next == SYMBOL_NONE)
            continue; /* joined to something else since */
        struct symbol *right = &m->symbols[left->next];
        if (left->bytes + right->bytes != c.bytes)
            continue; /* symbols only grow: the same sum is the same pair */
        left->bytes = c.bytes;
        left->id = c.id;
        left->next = right->next;
        right->bytes = 0;
        if (left->next != SYMBOL_NONE)
            m->symbols[left->next].previous = (uint32_t)c.order;
        if (!propose(m, left->previous, rule, context) || !propose(m, (uint32_t)c.order, rule, context))
            return false;
    }
    return true;
}
