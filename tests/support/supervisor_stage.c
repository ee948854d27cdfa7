#include "tests/support/supervisor_stage.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "coordinator/supervisor_internal.h"
#include "shm/worker_slot.h"
#include "worker/worker.h"

enum { PROMPT = 20, UNHEARD_BEAT_MS = 50 };

/* ---- what it is told ---- */

static void on_down(void *world, uint32_t group)
{
    ((struct stage *)world)->heard.downs[group]++;
}

static void on_up(void *world, uint32_t group, uint32_t epoch)
{
    struct heard *h = &((struct stage *)world)->heard;
    assert_true(epoch > h->epoch[group]);
    h->epoch[group] = epoch;
    h->ups[group]++;
}

static void on_lost(void *world, uint32_t group)
{
    ((struct stage *)world)->heard.lost[group]++;
}

static void on_doubt(void *world, uint32_t group)
{
    struct stage *s = world;
    assert_false(supervisor_group_is_up(s->supervisor, group)); /* nobody reads what is in doubt */
    s->heard.doubts++;
}

static bool on_blame(void *world, uint32_t group, uint32_t rank, uint32_t ranks)
{
    struct stage *s = world;
    (void)ranks;
    assert_false(supervisor_group_is_up(s->supervisor, group));
    s->heard.blames++;
    s->heard.blamed_rank = rank;
    return s->heard.it_was_the_plan;
}

static void on_sums(void *world, uint32_t group, uint64_t question, const uint32_t *sums, uint32_t count)
{
    struct heard *h = &((struct stage *)world)->heard;
    (void)group;
    h->answered = question;
    h->sum_count = count;
    memcpy(h->sums, sums, count * sizeof *sums);
}

static void on_done(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint64_t compute_us)
{
    struct heard *h = &((struct stage *)world)->heard;
    (void)group, (void)compute_us;
    h->done++;
    h->done_epoch = epoch;
    h->done_step = step;
    h->flight_since_us = 0;
}

static bool in_flight(void *world, uint32_t group, uint64_t *since_us, uint64_t *planned_us)
{
    const struct heard *h = &((struct stage *)world)->heard;
    *since_us = h->flight_since_us;
    *planned_us = 1000 * 1000; /* a machine that is busy with other tests is no hang */
    return group == 0 && h->flight_since_us;
}

static void on_progress(void *world, uint64_t done, uint64_t total)
{
    struct heard *h = &((struct stage *)world)->heard;
    h->built = done;
    h->to_build = total;
}

static void on_hopeless(void *world, const char *sentence)
{
    struct heard *h = &((struct stage *)world)->heard;
    assert_false(h->hopeless[0]);
    snprintf(h->hopeless, sizeof h->hopeless, "%s", sentence);
}

/* ---- memory of the event loop ---- */

static bool refuse_event_memory; /* to the next who asks for as much as an event takes */

static void *event_memory(size_t size)
{
    bool refused = refuse_event_memory && size == event_get_struct_event_size();
    refuse_event_memory &= !refused;
    return refused ? NULL : malloc(size);
}

void refuse_an_event(void)
{
    refuse_event_memory = true;
}

bool event_is_refused(void)
{
    return refuse_event_memory;
}

/* ---- the stage ---- */

static struct topology topology;

struct stage *open_stage(void **state, uint32_t workers, uint32_t groups, uint32_t spares)
{
    static struct stage stage;
    struct why why;
    stage = (struct stage){.program = "/proc/self/exe"};
    struct server_sizes sizes = {.workers = supervisor_worker_slots(workers, spares), .groups = groups};
    if (!server_rig_open(&stage.rig, "tiny/llama/model-f32.gguf", sizes))
        skip();
    *state = &stage;
    log_set_level(getenv("QUIRE_TEST_LOUD") ? LOG_DEBUG : LOG_ERROR);
    uint32_t prompt[PROMPT];
    for (uint32_t i = 0; i < PROMPT; i++)
        prompt[i] = i + 3;
    struct sampling greedy = greedy_sampling(PROMPT);
    stage.slot = server_rig_session(&stage.rig, prompt, PROMPT, 64, &greedy);
    stage.loop = event_base_new();
    assert_int_equal(results_open(&stage.results, &stage.rig.arena, 0, &why), OK);
    assert_int_equal(topology_read(&topology, 0, &why), OK);
    arena_set_state(&stage.rig.arena, ARENA_SERVING);
    struct supervisor_config config = {
        .loop = stage.loop,
        .arena = &stage.rig.arena,
        .worker_path = "test-worker",
        .worker_program = stage.program,
        .model_path = stage.rig.model_path,
        .kernels = "reference",
        .prefill_math = "exact",
        .log_level = "error",
        .workers = workers,
        .groups = groups,
        .spares = spares,
        .topology = &topology,
    };
    struct supervisor_hooks hooks = {
        .group_down = on_down,
        .group_up = on_up,
        .group_lost = on_lost,
        .doubt = on_doubt,
        .blame = on_blame,
        .sums = on_sums,
        .step_done = on_done,
        .in_flight = in_flight,
        .progress = on_progress,
        .hopeless = on_hopeless,
        .world = &stage,
    };
    if (supervisor_open(&stage.supervisor, &config, &hooks, &why))
        fail_msg("%s", why.text);
    return &stage;
}

int close_stage(void **state)
{
    struct stage *s = *state;
    int status;
    unsetenv("QUIRE_TEST_WORKER");
    if (!s)
        return 0;
    supervisor_close(s->supervisor);
    assert_int_equal(waitpid(-1, &status, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    results_close(&s->results);
    event_base_free(s->loop);
    server_rig_close(&s->rig);
    return 0;
}

struct rank_view rank(const struct stage *s, uint32_t index)
{
    return supervisor_rank(s->supervisor, index);
}

uint32_t spare_count(const struct stage *s)
{
    pid_t pids[8];
    return supervisor_spares(s->supervisor, pids, 8);
}

uint32_t processes_made(const struct stage *s)
{
    uint32_t made = 0;
    for (uint32_t i = 0; i < s->rig.arena.geometry.worker_slots; i++)
        made += worker_slot_at(&s->rig.arena, i)->generation;
    return made;
}

void send_prompt(struct stage *s)
{
    static struct step_plan plan;
    bool first = s->plan_epoch != s->heard.epoch[0];
    s->plan_epoch = s->heard.epoch[0];
    s->plan_step++;
    plan = (struct step_plan){
        .epoch = s->plan_epoch, .flags = first ? PLAN_MEET_FIRST : 0, .step = s->plan_step, .row_count = 1};
    plan.rows[0] = server_rig_row(&s->rig, s->slot, 0, PROMPT, ROW_SAMPLE);
    s->heard.flight_since_us = now_us();
    supervisor_send_plan(s->supervisor, 0, &plan);
}

uint32_t compute_token(struct stage *s)
{
    struct result_entry entry;
    struct why why;
    struct step_row row = server_rig_row(&s->rig, s->slot, 0, PROMPT, ROW_SAMPLE);
    uint32_t before = s->heard.done;
    send_prompt(s);
    WAIT_FOR(s, s->heard.done > before);
    assert_int_equal(s->heard.done_epoch, s->heard.epoch[0]);
    assert_int_equal(s->heard.done_step, s->plan_step);
    if (results_read(&s->results, s->heard.done_epoch, s->plan_step, 0, row.session, row.session_generation,
                     s->rig.served.model.vocab, &entry, &why))
        fail_msg("%s", why.text);
    return entry.token;
}

/* ---- workers ---- */

/* Says hello, is seen to build for a while, hears everything, and says nothing of it but how it began. */
static void build_unheard(const struct worker_options *o, struct worker_slot *slot)
{
    struct report hello = {.kind = REPORT_HELLO}, begun = {.kind = REPORT_PROGRESS, .progress = {1, BEGUN_BYTES}};
    struct channel_peer peer = {.slot = o->slot, .generation = o->generation};
    struct channel *channel;
    struct why why;
    uint8_t bytes[256];
    size_t length;
    if (channel_connect(&channel, o->channel, peer, &why) || report_pack(&hello, bytes, sizeof bytes, &length))
        return;
    worker_slot_set_state(slot, WORKER_COMPUTING);
    channel_send(channel, peer, bytes, length);
    for (uint64_t began_us = now_us(); now_us() - began_us < UNHEARD_BUILD_US;) {
        channel_wait(channel, UNHEARD_BEAT_MS);
        if (channel_receive(channel, &peer, bytes, sizeof bytes, &length) == OK &&
            report_pack(&begun, bytes, sizeof bytes, &length) == OK)
            channel_send(channel, peer, bytes, length);
        worker_slot_beat(slot);
    }
    worker_slot_set_state(slot, WORKER_READY);
}

/* Enters its slot, is ready, and neither speaks nor listens, unless it builds. */
static void be_mute(const struct worker_options *o, bool builds)
{
    struct segment_home home;
    struct arena arena;
    struct why why;
    if (segment_home_init(&home, o->name, o->shm_dir, &why) || arena_attach(&arena, &home, false, &why) ||
        worker_slot_enter(&arena, o->slot, o->generation, &why))
        return;
    struct worker_slot *slot = worker_slot_at(&arena, o->slot);
    worker_slot_set_state(slot, WORKER_READY);
    if (builds)
        build_unheard(o, slot);
    for (;;)
        pause();
}

int supervisor_stage_worker(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--name") != 0) {
        event_set_mem_functions(event_memory, realloc, free);
        return -1;
    }
    struct worker_options options;
    struct why why;
    const char *manner = getenv("QUIRE_TEST_WORKER");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (manner && strcmp(manner, "exit") == 0)
        return WORKER_EXIT_FAILED;
    if (worker_options_parse(&options, argc, argv, &why))
        return WORKER_EXIT_USAGE;
    if (manner && strcmp(manner, "mute") == 0)
        be_mute(&options, false);
    bool unheard = manner && strcmp(manner, "unheard") == 0;
    if (unheard && options.slot == UNHEARD_SLOT)
        be_mute(&options, true);
    while (manner && !unheard)
        pause();
    log_set_level(options.log_level);
    return worker_run(&options, &why) ? WORKER_EXIT_FAILED : WORKER_EXIT_STOPPED;
}
