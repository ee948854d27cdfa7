/*
 * The families of models: each against the goldens of an independent implementation, in float32 and quantised, and what their
 * files must not say. Bounds: tests/support/golden.h; that batches, ranks and kernel sets change no bit: test_forward.c.
 */
#include "model/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/model_rig.h"

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
    {"models/gemma3.gguf", "real/gemma3-270m-q4_k_m.json", .bounds = &of_a_real_model, .max_tokens = 60},
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
    {"models/gemma3.gguf", "real/gemma3-270m-q4_k_m.json", .bounds = &of_a_real_model_in_floats,
     .float_activations = true, .max_tokens = 60},
    {"models/smollm2.gguf", "real/smollm2-135m-instruct-q4_1.json", .bounds = &of_a_real_model_in_floats,
     .float_activations = true, .max_tokens = 20},
};
enum { GOLDENS = sizeof goldens / sizeof *goldens, WIDENEDS = sizeof widened / sizeof *widened };

/* ---- files and plans of other families that are wrong ---- */

/* A file as bytes; NULL: it is not there. */
static uint8_t *read_whole(const char *file, size_t *length)
{
    char path[512];
    FILE *from = rig_find(file, path) ? fopen(path, "rb") : NULL;
    if (!from)
        return NULL;
    fseek(from, 0, SEEK_END);
    *length = (size_t)ftell(from);
    rewind(from);
    uint8_t *bytes = malloc(*length);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *length, from), *length);
    fclose(from);
    return bytes;
}

static uint8_t *find(uint8_t *bytes, size_t length, const char *text)
{
    uint8_t *at = memmem(bytes, length, text, strlen(text));
    if (!at)
        fail_msg("\"%s\" is not in the file", text);
    return at;
}

static struct model plan; /* too large for the stack */

static void refused(const uint8_t *bytes, size_t length, const char *words)
{
    struct gguf *g;
    struct why why;
    if (gguf_open_memory(&g, bytes, length, "m.gguf", &why) != OK)
        fail_msg("%s", why.text);
    enum err err = model_plan(&plan, g, "m.gguf", 0, &why);
    gguf_close(g);
    if (err == OK)
        fail_msg("a model was planned that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

/* The name of a key or tensor becomes another of the same length. */
static void renamed(const char *file, const char *from, const char *to, const char *words)
{
    size_t length;
    uint8_t *bytes = read_whole(file, &length);
    if (!bytes)
        skip();
    memcpy(find(bytes, length, from), to, strlen(from));
    refused(bytes, length, words);
    free(bytes);
}

/* The number at a key, four bytes behind its name and type, becomes another. */
static void with_number(const char *file, const char *key, uint32_t bits, const char *words)
{
    size_t length;
    uint8_t *bytes = read_whole(file, &length);
    if (!bytes)
        skip();
    memcpy(find(bytes, length, key) + strlen(key) + 4, &bits, sizeof bits);
    refused(bytes, length, words);
    free(bytes);
}

static void files_that_lack_what_their_family_has_are_refused_by_name(void **state)
{
    (void)state;
    renamed("tiny/qwen2/model-f32.gguf", "blk.1.attn_k.bias", "blk.1.attn_k.bios",
            "lacks the tensor \"blk.1.attn_k.bias\"");
    renamed("tiny/qwen3/model-f32.gguf", "blk.0.attn_q_norm", "blk.0.attn_q_nrom",
            "lacks the tensor \"blk.0.attn_q_norm.weight\"");
    renamed("tiny/gpt2/model-f32.gguf", "position_embd", "position_ebmd", "lacks the tensor \"position_embd.weight\"");
    renamed("tiny/gemma3/model-f32.gguf", "blk.3.post_ffw_norm", "blk.3.post_fww_norm",
            "lacks the tensor \"blk.3.post_ffw_norm.weight\"");
    renamed("tiny/qwen3moe/model-f32.gguf", "blk.2.ffn_gate_inp", "blk.2.ffn_gate_ipn",
            "lacks the tensor \"blk.2.ffn_gate_inp.weight\"");
    renamed("tiny/phi3/model-f32.gguf", "rope_factors_long", "rope_factors_lnog", "come together");
    renamed("tiny/phi3/model-f32.gguf", "rope.scaling.original", "rope.scaling.orignial", "original_context_length");
}

static void numbers_that_contradict_the_tensors_are_refused_by_name(void **state)
{
    (void)state;
    const uint32_t not_a_number = 0x7fc00000;
    with_number("tiny/mixtral/model-f32.gguf", "llama.expert_used_count", 5, "4 experts of which a token asks 5");
    with_number("tiny/mixtral/model-f32.gguf", "llama.expert_used_count", 0, "4 experts of which a token asks 0");
    with_number("tiny/qwen3moe/model-f32.gguf", "qwen3moe.expert_count", 7, "ask for (7, 64)");
    with_number("tiny/qwen3moe/model-f32.gguf", "qwen3moe.expert_count", 100000, "100000 experts");
    with_number("tiny/qwen3moe/model-f32.gguf", "qwen3moe.expert_feed_forward_length", 63, "ask for (8, 63, 64)");
    with_number("tiny/phi3/model-f32.gguf", "phi3.attention.head_count_kv", 1,
                "\"blk.0.attn_qkv.weight\" has the shape (256, 128); the file's own numbers ask for (192, 128)");
    with_number("tiny/phi3/model-f32.gguf", "phi3.rope.scaling.attn_factor", not_a_number, "RoPE attention factor");
    with_number("tiny/gemma2/model-f32.gguf", "gemma2.attn_logit_softcapping", not_a_number, "caps of nan");
    with_number("tiny/gemma3/model-f32.gguf", "gemma3.rope.freq_base_swa", not_a_number,
                "RoPE base nan of layers with a window");
    with_number("tiny/gpt2/model-f32.gguf", "gpt2.context_length", 511,
                "\"position_embd.weight\" has the shape (512, 96)");
}

static void damaged_plans_of_every_family_are_caught(void **state)
{
    (void)state;
    static const char *const files[] = {
        "tiny/qwen2/model-f32.gguf",  "tiny/qwen3/model-f32.gguf",   "tiny/phi3/model-f32.gguf",
        "tiny/olmo2/model-f32.gguf",  "tiny/gpt2/model-f32.gguf",    "tiny/gemma2/model-f32.gguf",
        "tiny/gemma3/model-f32.gguf", "tiny/mixtral/model-f32.gguf", "tiny/qwen3moe/model-f32.gguf"};
    static struct model damaged;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t length;
        uint8_t *bytes = read_whole(files[i], &length);
        struct gguf *g;
        if (!bytes)
            skip();
        assert_int_equal(gguf_open_memory(&g, bytes, length, "m.gguf", NULL), OK);
        assert_int_equal(model_plan(&plan, g, "m.gguf", 0, NULL), OK);
        assert_int_equal(model_check(&plan, NULL), OK);
        for (size_t at = 0; at < offsetof(struct model, layer[plan.layers]); at++) {
            damaged = plan;
            ((uint8_t *)&damaged)[at] ^= 0x40;
            enum err err = model_check(&damaged, NULL); /* of the numbers some are as good as others */
            if (at >= offsetof(struct model, embed) && err == OK)
                fail_msg("%s: byte %zu of the plan was changed and nobody noticed", files[i], at);
        }
        gguf_close(g);
        free(bytes);
    }
}

static void shared_tensors_are_divided_and_halves_brought_together(void **state)
{
    (void)state;
    static struct rig rig;
    if (!rig_open(&rig, "tiny/phi3/model-f32.gguf", 256))
        skip();
    const struct model *m = &rig.m;
    const struct model_layer *l = &m->layer[1];
    const struct gguf_tensor *qkv = gguf_tensor_find(rig.g, "blk.1.attn_qkv.weight"),
                             *gate_up = gguf_tensor_find(rig.g, "blk.1.ffn_up.weight");
    uint32_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim, half = m->head_dim / 2;
    const struct {
        const struct weight *w;
        const struct gguf_tensor *t;
        uint32_t row, in_file;
    } rows[] = {
        {&l->q, qkv, 0, 0},        {&l->q, qkv, 1, half},         {&l->q, qkv, m->head_dim + 2, m->head_dim + 1},
        {&l->k, qkv, 0, q},        {&l->k, qkv, 3, q + half + 1}, {&l->v, qkv, 1, q + kv + 1},
        {&l->gate, gate_up, 5, 5}, {&l->up, gate_up, 0, m->ffn},  {&l->up, gate_up, m->ffn - 1, 2 * m->ffn - 1}};
    float *row = malloc(m->dim * sizeof *row);
    assert_non_null(row);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tile_matrix matrix = model_matrix(rows[i].w, rig.weights);
        tiles_row(&matrix, rows[i].row, row);
        assert_memory_equal(row, rows[i].t->data + (size_t)rows[i].in_file * m->dim * sizeof *row,
                            m->dim * sizeof *row);
    }
    free(row);
    rig_close(&rig);
}

static void windows_recur_as_the_family_says(void **state)
{
    (void)state;
    const struct model gemma2 = {.window = 32, .window_period = 2},
                       always = {.window = 32, .window_period = MODEL_WINDOW_ALWAYS};
    const struct model none = {.window = 0};
    const uint32_t expected[] = {32, 0, 32, 0};
    for (uint32_t layer = 0; layer < 4; layer++) {
        assert_int_equal(model_window(&gemma2, layer), expected[layer]);
        assert_int_equal(model_window(&always, layer), 32);
        assert_int_equal(model_window(&none, layer), 0);
    }
}

static void every_number_has_one_family_and_every_name_is_listed(void **state)
{
    (void)state;
    char known[256];
    arch_list(known, sizeof known);
    for (uint32_t id = ARCH_LLAMA; id <= ARCH_MISTRAL; id++) {
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
    const struct CMUnitTest others[] = {
        cmocka_unit_test(every_number_has_one_family_and_every_name_is_listed),
        cmocka_unit_test(windows_recur_as_the_family_says),
        cmocka_unit_test(shared_tensors_are_divided_and_halves_brought_together),
        cmocka_unit_test(files_that_lack_what_their_family_has_are_refused_by_name),
        cmocka_unit_test(numbers_that_contradict_the_tensors_are_refused_by_name),
        cmocka_unit_test(damaged_plans_of_every_family_are_caught),
    };
    enum { OTHERS = sizeof others / sizeof *others };
    struct CMUnitTest tests[OTHERS + GOLDENS + WIDENEDS];
    memcpy(tests, others, sizeof others);
    for (uint32_t i = 0; i < GOLDENS + WIDENEDS; i++) {
        struct golden *g = i < GOLDENS ? &goldens[i] : &widened[i - GOLDENS];
        tests[OTHERS + i] =
            (struct CMUnitTest){.name = g->model, .test_func = agrees_with_its_golden, .initial_state = g};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
