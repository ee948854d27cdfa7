/* supervisor_internal: what supervisor.c (processes and messages), supervisor_groups.c (places) and supervisor_watch.c (deaths, hangs) share. */
#ifndef QUIRE_COORDINATOR_SUPERVISOR_INTERNAL_H
#define QUIRE_COORDINATOR_SUPERVISOR_INTERNAL_H

#include "coordinator/supervisor.h"
#include "coordinator/worker_process.h"
#include "proto/channel.h"

enum {
    TICK_US = 2000,                    /* how often life words are read while somebody computes */
    LOOK_US = 20 * 1000,               /* how often a group that is quiet is asked whether somebody stopped its ranks */
    IDLE_TICK_US = 200 * 1000,         /* and otherwise: pidfds tell of deaths then */
    START_MOST_US = 120 * 1000 * 1000, /* from spawn to hello: mapping hundreds of GiB takes its time */
    HELLO_MOST_US = 5 * 1000 * 1000,   /* from a slot that is ready to its hello, which may have been lost */
    BEAT_MOST_US = 120 * 1000 * 1000,  /* between two signs of life of one that builds */
    BUILT_MOST_US = 10 * 1000 * 1000,  /* of one that should build and does not, or has built and was not heard */
    JOIN_MOST_US = 10 * 1000 * 1000,   /* from assign to assigned, of ranks that have everything mapped */
    START_AGAIN_US = 500 * 1000,       /* after a process could not be made */
    START_DEATHS_MOST = 5,             /* workers that die in a row before their hello */
    MESSAGES_PER_TURN = 256,
    NOBODY = UINT32_MAX,
};

enum process_stage { PROCESS_FREE, PROCESS_STARTING, PROCESS_SPARE, PROCESS_RANKED, PROCESS_GONE };

struct process {
    struct supervisor *supervisor;
    enum process_stage stage;
    struct worker_process child;
    struct event *watch; /* pidfd */
    uint32_t slot, generation;
    uint32_t rank;        /* index into ranks: the place it has, or had when it died; NOBODY */
    uint32_t group;       /* whose memory it maps before its hello, and later that of its rank */
    bool mapped;          /* it has said hello or joined since: nothing of that group is left to map */
    uint64_t since_us;    /* of the stage */
    uint64_t ready_us;    /* when its slot was first seen to be ready, of one whose hello has not come; 0: not yet */
    bool built, assigned; /* answers to the group's last build and assign */
    uint64_t beat;        /* of one that builds: its last sign of life; 0: it does nothing */
    uint64_t beat_us;     /* when that was first seen */
    bool served;          /* its group was up while it had its place: plans came to it */
    bool hung;            /* it was ended since it got nowhere, by its own fault */
    bool judged;          /* of a dead one: how it died is known, and was counted */
    uint64_t build_done, build_total;
};

enum charge { CHARGE_NONE, CHARGE_HANG, CHARGE_FAULT };

struct rank {
    uint32_t group, cpu, node;
    struct process *process; /* NULL: lost */
    uint32_t restarts;
    enum charge charge; /* a suspect death since the group was last up, of one that had served */
    bool closed;        /* died too often: the group goes on without */
    uint32_t suspects;  /* of the last RANK_DEATHS_MOST suspect deaths: when */
    uint64_t suspect_us[RANK_DEATHS_MOST];
};

enum group_stage { GROUP_INCOMPLETE, GROUP_BUILDING, GROUP_JOINING, GROUP_UP };

struct group_state {
    enum group_stage stage;
    uint32_t epoch;
    uint32_t node;
    uint32_t first_rank, rank_count; /* in ranks; closed ones included */
    uint64_t since_us;
    uint64_t looked_us;            /* whether its ranks are stopped */
    uint64_t arrivals, arrived_us; /* sum of the ranks' arrival words, and when it last moved */
};

struct supervisor {
    struct supervisor_config config;
    struct supervisor_hooks hooks;
    struct channel *channel;
    char channel_directory[CHANNEL_DIRECTORY_MAX + 1];
    struct event *channel_event, *drain_event, *tick;
    uint32_t rank_count, group_count, slot_count;
    struct rank *ranks;
    struct process *processes; /* by slot */
    struct group_state groups[GROUPS_MAX];
    uint32_t start_deaths;   /* in a row, before a hello */
    uint64_t start_again_us; /* not before: a process could not be made */
    uint64_t lost_us;        /* when a rank was lost last; 0: never */
    uint64_t hangs;
    uint64_t oom_kills; /* of our control group, when we last looked */
    bool closing, hopeless;
    struct command command; /* scratch of one message */
    struct report report;
    struct message_scratch scratch;
    uint8_t bytes[MESSAGE_BYTES_MAX];
};

/* ---- supervisor.c ---- */

/* It has everything mapped and waits for commands. */
void supervisor_welcome(struct supervisor *s, struct process *p);
/* Sends s->command. */
void supervisor_send_command(struct supervisor *s, struct process *p);
/* The next look at lives and hangs comes after that time. */
void supervisor_set_tick(struct supervisor *s, uint32_t us);
/* Nothing can be kept alive: tells the owner, once. */
void supervisor_give_up(struct supervisor *s, const char *sentence);

/* ---- supervisor_processes.c ---- */

/* As many live processes as ranks and, a little later than a loss, spares. */
void supervisor_keep_up_numbers(struct supervisor *s);
/* Asks all to stop and waits for them, at most two seconds; then it asks no more. */
void supervisor_end_processes(struct supervisor *s);

/* ---- supervisor_groups.c ---- */

/* The functions that change a stage; must() on a move that supervisor.h does not show. */
void supervisor_move_process(struct process *p, enum process_stage to);
void supervisor_move_group(struct group_state *g, enum group_stage to);

/* The ranks that take part, in order, NULL where one is lost; their number. */
uint32_t supervisor_members(const struct supervisor *s, const struct group_state *g, struct process **out);
/* Spares take the empty places, groups that are whole again go on. */
void supervisor_fill_groups(struct supervisor *s);
/* Moves on every group that is whole. */
void supervisor_advance_groups(struct supervisor *s);
/* A new epoch, told to all ranks of a whole group. */
void supervisor_begin_join(struct supervisor *s, struct group_state *g);
/* The rank's process will run no code of ours any more. */
void supervisor_lose_rank(struct supervisor *s, struct rank *rank, const char *how);
/* How it died is known: tells the owner, charges the rank that it had. Once a process. */
void supervisor_judge(struct supervisor *s, struct process *p, bool suspect);
/* All ranks have left the plans of the last epoch that was up, alive or dead: whose doing the deaths in them were. May close ranks. */
void supervisor_give_verdict(struct supervisor *s, struct group_state *g);
/* A process is gone that had a place in the group, and how it died is not known. */
bool supervisor_awaits_verdict(const struct supervisor *s, uint32_t group);

/* ---- supervisor_watch.c ---- */

void supervisor_check_lives(struct supervisor *s);
void supervisor_check_hangs(struct supervisor *s);
bool supervisor_someone_computes(const struct supervisor *s);

#endif
