/*
 * Workers as threads, and this program as their coordinator: real messages over a real channel, one mapping of the memory,
 * so that ThreadSanitizer sees the whole protocol.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/channel.h"
#include "shm/barrier.h"
#include "shm/crc32c.h"
#include "shm/results.h"
#include "shm/sequence_table.h"
#include "shm/worker_slot.h"
#include "tests/support/server_rig.h"
#include "worker/worker.h"

#define TINY "tiny/llama/model-f32.gguf"
#define TINY_GOLDEN "tiny/llama/golden-f32.json"

enum { WORKERS_MAX = 4, DEADLINE_US = 60 * 1000 * 1000 };

struct hand {
    struct worker_options options;
    atomic_bool stop;
    pthread_t thread;
    enum err err;
    struct why why;
};

struct world {
    struct server_rig server;
    struct arena lent; /* what workers that are threads share */
    bool own_mappings; /* they attach by name instead */
    char directory[CHANNEL_DIRECTORY_MAX + 1];
    struct channel *channel;
    struct results results;
    struct hand hands[WORKERS_MAX];     /* by slot */
    uint32_t started;                   /* slots [0, started) have, or had, a worker */
    uint32_t ranks, slots[WORKERS_MAX]; /* of the group, by rank */
    uint32_t epoch;
    uint64_t step; /* the next one */
    bool met;      /* the group has, in this epoch */
    struct command command;
    struct report report;
    struct message_scratch scratch;
};

/* ---- messages ---- */

static void send_bytes(struct world *w, uint32_t slot, const uint8_t *bytes, size_t length)
{
    struct channel_peer to = {slot, w->hands[slot].options.generation};
    assert_int_equal(channel_send(w->channel, to, bytes, length), OK);
}

static void send_command(struct world *w, uint32_t slot)
{
    static uint8_t bytes[MESSAGE_BYTES_MAX];
    size_t length;
    assert_int_equal(command_pack(&w->command, bytes, sizeof bytes, &length), OK);
    send_bytes(w, slot, bytes, length);
}

/* The next report that is not progress, in w->report; the slot it came from. */
static uint32_t next_report(struct world *w)
{
    static uint8_t bytes[MESSAGE_BYTES_MAX];
    uint64_t deadline = now_us() + DEADLINE_US;
    while (now_us() < deadline) {
        struct channel_peer from;
        struct why why;
        size_t length;
        if (channel_receive(w->channel, &from, bytes, sizeof bytes, &length) != OK) {
            channel_wait(w->channel, 100);
            continue;
        }
        if (report_unpack(&w->report, bytes, length, &w->scratch, &why) != OK)
            fail_msg("%s", why.text);
        if (w->report.kind != REPORT_PROGRESS)
            return from.slot;
    }
    fail_msg("no worker said anything for a minute");
    return 0;
}

static void expect(struct world *w, enum report_kind kind)
{
    next_report(w);
    if (w->report.kind == REPORT_FAILED && kind != REPORT_FAILED)
        fail_msg("%s", w->report.failed.text);
    assert_int_equal(w->report.kind, kind);
}

/* ---- life ---- */

static void *run_worker(void *arg)
{
    struct hand *h = arg;
    h->err = worker_run(&h->options, &h->why);
    return NULL;
}

static void start_worker(struct world *w, uint32_t slot)
{
    struct hand *h = &w->hands[slot];
    h->options = (struct worker_options){
        .name = w->server.instance.home.name,
        .channel = w->directory,
        .slot = slot,
        .generation = worker_slot_prepare(&w->server.arena, slot, UINT32_MAX),
        .group = WORKER_GROUP_NONE,
        .arena = w->own_mappings ? NULL : &w->lent,
        .stop = &h->stop,
    };
    atomic_store(&h->stop, false);
    assert_int_equal(pthread_create(&h->thread, NULL, run_worker, h), 0);
    expect(w, REPORT_HELLO);
    assert_int_equal(w->report.hello.slot, slot);
    assert_int_equal(w->report.hello.layout_version, LAYOUT_VERSION);
}

static void stop_worker(struct world *w, uint32_t slot)
{
    w->command.kind = COMMAND_STOP;
    send_command(w, slot);
    pthread_join(w->hands[slot].thread, NULL);
    assert_int_equal(w->hands[slot].err, OK);
}

static void assign(struct world *w)
{
    barrier_set_epoch(&w->server.arena, 0, ++w->epoch);
    for (uint32_t rank = 0; rank < w->ranks; rank++) {
        w->command.kind = COMMAND_ASSIGN;
        w->command.assign.epoch = w->epoch;
        w->command.assign.group = 0;
        w->command.assign.rank = rank;
        w->command.assign.ranks = w->ranks;
        w->command.assign.cpu = UINT32_MAX;
        memcpy(w->command.assign.slots, w->slots, sizeof w->slots);
        send_command(w, w->slots[rank]);
    }
    for (uint32_t rank = 0; rank < w->ranks; rank++) {
        expect(w, REPORT_ASSIGNED);
        assert_int_equal(w->report.assigned.epoch, w->epoch);
    }
    w->met = false;
}

static void build(struct world *w)
{
    for (uint32_t rank = 0; rank < w->ranks; rank++) {
        w->command.kind = COMMAND_BUILD;
        w->command.build.group = 0;
        w->command.build.rank = rank;
        w->command.build.ranks = w->ranks;
        strcpy(w->command.build.model_path, w->server.model_path);
        send_command(w, w->slots[rank]);
    }
    for (uint32_t rank = 0; rank < w->ranks; rank++)
        expect(w, REPORT_BUILT);
    arena_mark_weights_built(&w->server.arena, 0);
}

/* A server with `ranks` workers that have built the weights and stand in one group. NULL: no fixtures here. */
static struct world *world_open(uint32_t ranks, bool own_mappings)
{
    static unsigned opened;
    struct world *w = calloc(1, sizeof *w);
    struct why why;
    assert_non_null(w);
    if (!server_rig_open(&w->server, TINY, (struct server_sizes){.workers = WORKERS_MAX})) {
        free(w);
        return NULL;
    }
    w->own_mappings = own_mappings;
    server_rig_attach(&w->server, &w->lent);
    snprintf(w->directory, sizeof w->directory, "/tmp/quire-test-%d-%u", (int)getpid(), opened++);
    if (channel_bind(&w->channel, w->directory, &why) != OK ||
        results_open(&w->results, &w->server.arena, 0, &why) != OK)
        fail_msg("%s", why.text);
    w->ranks = ranks;
    w->step = 1;
    for (uint32_t slot = 0; slot < ranks; slot++) {
        w->slots[slot] = slot;
        start_worker(w, slot);
    }
    w->started = ranks;
    build(w);
    assign(w);
    return w;
}

static struct world *world_or_skip(uint32_t ranks)
{
    struct world *w = world_open(ranks, false);
    if (!w)
        skip();
    return w;
}

static void world_close(struct world *w)
{
    for (uint32_t rank = 0; rank < w->ranks; rank++)
        stop_worker(w, w->slots[rank]);
    results_close(&w->results);
    channel_close(w->channel);
    arena_detach(&w->lent);
    server_rig_close(&w->server);
    free(w);
}

/* ---- steps ---- */

/* Sends a plan of one row to the first `reached` ranks; the step's number. */
static uint64_t send_row(struct world *w, struct step_row row, uint32_t reached)
{
    w->command.kind = COMMAND_PLAN;
    w->command.plan.epoch = w->epoch;
    w->command.plan.flags = w->met ? 0 : PLAN_MEET_FIRST;
    w->command.plan.step = w->step;
    w->command.plan.row_count = 1;
    w->command.plan.rows[0] = row;
    w->met = true;
    for (uint32_t rank = 0; rank < reached; rank++)
        send_command(w, w->slots[rank]);
    return w->step++;
}

/* Waits for the result of that step and gives its first token. */
static uint32_t token_of(struct world *w, uint64_t step, struct step_row row)
{
    struct result_entry entry;
    struct why why;
    expect(w, REPORT_RESULT);
    assert_int_equal(w->report.result.step, step);
    assert_int_equal(w->report.result.epoch, w->epoch);
    if (results_read(&w->results, w->epoch, step, 0, row.session, row.session_generation, w->server.served.model.vocab,
                     &entry, &why) != OK)
        fail_msg("%s", why.text);
    return entry.token;
}

static struct step_row prompt_row(struct world *w, uint32_t slot, const struct golden *g)
{
    return server_rig_row(&w->server, slot, 0, g->prompt_count, ROW_SAMPLE);
}

static struct step_row decode_row(struct world *w, uint32_t slot)
{
    uint32_t tokens = session_progress(session_at(&w->server.arena, slot)).tokens;
    return server_rig_row(&w->server, slot, tokens - 1, 1, ROW_SAMPLE);
}

static uint32_t golden_session(struct world *w, const struct golden *g)
{
    struct sampling greedy = greedy_sampling(g->prompt_count);
    return server_rig_session(&w->server, g->prompt, g->prompt_count, g->prompt_count + g->greedy_count + 2, &greedy);
}

/* Speaks all golden tokens, one step after the other. */
static void speak(struct world *w, uint32_t slot, const struct golden *g)
{
    struct step_row row = prompt_row(w, slot, g);
    for (uint32_t i = 0; i < g->greedy_count; i++) {
        uint64_t step = send_row(w, row, w->ranks);
        assert_int_equal(token_of(w, step, row), g->greedy[i]);
        server_rig_commit(&w->server, slot, g->greedy[i]);
        row = decode_row(w, slot);
    }
}

static struct golden golden_or_skip(uint32_t prompt)
{
    static struct golden g;
    if (!golden_read(&g, TINY_GOLDEN, prompt))
        skip();
    return g;
}

/* ---- tests ---- */

static void workers_build_the_weights_and_speak_the_golden_tokens(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    for (uint32_t ranks = 1; ranks <= 3; ranks++) {
        struct world *w = world_or_skip(ranks);
        speak(w, golden_session(w, &g), &g);
        for (; w->ranks > 0; w->ranks--) { /* stopped: a rank may count a little after rank 0 has answered */
            struct worker_slot *s = worker_slot_at(&w->server.arena, w->slots[w->ranks - 1]);
            stop_worker(w, w->slots[w->ranks - 1]);
            assert_int_equal(atomic_load(&s->steps), g.greedy_count);
            assert_int_equal(atomic_load(&s->tokens), g.prompt_count + g.greedy_count - 1);
        }
        world_close(w);
    }
}

static void workers_with_mappings_of_their_own_say_the_same(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_open(2, true);
    if (!w)
        skip();
    speak(w, golden_session(w, &g), &g);
    world_close(w);
}

static void a_plan_sent_ahead_is_carried_out_with_the_token_of_the_one_before(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(2);
    uint32_t slot = golden_session(w, &g);
    struct step_row row = prompt_row(w, slot, &g);
    uint64_t step = send_row(w, row, w->ranks);
    for (uint32_t i = 0; i < g.greedy_count; i++) {
        uint32_t tokens = session_progress(session_at(&w->server.arena, slot)).tokens;
        struct step_row ahead = server_rig_row(&w->server, slot, tokens, 1, ROW_SAMPLE);
        ahead.previous = 1;
        uint64_t next = send_row(w, ahead, w->ranks); /* before the result of `step` is known */
        assert_int_equal(token_of(w, step, row), g.greedy[i]);
        server_rig_commit(&w->server, slot, g.greedy[i]);
        step = next;
        row = ahead;
    }
    token_of(w, step, row);
    world_close(w);
}

static void wait_until_arrived(const struct worker_slot *s, uint32_t epoch, uint32_t phase)
{
    uint64_t deadline = now_us() + DEADLINE_US;
    while (atomic_load(&s->arrived) != ((uint64_t)epoch << 32 | phase) && now_us() < deadline)
        sched_yield();
    assert_true(now_us() < deadline);
}

static void a_step_cut_off_in_the_middle_says_the_same_when_done_again(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(2);
    uint32_t slot = golden_session(w, &g);
    struct step_row row = prompt_row(w, slot, &g);
    for (uint32_t i = 0; i < 6; i++) {
        send_row(w, row, 1); /* rank 1 never hears of it, as if it were dead */
        struct step_row ahead = row;
        ahead.first = row.first + row.count, ahead.count = 1, ahead.previous = 1;
        send_row(w, ahead, 1);
        wait_until_arrived(worker_slot_at(&w->server.arena, 0), w->epoch, 1); /* alone in the first meeting */
        assign(w);                                                            /* the epoch ends; both plans are void */
        assert_int_equal(atomic_load(&worker_slot_at(&w->server.arena, 0)->aborts), i + 1);
        uint64_t step = send_row(w, row, w->ranks);
        assert_int_equal(token_of(w, step, row), g.greedy[i]);
        server_rig_commit(&w->server, slot, g.greedy[i]);
        row = decode_row(w, slot);
        assign(w);
    }
    world_close(w);
}

static void a_spare_takes_the_place_of_a_lost_rank(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(2);
    uint32_t slot = golden_session(w, &g);
    struct step_row row = prompt_row(w, slot, &g);
    uint64_t step = send_row(w, row, w->ranks);
    assert_int_equal(token_of(w, step, row), g.greedy[0]);
    server_rig_commit(&w->server, slot, g.greedy[0]);

    start_worker(w, 2);
    stop_worker(w, 1);
    w->slots[1] = 2;
    assign(w);
    row = decode_row(w, slot);
    step = send_row(w, row, w->ranks);
    assert_int_equal(token_of(w, step, row), g.greedy[1]);
    server_rig_commit(&w->server, slot, g.greedy[1]);

    stop_worker(w, 2); /* and a group can go on with fewer */
    w->ranks = 1;
    assign(w);
    row = decode_row(w, slot);
    step = send_row(w, row, w->ranks);
    assert_int_equal(token_of(w, step, row), g.greedy[2]);
    world_close(w);
}

static void a_refused_plan_is_answered_and_ends_the_epoch_for_that_worker(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(1);
    uint32_t slot = golden_session(w, &g);
    struct step_row good = prompt_row(w, slot, &g), bad = good;
    bad.session = 6;
    uint64_t step = send_row(w, bad, 1);
    send_row(w, good, 1); /* of the same epoch: dropped */
    expect(w, REPORT_FAILED);
    assert_int_equal(w->report.failed.step, step);
    assert_int_equal(w->report.failed.epoch, w->epoch);
    assert_non_null(strstr(w->report.failed.text, "no such session"));
    assign(w);
    step = send_row(w, good, 1);
    assert_int_equal(token_of(w, step, good), g.greedy[0]);
    world_close(w);
}

static void a_step_that_skips_a_number_is_refused(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(1);
    uint32_t slot = golden_session(w, &g);
    struct step_row row = prompt_row(w, slot, &g);
    token_of(w, send_row(w, row, 1), row);
    w->step++;
    send_row(w, row, 1);
    expect(w, REPORT_FAILED);
    world_close(w);
}

static void an_epoch_that_does_not_meet_first_is_refused(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(1);
    w->met = true;
    send_row(w, prompt_row(w, golden_session(w, &g), &g), 1);
    expect(w, REPORT_FAILED);
    world_close(w);
}

static void a_question_for_checksums_is_answered_between_steps(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(1);
    struct world *w = world_or_skip(2);
    uint32_t slot = golden_session(w, &g), pages = w->server.arena.layout.page_count;
    struct step_row row = prompt_row(w, slot, &g);
    token_of(w, send_row(w, row, w->ranks), row);
    w->command.kind = COMMAND_SUM;
    w->command.sum.question = 77;
    w->command.sum.count = 2;
    w->command.sum.pages[0] = sequence_row_entry(&w->server.arena, slot, 0, 0).page;
    w->command.sum.pages[1] = pages - 1;
    send_command(w, w->slots[1]);
    expect(w, REPORT_SUMS);
    assert_int_equal(w->report.sums.question, 77);
    assert_int_equal(w->report.sums.count, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(w->report.sums.sums[i], crc32c(0, arena_page(&w->lent, w->command.sum.pages[i]),
                                                        w->server.arena.geometry.page_bytes[0]));
    assert_int_not_equal(w->report.sums.sums[0], w->report.sums.sums[1]);
    w->command.kind = COMMAND_SUM;
    w->command.sum.pages[0] = pages; /* there is none: no answer */
    send_command(w, w->slots[1]);
    w->command.sum.question = 78;
    w->command.sum.pages[0] = 0;
    send_command(w, w->slots[1]);
    expect(w, REPORT_SUMS);
    assert_int_equal(w->report.sums.question, 78);
    world_close(w);
}

static void bytes_that_are_no_command_are_passed_over(void **state)
{
    (void)state;
    struct golden g = golden_or_skip(0);
    struct world *w = world_or_skip(1);
    uint8_t noise[300];
    for (uint32_t length = 1; length < sizeof noise; length += 23) {
        for (uint32_t i = 0; i < length; i++)
            noise[i] = (uint8_t)(i * 89 + length * 31);
        send_bytes(w, 0, noise, length);
    }
    speak(w, golden_session(w, &g), &g);
    world_close(w);
}

static void a_process_of_another_generation_does_not_enter(void **state)
{
    (void)state;
    struct world *w = world_or_skip(1);
    struct worker_options late = w->hands[0].options;
    struct why why;
    late.slot = 3;
    late.generation = worker_slot_prepare(&w->server.arena, 3, UINT32_MAX) + 1;
    assert_int_equal(worker_run(&late, &why), ERR_INVALID);
    assert_int_equal(worker_slot_life(&w->server.arena, 3), LIFE_NOBODY);
    world_close(w);
}

static void a_build_from_another_file_fails_with_a_sentence(void **state)
{
    (void)state;
    struct world *w = world_or_skip(1);
    start_worker(w, 1);
    /* the bit of weights that are whole, taken back: this server's table belongs to the test */
    atomic_store(&((struct arena_header *)(void *)w->server.arena.table.base)->weights_built, 0);
    w->command.kind = COMMAND_BUILD;
    w->command.build.group = 0;
    w->command.build.rank = 0;
    w->command.build.ranks = 1;
    strcpy(w->command.build.model_path, w->server.model_path);
    memcpy(strrchr(w->command.build.model_path, '/') + 1, "no-such.gguf", sizeof "no-such.gguf");
    send_command(w, 1);
    expect(w, REPORT_FAILED);
    assert_int_equal(w->report.failed.epoch, 0);
    assert_non_null(strstr(w->report.failed.text, "no-such.gguf"));
    stop_worker(w, 1);
    world_close(w);
}

static void a_stopped_worker_leaves_its_slot(void **state)
{
    (void)state;
    struct world *w = world_or_skip(1);
    start_worker(w, 1);
    assert_int_equal(worker_slot_life(&w->server.arena, 1), LIFE_HELD);
    atomic_store(&w->hands[1].stop, true);
    pthread_join(w->hands[1].thread, NULL);
    assert_int_equal(w->hands[1].err, OK);
    assert_int_equal(worker_slot_life(&w->server.arena, 1), LIFE_NOBODY);
    assert_int_equal(atomic_load(&worker_slot_at(&w->server.arena, 1)->state), WORKER_LEFT);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_build_the_weights_and_speak_the_golden_tokens),
        cmocka_unit_test(workers_with_mappings_of_their_own_say_the_same),
        cmocka_unit_test(a_plan_sent_ahead_is_carried_out_with_the_token_of_the_one_before),
        cmocka_unit_test(a_step_cut_off_in_the_middle_says_the_same_when_done_again),
        cmocka_unit_test(a_spare_takes_the_place_of_a_lost_rank),
        cmocka_unit_test(a_refused_plan_is_answered_and_ends_the_epoch_for_that_worker),
        cmocka_unit_test(a_step_that_skips_a_number_is_refused),
        cmocka_unit_test(an_epoch_that_does_not_meet_first_is_refused),
        cmocka_unit_test(a_question_for_checksums_is_answered_between_steps),
        cmocka_unit_test(bytes_that_are_no_command_are_passed_over),
        cmocka_unit_test(a_process_of_another_generation_does_not_enter),
        cmocka_unit_test(a_build_from_another_file_fails_with_a_sentence),
        cmocka_unit_test(a_stopped_worker_leaves_its_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
