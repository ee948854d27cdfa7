/*
 * layout: what lies where in a server's shared memory. Plain data only: page numbers and offsets, never pointers, so
 * that every process may map a segment where it likes.
 *
 *   table     | header 4096 | model (opaque) | page descriptors 192 each | sequence rows |   coordinator writes
 *   sessions  | session slots, each: fields, commit word, token ids, token mask |            coordinator writes
 *   slots     | group words 64 each | worker slots 1024 each |                               see worker_slot.h
 *   pages.N   | KV pages of class 0 | of class 1 |                                           workers of node N write
 *   weights.N | whatever the model's builder puts there |                                    workers write once
 *   work.G    | two result slots | whatever the step needs |                                 workers of group G write
 *
 * Page numbers run through class 0, node 0, 1, …, then class 1, node 0, 1, …; page_place() says where one lies.
 * Class 0 holds what layers keep that see every position, class 1 what layers keep that see a window: a sequence gives a
 * page of class 1 back as soon as its window has moved on. A model without windows has class 0 alone.
 * Whoever changes the meaning of a byte here raises LAYOUT_VERSION: another version's memory is refused, never read.
 */
#ifndef QUIRE_SHM_LAYOUT_H
#define QUIRE_SHM_LAYOUT_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    CACHE_LINE = 64,
    PAGE_TOKENS = 16,
    PAGE_CLASS_WHOLE = 0,
    PAGE_CLASS_WINDOW = 1,
    PAGE_CLASSES_MAX = 2,
    NODES_MAX = 16,
    GROUPS_MAX = 16,
    WORKER_SLOTS_MAX = 512,
    SESSION_SLOTS_MAX = 65536,
    CONTEXT_MAX = 1u << 22,
    RESULT_ROWS_MAX = 1024, /* entries of one result slot */

    HEADER_VERSION = 1, /* of the frozen header; has never changed */
    LAYOUT_VERSION = 6, /* of everything else */
    HEADER_BYTES = 4096,
};

typedef uint32_t page_id;
#define PAGE_NONE ((page_id)UINT32_MAX)

/* A page as it is meant: when the generation differs, the page has become another one since. */
struct page_name {
    page_id page;
    uint32_t generation; /* never 0 */
};
#define NO_PAGE ((struct page_name){PAGE_NONE, 0})

/* Fixed when a server starts; a second server adopts the memory only if all of it is equal. */
struct arena_geometry {
    uint32_t page_classes;
    uint32_t nodes;
    uint32_t groups;
    uint32_t worker_slots;
    uint32_t session_slots;
    uint32_t context;     /* tokens that one session can hold */
    uint32_t mask_words;  /* 64-bit words of a session's token mask; 0: sessions have none */
    uint32_t result_rows; /* entries of one result slot, <= RESULT_ROWS_MAX */
    uint32_t pages_per_node[PAGE_CLASSES_MAX];
    uint32_t window; /* positions that layers of class 1 see, the newest included; 0: there is no class 1 */
    uint32_t reserved;
    uint64_t page_bytes[PAGE_CLASSES_MAX]; /* a multiple of 64 */
    uint64_t model_bytes;                  /* the opaque model block in `table` */
    uint64_t weights_bytes;                /* of each weights.N */
    uint64_t work_bytes;                   /* of each work.G after its result slots */
    uint8_t group_node[GROUPS_MAX];        /* the node that group G works on */
    uint8_t os_node[NODES_MAX];            /* what the kernel calls node N; not asked when there is only one */
};
static_assert(sizeof(struct arena_geometry) == 120, "layout changed: bump LAYOUT_VERSION");

/* The first page that a layer with a window looks at when `position` is computed; window 0: there is none. */
static inline uint32_t window_first_page(uint32_t window, uint32_t position)
{
    return window && position >= window ? (position - (window - 1)) / PAGE_TOKENS : 0;
}

/* BUILDING -> SERVING -> ENDED; any but BUILDING -> ADOPTING -> SERVING. A crash leaves whatever it was. */
enum arena_state { ARENA_BUILDING, ARENA_SERVING, ARENA_ADOPTING, ARENA_ENDED };

/*
 * arena_header: whose memory this is and which program may read it. Frozen: every version finds these fields here.
 * Writes:    the coordinator; all above crc before the state first becomes SERVING, and never again.
 * Reads:     workers when they attach, `quire inspect`, the next coordinator.
 * Hand-over: workers are spawned after it is complete; the others check magic, sizes and crc and believe nothing else.
 * Death:     BUILDING means half-made: dropped by the next coordinator. Adopting changes nothing that a second adoption
 *            would need, so ADOPTING is as good as SERVING, a few times.
 */
struct arena_header {
    char magic[8]; /* ARENA_MAGIC */
    uint32_t header_version;
    uint32_t header_bytes;
    uint32_t layout_version;
    uint32_t crc; /* CRC-32C of [0, offsetof(mutable part)) with crc itself 0 */
    uint64_t model_hash;
    uint8_t boot_id[16]; /* of the kernel that ran when it was made: shared memory never outlives it, files may */
    struct arena_geometry geometry;
    uint8_t frozen_reserve[88];

    alignas(CACHE_LINE) _Atomic uint32_t state; /* enum arena_state; from here on the mutable part */
    _Atomic uint32_t owner_pid;                 /* of the coordinator; for messages, the lock is what counts */
    _Atomic uint64_t owner_start;               /* its start time in clock ticks since boot (/proc/PID/stat) */
    _Atomic uint64_t generation;                /* coordinators that have owned this memory */
    _Atomic uint64_t weights_built;             /* bit N: weights.N is whole and sealed */
    _Atomic uint64_t started_us;                /* monotonic clock: when this owner began */
    _Atomic uint32_t takeovers;                 /* begun since the last owner that did well: see arena_adopt */
    uint32_t reserve;
    uint64_t secret[2]; /* random; keys what must mean the same to every owner (names of tenants) */
};
#define ARENA_MAGIC "quireKV"
static_assert(offsetof(struct arena_header, geometry) == 48, "the frozen header never moves");
static_assert(offsetof(struct arena_header, state) == 256, "the frozen header never moves");
static_assert(sizeof(struct arena_header) == 320 && sizeof(struct arena_header) <= HEADER_BYTES,
              "header fits its place");

/* Byte offsets and sizes that follow from a geometry. */
struct arena_layout {
    uint32_t page_count;                    /* all classes, all nodes */
    uint32_t class_first[PAGE_CLASSES_MAX]; /* first page number of a class */
    uint32_t row_entries[PAGE_CLASSES_MAX]; /* page list length of a sequence row */
    uint64_t model_at, descriptors_at, rows_at, row_bytes, table_bytes;
    uint64_t session_bytes, sessions_bytes;
    uint64_t worker_slots_at, slots_bytes;
    uint64_t class_at[PAGE_CLASSES_MAX]; /* offset of a class in pages.N */
    uint64_t pages_bytes;                /* of each pages.N */
    uint64_t result_slot_bytes, results_bytes;
    uint64_t group_work_bytes; /* of each work.G, results included */
    uint64_t total_bytes;      /* all segments together */
};

/* Refuses with a reason: counts of zero or beyond their bounds, sizes that overflow. */
enum err layout_of(const struct arena_geometry *g, struct arena_layout *out, struct why *why);

struct page_place {
    uint32_t page_class, node;
    uint64_t offset; /* in pages.NODE */
};

/* Where a page lies. page < page_count. */
struct page_place page_place(const struct arena_geometry *g, const struct arena_layout *l, page_id page);

#endif
