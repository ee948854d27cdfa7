/* metrics: see metrics.h. */
#include "coordinator/metrics.h"

#include <math.h>
#include <string.h>

const double metric_request_buckets[METRIC_BUCKETS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                                       2.5,   5,    10,    20,   40,  80,   160, 320};
const double metric_token_buckets[METRIC_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025,
                                                     0.05,   0.075, 0.1,    0.15,  0.25,   0.5,  1,     2.5};
const double metric_size_buckets[METRIC_BUCKETS] = {1,   2,   4,    8,    16,   32,   64,    128,
                                                    256, 512, 1024, 2048, 4096, 8192, 16384, 65536};

void metric_observe(struct metric_histogram *h, const double *bounds, double value)
{
    if (!isfinite(value) || value < 0)
        value = 0;
    size_t bucket = 0;
    while (bucket < METRIC_BUCKETS && value > bounds[bucket])
        bucket++;
    h->counts[bucket]++;
    h->sum += value;
}

/* The inside of a label's quotes: Prometheus escapes backslash, quote and newline, and nothing else. */
static void add_label_value(struct text *out, const char *value)
{
    for (const char *at = value; *at; at++)
        if (*at == '\n')
            text_add(out, "\\n", 2);
        else if (*at == '"' || *at == '\\')
            text_add(out, (char[]){'\\', *at}, 2);
        else
            text_add(out, at, 1);
}

static void add_head(struct text *out, const char *name, const char *help, const char *type)
{
    text_add_string(out, "# HELP quire_");
    text_add_string(out, name);
    text_add(out, " ", 1);
    text_add_string(out, help);
    text_add_string(out, "\n# TYPE quire_");
    text_add_string(out, name);
    text_add(out, " ", 1);
    text_add_string(out, type);
    text_add(out, "\n", 1);
}

/* quire_NAME SUFFIX {model_name="…",LABEL="VALUE"} and a space; label NULL: none besides the model. */
static void add_sample(struct text *out, const char *name, const char *suffix, const char *model, const char *label,
                       const char *value)
{
    text_add_string(out, "quire_");
    text_add_string(out, name);
    text_add_string(out, suffix);
    text_add_string(out, "{model_name=\"");
    add_label_value(out, model);
    text_add(out, "\"", 1);
    if (label) {
        text_add(out, ",", 1);
        text_add_string(out, label);
        text_add_string(out, "=\"");
        add_label_value(out, value);
        text_add(out, "\"", 1);
    }
    text_add_string(out, "} ");
}

static void add_counter(struct text *out, const char *model, const char *name, const char *help, uint64_t value)
{
    add_head(out, name, help, "counter");
    add_sample(out, name, "", model, NULL, NULL);
    text_add_u64(out, value);
    text_add(out, "\n", 1);
}

static void add_gauge(struct text *out, const char *model, const char *name, const char *help, double value)
{
    add_head(out, name, help, "gauge");
    add_sample(out, name, "", model, NULL, NULL);
    text_add_f64(out, isfinite(value) ? value : 0);
    text_add(out, "\n", 1);
}

static void add_labelled(struct text *out, const char *model, const char *name, const char *help, const char *type,
                         const char *label, const char *const *values, size_t count, const uint64_t *numbers)
{
    add_head(out, name, help, type);
    for (size_t i = 0; i < count; i++) {
        add_sample(out, name, "", model, label, values[i]);
        text_add_u64(out, numbers[i]);
        text_add(out, "\n", 1);
    }
}

static void add_histogram(struct text *out, const char *model, const char *name, const char *help, const double *bounds,
                          const struct metric_histogram *h)
{
    uint64_t count = 0; /* Prometheus' buckets hold everything below their bound */
    add_head(out, name, help, "histogram");
    for (size_t i = 0; i <= METRIC_BUCKETS; i++) {
        struct text bound = {0};
        if (i < METRIC_BUCKETS)
            text_add_f64(&bound, bounds[i]);
        else
            text_add_string(&bound, "+Inf");
        text_add(&bound, "", 1);
        count += h->counts[i];
        add_sample(out, name, "_bucket", model, "le", bound.at ? bound.at : "");
        text_add_u64(out, count);
        text_add(out, "\n", 1);
        out->failed |= bound.failed;
        text_fini(&bound);
    }
    add_sample(out, name, "_sum", model, NULL, NULL);
    text_add_f64(out, h->sum);
    text_add(out, "\n", 1);
    add_sample(out, name, "_count", model, NULL, NULL);
    text_add_u64(out, count);
    text_add(out, "\n", 1);
}

static void add_constants(struct text *out, const struct metrics_constants *constants)
{
    add_head(out, "build_info", "Always 1; the labels say what runs.", "gauge");
    add_sample(out, "build_info", "", constants->model_name, "version", constants->version);
    out->length -= out->failed ? 0 : strlen("} ");
    text_add_string(out, ",kernels=\"");
    add_label_value(out, constants->kernels);
    text_add_string(out, "\"} 1\n");
    add_gauge(out, constants->model_name, "start_time_seconds", "Unix time at which the server started.",
              constants->start_seconds);
}

#define METRIC_LABEL_VALUE(name, label) label,

void metrics_write(struct text *out, const struct metrics *m, const struct metrics_constants *constants)
{
    const char *model = constants->model_name;
    add_constants(out, constants);
#define C(field, name, help) add_counter(out, model, name, help, m->field);
#define G(field, name, help) add_gauge(out, model, name, help, m->field);
#define L(field, name, help, type, label, values, count)                                                        \
    add_labelled(out, model, name, help, type, label, (const char *const[]){values(METRIC_LABEL_VALUE)}, count, \
                 m->field);
#define H(field, name, help, buckets) add_histogram(out, model, name, help, buckets, &m->field);
    METRICS(C, G, L, H)
#undef C
#undef G
#undef L
#undef H
}
