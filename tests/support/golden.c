#include "tests/support/golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/model_rig.h"

const struct golden_bounds with_float_weights = {.logit = 0.01, .top_rms = 0.002, .logprob = 0.01, .greedy_gap = 0.01};
const struct golden_bounds with_coarser_keys = {.logit = 0.025, .top_rms = 0.006, .logprob = 0.02, .greedy_gap = 0.01};
const struct golden_bounds with_8_bit_activations = {.logit = 0.8, .top_rms = 0.2, .logprob = 0.8, .greedy_gap = 0.5};
const struct golden_bounds of_a_real_model = {.logit = 1.5, .top_rms = 0.48, .logprob = 1.1, .greedy_gap = 0.7};
const struct golden_bounds of_a_real_model_in_floats = {
    .logit = 0.012, .top_rms = 0.005, .logprob = 0.005, .greedy_gap = 0.01};

struct worst {
    double logit, top_rms, logprob, greedy_gap;
};

static void note(double *worst, double value)
{
    if (!(value <= *worst))
        *worst = value;
}

static double log_sum_exp(const float *x, uint32_t n)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

static uint32_t largest(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static double number(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

uint32_t golden_tokens(const json_t *prompt, uint32_t ids[2048])
{
    const json_t *lists[] = {json_object_get(prompt, "ids"), json_object_get(json_object_get(prompt, "greedy"), "ids")};
    uint32_t count = 0;
    for (uint32_t l = 0; l < 2; l++)
        for (size_t i = 0; i < json_array_size(lists[l]) && count < 2048; i++)
            ids[count++] = (uint32_t)json_integer_value(json_array_get(lists[l], i));
    return count;
}

static void compare_prompt(const struct rig *rig, const json_t *prompt, const float *logits, struct worst *worst)
{
    uint32_t vocab = rig->m.vocab, n = (uint32_t)json_integer_value(json_object_get(prompt, "n"));
    const json_t *last = json_object_get(prompt, "logits_last"), *position, *ids = json_object_get(prompt, "ids");
    for (size_t i = 0; i < json_array_size(last); i++)
        note(&worst->logit, fabs(logits[(n - 1) * vocab + i] - number(last, i)));

    size_t index, count = 0;
    double squares = 0;
    json_array_foreach (json_object_get(prompt, "positions"), index, position) {
        const float *row = logits + (size_t)json_integer_value(json_object_get(position, "pos")) * vocab;
        const json_t *top = json_object_get(position, "top");
        for (size_t i = 0; i < json_array_size(top); i++, count++) {
            double difference =
                row[json_integer_value(json_array_get(json_array_get(top, i), 0))] - number(json_array_get(top, i), 1);
            note(&worst->logit, fabs(difference));
            squares += difference * difference;
        }
    }
    assert_true(count >= 60);
    note(&worst->top_rms, sqrt(squares / (double)count));

    const json_t *logprobs = json_object_get(prompt, "logprobs");
    assert_int_equal(json_array_size(logprobs), n - 1);
    for (uint32_t t = 1; t < n; t++) {
        const float *row = logits + (size_t)(t - 1) * vocab;
        double logprob = row[json_integer_value(json_array_get(ids, t))] - log_sum_exp(row, vocab);
        note(&worst->logprob, fabs(logprob - number(logprobs, t - 1)));
    }

    const json_t *greedy = json_object_get(prompt, "greedy");
    for (uint32_t i = 0; i < json_array_size(json_object_get(greedy, "ids")); i++)
        if (largest(logits + (size_t)(n - 1 + i) * vocab, vocab) != (uint32_t)number(json_object_get(greedy, "ids"), i))
            note(&worst->greedy_gap, number(json_object_get(greedy, "gap"), i));
}

void golden_compare(const struct golden *g)
{
    static struct rig rig;
    char path[512];
    if (!rig_find(g->numbers, path) || !rig_open_quantised(&rig, g->model, g->context, g->quantize))
        skip();
    json_t *root = json_load_file(path, 0, NULL), *prompt;
    assert_non_null(root);
    assert_int_equal(model_set_kv_type(&rig.m, g->kv_type, NULL), OK);
    struct engine e = engine_open(&rig, kernels_choose(NULL), 1);
    if (g->float_activations)
        assert_int_equal(forward_use_float_activations(e.f[0], NULL), OK);
    struct worst worst = {0};
    size_t index;
    uint32_t compared = 0;
    json_array_foreach (json_object_get(root, "prompts"), index, prompt) {
        const char *factors = json_string_value(json_object_get(prompt, "rope_factors"));
        if (g->max_tokens && json_integer_value(json_object_get(prompt, "n")) > g->max_tokens)
            continue;
        if (g->rope_factors && strcmp(factors ? factors : "", g->rope_factors) != 0)
            continue;
        uint32_t ids[2048], count = golden_tokens(prompt, ids);
        float *logits = malloc((size_t)count * rig.m.vocab * sizeof *logits);
        assert_non_null(logits);
        struct sequence s = sequence_make(&rig, ids, count);
        engine_feed(&e, &s, RIG_CAPACITY, logits);
        compare_prompt(&rig, prompt, logits, &worst);
        sequence_free(&s);
        free(logits);
        compared++;
    }
    print_message(
        "%s, pages in %s%s: %u prompts; logit %.3g, top-20 rms %.3g, log-prob %.3g, widest gap at another choice %.3g\n",
        g->model, kv_type_name(g->kv_type), g->float_activations ? ", float activations" : "", compared, worst.logit,
        worst.top_rms, worst.logprob, worst.greedy_gap);
    assert_true(compared > 0);
    assert_true(worst.logit <= g->bounds->logit);
    assert_true(worst.top_rms <= g->bounds->top_rms);
    assert_true(worst.logprob <= g->bounds->logprob);
    assert_true(worst.greedy_gap <= g->bounds->greedy_gap);
    json_decref(root);
    engine_close(&e);
    rig_close(&rig);
}
