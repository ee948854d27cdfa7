/* small_llama: a Llama file of a few thousand bytes that a test can bend: leave something out, change or add it. */
#ifndef QUIRE_TESTS_SUPPORT_SMALL_LLAMA_H
#define QUIRE_TESTS_SUPPORT_SMALL_LLAMA_H

#include "model/model.h"
#include "tests/support/gguf_writer.h"

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

struct file small_llama(const struct bend *bend);

/* Its plan, in *plan; the caller closes the file. Fails the test when it cannot be planned. */
struct gguf *small_llama_planned(const struct file *f, struct model *plan);

#endif
