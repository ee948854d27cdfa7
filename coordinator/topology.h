/*
 * topology: which cores this server may use, and which memory node each belongs to.
 *
 * One entry per physical core of the affinity mask (a second hardware thread of a core adds nothing to arithmetic), in
 * order of nodes. A machine without NUMA is one node, 0. Source: hwloc over /sys, the affinity mask, the cgroup's cpu.max.
 */
#ifndef QUIRE_COORDINATOR_TOPOLOGY_H
#define QUIRE_COORDINATOR_TOPOLOGY_H

#include <stdint.h>

#include "base/err.h"

enum { TOPOLOGY_MAX_CORES = 1024, TOPOLOGY_MAX_NODES = 64 };

struct core {
    uint32_t cpu;     /* the number that sched_setaffinity takes */
    uint32_t node;    /* 0 .. nodes - 1, numbered without holes */
    uint32_t os_node; /* what the kernel calls the memory node it really lies on */
};

struct topology {
    uint32_t cores;
    uint32_t nodes;
    uint32_t quota; /* whole cores that the cgroup grants; at least 1, at most cores */
    struct core core[TOPOLOGY_MAX_CORES];
};

/* fake_nodes > 0: the cores are split evenly over that many nodes, whatever the machine has. */
enum err topology_read(struct topology *t, uint32_t fake_nodes, struct why *why);

#endif
