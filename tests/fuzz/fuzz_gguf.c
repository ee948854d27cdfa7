/* A model file: header, tensor table, hyperparameters, plan of the weights, tokenizer. */
#include "base/must.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static void walk_tensors(const struct gguf *g)
{
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        must(t->dims >= 1 && t->dims <= 4);
        if (t->bytes)
            sum = (uint8_t)(sum + t->data[0] + t->data[t->bytes - 1]);
    }
}

static void tokenize(const struct gguf *g)
{
    static const char text[] = "Hello, w\xc3\xb6rld 123 <|im_start|>\n";
    struct tokenizer *t;
    struct why why;
    if (tokenizer_open(&t, g, &why) != OK)
        return;
    struct token_list list = {0};
    if (tokenizer_encode(t, text, sizeof text - 1, true, &list, &why) == OK)
        for (uint32_t i = 0; i < list.count; i++)
            must(list.ids[i] < tokenizer_vocab_size(t));
    token_list_fini(&list);
    tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct why why;
    static struct model model;
    if (gguf_open_memory(&g, data, size, "fuzz", &why) != OK)
        return 0;
    must(gguf_hash(g) == gguf_hash(g) && gguf_file_bytes(g) == size);
    walk_tensors(g);
    enum err err = model_plan(&model, g, "fuzz", 0, &why);
    (void)err; /* refusing is as good */
    tokenize(g);
    gguf_close(g);
    return 0;
}
