/* affinity: see affinity.h. hwloc knows the machine's shape; the kernel may still say no. */
#include "worker/affinity.h"

#include <hwloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/must.h"

enum { LONG_SLICE_NS = 10 * 1000 * 1000 }; /* the usual one is some 3 ms */

uint32_t affinity_cores(void)
{
    cpu_set_t mask;
    int cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
    return cores > 0 ? (uint32_t)cores : 1;
}

/* Looked at once: it takes some 40 ms and reads hundreds of files, too many for a worker that takes a dead one's place. */
static pthread_once_t looked = PTHREAD_ONCE_INIT;
static hwloc_topology_t machine; /* NULL: could not be looked at; stays until the process ends */

static void look(void)
{
    if (hwloc_topology_init(&machine) != 0) {
        machine = NULL;
    } else if (hwloc_topology_load(machine) != 0) {
        hwloc_topology_destroy(machine);
        machine = NULL;
    }
}

void affinity_look(void)
{
    must(pthread_once(&looked, look) == 0);
}

static enum err pin_to_core(hwloc_obj_t core, struct why *why)
{
    if (hwloc_set_cpubind(machine, core->cpuset, HWLOC_CPUBIND_THREAD) != 0)
        return because_errno(why, ERR_IO, "could not stay on core %u", core->os_index);
    return OK;
}

static enum err bind_to_node_of(hwloc_obj_t core, struct why *why)
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
    affinity_look();
    if (!machine)
        return because(why, ERR_IO, "could not look at the machine's cores");
    hwloc_obj_t core = hwloc_get_pu_obj_by_os_index(machine, cpu);
    if (!core)
        return because(why, ERR_INVALID,
                       "could not stay on core %u: this machine has no such core, or it may not be used", cpu);
    enum err err = pin_to_core(core, why);
    return err == OK ? bind_to_node_of(core, why) : err;
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
