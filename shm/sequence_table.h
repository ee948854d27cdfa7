/*
 * sequence_table: which pages hold a sequence's keys and values, in order: one row per session slot, in it one list
 * per page class. Entry i of a class holds positions [16 i, 16 i + 16). In the list of class 1 entries of positions that no window
 * sees any more name pages that may be somebody else's by now, or none.
 */
#ifndef QUIRE_SHM_SEQUENCE_TABLE_H
#define QUIRE_SHM_SEQUENCE_TABLE_H

#include <stdint.h>

#include "base/err.h"
#include "shm/arena.h"
#include "shm/layout.h"

/*
 * sequence_row, followed by row_entries[0] entries of class 0, then those of class 1.
 * Writes:    the coordinator. Entries below length never change while the generation stays; new ones are stored
 *            before length is.
 * Reads:     workers, the rows that their plan names, up to the positions it names.
 * Hand-over: the StepPlan message; a row begins anew only when every plan that names it was answered or its group
 *            fenced.
 * Death:     a worker leaves nothing here. A dead coordinator leaves whole entries: they are stored before length.
 */
struct sequence_row {
    _Atomic uint32_t generation;               /* the session slot's; 0: none */
    _Atomic uint32_t length[PAGE_CLASSES_MAX]; /* entries */
    uint32_t reserve[13];
    struct page_name entries[];
};
static_assert(sizeof(struct sequence_row) == CACHE_LINE, "layout changed: bump LAYOUT_VERSION");

/*
 * Coordinator: an empty row for that session slot; also used again after a preemption gave all pages back. generation
 * is not 0.
 */
void sequence_row_begin(struct arena *a, uint32_t slot, uint32_t generation);

/* Coordinator: one more page. ERR_FULL: the row holds `context` tokens already. */
enum err sequence_row_append(struct arena *a, uint32_t slot, uint32_t page_class, struct page_name page);

/* Coordinator: the row's first `count` entries of a class are none: what they would hold is not looked at. The row is empty in that class. */
void sequence_row_skip(struct arena *a, uint32_t slot, uint32_t page_class, uint32_t count);

/* Coordinator: no sequence any more. */
void sequence_row_end(struct arena *a, uint32_t slot);

/* Whose row it is: the session slot's generation; 0: nobody's. */
uint32_t sequence_row_generation(const struct arena *a, uint32_t slot);

/* Coordinator: its own row; no checks but bounds. */
uint32_t sequence_row_length(const struct arena *a, uint32_t slot, uint32_t page_class);
struct page_name sequence_row_entry(const struct arena *a, uint32_t slot, uint32_t page_class, uint32_t index);

/*
 * Workers, and a coordinator that adopts: page numbers of entries [first, first + count) into out. ERR_FORMAT with
 * the reason unless slot, generation and length fit and every page exists, has that class and still the generation
 * that the entry names.
 */
enum err sequence_row_read(const struct arena *a, uint32_t slot, uint32_t generation, uint32_t page_class,
                           uint32_t first, uint32_t count, page_id *out, struct why *why);

#endif
