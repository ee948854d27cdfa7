#include "tests/support/fake_world_case.h"

struct fake_world *world_of(void **state, struct fake_sizes sizes)
{
    *state = fake_world_open(&sizes);
    return *state;
}

struct fake_world *plain_world(void **state)
{
    return world_of(state, (struct fake_sizes){0});
}

int close_world(void **state)
{
    if (*state)
        fake_world_close(*state);
    return 0;
}

const struct scheduler_counters *counters(const struct fake_world *w)
{
    return scheduler_counters(w->s);
}

bool is_running(const struct client *c)
{
    return c->sequence && c->sequence->state != SEQUENCE_WAITING;
}
