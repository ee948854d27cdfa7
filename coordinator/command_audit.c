/*
 * quire audit: where the time of a model's prefill and decode goes, by part and by layer, for people or as JSON. What it measures and
 * how: audit.h. Beside each part stands its share of the roof, which bench_roofs measures in the same minute, where that program lies
 * beside this one.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "coordinator/audit.h"
#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "coordinator/options.h"
#include "coordinator/text_json.h"

static const char usage[] =
    "usage: quire audit -m MODEL [--prompt 512] [--batch 1] [--gen 16] [--repeat 3] [--workers N] [--kernels SET] [--kv-type f16] [--json]\n"
    "\n"
    "Measures where the time of prefill and decode goes, by part and by layer, with cold caches and with warm ones, and which\n"
    "share of the machine's roof each part reaches. Prefill: one prompt. Decode: --gen steps behind it, of --batch sequences.\n"
    "bench/plot.py makes a picture of what --json prints.\n"
    "\n"
    "  -m, --model FILE   the model to measure\n"
    "  --prompt N         tokens of the prompt\n"
    "  --batch N          sequences that decode together\n"
    "  --gen N            steps of decode\n"
    "  --repeat N         runs of which the best counts as warm\n"
    "  --workers N        cores; default: all that it may run on\n"
    "  --kernels SET      reference, avx2, avx512 or amx; default: the best that this machine runs\n"
    "  --kv-type TYPE     f16, bf16, f32 or q8: how keys and values lie in pages\n"
    "  --json             one JSON object in place of the tables\n"
    "  --help             this text\n";

struct roofs {
    bool known;
    double read_gbs, int8_gmacs, f32_gmacs; /* of as many cores as workers; 0: this machine has none */
    char int8_by[64];
};

/* ---- roofs ---- */

/* The program beside this one, or where the Makefile leaves it. */
static bool find_roofs(char path[static 4096])
{
    static const char *const places[] = {"bench_roofs", "release/bench/bench_roofs"};
    char self[3800];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (!slash)
        return false;
    *slash = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, 4096, "%s/%s", self, places[i]);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* What it prints; NULL: it could not run. */
static json_t *run_roofs(const char *path, uint32_t threads, uint64_t bytes)
{
    char count[16], size[32];
    int ends[2];
    snprintf(count, sizeof count, "%u", threads);
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    if (pipe(ends))
        return NULL;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execl(path, path, "--threads", count, "--bytes", size, "--rounds", "5", "--only", "read,int8,f32",
              (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    FILE *from = fdopen(ends[0], "r");
    json_t *roofs = from ? json_loadf(from, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    int status = 1;
    if (from)
        fclose(from);
    if (child > 0)
        waitpid(child, &status, 0);
    if (status != 0) {
        json_decref(roofs);
        return NULL;
    }
    return roofs;
}

static double roof_of(const json_t *roofs, const char *figure, uint32_t threads)
{
    char count[16];
    snprintf(count, sizeof count, "%u", threads);
    return json_number_value(json_object_get(json_object_get(roofs, figure), count));
}

static void measure_roofs(struct roofs *to, const struct audit *a)
{
    char path[4096];
    *to = (struct roofs){.known = false};
    json_t *roofs = find_roofs(path) ? run_roofs(path, a->workers, a->m.weights_bytes) : NULL;
    if (!roofs) {
        fprintf(stderr, "quire audit: no shares of the roof: bench_roofs is not here; `make benches` builds it\n");
        return;
    }
    const char *by = json_string_value(json_object_get(roofs, "int8_by"));
    to->known = true;
    to->read_gbs = roof_of(roofs, "read_gbs", a->workers);
    to->int8_gmacs = roof_of(roofs, "int8_gmacs", a->workers);
    to->f32_gmacs = roof_of(roofs, "f32_gmacs", a->workers);
    snprintf(to->int8_by, sizeof to->int8_by, "%s", by ? by : "");
    json_decref(roofs);
}

static double share(double work, double rate_giga, double us)
{
    return rate_giga > 0 && us > 0 ? work / (rate_giga * 1e3 * us) : 0;
}

/* Of the two roofs the nearer one; bandwidth says which. 0: the part has no work that a roof bounds, or roofs are not known. */
static double share_of_roof(const struct roofs *roofs, const struct audit_work *work, double us, bool *bandwidth)
{
    double read = share(work->bytes, roofs->read_gbs, us);
    double macs = share(work->int8_macs, roofs->int8_gmacs, us) + share(work->f32_macs, roofs->f32_gmacs, us);
    *bandwidth = read >= macs;
    return read >= macs ? read : macs;
}

/* ---- JSON ---- */

/* Microseconds a token of the parts that took any. */
static void add_times(struct text *out, const char *name, const double *us, uint32_t tokens)
{
    json_open(out, name, '{');
    for (uint32_t part = 0; part < AUDIT_PART_COUNT; part++)
        if (us[part] > 0)
            json_f64(out, audit_part_key(part), us[part] / tokens);
    json_close(out, '}');
}

static const struct {
    const char *name;
    bool warm;
} runs[AUDIT_RUNS] = {
    [AUDIT_PREFILL_COLD] = {"prefill", false},
    [AUDIT_PREFILL_WARM] = {"prefill", true},
    [AUDIT_DECODE_COLD] = {"decode", false},
    [AUDIT_DECODE_WARM] = {"decode", true},
};

static void add_run(struct text *out, const struct audit *a, const struct roofs *roofs, enum audit_run run)
{
    const struct audit_result *r = &a->run[run];
    json_open(out, NULL, '{');
    json_text(out, "name", runs[run].name);
    json_text(out, "caches", runs[run].warm ? "warm" : "cold");
    json_f64(out, "tokens", r->tokens);
    json_f64(out, "us_per_token", r->us / r->tokens);
    if (r->plain_us > 0)
        json_f64(out, "us_per_token_without_clock", r->plain_us / r->tokens);
    json_open(out, "parts", '{');
    for (enum audit_part part = 0; part < AUDIT_PART_COUNT; part++) {
        double us = audit_part_us(a, run, part);
        bool bandwidth;
        if (us <= 0)
            continue;
        double roof = share_of_roof(roofs, &r->work[part], us, &bandwidth);
        json_open(out, audit_part_key(part), '{');
        json_f64(out, "us_per_token", us / r->tokens);
        json_f64(out, "share", us / r->us);
        if (roof > 0) {
            json_f64(out, "roof", roof);
            json_text(out, "roof_is", bandwidth ? "bandwidth" : "arithmetic");
        }
        json_close(out, '}');
    }
    json_close(out, '}');
    json_open(out, "layers", '[');
    for (uint32_t layer = 0; layer < a->m.layers; layer++)
        add_times(out, NULL, r->spent[layer], r->tokens);
    json_close(out, ']');
    add_times(out, "outside", r->spent[a->m.layers], r->tokens);
    json_close(out, '}');
}

static void write_json(struct text *out, const struct audit *a, const struct audit_plan *p, const struct roofs *roofs)
{
    json_open(out, NULL, '{');
    json_text(out, "audit", a->m.name);
    json_text(out, "architecture", a->m.arch_name);
    json_f64(out, "layers", a->m.layers);
    json_f64(out, "weights_bytes", (double)a->m.weights_bytes);
    json_f64(out, "workers", a->workers);
    json_text(out, "kernels", p->kernels->name);
    json_text(out, "kv_type", kv_type_name(p->kv_type));
    json_f64(out, "prompt", p->prompt);
    json_f64(out, "batch", p->batch);
    json_f64(out, "gen", p->gen);
    if (roofs->known) {
        json_open(out, "roofs", '{');
        json_f64(out, "read_gbs", roofs->read_gbs);
        json_f64(out, "int8_gmacs", roofs->int8_gmacs);
        json_f64(out, "f32_gmacs", roofs->f32_gmacs);
        json_text(out, "int8_by", roofs->int8_by);
        json_close(out, '}');
    }
    json_open(out, "runs", '[');
    for (enum audit_run run = 0; run < AUDIT_RUNS; run++)
        add_run(out, a, roofs, run);
    json_close(out, ']');
    json_close(out, '}');
    text_add(out, "\n", 1);
}

/* ---- tables ---- */

__attribute__((format(printf, 2, 3))) static void say(struct text *out, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    text_add_string(out, line);
}

/* Cold, warm, the share of the warm one and of the roof. */
static void say_part(struct text *out, const struct audit *a, const struct roofs *roofs, enum audit_run cold,
                     enum audit_part part)
{
    enum audit_run warm = cold + 1;
    const struct audit_result *r = &a->run[warm];
    double us = audit_part_us(a, warm, part);
    bool bandwidth;
    double roof = share_of_roof(roofs, &r->work[part], us, &bandwidth);
    say(out, " %10.2f %10.2f %5.1f %%", audit_part_us(a, cold, part) / a->run[cold].tokens, us / r->tokens,
        100 * us / r->us);
    if (roof > 0)
        say(out, " %4.0f %% %c", 100 * roof, bandwidth ? 'b' : 'a');
    else
        say(out, "        ");
}

static void say_parts(struct text *out, const struct audit *a, const struct roofs *roofs)
{
    say(out, "%-32s %s\n", "", "prefill                              |  decode");
    say(out, "%-32s %10s %10s %7s %8s %10s %10s %7s %8s\n", "microseconds a token", "cold", "warm", "share", "roof",
        "cold", "warm", "share", "roof");
    for (enum audit_part part = 0; part < AUDIT_PART_COUNT; part++) {
        double any = 0;
        for (enum audit_run run = 0; run < AUDIT_RUNS; run++)
            any += audit_part_us(a, run, part);
        if (any <= 0)
            continue;
        say(out, "%-32s", audit_part_words(part));
        say_part(out, a, roofs, AUDIT_PREFILL_COLD, part);
        say_part(out, a, roofs, AUDIT_DECODE_COLD, part);
        say(out, "\n");
    }
    say(out, "%-32s", "all");
    for (enum audit_run cold = AUDIT_PREFILL_COLD; cold < AUDIT_RUNS; cold += 2) {
        const struct audit_result *r = &a->run[cold + 1];
        say(out, " %10.2f %10.2f %17s", a->run[cold].us / a->run[cold].tokens, r->us / r->tokens, "");
    }
    say(out, "\n%-32s", "all, without the clock");
    for (enum audit_run cold = AUDIT_PREFILL_COLD; cold < AUDIT_RUNS; cold += 2)
        say(out, " %10s %10.2f %17s", "", a->run[cold + 1].plain_us / a->run[cold + 1].tokens, "");
    say(out, "\n");
}

/* The columns of the table by layer: what a layer consists of. */
static const struct {
    const char *words;
    enum audit_part first, last;
} columns[] = {
    {"norms", AUDIT_NORM, AUDIT_QUANTISE},     {"QKV", AUDIT_QKV, AUDIT_QKV},
    {"QK norm", AUDIT_QK_NORM, AUDIT_QK_NORM}, {"RoPE", AUDIT_ROPE, AUDIT_ROPE},
    {"store", AUDIT_STORE, AUDIT_STORE},       {"Q K^T", AUDIT_SCORES, AUDIT_SCORES},
    {"softmax", AUDIT_SOFTMAX, AUDIT_SOFTMAX}, {"A V", AUDIT_VALUES, AUDIT_ATTENTION},
    {"output", AUDIT_OUTPUT, AUDIT_OUTPUT},    {"MLP", AUDIT_MLP, AUDIT_MLP},
    {"wait", AUDIT_WAIT, AUDIT_WAIT},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void say_layers(struct text *out, const struct audit *a, enum audit_run run)
{
    const struct audit_result *r = &a->run[run];
    say(out, "\n%s, warm, microseconds a token by layer\n%5s", runs[run].name, "layer");
    for (uint32_t c = 0; c < COLUMNS; c++)
        say(out, " %8s", columns[c].words);
    say(out, " %8s\n", "all");
    for (uint32_t layer = 0; layer < a->m.layers; layer++) {
        double all = 0;
        say(out, "%5u", layer);
        for (uint32_t c = 0; c < COLUMNS; c++) {
            double us = 0;
            for (enum audit_part part = columns[c].first; part <= columns[c].last; part++)
                us += r->spent[layer][part];
            all += us;
            say(out, " %8.2f", us / r->tokens);
        }
        say(out, " %8.2f\n", all / r->tokens);
    }
}

static void write_tables(struct text *out, const struct audit *a, const struct audit_plan *p, const struct roofs *roofs)
{
    say(out, "%s: %u workers, kernels %s, a prompt of %u tokens, decode of %u %s\n", a->m.name, a->workers,
        p->kernels->name, p->prompt, p->batch, p->batch == 1 ? "sequence" : "sequences");
    if (roofs->known)
        say(out, "roofs: %.1f GB/s read, %.0f G int8 products a second (%s), %.0f G in f32\n", roofs->read_gbs,
            roofs->int8_gmacs, roofs->int8_by, roofs->f32_gmacs);
    say(out, "\n");
    say_parts(out, a, roofs);
    say(out,
        "\nshare: of the warm run. roof: the share of read bandwidth (b) or of arithmetic (a), the nearer of both.\n");
    say(out, "a token of prefill costs %.0f %% of one of decode, warm; cold %.0f %%\n",
        100 * a->run[AUDIT_PREFILL_WARM].us / a->run[AUDIT_PREFILL_WARM].tokens /
            (a->run[AUDIT_DECODE_WARM].us / a->run[AUDIT_DECODE_WARM].tokens),
        100 * a->run[AUDIT_PREFILL_COLD].us / a->run[AUDIT_PREFILL_COLD].tokens /
            (a->run[AUDIT_DECODE_COLD].us / a->run[AUDIT_DECODE_COLD].tokens));
    say_layers(out, a, AUDIT_PREFILL_WARM);
    say_layers(out, a, AUDIT_DECODE_WARM);
}

/* ---- the command ---- */

static enum err audit(const struct audit_plan *plan, bool json, struct why *why)
{
    struct audit *a = malloc(sizeof *a);
    struct roofs roofs;
    if (!a)
        return because(why, ERR_NOMEM, "no memory for an audit");
    enum err e = audit_take(a, plan, why);
    if (!e) {
        struct text out = {0};
        measure_roofs(&roofs, a);
        (json ? write_json : write_tables)(&out, a, plan, &roofs);
        e = out.failed ? because(why, ERR_NOMEM, "no memory for the answer") : write_output(out.at, out.length, why);
        text_fini(&out);
        audit_fini(a);
    }
    free(a);
    return e;
}

static enum err take_kernels(const char *name, struct audit_plan *plan, struct why *why)
{
    plan->kernels = kernels_choose(name);
    return plan->kernels
               ? OK
               : because(why, ERR_INVALID, "--kernels: \"%.60s\" is unknown or nothing this machine can run", name);
}

int command_audit(int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"prompt", required_argument, NULL, 'p'},
        {"batch", required_argument, NULL, 'b'},
        {"gen", required_argument, NULL, 'g'},
        {"repeat", required_argument, NULL, 'r'},
        {"workers", required_argument, NULL, 'w'},
        {"kv-type", required_argument, NULL, 't'},
        {"kernels", required_argument, NULL, 'k'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct audit_plan plan = {.kernels = kernels_choose(NULL), .prompt = 512, .batch = 1, .gen = 16, .repeat = 3};
    struct why why;
    bool json = false;
    enum err e = OK;
    optind = 1;
    for (int option; !e && (option = getopt_long(argc, argv, "m:h", options, NULL)) != -1;) {
        uint32_t *number = option == 'p'   ? &plan.prompt
                           : option == 'b' ? &plan.batch
                           : option == 'g' ? &plan.gen
                           : option == 'r' ? &plan.repeat
                           : option == 'w' ? &plan.workers
                                           : NULL;
        if (number) {
            e = parse_count(optarg, number, &why);
        } else if (option == 'm') {
            plan.model = optarg;
        } else if (option == 'k') {
            e = take_kernels(optarg, &plan, &why);
        } else if (option == 't') {
            e = kv_type_named(optarg, &plan.kv_type)
                    ? OK
                    : because(&why, ERR_INVALID, "--kv-type: \"%.60s\" is none of f16, bf16, f32, q8", optarg);
        } else if (option == 'j') {
            json = true;
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (!e && (!plan.model || optind != argc))
        e = because(&why, ERR_INVALID,
                    "no model: say which file to measure with -m FILE, and nothing behind the options");
    if (e)
        return refuse_with(argv[0], &why);
    log_set_level(LOG_WARN);
    return end_with(argv[0], audit(&plan, json, &why), &why);
}
