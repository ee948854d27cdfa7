/*
 * Plans of models: what a file must say, what is refused by name, what a damaged plan is caught by, and that shares of the
 * build make the same block whatever their number.
 */
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
#include "tests/support/gguf_writer.h"
#include "tests/support/model_rig.h"

/* ---- a small Llama file that can be bent ---- */

enum { DIM = 8, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 2, FFN = 12, VOCAB = 20, LAYERS = 2, CONTEXT = 40 };

/* Changes to the file; all zero: none. */
struct bend {
    const char *without; /* a key or tensor that is left out */
    const char *key;     /* a u32 key that is given this value, or added */
    uint32_t value;
    const char *real_key; /* the same for f32 */
    float real;
    const char *text_key; /* the same for strings */
    const char *text;
    const char *extra_tensor; /* a vector of DIM floats that nobody asked for */
    const char *wide_tensor;  /* gets one column more */
    const char *typed_tensor; /* gets this type */
    uint32_t type;
    const uint32_t *kv_per_layer; /* (LAYERS) head_count_kv as an array */
    const float *rope_freqs;      /* (HEAD_DIM / 2) */
};

static bool same(const char *a, const char *b)
{
    return a && strcmp(a, b) == 0;
}

struct writing {
    struct file keys, tensors;
    const struct bend *bend;
    uint32_t key_count, tensor_count;
    uint64_t data;
};

static void write_u32(struct writing *w, const char *key, uint32_t value)
{
    if (same(w->bend->without, key) || (same(w->bend->key, key) && value != w->bend->value))
        return;
    put_key_u32(&w->keys, key, value);
    w->key_count++;
}

static void write_tensor(struct writing *w, const char *name, uint64_t columns, uint64_t rows, bool vector)
{
    if (same(w->bend->without, name))
        return;
    columns += same(w->bend->wide_tensor, name);
    uint32_t type = same(w->bend->typed_tensor, name) ? w->bend->type : TENSOR_F32;
    put_string(&w->tensors, name);
    put_u32(&w->tensors, vector ? 1 : 2);
    put_u64(&w->tensors, columns);
    if (!vector)
        put_u64(&w->tensors, rows);
    put_u32(&w->tensors, type);
    put_u64(&w->tensors, w->data);
    w->data += (columns * rows * sizeof(float) + 31) / 32 * 32;
    w->tensor_count++;
}

static void write_layer(struct writing *w, uint32_t layer)
{
    const struct {
        const char *name;
        uint32_t columns, rows;
    } tensors[] = {{"attn_norm", DIM, 1},
                   {"attn_q", DIM, HEADS * HEAD_DIM},
                   {"attn_k", DIM, KV_HEADS * HEAD_DIM},
                   {"attn_v", DIM, KV_HEADS * HEAD_DIM},
                   {"attn_output", HEADS * HEAD_DIM, DIM},
                   {"ffn_norm", DIM, 1},
                   {"ffn_gate", DIM, FFN},
                   {"ffn_up", DIM, FFN},
                   {"ffn_down", FFN, DIM}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, tensors[i].name);
        write_tensor(w, name, tensors[i].columns, tensors[i].rows, tensors[i].rows == 1);
    }
}

static void write_keys(struct writing *w)
{
    const struct bend *b = w->bend;
    const char *arch = same(b->text_key, "general.architecture") ? b->text : "llama";
    put_string(&w->keys, "general.architecture");
    put_u32(&w->keys, GGUF_STRING);
    put_string(&w->keys, arch);
    w->key_count++;
    write_u32(w, "llama.block_count", LAYERS);
    write_u32(w, "llama.embedding_length", DIM);
    write_u32(w, "llama.feed_forward_length", FFN);
    write_u32(w, "llama.attention.head_count", HEADS);
    write_u32(w, "llama.context_length", CONTEXT);
    if (b->kv_per_layer) {
        put_string(&w->keys, "llama.attention.head_count_kv");
        put_u32(&w->keys, GGUF_ARRAY);
        put_u32(&w->keys, GGUF_I32);
        put_u64(&w->keys, LAYERS);
        put(&w->keys, b->kv_per_layer, LAYERS * sizeof(uint32_t));
        w->key_count++;
    } else {
        write_u32(w, "llama.attention.head_count_kv", KV_HEADS);
    }
    if (b->key) {
        put_key_u32(&w->keys, b->key, b->value);
        w->key_count++;
    }
    if (b->real_key) {
        put_key(&w->keys, b->real_key, GGUF_F32, &b->real, sizeof b->real);
        w->key_count++;
    }
    if (b->text_key && !same(b->text_key, "general.architecture")) {
        put_string(&w->keys, b->text_key);
        put_u32(&w->keys, GGUF_STRING);
        put_string(&w->keys, b->text);
        w->key_count++;
    }
}

static struct file llama_file(const struct bend *bend)
{
    static struct writing w;
    w = (struct writing){.bend = bend};
    write_keys(&w);
    uint64_t freqs_at = w.data;
    if (bend->rope_freqs)
        write_tensor(&w, "rope_freqs.weight", HEAD_DIM / 2, 1, true);
    write_tensor(&w, "token_embd.weight", DIM, VOCAB, false);
    write_tensor(&w, "output.weight", DIM, VOCAB, false);
    write_tensor(&w, "output_norm.weight", DIM, 1, true);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        write_layer(&w, layer);
    if (bend->extra_tensor)
        write_tensor(&w, bend->extra_tensor, DIM, 1, true);

    struct file f = {.length = 0};
    put_header(&f, 3, w.tensor_count, w.key_count);
    put(&f, w.keys.bytes, w.keys.length);
    put(&f, w.tensors.bytes, w.tensors.length);
    pad(&f, 32, 0);
    size_t data = f.length;
    for (uint64_t i = 0; i < w.data / sizeof(float); i++)
        put(&f, &(float){0.25f * (float)(i % 17) - 2.0f}, sizeof(float));
    if (bend->rope_freqs)
        memcpy(f.bytes + data + freqs_at, bend->rope_freqs, HEAD_DIM / 2 * sizeof(float));
    return f;
}

static struct model plan; /* too large for the stack */

static struct gguf *planned(struct file *f)
{
    struct gguf *g;
    struct why why;
    if (gguf_open_memory(&g, f->bytes, f->length, "m.gguf", &why) != OK ||
        model_plan(&plan, g, "m.gguf", 0, &why) != OK)
        fail_msg("%s", why.text);
    return g;
}

static void refused(struct bend bend, enum err code, const char *words)
{
    struct file f = llama_file(&bend);
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
    struct file f = llama_file(&(struct bend){.text_key = "general.name", .text = "Tiny\nLlama"});
    struct gguf *g = planned(&f);
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
    assert_int_equal(model_page_bytes(&plan), LAYERS * KV_HEADS * 2 * HEAD_DIM * 16 * 2);
    assert_int_equal(model_check(&plan, NULL), OK);
    gguf_close(g);
}

static void absent_head_is_the_embedding(void **state)
{
    (void)state;
    struct file f = llama_file(&(struct bend){.without = "output.weight"});
    struct gguf *g = planned(&f);
    assert_memory_equal(&plan.head, &plan.embed, sizeof plan.head);
    assert_int_equal(model_check(&plan, NULL), OK);
    plan.head.rows--;
    assert_int_equal(model_check(&plan, NULL), ERR_FORMAT);
    gguf_close(g);
}

static void context_is_at_most_what_was_trained(void **state)
{
    (void)state;
    struct file f = llama_file(&(struct bend){0});
    struct gguf *g = planned(&f);
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
            struct file f = llama_file(&(struct bend){.key = key, .value = values[v]});
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
    struct file f = llama_file(&(struct bend){.kv_per_layer = (const uint32_t[LAYERS]){KV_HEADS, KV_HEADS}});
    struct gguf *g = planned(&f);
    assert_int_equal(plan.kv_heads, KV_HEADS);
    gguf_close(g);
    refused((struct bend){.kv_per_layer = (const uint32_t[LAYERS]){KV_HEADS, 1}}, ERR_UNSUPPORTED,
            "\"llama.attention.head_count_kv\" differs from layer to layer");
    refused((struct bend){.kv_per_layer = (const uint32_t[LAYERS]){UINT32_MAX, UINT32_MAX}}, ERR_UNSUPPORTED,
            "head_count_kv");
}

/* ---- damaged plans ---- */

static void damaged_plan_is_caught(void **state)
{
    (void)state;
    struct file f = llama_file(&(struct bend){0});
    struct gguf *g = planned(&f);
    static struct model damaged;
    const size_t used = offsetof(struct model, layer) + LAYERS * sizeof(struct model_layer);
    for (size_t at = 0; at < used; at++) {
        bool free_text = at >= offsetof(struct model, hash) && at < offsetof(struct model, embed);
        bool only_a_number = (at >= offsetof(struct model, norm_eps) && at < offsetof(struct model, hash)) ||
                             (at >= offsetof(struct model, context_train) && at < offsetof(struct model, rope_pairs));
        damaged = plan;
        ((uint8_t *)&damaged)[at] ^= 0x40;
        if (!free_text && !only_a_number && model_check(&damaged, NULL) == OK)
            fail_msg("byte %zu of the plan was changed and nobody noticed", at);
    }
    assert_int_equal(model_check(&plan, NULL), OK);
    gguf_close(g);
}

static void random_plans_are_survived(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)getpid() * 0x9e3779b97f4a7c15u + 1, random = seed;
    print_message("seed %" PRIu64 "\n", seed);
    struct file f = llama_file(&(struct bend){0});
    struct gguf *g = planned(&f);
    static struct model damaged;
    struct why why;
    for (uint32_t round = 0; round < 5000; round++) {
        damaged = plan;
        for (uint32_t hits = 0; hits < 1 + round % 6; hits++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            uint32_t at = (uint32_t)(random % (offsetof(struct model, embed) / 4 + 64));
            uint32_t value = (uint32_t)(random >> 32) >> (random % 32);
            memcpy((char *)&damaged + 4 * at, &value, sizeof value);
        }
        model_check(&damaged, &why);
    }
    gguf_close(g);
}

/* ---- building ---- */

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

static void rope_table_at(struct bend bend, uint32_t position, double angle)
{
    struct file f = llama_file(&bend);
    struct gguf *g = planned(&f);
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

static void file_that_changed_since_its_plan_is_not_built(void **state)
{
    (void)state;
    struct file f = llama_file(&(struct bend){0});
    struct gguf *g = planned(&f);
    struct file other = llama_file(&(struct bend){.text_key = "general.name", .text = "another"});
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
        cmocka_unit_test(absent_head_is_the_embedding),
        cmocka_unit_test(context_is_at_most_what_was_trained),
        cmocka_unit_test(numbers_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(missing_keys_and_tensors_are_refused_by_name),
        cmocka_unit_test(misshapen_and_mistyped_tensors_are_refused_by_name),
        cmocka_unit_test(what_this_build_would_get_wrong_is_refused_by_name),
        cmocka_unit_test(heads_per_layer_are_taken_when_they_are_equal),
        cmocka_unit_test(damaged_plan_is_caught),
        cmocka_unit_test(random_plans_are_survived),
        cmocka_unit_test(shares_of_any_number_build_the_same_block),
        cmocka_unit_test(every_weight_stands_where_the_plan_says),
        cmocka_unit_test(rope_scaling_slows_the_rotation),
        cmocka_unit_test(file_that_changed_since_its_plan_is_not_built),
        cmocka_unit_test(the_served_model_is_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
