/* test_metrics: the page that Prometheus reads. */
#include <math.h>
#include <stdio.h>

#include "coordinator/metrics.h"
#include "tests/support/api_rig.h"

static const struct metrics_constants constants = {
    .model_name = "a\"b\\c\nd", .version = "0.1", .kernels = "avx2", .start_seconds = 1700000000.5};

/* The page as a string. The caller frees it. */
static char *page(const struct metrics *m)
{
    struct text out = {0};
    metrics_write(&out, m, &constants);
    text_add(&out, "", 1);
    assert_false(out.failed);
    return out.at;
}

static void assert_sample(const char *text, const char *name, const char *labels, const char *value)
{
    char line[256];
    snprintf(line, sizeof line, "\nquire_%s{model_name=\"a\\\"b\\\\c\\nd\"%s} %s\n", name, labels, value);
    if (!strstr(text, line))
        fail_msg("there is no line %s", line + 1);
}

static void counts_and_gauges_are_shown(void **state)
{
    struct metrics m = {.prompt_tokens = 12, .requests_running = 3, .kv_cache_usage = 0.25};
    (void)state;
    m.request_success[METRIC_LENGTH] += 2;
    m.kv_pages[METRIC_PAGES_CACHED] = 7;
    m.kv_pages[METRIC_PAGES_RETIRED] = 5;
    char *text = page(&m);
    assert_sample(text, "prompt_tokens_total", "", "12");
    assert_sample(text, "num_requests_running", "", "3");
    assert_sample(text, "kv_cache_usage_perc", "", "0.25");
    assert_sample(text, "request_success_total", ",finished_reason=\"length\"", "2");
    assert_sample(text, "request_success_total", ",finished_reason=\"stop\"", "0");
    assert_sample(text, "kv_pages", ",state=\"cached\"", "7");
    assert_sample(text, "kv_pages", ",state=\"retired\"", "5");
    assert_sample(text, "build_info", ",version=\"0.1\",kernels=\"avx2\"", "1");
    assert_sample(text, "start_time_seconds", "", "1700000000.5");
    free(text);
}

static void buckets_hold_everything_up_to_their_bound(void **state)
{
    struct metrics m = {0};
    (void)state;
    metrics_observe(&m, time_to_first_token, 0.005); /* a bound belongs to its bucket */
    metrics_observe(&m, time_to_first_token, 0.3);
    metrics_observe(&m, time_to_first_token, 1000);
    metrics_observe(&m, time_to_first_token, -1);
    metrics_observe(&m, time_to_first_token, NAN);
    char *text = page(&m);
    assert_sample(text, "time_to_first_token_seconds_bucket", ",le=\"0.005\"", "3");
    assert_sample(text, "time_to_first_token_seconds_bucket", ",le=\"0.25\"", "3");
    assert_sample(text, "time_to_first_token_seconds_bucket", ",le=\"0.5\"", "4");
    assert_sample(text, "time_to_first_token_seconds_bucket", ",le=\"+Inf\"", "5");
    assert_sample(text, "time_to_first_token_seconds_count", "", "5");
    assert_sample(text, "time_to_first_token_seconds_sum", "", "1000.305");
    free(text);
}

static void every_metric_has_help_type_and_a_name_of_its_own(void **state)
{
    static const char *const names[] = {
#define C(field, name, help) name,
#define G(field, name, help) name,
#define L(field, name, help, type, label, values, count) name,
#define H(field, name, help, buckets) name,
        METRICS(C, G, L, H)
#undef C
#undef G
#undef L
#undef H
    };
    struct metrics m = {0};
    char *text = page(&m), line[128];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(line, sizeof line, "# TYPE quire_%s ", names[i]);
        const char *first = strstr(text, line);
        assert_non_null(first);
        assert_null(strstr(first + 1, line));
        snprintf(line, sizeof line, "# HELP quire_%s ", names[i]);
        assert_non_null(strstr(text, line));
    }
    free(text);
}

static void bounds_ascend(void **state)
{
    const double *const lists[] = {metric_request_buckets, metric_token_buckets, metric_size_buckets};
    (void)state;
    for (size_t list = 0; list < 3; list++)
        for (size_t i = 1; i < METRIC_BUCKETS; i++)
            assert_true(lists[list][i - 1] < lists[list][i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_gauges_are_shown),
        cmocka_unit_test(buckets_hold_everything_up_to_their_bound),
        cmocka_unit_test(every_metric_has_help_type_and_a_name_of_its_own),
        cmocka_unit_test(bounds_ascend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
