/*
 * quire bench: the engine without HTTP. The same workers, scheduler and steps as the server's; prompts and decodes are timed
 * from the moment they are handed to the scheduler to the moment their tokens are committed.
 *
 *   prefill N: one prompt of N tokens with nothing of it in pages, to its first token
 *   decode B:  B sequences with a prompt each, from the moment all have said a token, over --gen tokens each
 *
 * Each figure is the best of --repeat runs behind one that warms up: on a shared machine the best is the least disturbed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "coordinator/private_engine.h"
#include "coordinator/text.h"

enum { MOST_FIGURES = 16, MOST_BATCH = 512, MOST_PROMPT = 1 << 20, MOST_REPEATS = 1000 };

struct bench_plan {
    uint32_t prefill[MOST_FIGURES], prefill_count;
    uint32_t batch[MOST_FIGURES], batch_count;
    uint32_t prompt, gen, repeat;
    bool json;
};

enum bench_phase {
    BENCH_IDLE,
    BENCH_FIRST_TOKEN, /* timing a prompt until its first token */
    BENCH_GATHERING,   /* prompts come in; the clock waits until all sequences speak */
    BENCH_SPEAKING,    /* timing tokens */
};

struct bench {
    const struct bench_plan *plan;
    struct private_engine engine;
    enum bench_phase phase;
    struct sequence *sequences[MOST_BATCH];
    uint32_t count;
    uint64_t said, wanted; /* tokens since the clock began; how many are to be timed */
    uint64_t began_us, ended_us;
    uint64_t salt; /* another one each run: nothing is found in pages */
};

/* ---- events of the sequences ---- */

static bool on_token(void *owner, const struct result_entry *drawn)
{
    (void)drawn;
    struct bench *b = owner;
    b->said++;
    return false;
}

static void on_admitted(void *owner, uint32_t cached)
{
    (void)owner;
    must(cached == 0);
}

static void on_scored(void *owner, uint32_t position, const struct result_entry *entry)
{
    (void)owner, (void)position, (void)entry;
    must_not_reach();
}

static void on_ended(void *owner, enum finish_reason reason)
{
    struct bench *b = owner;
    for (uint32_t i = 0; i < b->count; i++)
        if (b->sequences[i] && b->sequences[i]->state == SEQUENCE_DONE)
            b->sequences[i] = NULL;
    if (reason == FINISH_ERROR)
        private_engine_fail(&b->engine, "the workers could not go on");
}

static const struct sequence_events events = {
    .token = on_token, .scored = on_scored, .admitted = on_admitted, .ended = on_ended};

/* ---- events of the engine ---- */

static bool all_speak(const struct bench *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (!b->sequences[i] || b->sequences[i]->n_tok == b->sequences[i]->prompt_tokens)
            return false;
    return true;
}

static void on_stepped(void *owner)
{
    struct bench *b = owner;
    bool over = (b->phase == BENCH_FIRST_TOKEN || b->phase == BENCH_SPEAKING) && b->said >= b->wanted;
    if (b->phase == BENCH_GATHERING && all_speak(b)) {
        b->phase = BENCH_SPEAKING;
        b->said = 0;
        b->began_us = now_us();
    } else if (b->phase != BENCH_IDLE && over) {
        b->phase = BENCH_IDLE;
        b->ended_us = now_us();
        private_engine_pause(&b->engine);
    }
}

/* ---- one run ---- */

/* The ids that the peer's benchmark feeds, too. */
static uint32_t token_at(const struct bench *b, uint32_t i)
{
    return 100 + (uint32_t)((uint64_t)i * 7919 % (b->engine.inference.checkpoint.api.vocab - 200));
}

static enum err submit(struct bench *b, uint32_t index, uint32_t prompt, uint32_t max_tokens, struct why *why)
{
    uint32_t *tokens = malloc(prompt * sizeof *tokens);
    if (!tokens)
        return because(why, ERR_NOMEM, "no memory for a prompt of %u tokens", prompt);
    for (uint32_t i = 0; i < prompt; i++)
        tokens[i] = token_at(b, i + index);
    struct sequence_spec spec = {
        .tokens = tokens,
        .token_count = prompt,
        .max_tokens = max_tokens,
        .salt = b->salt * MOST_BATCH + index, /* not even one another's beginnings */
        .id = "bench",
        .sampling = {.top_p = 1, .repetition_penalty = 1, .prompt_tokens = prompt},
        .events = &events,
        .owner = b,
    };
    enum err e = scheduler_submit(b->engine.inference.scheduler, &spec, now_us(), &b->sequences[index], why);
    free(tokens);
    return e;
}

static void cancel_all(struct bench *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (b->sequences[i]) {
            scheduler_cancel(b->engine.inference.scheduler, b->sequences[i]);
            b->sequences[i] = NULL;
        }
}

/* Runs `count` prompts until the phase is over; seconds of the timed part. */
static enum err run_once(struct bench *b, enum bench_phase phase, uint32_t count, uint32_t prompt, uint32_t wanted,
                         double *seconds, struct why *why)
{
    uint32_t rest = scheduler_token_limit(b->engine.inference.scheduler);
    b->salt++;
    b->count = count;
    b->phase = phase;
    b->said = 0;
    b->wanted = wanted;
    b->began_us = now_us();
    enum err e = OK;
    for (uint32_t i = 0; !e && i < count; i++)
        e = submit(b, i, prompt, phase == BENCH_FIRST_TOKEN ? 1 : rest, why);
    if (!e)
        e = private_engine_run(&b->engine, why);
    b->phase = BENCH_IDLE;
    cancel_all(b);
    *seconds = (double)(b->ended_us - b->began_us) * 1e-6;
    return e;
}

/* Best tokens a second over the repeats, behind one run that warms up. */
static enum err run_best(struct bench *b, enum bench_phase phase, uint32_t count, uint32_t prompt, uint32_t wanted,
                         double tokens, double *best, struct why *why)
{
    *best = 0;
    for (uint32_t i = 0; i <= b->plan->repeat; i++) {
        double seconds;
        enum err e = run_once(b, phase, count, prompt, wanted, &seconds, why);
        if (e)
            return e;
        if (i > 0 && tokens / seconds > *best)
            *best = tokens / seconds;
    }
    return OK;
}

/* ---- all runs ---- */

static void print_json(const char *name, const uint32_t *sizes, const double *tps, uint32_t count)
{
    printf("\"%s\": {", name);
    for (uint32_t i = 0; i < count; i++)
        printf("%s\"%u\": %.2f", i ? ", " : "", sizes[i], tps[i]);
    printf("}");
}

static void print_table(const char *name, const uint32_t *sizes, const double *tps, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        printf("%-8s %5u %10.1f tokens/s\n", name, sizes[i], tps[i]);
}

static enum err measure(struct bench *b, const char *model_path, struct why *why)
{
    const struct bench_plan *p = b->plan;
    double prefill[MOST_FIGURES], decode[MOST_FIGURES];
    enum err e = OK;
    for (uint32_t i = 0; !e && i < p->prefill_count; i++)
        e = run_best(b, BENCH_FIRST_TOKEN, 1, p->prefill[i], 1, p->prefill[i], &prefill[i], why);
    for (uint32_t i = 0; !e && i < p->batch_count; i++) {
        uint32_t tokens = p->batch[i] * p->gen; /* below 2^29 */
        e = run_best(b, BENCH_GATHERING, p->batch[i], p->prompt, tokens, tokens, &decode[i], why);
    }
    if (e)
        return e;
    if (!p->json) {
        print_table("prefill", p->prefill, prefill, p->prefill_count);
        print_table("decode", p->batch, decode, p->batch_count);
        return OK;
    }
    const char *slash = strrchr(model_path, '/');
    struct text name = {0};
    text_json_string_z(&name, slash && slash[1] ? slash + 1 : model_path);
    printf("{\"engine\": \"quire\", \"model\": %.*s, \"threads\": %u, ", (int)name.length, name.at ? name.at : "",
           b->engine.inference.workers);
    text_fini(&name);
    print_json("prefill_tps", p->prefill, prefill, p->prefill_count);
    printf(", ");
    print_json("decode_tps", p->batch, decode, p->batch_count);
    printf("}\n");
    return OK;
}

static enum err run_bench(const struct serve_options *options, const struct bench_plan *plan, struct why *why)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return because(why, ERR_NOMEM, "could not start: no memory");
    b->plan = plan;
    enum err e = private_engine_open(&b->engine, options, on_stepped, b, why);
    if (!e) {
        e = measure(b, options->model, why);
        private_engine_close(&b->engine);
    }
    free(b);
    return e;
}

/* ---- the command line ---- */

/* Numbers from 1 to `most` with commas between them, at most `room` of them; an empty text: none. */
static enum err parse_sizes(const char *text, uint32_t most, uint32_t *list, uint32_t room, uint32_t *count,
                            struct why *why)
{
    char copy[256], *rest = copy;
    snprintf(copy, sizeof copy, "%s", text);
    if (strlen(text) >= sizeof copy)
        return because(why, ERR_INVALID, "\"%.60s…\" is too long a list", text);
    *count = 0;
    for (char *word; *text && (word = strsep(&rest, ","));) {
        if (*count == room)
            return because(why, ERR_INVALID, "\"%.60s\" has more than %u numbers", text, room);
        enum err e = parse_count(word, &list[*count], why);
        if (e)
            return e;
        if (list[*count] < 1 || list[*count] > most)
            return because(why, ERR_INVALID, "%s is not between 1 and %u", word, most);
        (*count)++;
    }
    return OK;
}

struct bench_option {
    const char *name;
    uint32_t most;
    uint32_t *list, room;
    uint32_t *count; /* of a list; NULL: one number */
};

/* The value of `option` if this is it, from behind its = or from the next word, "," where none comes; NULL: it is another. */
static const char *value_of(const struct bench_option *option, char **argv, int *at)
{
    const char *word = argv[*at];
    size_t length = strlen(option->name);
    if (strncmp(word, option->name, length) != 0 || (word[length] && word[length] != '='))
        return NULL;
    if (word[length] == '=')
        return word + length + 1;
    return argv[*at + 1] ? argv[++*at] : ",";
}

/* Takes the options of this command out of argv and leaves those of the engine. */
static enum err parse_plan(struct bench_plan *p, int *argc, char **argv, struct why *why)
{
    const struct bench_option ours[] = {
        {"--prefill", MOST_PROMPT, p->prefill, MOST_FIGURES, &p->prefill_count},
        {"--batch", MOST_BATCH, p->batch, MOST_FIGURES, &p->batch_count},
        {"--prompt", MOST_PROMPT, &p->prompt, 1, NULL},
        {"--gen", MOST_PROMPT, &p->gen, 1, NULL},
        {"--repeat", MOST_REPEATS, &p->repeat, 1, NULL},
    };
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        const struct bench_option *option = NULL;
        const char *value = NULL;
        int first = i;
        for (size_t k = 0; !value && k < sizeof ours / sizeof *ours; k++) {
            option = &ours[k];
            value = value_of(option, argv, &i);
        }
        uint32_t count;
        struct why what;
        enum err e = value ? parse_sizes(value, option->most, option->list, option->room,
                                         option->count ? option->count : &count, &what)
                           : OK;
        if (value && !*value && !option->count)
            e = because(&what, ERR_INVALID, "a number is missing");
        if (e)
            return because(why, e, "%s: %s", option->name, what.text);
        if (strcmp(argv[first], "--json") == 0)
            p->json = true;
        else if (!value)
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    *argc = kept;
    return OK;
}

static const struct command_usage usage = {
    .text =
        "usage: quire bench -m MODEL [--json] [--prefill 512] [--batch 1,4,8,16,32] [--prompt 128] [--gen 32] [--repeat 3] "
        "[options]\n"
        "Measures the engine without HTTP: tokens a second of prompts and of sequences that speak at once.\n",
    .groups = OF_ENGINE,
    .wanted = "no model: say which file or directory to measure with -m FILE",
};

int command_bench(int argc, char **argv)
{
    struct bench_plan plan = {.prefill = {512},
                              .prefill_count = 1,
                              .batch = {1, 4, 8, 16, 32},
                              .batch_count = 5,
                              .prompt = 128,
                              .gen = 32,
                              .repeat = 3};
    struct serve_options options;
    struct why why;
    int exit_code;
    private_engine_options(&options, "bench");
    if (parse_plan(&plan, &argc, argv, &why))
        return refuse_with(argv[0], &why);
    if (!command_options(&options, &usage, argc, argv, NULL, &exit_code))
        return exit_code;
    log_set_level(LOG_WARN);
    return end_with(argv[0], run_bench(&options, &plan, &why), &why);
}
