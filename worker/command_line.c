/* command_line: the command line that the coordinator's supervisor writes. People never type it. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "worker/worker.h"

/* X(option, argument or not, its name, text) */
#define OPTIONS(X)                                                                                                 \
    X("name", required_argument, "NAME", "of the server (required)")                                               \
    X("slot", required_argument, "N", "its place in shared memory (required)")                                     \
    X("generation", required_argument, "N", "of that place, as the coordinator prepared it (required)")            \
    X("shm-dir", required_argument, "DIR", "tmpfs that holds the shared memory; empty: /dev/shm")                  \
    X("channel", required_argument, "DIR",                                                                         \
      "directory of the coordinator's socket; default: where it is for that name")                                 \
    X("kernels", required_argument, "SET", "kernel set instead of the best one")                                   \
    X("prefill-math", required_argument, "HOW",                                                                    \
      "exact or blas: who multiplies float weights with prompts; default: exact")                                  \
    X("activations", required_argument, "HOW", "int8 or f32: what inputs of quantised weights are; default: int8") \
    X("group", required_argument, "N",                                                                             \
      "whose memory to map before saying hello; default: the only one, if there is only one")                      \
    X("cores", required_argument, "N", "that the group may run on; default: all that this process may")            \
    X("parent", required_argument, "PID", "process without which this one ends")                                   \
    X("log-level", required_argument, "LEVEL", "debug, info, warn or error; default: info")                        \
    X("model", required_argument, "PATH", "of the model that it may be told to build weights from")                \
    X("quantize", required_argument, "TYPE", "that its float weights become")                                      \
    X("override", required_argument, "KEYS", "that have other values, as the server was told")                     \
    X("no-pin", no_argument, "", "stays on no core")                                                               \
    X("no-sandbox", no_argument, "", "keeps its rights, for debuggers")

const char *worker_usage(void)
{
    return "usage: quire-worker --name NAME --slot N --generation N [options]\n"
           "Started by quire serve; not for people.\n"
#define X(option, argument, value, text) "  --" option " " value "  " text "\n"
        OPTIONS(X);
#undef X
}

static enum err take_number(const char *option, const char *text, uint32_t most, uint32_t *out, struct why *why)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > most)
        return because(why, ERR_INVALID, "--%s takes a whole number up to %u, not \"%.80s\"", option, most, text);
    *out = (uint32_t)value;
    return OK;
}

static enum err take_log_level(const char *text, enum log_level *out, struct why *why)
{
    static const char *const names[] = {
        [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum log_level)i;
            return OK;
        }
    return because(why, ERR_INVALID, "--log-level takes debug, info, warn or error, not \"%.80s\"", text);
}

/* An option of two words: the usual one, and the one that sets *other. */
static enum err take_word(const char *option, const char *text, const char *usual, const char *unusual, bool *other,
                          struct why *why)
{
    *other = strcmp(text, unusual) == 0;
    if (!*other && strcmp(text, usual) != 0)
        return because(why, ERR_INVALID, "--%s takes %s or %s, not \"%.80s\"", option, usual, unusual, text);
    return OK;
}

static enum err take(struct worker_options *o, const char *option, const char *text, struct why *why)
{
    const struct {
        const char *option, **string;
        uint32_t *number;
    } places[] = {
        {"name", &o->name, NULL},       {"shm-dir", &o->shm_dir, NULL},   {"channel", &o->channel, NULL},
        {"model", &o->model, NULL},     {"quantize", &o->quantize, NULL}, {"override", &o->overrides, NULL},
        {"kernels", &o->kernels, NULL}, {"slot", NULL, &o->slot},         {"generation", NULL, &o->generation},
        {"group", NULL, &o->group},     {"cores", NULL, &o->cores},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (strcmp(option, places[i].option) != 0)
            continue;
        if (places[i].number)
            return take_number(option, text, UINT32_MAX - 1, places[i].number, why);
        *places[i].string = text;
        return OK;
    }
    if (strcmp(option, "prefill-math") == 0)
        return take_word(option, text, "exact", "blas", &o->prefill_blas, why);
    if (strcmp(option, "activations") == 0)
        return take_word(option, text, "int8", "f32", &o->float_activations, why);
    if (strcmp(option, "log-level") == 0)
        return take_log_level(text, &o->log_level, why);
    if (strcmp(option, "no-pin") == 0) {
        o->pin = false;
        return OK;
    }
    if (strcmp(option, "no-sandbox") == 0) {
        o->sandbox = false;
        return OK;
    }
    uint32_t parent = 0; /* the only one left */
    enum err err = take_number(option, text, INT_MAX, &parent, why);
    o->parent = (pid_t)parent;
    return err;
}

enum err worker_options_parse(struct worker_options *o, int argc, char **argv, struct why *why)
{
    static const struct option options[] = {
#define X(option, argument, value, text) {option, argument, NULL, 0},
        OPTIONS(X)
#undef X
            {NULL, 0, NULL, 0},
    };
    *o = (struct worker_options){
        .slot = UINT32_MAX, .group = WORKER_GROUP_NONE, .pin = true, .sandbox = true, .log_level = LOG_INFO};
    optind = 0; /* glibc: start over, also in a second call */
    opterr = 0;
    int which, found;
    while ((found = getopt_long(argc, argv, ":", options, &which)) != -1) {
        if (found != 0)
            return because(why, ERR_INVALID, "\"%.80s\" is unknown or lacks its value", argv[optind - 1]);
        enum err err = take(o, options[which].name, optarg, why);
        if (err != OK)
            return err;
    }
    if (optind < argc)
        return because(why, ERR_INVALID, "\"%.80s\" is no option", argv[optind]);
    if (!o->name || o->slot == UINT32_MAX || o->generation == 0)
        return because(why, ERR_INVALID, "--name, --slot and --generation are required");
    return OK;
}
