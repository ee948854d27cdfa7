/* Tables of rotation: what the numbers of a file make of an angle. The lists of longrope: tests/unit/test_arch.c. */
#include "model/rope_tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/small_llama.h"

static struct model plan; /* too large for the stack */

static void rope_table_at(struct bend bend, uint32_t position, double angle)
{
    struct file f = small_llama(&bend);
    struct gguf *g = small_llama_planned(&f, &plan);
    uint8_t *weights = aligned_alloc(4096, plan.weights_bytes);
    assert_non_null(weights);
    assert_int_equal(model_build(&plan, g, weights, 0, 1, NULL, NULL, NULL), OK);
    const float *table = model_vector(&plan.rope, weights) + (size_t)position * plan.rope_pairs * 2;
    assert_true(table[0] == (float)cos(angle));
    assert_true(table[1] == (float)sin(angle));
    free(weights);
    gguf_close(g);
}

static void rope_scaling_slows_the_rotation(void **state)
{
    (void)state;
    rope_table_at((struct bend){0}, 0, 0.0);
    rope_table_at((struct bend){0}, 30, 30.0);
    rope_table_at((struct bend){.real_key = "llama.rope.scale_linear", .real = 4.0f}, 30, 7.5);
    rope_table_at((struct bend){.rope_freqs = (const float[]){8.0f}}, 30, 3.75);
}

static void a_share_of_the_rows_is_that_part_of_the_whole(void **state)
{
    enum { PAIRS = 3, POSITIONS = 50 };
    static const struct model m = {.rope_pairs = PAIRS, .rope_magnitude = 1.25f};
    const float slower[PAIRS] = {1.0f, 2.0f, 32.0f};
    const struct gguf_tensor factors = {.data = (const uint8_t *)slower};
    float whole[POSITIONS][PAIRS][2], part[7][PAIRS][2];
    (void)state;
    rope_table_rows(&m, 10000.0, 2.0, &factors, 0, POSITIONS, &whole[0][0][0]);
    rope_table_rows(&m, 10000.0, 2.0, &factors, 31, 38, &part[0][0][0]);
    assert_memory_equal(part, whole[31], sizeof part);
    double angle = 31.0 * pow(10000.0, -1.0 / PAIRS) / 2.0 / 2.0;
    assert_true(fabs((double)part[0][1][0] - 1.25 * cos(angle)) < 1e-6);
    assert_true(fabs((double)part[0][1][1] - 1.25 * sin(angle)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_scaling_slows_the_rotation),
        cmocka_unit_test(a_share_of_the_rows_is_that_part_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
