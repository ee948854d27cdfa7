/* Byte-level BPE gives the ids of the models' own tokenizers, loses no byte and takes long words in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/vectors.h"

#define VOCABULARY_TEST(test, name)     \
    static void test(void **state)      \
    {                                   \
        (void)state;                    \
        vectors_check_vocabulary(name); \
    }
#define RANDOM_TEST(test, model, name)                                  \
    static void test(void **state)                                      \
    {                                                                   \
        (void)state;                                                    \
        vectors_check_random(model, "tokenizers/random-" name ".json"); \
    }

VOCABULARY_TEST(gpt_2_agrees, "gpt-2")
VOCABULARY_TEST(llama_bpe_agrees, "llama-bpe")
VOCABULARY_TEST(qwen2_agrees, "qwen2")
VOCABULARY_TEST(deepseek_llm_agrees, "deepseek-llm")
VOCABULARY_TEST(falcon_agrees, "falcon")
VOCABULARY_TEST(starcoder_agrees, "starcoder")
VOCABULARY_TEST(command_r_agrees, "command-r")
RANDOM_TEST(random_texts_agree_with_smollm2, "models/smollm2.gguf", "smollm2")
RANDOM_TEST(random_texts_agree_with_gpt_2, "tokenizers/ggml-vocab-gpt-2.gguf", "ggml-vocab-gpt-2")
RANDOM_TEST(random_texts_agree_with_llama_bpe, "tokenizers/ggml-vocab-llama-bpe.gguf", "ggml-vocab-llama-bpe")
RANDOM_TEST(random_texts_agree_with_qwen2, "tokenizers/ggml-vocab-qwen2.gguf", "ggml-vocab-qwen2")

static void any_bytes_come_back(void **state)
{
    (void)state;
    vectors_check_any_bytes_come_back("tokenizers/ggml-vocab-gpt-2.gguf", 0);
}

static void a_mebibyte_of_one_letter_takes_no_quadratic_time(void **state)
{
    (void)state;
    vectors_check_long_runs("tokenizers/ggml-vocab-llama-bpe.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt_2_agrees),
        cmocka_unit_test(llama_bpe_agrees),
        cmocka_unit_test(qwen2_agrees),
        cmocka_unit_test(deepseek_llm_agrees),
        cmocka_unit_test(falcon_agrees),
        cmocka_unit_test(starcoder_agrees),
        cmocka_unit_test(command_r_agrees),
        cmocka_unit_test(random_texts_agree_with_smollm2),
        cmocka_unit_test(random_texts_agree_with_gpt_2),
        cmocka_unit_test(random_texts_agree_with_llama_bpe),
        cmocka_unit_test(random_texts_agree_with_qwen2),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(a_mebibyte_of_one_letter_takes_no_quadratic_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
