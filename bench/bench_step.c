/*
 * bench_step: where the time of a step goes. Ranks are threads that meet by spinning; no server, no messages, no scheduler.
 *
 *   bench_step MODEL.gguf [--kernels NAME] [--ranks N] [--position P] [--seconds S] SEQUENCESxTOKENS …
 *
 * A case is a step of so many sequences with so many tokens each, the first of them at position P: 16x1 is a decode of 16, 1x512 a
 * piece of a prompt. Its line: the median of its steps and tokens a second; below it, of each part of the step (up to a meeting,
 * summed over layers), microseconds that the ranks worked, on average, and waited. Logits are those of greedy sampling.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/must.h"
#include "bench/bench_memory.h"
#include "model/forward.h"
#include "model/gguf.h"
#include "model/kernels/kernels.h"
#include "model/model.h"
#include "model/sampler.h"

enum {
    MOST_RANKS = 64,
    MOST_SEQUENCES = 32,
    MOST_TOKENS = 512,
    MOST_STEPS = 2000,
    MOST_PARTS = 16, /* embedding, those of a layer, logits, drawing */
    PAGE = 16,
    SMALL_NUMBERS = 0x11, /* in all bytes, also as 16-bit floats */
};

struct bench;

struct rank {
    struct bench *bench;
    struct forward *forward;
    struct sampler *sampler;
    uint32_t index, meetings; /* of this step */
    double since;             /* when it last began to work */
    double work[MOST_PARTS], wait[MOST_PARTS];
    _Alignas(64) _Atomic uint64_t arrived; /* meetings so far, of all steps */
};

struct bench {
    struct model model;
    const struct kernels *kernels;
    uint8_t *weights, *pages;
    struct shared_buffers shared;
    struct sample_partial *partials; /* (sequences, blocks) */
    uint32_t ranks;
    uint32_t embed_parts, layer_parts; /* meetings behind the embedding, 0 or 1, and of a layer */
    struct rank *rank;

    /* the case */
    struct batch batch;
    struct batch_run runs[MOST_SEQUENCES];
    struct sampling sampling[MOST_SEQUENCES];
    uint32_t token_ids[MOST_TOKENS], last_rows[MOST_SEQUENCES];
    uint8_t **page_of[MOST_SEQUENCES];
    double step[MOST_STEPS];
    uint32_t steps;
    double seconds; /* of a case */
};

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- a step ---- */

/* Which part ends with the meeting at hand; in the step that finds out about parts, any. */
static uint32_t part_of(const struct bench *b, uint32_t meeting)
{
    uint32_t layers_end = b->embed_parts + b->layer_parts * b->model.layers;
    if (meeting < b->embed_parts || b->layer_parts == 0)
        return 0;
    return meeting < layers_end ? 1 + (meeting - b->embed_parts) % b->layer_parts
                                : 1 + b->layer_parts + meeting - layers_end;
}

static enum err meet(void *arg)
{
    struct rank *r = arg;
    struct bench *b = r->bench;
    double came = seconds_now();
    uint32_t part = part_of(b, r->meetings++);
    uint64_t mine = atomic_load(&r->arrived) + 1;
    atomic_store(&r->arrived, mine); /* what I wrote is visible to whoever sees this: pairs with the loads below */
    for (uint32_t i = 0; i < b->ranks; i++)
        while (atomic_load(&b->rank[i].arrived) < mine) /* pairs with that rank's store */
            ;
    r->work[part] += came - r->since;
    r->since = seconds_now();
    r->wait[part] += r->since - came;
    return OK;
}

static void take_step(struct rank *r)
{
    struct bench *b = r->bench;
    uint32_t first, last, count = b->batch.run_count, blocks = (b->model.vocab + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
    size_t stride = ((size_t)b->model.vocab + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    struct sample_history none = {.count = 0};
    r->meetings = 0;
    must(forward_run(r->forward, &b->batch) == OK);
    for (forward_logits_begin(r->forward, b->last_rows, count); forward_logits_next(r->forward, &first, &last);)
        for (uint32_t i = 0; i < count; i++) {
            float *logits = b->shared.logits + i * stride;
            sampler_prepare(r->sampler, b->kernels, &b->sampling[i], &none, NULL, logits, logits, first, last,
                            b->partials + (size_t)i * blocks);
        }
    meet(r);
    for (uint32_t i = r->index; i < count; i += b->ranks) {
        struct sampled drawn;
        float *logits = b->shared.logits + i * stride;
        sampler_draw(r->sampler, &b->sampling[i], 1, logits, logits, b->partials + (size_t)i * blocks, &drawn);
    }
    meet(r);
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    struct bench *b = r->bench;
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(r->index, &core);
    pthread_setaffinity_np(pthread_self(), sizeof core, &core); /* where it fails, the scheduler places us */
    r->since = seconds_now();
    for (uint32_t i = 0; i < b->steps; i++) {
        double began = seconds_now();
        take_step(r);
        if (r->index == 0)
            b->step[i] = seconds_now() - began;
    }
    return NULL;
}

static void run_steps(struct bench *b, uint32_t steps)
{
    pthread_t thread[MOST_RANKS];
    b->steps = steps;
    for (uint32_t i = 0; i < b->ranks; i++) {
        memset(b->rank[i].work, 0, sizeof b->rank[i].work);
        memset(b->rank[i].wait, 0, sizeof b->rank[i].wait);
    }
    for (uint32_t i = 0; i < b->ranks; i++)
        must(pthread_create(&thread[i], NULL, run_rank, &b->rank[i]) == 0);
    for (uint32_t i = 0; i < b->ranks; i++)
        pthread_join(thread[i], NULL);
}

/* ---- a case ---- */

static void place_case(struct bench *b, uint32_t sequences, uint32_t tokens, uint32_t position)
{
    uint32_t pages = (position + tokens - 1) / PAGE + 1;
    uint32_t classes = model_page_classes(&b->model);
    uint64_t bytes = 0; /* of one page of each class */
    for (uint32_t c = 0; c < classes; c++)
        bytes += model_page_bytes(&b->model, c);
    b->pages = bench_allocate((uint64_t)sequences * pages * bytes, SMALL_NUMBERS);
    for (uint32_t i = 0; i < sequences; i++) {
        b->page_of[i] = calloc((size_t)classes * pages, sizeof *b->page_of[i]);
        must(b->page_of[i]);
        b->runs[i] = (struct batch_run){.first_row = i * tokens, .count = tokens, .position = position};
        for (uint32_t c = 0; c < classes; c++)
            b->runs[i].pages[c] = b->page_of[i] + c * pages;
        b->last_rows[i] = (i + 1) * tokens - 1;
        b->sampling[i] = (struct sampling){.top_p = 1, .repetition_penalty = 1};
    }
    uint8_t *next = b->pages;
    for (uint32_t c = 0; c < classes; c++)
        for (uint32_t p = 0; p < pages; p++)
            for (uint32_t i = 0; i < sequences; i++, next += model_page_bytes(&b->model, c)) /* as in a server */
                b->page_of[i][c * pages + p] = next;
    for (uint32_t t = 0; t < sequences * tokens; t++)
        b->token_ids[t] = (uint32_t)((uint64_t)t * 7919 % b->model.vocab);
    b->batch = (struct batch){
        .tokens = sequences * tokens, .run_count = sequences, .runs = b->runs, .token_ids = b->token_ids};
}

static void drop_case(struct bench *b)
{
    for (uint32_t i = 0; i < b->batch.run_count; i++)
        free(b->page_of[i]);
    free(b->pages);
}

static const char *part_name(const struct bench *b, uint32_t part)
{
    static const char *const five[] = {"qkv", "attention", "o", "gate, up", "down"};
    static const char *const seven[] = {"qkv", "attention", "o", "norm", "gate, up", "down", "norm"};
    static const char *const eight[] = {"norm", "qkv", "attention", "rounding", "o", "norm", "gate, up", "down"};
    static const char *const ten[] = {"norm", "qkv",  "attention", "rounding", "o",
                                      "norm", "norm", "gate, up",  "down",     "norm"};
    static const char *const *const names[] = {[5] = five, [7] = seven, [8] = eight, [10] = ten};
    if (part == 0)
        return "embedding";
    if (part > b->layer_parts)
        return part == b->layer_parts + 1 ? "logits" : "drawing";
    bool known = b->layer_parts < sizeof names / sizeof *names && names[b->layer_parts];
    return known ? names[b->layer_parts][part - 1] : "of a layer";
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(struct bench *b, uint32_t sequences, uint32_t tokens)
{
    qsort(b->step, b->steps, sizeof *b->step, by_size);
    double median = b->step[b->steps / 2], total = 0;
    printf("%ux%u: %.3f ms, %.1f tokens/s, %u steps\n", sequences, tokens, median * 1e3, sequences * tokens / median,
           b->steps);
    for (uint32_t part = 0; part < b->layer_parts + 3; part++)
        for (uint32_t i = 0; i < b->ranks; i++)
            total += b->rank[i].work[part] + b->rank[i].wait[part];
    for (uint32_t part = 0; part < b->layer_parts + 3; part++) {
        double work = 0, wait = 0, each = 1e6 / b->steps / b->ranks;
        for (uint32_t i = 0; i < b->ranks; i++) {
            work += b->rank[i].work[part];
            wait += b->rank[i].wait[part];
        }
        printf("    %-10s %9.0f us, waiting %7.0f us, %5.1f %%\n", part_name(b, part), work * each, wait * each,
               100 * (work + wait) / total);
    }
    fflush(stdout);
}

static void measure_case(struct bench *b, uint32_t sequences, uint32_t tokens, uint32_t position)
{
    place_case(b, sequences, tokens, position);
    b->layer_parts = 0;
    run_steps(b, 1);                                              /* warms up, and says how many meetings a layer has */
    b->embed_parts = (b->rank[0].meetings - 2) % b->model.layers; /* logits and drawing are met behind, too */
    b->layer_parts = (b->rank[0].meetings - 2) / b->model.layers;
    must(b->embed_parts <= 1);
    must(b->layer_parts + 3 <= MOST_PARTS);
    run_steps(b, 2);
    double steps = b->seconds / b->step[1];
    run_steps(b, steps < 3 ? 3 : steps > MOST_STEPS ? MOST_STEPS : (uint32_t)steps);
    report(b, sequences, tokens);
    drop_case(b);
}

/* ---- the whole ---- */

static enum err open_bench(struct bench *b, const char *path, struct why *why)
{
    struct gguf *file;
    enum err e = gguf_open(&file, path, why);
    if (e)
        return e;
    e = model_plan(&b->model, file, path, 4096, why);
    if (!e) {
        b->weights = bench_allocate(b->model.weights_bytes, SMALL_NUMBERS);
        e = model_build(&b->model, file, b->weights, 0, 1, NULL, NULL, why);
    }
    gguf_close(file);
    if (e)
        return e;
    uint8_t *shared =
        bench_allocate(shared_buffers_place(&b->shared, &b->model, MOST_TOKENS, MOST_SEQUENCES, NULL), SMALL_NUMBERS);
    shared_buffers_place(&b->shared, &b->model, MOST_TOKENS, MOST_SEQUENCES, shared);
    uint64_t blocks = (b->model.vocab + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
    b->partials = bench_allocate(MOST_SEQUENCES * blocks * sizeof *b->partials, SMALL_NUMBERS);
    b->rank = bench_allocate(b->ranks * sizeof *b->rank, SMALL_NUMBERS);
    memset(b->rank, 0, b->ranks * sizeof *b->rank);
    for (uint32_t i = 0; !e && i < b->ranks; i++) {
        struct rank *r = &b->rank[i];
        r->bench = b;
        r->index = i;
        e = forward_open(&r->forward, &b->model, b->weights, b->kernels, MOST_TOKENS, MOST_SEQUENCES, why);
        if (!e)
            e = sampler_open(&r->sampler, b->model.vocab, why);
        if (!e)
            forward_join(r->forward, i, b->ranks, 1, &b->shared, meet, r);
    }
    return e;
}

static int usage(const char *program)
{
    fprintf(stderr,
            "usage: %s MODEL.gguf [--kernels NAME] [--ranks N] [--position P] [--seconds S] SEQUENCESxTOKENS …\n"
            "up to %d sequences, %d tokens in all, %d ranks\n",
            program, MOST_SEQUENCES, MOST_TOKENS, MOST_RANKS);
    return 2;
}

int main(int argc, char **argv)
{
    static struct bench bench = {.ranks = 2, .seconds = 3};
    const char *path = NULL, *set = NULL;
    unsigned position = 150, cases[64][2], count = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char rest;
        if (strcmp(argv[i], "--kernels") == 0)
            set = value, i++;
        else if (strcmp(argv[i], "--ranks") == 0 && sscanf(value, "%u%c", &bench.ranks, &rest) == 1)
            i++;
        else if (strcmp(argv[i], "--position") == 0 && sscanf(value, "%u%c", &position, &rest) == 1)
            i++;
        else if (strcmp(argv[i], "--seconds") == 0 && sscanf(value, "%lf%c", &bench.seconds, &rest) == 1)
            i++;
        else if (!path && argv[i][0] != '-')
            path = argv[i];
        else if (count == 64 || sscanf(argv[i], "%ux%u%c", &cases[count][0], &cases[count][1], &rest) != 2)
            return usage(argv[0]);
        else
            count++;
    }
    bench.kernels = kernels_choose(set);
    if (!path || bench.ranks < 1 || bench.ranks > MOST_RANKS || position > 2048 || !bench.kernels)
        return usage(argv[0]);
    for (uint32_t i = 0; i < count; i++)
        if (cases[i][0] < 1 || cases[i][0] > MOST_SEQUENCES || cases[i][1] < 1 ||
            cases[i][1] > MOST_TOKENS / cases[i][0])
            return usage(argv[0]);
    struct why why;
    if (open_bench(&bench, path, &why) != OK) {
        fprintf(stderr, "bench_step: %s\n", why.text);
        return 1;
    }
    printf("%s, %u ranks, kernels %s, position %u\n", path, bench.ranks, bench.kernels->name, position);
    for (uint32_t i = 0; i < count; i++)
        measure_case(&bench, cases[i][0], cases[i][1], position);
    return 0;
}
