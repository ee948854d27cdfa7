/* Weights blocks: shares of any number make the same one, and every weight stands in it where the plan says. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/model_rig.h"
#include "tests/support/small_llama.h"

static struct model plan; /* too large for the stack */

static void count_progress(void *arg, uint64_t done, uint64_t total)
{
    uint64_t *last = arg;
    assert_true(done > last[0] && done <= total);
    last[0] = done;
    last[1] = total;
}

static void shares_of_any_number_build_the_same_block(void **state)
{
    (void)state;
    static struct rig rig;
    if (!rig_open(&rig, "tiny/llama/model-q4_0.gguf", 0))
        skip();
    const uint32_t numbers[] = {1, 2, 3, 5, 64};
    uint8_t *parts = aligned_alloc(64, rig.m.weights_bytes);
    assert_non_null(parts);
    memset(rig.weights, 0, rig.m.weights_bytes);
    assert_int_equal(model_build(&rig.m, rig.g, rig.weights, 0, 1, NULL, NULL, NULL), OK);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        memset(parts, 0, rig.m.weights_bytes);
        for (uint32_t rank = numbers[i]; rank-- > 0;) {
            uint64_t progress[2] = {0, 0};
            assert_int_equal(model_build(&rig.m, rig.g, parts, rank, numbers[i], count_progress, progress, NULL), OK);
            assert_true(progress[0] == progress[1]);
        }
        assert_memory_equal(parts, rig.weights, rig.m.weights_bytes);
        assert_int_equal(model_build(&rig.m, rig.g, parts, 0, numbers[i], NULL, NULL, NULL),
                         OK); /* again: a worker died and its share is repeated */
        assert_memory_equal(parts, rig.weights, rig.m.weights_bytes);
    }
    free(parts);
    rig_close(&rig);
}

static void every_weight_stands_where_the_plan_says(void **state)
{
    (void)state;
    static struct rig rig;
    if (!rig_open(&rig, "tiny/llama/model-q8_0.gguf", 0))
        skip();
    float *expected = malloc(rig.m.dim * sizeof *expected), *row = malloc(rig.m.dim * sizeof *row);
    assert_true(expected && row);
    const struct gguf_tensor *t = gguf_tensor_find(rig.g, "blk.2.attn_k.weight");
    struct tile_matrix k = model_matrix(&rig.m.layer[2].k, rig.weights);
    for (uint32_t r = 0; r < k.rows; r++) {
        blocks_to_float(t->type, t->data + t->bytes / k.rows * r, rig.m.dim, expected);
        tiles_row(&k, r, row);
        assert_memory_equal(row, expected, rig.m.dim * sizeof *row);
    }
    t = gguf_tensor_find(rig.g, "blk.1.ffn_norm.weight");
    assert_memory_equal(model_vector(&rig.m.layer[1].ffn_norm, rig.weights), t->data, rig.m.dim * sizeof *row);
    free(expected);
    free(row);
    rig_close(&rig);
}

static void file_that_changed_since_its_plan_is_not_built(void **state)
{
    (void)state;
    struct file f = small_llama(&(struct bend){0});
    struct gguf *g = small_llama_planned(&f, &plan);
    struct file other = small_llama(&(struct bend){.text_key = "general.name", .text = "another"});
    struct gguf *changed;
    struct why why;
    assert_int_equal(gguf_open_memory(&changed, other.bytes, other.length, "m.gguf", &why), OK);
    uint8_t *weights = aligned_alloc(4096, plan.weights_bytes);
    assert_non_null(weights);
    assert_int_equal(model_build(&plan, changed, weights, 0, 1, NULL, NULL, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "has changed"));
    free(weights);
    gguf_close(changed);
    gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_of_any_number_build_the_same_block),
        cmocka_unit_test(every_weight_stands_where_the_plan_says),
        cmocka_unit_test(file_that_changed_since_its_plan_is_not_built),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
