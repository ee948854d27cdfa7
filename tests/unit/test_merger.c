/* Neighbours join best pair first, against an implementation that simply looks at all pairs again and again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "model/merger.h"

/* A made-up language: which ids join, in which order and into what follows from a hash of both. */
struct language {
    uint32_t seed, ids, one_in;
};

static bool join_by_hash(const void *context, const struct symbol *left, const struct symbol *right, uint32_t *order,
                         uint32_t *id)
{
    const struct language *l = context;
    uint32_t hash = (left->id * 2654435761u ^ right->id * 40503u ^ l->seed) * 2246822519u;
    hash ^= hash >> 15;
    *order = hash % 7; /* few, so that ties are common */
    *id = hash / 7 % l->ids;
    return hash % l->one_in == 0;
}

static size_t merge_by_looking(const struct language *l, struct symbol *symbols, size_t count)
{
    for (;;) {
        size_t best = count;
        uint32_t best_order = UINT32_MAX, best_id = 0, order, id;
        for (size_t i = 0; i + 1 < count; i++)
            if (join_by_hash(l, &symbols[i], &symbols[i + 1], &order, &id) && order < best_order) {
                best = i;
                best_order = order;
                best_id = id;
            }
        if (best == count)
            return count;
        symbols[best].bytes += symbols[best + 1].bytes;
        symbols[best].id = best_id;
        memmove(&symbols[best + 1], &symbols[best + 2], (count - best - 2) * sizeof *symbols);
        count--;
    }
}

static void it_joins_what_looking_at_all_pairs_joins(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    struct merger m = {0};
    for (int round = 0; round < 3000; round++) {
        struct language l = {
            .seed = (uint32_t)rand_r(&seed),
            .ids = 2 + (uint32_t)rand_r(&seed) % 20,
            .one_in = 1 + (uint32_t)rand_r(&seed) % 4,
        };
        struct symbol symbols[60];
        size_t count = 1 + (size_t)rand_r(&seed) % 60;
        merger_begin(&m);
        for (uint32_t i = 0; i < count; i++) {
            symbols[i] = (struct symbol){.start = i, .bytes = 1, .id = (uint32_t)rand_r(&seed) % l.ids};
            assert_true(merger_add(&m, i, 1, symbols[i].id));
        }
        count = merge_by_looking(&l, symbols, count);
        assert_true(merger_run(&m, join_by_hash, &l));
        size_t at = 0;
        for (uint32_t i = 0; i != SYMBOL_NONE; i = m.symbols[i].next, at++) {
            assert_true(at < count);
            assert_int_equal(m.symbols[i].start, symbols[at].start);
            assert_int_equal(m.symbols[i].bytes, symbols[at].bytes);
            assert_int_equal(m.symbols[i].id, symbols[at].id);
        }
        assert_int_equal(at, count);
    }
    merger_fini(&m);
}

static bool join_equals(const void *context, const struct symbol *left, const struct symbol *right, uint32_t *order,
                        uint32_t *id)
{
    (void)context;
    *order = left->id;
    *id = left->id + 1;
    return left->id == right->id;
}

static void a_long_run_takes_no_quadratic_time(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 20 };
    struct merger m = {0};
    uint64_t before = now_us();
    merger_begin(&m);
    for (uint32_t i = 0; i < LENGTH; i++)
        assert_true(merger_add(&m, i, 1, 0));
    assert_true(merger_run(&m, join_equals, NULL));
    assert_true(now_us() - before < 60 * 1000 * 1000); /* its square would take hours */
    assert_int_equal(m.symbols[0].bytes, LENGTH);
    assert_int_equal(m.symbols[0].next, SYMBOL_NONE);
    merger_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_joins_what_looking_at_all_pairs_joins),
        cmocka_unit_test(a_long_run_takes_no_quadratic_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
