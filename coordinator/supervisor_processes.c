/* Worker processes: started by a command line, watched, reaped, ended. A part of supervisor.c. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/supervisor_internal.h"
#include "shm/room.h"
#include "shm/worker_slot.h"

/* ---- starting ---- */

static struct process *free_process(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->processes[i].stage == PROCESS_FREE)
            return &s->processes[i];
    return NULL;
}

static void on_gone(evutil_socket_t fd, short what, void *arg);

static bool is_alive(const struct process *p)
{
    return p->stage != PROCESS_FREE && p->stage != PROCESS_GONE;
}

/* The group that lacks most processes, spares among them: a new one maps that group's memory before anybody waits for it. */
static uint32_t neediest_group(const struct supervisor *s)
{
    int32_t lacks[GROUPS_MAX] = {0};
    uint32_t most = 0;
    for (uint32_t i = 0; i < s->rank_count; i++)
        lacks[s->ranks[i].group] += !s->ranks[i].closed;
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (is_alive(&s->processes[i]))
            lacks[s->processes[i].group]--;
    for (uint32_t g = 1; g < s->group_count; g++)
        if (lacks[g] > lacks[most])
            most = g;
    return most;
}

static enum err watch_process(struct supervisor *s, struct process *p, struct why *why)
{
    p->watch = event_new(s->config.loop, p->child.pidfd, EV_READ | EV_PERSIST, on_gone, p);
    if (p->watch && event_add(p->watch, NULL) == 0)
        return OK;
    if (p->watch)
        event_free(p->watch);
    p->watch = NULL;
    return because(why, ERR_NOMEM, "could not watch worker process %d: no memory", (int)p->child.pid);
}

enum { WORDS_MOST = 40, NUMBERS_MOST = 4 };

/* A worker's command line: words up to the NULL. */
struct words {
    const char *at[WORDS_MOST + 1];
    size_t count;
    char numbers[NUMBERS_MOST][sizeof "-2147483648"];
    size_t number_count;
};

static void add_word(struct words *w, const char *word)
{
    must(w->count < WORDS_MOST);
    w->at[w->count++] = word;
}

/* Nothing where there is no value. */
static void add_option(struct words *w, const char *option, const char *value)
{
    if (!value || !*value)
        return;
    add_word(w, option);
    add_word(w, value);
}

static void add_number(struct words *w, const char *option, int64_t value)
{
    must(w->number_count < NUMBERS_MOST);
    char *text = w->numbers[w->number_count++];
    snprintf(text, sizeof w->numbers[0], "%lld", (long long)value);
    add_option(w, option, text);
}

static void say_command_line(const struct supervisor *s, const struct process *p, struct words *w)
{
    const struct supervisor_config *c = &s->config;
    *w = (struct words){.count = 0};
    add_word(w, c->worker_path);
    add_option(w, "--name", c->arena->home.name);
    add_option(w, "--shm-dir", c->arena->home.directory);
    add_option(w, "--channel", s->channel_directory);
    add_number(w, "--slot", p->slot);
    add_number(w, "--generation", p->generation);
    add_number(w, "--parent", getpid());
    add_number(w, "--group", p->group);
    add_option(w, "--log-level", c->log_level);
    add_option(w, "--prefill-math", c->prefill_math);
    add_option(w, "--kernels", c->kernels);
    add_option(w, "--activations", c->float_activations ? "f32" : NULL);
    add_option(w, "--model", c->model_path);
    add_option(w, "--quantize", c->quantize);
    add_option(w, "--override", c->overrides);
    if (!c->pin)
        add_word(w, "--no-pin");
    if (c->no_sandbox)
        add_word(w, "--no-sandbox");
}

static enum err start_process(struct supervisor *s, struct process *p, struct why *why)
{
    struct words words;
    *p = (struct process){.supervisor = s, .slot = p->slot, .stage = PROCESS_FREE, .rank = NOBODY, .child.pidfd = -1};
    p->group = neediest_group(s);
    p->generation = worker_slot_prepare(s->config.arena, p->slot, UINT32_MAX);
    say_command_line(s, p, &words);
    enum err e = worker_process_spawn(&p->child, s->config.worker_program, (char *const *)words.at, why);
    if (e)
        return e;
    e = watch_process(s, p, why);
    if (e)
        worker_process_undo(&p->child); /* nobody would hear of its end */
    else
        supervisor_move_process(p, PROCESS_STARTING);
    return e;
}

void supervisor_keep_up_numbers(struct supervisor *s)
{
    bool calm = s->lost_us == 0 || now_us() - s->lost_us > SPARE_AFTER_US; /* if not: the tick comes back here */
    uint32_t wanted = calm ? s->config.spares : 0, alive = 0;
    for (uint32_t i = 0; i < s->rank_count; i++)
        wanted += !s->ranks[i].closed;
    for (uint32_t i = 0; i < s->slot_count; i++)
        alive += is_alive(&s->processes[i]);
    while (alive < wanted && !s->closing && !s->hopeless && now_us() >= s->start_again_us) {
        struct process *p = free_process(s);
        struct why why;
        if (!p)
            return; /* all slots wait for their dead to be reaped: on_gone comes back here */
        if (start_process(s, p, &why)) {
            log_error("%s", why.text);
            s->start_again_us = now_us() + START_AGAIN_US; /* a tick behind that tries again */
            return;
        }
        alive++;
    }
}

/* ---- ending ---- */

/* A SIGKILL may be the kernel's own, which says so only there. */
static void look_for_oom(struct supervisor *s, int status)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        return;
    uint64_t kills = room_oom_kills(ROOM_CGROUP_ROOT, ROOM_CGROUP_MEMBERSHIP);
    if (kills > s->oom_kills)
        log_warn(
            "the kernel has ended %llu processes of this service for want of memory since it last was looked at: give "
            "--kv-memory less, or the service more memory",
            (unsigned long long)(kills - s->oom_kills));
    s->oom_kills = kills;
}

/* A pidfd became readable: reap, and give the slot back. */
static void on_gone(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct process *p = arg;
    struct supervisor *s = p->supervisor;
    int status = 0;
    char how[96];
    pid_t pid = p->child.pid;
    struct rank *rank = p->rank != NOBODY ? &s->ranks[p->rank] : NULL;
    struct event *watch = p->watch;
    if (!worker_process_reap(&p->child, &status))
        return;
    event_free(watch);
    p->watch = NULL;
    worker_process_describe(status, how, sizeof how);
    look_for_oom(s, status);
    bool suspect = (worker_process_died_suspect(status) || p->hung) && !s->closing;
    bool mapped = p->stage != PROCESS_STARTING; /* what dies before its hello has written nowhere yet */
    if (p->stage == PROCESS_RANKED) {
        p->child.pid = pid; /* for the log line only */
        supervisor_lose_rank(s, rank, how);
        p->child.pid = 0;
    } else if (p->stage == PROCESS_STARTING || p->stage == PROCESS_SPARE) {
        if (!s->closing)
            log_warn("worker process %d %s before it had a place", (int)pid, how);
        if (p->stage == PROCESS_STARTING && suspect && ++s->start_deaths >= START_DEATHS_MOST)
            supervisor_give_up(s, "workers die as soon as they start; the log above says why");
        supervisor_move_process(p, PROCESS_GONE);
    } else if (suspect) {
        log_warn("worker process %d %s", (int)pid, how);
    }
    if (mapped)
        supervisor_judge(s, p, suspect);
    supervisor_move_process(p, PROCESS_FREE);
    if (s->closing)
        return;
    supervisor_keep_up_numbers(s);
    supervisor_fill_groups(s);
}

void supervisor_end_processes(struct supervisor *s)
{
    s->command.kind = COMMAND_STOP;
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->processes[i].stage == PROCESS_SPARE || s->processes[i].stage == PROCESS_RANKED)
            supervisor_send_command(s, &s->processes[i]);
    uint64_t patience = now_us() + 2 * 1000 * 1000;
    for (uint32_t left = 1; left;) {
        left = 0;
        bool late = now_us() > patience;
        for (uint32_t i = 0; i < s->slot_count; i++) {
            struct process *p = &s->processes[i];
            int status;
            if (!p->child.pid || worker_process_reap(&p->child, &status))
                continue;
            left++;
            if (late || p->stage == PROCESS_STARTING)
                worker_process_kill(&p->child);
        }
        struct timespec wait = {.tv_nsec = 1000 * 1000};
        if (left)
            nanosleep(&wait, NULL);
    }
}
