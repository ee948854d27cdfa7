/* handout: every part once, whoever comes first, late or never. */
#include "model/handout.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/api_rig.h"

enum { RANKS = 4, EPOCH = 7, WORKS = 3000, UNITS = 203, MOST_SPINS = 400 };

static struct handout_word words[RANKS];

static void join_all(struct handout *h, uint32_t ranks, uint32_t epoch)
{
    for (uint32_t rank = 0; rank < ranks; rank++)
        handout_join(&h[rank], words, rank, ranks, epoch);
}

static void begin_all(struct handout *h, uint32_t ranks, uint32_t units, uint32_t part)
{
    for (uint32_t rank = 0; rank < ranks; rank++)
        handout_begin(&h[rank], units, part);
}

static void takes(struct handout *h, uint32_t first, uint32_t last)
{
    uint32_t a, b;
    assert_true(handout_take(h, &a, &b));
    assert_int_equal(a, first);
    assert_int_equal(b, last);
}

static void takes_nothing(struct handout *h)
{
    uint32_t a, b;
    assert_false(handout_take(h, &a, &b));
}

static void own_share_comes_first_and_in_order_then_what_others_left(void **state)
{
    (void)state;
    struct handout h[2];
    memset(words, 0, sizeof words);
    join_all(h, 2, EPOCH);
    begin_all(h, 2, 20, 4);
    takes(&h[1], 10, 14);
    takes(&h[0], 0, 4);
    takes(&h[0], 4, 8);
    takes(&h[0], 8, 10); /* what is left of its share */
    takes(&h[0], 14, 18);
    takes(&h[1], 18, 20);
    takes_nothing(&h[0]);
    takes_nothing(&h[1]);
    takes_nothing(&h[0]);
}

static void rank_that_never_comes_leaves_its_share_to_others(void **state)
{
    (void)state;
    struct handout h[3];
    memset(words, 0, sizeof words);
    join_all(h, 3, EPOCH);
    handout_begin(&h[2], 6, 1); /* 0 and 1 have not even begun */
    takes(&h[2], 4, 5);
    takes(&h[2], 5, 6);
    takes(&h[2], 0, 1);
    takes(&h[2], 1, 2);
    takes(&h[2], 2, 3);
    handout_begin(&h[1], 6, 1);
    takes(&h[1], 3, 4);
    handout_begin(&h[0], 6, 1);
    takes_nothing(&h[0]);
}

static void shares_may_be_empty(void **state)
{
    (void)state;
    struct handout h[RANKS];
    memset(words, 0, sizeof words);
    join_all(h, RANKS, EPOCH);
    begin_all(h, RANKS, 0, 8);
    takes_nothing(&h[0]);
    begin_all(h, RANKS, 1, 8); /* the last one's */
    takes(&h[0], 0, 1);
    takes_nothing(&h[RANKS - 1]);
    begin_all(h, RANKS, 2, 8);
    takes(&h[2], 1, 2); /* none of its own is left over, none of the first's */
    takes(&h[3], 0, 1);
    takes_nothing(&h[0]);
}

/* A step that was cut off leaves words in the middle of a work, and ranks at different ones. */
static void next_epoch_begins_anew(void **state)
{
    (void)state;
    struct handout h[2];
    memset(words, 0, sizeof words);
    join_all(h, 2, EPOCH);
    begin_all(h, 2, 8, 1);
    takes(&h[0], 0, 1);
    takes(&h[0], 1, 2);
    takes(&h[1], 4, 5);
    join_all(h, 2, EPOCH + 1);
    begin_all(h, 2, 8, 1); /* the same number as the work above */
    takes(&h[0], 0, 1);
    takes(&h[1], 4, 5);
}

/* Numbers of works wrap, and a word that counts an old one is not taken for a new one's. */
static void works_without_number(void **state)
{
    (void)state;
    struct handout h[2];
    memset(words, 0, sizeof words);
    join_all(h, 2, UINT32_MAX);
    begin_all(h, 2, 4, 1);
    takes(&h[0], 0, 1); /* rank 1's word counts nothing, now and for 2^16 works */
    takes(&h[1], 2, 3);
    for (uint32_t i = 0; i < HANDOUT_PARTS_MAX; i++)
        begin_all(h, 2, 1, 1);
    begin_all(h, 2, 4, 1);
    takes(&h[0], 0, 1);
    takes(&h[0], 1, 2);
    takes(&h[0], 2, 3);
    takes(&h[0], 3, 4);
    takes_nothing(&h[1]);
    assert_int_equal(h[0].work >> 32, UINT32_MAX);
}

/* ---- threads ---- */

struct crowd {
    pthread_barrier_t barrier;
    _Atomic uint32_t done[UNITS]; /* how often each unit of the work at hand was taken */
    uint64_t seed;
};

struct member {
    struct crowd *crowd;
    struct handout handout;
    pthread_t thread;
    uint32_t faults, helped;
};

static void spin(uint32_t times)
{
    for (volatile uint32_t i = 0; i < times; i++)
        continue;
}

static void *work(void *arg)
{
    struct member *m = arg;
    uint32_t rank = m->handout.rank, ranks = m->handout.ranks;
    uint64_t own = m->crowd->seed + 2 * rank + 2, all = m->crowd->seed;
    for (uint32_t w = 1; w <= WORKS; w++) {
        uint32_t units = api_rig_random(&all, UNITS + 1), part = 1 + api_rig_random(&all, 9), first, last;
        handout_begin(&m->handout, units, part);
        while (handout_take(&m->handout, &first, &last)) {
            m->faults += first >= last || last > units || last - first > part;
            m->helped += first < share_begin(units, rank, ranks) || first >= share_begin(units, rank + 1, ranks);
            for (uint32_t i = first; i < last && i < UNITS; i++)
                m->crowd->done[i]++;
            spin(api_rig_random(&own, MOST_SPINS));
        }
        pthread_barrier_wait(&m->crowd->barrier);
        for (uint32_t i = rank; i < UNITS; i += ranks) {
            m->faults += m->crowd->done[i] != (i < units);
            m->crowd->done[i] = 0;
        }
        pthread_barrier_wait(&m->crowd->barrier);
    }
    return NULL;
}

static void every_unit_is_taken_once_by_threads_that_race(void **state)
{
    (void)state;
    struct crowd crowd = {.seed = api_rig_seed()};
    struct member members[RANKS];
    uint32_t helped = 0;
    memset(words, 0xff, sizeof words); /* what they held before is of another epoch */
    pthread_barrier_init(&crowd.barrier, NULL, RANKS);
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        members[rank] = (struct member){.crowd = &crowd};
        handout_join(&members[rank].handout, words, rank, RANKS, EPOCH);
    }
    for (uint32_t rank = 0; rank < RANKS; rank++)
        if (pthread_create(&members[rank].thread, NULL, work, &members[rank]) != 0)
            fail_msg("no thread for the test");
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        pthread_join(members[rank].thread, NULL);
        assert_int_equal(members[rank].faults, 0);
        helped += members[rank].helped;
    }
    assert_true(helped > 0);
    pthread_barrier_destroy(&crowd.barrier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_share_comes_first_and_in_order_then_what_others_left),
        cmocka_unit_test(rank_that_never_comes_leaves_its_share_to_others),
        cmocka_unit_test(shares_may_be_empty),
        cmocka_unit_test(next_epoch_begins_anew),
        cmocka_unit_test(works_without_number),
        cmocka_unit_test(every_unit_is_taken_once_by_threads_that_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
