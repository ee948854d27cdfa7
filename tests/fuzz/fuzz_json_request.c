/* The body of a request: first byte says which route, the rest is the body. */
#include "base/must.h"
#include "coordinator/api_request.h"
#include "coordinator/json_scan.h"
#include "model/chat_template.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static const char template_text[] =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
static struct api_context context = {.model_name = "fuzz", .fingerprint = "fp", .context_tokens = 512};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    char path[512];
    struct gguf *g;
    struct tokenizer *tokenizer;
    struct chat_template *chat;
    must(gguf_open(&g, fuzz_path(path, "vocabulary.gguf"), NULL) == OK);
    must(tokenizer_open(&tokenizer, g, NULL) == OK);
    gguf_close(g);
    must(chat_template_open(&chat, template_text, sizeof template_text - 1, NULL) == OK);
    context.tokenizer = tokenizer;
    context.chat_template = chat;
    must(api_context_open(&context, NULL) == OK);
    return 0;
}

static void look_at(const struct api_request *r)
{
    struct sampling sampling;
    must(r->n >= 1 && r->prompt_count >= 1 && api_request_choices(r) <= API_MOST_CHOICES);
    for (uint32_t i = 0; i < api_request_choices(r); i++) {
        const struct api_prompt *p = api_request_prompt(r, i);
        must(p->count >= 1 && p->count + p->max_tokens <= context.context_tokens);
        for (uint32_t t = 0; t < p->count; t++)
            must(p->tokens[t] < context.vocab);
        api_request_sampling(r, i, &sampling);
        must(sampling.stop_id_count <= SAMPLING_MAX_STOP_IDS);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct api_request *r;
    struct api_error e;
    const char *body = (const char *)data + 1;
    if (api_request_parse(&context, data[0] & 1 ? API_CHAT : API_COMPLETION, body, size - 1, &r, &e) == OK)
        look_at(r);
    else
        must(e.status >= 400 && e.status < 600 && *e.message);
    api_request_free(r);
    return 0;
}
