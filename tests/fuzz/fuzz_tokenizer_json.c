/* tokenizer.json: what is taken becomes a header that the reader takes, and a tokenizer whose ids are in its vocabulary. */
#include <jansson.h>
#include <string.h>

#include "base/must.h"
#include "model/hub_tokenizer.h"
#include "model/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static void tokenize(const struct gguf *g)
{
    static const char text[] = "Hello, w\xc3\xb6rld 123 ab \xed\x95\x9c<s>\n";
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
    struct gguf_header header = {0};
    struct gguf_view view = {0};
    struct gguf *g;
    struct why why;
    uint8_t *bytes;
    json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    /* the file may also hold its own settings: one input, all of it */
    const struct hub_tokenizer from = {.directory = "fuzz",
                                       .tokenizer = json,
                                       .settings = json_object_get(json, "settings"),
                                       .config = json,
                                       .generation = json_object_get(json, "generation")};
    if (json_is_object(json) && hub_tokenizer_translate(&header, &from, &why) == OK &&
        gguf_header_finish(&header, &bytes, &view.length, &why) == OK) {
        view.header = bytes;
        must(gguf_open_view(&g, &view, "fuzz", &why) == OK);
        tokenize(g);
        gguf_close(g);
        free(bytes);
    }
    gguf_header_fini(&header);
    json_decref(json);
    return 0;
}
