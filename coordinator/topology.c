#include "coordinator/topology.h"

#include <hwloc.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* cpu.max says "max 100000" or "<quota> <period>" in microseconds. */
static uint32_t cgroup_quota(uint32_t cores)
{
    unsigned long long quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    int read = file ? fscanf(file, "%llu %llu", &quota, &period) : 0;
    if (file)
        fclose(file);
    if (read != 2 || !period || !quota)
        return cores;
    unsigned long long whole = quota / period;
    return whole < 1 ? 1 : whole < cores ? (uint32_t)whole : cores;
}

static struct core core_at(hwloc_topology_t machine, hwloc_obj_t core, uint32_t cpu)
{
    int count = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_NUMANODE);
    for (int i = 0; i < count; i++) {
        hwloc_obj_t node = hwloc_get_obj_by_type(machine, HWLOC_OBJ_NUMANODE, (unsigned)i);
        if (node && hwloc_bitmap_isincluded(core->cpuset, node->cpuset))
            return (struct core){.cpu = cpu, .node = (uint32_t)i, .os_node = node->os_index};
    }
    return (struct core){.cpu = cpu};
}

/* The first hardware thread of each core that we may run on. */
static void list_cores(struct topology *t, hwloc_topology_t machine)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    bool masked = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    int count = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_CORE);
    for (int i = 0; i < count && t->cores < TOPOLOGY_MAX_CORES; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(machine, HWLOC_OBJ_CORE, (unsigned)i);
        for (int cpu = hwloc_bitmap_first(core->cpuset); cpu >= 0; cpu = hwloc_bitmap_next(core->cpuset, cpu)) {
            if (!masked || (cpu < CPU_SETSIZE && CPU_ISSET((size_t)cpu, &allowed))) {
                t->core[t->cores++] = core_at(machine, core, (uint32_t)cpu);
                break;
            }
        }
    }
}

static int by_node_then_cpu(const void *a, const void *b)
{
    const struct core *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return (x->cpu > y->cpu) - (x->cpu < y->cpu);
}

/* Nodes without a core of ours leave holes: number the rest anew. */
static void number_nodes(struct topology *t)
{
    uint32_t last = UINT32_MAX, given = 0;
    for (uint32_t i = 0; i < t->cores; i++) {
        if (i == 0 || t->core[i].node != last)
            given += i > 0;
        last = t->core[i].node;
        t->core[i].node = given;
    }
    t->nodes = given + 1;
}

enum err topology_read(struct topology *t, uint32_t fake_nodes, struct why *why)
{
    *t = (struct topology){0};
    hwloc_topology_t machine;
    if (hwloc_topology_init(&machine))
        return because_errno(why, ERR_IO, "could not read the machine's topology");
    if (hwloc_topology_load(machine) == 0)
        list_cores(t, machine);
    hwloc_topology_destroy(machine);
    if (t->cores == 0)
        return because(why, ERR_IO, "could not find a core to run on: the affinity mask of this process names none");

    qsort(t->core, t->cores, sizeof t->core[0], by_node_then_cpu);
    number_nodes(t);
    if (fake_nodes) {
        t->nodes = fake_nodes < t->cores ? fake_nodes : t->cores;
        for (uint32_t i = 0; i < t->cores; i++)
            t->core[i].node = (uint32_t)((uint64_t)i * t->nodes / t->cores);
    }
    t->quota = cgroup_quota(t->cores);
    return OK;
}
