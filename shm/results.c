#include "shm/results.h"

#include <stdio.h>
#include <string.h>

#include "base/must.h"

struct result_entry *result_entry_at(const struct arena *a, uint64_t step, uint32_t index)
{
    must(a->work.base && index < a->geometry.result_rows);
    return (struct result_entry *)(void *)(a->work.base + (step & 1) * a->layout.result_slot_bytes) + index;
}

void result_publish(struct result_entry *entry, uint32_t epoch, uint64_t step)
{
    /* Release: the fields before the stamp; pairs with the acquires below. */
    atomic_store_explicit(&entry->stamp, result_stamp(epoch, step), memory_order_release);
}

static bool is_of(const struct result_entry *entry, uint32_t epoch, uint64_t step, uint32_t session,
                  uint32_t generation)
{
    /* Acquire: pairs with result_publish. */
    return atomic_load_explicit(&entry->stamp, memory_order_acquire) == result_stamp(epoch, step) &&
           entry->session == session && entry->session_generation == generation;
}

enum err result_token(const struct arena *a, uint32_t epoch, uint64_t step, uint32_t index, uint32_t session,
                      uint32_t session_generation, uint32_t *token)
{
    if (index >= a->geometry.result_rows)
        return ERR_ABORTED;
    const struct result_entry *entry = result_entry_at(a, step, index);
    if (!is_of(entry, epoch, step, session, session_generation))
        return ERR_ABORTED;
    *token = entry->token;
    return OK;
}

enum err results_open(struct results *r, const struct arena *a, uint32_t group, struct why *why)
{
    char what[SEGMENT_WHAT_MAX];
    must(group < a->geometry.groups);
    snprintf(what, sizeof what, "work.%u", group);
    r->rows = a->geometry.result_rows;
    r->slot_bytes = a->layout.result_slot_bytes;
    return segment_attach(&r->segment, &a->home, what, a->layout.group_work_bytes, SEGMENT_READ, why);
}

void results_close(struct results *r)
{
    segment_detach(&r->segment);
}

enum err results_read(const struct results *r, uint32_t epoch, uint64_t step, uint32_t index, uint32_t session,
                      uint32_t session_generation, uint32_t vocab, struct result_entry *out, struct why *why)
{
    must(index < r->rows);
    const uint8_t *slot = r->segment.base + (step & 1) * r->slot_bytes;
    const struct result_entry *entry = (const struct result_entry *)(const void *)slot + index;
    if (!is_of(entry, epoch, step, session, session_generation))
        return because(why, ERR_FORMAT, "result %u of step %llu is not there, or is that of another session", index,
                       (unsigned long long)step);
    memcpy(out, entry, sizeof *out); /* checked in the copy, which nobody else can write */
    if (out->token >= vocab || out->top_count > SAMPLING_MAX_TOP_LOGPROBS)
        return because(why, ERR_FORMAT, "result %u of step %llu is damaged: token %u with %u alternatives", index,
                       (unsigned long long)step, out->token, out->top_count);
    for (uint32_t i = 0; i < out->top_count; i++)
        if (out->top[i].token >= vocab)
            return because(why, ERR_FORMAT, "result %u of step %llu is damaged: it names token %u", index,
                           (unsigned long long)step, out->top[i].token);
    return OK;
}
