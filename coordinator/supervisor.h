/*
 * supervisor: worker processes and the groups they form. It spawns, watches, replaces; it knows no sequence and no plan.
 *
 * A process:  STARTING -> SPARE -> RANKED -> GONE -> (reaped) its slot is free
 * A group:    INCOMPLETE -> (BUILDING: one group of a node, once) -> JOINING -> UP;  a rank is lost: any -> INCOMPLETE
 *
 * When a rank dies, the group's epoch is raised at once: every wait in a barrier ends, every plan in flight is void. A spare
 * takes the place; all ranks are told the new epoch and answer that they have left the old one; then the group is up again.
 * A rank's own mark in its life lock is the fence: behind it the process runs no code of ours.
 *
 * A suspect death (a signal of its own making, an exit, a hang) is told: pages are in doubt, and it may be the fault of a plan. If it is not,
 * and was no hang, it counts against the rank: after RANK_DEATHS_MOST of them within RANK_DEATHS_WINDOW_US the rank is closed and its group
 * goes on with fewer. SIGKILL comes from outside and counts for nothing.
 * A group does not form anew before it is known how its dead died: what they may have written is in doubt then. Who is to blame is asked when
 * all ranks have left the old plans, the dead and the living: a plan that ends several ranks does so one after the other.
 */
#ifndef QUIRE_COORDINATOR_SUPERVISOR_H
#define QUIRE_COORDINATOR_SUPERVISOR_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "coordinator/topology.h"
#include "proto/message.h"
#include "shm/arena.h"

struct supervisor;

struct supervisor_config {
    struct event_base *loop;
    struct arena *arena;
    const char *worker_path;    /* the quire-worker program, as its processes are called */
    const char *worker_program; /* the file that is executed */
    const char *model_path;
    const char *quantize, *overrides; /* of the model, see model_file.h; NULL or "": none */
    const char *kernels;              /* "" : the worker's choice */
    const char *prefill_math;         /* exact or blas */
    bool float_activations;           /* inputs of quantised weights are not rounded */
    const char *log_level;            /* of the workers */
    bool pin;
    bool no_sandbox; /* of the workers: for debuggers */
    uint32_t workers, groups, spares;
    const struct topology *topology;
};

struct supervisor_hooks {
    /* The plans of the group are void; nothing may be sent to it. */
    void (*group_down)(void *world, uint32_t group);
    /* All ranks are in this epoch and in no older step. */
    void (*group_up)(void *world, uint32_t group, uint32_t epoch);
    /* The last rank of a group that is down was closed: it never comes up again, other groups go on. */
    void (*group_lost)(void *world, uint32_t group);
    /* A process that maps the group's memory for writing died a suspect death: it may have written anywhere there. */
    void (*doubt)(void *world, uint32_t group);
    /*
     * A rank of the group, which is down, died a suspect death while it computed; UINT32_MAX: several did, or all of it failed. True: that was the
     * doing of what it computed, whichever rank had computed it, and counts against no rank. Once for all deaths between group_down and group_up.
     */
    bool (*blame)(void *world, uint32_t group, uint32_t rank, uint32_t ranks);
    /* The answer to supervisor_ask_sums. */
    void (*sums)(void *world, uint32_t group, uint64_t question, const uint32_t *sums, uint32_t count);
    /* Rank 0 has finished a step. */
    void (*step_done)(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint64_t compute_us);
    /* The oldest plan in flight of a group; false: none. For hangs. */
    bool (*in_flight)(void *world, uint32_t group, uint64_t *since_us, uint64_t *planned_us);
    /* Weights are being built: bytes of all shares. */
    void (*progress)(void *world, uint64_t done, uint64_t total);
    /* No group can be kept alive; the sentence says why. The server ends. */
    void (*hopeless)(void *world, const char *sentence);
    void *world;
};

enum {
    RANK_DEATHS_MOST = 5,
    RANK_DEATHS_WINDOW_US = 60 * 1000 * 1000,
    HANG_LEAST_US =
        2 * 1000 *
        1000, /* a group hangs when for this long, and ten times the plan of its step, no rank got anywhere */
    HANG_FACTOR = 10,
    SPARE_AFTER_US = 250 * 1000,  /* behind the loss of a rank a new spare leaves the cores to the group for so long */
    STOPPED_MOST_US = 100 * 1000, /* a rank that somebody stopped (SIGSTOP) is waited for this long */
};

/* Worker slots that an arena needs for so many workers and spares: the dead keep theirs until they are reaped. */
uint32_t supervisor_worker_slots(uint32_t workers, uint32_t spares);

/* Spawns everybody. The channel's directory was made from `name`. */
enum err supervisor_open(struct supervisor **out, const struct supervisor_config *config,
                         const struct supervisor_hooks *hooks, struct why *why);

/* Ends all workers (stop, then SIGKILL) and reaps them. */
void supervisor_close(struct supervisor *s);

/* To all ranks of a group that is up. What cannot be sent is a lost rank, noticed on the next tick. */
void supervisor_send_plan(struct supervisor *s, uint32_t group, const struct step_plan *plan);

/* Asks one rank of a group that is up for the checksums of 1 to SUM_PAGES_MAX pages. */
void supervisor_ask_sums(struct supervisor *s, uint32_t group, uint64_t question, const uint32_t *pages,
                         uint32_t count);

/* What the ranks of a group that is up have computed cannot be: all of them are replaced, and it is a suspect death. */
void supervisor_fail_group(struct supervisor *s, uint32_t group, const char *sentence);

bool supervisor_group_is_up(const struct supervisor *s, uint32_t group);

/* For /quire/state. */
struct rank_view {
    uint32_t id, group;
    pid_t pid; /* 0: nobody */
    uint32_t cpu, node;
    const char *state; /* "starting", "ready", "lost" */
    uint32_t restarts;
};
uint32_t supervisor_ranks(const struct supervisor *s);
struct rank_view supervisor_rank(const struct supervisor *s, uint32_t index);
/* Workers that were ended because a step missed its deadline. */
uint64_t supervisor_hangs(const struct supervisor *s);
/* Fills up to room pids of attached spares; returns how many. */
uint32_t supervisor_spares(const struct supervisor *s, pid_t *pids, uint32_t room);

#endif
