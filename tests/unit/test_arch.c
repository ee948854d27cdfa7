/*
 * The families of models: each against the goldens of an independent implementation, in float32 and quantised, and what their
 * files must not say. Bounds: tests/support/golden.h; that batches, ranks and kernel sets change no bit: test_forward.c.
 */
#include "model/arch.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/golden.h"

static void agrees_with_its_golden(void **state)
{
    golden_compare(*state);
}

#define GOLDEN(family, type, limit)                                                                       \
    {                                                                                                     \
        "tiny/" family "/model-" type ".gguf", "tiny/" family "/golden-" type ".json", .bounds = &(limit) \
    }

static struct golden goldens[] = {
    GOLDEN("mistral", "f32", with_float_weights),
    GOLDEN("qwen2", "f32", with_float_weights),
    GOLDEN("qwen2", "q8_0", with_8_bit_activations),
    GOLDEN("qwen2", "q4_0", with_8_bit_activations),
    GOLDEN("qwen3", "f32", with_float_weights),
    GOLDEN("qwen3", "q8_0", with_8_bit_activations),
    {"tiny/phi3/model-f32.gguf", "tiny/phi3/golden-f32.json", .bounds = &with_float_weights, .context = 256,
     .rope_factors = "short"},
    {"tiny/phi3/model-f32.gguf", "tiny/phi3/golden-f32.json", .bounds = &with_float_weights, .rope_factors = "long"},
    {"tiny/phi3/model-q4_0.gguf", "tiny/phi3/golden-q4_0.json", .bounds = &with_8_bit_activations, .context = 256,
     .rope_factors = "short"},
    GOLDEN("olmo2", "f32", with_float_weights),
    GOLDEN("gpt2", "f32", with_float_weights),
    GOLDEN("gpt2", "q8_0", with_8_bit_activations),
    GOLDEN("gemma2", "f32", with_float_weights),
    GOLDEN("gemma2", "q8_0", with_8_bit_activations),
    GOLDEN("gemma3", "f32", with_float_weights),
    GOLDEN("gemma3", "q8_0", with_8_bit_activations),
    GOLDEN("gemma3", "q4_0", with_8_bit_activations),
    GOLDEN("mixtral", "f32", with_float_weights),
    GOLDEN("qwen3moe", "f32", with_coarser_keys),
    /* Rounded activations send a token to another expert where two are nearly equal: the short prompt alone can be compared. */
    {"tiny/mixtral/model-q8_0.gguf", "tiny/mixtral/golden-q8_0.json", .bounds = &with_8_bit_activations,
     .max_tokens = 5},
    {"tiny/qwen3moe-k/model-q4_k_m.gguf", "tiny/qwen3moe-k/golden-q4_k_m.json", .bounds = &with_8_bit_activations,
     .max_tokens = 5},
};
/*
 * Quantised files with float activations: as close to the float reference of their weights as float files are, where what rounded
 * activations cost would hide a wrong scale or a code one off.
 */
#define WIDENED(family, type, limit)                                                                             \
    {                                                                                                            \
        "tiny/" family "/model-" type ".gguf", "tiny/" family "/golden-" type ".json", .bounds = &(limit),       \
                                                                                       .float_activations = true \
    }

static struct golden widened[] = {
    WIDENED("llama", "q8_0", with_float_weights),
    WIDENED("llama", "q4_0", with_float_weights),
    WIDENED("llama-k", "q8_0", with_float_weights),
    WIDENED("llama-k", "q4_0", with_float_weights),
    WIDENED("llama-k", "q4_1", with_float_weights),
    WIDENED("llama-k", "q5_0", with_float_weights),
    WIDENED("llama-k", "q5_1", with_float_weights),
    WIDENED("llama-k", "q2_k", with_float_weights),
    WIDENED("llama-k", "q3_k", with_float_weights),
    WIDENED("llama-k", "q3_k_m", with_float_weights),
    WIDENED("llama-k", "q4_k", with_float_weights),
    WIDENED("llama-k", "q4_k_m", with_float_weights),
    WIDENED("llama-k", "q5_k", with_float_weights),
    WIDENED("llama-k", "q5_k_m", with_float_weights),
    WIDENED("llama-k", "q6_k", with_float_weights),
    WIDENED("llama-k", "iq4_nl", with_float_weights),
    WIDENED("llama-k", "iq4_xs", with_float_weights),
    WIDENED("qwen2", "q8_0", with_coarser_keys),
    WIDENED("qwen2", "q4_0", with_float_weights),
    WIDENED("qwen3", "q8_0", with_float_weights),
    WIDENED("gpt2", "q8_0", with_float_weights),
    WIDENED("gemma2", "q8_0", with_float_weights),
    WIDENED("gemma3", "q8_0", with_float_weights),
    WIDENED("gemma3", "q4_0", with_float_weights),
    WIDENED("mixtral", "q8_0", with_float_weights),
    WIDENED("qwen3moe-k", "q4_k_m", with_coarser_keys),
    {"tiny/phi3/model-q4_0.gguf", "tiny/phi3/golden-q4_0.json", .bounds = &with_float_weights,
     .float_activations = true, .context = 256, .rope_factors = "short"},
    {"models/smollm2.gguf", "real/smollm2-135m-instruct-q4_1.json", .bounds = &of_a_real_model_in_floats,
     .float_activations = true, .max_tokens = 20},
};
enum { GOLDENS = sizeof goldens / sizeof *goldens, WIDENEDS = sizeof widened / sizeof *widened };

static void every_number_has_one_family_and_every_name_is_listed(void **state)
{
    (void)state;
    char known[256];
    arch_list(known, sizeof known);
    for (uint32_t id = ARCH_LLAMA; id <= ARCH_QWEN3MOE; id++) {
        const struct architecture *a = arch_numbered(id);
        assert_non_null(a);
        assert_int_equal(a->id, id);
        assert_non_null(strstr(known, a->name));
        assert_ptr_equal(arch_named((struct gguf_string){a->name, strlen(a->name)}, a->mixture), a);
    }
    assert_null(arch_numbered(0));
    assert_null(arch_named((struct gguf_string){"llam", 4}, false));
}

int main(void)
{
    struct CMUnitTest tests[GOLDENS + WIDENEDS + 1];
    for (uint32_t i = 0; i < GOLDENS; i++)
        tests[i] = (struct CMUnitTest){
            .name = goldens[i].model, .test_func = agrees_with_its_golden, .initial_state = &goldens[i]};
    for (uint32_t i = 0; i < WIDENEDS; i++)
        tests[GOLDENS + i] = (struct CMUnitTest){
            .name = widened[i].model, .test_func = agrees_with_its_golden, .initial_state = &widened[i]};
    tests[GOLDENS + WIDENEDS] =
        (struct CMUnitTest)cmocka_unit_test(every_number_has_one_family_and_every_name_is_listed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
