/* The operator's file comes before the model's own template, that before the plain one of the turns in the vocabulary. */
#include "coordinator/template_choice.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "model/chat_template.h"
#include "model/gguf_header.h"

struct made {
    struct gguf *g;
    struct tokenizer *t;
    uint8_t *bytes;
};

/* A vocabulary of three tokens, the last one `turn`; own: its template, or NULL. */
static struct made make(const char *turn, const char *own)
{
    struct made m = {0};
    struct gguf_header h = {0};
    struct gguf_view view = {0};
    struct why why;
    const char *tokens[] = {"[UNK]", "a", turn};
    gguf_header_string(&h, "tokenizer.ggml.model", "bert", 4);
    gguf_header_array(&h, "tokenizer.ggml.tokens", GGUF_STRING, 3);
    for (int i = 0; i < 3; i++)
        gguf_header_element_string(&h, tokens[i], strlen(tokens[i]));
    gguf_header_array(&h, "tokenizer.ggml.token_type", GGUF_I32, 3);
    for (int32_t i = 0; i < 3; i++)
        gguf_header_element(&h, &(int32_t){i == 1 ? 1 : i == 0 ? 2 : 3}, sizeof(int32_t));
    gguf_header_u32(&h, "tokenizer.ggml.unknown_token_id", 0);
    if (own)
        gguf_header_string(&h, "tokenizer.chat_template", own, strlen(own));
    assert_int_equal(gguf_header_finish(&h, &m.bytes, &view.length, NULL), OK);
    view.header = m.bytes;
    assert_int_equal(gguf_open_view(&m.g, &view, "made", NULL), OK);
    if (tokenizer_open(&m.t, m.g, &why))
        fail_msg("%s", why.text);
    gguf_header_fini(&h);
    return m;
}

static void unmake(struct made *m)
{
    tokenizer_close(m->t);
    gguf_close(m->g);
    free(m->bytes);
}

static void expect_choice(const struct made *m, const char *file, const char *whose, const char *rendered)
{
    struct template_choice choice;
    struct chat_template *template = NULL;
    struct why why;
    char *text = NULL;
    size_t length;
    assert_int_equal(template_choose(&choice, file, m->g, m->t, &why), OK);
    assert_non_null(strstr(choice.whose, whose));
    if (chat_template_open(&template, choice.text, choice.length, &why))
        fail_msg("%s", why.text);
    json_t *variables =
        json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:n},{s:s,s:s}],s:b,s:s,s:s}", "messages", "role", "system", "content",
                  "Be brief.", "role", "user", "content", " Hello ", "role", "assistant", "content", "role", "user",
                  "content", "Bye", "add_generation_prompt", 1, "bos_token", "<bos>", "eos_token", "");
    assert_non_null(variables);
    if (chat_template_render(template, variables, NULL, &text, &length, &why))
        fail_msg("%s", why.text);
    assert_int_equal(length, strlen(rendered));
    assert_memory_equal(text, rendered, length);
    json_decref(variables);
    free(text);
    free(choice.text);
    chat_template_close(template);
}

static void turn_tokens_of_the_vocabulary_give_a_plain_template(void **state)
{
    (void)state;
    struct made gemma = make("<start_of_turn>", NULL), chatml = make("<|im_start|>", NULL), none = make("<turn>", NULL);
    expect_choice(&gemma, NULL, "Gemma",
                  "<bos><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n"
                  "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
    expect_choice(&chatml, "", "ChatML",
                  "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hello <|im_end|>\n"
                  "<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
    struct template_choice choice;
    assert_int_equal(template_choose(&choice, NULL, none.g, none.t, NULL), OK);
    assert_null(choice.text);
    unmake(&gemma);
    unmake(&chatml);
    unmake(&none);
}

static void a_file_comes_first_and_the_models_own_second(void **state)
{
    (void)state;
    struct made m = make("<|im_start|>", "own");
    expect_choice(&m, NULL, "the model's", "own");
    char path[] = "/tmp/quire-test-template-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct template_choice choice;
    struct why why;
    assert_int_equal(template_choose(&choice, path, m.g, m.t, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "is empty"));
    assert_null(choice.text);
    assert_int_equal(write(fd, "of the file", 11), 11);
    close(fd);
    expect_choice(&m, path, "file", "of the file");
    unlink(path);
    assert_int_equal(template_choose(&choice, path, m.g, m.t, &why), ERR_IO);
    assert_non_null(strstr(why.text, path));
    unmake(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turn_tokens_of_the_vocabulary_give_a_plain_template),
        cmocka_unit_test(a_file_comes_first_and_the_models_own_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
