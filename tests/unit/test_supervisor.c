/* The supervisor with real worker processes: they come, join, die, hang and are replaced, and the token stays the same. */
#include "coordinator/supervisor.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "coordinator/supervisor_internal.h"
#include "shm/worker_slot.h"
#include "tests/support/supervisor_stage.h"

static void workers_build_join_and_compute(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 1);
    assert_int_equal(supervisor_ranks(s->supervisor), 2);
    assert_false(supervisor_group_is_up(s->supervisor, 0));
    assert_string_equal(rank(s, 0).state, "starting");
    WAIT_FOR(s, s->heard.ups[0] == 1);
    assert_true(supervisor_group_is_up(s->supervisor, 0));
    assert_true(arena_weights_built(&s->rig.arena, 0));
    assert_true(s->heard.built <= s->heard.to_build);
    for (uint32_t i = 0; i < 2; i++) {
        assert_string_equal(rank(s, i).state, "ready");
        assert_int_equal(rank(s, i).restarts, 0);
        assert_int_equal(kill(rank(s, i).pid, 0), 0);
    }
    WAIT_FOR(s, spare_count(s) == 1);
    compute_token(s);
    assert_int_equal(s->heard.downs[0], 0);
}

static void a_killed_rank_is_replaced_and_the_token_is_the_same(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    uint32_t token = compute_token(s);
    for (uint32_t round = 0; round < 8; round++) { /* SIGKILL from outside counts for nothing, however often */
        pid_t victim = rank(s, round % 2).pid, spare;
        assert_int_equal(supervisor_spares(s->supervisor, &spare, 1), 1);
        if (round % 4 > 1)
            send_prompt(s); /* in the middle of a step */
        kill(victim, SIGKILL);
        WAIT_FOR(s, s->heard.downs[0] == round + 1);
        s->heard.flight_since_us = 0;
        WAIT_FOR(s, s->heard.ups[0] == round + 2);
        assert_int_equal(rank(s, round % 2).pid, spare); /* who waited took the place */
        assert_int_equal(rank(s, round % 2).restarts, round / 2 + 1);
        assert_int_equal(compute_token(s), token);
        WAIT_FOR(s, spare_count(s) == 1);
    }
    assert_string_equal(s->heard.hopeless, "");
}

static void without_a_spare_a_new_process_takes_the_place(void **state)
{
    struct stage *s = open_stage(state, 1, 1, 0);
    WAIT_FOR(s, s->heard.ups[0] == 1);
    uint32_t token = compute_token(s);
    pid_t before = rank(s, 0).pid;
    kill(before, SIGKILL);
    WAIT_FOR(s, s->heard.ups[0] == 2);
    assert_int_not_equal(rank(s, 0).pid, before);
    assert_int_equal(compute_token(s), token);
}

static void a_spare_that_dies_disturbs_nobody(void **state)
{
    struct stage *s = open_stage(state, 1, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    pid_t before, after;
    supervisor_spares(s->supervisor, &before, 1);
    kill(before, SIGKILL);
    WAIT_FOR(s, supervisor_spares(s->supervisor, &after, 1) == 1 && after != before);
    assert_int_equal(s->heard.downs[0], 0);
    compute_token(s);
}

static void a_rank_that_hangs_is_ended(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    uint32_t token = compute_token(s);
    pid_t sleeper = rank(s, 1).pid;
    uint64_t stopped_us = now_us();
    kill(sleeper, SIGSTOP);
    send_prompt(s);
    WAIT_FOR(s, s->heard.downs[0] == 1);
    assert_true(now_us() - stopped_us < HANG_LEAST_US); /* it was seen to be stopped, and not to be late */
    s->heard.flight_since_us = 0;
    WAIT_FOR(s, s->heard.ups[0] == 2);
    assert_int_equal(rank(s, 0).restarts, 0); /* who only waited for it lives */
    assert_int_equal(rank(s, 1).restarts, 1);
    assert_int_equal(compute_token(s), token);
}

/* Dies by its own fault as often as it may, and once more. */
static void wear_out(struct stage *s, uint32_t index)
{
    for (uint32_t i = 0; i <= RANK_DEATHS_MOST; i++) {
        WAIT_FOR(s, strcmp(rank(s, index).state, "ready") == 0);
        pid_t pid = rank(s, index).pid;
        kill(pid, SIGSEGV);
        WAIT_FOR(s, rank(s, index).pid != pid);
    }
    WAIT_FOR(s, strcmp(rank(s, index).state, "lost") == 0);
}

static void a_rank_that_dies_again_and_again_is_closed_and_its_group_goes_on(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1);
    uint32_t token = compute_token(s);
    wear_out(s, 0);
    WAIT_FOR(s, supervisor_group_is_up(s->supervisor, 0) && strcmp(rank(s, 0).state, "lost") == 0);
    assert_int_equal(compute_token(s), token); /* one worker computes what two did */
    assert_string_equal(s->heard.hopeless, "");
}

static void how_a_rank_died_is_told_before_its_group_stands_again(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    uint32_t token = compute_token(s);
    kill(rank(s, 1).pid, SIGKILL);
    WAIT_FOR(s, s->heard.ups[0] == 2 && spare_count(s) == 1);
    assert_int_equal(s->heard.doubts + s->heard.blames, 0);
    kill(rank(s, 1).pid, SIGSEGV);
    WAIT_FOR(s, s->heard.ups[0] == 3);
    assert_int_equal(s->heard.doubts, 1);
    assert_int_equal(s->heard.blames, 1);
    assert_int_equal(s->heard.blamed_rank, 1);
    assert_int_equal(compute_token(s), token);
}

static void a_spare_that_dies_of_its_own_fault_raises_doubt_and_nobodys_blame(void **state)
{
    struct stage *s = open_stage(state, 1, 1, 1);
    pid_t spare;
    WAIT_FOR(s, s->heard.ups[0] == 1 && supervisor_spares(s->supervisor, &spare, 1) == 1);
    kill(spare, SIGBUS);
    WAIT_FOR(s, s->heard.doubts == 1);
    assert_int_equal(s->heard.downs[0], 1); /* its plans may have read what the dead one wrote */
    assert_int_equal(s->heard.blames, 0);
    WAIT_FOR(s, s->heard.ups[0] == 2);
    assert_int_equal(rank(s, 0).restarts, 0);
    compute_token(s);
}

static void deaths_that_a_plan_is_to_blame_for_close_no_rank(void **state)
{
    struct stage *s = open_stage(state, 1, 1, 1);
    s->heard.it_was_the_plan = true;
    for (uint32_t i = 0; i < RANK_DEATHS_MOST + 2; i++) {
        WAIT_FOR(s, s->heard.ups[0] == i + 1);
        kill(rank(s, 0).pid, SIGSEGV);
        WAIT_FOR(s, s->heard.blames == i + 1);
    }
    WAIT_FOR(s, s->heard.ups[0] == RANK_DEATHS_MOST + 3);
    assert_string_equal(s->heard.hopeless, "");
}

/* The second one dies when the first one's death is known, reaped and replaced, and the group is joining anew. */
static void ranks_that_die_in_the_same_plans_are_blamed_together(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 2);
    for (uint32_t i = 0; i < 2; i++) {
        WAIT_FOR(s, s->heard.ups[0] == i + 1 && spare_count(s) == 2);
        uint32_t before = s->heard.downs[0];
        pid_t late = rank(s, !i).pid;
        kill(late, SIGSTOP); /* so that it cannot join */
        kill(rank(s, i).pid, SIGSEGV);
        WAIT_FOR(s, s->heard.downs[0] == before + 1);
        kill(late, SIGSEGV);
        kill(late, SIGCONT);
        WAIT_FOR(s, s->heard.ups[0] == i + 2);
        assert_int_equal(s->heard.doubts, 2 * (i + 1));
        assert_int_equal(s->heard.blames, i + 1);
        assert_int_equal(s->heard.blamed_rank, UINT32_MAX);
    }
    compute_token(s);
}

static void a_group_whose_results_cannot_be_is_replaced_as_a_whole(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 0);
    WAIT_FOR(s, s->heard.ups[0] == 1);
    uint32_t token = compute_token(s);
    pid_t before[2] = {rank(s, 0).pid, rank(s, 1).pid};
    supervisor_fail_group(s->supervisor, 0, "a test wants it so");
    assert_int_equal(s->heard.downs[0], 1);
    assert_int_equal(s->heard.doubts, 1);
    assert_int_equal(s->heard.blames, 1);
    assert_int_equal(s->heard.blamed_rank, UINT32_MAX);
    WAIT_FOR(s, s->heard.ups[0] == 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(rank(s, i).pid != before[0] && rank(s, i).pid != before[1]);
    assert_int_equal(compute_token(s), token);
    assert_int_equal(s->heard.blames, 1);
}

static void a_rank_tells_the_checksums_of_pages(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 0);
    WAIT_FOR(s, s->heard.ups[0] == 1);
    compute_token(s);
    const uint32_t pages[] = {0, 1, 0};
    for (uint64_t question = 7; question < 9; question++) { /* one rank, then the other */
        supervisor_ask_sums(s->supervisor, 0, question, pages, 3);
        WAIT_FOR(s, s->heard.answered == question);
        assert_int_equal(s->heard.sum_count, 3);
        assert_int_equal(s->heard.sums[0], s->heard.sums[2]);
        assert_int_not_equal(s->heard.sums[0], s->heard.sums[1]);
    }
}

static void a_group_without_ranks_is_lost_and_without_groups_there_is_no_hope(void **state)
{
    struct stage *s = open_stage(state, 2, 2, 1);
    WAIT_FOR(s, s->heard.ups[0] && s->heard.ups[1]);
    wear_out(s, 1);
    WAIT_FOR(s, s->heard.lost[1] == 1);
    WAIT_FOR(s, supervisor_group_is_up(s->supervisor, 0)); /* whose pages were in doubt, too */
    assert_string_equal(s->heard.hopeless, "");
    wear_out(s, 0);
    WAIT_FOR(s, s->heard.hopeless[0]);
    assert_int_equal(s->heard.lost[0] + s->heard.lost[1], 1);
}

static void workers_that_cannot_start_are_not_started_for_ever(void **state)
{
    setenv("QUIRE_TEST_WORKER", "exit", 1);
    struct stage *s = open_stage(state, 1, 1, 1);
    WAIT_FOR(s, s->heard.hopeless[0]);
    assert_non_null(strstr(s->heard.hopeless, "as soon as they start"));
}

static void a_process_that_cannot_be_made_is_tried_again_but_not_all_the_time(void **state)
{
    enum { A_WHILE_MS = 300 }; /* ticks of a busy group come every 2 ms */
    struct stage *s = open_stage(state, 1, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    uint32_t before = processes_made(s);
    strcpy(s->program, "/dev/null");
    s->heard.flight_since_us = now_us(); /* a plan that takes its time */
    pid_t spare;
    supervisor_spares(s->supervisor, &spare, 1);
    kill(spare, SIGKILL);
    event_base_loopexit(s->loop, &(struct timeval){.tv_usec = A_WHILE_MS * 1000});
    event_base_dispatch(s->loop);
    assert_in_range(processes_made(s) - before, 1, 2);
    strcpy(s->program, "/proc/self/exe");
    WAIT_FOR(s, spare_count(s) == 1);
}

static void a_process_that_cannot_be_watched_is_ended_and_another_one_started(void **state)
{
    struct stage *s = open_stage(state, 1, 1, 1);
    pid_t before, after;
    WAIT_FOR(s, s->heard.ups[0] == 1 && supervisor_spares(s->supervisor, &before, 1) == 1);
    kill(before, SIGKILL);
    refuse_an_event();
    WAIT_FOR(s, supervisor_spares(s->supervisor, &after, 1) == 1 && after != before);
    assert_false(event_is_refused());
    siginfo_t dead = {0};
    assert_int_equal(waitid(P_ALL, 0, &dead, WEXITED | WNOWAIT | WNOHANG), 0);
    assert_int_equal(dead.si_pid, 0); /* nobody waits to be reaped */
    assert_int_equal(s->heard.downs[0], 0);
}

static void one_that_is_ready_and_is_not_heard_is_missed_within_seconds(void **state)
{
    setenv("QUIRE_TEST_WORKER", "mute", 1);
    struct stage *s = open_stage(state, 1, 1, 0);
    WAIT_FOR(s, rank(s, 0).pid); /* the deadline is half of what a start may take */
    unsetenv("QUIRE_TEST_WORKER");
    WAIT_FOR(s, s->heard.ups[0] == 1); /* it could not be told either, and was replaced */
    compute_token(s);
}

/* With two ranks, of which one says hello and nothing more: *mute. */
static struct stage *open_stage_with_one_that_builds_unheard(void **state, uint32_t *mute)
{
    setenv("QUIRE_TEST_WORKER", "unheard", 1);
    struct stage *s = open_stage(state, 2, 1, 0);
    unsetenv("QUIRE_TEST_WORKER");
    WAIT_FOR(s, rank(s, 0).pid && rank(s, 1).pid);
    /* relaxed: it was heard of by then */
    uint32_t pid = atomic_load_explicit(&worker_slot_at(&s->rig.arena, UNHEARD_SLOT)->pid, memory_order_relaxed);
    *mute = rank(s, 1).pid == (pid_t)pid;
    assert_int_equal(rank(s, *mute).pid, pid);
    return s;
}

static void one_that_has_built_and_is_not_heard_is_replaced(void **state)
{
    uint64_t opened_us = now_us();
    uint32_t mute;
    struct stage *s = open_stage_with_one_that_builds_unheard(state, &mute);
    WAIT_FOR(s, rank(s, mute).restarts == 1);
    assert_true(now_us() - opened_us > UNHEARD_BUILD_US + BUILT_MOST_US); /* while it builds nobody is impatient */
    WAIT_FOR(s, s->heard.ups[0] == 1);
    assert_int_equal(rank(s, !mute).restarts, 0);
    assert_int_equal(rank(s, mute).restarts, 1);
    assert_true(s->heard.to_build < BEGUN_BYTES); /* what it had begun went with it */
    assert_int_equal(s->heard.doubts + s->heard.blames, 0);
    compute_token(s);
}

static void one_that_is_stopped_while_it_builds_is_replaced(void **state)
{
    uint32_t mute;
    struct stage *s = open_stage_with_one_that_builds_unheard(state, &mute);
    uint64_t stopped_us = now_us();
    kill(rank(s, mute).pid, SIGSTOP);
    WAIT_FOR(s, rank(s, mute).restarts == 1);
    assert_true(now_us() - stopped_us < BUILT_MOST_US);
    WAIT_FOR(s, s->heard.ups[0] == 1);
    assert_int_equal(rank(s, !mute).restarts, 0);
    compute_token(s);
}

static void a_new_spare_leaves_the_cores_to_the_group_for_a_while(void **state)
{
    struct stage *s = open_stage(state, 1, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    uint64_t killed_us = now_us();
    kill(rank(s, 0).pid, SIGKILL);
    WAIT_FOR(s, s->heard.ups[0] == 2);
    WAIT_FOR(s, spare_count(s) == 1);
    assert_true(now_us() - killed_us > SPARE_AFTER_US);
}

/* Whose place is empty has the cores to itself anyway. */
static void a_second_death_in_a_row_is_not_made_to_wait_for_the_first_one_s_new_spare(void **state)
{
    struct stage *s = open_stage(state, 2, 1, 1);
    WAIT_FOR(s, s->heard.ups[0] == 1 && spare_count(s) == 1);
    uint32_t before = processes_made(s);
    kill(rank(s, 0).pid, SIGKILL);
    WAIT_FOR(s, s->heard.ups[0] == 2);
    kill(rank(s, 1).pid, SIGKILL);
    WAIT_FOR(s, s->heard.downs[0] == 2);
    assert_int_equal(processes_made(s), before + 1); /* in the same turn of the loop in which the death was seen */
    WAIT_FOR(s, s->heard.ups[0] == 3);
    compute_token(s);
}

static void one_that_is_still_starting_is_ended_with_the_rest(void **state)
{
    setenv("QUIRE_TEST_WORKER", "silent", 1);
    open_stage(state, 2, 1, 1); /* close_stage looks whether anybody is left */
}

#define ON_A_STAGE(test) cmocka_unit_test_teardown(test, close_stage)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        ON_A_STAGE(workers_build_join_and_compute),
        ON_A_STAGE(a_killed_rank_is_replaced_and_the_token_is_the_same),
        ON_A_STAGE(without_a_spare_a_new_process_takes_the_place),
        ON_A_STAGE(a_spare_that_dies_disturbs_nobody),
        ON_A_STAGE(a_rank_that_hangs_is_ended),
        ON_A_STAGE(a_rank_that_dies_again_and_again_is_closed_and_its_group_goes_on),
        ON_A_STAGE(how_a_rank_died_is_told_before_its_group_stands_again),
        ON_A_STAGE(a_spare_that_dies_of_its_own_fault_raises_doubt_and_nobodys_blame),
        ON_A_STAGE(deaths_that_a_plan_is_to_blame_for_close_no_rank),
        ON_A_STAGE(ranks_that_die_in_the_same_plans_are_blamed_together),
        ON_A_STAGE(a_group_whose_results_cannot_be_is_replaced_as_a_whole),
        ON_A_STAGE(a_rank_tells_the_checksums_of_pages),
        ON_A_STAGE(a_group_without_ranks_is_lost_and_without_groups_there_is_no_hope),
        ON_A_STAGE(workers_that_cannot_start_are_not_started_for_ever),
        ON_A_STAGE(a_process_that_cannot_be_made_is_tried_again_but_not_all_the_time),
        ON_A_STAGE(a_process_that_cannot_be_watched_is_ended_and_another_one_started),
        ON_A_STAGE(one_that_is_ready_and_is_not_heard_is_missed_within_seconds),
        ON_A_STAGE(one_that_has_built_and_is_not_heard_is_replaced),
        ON_A_STAGE(one_that_is_stopped_while_it_builds_is_replaced),
        ON_A_STAGE(a_new_spare_leaves_the_cores_to_the_group_for_a_while),
        ON_A_STAGE(a_second_death_in_a_row_is_not_made_to_wait_for_the_first_one_s_new_spare),
        ON_A_STAGE(one_that_is_still_starting_is_ended_with_the_rest),
    };
    int status = supervisor_stage_worker(argc, argv);
    return status >= 0 ? status : cmocka_run_group_tests(tests, NULL, NULL);
}
