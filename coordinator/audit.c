/* audit: see audit.h. The calling thread is rank 0; all ranks do one job at a time, begun and ended together. */
#include "coordinator/audit.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"
#include "coordinator/topology.h"
#include "model/forward.h"
#include "model/model_file.h"
#include "model/served_model.h"
#include "shm/segment.h"

enum { RANKS_MAX = 256, SPINS = 4000, LINE = 64 };
enum { EPOCH_PLAIN = 1, EPOCH_CLOCKED }; /* of the two passes that a rank has over the same buffers */

enum job { JOB_BUILD, JOB_FLUSH, JOB_STEP, JOB_CLOCKED_STEP, JOB_END };

struct rank {
    struct audit_rig *rig;
    uint32_t number, cpu;
    pthread_t thread;
    struct forward *plain, *with_clock;
    struct audit_clock clock;
    enum err err;
    struct why why;
};

/* Everything of a measurement that is gone when it is over. */
struct audit_rig {
    const struct audit_plan *plan;
    const struct model *m;
    struct gguf *file;
    struct segment weights, pages, work;
    struct shared_buffers shared;
    struct audit_map *map;
    uint32_t capacity, logit_rows;
    uint32_t sequence_pages;
    uint8_t **page[MODEL_PAGE_CLASSES]; /* (batch, sequence_pages) */

    /* ranks */
    struct rank rank[RANKS_MAX];
    uint32_t ranks, threads; /* threads: that were started, rank 0 included */
    pthread_barrier_t begin, end;
    cpu_set_t cores; /* that the calling thread was on before */
    enum job job;
    _Atomic uint32_t arrived, round; /* meetings within a step */

    /* the step at hand */
    struct batch batch;
    struct batch_run runs[AUDIT_MAX_BATCH];
    uint32_t ids[AUDIT_STEP_TOKENS];
    uint32_t sampled[AUDIT_MAX_BATCH], sampled_count; /* rows whose logits are made */
    double step_us;                                   /* rank 0's, of a step without clocks */
    double ticks_per_us;
};

/* ---- ranks ---- */

/* All ranks of a step; the last one opens it for the others. */
static enum err meet(void *arg)
{
    struct audit_rig *rig = arg;
    audit_clock_wait();
    uint32_t round = atomic_load_explicit(&rig->round, memory_order_relaxed); /* none opens before we have arrived */
    uint32_t before =
        atomic_fetch_add_explicit(&rig->arrived, 1, memory_order_acq_rel); /* shows my rows, sees theirs */
    if (before + 1 == rig->ranks) {
        atomic_store_explicit(&rig->arrived, 0, memory_order_relaxed);       /* released by the next line */
        atomic_store_explicit(&rig->round, round + 1, memory_order_release); /* pairs with the acquire of who waits */
    } else {
        uint32_t spins = 0;
        while (atomic_load_explicit(&rig->round, memory_order_acquire) == round) /* the last one has seen all arrive */
            if (spins++ > SPINS)
                sched_yield(); /* it has no core now */
    }
    audit_clock_wait();
    return OK;
}

static void build_share(struct rank *r)
{
    struct audit_rig *rig = r->rig;
    r->err = model_build(rig->m, rig->file, rig->weights.base, r->number, rig->ranks, NULL, NULL, &r->why);
}

/* My part of the lines of a segment leaves all caches. */
static void flush(const struct audit_rig *rig, const struct rank *r, const struct segment *s)
{
    uint64_t lines = s->bytes / LINE;
    for (uint64_t i = lines * r->number / rig->ranks; i < lines * (r->number + 1) / rig->ranks; i++)
#if defined(__x86_64__)
        __builtin_ia32_clflush(s->base + i * LINE);
#else
        __builtin___clear_cache((char *)s->base + i * LINE, (char *)s->base + (i + 1) * LINE);
#endif
}

static void run_step(struct rank *r, bool with_clock)
{
    struct audit_rig *rig = r->rig;
    struct forward *f = with_clock ? r->with_clock : r->plain;
    uint32_t first, last;
    uint64_t began = audit_ticks();
    if (with_clock)
        audit_clock_start(&r->clock);
    r->err = forward_run(f, &rig->batch);
    for (uint32_t done = 0; done < rig->sampled_count; done += rig->logit_rows) {
        uint32_t left = rig->sampled_count - done;
        forward_logits_begin(f, rig->sampled + done, left < rig->logit_rows ? left : rig->logit_rows);
        while (forward_logits_next(f, &first, &last))
            ;
        meet(rig); /* as before the draw */
    }
    if (with_clock)
        audit_clock_stop();
    else if (r->number == 0)
        rig->step_us = (double)(audit_ticks() - began) / rig->ticks_per_us;
}

static void do_job(struct rank *r)
{
    struct audit_rig *rig = r->rig;
    switch (rig->job) {
    case JOB_BUILD:
        build_share(r);
        break;
    case JOB_FLUSH:
        flush(rig, r, &rig->weights);
        flush(rig, r, &rig->pages);
        flush(rig, r, &rig->work);
        break;
    case JOB_STEP:
    case JOB_CLOCKED_STEP:
        run_step(r, rig->job == JOB_CLOCKED_STEP);
        break;
    case JOB_END:
        break;
    }
}

static void pin(const struct rank *r)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(r->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set); /* a machine that refuses makes it slower, not wrong */
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    pin(r);
    for (bool over = false; !over;) {
        pthread_barrier_wait(&r->rig->begin);
        over = r->rig->job == JOB_END;
        do_job(r);
        pthread_barrier_wait(&r->rig->end);
    }
    return NULL;
}

static enum err all_do(struct audit_rig *rig, enum job job, struct why *why)
{
    rig->job = job;
    pthread_barrier_wait(&rig->begin);
    do_job(&rig->rank[0]);
    pthread_barrier_wait(&rig->end);
    for (uint32_t i = 0; i < rig->ranks; i++)
        if (rig->rank[i].err != OK)
            return because(why, rig->rank[i].err, "%s", rig->rank[i].why.text);
    return OK;
}

static enum err start_ranks(struct audit_rig *rig, struct why *why)
{
    must(pthread_barrier_init(&rig->begin, NULL, rig->ranks) == 0);
    must(pthread_barrier_init(&rig->end, NULL, rig->ranks) == 0);
    must(pthread_getaffinity_np(pthread_self(), sizeof rig->cores, &rig->cores) == 0);
    pin(&rig->rank[0]);
    for (rig->threads = 1; rig->threads < rig->ranks; rig->threads++)
        if (pthread_create(&rig->rank[rig->threads].thread, NULL, run_rank, &rig->rank[rig->threads]) != 0)
            return because(why, ERR_NOMEM, "could not start %u threads", rig->ranks);
    return OK;
}

/* False: some could not be started, so that the others wait for them until the process ends. */
static bool end_ranks(struct audit_rig *rig)
{
    if (rig->threads == 0)
        return true;
    if (rig->threads < rig->ranks)
        return false;
    all_do(rig, JOB_END, NULL);
    for (uint32_t i = 1; i < rig->threads; i++)
        pthread_join(rig->rank[i].thread, NULL);
    pthread_barrier_destroy(&rig->begin);
    pthread_barrier_destroy(&rig->end);
    pthread_setaffinity_np(pthread_self(), sizeof rig->cores, &rig->cores);
    return true;
}

/* ---- memory ---- */

/* Shared memory like a server's, whose name is gone at once: nothing is left behind, however we end. */
static enum err take_segment(struct segment *s, const struct segment_home *home, const char *what, uint64_t bytes,
                             struct why *why)
{
    enum err e = segment_create(s, home, what, bytes, -1, why);
    if (e)
        return e;
    segment_remove(home, what, NULL);
    segment_populate(s);
    return OK;
}

static enum err take_memory(struct audit_rig *rig, struct why *why)
{
    const struct model *m = rig->m;
    uint32_t pages = rig->plan->batch * rig->sequence_pages;
    uint64_t bytes = 0; /* of all classes */
    char name[INSTANCE_NAME_MAX + 1];
    struct segment_home home;
    snprintf(name, sizeof name, "audit-%d", (int)getpid());
    for (uint32_t c = 0; c < model_page_classes(m); c++)
        bytes += pages * model_page_bytes(m, c);
    enum err e = segment_home_init(&home, name, NULL, why);
    if (!e)
        e = take_segment(&rig->weights, &home, "weights.0", m->weights_bytes, why);
    if (!e)
        e = take_segment(&rig->pages, &home, "pages.0", bytes, why);
    if (!e)
        e = take_segment(&rig->work, &home, "work.0",
                         shared_buffers_place(&rig->shared, m, rig->capacity, rig->logit_rows, NULL), why);
    if (e)
        return e;
    shared_buffers_place(&rig->shared, m, rig->capacity, rig->logit_rows, rig->work.base);
    uint8_t *next = rig->pages.base;
    for (uint32_t c = 0; c < model_page_classes(m); c++) {
        rig->page[c] = calloc(pages, sizeof *rig->page[c]);
        if (!rig->page[c])
            return because(why, ERR_NOMEM, "no memory for an audit");
        for (uint32_t i = 0; i < pages; i++, next += model_page_bytes(m, c))
            rig->page[c][i] = next;
    }
    return audit_map_open(&rig->map, m, rig->weights.base, why);
}

static enum err open_forwards(struct audit_rig *rig, struct why *why)
{
    const struct kernels *k = rig->plan->kernels, *clocked = audit_clock_kernels(k);
    enum err e = OK;
    for (uint32_t i = 0; !e && i < rig->ranks; i++) {
        struct rank *r = &rig->rank[i];
        r->clock.map = rig->map;
        r->clock.spent = calloc(rig->m->layers + 1, sizeof *r->clock.spent);
        e = r->clock.spent ? OK : because(why, ERR_NOMEM, "no memory for an audit");
        if (!e)
            e = forward_open(&r->plain, rig->m, rig->weights.base, k, rig->capacity, rig->logit_rows, why);
        if (!e)
            e = forward_open(&r->with_clock, rig->m, rig->weights.base, clocked, rig->capacity, rig->logit_rows, why);
        if (e)
            return e;
        forward_join(r->plain, i, rig->ranks, EPOCH_PLAIN, &rig->shared, meet, rig);
        forward_join(r->with_clock, i, rig->ranks, EPOCH_CLOCKED, &rig->shared, meet, rig);
    }
    return e;
}

static enum err place_ranks(struct audit_rig *rig, struct why *why)
{
    static struct topology topology;
    enum err e = topology_read(&topology, 0, why);
    if (e)
        return e;
    uint32_t ranks = rig->plan->workers ? rig->plan->workers : topology.quota;
    if (ranks > topology.cores || ranks > RANKS_MAX)
        return because(why, ERR_INVALID, "--workers %u: an audit wants a core for each, and there are %u", ranks,
                       topology.cores);
    rig->ranks = ranks;
    for (uint32_t i = 0; i < rig->ranks; i++)
        rig->rank[i] = (struct rank){.rig = rig, .number = i, .cpu = topology.core[i].cpu};
    return OK;
}

static void close_rig(struct audit_rig *rig)
{
    if (!end_ranks(rig))
        return;
    for (uint32_t i = 0; i < rig->ranks; i++) {
        forward_close(rig->rank[i].plain);
        forward_close(rig->rank[i].with_clock);
        free(rig->rank[i].clock.spent);
    }
    audit_map_close(rig->map);
    for (uint32_t c = 0; c < MODEL_PAGE_CLASSES; c++)
        free(rig->page[c]);
    segment_detach(&rig->weights);
    segment_detach(&rig->pages);
    segment_detach(&rig->work);
    if (rig->file)
        gguf_close(rig->file);
    free(rig);
}

/* ---- steps ---- */

/* The ids of `quire bench`. */
static uint32_t token_at(const struct model *m, uint32_t i)
{
    return m->vocab > 200 ? 100 + (uint32_t)((uint64_t)i * 7919 % (m->vocab - 200)) : i % m->vocab;
}

/* Adds positions [first, first + count) of a sequence to the step. */
static void add_run(struct audit_rig *rig, uint32_t sequence, uint32_t first, uint32_t count)
{
    struct batch *b = &rig->batch;
    for (uint32_t i = 0; i < count; i++)
        rig->ids[b->tokens + i] = token_at(rig->m, sequence + first + i);
    struct batch_run *run = &rig->runs[b->run_count++];
    *run = (struct batch_run){.first_row = b->tokens, .count = count, .position = first};
    for (uint32_t c = 0; c < model_page_classes(rig->m); c++)
        run->pages[c] = rig->page[c] + (size_t)sequence * rig->sequence_pages;
    b->tokens += count;
}

static void begin_step(struct audit_rig *rig)
{
    rig->batch = (struct batch){.runs = rig->runs, .token_ids = rig->ids};
    rig->sampled_count = 0;
}

static void sample_row(struct audit_rig *rig)
{
    rig->sampled[rig->sampled_count++] = rig->batch.tokens - 1;
}

/* A prompt, in steps as long as the server's longest; the last one makes logits. */
static enum err prefill(struct audit_rig *rig, uint32_t sequence, enum job job, double *plain_us, struct why *why)
{
    enum err e = OK;
    *plain_us = 0;
    for (uint32_t first = 0, count; !e && first < rig->plan->prompt; first += count) {
        count = rig->plan->prompt - first < AUDIT_STEP_TOKENS ? rig->plan->prompt - first : AUDIT_STEP_TOKENS;
        begin_step(rig);
        add_run(rig, sequence, first, count);
        if (first + count == rig->plan->prompt)
            sample_row(rig);
        e = all_do(rig, job, why);
        *plain_us += rig->step_us;
    }
    return e;
}

/* `steps` tokens of every sequence of the batch, from `position` on. */
static enum err decode(struct audit_rig *rig, uint32_t position, uint32_t steps, enum job job, double *plain_us,
                       struct why *why)
{
    enum err e = OK;
    *plain_us = 0;
    for (uint32_t i = 0; !e && i < steps; i++) {
        begin_step(rig);
        for (uint32_t s = 0; s < rig->plan->batch; s++) {
            add_run(rig, s, position + i, 1);
            sample_row(rig);
        }
        e = all_do(rig, job, why);
        *plain_us += rig->step_us;
    }
    return e;
}

/* ---- runs ---- */

static void clear_clocks(struct audit_rig *rig)
{
    for (uint32_t i = 0; i < rig->ranks; i++)
        memset(rig->rank[i].clock.spent, 0, (rig->m->layers + 1) * sizeof *rig->rank[i].clock.spent);
}

/* What the clocks say goes into the result, if it is the quickest so far. */
static void keep_clocks(const struct audit_rig *rig, struct audit_result *to)
{
    uint64_t all = 0;
    for (uint32_t i = 0; i < rig->ranks; i++)
        for (uint32_t layer = 0; layer <= rig->m->layers; layer++)
            for (uint32_t part = 0; part < AUDIT_PART_COUNT; part++)
                all += rig->rank[i].clock.spent[layer][part];
    double each = rig->ticks_per_us * rig->ranks, us = (double)all / each;
    if (to->us > 0 && to->us <= us)
        return;
    to->us = us;
    for (uint32_t layer = 0; layer <= rig->m->layers; layer++)
        for (uint32_t part = 0; part < AUDIT_PART_COUNT; part++) {
            uint64_t ticks = 0;
            for (uint32_t i = 0; i < rig->ranks; i++)
                ticks += rig->rank[i].clock.spent[layer][part];
            to->spent[layer][part] = (double)ticks / each;
        }
}

static enum err run_prefill(struct audit_rig *rig, struct audit_result *to, enum job job, struct why *why)
{
    double us;
    clear_clocks(rig);
    enum err e = prefill(rig, 0, job, &us, why);
    to->tokens = rig->plan->prompt;
    if (!e && job == JOB_CLOCKED_STEP)
        keep_clocks(rig, to);
    else if (to->plain_us <= 0 || us < to->plain_us)
        to->plain_us = us;
    return e;
}

static enum err run_decode(struct audit_rig *rig, struct audit_result *to, uint32_t position, uint32_t steps,
                           enum job job, struct why *why)
{
    double us;
    clear_clocks(rig);
    enum err e = decode(rig, position, steps, job, &us, why);
    to->tokens = steps * rig->plan->batch;
    if (!e && job == JOB_CLOCKED_STEP)
        keep_clocks(rig, to);
    else if (to->plain_us <= 0 || us < to->plain_us)
        to->plain_us = us;
    return e;
}

/* Cold first: the weights were just built, and are driven out; warm behind runs of the same kind. */
static enum err measure(struct audit_rig *rig, struct audit_result *run, struct why *why)
{
    const struct audit_plan *p = rig->plan;
    double ignored;
    enum err e = prefill(rig, 0, JOB_STEP, &ignored, why); /* memory is touched, pages of the program are there */
    if (!e)
        e = all_do(rig, JOB_FLUSH, why);
    if (!e)
        e = run_prefill(rig, &run[AUDIT_PREFILL_COLD], JOB_CLOCKED_STEP, why);
    for (uint32_t i = 0; !e && i < p->repeat; i++) {
        e = run_prefill(rig, &run[AUDIT_PREFILL_WARM], JOB_STEP, why);
        if (!e)
            e = run_prefill(rig, &run[AUDIT_PREFILL_WARM], JOB_CLOCKED_STEP, why);
    }
    for (uint32_t s = 1; !e && s < p->batch; s++)
        e = prefill(rig, s, JOB_STEP, &ignored, why);
    if (!e)
        e = all_do(rig, JOB_FLUSH, why);
    if (!e)
        e = run_decode(rig, &run[AUDIT_DECODE_COLD], p->prompt, 1, JOB_CLOCKED_STEP, why);
    for (uint32_t i = 0; !e && i < p->repeat; i++) {
        e = run_decode(rig, &run[AUDIT_DECODE_WARM], p->prompt + 1, p->gen, JOB_STEP, why);
        if (!e)
            e = run_decode(rig, &run[AUDIT_DECODE_WARM], p->prompt + 1, p->gen, JOB_CLOCKED_STEP, why);
    }
    return e;
}

/* How long a tick is, over some milliseconds. */
static double ticks_per_us(void)
{
    enum { CALIBRATION_US = 20000 };
    uint64_t began_us = now_us(), began = audit_ticks(), us;
    while ((us = now_us() - began_us) < CALIBRATION_US)
        continue;
    return (double)(audit_ticks() - began) / (double)us;
}

/* ---- all together ---- */

static enum err check_plan(const struct audit_plan *p, struct why *why)
{
    if (p->prompt == 0 || p->gen == 0 || p->repeat == 0 || p->batch == 0 || p->batch > AUDIT_MAX_BATCH)
        return because(why, ERR_INVALID, "an audit wants a prompt, a step of decode and 1 to %d sequences",
                       AUDIT_MAX_BATCH);
    return OK;
}

static enum err open_model(struct audit *a, struct audit_rig *rig, struct why *why)
{
    const struct audit_plan *p = rig->plan;
    uint64_t positions = (uint64_t)p->prompt + p->gen + 1;
    enum err e = model_file_open(&rig->file, p->model, NULL, why);
    if (!e)
        e = model_plan(&a->m, rig->file, p->model, 0, why);
    if (!e)
        e = model_set_kv_type(&a->m, p->kv_type, why);
    if (!e && positions > a->m.context)
        e = because(why, ERR_INVALID,
                    "a prompt of %u tokens and %u behind it are longer than the model's context of %u", p->prompt,
                    p->gen, a->m.context);
    rig->sequence_pages = (uint32_t)((positions + ATTENTION_PAGE - 1) / ATTENTION_PAGE);
    rig->capacity = p->prompt < AUDIT_STEP_TOKENS ? p->prompt : AUDIT_STEP_TOKENS;
    rig->capacity = rig->capacity < p->batch ? p->batch : rig->capacity;
    rig->logit_rows = p->batch < SERVED_LOGIT_ROWS_DEFAULT ? p->batch : SERVED_LOGIT_ROWS_DEFAULT;
    return e;
}

enum err audit_take(struct audit *a, const struct audit_plan *plan, struct why *why)
{
    *a = (struct audit){.workers = 0};
    struct audit_rig *rig = calloc(1, sizeof *rig);
    if (!rig)
        return because(why, ERR_NOMEM, "no memory for an audit");
    rig->plan = plan;
    rig->m = &a->m;
    rig->ticks_per_us = ticks_per_us();
    enum err e = check_plan(plan, why);
    if (!e)
        e = open_model(a, rig, why);
    if (!e)
        e = place_ranks(rig, why);
    if (!e)
        e = take_memory(rig, why);
    if (!e)
        e = open_forwards(rig, why);
    for (uint32_t i = 0; !e && i < AUDIT_RUNS; i++)
        if (!(a->run[i].spent = calloc(a->m.layers + 1, sizeof *a->run[i].spent)))
            e = because(why, ERR_NOMEM, "no memory for an audit");
    if (!e)
        e = start_ranks(rig, why);
    if (!e)
        e = all_do(rig, JOB_BUILD, why);
    if (!e)
        e = measure(rig, a->run, why);
    a->workers = rig->ranks;
    close_rig(rig);
    uint32_t prompt_steps = (plan->prompt + AUDIT_STEP_TOKENS - 1) / AUDIT_STEP_TOKENS;
    if (!e) {
        audit_count_work(plan, &a->m, false, prompt_steps, &a->run[AUDIT_PREFILL_COLD]);
        audit_count_work(plan, &a->m, false, prompt_steps, &a->run[AUDIT_PREFILL_WARM]);
        audit_count_work(plan, &a->m, true, 1, &a->run[AUDIT_DECODE_COLD]);
        audit_count_work(plan, &a->m, true, plan->gen, &a->run[AUDIT_DECODE_WARM]);
    }
    if (e)
        audit_fini(a);
    return e;
}

void audit_fini(struct audit *a)
{
    for (uint32_t i = 0; i < AUDIT_RUNS; i++)
        free(a->run[i].spent);
    *a = (struct audit){.workers = 0};
}

double audit_part_us(const struct audit *a, enum audit_run run, enum audit_part part)
{
    double us = 0;
    for (uint32_t layer = 0; layer <= a->m.layers; layer++)
        us += a->run[run].spent[layer][part];
    return us;
}
