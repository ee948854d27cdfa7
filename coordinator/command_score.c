/*
 * quire score: how probable a model finds a text: the log-probability of each token and the perplexity of all. The same workers,
 * scheduler and steps as the server's; nothing is taken from pages of another text, nothing is drawn.
 *
 * A text that is longer than the context is cut into windows. The first one begins with the text; each further one begins half a
 * window before the first token that has no score yet. So every token is scored once, and behind the first window each sees at least
 * half a window of what stands before it. Every window begins with the token that the model's texts begin with, if it has one.
 */
#include <math.h>
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

enum { WINDOWS_AT_ONCE = 32 }; /* they share their steps */

struct score;

struct window {
    struct score *score;
    uint32_t first; /* token of the text that it begins with */
    uint32_t fresh; /* the first one that no window before it scores */
    uint32_t end;
};

struct score {
    struct private_engine engine;
    struct token_list ids; /* of the text */
    uint32_t begin;        /* what stands before each window; TOKEN_NONE: nothing */
    float *logprobs;       /* (ids.count); NaN: nothing stands before it */
    struct window *windows;
    uint32_t window_count, window_tokens;
    uint32_t running;
};

/* ---- events of a window's sequence ---- */

static bool on_token(void *owner, const struct result_entry *drawn)
{
    (void)owner, (void)drawn;
    must_not_reach();
}

static void on_admitted(void *owner, uint32_t cached)
{
    (void)owner;
    must(cached == 0);
}

static void on_scored(void *owner, uint32_t position, const struct result_entry *entry)
{
    const struct window *w = owner;
    uint32_t token = w->first + position - (w->score->begin != TOKEN_NONE);
    if (token >= w->fresh)
        w->score->logprobs[token] = entry->logprob;
}

static void on_ended(void *owner, enum finish_reason reason)
{
    struct score *s = ((struct window *)owner)->score;
    s->running--;
    if (reason == FINISH_ERROR)
        private_engine_fail(&s->engine, "the workers could not go on");
    else
        private_engine_pause(&s->engine); /* there is room for the next window, or this was the last */
}

static const struct sequence_events events = {
    .token = on_token, .scored = on_scored, .admitted = on_admitted, .ended = on_ended};

/* ---- windows ---- */

static enum err cut_windows(struct score *s, struct why *why)
{
    uint32_t lead = s->begin != TOKEN_NONE, count = (uint32_t)s->ids.count;
    uint32_t room = scheduler_token_limit(s->engine.inference.scheduler);
    if (room < lead + 2)
        return because(why, ERR_INVALID, "a window of %u tokens is too short to score a text; raise --ctx", room);
    s->window_tokens = room - lead;
    s->windows = calloc(2 + count / (s->window_tokens / 2), sizeof *s->windows);
    if (!s->windows)
        return because(why, ERR_NOMEM, "no memory for a text of %u tokens", count);
    for (uint32_t fresh = 0; fresh < count;) {
        struct window *w = &s->windows[s->window_count++];
        *w = (struct window){.score = s, .fresh = fresh, .first = fresh ? fresh - s->window_tokens / 2 : 0};
        w->end = count - w->first < s->window_tokens ? count : w->first + s->window_tokens;
        fresh = w->end;
    }
    return OK;
}

static enum err submit(struct score *s, struct window *w, struct why *why)
{
    uint32_t lead = s->begin != TOKEN_NONE, count = lead + w->end - w->first;
    uint32_t *tokens = malloc(count * sizeof *tokens);
    if (!tokens)
        return because(why, ERR_NOMEM, "no memory for a window of %u tokens", count);
    tokens[0] = s->begin;
    memcpy(tokens + lead, s->ids.ids + w->first, (count - lead) * sizeof *tokens);
    struct sequence_spec spec = {
        .tokens = tokens,
        .token_count = count,
        .score_prompt = true,
        .id = "score",
        .sampling = {.top_p = 1, .repetition_penalty = 1, .prompt_tokens = count, .logprobs = 1},
        .events = &events,
        .owner = w,
    };
    struct sequence *ignored;
    enum err e = scheduler_submit(s->engine.inference.scheduler, &spec, now_us(), &ignored, why);
    free(tokens);
    s->running += e == OK;
    return e;
}

static enum err score_windows(struct score *s, struct why *why)
{
    enum err e = OK;
    for (uint32_t next = 0; !e && (next < s->window_count || s->running > 0);) {
        while (!e && next < s->window_count && s->running < WINDOWS_AT_ONCE)
            e = submit(s, &s->windows[next++], why);
        if (!e)
            e = private_engine_run(&s->engine, why);
    }
    return e;
}

/* ---- the text ---- */

/* A JSON array of token ids. */
static enum err take_ids(struct score *s, const char *text, size_t length, struct why *why)
{
    json_error_t error;
    json_t *array = json_loadb(text, length, 0, &error), *value;
    uint32_t vocab = s->engine.inference.checkpoint.served.model.vocab;
    size_t i;
    if (!json_is_array(array)) {
        json_decref(array);
        return because(why, ERR_FORMAT, "the input is no JSON array of token ids%s%s", array ? "" : ": ",
                       array ? "" : error.text);
    }
    enum err e = OK;
    json_array_foreach (array, i, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= vocab) {
            e = because(why, ERR_INVALID, "element %zu of the input is no token id; ids are from 0 to %u", i,
                        vocab - 1);
            break;
        }
        if (!token_list_push(&s->ids, (uint32_t)id)) {
            e = because(why, ERR_NOMEM, "no memory for the token ids");
            break;
        }
    }
    json_decref(array);
    return e;
}

static enum err take_input(struct score *s, const char *text, size_t length, bool ids, struct why *why)
{
    const struct tokenizer *tokenizer = s->engine.inference.checkpoint.tokenizer;
    s->begin = !ids && tokenizer_adds_bos(tokenizer) ? tokenizer_bos(tokenizer) : TOKEN_NONE;
    enum err e = ids ? take_ids(s, text, length, why) : tokenizer_encode(tokenizer, text, length, false, &s->ids, why);
    if (e)
        return e;
    if (s->ids.count > UINT32_MAX / 4)
        return because(why, ERR_INVALID, "the text has %zu tokens; at most %u can be scored", s->ids.count,
                       UINT32_MAX / 4);
    if (s->ids.count + (s->begin != TOKEN_NONE) < 2)
        return because(why, ERR_INVALID, "the text has no token that follows another; there is nothing to score");
    s->logprobs = malloc(s->ids.count * sizeof *s->logprobs);
    if (!s->logprobs)
        return because(why, ERR_NOMEM, "no memory for a text of %zu tokens", s->ids.count);
    for (size_t i = 0; i < s->ids.count; i++)
        s->logprobs[i] = NAN;
    return OK;
}

/* ---- the answer ---- */

struct summary {
    uint32_t scored;
    double nll_mean; /* minus the mean log-probability of the scored tokens */
};

static struct summary sum_up(const struct score *s)
{
    struct summary sum = {0};
    for (size_t i = 0; i < s->ids.count; i++)
        if (!isnan(s->logprobs[i])) {
            sum.scored++;
            sum.nll_mean -= (double)s->logprobs[i];
        }
    sum.nll_mean /= sum.scored;
    return sum;
}

static void write_json(const struct score *s, struct text *out)
{
    struct summary sum = sum_up(s);
    text_add_string(out, "{\"model\":");
    text_json_string_z(out, s->engine.inference.checkpoint.api.model_name);
    text_add_string(out, ",\"n\":");
    text_add_u64(out, s->ids.count);
    text_add_string(out, ",\"scored\":");
    text_add_u64(out, sum.scored);
    text_add_string(out, ",\"nll_mean\":");
    text_add_f64(out, sum.nll_mean);
    text_add_string(out, ",\"perplexity\":");
    text_add_f64(out, exp(sum.nll_mean));
    text_add_string(out, ",\"windows\":");
    text_add_u64(out, s->window_count);
    text_add_string(out, ",\"window_tokens\":");
    text_add_u64(out, s->window_tokens);
    text_add_string(out, ",\"ids\":[");
    for (size_t i = 0; i < s->ids.count; i++) {
        text_add_string(out, i ? "," : "");
        text_add_u64(out, s->ids.ids[i]);
    }
    text_add_string(out, "],\"logprobs\":[");
    for (size_t i = 0; i < s->ids.count; i++) {
        text_add_string(out, i ? "," : "");
        text_add_f32(out, s->logprobs[i]); /* nothing before it: null */
    }
    text_add_string(out, "]}\n");
}

static void write_table(const struct score *s, struct text *out)
{
    struct summary sum = sum_up(s);
    char line[256];
    text_add_string(out, "position       id    logprob  token\n");
    for (size_t i = 0; i < s->ids.count; i++) {
        size_t length;
        const char *piece = tokenizer_piece(s->engine.inference.checkpoint.tokenizer, s->ids.ids[i], true, &length);
        char logprob[32] = "-";
        if (!isnan(s->logprobs[i]))
            snprintf(logprob, sizeof logprob, "%.4f", (double)s->logprobs[i]);
        snprintf(line, sizeof line, "%8zu %8u %10s  ", i, s->ids.ids[i], logprob);
        text_add_string(out, line);
        text_json_string(out, piece, length);
        text_add_string(out, "\n");
    }
    snprintf(line, sizeof line, "%zu tokens, %u of them scored in %u %s of up to %u tokens\n", s->ids.count, sum.scored,
             s->window_count, s->window_count == 1 ? "window" : "windows", s->window_tokens);
    text_add_string(out, line);
    snprintf(line, sizeof line, "mean log-probability %.5f, perplexity %.4f\n", -sum.nll_mean, exp(sum.nll_mean));
    text_add_string(out, line);
}

/* ---- the command ---- */

struct score_plan {
    bool json, ids;
    char *input;
    size_t length;
};

static enum err score_with(struct score *s, const struct score_plan *plan, struct why *why)
{
    enum err e = take_input(s, plan->input ? plan->input : "", plan->length, plan->ids, why);
    if (!e)
        e = cut_windows(s, why);
    if (!e)
        e = score_windows(s, why);
    if (e)
        return e;
    struct text out = {0};
    (plan->json ? write_json : write_table)(s, &out);
    e = out.failed ? because(why, ERR_NOMEM, "no memory for the answer") : write_output(out.at, out.length, why);
    text_fini(&out);
    return e;
}

static enum err score(const struct serve_options *options, const struct score_plan *plan, struct why *why)
{
    struct score *s = calloc(1, sizeof *s);
    if (!s)
        return because(why, ERR_NOMEM, "could not start: no memory");
    enum err e = private_engine_open(&s->engine, options, NULL, s, why);
    if (!e) {
        e = score_with(s, plan, why);
        private_engine_close(&s->engine);
    }
    token_list_fini(&s->ids);
    free(s->logprobs);
    free(s->windows);
    free(s);
    return e;
}

static enum err read_input(const char *path, struct score_plan *plan, struct why *why)
{
    bool is_stdin = !path || strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    char name[256] = "the standard input";
    if (!file)
        return because_errno(why, ERR_IO, "could not read \"%.200s\"", path);
    if (!is_stdin)
        snprintf(name, sizeof name, "\"%.200s\"", path);
    enum err e = read_all(file, name, &plan->input, &plan->length, why);
    if (!is_stdin)
        fclose(file);
    return e;
}

static const struct command_usage usage = {
    .text =
        "usage: quire score -m MODEL [--json] [--ids] [options] [FILE|-]\n"
        "Reads a text (the standard input without FILE) and says the log-probability of each of its tokens and the perplexity.\n"
        "  --json   one JSON object in place of the table; a token with nothing before it has null\n"
        "  --ids    the input is a JSON array of token ids; nothing is put before them\n"
        "A text longer than the context is scored in windows of --ctx tokens, each beginning half a window before its first\n"
        "token that has no score yet.\n",
    .groups = OF_ENGINE,
    .wanted = "no model: say which file to score with by -m FILE",
};

int command_score(int argc, char **argv)
{
    struct score_plan plan = {0};
    struct serve_options options;
    const char *path = NULL;
    struct why why;
    int exit_code, kept = 1;
    for (int i = 1; i < argc; i++) {
        bool *flag = strcmp(argv[i], "--json") == 0 ? &plan.json : strcmp(argv[i], "--ids") == 0 ? &plan.ids : NULL;
        if (flag)
            *flag = true;
        else
            argv[kept++] = argv[i];
    }
    private_engine_options(&options, "score");
    if (!command_options(&options, &usage, kept, argv, &path, &exit_code))
        return exit_code;
    log_set_level(LOG_WARN);
    enum err e = read_input(path, &plan, &why);
    if (!e)
        e = score(&options, &plan, &why);
    free(plan.input);
    return e ? fail_with(argv[0], &why) : 0;
}
