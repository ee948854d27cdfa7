/*
 * What -m names as one view: quantised while loading or by converting gives the same bytes and the goldens, a saved file is the same model,
 * overrides change what they name and nothing that contradicts a tensor.
 */
#include "model/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/model.h"
#include "model/quantize.h"
#include "model/tensor_rows.h"
#include "model/tiles.h"
#include "model/tokenizer.h"
#include "tests/support/model_rig.h"

static struct gguf *opened(const char *name, const char *quantize, const char *overrides)
{
    char path[512];
    struct gguf *g;
    struct why why;
    const struct model_file_options options = {.quantize = quantize, .overrides = overrides};
    if (!rig_find(name, path)) {
        print_message("%s is not there\n", path);
        skip();
    }
    if (model_file_open(&g, path, &options, &why) != OK)
        fail_msg("%s", why.text);
    return g;
}

static void refused(const char *name, const char *quantize, const char *overrides, const char *words)
{
    static struct model plan;
    char path[512];
    struct gguf *g;
    struct why why;
    const struct model_file_options options = {.quantize = quantize, .overrides = overrides};
    if (!rig_find(name, path))
        skip();
    enum err err = model_file_open(&g, path, &options, &why);
    if (err == OK) {
        err = model_plan(&plan, g, path, 0, &why);
        gguf_close(g);
    }
    if (err == OK)
        fail_msg("\"%s\" should have been refused with \"%s\"", overrides, words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

/* ---- weights as they are built ---- */

static struct model first_plan, second_plan;

static uint8_t *built(const struct gguf *g, struct model *m)
{
    struct why why;
    if (model_plan(m, g, "m", 0, &why) != OK)
        fail_msg("%s", why.text);
    uint8_t *weights = aligned_alloc(4096, m->weights_bytes);
    assert_non_null(weights);
    memset(weights, 0, m->weights_bytes);
    for (uint32_t rank = 0; rank < 3; rank++)
        if (model_build(m, g, weights, rank, 3, NULL, NULL, &why) != OK)
            fail_msg("%s", why.text);
    return weights;
}

static void same_weights(const struct gguf *a, const struct gguf *b)
{
    uint8_t *x = built(a, &first_plan), *y = built(b, &second_plan);
    assert_true(first_plan.weights_bytes == second_plan.weights_bytes);
    assert_memory_equal(&first_plan.embed, &second_plan.embed, sizeof first_plan - offsetof(struct model, embed));
    assert_memory_equal(x, y, first_plan.weights_bytes);
    free(x);
    free(y);
}

/* ---- saving ---- */

static void path_for(char path[64])
{
    snprintf(path, 64, "/tmp/quire-test-model-file-%d.gguf", (int)getpid());
}

static void saved_and_loaded_again(const char *name, const char *quantize, const char *overrides)
{
    char path[64];
    struct gguf *g = opened(name, quantize, overrides), *again = NULL;
    struct why why;
    path_for(path);
    if (model_file_save(g, path, &why) != OK || gguf_open(&again, path, &why) != OK)
        fail_msg("%s", why.text);
    unlink(path);
    same_weights(g, again);
    struct tokenizer *a, *b;
    assert_int_equal(tokenizer_open(&a, g, &why), OK);
    assert_int_equal(tokenizer_open(&b, again, &why), OK);
    assert_int_equal(tokenizer_vocab_size(a), tokenizer_vocab_size(b));
    assert_int_equal(tokenizer_eos(a), tokenizer_eos(b));
    tokenizer_close(a);
    tokenizer_close(b);
    gguf_close(g);
    gguf_close(again);
}

static void a_saved_file_builds_the_same_weights_as_what_it_was_made_of(void **state)
{
    static const char *const names[] = {"tiny/llama/hf",  "tiny/llama/hf-bf16-sharded", "tiny/mistral/hf",
                                        "tiny/gemma3/hf", "tiny/gpt2/hf-hubnames",      "tiny/qwen2/model-f32.gguf"};
    static const char *const types[] = {"", "q8_0", "q4_0", "q4_k"};
    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            saved_and_loaded_again(names[n], types[t], "");
    saved_and_loaded_again("tiny/llama-k/model-f16.gguf", "q4_k", "rope.freq_base=5000");
}

static void a_directory_builds_the_weights_of_the_converters_file(void **state)
{
    (void)state;
    struct gguf *ours = opened("tiny/llama/hf", "", ""), *theirs = opened("tiny/llama/model-f32.gguf", "", "");
    same_weights(ours, theirs);
    gguf_close(ours);
    gguf_close(theirs);
    ours = opened("tiny/gpt2/hf", "q8_0", "");
    theirs = opened("tiny/gpt2/model-f32.gguf", "q8_0", "");
    same_weights(ours, theirs);
    gguf_close(ours);
    gguf_close(theirs);
}

static void where_a_file_cannot_be_written_nothing_is_left(void **state)
{
    struct gguf *g = opened("tiny/gpt2/hf", "", "");
    struct why why;
    (void)state;
    assert_int_equal(model_file_save(g, "/nowhere/m.gguf", &why), ERR_IO);
    assert_non_null(strstr(why.text, "could not create \"/nowhere/m.gguf"));
    char folder[] = "/tmp/quire-test-model-file-XXXXXX"; /* a directory is in the way */
    assert_non_null(mkdtemp(folder));
    assert_int_equal(model_file_save(g, folder, &why), ERR_IO);
    assert_non_null(strstr(why.text, "could not put the finished file"));
    char part[128];
    snprintf(part, sizeof part, "%s.%d.part", folder, (int)getpid());
    assert_int_not_equal(access(part, F_OK), 0);
    assert_int_equal(rmdir(folder), 0);
    gguf_close(g);
}

/* ---- quantising ---- */

static enum tensor_type type_in(const struct gguf *g, const char *name)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    assert_non_null(t);
    return t->type;
}

static void matrices_of_products_are_quantised_and_nothing_else_is(void **state)
{
    (void)state;
    struct gguf *g = opened("tiny/gpt2/hf", "q4_0", "");
    assert_int_equal(type_in(g, "blk.0.attn_qkv.weight"), TENSOR_Q4_0);
    assert_int_equal(type_in(g, "token_embd.weight"), TENSOR_Q4_0);
    assert_int_equal(type_in(g, "position_embd.weight"), TENSOR_F32);
    assert_int_equal(type_in(g, "blk.0.attn_norm.weight"), TENSOR_F32);
    assert_int_equal(type_in(g, "blk.0.attn_qkv.bias"), TENSOR_F32);
    gguf_close(g);
    g = opened("tiny/qwen3moe/model-f32.gguf", "q8_0", "");
    assert_int_equal(type_in(g, "blk.0.ffn_gate_exps.weight"), TENSOR_Q8_0);
    assert_int_equal(type_in(g, "blk.0.ffn_gate_inp.weight"), TENSOR_F32);
    gguf_close(g);
    g = opened("tiny/llama-k/model-f16.gguf", "q4_k", "");
    assert_int_equal(type_in(g, "blk.0.ffn_down.weight"), TENSOR_Q4_K);
    gguf_close(g);
    g = opened("tiny/llama/hf", "q4_k", ""); /* rows of 128 and 192 are no blocks of 256 */
    assert_int_equal(type_in(g, "blk.0.ffn_down.weight"), TENSOR_Q8_0);
    gguf_close(g);
    g = opened("tiny/llama/model-q4_0.gguf", "q8_0", ""); /* what is quantised stays */
    assert_int_equal(type_in(g, "blk.0.ffn_down.weight"), TENSOR_Q4_0);
    gguf_close(g);
    refused("tiny/llama/hf", "q3_k", "", "weights cannot be made \"q3_k\"");
}

/* The numbers that a tensor stands for; the caller frees. */
static float *numbers_of(const struct gguf *g, const char *name, uint64_t *count)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    assert_non_null(t);
    *count = t->extent[0] * t->extent[1];
    uint8_t *blocks = malloc(t->bytes);
    float *numbers = malloc(*count * sizeof *numbers);
    assert_true(blocks && numbers);
    assert_int_equal(tensor_rows_read(t, 0, NULL, (uint32_t)t->extent[1], blocks, NULL), OK);
    blocks_to_float(t->type, blocks, *count, numbers);
    free(blocks);
    return numbers;
}

/* Root of the squares of x, or, where y is not NULL, of their differences. */
static double root_of(const float *x, const float *y, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += pow((double)x[i] - (y ? (double)y[i] : 0), 2);
    return sqrt(sum);
}

/* Relative error of a whole matrix. */
static double error_of(const char *quantize)
{
    uint64_t count;
    struct gguf *g = opened("tiny/llama-k/model-f16.gguf", quantize, ""),
                *plain = opened("tiny/llama-k/model-f16.gguf", "", "");
    float *x = numbers_of(g, "blk.0.ffn_down.weight", &count), *y = numbers_of(plain, "blk.0.ffn_down.weight", &count);
    double error = root_of(x, y, count) / root_of(y, NULL, count);
    free(x);
    free(y);
    gguf_close(g);
    gguf_close(plain);
    return error;
}

static void q4_k_is_closer_than_q4_0_and_q8_0_than_both(void **state)
{
    (void)state;
    double q8_0 = error_of("q8_0"), q4_0 = error_of("q4_0"), q4_k = error_of("q4_k");
    print_message("relative error: q8_0 %.4f, q4_0 %.4f, q4_k %.4f\n", q8_0, q4_0, q4_k);
    assert_true(q8_0 < 0.01);
    assert_true(q4_k < 0.9 * q4_0);
    assert_true(q4_0 < 0.12);
}

/* The same weights as llama.cpp quantised them: as near in sum, and nowhere far. */
static void q4_k_is_in_every_block_about_as_near_as_another_programs(void **state)
{
    enum { BLOCK = 256 };
    (void)state;
    struct gguf *plain = opened("tiny/llama-k/model-f16.gguf", "", "");
    struct gguf *ours = opened("tiny/llama-k/model-f16.gguf", "q4_k", "");
    struct gguf *theirs = opened("tiny/llama-k/model-q4_k.gguf", "", "");
    double sum_ours = 0, sum_theirs = 0, worst = 0, worst_ratio = 0;
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < gguf_tensor_count(theirs); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(theirs, i);
        if (t->type != TENSOR_Q4_K)
            continue;
        char name[64];
        uint64_t count;
        snprintf(name, sizeof name, "%.*s", (int)t->name.length, t->name.at);
        assert_int_equal(type_in(ours, name), TENSOR_Q4_K);
        float *x = numbers_of(plain, name, &count), *a = numbers_of(ours, name, &count),
              *b = numbers_of(theirs, name, &count);
        for (uint64_t at = 0; at < count; at += BLOCK, blocks++) {
            double size = root_of(x + at, NULL, BLOCK), off = root_of(a + at, x + at, BLOCK);
            double their_off = root_of(b + at, x + at, BLOCK);
            sum_ours += off * off;
            sum_theirs += their_off * their_off;
            worst = fmax(worst, off / size);
            worst_ratio = fmax(worst_ratio, off / their_off);
        }
        free(x);
        free(a);
        free(b);
    }
    print_message("%u blocks: error %.4f of llama.cpp's, at most %.4f of a block and %.3f times llama.cpp's\n", blocks,
                  sqrt(sum_ours / sum_theirs), worst, worst_ratio);
    assert_true(blocks > 1000);
    assert_true(sqrt(sum_ours / sum_theirs) < 1.01);
    assert_true(worst < 0.1 && worst_ratio < 1.1);
    gguf_close(plain);
    gguf_close(ours);
    gguf_close(theirs);
}

/* ---- overrides ---- */

static void an_override_changes_what_it_names_and_the_hash(void **state)
{
    static struct model plan;
    struct gguf *plain = opened("tiny/llama/hf", "", ""),
                *g = opened("tiny/llama/hf", "", "context_length=64,rope.freq_base=123");
    struct why why;
    (void)state;
    if (model_plan(&plan, g, "m", 0, &why) != OK)
        fail_msg("%s", why.text);
    assert_true(plan.context == 64 && plan.rope_base == 123.0f);
    assert_true(gguf_hash(g) != gguf_hash(plain));
    gguf_close(g);
    gguf_close(plain);
    char path[512];
    assert_true(rig_find("tiny/llama/hf", path));
    const struct model_file_options for_worker = {.overrides = "context_length=64,rope.freq_base=123",
                                                  .part = HUB_WEIGHTS};
    struct gguf *weights;
    g = opened("tiny/llama/hf", "", for_worker.overrides);
    assert_int_equal(model_file_open(&weights, path, &for_worker, &why), OK);
    assert_true(gguf_hash(g) == gguf_hash(weights));
    gguf_close(g);
    gguf_close(weights);
}

static void what_contradicts_a_tensor_is_refused(void **state)
{
    (void)state;
    refused("tiny/llama/hf", "", "embedding_length=64", "the file's own numbers ask for");
    refused("tiny/llama/hf", "", "attention.head_count=8", "the file's own numbers ask for");
    refused("tiny/llama/model-f32.gguf", "", "feed_forward_length=100", "the file's own numbers ask for");
    refused("tiny/gpt2/hf", "", "context_length=1024", "position_embd.weight");
    refused("tiny/llama/hf", "", "block_count=2", "tensor \"blk.2.");
    refused("tiny/llama/hf", "", "block_count=4", "lacks the tensor \"blk.3.");
    refused("tiny/llama/hf", "", "sliding_window=4", "no key of a llama model");
    refused("tiny/llama/hf", "", "attention.layer_norm_rms_epsilon=7", "epsilon of the norms");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_saved_file_builds_the_same_weights_as_what_it_was_made_of),
        cmocka_unit_test(a_directory_builds_the_weights_of_the_converters_file),
        cmocka_unit_test(where_a_file_cannot_be_written_nothing_is_left),
        cmocka_unit_test(matrices_of_products_are_quantised_and_nothing_else_is),
        cmocka_unit_test(q4_k_is_closer_than_q4_0_and_q8_0_than_both),
        cmocka_unit_test(q4_k_is_in_every_block_about_as_near_as_another_programs),
        cmocka_unit_test(an_override_changes_what_it_names_and_the_hash),
        cmocka_unit_test(what_contradicts_a_tensor_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
