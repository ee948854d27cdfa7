/* affinity: see affinity.h. A few system calls and no file, so that it can be done by a worker that takes a dead one's place. */
#include "worker/affinity.h"

#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    LONG_SLICE_NS = 10 * 1000 * 1000, /* the usual one is some 3 ms */
    CPUS_MOST = 8192,                 /* the most that Linux can be built for */
    NODES_MOST = 1024,                /* likewise */
    WORD_BITS = 8 * sizeof(unsigned long),
};

uint32_t affinity_cores(void)
{
    cpu_set_t mask;
    int cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
    return cores > 0 ? (uint32_t)cores : 1;
}

static enum err pin_to_core(uint32_t cpu, struct why *why)
{
    unsigned long mask[CPUS_MOST / WORD_BITS] = {0};
    if (cpu < CPUS_MOST) {
        mask[cpu / WORD_BITS] = 1ul << cpu % WORD_BITS;
        if (syscall(SYS_sched_setaffinity, 0, sizeof mask, mask) == 0)
            return OK;
        if (errno != EINVAL)
            return because_errno(why, ERR_IO, "could not stay on core %u", cpu);
    }
    return because(why, ERR_INVALID, "could not stay on core %u: this machine has no such core, or it may not be used",
                   cpu);
}

/* Where there is one node only, a container that forbids to ask is no reason for a warning. */
static bool has_other_nodes(uint32_t node)
{
    unsigned long allowed[NODES_MOST / WORD_BITS] = {0};
    if (get_mempolicy(NULL, allowed, NODES_MOST, NULL, MPOL_F_MEMS_ALLOWED) != 0)
        return node > 0;
    if (node < NODES_MOST)
        allowed[node / WORD_BITS] &= ~(1ul << node % WORD_BITS);
    for (uint32_t i = 0; i < NODES_MOST / WORD_BITS; i++)
        if (allowed[i])
            return true;
    return false;
}

/* Of the core that the calling thread is on, and stays on. */
static enum err take_memory_of_the_node(uint32_t cpu, struct why *why)
{
    unsigned long mask[NODES_MOST / WORD_BITS] = {0};
    unsigned node;
    if (getcpu(NULL, &node) != 0)
        return because_errno(why, ERR_IO, "could not find out the node of core %u", cpu);
    if (!has_other_nodes(node))
        return OK;
    if (node < NODES_MOST)
        mask[node / WORD_BITS] = 1ul << node % WORD_BITS;
    if (set_mempolicy(MPOL_BIND, mask, NODES_MOST) != 0)
        return because_errno(why, ERR_IO, "could not take memory from the node of core %u", cpu);
    return OK;
}

enum err affinity_pin(uint32_t cpu, struct why *why)
{
    if (cpu == AFFINITY_ANY)
        return OK;
    enum err err = pin_to_core(cpu, why);
    return err == OK ? take_memory_of_the_node(cpu, why) : err;
}

/* The kernel's struct sched_attr, first version; the C library of Debian 12 does not have it, and the kernel's header clashes. */
struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice_ns, deadline_ns, period_ns;
};

void affinity_take_long_slices(void)
{
    struct scheduling s = {.size = sizeof s, .policy = SCHED_OTHER, .slice_ns = LONG_SLICE_NS};
    s.nice = getpriority(PRIO_PROCESS, 0); /* on Linux: of this thread; stays as it is */
    long refused = syscall(SYS_sched_setattr, 0, &s, 0);
    (void)refused; /* a kernel without it, a container's filter: workers then wake others a little later */
}
