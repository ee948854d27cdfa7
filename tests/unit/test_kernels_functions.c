/* Norms, activations, logits, halves, rotation: every kernel set against the reference, bit for bit, and the reference against formulas. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/float16.h"
#include "tests/support/kernel_rig.h"

static void check_vectors(const struct kernels *k)
{
    for (uint32_t n = 1; n <= 200; n++) {
        float x[200], w[200], got[200], expected[200];
        uint16_t half_got[200], half_expected[200];
        fill_inputs(x, n, random_below(3));
        fill_inputs(w, n, 0);
        k->rms_norm(got, x, w, n, 1e-5f);
        kernels_reference.rms_norm(expected, x, w, n, 1e-5f);
        assert_same_floats("rms_norm", got, expected, n);
        for (uint32_t i = 0; i < n; i++)
            x[i] *= 30;
        k->swiglu(got, x, w, n);
        kernels_reference.swiglu(expected, x, w, n);
        assert_same_floats("swiglu", got, expected, n);
        k->gelu(got, x, w, n);
        kernels_reference.gelu(expected, x, w, n);
        assert_same_floats("gelu", got, expected, n);
        k->gelu(got, x, NULL, n);
        kernels_reference.gelu(expected, x, NULL, n);
        assert_same_floats("gelu without a factor", got, expected, n);
        memcpy(got, x, n * sizeof *x);
        memcpy(expected, x, n * sizeof *x);
        k->rope_rotate(got, 2, n / 2, n / 4, w);
        kernels_reference.rope_rotate(expected, 2, n / 2, n / 4, w);
        assert_same_floats("rope_rotate", got, expected, n);
        k->to_f16(half_got, x, n);
        kernels_reference.to_f16(half_expected, x, n);
        assert_memory_equal(half_got, half_expected, n * 2);
    }
}

static void norms_and_activations_are_the_reference_s(void **state)
{
    (void)state;
    for_each_set(check_vectors);
}

/*
 * Ordinary logits; few values, so that many are the largest; zeros of both signs and tiny values; sick ones; nothing
 * but -inf.
 */
static void check_logits(const struct kernels *k)
{
    for (uint32_t n = 1; n <= 300; n++) {
        for (uint32_t kind = 0; kind < 5; kind++) {
            float x[300], max_got, max_expected, temperature = random_below(3) ? 1.0f + random_float() * 0.9f : 0;
            uint32_t argmax_got, argmax_expected;
            double sum_got, sum_expected;
            fill_inputs(x, n, kind);
            for (uint32_t i = 0; i < n; i++)
                x[i] = kind == 4 ? -INFINITY : kind == 2 && random_below(2) ? -x[i] : x[i] * 20;
            if (kind == 3 && random_below(3) == 0)
                x[random_below(n)] = -INFINITY;
            k->measure(x, n, temperature, &max_got, &argmax_got, &sum_got);
            kernels_reference.measure(x, n, temperature, &max_expected, &argmax_expected, &sum_expected);
            assert_memory_equal(&max_got, &max_expected, sizeof max_got);
            assert_int_equal(argmax_got, argmax_expected);
            assert_memory_equal(&sum_got, &sum_expected, sizeof sum_got);
        }
    }
}

static void logits_are_measured_as_the_reference_does(void **state)
{
    (void)state;
    for_each_set(check_logits);
}

static void check_halves(const struct kernels *k)
{
    enum { COUNT = 65536 };
    uint16_t *half = allocate(COUNT * 2), *half_expected = allocate(COUNT * 2);
    float *x = allocate(COUNT * 4), *expected = allocate(COUNT * 4);
    for (uint32_t i = 0; i < COUNT; i++)
        half[i] = (uint16_t)i;
    k->from_f16(x, half, COUNT);
    kernels_reference.from_f16(expected, half, COUNT);
    assert_memory_equal(x, expected, COUNT * 4);
    /* Each half's neighbourhood: half way to the next, and one float to either side of that. */
    for (uint32_t delta = 0; delta < 6; delta++) {
        for (uint32_t i = 0; i < COUNT; i++)
            x[i] = f32_from_bits(f32_bits(expected[i]) + (delta < 3 ? 0x1000 : 0) + delta % 3 - 1);
        k->to_f16(half, x, COUNT);
        kernels_reference.to_f16(half_expected, x, COUNT);
        assert_memory_equal(half, half_expected, COUNT * 2);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        x[i] = f32_from_bits(random_bits());
    k->to_f16(half, x, COUNT);
    kernels_reference.to_f16(half_expected, x, COUNT);
    assert_memory_equal(half, half_expected, COUNT * 2);
    free(half);
    free(half_expected);
    free(x);
    free(expected);
}

static void half_precision_is_converted_alike(void **state)
{
    (void)state;
    for_each_set(check_halves);
}

static void half_precision_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        float x = f32_from_f16((uint16_t)i);
        if (isnan(x))
            continue;
        assert_int_equal(f16_from_f32(x), i);
    }
    assert_int_equal(f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(f16_from_f32(0x1p-25f), 0);
    assert_int_equal(f16_from_f32(0x1.000002p-25f), 1);
}

/* swiglu(-x, 1) is -x / (1 + exp(x)), which shows expf over its whole range where it is not absorbed by the 1. */
static void check_exp_sweep(const struct kernels *k)
{
    enum { COUNT = 4096 };
    uint64_t step = long_form() ? 7 : 4093;
    float x[COUNT], one[COUNT], got[COUNT], expected[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        one[i] = 1;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += step * COUNT) {
        for (uint32_t i = 0; i < COUNT; i++)
            x[i] = f32_from_bits((uint32_t)(bits + i * step));
        k->swiglu(got, x, one, COUNT);
        kernels_reference.swiglu(expected, x, one, COUNT);
        assert_same_floats("swiglu sweep", got, expected, COUNT);
    }
    /* the sum of (0, x) is 1 + exp(x) in double: the small results, subnormal ones too */
    for (uint32_t bits = 0x80000000; bits < 0xc2d80000; bits += long_form() ? 17 : 65537) {
        float two[2] = {0, f32_from_bits(bits)}, max;
        double got_sum, expected_sum;
        uint32_t argmax;
        k->measure(two, 2, 1, &max, &argmax, &got_sum);
        kernels_reference.measure(two, 2, 1, &max, &argmax, &expected_sum);
        assert_memory_equal(&got_sum, &expected_sum, sizeof got_sum);
    }
}

static void the_exponential_is_the_same_in_every_set(void **state)
{
    (void)state;
    for_each_set(check_exp_sweep);
}

static void the_exponential_is_right_to_two_units(void **state)
{
    (void)state;
    for (double x = -87; x < 88.7; x += 0.00137) {
        double expected = exp((double)(float)x), got = (double)kernel_expf((float)x);
        assert_true(fabs(got - expected) <= expected * 0x1p-22);
    }
    assert_true(kernel_expf(0) == 1.0f);
    assert_true(kernel_expf(-104.0f) == 0.0f && kernel_expf(-INFINITY) == 0.0f);
    assert_true(isinf(kernel_expf(88.8f)) && isinf(kernel_expf(INFINITY)));
    assert_true(isnan(kernel_expf(NAN)));
    assert_true(kernel_expf(-100.0f) > 0.0f && kernel_expf(-100.0f) < 0x1p-126f);
}

static void the_hyperbolic_tangent_is_close(void **state)
{
    (void)state;
    for (double x = -12; x < 12; x += 0.00131)
        assert_true(fabs((double)kernel_tanhf((float)x) - tanh((double)(float)x)) < 2e-7);
}

static void rotation_keeps_lengths_and_turns_pairs(void **state)
{
    (void)state;
    float x[8] = {1, 0, 0, 1, 5, 5, 3, 4}, cos_sin[4] = {0, 1, 0.6f, 0.8f};
    kernels_reference.rope_rotate(x, 2, 4, 2, cos_sin);
    const float expected[8] = {0, 1, -0.8f, 0.6f, -5, 5, 3 * 0.6f - 4 * 0.8f, 3 * 0.8f + 4 * 0.6f};
    for (int i = 0; i < 8; i++)
        assert_true(fabsf(x[i] - expected[i]) < 1e-6f);
}

static void gelu_is_its_formula(void **state)
{
    (void)state;
    for (int i = -3000; i <= 3000; i++) {
        float x = (float)i / 100.0f, got;
        kernels_reference.gelu(&got, &x, NULL, 1);
        double expected = 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * (double)x * x * x)));
        assert_true(fabs(got - expected) <= 1e-6 * (1.0 + fabs(expected)));
    }
}

static void layer_norm_and_soft_cap_are_their_formulas(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 100; n += 9) {
        float x[100], w[100], b[100], got[100];
        fill_inputs(x, n, 0);
        fill_inputs(w, n, 0);
        fill_inputs(b, n, 0);
        double mean = 0, variance = 0;
        for (uint32_t i = 0; i < n; i++)
            mean += (double)x[i] / n;
        for (uint32_t i = 0; i < n; i++)
            variance += (x[i] - mean) * (x[i] - mean) / n;
        layer_norm(got, x, w, b, n, 1e-5f);
        for (uint32_t i = 0; i < n; i++) {
            double expected = (x[i] - mean) / sqrt(variance + 1e-5) * w[i] + b[i];
            assert_true(fabs(got[i] - expected) <= 1e-4 * (1.0 + fabs(expected)));
        }
        for (uint32_t i = 0; i < n; i++)
            got[i] = 10.0f * x[i];
        soft_cap(got, n, 3.0f);
        for (uint32_t i = 0; i < n; i++)
            assert_true(fabs(got[i] - 3.0 * tanh(10.0 * (double)x[i] / 3.0)) <= 1e-5);
    }
}

int main(void)
{
    kernel_rig_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gelu_is_its_formula),
        cmocka_unit_test(layer_norm_and_soft_cap_are_their_formulas),
        cmocka_unit_test(norms_and_activations_are_the_reference_s),
        cmocka_unit_test(logits_are_measured_as_the_reference_does),
        cmocka_unit_test(half_precision_is_converted_alike),
        cmocka_unit_test(half_precision_survives_the_round_trip),
        cmocka_unit_test(the_exponential_is_the_same_in_every_set),
        cmocka_unit_test(the_exponential_is_right_to_two_units),
        cmocka_unit_test(the_hyperbolic_tangent_is_close),
        cmocka_unit_test(rotation_keeps_lengths_and_turns_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
