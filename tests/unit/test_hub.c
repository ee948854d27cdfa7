/*
 * Directories of a model hub: against the goldens of an independent implementation, against the GGUF files that llama.cpp's converter made
 * of the same weights, and refused by name where they are not what they say.
 */
#include "model/hub.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/tensor_rows.h"
#include "model/tokenizer.h"
#include "tests/support/golden.h"
#include "tests/support/model_rig.h"

static void agrees_with_its_golden(void **state)
{
    golden_compare(*state);
}

static struct golden goldens[] = {
    {"tiny/llama/hf", "tiny/llama/golden-hf.json", .bounds = &with_float_weights},
    {"tiny/llama/hf-bf16-sharded", "tiny/llama/golden-hf-bf16.json", .bounds = &with_float_weights},
    {"tiny/mistral/hf", "tiny/mistral/golden-hf.json", .bounds = &with_float_weights},
    {"tiny/gemma3/hf", "tiny/gemma3/golden-hf.json", .bounds = &with_float_weights},
    {"tiny/gpt2/hf", "tiny/gpt2/golden-hf.json", .bounds = &with_float_weights},
    {"tiny/gpt2/hf-hubnames", "tiny/gpt2/golden-hf.json", .bounds = &with_float_weights},
    /* quantised while loading, against the goldens of files that another program quantised */
    {"tiny/llama/hf", "tiny/llama/golden-q8_0.json", .quantize = "q8_0", .bounds = &with_8_bit_activations},
    {"tiny/llama/hf", "tiny/llama/golden-q4_0.json", .quantize = "q4_0", .bounds = &with_8_bit_activations},
    {"tiny/gemma3/hf", "tiny/gemma3/golden-q8_0.json", .quantize = "q8_0", .bounds = &with_8_bit_activations},
    {"tiny/gemma3/hf", "tiny/gemma3/golden-q4_0.json", .quantize = "q4_0", .bounds = &with_8_bit_activations},
    {"tiny/gpt2/hf", "tiny/gpt2/golden-q8_0.json", .quantize = "q8_0", .bounds = &with_8_bit_activations},
};
enum { GOLDENS = sizeof goldens / sizeof *goldens };

static struct gguf *open_hub(const char *name, enum hub_part part)
{
    char path[512];
    struct gguf *g;
    struct why why;
    if (!rig_find(name, path)) {
        print_message("%s is not there\n", path);
        skip();
    }
    if (hub_open(&g, path, part, &why) != OK)
        fail_msg("%s", why.text);
    return g;
}

/* ---- the same tensors as a converter makes ---- */

static float *rows_of(const struct gguf_tensor *t)
{
    assert_int_equal(t->type, TENSOR_F32);
    float *numbers = malloc(t->bytes);
    assert_non_null(numbers);
    assert_int_equal(tensor_rows_read(t, 0, NULL, (uint32_t)tensor_row_count(t), (uint8_t *)numbers, NULL), OK);
    return numbers;
}

static void compare_tensor(const struct gguf_tensor *ours, const struct gguf_tensor *theirs)
{
    if (!theirs)
        fail_msg("%.*s is in no converted file", (int)ours->name.length, ours->name.at);
    assert_true(ours->dims == theirs->dims && ours->bytes == theirs->bytes);
    assert_memory_equal(ours->extent, theirs->extent, sizeof ours->extent);
    float *a = rows_of(ours), *b = rows_of(theirs);
    for (uint64_t i = 0; i < ours->bytes / sizeof *a; i++)
        if (fabsf(a[i] - b[i]) > 1.2e-7f * fabsf(b[i])) /* 1 + w, rounded once or twice */
            fail_msg("%.*s: number %llu is %.9g, not %.9g", (int)ours->name.length, ours->name.at,
                     (unsigned long long)i, (double)a[i], (double)b[i]);
    free(a);
    free(b);
}

static void compare_with_file(const char *directory, const char *file)
{
    char path[512];
    struct gguf *ours = open_hub(directory, HUB_WHOLE), *theirs;
    struct why why;
    assert_true(rig_find(file, path));
    assert_int_equal(gguf_open(&theirs, path, &why), OK);
    assert_int_equal(gguf_tensor_count(ours), gguf_tensor_count(theirs));
    for (uint32_t i = 0; i < gguf_tensor_count(ours); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(ours, i);
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)t->name.length, t->name.at);
        compare_tensor(t, gguf_tensor_find(theirs, name));
    }
    gguf_close(theirs);
    gguf_close(ours);
}

static void tensors_are_those_of_a_converted_file(void **state)
{
    (void)state;
    compare_with_file("tiny/llama/hf", "tiny/llama/model-f32.gguf");
    compare_with_file("tiny/mistral/hf", "tiny/mistral/model-f32.gguf");
    compare_with_file("tiny/gemma3/hf", "tiny/gemma3/model-f32.gguf");
    compare_with_file("tiny/gpt2/hf", "tiny/gpt2/model-f32.gguf");
    compare_with_file("tiny/gpt2/hf-hubnames", "tiny/gpt2/model-f32.gguf");
}

static void who_builds_weights_sees_the_same_model_without_its_vocabulary(void **state)
{
    (void)state;
    struct gguf *whole = open_hub("tiny/llama/hf", HUB_WHOLE), *weights = open_hub("tiny/llama/hf", HUB_WEIGHTS);
    struct gguf *other = open_hub("tiny/llama/hf-bf16-sharded", HUB_WEIGHTS);
    assert_true(gguf_hash(whole) == gguf_hash(weights));
    assert_true(gguf_hash(whole) != gguf_hash(other));
    assert_true(gguf_has(whole, "tokenizer.ggml.tokens") && !gguf_has(weights, "tokenizer.ggml.tokens"));
    assert_int_equal(gguf_tensor_count(whole), gguf_tensor_count(weights));
    gguf_close(whole);
    gguf_close(weights);
    gguf_close(other);
}

static void a_vocabulary_needs_no_weights_beside_it(void **state)
{
    (void)state;
    struct gguf *g = open_hub("tiny/tokenizer", HUB_VOCABULARY);
    struct tokenizer *t;
    struct why why;
    if (tokenizer_open(&t, g, &why) != OK)
        fail_msg("%s", why.text);
    assert_int_equal(tokenizer_vocab_size(t), 512);
    assert_int_equal(gguf_tensor_count(g), 0);
    tokenizer_close(t);
    gguf_close(g);
}

/* ---- directories that differ from a good one in a file ---- */

static char directory[64];
static char source[512];

static const char *const names[] = {"config.json",           "model.safetensors",      "tokenizer.json",
                                    "tokenizer_config.json", "generation_config.json", "chat_template.jinja"};
enum { NAMES = sizeof names / sizeof *names };

static void path_of(const char *name, char path[640])
{
    snprintf(path, 640, "%s/%s", directory, name);
}

static void link_all(const char *from)
{
    if (!rig_find(from, source))
        skip();
    for (size_t i = 0; i < NAMES; i++) {
        char to[640], target[640];
        path_of(names[i], to);
        snprintf(target, sizeof target, "%s/%s", source, names[i]);
        char *whole = realpath(target, NULL);
        unlink(to);
        if (whole)
            assert_int_equal(symlink(whole, to), 0);
        free(whole);
    }
}

static void put_text(const char *name, const char *text)
{
    char path[640];
    path_of(name, path);
    unlink(path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* config.json with one key changed; a NULL value takes it away. */
static void change_config(const char *key, json_t *value)
{
    char path[640];
    snprintf(path, sizeof path, "%s/config.json", source);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    if (value)
        json_object_set_new(config, key, value);
    else
        json_object_del(config, key);
    char *text = json_dumps(config, 0);
    put_text("config.json", text);
    free(text);
    json_decref(config);
}

static struct model plan; /* too large for the stack */

static void opens(void)
{
    struct gguf *g;
    struct why why;
    if (hub_open(&g, directory, HUB_WHOLE, &why) != OK || model_plan(&plan, g, directory, 0, &why) != OK)
        fail_msg("%s", why.text);
    gguf_close(g);
}

static void refused(const char *words)
{
    struct gguf *g;
    struct why why;
    enum err err = hub_open(&g, directory, HUB_WHOLE, &why);
    if (err == OK) {
        struct tokenizer *t = NULL;
        err = model_plan(&plan, g, directory, 0, &why);
        if (err == OK)
            err = tokenizer_open(&t, g, &why);
        tokenizer_close(t);
        gguf_close(g);
    }
    if (err == OK)
        fail_msg("a directory was opened that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/quire-test-hub-XXXXXX");
    return mkdtemp(directory) ? 0 : 1;
}

static int remove_directory(void **state)
{
    (void)state;
    for (size_t i = 0; i < NAMES; i++) {
        char path[640];
        path_of(names[i], path);
        unlink(path);
    }
    return rmdir(directory);
}

static void a_config_in_the_newer_style_says_the_same(void **state)
{
    static const char *const families[] = {"tiny/llama/hf", "tiny/mistral/hf", "tiny/gemma3/hf", "tiny/gpt2/hf"};
    static struct model older;
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        char path[640];
        link_all(families[i]);
        opens();
        older = plan;
        snprintf(path, sizeof path, "%s/config_v5.json", source);
        json_t *config = json_load_file(path, 0, NULL);
        assert_non_null(config);
        char *text = json_dumps(config, 0);
        put_text("config.json", text);
        free(text);
        json_decref(config);
        opens();
        plan.hash = older.hash;
        assert_memory_equal(&plan, &older, sizeof plan);
    }
}

static void a_config_that_says_too_little_or_too_much_is_refused_by_its_key(void **state)
{
    static const char *const required[] = {
        "model_type",   "num_hidden_layers",      "hidden_size", "intermediate_size", "num_attention_heads",
        "rms_norm_eps", "max_position_embeddings"};
    (void)state;
    link_all("tiny/llama/hf");
    opens();
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        char words[64];
        snprintf(words, sizeof words, "lacks the key \"%s\"", required[i]);
        change_config(required[i], NULL);
        refused(words);
    }
    change_config("model_type", json_string("rwkv"));
    refused("the model type \"rwkv\" is not supported; these are: llama, mistral");
    change_config("model_type", json_string("qwen3"));
    refused("lacks the tensor \"model.layers.0.self_attn.q_norm.weight\"");
    change_config("model_type", json_string("gpt2"));
    refused("lacks the key");
    change_config("hidden_size", json_string("many"));
    refused("\"hidden_size\" is no whole number");
    change_config("num_attention_heads", json_integer(0));
    refused("\"num_attention_heads\" is out of bounds");
    change_config("num_hidden_layers", json_integer(-1));
    refused("\"num_hidden_layers\" is no whole number");
    change_config("num_hidden_layers", json_integer(2));
    refused("tensor \"model.layers.2.");
    change_config("num_hidden_layers", json_integer(4));
    refused("lacks the tensor \"model.layers.3.");
    change_config("vocab_size", json_integer(600));
    refused("config.json says \"vocab_size\": 600, but tensor \"model.embed_tokens.weight\" has 512 rows");
    change_config("intermediate_size", json_integer(160));
    refused("the file's own numbers ask for");
    change_config("head_dim", json_integer(48));
    refused("no whole number of heads");
    change_config("hidden_act", json_string("relu"));
    refused("\"hidden_act\" is an activation that is not supported");
    change_config("rope_scaling", json_pack("{s:s,s:f}", "rope_type", "yarn", "factor", 4.0));
    refused("\"rope_scaling\" is of a type that is not supported");
    change_config("rope_scaling", json_pack("{s:s}", "rope_type", "llama3"));
    refused("make no sense");
    change_config("tie_word_embeddings", json_true());
    opens();
    put_text("config.json", "{\"model_type\":");
    refused("is no JSON object");
    put_text("config.json", "[]");
    refused("is no JSON object");
}

static void a_linear_scaling_and_other_windows_are_taken_over(void **state)
{
    (void)state;
    link_all("tiny/llama/hf");
    change_config("rope_scaling", json_pack("{s:s,s:f}", "type", "linear", "factor", 4.0));
    opens();
    assert_true(plan.rope_factor == 4.0f);
    change_config("rope_scaling", json_null());
    opens();
    assert_true(plan.rope_factor == 1.0f);
    link_all("tiny/mistral/hf");
    opens();
    assert_true(plan.window == 32 && plan.window_period == MODEL_WINDOW_ALWAYS);
    change_config("sliding_window", json_null());
    opens();
    assert_true(plan.window == 0);
    assert_string_equal(plan.arch_name, "llama");
    link_all("tiny/gemma3/hf");
    opens();
    assert_true(plan.window == 32 && plan.window_period == 6);
    change_config("layer_types",
                  json_pack("[sssssss]", "sliding_attention", "sliding_attention", "full_attention",
                            "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"));
    opens();
    assert_int_equal(plan.window_period, 3);
    change_config("layer_types",
                  json_pack("[sssssss]", "sliding_attention", "sliding_attention", "full_attention", "full_attention",
                            "sliding_attention", "full_attention", "sliding_attention"));
    refused("no regular pattern");
    change_config("query_pre_attn_scalar", json_integer(64));
    refused("\"query_pre_attn_scalar\"");
}

static void what_a_config_leaves_out_is_what_transformers_takes_by_default(void **state)
{
    (void)state;
    link_all("tiny/gemma3/hf");
    change_config("rms_norm_eps", NULL);
    opens();
    assert_true(plan.norm_eps == 1e-6f);
    change_config("sliding_window", NULL);
    opens();
    assert_int_equal(plan.window, 4096);
    change_config("num_attention_heads", NULL); /* 8 by default, of which this file has not enough */
    refused("tensor \"blk.0.attn_q.weight\"");
    change_config("model_type", json_string("gemma3"));
    refused("\"text_config\" is no object");
}

static void files_that_are_missing_are_named(void **state)
{
    char path[640];
    (void)state;
    link_all("tiny/llama/hf");
    path_of("tokenizer.json", path);
    unlink(path);
    refused("holds no tokenizer.json");
    path_of("model.safetensors", path);
    unlink(path);
    refused("neither model.safetensors nor model.safetensors.index.json");
    path_of("config.json", path);
    unlink(path);
    refused("is no model directory: it holds no config.json");
}

static void a_chat_template_of_its_own_file_goes_before_the_settings(void **state)
{
    struct gguf *g;
    struct why why;
    struct gguf_string text;
    (void)state;
    link_all("tiny/llama/hf");
    put_text("chat_template.jinja", "{{ messages }}");
    assert_int_equal(hub_open(&g, directory, HUB_WHOLE, &why), OK);
    assert_int_equal(gguf_get_string(g, "tokenizer.chat_template", true, &text, &why), OK);
    assert_true(text.length == 14 && memcmp(text.at, "{{ messages }}", 14) == 0);
    gguf_close(g);
}

int main(void)
{
    struct CMUnitTest tests[GOLDENS + 9] = {
        cmocka_unit_test(tensors_are_those_of_a_converted_file),
        cmocka_unit_test(who_builds_weights_sees_the_same_model_without_its_vocabulary),
        cmocka_unit_test(a_vocabulary_needs_no_weights_beside_it),
        cmocka_unit_test(a_config_in_the_newer_style_says_the_same),
        cmocka_unit_test(a_config_that_says_too_little_or_too_much_is_refused_by_its_key),
        cmocka_unit_test(a_linear_scaling_and_other_windows_are_taken_over),
        cmocka_unit_test(what_a_config_leaves_out_is_what_transformers_takes_by_default),
        cmocka_unit_test(files_that_are_missing_are_named),
        cmocka_unit_test(a_chat_template_of_its_own_file_goes_before_the_settings),
    };
    for (size_t i = 0; i < GOLDENS; i++)
        tests[9 + i] = (struct CMUnitTest){
            .name = goldens[i].model, .test_func = agrees_with_its_golden, .initial_state = &goldens[i]};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
