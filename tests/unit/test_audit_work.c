/* What an audit holds times against: counted here once more from the fixture's known shape. */
#include "coordinator/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/model_rig.h"

enum { PROMPT = 40, BATCH = 2, STEPS = 3 };

/* Llama of 2 layers, 256 / 256, 4 heads of 64 over 2 kv heads, a vocabulary of 512. */
enum { LAYERS = 2, DIM = 256, FFN = 256, HEADS = 4, KV_HEADS = 2, HEAD = 64, VOCAB = 512, Q8_TILE = 544 };

static const struct audit_plan plan = {.prompt = PROMPT, .batch = BATCH, .gen = STEPS, .repeat = 1};

static void assert_number(double got, double expected)
{
    assert_true(got == expected); /* whole numbers, all of them exact */
}

static double weight_bytes(double rows, double cols)
{
    return rows / 16 * cols / 32 * Q8_TILE;
}

static void a_prompt_reads_every_matrix_once_a_step_and_multiplies_for_every_token(void **state)
{
    (void)state;
    static struct rig rig;
    struct audit_result run = {.tokens = PROMPT};
    if (!rig_open(&rig, "tiny/llama-k/model-q8_0.gguf", 0))
        skip();
    audit_count_work(&plan, &rig.m, false, 1, &run);
    assert_number(run.work[AUDIT_QKV].int8_macs, (double)PROMPT * LAYERS * DIM * HEAD * (HEADS + 2 * KV_HEADS));
    assert_number(run.work[AUDIT_QKV].bytes, LAYERS * weight_bytes(HEAD * (HEADS + 2 * KV_HEADS), DIM));
    assert_number(run.work[AUDIT_OUTPUT].int8_macs, (double)PROMPT * LAYERS * DIM * HEADS * HEAD);
    assert_number(run.work[AUDIT_MLP].int8_macs, (double)PROMPT * LAYERS * 3 * DIM * FFN);
    assert_number(run.work[AUDIT_MLP].bytes, LAYERS * 3 * weight_bytes(FFN, DIM));
    assert_number(run.work[AUDIT_HEAD].int8_macs, (double)DIM * VOCAB); /* of the last token */
    double seen = PROMPT * (PROMPT + 1) / 2.0;
    assert_number(run.work[AUDIT_SCORES].f32_macs, seen * LAYERS * HEADS * HEAD);
    assert_number(run.work[AUDIT_VALUES].f32_macs, seen * LAYERS * HEADS * HEAD);
    assert_number(run.work[AUDIT_SCORES].bytes, (double)PROMPT * LAYERS * KV_HEADS * HEAD * 2);
    rig_close(&rig);
}

static void a_decode_reads_them_once_a_step_for_all_sequences(void **state)
{
    (void)state;
    static struct rig rig;
    struct audit_result run = {.tokens = STEPS * BATCH};
    if (!rig_open(&rig, "tiny/llama-k/model-q8_0.gguf", 0))
        skip();
    audit_count_work(&plan, &rig.m, true, STEPS, &run);
    assert_number(run.work[AUDIT_MLP].bytes, STEPS * LAYERS * 3 * weight_bytes(FFN, DIM));
    assert_number(run.work[AUDIT_MLP].int8_macs, (double)STEPS * BATCH * LAYERS * 3 * DIM * FFN);
    assert_number(run.work[AUDIT_HEAD].bytes, STEPS * weight_bytes(VOCAB, DIM));
    double seen = BATCH * (41.0 + 42.0 + 43.0);
    assert_number(run.work[AUDIT_SCORES].f32_macs, seen * LAYERS * HEADS * HEAD);
    assert_number(run.work[AUDIT_VALUES].bytes, seen * LAYERS * KV_HEADS * HEAD * 2);
    rig_close(&rig);
}

static void a_window_bounds_what_attention_has_to_do(void **state)
{
    (void)state;
    static struct rig rig;
    struct audit_result run = {.tokens = PROMPT};
    if (!rig_open(&rig, "tiny/gemma3/model-f32.gguf",
                  0)) /* six layers see 32 positions, one sees all; heads: 4 of 32 */
        skip();
    audit_count_work(&plan, &rig.m, false, 1, &run);
    double all = PROMPT * (PROMPT + 1) / 2.0, windowed = 32 * 33 / 2.0 + (PROMPT - 32) * 32.0;
    assert_number(run.work[AUDIT_SCORES].f32_macs, (6 * windowed + all) * 4 * 32);
    assert_number(run.work[AUDIT_QKV].int8_macs, 0); /* float weights */
    assert_true(run.work[AUDIT_QKV].f32_macs > 0);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_reads_every_matrix_once_a_step_and_multiplies_for_every_token),
        cmocka_unit_test(a_decode_reads_them_once_a_step_for_all_sequences),
        cmocka_unit_test(a_window_bounds_what_attention_has_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
