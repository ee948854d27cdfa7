/*
 * How keys and values lie in pages: what comes out of a slot is what went in, as near as the type can say it; and with pages of
 * each type the pass keeps its promises: no bit depends on ranks, cuts or kernel set, and goldens are met as nearly as the type allows.
 */
#include "model/kv_type.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/kernels/kernels.h"
#include "tests/support/golden.h"
#include "tests/support/model_rig.h"

enum { DIM = 64, SLOTS = KV_SLOTS };

static uint64_t random_state = 88172645463325252u; /* xorshift64: the same values every time */

static float random_value(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (float)(int32_t)(random_state >> 32) * 0x1p-29f;
}

/* The largest error that a type may make of x among values up to amax. */
static double allowed(enum kv_type type, double x, double amax)
{
    switch (type) {
    case KV_F16:
        return fabs(x) * 0x1p-11;
    case KV_BF16:
        return fabs(x) * 0x1p-8;
    case KV_Q8:
        return amax / 127 * 0.5 + amax * 0x1p-10; /* half a code, and the rounding of the scale */
    case KV_F32:
    case KV_TYPES:
        break;
    }
    return 0;
}

static void what_comes_out_of_a_slot_is_what_went_in_as_near_as_the_type_can_say(void **state)
{
    (void)state;
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        _Alignas(64) uint8_t k[SLOTS * DIM * 4], v[SLOTS * DIM * 4];
        float x[SLOTS][DIM];
        assert_true(kv_side_bytes(type, DIM) <= sizeof k);
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            for (uint32_t d = 0; d < DIM; d++)
                x[slot][d] = random_value() * (float)(1 + slot);
            kv_store_k(type, k, DIM, slot, 0, DIM, x[slot], kernels_reference.to_f16);
            kv_store_v(type, v, DIM, slot, 0, DIM, x[slot], kernels_reference.to_f16);
        }
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            for (uint32_t d = 0; d < DIM; d++) {
                double amax = 0, bound;
                for (uint32_t i = d / 16 * 16; i < d / 16 * 16 + 16; i++)
                    amax = fmax(amax, fabs((double)x[slot][i]));
                bound = allowed(type, (double)x[slot][d], amax);
                assert_true(fabs((double)kv_load_k(type, k, DIM, slot, d) - (double)x[slot][d]) <= bound);
                assert_true(fabs((double)kv_load_v(type, v, DIM, slot, d) - (double)x[slot][d]) <= bound);
            }
    }
}

static void a_position_that_comes_in_parts_of_a_tile_lies_as_one_that_comes_whole(void **state)
{
    (void)state;
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        _Alignas(64) uint8_t whole[2][SLOTS * DIM * 4] = {{0}}, parts[2][SLOTS * DIM * 4] = {{0}};
        float x[DIM];
        for (uint32_t d = 0; d < DIM; d++)
            x[d] = random_value();
        kv_store_k(type, whole[0], DIM, 5, 0, DIM, x, kernels_reference.to_f16);
        kv_store_v(type, whole[1], DIM, 5, 0, DIM, x, kernels_reference.to_f16);
        for (uint32_t d = 0; d < DIM; d += 16) {
            kv_store_k(type, parts[0], DIM, 5, d, 16, x + d, kernels_reference.to_f16);
            kv_store_v(type, parts[1], DIM, 5, d, 16, x + d, kernels_reference.to_f16);
        }
        assert_memory_equal(whole, parts, sizeof whole);
    }
}

static void zeros_and_what_is_not_finite_stay_what_they_are(void **state)
{
    (void)state;
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        _Alignas(64) uint8_t k[SLOTS * DIM * 4];
        float x[DIM] = {0};
        kv_store_k(type, k, DIM, 0, 0, DIM, x, kernels_reference.to_f16);
        assert_true(kv_load_k(type, k, DIM, 0, 3) == 0.0f);
        x[17] = NAN;
        kv_store_k(type, k, DIM, 0, 0, DIM, x, kernels_reference.to_f16);
        assert_true(isnan(kv_load_k(type, k, DIM, 0, 17)));
        assert_true(kv_load_k(type, k, DIM, 0, 3) == 0.0f);
        x[17] = INFINITY;
        kv_store_k(type, k, DIM, 0, 0, DIM, x, kernels_reference.to_f16);
        assert_true(!isfinite(kv_load_k(type, k, DIM, 0, 17)));
    }
}

static void names_are_those_of_the_option(void **state)
{
    (void)state;
    enum kv_type type;
    for (enum kv_type t = 0; t < KV_TYPES; t++)
        assert_true(kv_type_named(kv_type_name(t), &type) && type == t);
    assert_false(kv_type_named("q4", &type));
    assert_false(kv_type_named("", &type));
}

static void pages_are_as_large_as_their_type_needs(void **state)
{
    (void)state;
    static struct rig rig;
    if (!rig_open(&rig, "tiny/llama-k/model-q8_0.gguf", 0)) /* heads of 64 */
        skip();
    uint64_t f16 = model_page_bytes(&rig.m, 0);
    static const uint64_t halves[KV_TYPES] = {[KV_F16] = 32, [KV_BF16] = 32, [KV_F32] = 64, [KV_Q8] = 18};
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        assert_int_equal(model_set_kv_type(&rig.m, type, NULL), OK);
        assert_int_equal(model_check(&rig.m, NULL), OK);
        assert_int_equal(model_page_bytes(&rig.m, 0), f16 * halves[type] / 32);
    }
    rig.m.kv_type = KV_TYPES;
    assert_int_equal(model_check(&rig.m, NULL), ERR_FORMAT);
    rig_close(&rig);
}

static void heads_that_no_scale_fits_are_refused(void **state)
{
    (void)state;
    static struct rig rig;
    struct why why;
    if (!rig_open(&rig, "tiny/gpt2/model-q8_0.gguf", 0)) /* heads of 24 */
        skip();
    assert_int_equal(model_set_kv_type(&rig.m, KV_Q8, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "24"));
    assert_int_equal(rig.m.kv_type, KV_F16);
    assert_int_equal(model_set_kv_type(&rig.m, KV_F32, &why), OK);
    rig_close(&rig);
}

/* ---- the pass over such pages ---- */

enum { TOKENS = 70, CUT = 7 };

static float *logits_of(const struct rig *rig, const struct kernels *k, uint32_t ranks, uint32_t chunk,
                        const uint32_t *ids)
{
    float *logits = malloc((size_t)TOKENS * rig->m.vocab * sizeof *logits);
    assert_non_null(logits);
    struct engine e = engine_open(rig, k, ranks);
    struct sequence s = sequence_make(rig, ids, TOKENS);
    engine_feed(&e, &s, chunk, logits);
    sequence_free(&s);
    engine_close(&e);
    return logits;
}

static void no_bit_depends_on_kernels_ranks_or_cuts_with_pages_of_any_type(void **state)
{
    (void)state;
    static const char *const files[] = {"tiny/llama-k/model-q4_1.gguf", "tiny/gemma3/model-q8_0.gguf",
                                        "tiny/olmo2/model-f32.gguf", "tiny/gpt2/model-q8_0.gguf"};
    uint32_t sets, compared = 0;
    const struct kernels *const *set = kernels_runnable(&sets);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        static struct rig rig;
        uint32_t ids[TOKENS];
        if (!rig_open(&rig, files[i], 0))
            continue;
        for (uint32_t t = 0; t < TOKENS; t++)
            ids[t] = (13 * t + 5) % rig.m.vocab;
        for (enum kv_type type = 0; type < KV_TYPES; type++) {
            if (model_set_kv_type(&rig.m, type, NULL) != OK)
                continue;
            size_t bytes = (size_t)TOKENS * rig.m.vocab * sizeof(float);
            float *alone = logits_of(&rig, &kernels_reference, 1, TOKENS, ids);
            for (uint32_t k = 0; k < sets; k++, compared++) {
                float *cut = logits_of(&rig, set[k], 1 + (k + type) % 3, CUT, ids);
                assert_memory_equal(alone, cut, bytes);
                free(cut);
            }
            free(alone);
        }
        rig_close(&rig);
    }
    if (compared == 0)
        skip();
}

/* What was measured, doubled; with pages of f32 the golden itself is met. */
static const struct golden_bounds of_f32_pages = {.logit = 2e-4, .top_rms = 1e-4, .logprob = 2e-4, .greedy_gap = 1e-3};
static const struct golden_bounds of_bf16_pages = {.logit = 0.1, .top_rms = 0.03, .logprob = 0.13, .greedy_gap = 0.01};
static const struct golden_bounds of_q8_pages = {.logit = 0.3, .top_rms = 0.065, .logprob = 0.26, .greedy_gap = 0.11};

static void goldens_are_met_as_nearly_as_the_type_of_the_pages_allows(void **state)
{
    (void)state;
    static const char *const models[][2] = {{"tiny/llama/model-f32.gguf", "tiny/llama/golden-f32.json"},
                                            {"tiny/gemma3/model-f32.gguf", "tiny/gemma3/golden-f32.json"},
                                            {"tiny/qwen3/model-f32.gguf", "tiny/qwen3/golden-f32.json"}};
    static const struct golden_bounds *const bounds[KV_TYPES] = {
        [KV_F16] = &with_float_weights, [KV_BF16] = &of_bf16_pages, [KV_F32] = &of_f32_pages, [KV_Q8] = &of_q8_pages};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (enum kv_type type = 0; type < KV_TYPES; type++)
            golden_compare(&(struct golden){models[i][0], models[i][1], .bounds = bounds[type], .kv_type = type});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_out_of_a_slot_is_what_went_in_as_near_as_the_type_can_say),
        cmocka_unit_test(a_position_that_comes_in_parts_of_a_tile_lies_as_one_that_comes_whole),
        cmocka_unit_test(zeros_and_what_is_not_finite_stay_what_they_are),
        cmocka_unit_test(names_are_those_of_the_option),
        cmocka_unit_test(pages_are_as_large_as_their_type_needs),
        cmocka_unit_test(heads_that_no_scale_fits_are_refused),
        cmocka_unit_test(no_bit_depends_on_kernels_ranks_or_cuts_with_pages_of_any_type),
        cmocka_unit_test(goldens_are_met_as_nearly_as_the_type_of_the_pages_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
