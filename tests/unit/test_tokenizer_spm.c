/* SentencePiece-style merging gives the ids of the models' own tokenizers, loses no byte quickly too. */
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

VOCABULARY_TEST(llama_spm_agrees, "llama-spm")
VOCABULARY_TEST(phi_3_agrees, "phi-3")
RANDOM_TEST(random_texts_agree_with_gemma_3, "models/gemma3.gguf", "gemma3")
RANDOM_TEST(random_texts_agree_with_llama_spm, "tokenizers/ggml-vocab-llama-spm.gguf", "ggml-vocab-llama-spm")

static void any_bytes_come_back_behind_a_space(void **state)
{
    (void)state;
    vectors_check_any_bytes_come_back("tokenizers/ggml-vocab-llama-spm.gguf", 1);
}

static void a_mebibyte_of_one_letter_takes_no_quadratic_time(void **state)
{
    (void)state;
    vectors_check_long_runs("tokenizers/ggml-vocab-llama-spm.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_spm_agrees),
        cmocka_unit_test(phi_3_agrees),
        cmocka_unit_test(random_texts_agree_with_gemma_3),
        cmocka_unit_test(random_texts_agree_with_llama_spm),
        cmocka_unit_test(any_bytes_come_back_behind_a_space),
        cmocka_unit_test(a_mebibyte_of_one_letter_takes_no_quadratic_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
