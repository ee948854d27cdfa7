#include "tests/support/small_llama.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

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

struct file small_llama(const struct bend *bend)
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

struct gguf *small_llama_planned(const struct file *f, struct model *plan)
{
    struct gguf *g;
    struct why why;
    if (gguf_open_memory(&g, f->bytes, f->length, "m.gguf", &why) != OK || model_plan(plan, g, "m.gguf", 0, &why) != OK)
        fail_msg("%s", why.text);
    return g;
}
