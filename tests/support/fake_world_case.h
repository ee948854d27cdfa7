/* fake_world_case: a cmocka test that lives in a fake world of its own, which is closed behind it. */
#ifndef QUIRE_TESTS_FAKE_WORLD_CASE_H
#define QUIRE_TESTS_FAKE_WORLD_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/support/fake_world.h"

/* The test's world, to be opened once. */
struct fake_world *world_of(void **state, struct fake_sizes sizes);
struct fake_world *plain_world(void **state);

/* The teardown: everybody must have ended. */
int close_world(void **state);

const struct scheduler_counters *counters(const struct fake_world *w);

/* It has been admitted, and has not ended. */
bool is_running(const struct client *c);

#define IN_A_WORLD(test) cmocka_unit_test_teardown(test, close_world)

#endif
