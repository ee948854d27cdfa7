/* Deaths and hangs: life words and arrival words, read while somebody computes. */

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/supervisor_internal.h"
#include "shm/barrier.h"
#include "shm/worker_slot.h"

/* Ends the ranks that have not joined or whose arrival word is behind; when there is none of those, all. */
static void end_the_late(struct supervisor *s, struct group_state *g)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    uint64_t arrived[GROUP_RANKS_MAX], most = 0;
    bool late[GROUP_RANKS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        arrived[i] = atomic_load_explicit(&worker_slot_at(s->config.arena, who[i]->slot)->arrived,
                                          memory_order_acquire); /* a hint only; pairs with its meet */
        if (i == 0 || arrival_is_behind(most, arrived[i]))
            most = arrived[i];
    }
    for (uint32_t i = 0; i < n; i++)
        count += late[i] = g->stage == GROUP_JOINING ? !who[i]->assigned : arrival_is_behind(arrived[i], most);
    for (uint32_t i = 0; i < n; i++)
        if (late[i] || !count) {
            log_warn("worker %u (process %d) hangs: ending it", who[i]->rank, (int)who[i]->child.pid);
            who[i]->hung = g->stage == GROUP_UP && !worker_process_is_stopped(&who[i]->child);
            worker_process_kill(&who[i]->child);
            s->hangs++;
        }
}

/* Looks how the dead died; true: of one it is known now. */
static bool judge_the_dead(struct supervisor *s)
{
    bool any = false;
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct process *p = &s->processes[i];
        int status;
        if (p->stage != PROCESS_GONE || p->judged || !worker_process_peek(&p->child, &status))
            continue;
        supervisor_judge(s, p, worker_process_died_suspect(status) || p->hung);
        any = true;
    }
    return any;
}

/* That it is ready a process says by a message, which may be lost, and in its slot. */
static void welcome_the_unheard(struct supervisor *s)
{
    uint64_t now = now_us();
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct process *p = &s->processes[i];
        const struct worker_slot *slot = worker_slot_at(s->config.arena, p->slot);
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed); /* nothing is read through it */
        if (p->stage != PROCESS_STARTING || state != WORKER_READY)
            continue;
        if (p->ready_us == 0)
            p->ready_us = now;
        if (now - p->ready_us < HELLO_MOST_US)
            continue;
        log_warn("worker process %d is ready, and its message that says so was lost", (int)p->child.pid);
        supervisor_welcome(s, p);
    }
}

void supervisor_check_lives(struct supervisor *s)
{
    bool lost = false;
    for (uint32_t i = 0; i < s->rank_count; i++) {
        struct rank *rank = &s->ranks[i];
        if (rank->process && worker_slot_life(s->config.arena, rank->process->slot) == LIFE_DEAD) {
            supervisor_lose_rank(s, rank, "died");
            lost = true;
        }
    }
    welcome_the_unheard(s);
    if (judge_the_dead(s) || lost) {
        supervisor_fill_groups(s);
        supervisor_keep_up_numbers(s);
    }
}

/* A group that still meets is slow, not stuck: somebody else may have its cores. */
static void note_arrivals(struct supervisor *s, struct group_state *g, uint64_t now)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += atomic_load_explicit(&worker_slot_at(s->config.arena, who[i]->slot)->arrived,
                                    memory_order_relaxed); /* only whether it moves */
    if (sum != g->arrivals) {
        g->arrivals = sum;
        g->arrived_us = now;
    }
}

/* Ends the ranks that somebody stopped: the others wait for them. */
static void end_the_stopped(struct supervisor *s, struct group_state *g, uint64_t now)
{
    g->looked_us = now;
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++)
        if (worker_process_is_stopped(&who[i]->child)) {
            log_warn("worker %u (process %d) was stopped from outside: ending it", who[i]->rank,
                     (int)who[i]->child.pid);
            worker_process_kill(&who[i]->child);
            s->hangs++;
        }
}

/*
 * Weights take whatever time they take, but who builds beats. Who does nothing and was not heard to say that its share is built has not got
 * the command, or its answer was lost. Asked again it would build again, so it is no dearer to ask another one.
 */
static void end_the_unbuilt(struct supervisor *s, const struct group_state *g, uint64_t now)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++) {
        struct process *p = who[i];
        struct worker_slot *slot = worker_slot_at(s->config.arena, p->slot);
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed); /* only whether it moves */
        bool builds = state == WORKER_COMPUTING;
        uint64_t beat = builds ? atomic_load_explicit(&slot->beat_us, memory_order_relaxed) : 0; /* the same */
        if (p->built || beat != p->beat) {
            p->beat = beat;
            p->beat_us = now;
        }
        if (now - p->beat_us < (builds ? BEAT_MOST_US : BUILT_MOST_US))
            continue;
        log_warn("worker %u (process %d) %s: ending it", p->rank, (int)p->child.pid,
                 builds ? "hangs while it builds its weights"
                        : "builds no weights and has not said that they are built");
        worker_process_kill(&p->child);
        p->beat_us = now;
        s->hangs++;
    }
}

/* From assign to assigned: mapping another group's memory, hundreds of GiB perhaps, takes its time, joining again none. */
static uint64_t join_most_us(const struct supervisor *s, const struct group_state *g)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++)
        if (!who[i]->mapped)
            return START_MOST_US;
    return JOIN_MOST_US;
}

/* For how long no rank of a group that owes us something has got anywhere; 0: it owes nothing. *most: until it hangs. */
static uint64_t quiet_us(struct supervisor *s, uint32_t group, uint64_t now, uint64_t *most)
{
    struct group_state *g = &s->groups[group];
    uint64_t since, planned;
    if (g->stage == GROUP_UP && s->hooks.in_flight(s->hooks.world, group, &since, &planned)) {
        note_arrivals(s, g, now);
        *most = planned * HANG_FACTOR > HANG_LEAST_US ? planned * HANG_FACTOR : HANG_LEAST_US;
        since = since > g->arrived_us ? since : g->arrived_us;
    } else if (g->stage == GROUP_JOINING) {
        *most = join_most_us(s, g);
        since = g->since_us;
    } else if (g->stage == GROUP_BUILDING) {
        *most = UINT64_MAX; /* each rank has its own time: see end_the_unbuilt */
        since = g->since_us;
    } else {
        return 0;
    }
    return now > since ? now - since : 0;
}

void supervisor_check_hangs(struct supervisor *s)
{
    uint64_t now = now_us();
    for (uint32_t i = 0; i < s->group_count; i++) {
        uint64_t most, quiet = quiet_us(s, i, now, &most);
        if (quiet > most)
            end_the_late(s, &s->groups[i]);
        else if (quiet > STOPPED_MOST_US && now - s->groups[i].looked_us > LOOK_US)
            end_the_stopped(s, &s->groups[i], now);
        if (s->groups[i].stage == GROUP_BUILDING)
            end_the_unbuilt(s, &s->groups[i], now);
    }
    for (uint32_t i = 0; i < s->slot_count; i++) {
        const struct process *p = &s->processes[i];
        uint64_t age = p->stage == PROCESS_STARTING ? now - p->since_us : 0;
        if (age > START_MOST_US || (age > STOPPED_MOST_US && worker_process_is_stopped(&p->child)))
            worker_process_kill(&p->child);
    }
}

bool supervisor_someone_computes(const struct supervisor *s)
{
    uint64_t since, planned;
    for (uint32_t i = 0; i < s->group_count; i++)
        if (s->groups[i].stage == GROUP_JOINING || s->groups[i].stage == GROUP_BUILDING ||
            supervisor_awaits_verdict(s, i) ||
            (s->groups[i].stage == GROUP_UP && s->hooks.in_flight(s->hooks.world, i, &since, &planned)))
            return true;
    return false;
}
