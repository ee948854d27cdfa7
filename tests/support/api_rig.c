/* api_rig: see api_rig.h. */
#include "tests/support/api_rig.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "model/gguf.h"

static const char *model_path(char path[512])
{
    const char *root = getenv("QUIRE_ROOT");
    snprintf(path, 512, "%s/models/smollm2.gguf", root ? root : ".");
    return path;
}

int api_rig_open(void **state)
{
    char path[512];
    struct why why = {""};
    struct gguf *g;
    *state = NULL;
    if (access(model_path(path), R_OK) != 0) {
        print_message("%s is not there: `make model` gets it\n", path);
        return 0;
    }
    struct api_rig *rig = calloc(1, sizeof *rig);
    struct gguf_string text = {0};
    assert_non_null(rig);
    assert_int_equal(gguf_open(&g, path, &why), OK);
    assert_int_equal(tokenizer_open(&rig->tokenizer, g, &why), OK);
    assert_int_equal(gguf_get_string(g, "tokenizer.chat_template", true, &text, &why), OK);
    rig->chat_template_text = strndup(text.at, text.length);
    assert_int_equal(chat_template_open(&rig->chat_template, text.at, text.length, &why), OK);
    gguf_close(g);
    rig->context = (struct api_context){
        .tokenizer = rig->tokenizer,
        .chat_template = rig->chat_template,
        .chat_template_text = rig->chat_template_text,
        .chat_template_bytes = strlen(rig->chat_template_text),
        .model_name = "tiny \"quoted\" model",
        .fingerprint = "fp_test",
        .context_tokens = 2048,
    };
    assert_int_equal(api_context_open(&rig->context, &why), OK);
    *state = rig;
    return 0;
}

int api_rig_close(void **state)
{
    struct api_rig *rig = *state;
    if (!rig)
        return 0;
    api_context_close(&rig->context);
    chat_template_close(rig->chat_template);
    tokenizer_close(rig->tokenizer);
    free(rig->chat_template_text);
    free(rig);
    return 0;
}

struct api_rig *api_rig_of(void **state)
{
    if (!*state)
        skip();
    return *state;
}

struct api_request *api_rig_parse(struct api_rig *rig, enum api_kind kind, const char *body)
{
    struct api_request *r;
    struct api_error e;
    if (api_request_parse(&rig->context, kind, body, strlen(body), &r, &e) != OK)
        fail_msg("%s: %s (%s)", body, e.message, e.param);
    return r;
}

void api_rig_refuse(struct api_rig *rig, enum api_kind kind, const char *body, const char *param)
{
    struct api_request *r;
    struct api_error e;
    if (api_request_parse(&rig->context, kind, body, strlen(body), &r, &e) == OK)
        fail_msg("%.200s was not refused", body);
    assert_null(r);
    assert_int_equal(e.status, 400);
    if (strcmp(e.param, param) != 0)
        fail_msg("%.200s: param is \"%s\", expected \"%s\": %s", body, e.param, param, e.message);
    assert_true(strlen(e.message) > 10);
}

json_t *api_rig_json(struct text *text)
{
    json_error_t error;
    assert_false(text->failed);
    json_t *value = json_loadb(text->at, text->length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!value)
        fail_msg("not JSON: %s: %.*s", error.text, (int)text->length, text->at);
    text_clear(text);
    return value;
}

struct token_list api_rig_tokens(struct api_rig *rig, const char *text)
{
    struct token_list list = {0};
    struct why why;
    assert_int_equal(tokenizer_encode(rig->tokenizer, text, strlen(text), false, &list, &why), OK);
    return list;
}

uint64_t api_rig_seed(void)
{
    const char *given = getenv("QUIRE_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u;
    print_message("QUIRE_SEED=%llu\n", (unsigned long long)seed);
    return seed | 1;
}

uint32_t api_rig_random(uint64_t *seed, uint32_t below)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return (uint32_t)((*seed * 0x2545F4914F6CDD1Du) >> 33) % below;
}
