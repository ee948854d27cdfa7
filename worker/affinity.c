/* affinity: see affinity.h. hwloc knows the machine's shape; the kernel may still say no. */
#include "worker/affinity.h"

#include <hwloc.h>
#include <sched.h>

uint32_t affinity_cores(void)
{
    cpu_set_t mask;
    int cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
    return cores > 0 ? (uint32_t)cores : 1;
}

static enum err pin_to_core(hwloc_topology_t machine, hwloc_obj_t core, struct why *why)
{
    if (hwloc_set_cpubind(machine, core->cpuset, HWLOC_CPUBIND_THREAD) != 0)
        return because_errno(why, ERR_IO, "could not stay on core %u", core->os_index);
    return OK;
}

static enum err bind_to_node_of(hwloc_topology_t machine, hwloc_obj_t core, struct why *why)
{
    if (hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_NUMANODE) < 2)
        return OK; /* nothing to choose */
    if (hwloc_set_membind(machine, core->nodeset, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET) !=
        0)
        return because_errno(why, ERR_IO, "could not take memory from the node of core %u", core->os_index);
    return OK;
}

enum err affinity_pin(uint32_t cpu, struct why *why)
{
    if (cpu == AFFINITY_ANY)
        return OK;
    hwloc_topology_t machine;
    if (hwloc_topology_init(&machine) != 0)
        return because(why, ERR_NOMEM, "could not look at the machine's cores: no memory");
    enum err err = OK;
    if (hwloc_topology_load(machine) != 0)
        err = because_errno(why, ERR_IO, "could not look at the machine's cores");
    hwloc_obj_t core = err == OK ? hwloc_get_pu_obj_by_os_index(machine, cpu) : NULL;
    if (err == OK && !core)
        err = because(why, ERR_INVALID,
                      "could not stay on core %u: this machine has no such core, or it may not be used", cpu);
    if (err == OK)
        err = pin_to_core(machine, core, why);
    if (err == OK)
        err = bind_to_node_of(machine, core, why);
    hwloc_topology_destroy(machine);
    return err;
}
