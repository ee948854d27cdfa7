#include "coordinator/sequence.h"

#include <stddef.h>

#include "base/must.h"

#define BIT(state) (1u << (state))

static const uint8_t may_follow[] = {
    [SEQUENCE_WAITING] = BIT(SEQUENCE_PREFILL) | BIT(SEQUENCE_DONE),
    [SEQUENCE_PREFILL] = BIT(SEQUENCE_DECODE) | BIT(SEQUENCE_WAITING) | BIT(SEQUENCE_DONE),
    [SEQUENCE_DECODE] = BIT(SEQUENCE_WAITING) | BIT(SEQUENCE_DONE),
    [SEQUENCE_DONE] = 0,
};

void sequence_move(struct sequence *s, enum sequence_state to)
{
    must(may_follow[s->state] & BIT(to));
    s->state = to;
}

const char *sequence_state_name(enum sequence_state state)
{
    static const char *const names[] = {
        [SEQUENCE_WAITING] = "waiting",
        [SEQUENCE_PREFILL] = "prefill",
        [SEQUENCE_DECODE] = "decode",
        [SEQUENCE_DONE] = "done",
    };
    return names[state];
}

const char *finish_reason_name(enum finish_reason reason)
{
    static const char *const names[] = {
        [FINISH_STOP] = "stop",
        [FINISH_LENGTH] = "length",
        [FINISH_CANCELLED] = "cancelled",
        [FINISH_ERROR] = "error",
    };
    return names[reason];
}

static void insert_after(struct sequence_list *list, struct sequence *place, struct sequence *s)
{
    s->previous = place;
    s->next = place ? place->next : list->first;
    if (s->next)
        s->next->previous = s;
    else
        list->last = s;
    if (place)
        place->next = s;
    else
        list->first = s;
    list->count++;
}

void sequence_list_append(struct sequence_list *list, struct sequence *s)
{
    insert_after(list, list->last, s);
}

void sequence_list_insert_by_order(struct sequence_list *list, struct sequence *s)
{
    struct sequence *place = list->last;
    while (place && place->order > s->order)
        place = place->previous;
    insert_after(list, place, s);
}

void sequence_list_remove(struct sequence_list *list, struct sequence *s)
{
    if (s->previous)
        s->previous->next = s->next;
    else
        list->first = s->next;
    if (s->next)
        s->next->previous = s->previous;
    else
        list->last = s->previous;
    s->previous = s->next = NULL;
    list->count--;
}
