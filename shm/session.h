/*
 * session: what a sequence is: its tokens and how it draws the next. Tokens are the log; keys and values are a cache
 * that can always be made again from them. All of a session that must outlive the coordinator stands in its slot.
 */
#ifndef QUIRE_SHM_SESSION_H
#define QUIRE_SHM_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "shm/arena.h"
#include "shm/layout.h"

enum {
    SESSION_ID_BYTES = 48,
    SESSION_CLIENT_BYTES = 24 * 1024, /* the longest stop strings, and a few KiB */
};

/*
 * FREE -> LIVE -> RETIRED (plans in flight may name it) -> FREE
 * LIVE -> KEPT (nobody computes it; its tokens stay for whoever asks for them again) -> LIVE or RETIRED
 */
enum session_state { SESSION_FREE, SESSION_LIVE, SESSION_RETIRED, SESSION_KEPT, SESSION_STATES };

/*
 * session_slot, followed by token ids [context] and, each at a multiple of 64, the token mask [mask_words].
 * Writes:    the coordinator. id, salt, sampling, client and their crc before the first plan names the slot; tokens above
 *            n_tok; then the commit word, once a step.
 * Reads:     workers: sampling, and tokens at positions that their plan names; the next coordinator: everything below
 *            the commit word.
 * Hand-over: the StepPlan message to workers; the commit word, stored with release after its tokens, to the next
 *            coordinator and inspect.
 * Death:     tokens above n_tok mean nothing; everything below is whole. Nothing goes to a client before it is below.
 *            Checksums tell what a stray write or a flipped bit has changed: such a session is dropped.
 */
struct session_slot {
    _Atomic uint32_t generation; /* raised when the slot is taken, never 0 after the first time */
    _Atomic uint32_t state;      /* enum session_state */
    char id[SESSION_ID_BYTES];   /* the client's response id, NUL-terminated */
    uint64_t salt;               /* tenant, as in page_descriptor */
    uint32_t group;              /* that computes it */
    uint32_t reserve;

    alignas(CACHE_LINE) _Atomic uint64_t
        commit;                 /* n_kv << 32 | n_tok: tokens that are said; positions whose K and V are in pages */
    _Atomic uint64_t last_plan; /* the last plan that names the slot, stored when it is released */
    uint32_t tokens_crc[2]; /* [n_tok % 2]: CRC-32C of tokens [0, n_tok); the other one is the next commit's to write */
    uint32_t facts_crc;     /* of id, salt, sampling, client: session_seal_facts */
    uint32_t client_bytes;
    uint64_t reserve_line[4];

    alignas(CACHE_LINE) struct sampling sampling;
    alignas(CACHE_LINE) uint8_t client[SESSION_CLIENT_BYTES]; /* the coordinator's own; opaque here */
    alignas(CACHE_LINE) uint32_t tokens[];
};
static_assert(offsetof(struct session_slot, commit) == 2 * CACHE_LINE, "layout changed: bump LAYOUT_VERSION");
static_assert(offsetof(struct session_slot, sampling) == 3 * CACHE_LINE, "layout changed: bump LAYOUT_VERSION");

struct session_progress {
    uint32_t tokens; /* n_tok */
    uint32_t kv;     /* n_kv <= n_tok */
};

/* slot < session_slots. Workers' mapping is read-only: only the coordinator may write through it. */
struct session_slot *session_at(const struct arena *a, uint32_t slot);

/* The token mask: bit i % 64 of word i / 64 allows token i. NULL when mask_words is 0. */
uint64_t *session_mask(const struct arena *a, uint32_t slot);

/* id, salt, sampling and client are what they shall be. */
void session_seal_facts(struct session_slot *s);

/*
 * Tokens below n_tok and positions below n_kv are good from now on. Never goes back while the generation stays, but
 * for kv after a loss of pages. More than one token at once only while n_tok is 0: see tokens_crc.
 */
void session_commit(struct session_slot *s, struct session_progress progress);
struct session_progress session_progress(const struct session_slot *s);

/*
 * For workers: the slot if it exists, is of that generation and [first, first + count) lies in the context; NULL
 * otherwise.
 */
const struct session_slot *session_read(const struct arena *a, uint32_t slot, uint32_t generation, uint32_t first,
                                        uint32_t count);

/* A live or kept session that adoption would take: fields in bounds, checksums right. */
bool session_is_whole(const struct arena *a, const struct session_slot *s);

/* Which slots are taken: private to the coordinator. */
struct session_slots;
enum { SESSION_NONE = UINT32_MAX };

/* New arena: all FREE. */
enum err session_slots_open(struct session_slots **out, struct arena *arena, struct why *why);

/*
 * Adopted arena: LIVE and KEPT slots whose checksums fit and whose fields are in bounds (n_kv <= n_tok <= context, id
 * terminated, counts of sampling) stay what they are, the rest becomes FREE. Says how many it dropped in *dropped. A LIVE
 * one is its finder's: to go on with, or to release.
 */
enum err session_slots_adopt(struct session_slots **out, struct arena *arena, uint32_t *dropped, struct why *why);
void session_slots_close(struct session_slots *slots);

/*
 * A free slot, else one of the request (slots of one id) that has been KEPT for longest, which frees all its slots; not of one that has a LIVE
 * slot, too. LIVE now, with a new generation, n_tok = n_kv = 0 and all fields zero.
 * SESSION_NONE: neither.
 */
uint32_t session_slots_take(struct session_slots *slots);

/* LIVE becomes KEPT; until somebody resumes or releases it, or takes it for another. It is let be while plans name it. */
void session_slots_keep(struct session_slots *slots, uint32_t slot, uint64_t last_plan);

/* KEPT becomes LIVE again, with its generation and tokens. */
void session_slots_resume(struct session_slots *slots, uint32_t slot);

/* LIVE or KEPT, and of that generation: still what it was. */
bool session_slots_hold(const struct session_slots *slots, uint32_t slot, uint32_t generation);

/* The session ended, or is kept no longer; the slot is free once all plans up to last_plan are answered (session_slots_reclaim). */
void session_slots_release(struct session_slots *slots, uint32_t slot, uint64_t last_plan);
void session_slots_reclaim(struct session_slots *slots, uint64_t answered);

uint32_t session_slots_free(const struct session_slots *slots);
uint32_t session_slots_live(const struct session_slots *slots);
uint32_t session_slots_kept(const struct session_slots *slots);

#endif
