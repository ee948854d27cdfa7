#include "shm/sequence_table.h"

#include "base/checked.h"
#include "base/must.h"
#include "shm/page_pool.h"

static struct sequence_row *row_at(const struct arena *a, uint32_t slot)
{
    must(slot < a->geometry.session_slots);
    return (struct sequence_row *)(void *)(a->table.base + a->layout.rows_at + slot * a->layout.row_bytes);
}

static struct page_name *entries_of(const struct arena *a, struct sequence_row *row, uint32_t page_class)
{
    must(page_class < a->geometry.page_classes);
    struct page_name *entries = row->entries;
    for (uint32_t c = 0; c < page_class; c++)
        entries += a->layout.row_entries[c];
    return entries;
}

void sequence_row_begin(struct arena *a, uint32_t slot, uint32_t generation)
{
    must(generation != 0);
    struct sequence_row *row = row_at(a, slot);
    /* Release, in this order: whoever adopts after a death in between finds no row, or an empty one. */
    atomic_store_explicit(&row->generation, 0, memory_order_release); /* pairs with the acquire in sequence_row_read */
    for (uint32_t c = 0; c < PAGE_CLASSES_MAX; c++)
        atomic_store_explicit(&row->length[c], 0, memory_order_release);       /* same */
    atomic_store_explicit(&row->generation, generation, memory_order_release); /* same */
}

void sequence_row_end(struct arena *a, uint32_t slot)
{
    /* Release: pairs with the acquire in sequence_row_read. */
    atomic_store_explicit(&row_at(a, slot)->generation, 0, memory_order_release);
}

uint32_t sequence_row_generation(const struct arena *a, uint32_t slot)
{
    /* Acquire: pairs with the releases in sequence_row_begin. */
    return atomic_load_explicit(&row_at(a, slot)->generation, memory_order_acquire);
}

uint32_t sequence_row_length(const struct arena *a, uint32_t slot, uint32_t page_class)
{
    must(page_class < a->geometry.page_classes);
    /* Relaxed: read by the thread that wrote it. */
    return atomic_load_explicit(&row_at(a, slot)->length[page_class], memory_order_relaxed);
}

struct page_name sequence_row_entry(const struct arena *a, uint32_t slot, uint32_t page_class, uint32_t index)
{
    must(index < sequence_row_length(a, slot, page_class));
    return entries_of(a, row_at(a, slot), page_class)[index];
}

enum err sequence_row_append(struct arena *a, uint32_t slot, uint32_t page_class, struct page_name page)
{
    struct sequence_row *row = row_at(a, slot);
    uint32_t length = sequence_row_length(a, slot, page_class);
    must(page.page < a->layout.page_count && page.generation != 0);
    if (length >= a->layout.row_entries[page_class])
        return ERR_FULL;
    entries_of(a, row, page_class)[length] = page;
    /* Release: the entry before the length; pairs with the acquire in sequence_row_read. */
    atomic_store_explicit(&row->length[page_class], length + 1, memory_order_release);
    return OK;
}

void sequence_row_skip(struct arena *a, uint32_t slot, uint32_t page_class, uint32_t count)
{
    struct sequence_row *row = row_at(a, slot);
    must(sequence_row_length(a, slot, page_class) == 0 && count <= a->layout.row_entries[page_class]);
    for (uint32_t i = 0; i < count; i++)
        entries_of(a, row, page_class)[i] = NO_PAGE;
    /* Release: as in sequence_row_append. */
    atomic_store_explicit(&row->length[page_class], count, memory_order_release);
}

static enum err check_entry(const struct arena *a, uint32_t page_class, struct page_name entry, struct why *why)
{
    if (entry.page >= a->layout.page_count)
        return because(why, ERR_FORMAT, "a row names page %u where there are %u", entry.page, a->layout.page_count);
    const struct page_descriptor *descriptors =
        (const struct page_descriptor *)(const void *)(a->table.base + a->layout.descriptors_at);
    const struct page_descriptor *d = &descriptors[entry.page];
    /* Relaxed: the plan's message handed it over; it cannot change while that plan is in flight. */
    uint32_t generation = atomic_load_explicit(&d->generation, memory_order_relaxed);
    if (generation != entry.generation || generation == 0)
        return because(why, ERR_FORMAT, "a row names page %u of generation %u, which is of generation %u now",
                       entry.page, entry.generation, generation);
    if (page_place(&a->geometry, &a->layout, entry.page).page_class != page_class)
        return because(why, ERR_FORMAT, "a row names page %u, which is not of class %u", entry.page, page_class);
    return OK;
}

enum err sequence_row_read(const struct arena *a, uint32_t slot, uint32_t generation, uint32_t page_class,
                           uint32_t first, uint32_t count, page_id *out, struct why *why)
{
    if (slot >= a->geometry.session_slots || page_class >= a->geometry.page_classes)
        return because(why, ERR_FORMAT, "there is no row of session slot %u and page class %u", slot, page_class);
    struct sequence_row *row = row_at(a, slot);
    /* Acquire: pairs with the releases in sequence_row_begin and sequence_row_end. */
    uint32_t current = atomic_load_explicit(&row->generation, memory_order_acquire);
    if (generation == 0 || current != generation)
        return because(why, ERR_FORMAT, "session slot %u is of generation %u, not %u", slot, current, generation);
    /* Acquire: pairs with the release in sequence_row_append; entries below length are whole. */
    uint32_t length = atomic_load_explicit(&row->length[page_class], memory_order_acquire);
    uint64_t end;
    if (!checked_add(first, count, &end) || end > length || length > a->layout.row_entries[page_class])
        return because(why, ERR_FORMAT, "session slot %u has %u pages, but page %llu is asked for", slot, length,
                       (unsigned long long)first + count);
    const struct page_name *entries = entries_of(a, row, page_class);
    for (uint32_t i = 0; i < count; i++) {
        struct page_name entry = entries[first + i];
        enum err err = check_entry(a, page_class, entry, why);
        if (err != OK)
            return err;
        out[i] = entry.page;
    }
    return OK;
}
