/* Who has which place: stages, groups that form, and what the loss of a rank does to its group. */
#include <stdio.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/supervisor_internal.h"
#include "shm/barrier.h"
#include "shm/worker_slot.h"

/* ---- moving ---- */

void supervisor_move_process(struct process *p, enum process_stage to)
{
    static const uint8_t may_follow[] = {
        [PROCESS_FREE] = 1u << PROCESS_STARTING,
        [PROCESS_STARTING] = 1u << PROCESS_SPARE | 1u << PROCESS_GONE,
        [PROCESS_SPARE] = 1u << PROCESS_RANKED | 1u << PROCESS_GONE,
        [PROCESS_RANKED] = 1u << PROCESS_GONE,
        [PROCESS_GONE] = 1u << PROCESS_FREE,
    };
    must(may_follow[p->stage] & 1u << to);
    p->stage = to;
    p->since_us = now_us();
}

void supervisor_move_group(struct group_state *g, enum group_stage to)
{
    static const uint8_t may_follow[] = {
        [GROUP_INCOMPLETE] = 1u << GROUP_BUILDING | 1u << GROUP_JOINING,
        [GROUP_BUILDING] = 1u << GROUP_INCOMPLETE | 1u << GROUP_JOINING,
        [GROUP_JOINING] = 1u << GROUP_INCOMPLETE | 1u << GROUP_UP,
        [GROUP_UP] = 1u << GROUP_INCOMPLETE,
    };
    must(may_follow[g->stage] & 1u << to);
    g->stage = to;
    g->since_us = now_us();
}

/* ---- groups ---- */

/* The ranks that take part, in order; their number. */
uint32_t supervisor_members(const struct supervisor *s, const struct group_state *g, struct process **out)
{
    uint32_t n = 0;
    for (uint32_t i = g->first_rank; i < g->first_rank + g->rank_count; i++)
        if (!s->ranks[i].closed)
            out[n++] = s->ranks[i].process;
    return n;
}

static bool is_complete(const struct supervisor *s, const struct group_state *g)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++)
        if (!who[i])
            return false;
    return n > 0;
}

static void begin_build(struct supervisor *s, struct group_state *g)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++) {
        s->command.kind = COMMAND_BUILD;
        s->command.build.group = (uint32_t)(g - s->groups);
        s->command.build.rank = i;
        s->command.build.ranks = n;
        snprintf(s->command.build.model_path, sizeof s->command.build.model_path, "%s", s->config.model_path);
        who[i]->built = false;
        who[i]->beat = 0;
        who[i]->beat_us = now_us();
        who[i]->build_done = who[i]->build_total = 0;
        supervisor_send_command(s, who[i]);
    }
    supervisor_move_group(g, GROUP_BUILDING);
}

void supervisor_begin_join(struct supervisor *s, struct group_state *g)
{
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    uint32_t group = (uint32_t)(g - s->groups);
    g->epoch++;
    barrier_set_epoch(s->config.arena, group, g->epoch);
    s->command.kind = COMMAND_ASSIGN;
    s->command.assign.epoch = g->epoch;
    s->command.assign.group = group;
    s->command.assign.ranks = n;
    for (uint32_t i = 0; i < n; i++)
        s->command.assign.slots[i] = who[i]->slot;
    for (uint32_t i = 0; i < n; i++) {
        s->command.assign.rank = i;
        s->command.assign.cpu = s->config.pin ? s->ranks[who[i]->rank].cpu : UINT32_MAX;
        who[i]->assigned = false;
        supervisor_send_command(s, who[i]);
    }
    supervisor_move_group(g, GROUP_JOINING);
    supervisor_set_tick(s, TICK_US);
}

static bool someone_builds(const struct supervisor *s, uint32_t node)
{
    for (uint32_t g = 0; g < s->group_count; g++)
        if (s->groups[g].node == node && s->groups[g].stage == GROUP_BUILDING)
            return true;
    return false;
}

/* Moves on every group that is whole; the first one of a node builds its weights, the others wait for them. */
void supervisor_advance_groups(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->group_count; i++) {
        struct group_state *g = &s->groups[i];
        if (g->stage != GROUP_INCOMPLETE || !is_complete(s, g) || supervisor_awaits_verdict(s, i))
            continue;
        if (arena_weights_built(s->config.arena, g->node))
            supervisor_begin_join(s, g);
        else if (!someone_builds(s, g->node))
            begin_build(s, g);
    }
}

/* One that has the group's memory mapped, else any. */
static struct process *find_spare(struct supervisor *s, uint32_t group)
{
    struct process *any = NULL;
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct process *p = &s->processes[i];
        if (p->stage == PROCESS_SPARE && p->group == group)
            return p;
        if (p->stage == PROCESS_SPARE && !any)
            any = p;
    }
    return any;
}

/* Spares take the empty places, groups that are whole again go on. */
void supervisor_fill_groups(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->rank_count; i++) {
        struct rank *rank = &s->ranks[i];
        struct process *spare = rank->process || rank->closed ? NULL : find_spare(s, rank->group);
        if (!spare)
            continue;
        spare->rank = i;
        spare->mapped = spare->group == rank->group;
        spare->group = rank->group;
        rank->process = spare;
        supervisor_move_process(spare, PROCESS_RANKED);
    }
    supervisor_advance_groups(s);
}

/* ---- losing ---- */

static void break_group(struct supervisor *s, struct group_state *g)
{
    uint32_t group = (uint32_t)(g - s->groups);
    if (g->stage != GROUP_INCOMPLETE) {
        bool was_up = g->stage == GROUP_UP;
        g->epoch++;
        barrier_set_epoch(s->config.arena, group, g->epoch); /* opens all barriers: whoever computes stops there */
        supervisor_move_group(g, GROUP_INCOMPLETE);
        if (was_up)
            s->hooks.group_down(s->hooks.world, group);
    }
}

/* The process will run no code of ours any more. */
void supervisor_lose_rank(struct supervisor *s, struct rank *rank, const char *how)
{
    struct process *p = rank->process;
    log_warn("worker %u (process %d) %s; its group goes on from its last committed tokens", p->rank, (int)p->child.pid,
             how);
    rank->process = NULL;
    rank->restarts++;
    s->lost_us = now_us();
    supervisor_move_process(p, PROCESS_GONE);
    break_group(s, &s->groups[rank->group]);
}

/* ---- how they died ---- */

/* One more suspect death; the rank may be closed for it. */
static void count_suspect(struct supervisor *s, struct rank *rank)
{
    uint64_t now = now_us();
    uint64_t *oldest = &rank->suspect_us[rank->suspects++ % RANK_DEATHS_MOST];
    bool often = rank->suspects > RANK_DEATHS_MOST && now - *oldest < RANK_DEATHS_WINDOW_US;
    *oldest = now;
    if (!often)
        return;
    rank->closed = true;
    if (rank->process) { /* the place was filled again before it was known whose fault the death was */
        worker_process_kill(&rank->process->child);
        supervisor_lose_rank(s, rank, "has no place any more");
    }
    log_error("worker %u died %d times within a minute by its own fault: its group goes on without it",
              (uint32_t)(rank - s->ranks), RANK_DEATHS_MOST);
    bool group_has_others = false, anybody = false;
    for (uint32_t i = 0; i < s->rank_count; i++) {
        anybody |= !s->ranks[i].closed;
        group_has_others |= !s->ranks[i].closed && s->ranks[i].group == rank->group;
    }
    if (!anybody)
        supervisor_give_up(s, "every worker died again and again by its own fault; the log above says how");
    else if (!group_has_others)
        s->hooks.group_lost(s->hooks.world, rank->group);
}

bool supervisor_awaits_verdict(const struct supervisor *s, uint32_t group)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        const struct process *p = &s->processes[i];
        if (p->stage == PROCESS_GONE && !p->judged && p->rank != NOBODY && s->ranks[p->rank].group == group)
            return true;
    }
    return false;
}

static void pardon(struct supervisor *s, uint32_t group)
{
    for (uint32_t i = 0; i < s->rank_count; i++)
        if (s->ranks[i].group == group) {
            s->ranks[i].suspects = 0;
            s->ranks[i].charge = CHARGE_NONE;
        }
}

static uint32_t open_ranks(const struct supervisor *s, uint32_t group)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->rank_count; i++)
        n += s->ranks[i].group == group && !s->ranks[i].closed;
    return n;
}

/* Whoever computes on a node whose pages are in doubt may be reading what was written there: those plans are void, too. */
static void break_groups_of(struct supervisor *s, uint32_t node)
{
    for (uint32_t i = 0; i < s->group_count; i++)
        if (s->groups[i].node == node)
            break_group(s, &s->groups[i]);
}

void supervisor_judge(struct supervisor *s, struct process *p, bool suspect)
{
    if (p->judged)
        return;
    p->judged = true;
    worker_process_step_aside(&p->child);
    if (!suspect)
        return;
    break_groups_of(s, s->groups[p->group].node);
    s->hooks.doubt(s->hooks.world, p->group);
    if (p->rank == NOBODY || fault_point(FAULT_COORDINATOR_SUSPECT))
        return;
    if (p->served)
        s->ranks[p->rank].charge = p->hung ? CHARGE_HANG : CHARGE_FAULT;
    else
        count_suspect(s, &s->ranks[p->rank]); /* no plan had come to it */
}

void supervisor_give_verdict(struct supervisor *s, struct group_state *g)
{
    struct rank *first = &s->ranks[g->first_rank], *end = first + g->rank_count;
    uint32_t group = (uint32_t)(g - s->groups), charged = 0, whose = UINT32_MAX;
    for (struct rank *rank = first; rank < end; rank++)
        if (rank->charge && charged++ == 0)
            whose = (uint32_t)(rank - s->ranks);
    if (!charged)
        return;
    if (s->hooks.blame(s->hooks.world, group, charged == 1 ? whose : UINT32_MAX, open_ranks(s, group)))
        pardon(s, group);
    for (struct rank *rank = first; rank < end; rank++) {
        if (rank->charge == CHARGE_FAULT) /* a machine that gives it no time lets every rank hang */
            count_suspect(s, rank);
        rank->charge = CHARGE_NONE;
    }
}

void supervisor_fail_group(struct supervisor *s, uint32_t group, const char *sentence)
{
    const struct group_state *g = &s->groups[group];
    struct process *who[GROUP_RANKS_MAX];
    uint32_t n = supervisor_members(s, g, who);
    log_error("group %u computed what cannot be (%s): its workers are replaced", group, sentence);
    for (uint32_t i = 0; i < n; i++) {
        worker_process_kill(&who[i]->child);
        supervisor_lose_rank(s, &s->ranks[who[i]->rank], "may have computed it");
    }
    for (uint32_t i = 0; i < n; i++)
        who[i]->judged = true;
    break_groups_of(s, g->node);
    s->hooks.doubt(s->hooks.world, group);
    s->hooks.blame(s->hooks.world, group, UINT32_MAX, n);
    supervisor_keep_up_numbers(s);
    supervisor_fill_groups(s);
}
