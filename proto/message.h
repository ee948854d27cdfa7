/*
 * message: commands and reports as plain C, and their form on the wire (quire.proto). Nobody else touches protobuf
 * types.
 *
 * Whatever arrives is checked before it is given on: sizes, counts, unknown fields, enum values, strings. What it
 * says about sessions and pages is checked by who reads those. Packing and unpacking allocate nothing; unpacking uses
 * the scratch memory of a struct message_scratch.
 */
#ifndef QUIRE_PROTO_MESSAGE_H
#define QUIRE_PROTO_MESSAGE_H

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    MESSAGE_BYTES_MAX = 64 * 1024,
    STEP_ROWS_MAX = 1024, /* even if every field has its longest form, a plan fits one message */
    STEP_ENTRIES_MAX = 1024,
    GROUP_RANKS_MAX = 512,
    MODEL_PATH_MAX = 4095,
    FAILED_TEXT_MAX = 511,
    SUM_PAGES_MAX = 128, /* a report of as many is shorter than one of a failure */
};

static const uint64_t PROGRESS_BYTES_MAX =
    UINT64_C(1) << 50; /* whoever adds them up for all ranks stays far from the end of 64 bits */

enum {
    ROW_SAMPLE = 1, /* draw the token after the last position */
    ROW_SCORE = 2,  /* log-probability of the next token of each position: `count` entries instead of one */
    ROW_MASKED = 4, /* the session's token mask applies */
    ROW_FLAGS = ROW_SAMPLE | ROW_SCORE | ROW_MASKED,
};

enum {
    PLAN_MEET_FIRST = 1, /* meet before anything else: the ranks have not met since they joined */
    PLAN_FLAGS = PLAN_MEET_FIRST,
};

/* A run of positions [first, first + count) of one session. */
struct step_row {
    uint32_t session, session_generation;
    uint32_t first, count; /* count >= 1 */
    uint32_t flags;        /* ROW_… */
    uint32_t history;  /* tokens of the session that are said: what penalties look at, besides the token handed over */
    uint32_t previous; /* 0: token ids stand in the session; 1 + i: the one input token is entry i of the step before */
};

/*
 * Entries of the step's result slot that a row fills: none, one, or with ROW_SCORE one per position, the last of
 * which is the drawn one if ROW_SAMPLE.
 */
static inline uint32_t step_row_entries(const struct step_row *row)
{
    return row->flags & ROW_SCORE ? row->count : (row->flags & ROW_SAMPLE ? 1 : 0);
}

struct step_plan {
    uint32_t epoch;
    uint32_t flags; /* PLAN_… */
    uint64_t step;  /* counts the plans of a group without gaps: its parity picks the result slot */
    uint32_t row_count;
    struct step_row rows[STEP_ROWS_MAX]; /* entries of all rows together: at most STEP_ENTRIES_MAX */
};

enum command_kind { COMMAND_ASSIGN = 1, COMMAND_BUILD, COMMAND_PLAN, COMMAND_STOP, COMMAND_SUM };

struct command {
    enum command_kind kind;
    union {
        struct {
            uint32_t epoch, group, rank, ranks;
            uint32_t slots[GROUP_RANKS_MAX]; /* by rank */
            uint32_t cpu;                    /* of the receiver's computing thread; UINT32_MAX: any */
        } assign;
        struct {
            uint32_t group, rank, ranks;
            char model_path[MODEL_PATH_MAX + 1];
        } build;
        struct step_plan plan;
        struct {
            uint64_t question;
            uint32_t count; /* 1 to SUM_PAGES_MAX */
            uint32_t pages[SUM_PAGES_MAX];
        } sum;
    };
};

enum report_kind {
    REPORT_HELLO = 1,
    REPORT_ASSIGNED,
    REPORT_BUILT,
    REPORT_PROGRESS,
    REPORT_RESULT,
    REPORT_FAILED,
    REPORT_SUMS
};

struct report {
    enum report_kind kind;
    union {
        struct {
            uint32_t slot, generation, pid, layout_version;
        } hello;
        struct {
            uint32_t epoch;
        } assigned;
        struct {
            uint64_t done, total; /* bytes; done <= total <= PROGRESS_BYTES_MAX */
        } progress;
        struct {
            uint32_t epoch;
            uint64_t step, compute_us;
        } result;
        struct {
            uint32_t epoch; /* 0 and 0: not in a step */
            uint64_t step;
            char text[FAILED_TEXT_MAX + 1]; /* one sentence for a person */
        } failed;
        struct {
            uint64_t question;
            uint32_t count; /* 1 to SUM_PAGES_MAX */
            uint32_t sums[SUM_PAGES_MAX];
        } sums;
    };
};

/* Budget of one unpacking; big enough for every message within the bounds above. */
struct message_scratch {
    alignas(16) uint8_t bytes[256 * 1024];
};

/*
 * Packs into out[0..room); *length receives the bytes. ERR_FULL: room is too small. Fields beyond their bounds are
 * our own mistake (must).
 */
enum err command_pack(const struct command *command, uint8_t *out, size_t room, size_t *length);
enum err report_pack(const struct report *report, uint8_t *out, size_t room, size_t *length);

/* Packs a plan without copying it into a struct command. */
enum err plan_pack(const struct step_plan *plan, uint8_t *out, size_t room, size_t *length);

/* ERR_FORMAT with the reason for anything that does not keep the bounds; *command is then unspecified. */
enum err command_unpack(struct command *command, const uint8_t *bytes, size_t length, struct message_scratch *scratch,
                        struct why *why);
enum err report_unpack(struct report *report, const uint8_t *bytes, size_t length, struct message_scratch *scratch,
                       struct why *why);

#endif
