/* Plans of models: what a file must say, and what is refused by name. */
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/hparams.h"
#include "tests/support/model_rig.h"
#include "tests/support/small_llama.h"

static struct model plan; /* too large for the stack */

static void refused(struct bend bend, enum err code, const char *words)
{
    struct file f = small_llama(&bend);
    struct gguf *g;
    struct why why;
    if (gguf_open_memory(&g, f.bytes, f.length, "m.gguf", &why) != OK)
        fail_msg("%s", why.text);
    enum err err = model_plan(&plan, g, "m.gguf", 0, &why);
    gguf_close(g);
    if (err == OK)
        fail_msg("a model was planned that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
    assert_int_equal(err, code);
}

/* ---- plans ---- */

static void plan_says_what_the_file_says(void **state)
{
    (void)state;
    struct file f = small_llama(&(struct bend){.text_key = "general.name", .text = "Tiny\nLlama"});
    struct gguf *g = small_llama_planned(&f, &plan);
    assert_int_equal(plan.arch, ARCH_LLAMA);
    assert_string_equal(plan.arch_name, "llama");
    assert_string_equal(plan.name, "Tiny?Llama");
    assert_int_equal(plan.layers, LAYERS);
    assert_int_equal(plan.dim, DIM);
    assert_int_equal(plan.heads, HEADS);
    assert_int_equal(plan.kv_heads, KV_HEADS);
    assert_int_equal(plan.head_dim, HEAD_DIM);
    assert_int_equal(plan.ffn, FFN);
    assert_int_equal(plan.vocab, VOCAB);
    assert_int_equal(plan.context, CONTEXT);
    assert_int_equal(plan.rope_pairs, HEAD_DIM / 2);
    assert_true(plan.attn_scale == 1.0f / sqrtf(HEAD_DIM));
    assert_int_equal(plan.parameters,
                     2 * VOCAB * DIM + DIM + LAYERS * (2 * DIM + 2 * DIM * DIM + 2 * 4 * DIM + 3 * DIM * FFN));
    assert_true(plan.embed.offset != plan.head.offset);
    assert_int_equal(plan.embed.offset % 4096, 0);
    assert_int_equal(plan.layer[1].ffn_norm.offset % 64, 0);
    assert_int_equal(model_page_bytes(&plan, 0), LAYERS * KV_HEADS * 2 * HEAD_DIM * 16 * 2);
    assert_int_equal(model_check(&plan, NULL), OK);
    gguf_close(g);
}

/* Every layer's K and V lie in one page of one class, side by side, and fill it. */
static void must_fill_pages(const struct model *m)
{
    uint64_t end[MODEL_PAGE_CLASSES] = {0};
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        uint32_t c = model_page_class(m, layer);
        assert_int_equal(c, model_page_classes(m) == 2 && model_window(m, layer) > 0);
        assert_int_equal(model_page_k_offset(m, layer, 0), end[c]);
        end[c] = model_page_v_offset(m, layer, m->kv_heads - 1) + (uint64_t)m->head_dim * 16 * 2;
    }
    for (uint32_t c = 0; c < model_page_classes(m); c++)
        assert_int_equal(model_page_bytes(m, c), end[c] ? end[c] : 64);
}

static void layers_with_a_window_have_pages_of_their_own(void **state)
{
    (void)state;
    struct model m = {.layers = 18, .kv_heads = 2, .head_dim = 32, .context = 100, .window = 32, .window_period = 6};
    assert_int_equal(model_page_classes(&m), 2);
    must_fill_pages(&m);
    assert_int_equal(model_page_bytes(&m, 1), 5 * model_page_bytes(&m, 0));
    m.layers = 7;
    must_fill_pages(&m);
    m.layers = 4; /* none sees everything: pages of class 0 hold nothing */
    must_fill_pages(&m);
    m.window_period = MODEL_WINDOW_ALWAYS;
    must_fill_pages(&m);
    m.window = 100; /* no sequence outgrows it */
    assert_int_equal(model_page_classes(&m), 1);
    must_fill_pages(&m);
    m.window = m.window_period = 0;
    assert_int_equal(model_page_classes(&m), 1);
    must_fill_pages(&m);
}

static void absent_head_is_the_embedding(void **state)
{
    (void)state;
    struct file f = small_llama(&(struct bend){.without = "output.weight"});
    struct gguf *g = small_llama_planned(&f, &plan);
    assert_memory_equal(&plan.head, &plan.embed, sizeof plan.head);
    assert_int_equal(model_check(&plan, NULL), OK);
    plan.head.rows--;
    assert_int_equal(model_check(&plan, NULL), ERR_FORMAT);
    gguf_close(g);
}

static void context_is_at_most_what_was_trained(void **state)
{
    (void)state;
    struct file f = small_llama(&(struct bend){0});
    struct gguf *g = small_llama_planned(&f, &plan);
    struct why why;
    assert_int_equal(model_plan(&plan, g, "m.gguf", 16, &why), OK);
    assert_int_equal(plan.context, 16);
    assert_int_equal(plan.context_train, CONTEXT);
    assert_int_equal(plan.rope.count, 16 * HEAD_DIM);
    assert_int_equal(model_plan(&plan, g, "m.gguf", CONTEXT + 1, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "trained for 40"));
    gguf_close(g);
}

static void numbers_out_of_bounds_are_refused_by_name(void **state)
{
    (void)state;
    const struct {
        const char *key;
        uint32_t most;
    } counts[] = {{"block_count", 256},           {"embedding_length", 65536},       {"feed_forward_length", 1 << 20},
                  {"attention.head_count", 1024}, {"attention.head_count_kv", 1024}, {"context_length", 1 << 24},
                  {"attention.key_length", 256}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char key[64];
        snprintf(key, sizeof key, "llama.%s", counts[i].key);
        const uint32_t values[] = {0, counts[i].most + 1, 0x80000000, 0xffffffff};
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            struct file f = small_llama(&(struct bend){.key = key, .value = values[v]});
            struct gguf *g;
            struct why why;
            assert_int_equal(gguf_open_memory(&g, f.bytes, f.length, "m.gguf", NULL), OK);
            assert_int_not_equal(model_plan(&plan, g, "m.gguf", 0, &why), OK);
            if (!strstr(why.text, counts[i].key) && !strstr(why.text, "keys of"))
                fail_msg("\"%s\" does not name %s", why.text, counts[i].key);
            gguf_close(g);
        }
    }
    refused((struct bend){.key = "llama.attention.head_count_kv", .value = 3}, ERR_FORMAT, "4 heads cannot share 3");
    refused((struct bend){.key = "llama.attention.value_length", .value = 4}, ERR_UNSUPPORTED,
            "keys of 2 and values of 4");
    refused((struct bend){.key = "llama.rope.dimension_count", .value = 4}, ERR_FORMAT,
            "2 rotated pairs in heads of 2");
    refused((struct bend){.key = "llama.rope.dimension_count", .value = 0}, ERR_FORMAT, "0 rotated pairs");
    const float odd[] = {0.0f, -1.0f, INFINITY, NAN};
    for (size_t i = 0; i < 4; i++) {
        refused((struct bend){.real_key = "llama.attention.layer_norm_rms_epsilon", .real = odd[i]}, ERR_FORMAT,
                "epsilon");
        refused((struct bend){.real_key = "llama.rope.freq_base", .real = odd[i]}, ERR_FORMAT, "RoPE base");
        refused((struct bend){.real_key = "llama.rope.scale_linear", .real = odd[i]}, ERR_FORMAT, "factor");
        refused((struct bend){.rope_freqs = &odd[i]}, ERR_FORMAT, "rope_freqs.weight");
    }
}

static void missing_keys_and_tensors_are_refused_by_name(void **state)
{
    (void)state;
    const char *const names[] = {"llama.block_count",          "llama.embedding_length", "llama.feed_forward_length",
                                 "llama.attention.head_count", "llama.context_length",   "token_embd.weight",
                                 "output_norm.weight",         "blk.0.attn_norm.weight", "blk.1.attn_k.weight",
                                 "blk.1.ffn_down.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        refused((struct bend){.without = names[i]}, ERR_FORMAT, names[i]);
}

static void misshapen_and_mistyped_tensors_are_refused_by_name(void **state)
{
    (void)state;
    const char *const names[] = {"token_embd.weight", "output.weight", "output_norm.weight", "blk.0.attn_q.weight",
                                 "blk.1.ffn_norm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        refused((struct bend){.wide_tensor = names[i]}, ERR_FORMAT, names[i]);
    refused((struct bend){.typed_tensor = "blk.0.attn_q.weight", .type = TENSOR_I32}, ERR_UNSUPPORTED,
            "\"blk.0.attn_q.weight\" is of type I32");
    refused((struct bend){.typed_tensor = "output_norm.weight", .type = TENSOR_I8}, ERR_UNSUPPORTED,
            "\"output_norm.weight\" is of type I8");
}

static void what_this_build_would_get_wrong_is_refused_by_name(void **state)
{
    (void)state;
    refused((struct bend){.text_key = "general.architecture", .text = "mamba"}, ERR_UNSUPPORTED,
            "architecture \"mamba\"");
    refused((struct bend){.extra_tensor = "blk.0.attn_q.bias"}, ERR_UNSUPPORTED,
            "\"blk.0.attn_q.bias\" of a llama model: models of that family have no such bias");
    refused((struct bend){.extra_tensor = "blk.0.ffn_gate_exps.weight"}, ERR_UNSUPPORTED,
            "it belongs to mixtures of experts");
    refused((struct bend){.extra_tensor = "blk.2.attn_q.weight"}, ERR_UNSUPPORTED, "does not know what it is for");
    refused((struct bend){.key = "llama.expert_count", .value = 8}, ERR_FORMAT,
            "lacks the key \"llama.expert_used_count\"");
    refused(
        (struct bend){.text_key = "general.architecture", .text = "gemma2", .key = "gemma2.expert_count", .value = 8},
        ERR_UNSUPPORTED, "\"gemma2\" with experts is not supported");
    refused((struct bend){.text_key = "llama.rope.scaling.type", .text = "yarn"}, ERR_UNSUPPORTED,
            "RoPE scaling \"yarn\"");
}

static void heads_per_layer_are_taken_when_they_are_equal(void **state)
{
    (void)state;
    struct file f = small_llama(&(struct bend){.kv_per_layer = (const uint32_t[LAYERS]){KV_HEADS, KV_HEADS}});
    struct gguf *g = small_llama_planned(&f, &plan);
    assert_int_equal(plan.kv_heads, KV_HEADS);
    gguf_close(g);
    refused((struct bend){.kv_per_layer = (const uint32_t[LAYERS]){KV_HEADS, 1}}, ERR_UNSUPPORTED,
            "\"llama.attention.head_count_kv\" differs from layer to layer");
    refused((struct bend){.kv_per_layer = (const uint32_t[LAYERS]){UINT32_MAX, UINT32_MAX}}, ERR_UNSUPPORTED,
            "head_count_kv");
}

/* ---- damaged plans ---- */

static void the_served_model_is_planned(void **state)
{
    (void)state;
    static struct rig rig;
    if (!rig_open(&rig, "models/smollm2.gguf", 0))
        skip();
    assert_int_equal(rig.m.layers, 30);
    assert_int_equal(rig.m.heads, 9);
    assert_int_equal(rig.m.kv_heads, 3);
    assert_int_equal(rig.m.head_dim, 64);
    assert_int_equal(rig.m.vocab, 49152);
    assert_true(rig.m.rope_base == 100000.0f);
    assert_int_equal(rig.m.parameters, 134515008);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_says_what_the_file_says),
        cmocka_unit_test(layers_with_a_window_have_pages_of_their_own),
        cmocka_unit_test(absent_head_is_the_embedding),
        cmocka_unit_test(context_is_at_most_what_was_trained),
        cmocka_unit_test(numbers_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(missing_keys_and_tensors_are_refused_by_name),
        cmocka_unit_test(misshapen_and_mistyped_tensors_are_refused_by_name),
        cmocka_unit_test(what_this_build_would_get_wrong_is_refused_by_name),
        cmocka_unit_test(heads_per_layer_are_taken_when_they_are_equal),
        cmocka_unit_test(the_served_model_is_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
