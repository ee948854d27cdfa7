/* Opening, closing, what is said to workers and heard from them. See also supervisor_processes.c, _groups.c and _watch.c. */
#include "coordinator/supervisor.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/supervisor_internal.h"
#include "shm/barrier.h"
#include "shm/room.h"
#include "shm/worker_slot.h"

uint32_t supervisor_worker_slots(uint32_t workers, uint32_t spares)
{
    uint32_t slots = 2 * (workers + spares) + 2;
    return slots < WORKER_SLOTS_MAX ? slots : WORKER_SLOTS_MAX;
}

void supervisor_set_tick(struct supervisor *s, uint32_t us)
{
    struct timeval wait = {.tv_usec = (suseconds_t)us};
    event_add(s->tick, &wait);
}

void supervisor_give_up(struct supervisor *s, const char *sentence)
{
    if (s->hopeless)
        return;
    s->hopeless = true;
    s->hooks.hopeless(s->hooks.world, sentence);
}

/* ---- messages out ---- */

static struct channel_peer peer_of(const struct process *p)
{
    return (struct channel_peer){.slot = p->slot, .generation = p->generation};
}

/* A worker that cannot be reached is as good as dead; its life word says so on the next tick. */
static void send_bytes(struct supervisor *s, struct process *p, size_t length)
{
    enum err e = channel_send(s->channel, peer_of(p), s->bytes, length);
    if (e && p->stage != PROCESS_GONE) {
        log_warn("worker process %d does not take messages any more: ending it", (int)p->child.pid);
        worker_process_kill(&p->child);
    }
    event_active(s->drain_event, EV_READ, 0); /* sending may have swallowed the edge of a message that came */
}

void supervisor_send_command(struct supervisor *s, struct process *p)
{
    size_t length;
    must(command_pack(&s->command, s->bytes, sizeof s->bytes, &length) == OK);
    send_bytes(s, p, length);
}

void supervisor_send_plan(struct supervisor *s, uint32_t group, const struct step_plan *plan)
{
    size_t length;
    must(plan_pack(plan, s->bytes, sizeof s->bytes, &length) == OK);
    const struct group_state *g = &s->groups[group];
    must(g->stage == GROUP_UP && plan->epoch == g->epoch);
    for (uint32_t i = g->first_rank; i < g->first_rank + g->rank_count; i++)
        if (s->ranks[i].process) {
            send_bytes(s, s->ranks[i].process, length);
            fault_point(FAULT_COORDINATOR_PLAN_SENT);
        }
    supervisor_set_tick(s, TICK_US);
}

void supervisor_ask_sums(struct supervisor *s, uint32_t group, uint64_t question, const uint32_t *pages, uint32_t count)
{
    struct process *who[GROUP_RANKS_MAX];
    must(s->groups[group].stage == GROUP_UP);
    uint32_t n = supervisor_members(s, &s->groups[group], who);
    s->command.kind = COMMAND_SUM;
    s->command.sum.question = question;
    s->command.sum.count = count;
    memcpy(s->command.sum.pages, pages, count * sizeof *pages);
    supervisor_send_command(s, who[question % n]);
    supervisor_set_tick(s, TICK_US);
}

/* ---- messages in ---- */

void supervisor_welcome(struct supervisor *s, struct process *p)
{
    if (p->stage != PROCESS_STARTING)
        return;
    s->start_deaths = 0;
    supervisor_move_process(p, PROCESS_SPARE);
    supervisor_fill_groups(s);
}

static void take_assigned(struct supervisor *s, struct process *p, uint32_t epoch)
{
    struct group_state *g = &s->groups[s->ranks[p->rank].group];
    struct process *who[GROUP_RANKS_MAX];
    if (g->stage != GROUP_JOINING || epoch != g->epoch)
        return;
    p->assigned = p->mapped = true;
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++)
        if (!who[i]->assigned)
            return;
    supervisor_give_verdict(s, g);
    if (g->stage != GROUP_JOINING)
        return; /* a rank was closed: its process is reaped, then the others join */
    for (uint32_t i = 0; i < n; i++)
        who[i]->served = true;
    supervisor_move_group(g, GROUP_UP);
    s->hooks.group_up(s->hooks.world, (uint32_t)(g - s->groups), g->epoch);
}

static void take_built(struct supervisor *s, struct process *p)
{
    struct group_state *g = &s->groups[s->ranks[p->rank].group];
    struct process *who[GROUP_RANKS_MAX];
    if (g->stage != GROUP_BUILDING)
        return;
    p->built = true;
    uint32_t n = supervisor_members(s, g, who);
    for (uint32_t i = 0; i < n; i++)
        if (!who[i]->built)
            return;
    arena_mark_weights_built(s->config.arena, g->node);
    supervisor_begin_join(s, g);
    supervisor_advance_groups(s); /* others of the node waited for the weights */
}

static void take_progress(struct supervisor *s, struct process *p, uint64_t done, uint64_t total)
{
    p->build_done = done;
    p->build_total = total;
    uint64_t all_done = 0, all_total = 0;
    for (uint32_t i = 0; i < s->rank_count; i++)
        if (s->ranks[i].process) {
            all_done += s->ranks[i].process->build_done;
            all_total += s->ranks[i].process->build_total;
        }
    s->hooks.progress(s->hooks.world, all_done, all_total);
}

/* What a worker cannot do, it says and then waits; a rank that fails is replaced like a dead one. */
static void take_failed(struct supervisor *s, struct process *p, const char *text)
{
    log_error("worker process %d: %s", (int)p->child.pid, text);
    if (p->stage != PROCESS_RANKED)
        return;
    worker_process_kill(&p->child); /* it waits for commands now and writes nowhere */
    supervisor_lose_rank(s, &s->ranks[p->rank], "could not do its part");
    supervisor_judge(s, p, true);
    supervisor_keep_up_numbers(s);
    supervisor_fill_groups(s);
}

static void take_report(struct supervisor *s, struct process *p)
{
    const struct report *r = &s->report;
    if (r->kind == REPORT_HELLO) {
        supervisor_welcome(s, p);
        return;
    }
    if (r->kind == REPORT_FAILED) {
        take_failed(s, p, r->failed.text);
        return;
    }
    if (p->stage != PROCESS_RANKED)
        return; /* of a place that it has lost */
    uint32_t group = s->ranks[p->rank].group;
    switch (r->kind) {
    case REPORT_ASSIGNED:
        take_assigned(s, p, r->assigned.epoch);
        break;
    case REPORT_BUILT:
        take_built(s, p);
        break;
    case REPORT_PROGRESS:
        take_progress(s, p, r->progress.done, r->progress.total);
        break;
    case REPORT_RESULT:
        if (s->groups[group].stage == GROUP_UP && r->result.epoch == s->groups[group].epoch)
            s->hooks.step_done(s->hooks.world, group, r->result.epoch, r->result.step, r->result.compute_us);
        break;
    case REPORT_SUMS:
        if (s->groups[group].stage == GROUP_UP)
            s->hooks.sums(s->hooks.world, group, r->sums.question, r->sums.sums, r->sums.count);
        break;
    default:
        break;
    }
}

static void drain(struct supervisor *s)
{
    for (uint32_t i = 0; i < MESSAGES_PER_TURN; i++) {
        struct channel_peer from;
        struct why why;
        size_t length;
        enum err e = channel_receive(s->channel, &from, s->bytes, sizeof s->bytes, &length);
        if (e == ERR_BUSY)
            return;
        if (!e)
            e = report_unpack(&s->report, s->bytes, length, &s->scratch, &why);
        struct process *p = !e && from.slot < s->slot_count ? &s->processes[from.slot] : NULL;
        if (e)
            log_warn("dropped a message that no worker of this version sends");
        else if (p && p->generation == from.generation && p->stage != PROCESS_FREE && p->stage != PROCESS_GONE)
            take_report(s, p);
    }
    event_active(s->drain_event, EV_READ, 0); /* more may lie there; let others have their turn first */
}

static void on_channel(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    drain(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct supervisor *s = arg;
    supervisor_check_lives(s);
    drain(s); /* a safety net under the edge-triggered descriptor; what was said counts before anybody is late */
    supervisor_check_hangs(s);
    supervisor_keep_up_numbers(s);
    supervisor_set_tick(s, supervisor_someone_computes(s) ? TICK_US : IDLE_TICK_US);
}

/* ---- opening and closing ---- */

/* Epochs go on where a dead server's ended: what its workers left with their stamps is nobody's result now. */
static uint32_t epoch_left(const struct supervisor *s, uint32_t group)
{
    const struct group_word *word = group_word_at(s->config.arena, group);
    uint32_t epoch = atomic_load_explicit(&word->epoch, memory_order_relaxed); /* whoever wrote it is dead */
    return epoch < UINT32_MAX / 2 ? epoch : 0; /* no server raises it so far: a damaged word */
}

/* Workers are dealt over the groups, groups over the nodes, cores of its node to each worker. */
static void deal_ranks(struct supervisor *s)
{
    const struct topology *t = s->config.topology;
    uint32_t used[TOPOLOGY_MAX_NODES] = {0}, next = 0;
    for (uint32_t i = 0; i < s->group_count; i++) {
        struct group_state *g = &s->groups[i];
        g->node = s->config.arena->geometry.group_node[i];
        g->epoch = epoch_left(s, i);
        g->first_rank = next;
        g->rank_count = s->rank_count / s->group_count + (i < s->rank_count % s->group_count);
        next += g->rank_count;
        for (uint32_t r = g->first_rank; r < next; r++) {
            uint32_t on_node = 0, first = 0;
            for (uint32_t c = 0; c < t->cores; c++) {
                if (t->core[c].node == g->node && on_node++ == 0)
                    first = c;
            }
            uint32_t cpu = on_node ? t->core[first + used[g->node]++ % on_node].cpu : UINT32_MAX;
            s->ranks[r] = (struct rank){.group = i, .cpu = cpu, .node = g->node};
        }
    }
}

static enum err open_channel(struct supervisor *s, struct why *why)
{
    enum err e = channel_directory(s->channel_directory, s->config.arena->home.name, why);
    if (!e)
        e = channel_bind(&s->channel, s->channel_directory, why);
    if (e)
        return e;
    s->channel_event = event_new(s->config.loop, channel_fd(s->channel), EV_READ | EV_PERSIST, on_channel, s);
    s->drain_event = event_new(s->config.loop, -1, EV_PERSIST, on_channel, s);
    s->tick = evtimer_new(s->config.loop, on_tick, s);
    if (!s->channel_event || !s->drain_event || !s->tick || event_add(s->channel_event, NULL))
        return because(why, ERR_NOMEM, "could not watch the workers' channel: no memory");
    return OK;
}

enum err supervisor_open(struct supervisor **out, const struct supervisor_config *config,
                         const struct supervisor_hooks *hooks, struct why *why)
{
    struct supervisor *s = calloc(1, sizeof *s);
    if (!s)
        return because(why, ERR_NOMEM, "could not open the supervisor: no memory");
    s->config = *config;
    s->hooks = *hooks;
    s->oom_kills = room_oom_kills(ROOM_CGROUP_ROOT, ROOM_CGROUP_MEMBERSHIP);
    s->rank_count = config->workers;
    s->group_count = config->groups;
    s->slot_count = config->arena->geometry.worker_slots;
    s->ranks = calloc(s->rank_count, sizeof *s->ranks);
    s->processes = calloc(s->slot_count, sizeof *s->processes);
    enum err e = s->ranks && s->processes ? OK : because(why, ERR_NOMEM, "could not open the supervisor: no memory");
    for (uint32_t i = 0; !e && i < s->slot_count; i++)
        s->processes[i] = (struct process){.supervisor = s, .slot = i, .rank = NOBODY, .child.pidfd = -1};
    if (!e)
        e = open_channel(s, why);
    if (e) {
        supervisor_close(s);
        return e;
    }
    deal_ranks(s);
    supervisor_keep_up_numbers(s);
    supervisor_set_tick(s, TICK_US);
    *out = s;
    return OK;
}

void supervisor_close(struct supervisor *s)
{
    if (!s)
        return;
    s->closing = true;
    if (s->channel && s->drain_event)
        supervisor_end_processes(s);
    for (uint32_t i = 0; s->processes && i < s->slot_count; i++)
        if (s->processes[i].watch)
            event_free(s->processes[i].watch);
    if (s->tick)
        event_free(s->tick);
    if (s->drain_event)
        event_free(s->drain_event);
    if (s->channel_event)
        event_free(s->channel_event);
    if (s->channel)
        channel_close(s->channel);
    free(s->processes);
    free(s->ranks);
    free(s);
}

/* ---- what others want to know ---- */

bool supervisor_group_is_up(const struct supervisor *s, uint32_t group)
{
    return s->groups[group].stage == GROUP_UP;
}

uint32_t supervisor_ranks(const struct supervisor *s)
{
    return s->rank_count;
}

struct rank_view supervisor_rank(const struct supervisor *s, uint32_t index)
{
    const struct rank *rank = &s->ranks[index];
    enum group_stage stage = s->groups[rank->group].stage;
    const char *state = !rank->process      ? (rank->restarts || rank->closed ? "lost" : "starting")
                        : stage == GROUP_UP ? "ready"
                                            : "starting";
    return (struct rank_view){
        .id = index,
        .group = rank->group,
        .pid = rank->process ? rank->process->child.pid : 0,
        .cpu = rank->cpu,
        .node = rank->node,
        .state = state,
        .restarts = rank->restarts,
    };
}

uint64_t supervisor_hangs(const struct supervisor *s)
{
    return s->hangs;
}

uint32_t supervisor_spares(const struct supervisor *s, pid_t *pids, uint32_t room)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slot_count && n < room; i++)
        if (s->processes[i].stage == PROCESS_SPARE)
            pids[n++] = s->processes[i].child.pid;
    return n;
}
