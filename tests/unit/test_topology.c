/* The cores that we may run on, each once, node by node. */
#include "coordinator/topology.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <cmocka.h>

static void read_topology(struct topology *t, uint32_t fake_nodes)
{
    struct why why;
    if (topology_read(t, fake_nodes, &why))
        fail_msg("%s", why.text);
}

/* What holds on every machine. */
static void check(const struct topology *t)
{
    bool taken[CPU_SETSIZE] = {false};
    assert_in_range(t->cores, 1, TOPOLOGY_MAX_CORES);
    assert_in_range(t->nodes, 1, t->cores);
    assert_in_range(t->quota, 1, t->cores);
    for (uint32_t i = 0; i < t->cores; i++) {
        assert_true(t->core[i].cpu < CPU_SETSIZE && !taken[t->core[i].cpu]);
        taken[t->core[i].cpu] = true;
        uint32_t before = i ? t->core[i - 1].node : 0;
        assert_true(t->core[i].node == before || (i && t->core[i].node == before + 1)); /* no holes, in order */
    }
    assert_int_equal(t->core[t->cores - 1].node + 1, t->nodes);
}

static void each_core_stands_once_in_order_of_nodes(void **state)
{
    static struct topology t;
    (void)state;
    read_topology(&t, 0);
    check(&t);
    for (uint32_t i = 1; i < t.cores; i++) /* ours and the kernel's names of nodes go together */
        assert_int_equal(t.core[i].node == t.core[i - 1].node, t.core[i].os_node == t.core[i - 1].os_node);
}

static void only_cores_of_the_affinity_mask_count(void **state)
{
    static struct topology all, one;
    cpu_set_t before, mask;
    (void)state;
    read_topology(&all, 0);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (uint32_t i = 0; i < all.cores; i++) {
        CPU_ZERO(&mask);
        CPU_SET(all.core[i].cpu, &mask);
        assert_int_equal(sched_setaffinity(0, sizeof mask, &mask), 0);
        read_topology(&one, 0);
        check(&one);
        assert_int_equal(one.cores, 1);
        assert_int_equal(one.core[0].cpu, all.core[i].cpu);
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void fake_nodes_split_the_cores_evenly(void **state)
{
    static struct topology t;
    (void)state;
    for (uint32_t nodes = 1; nodes < 9; nodes++) {
        uint32_t of_node[TOPOLOGY_MAX_NODES] = {0}, least = UINT32_MAX, most = 0;
        read_topology(&t, nodes);
        check(&t);
        assert_int_equal(t.nodes, nodes < t.cores ? nodes : t.cores);
        for (uint32_t i = 0; i < t.cores; i++)
            of_node[t.core[i].node]++;
        for (uint32_t n = 0; n < t.nodes; n++) {
            least = of_node[n] < least ? of_node[n] : least;
            most = of_node[n] > most ? of_node[n] : most;
        }
        assert_in_range(most - least, 0, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_core_stands_once_in_order_of_nodes),
        cmocka_unit_test(only_cores_of_the_affinity_mask_count),
        cmocka_unit_test(fake_nodes_split_the_cores_evenly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
