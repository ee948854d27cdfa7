/* A model file becomes all that a server needs to know of it, or one sentence that names the file. */
#include "coordinator/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/gguf_writer.h"
#include "tests/support/model_rig.h"

static void open_tiny(struct checkpoint *c, uint32_t context)
{
    char path[512];
    struct why why;
    if (!rig_find("tiny/llama/model-f32.gguf", path)) {
        print_message("the tiny llama fixture is not there\n");
        skip();
    }
    if (checkpoint_open(c, path, NULL, NULL, context, 64, &why))
        fail_msg("%s", why.text);
}

static void a_good_file_gives_model_tokenizer_and_names(void **state)
{
    static struct checkpoint c;
    (void)state;
    open_tiny(&c, 0);
    assert_true(c.served.model.layers > 0 && c.served.model.vocab > 0);
    assert_int_equal(c.served.step_tokens, 64);
    assert_non_null(c.tokenizer);
    assert_ptr_equal(c.api.tokenizer, c.tokenizer);
    assert_int_equal(c.api.context_tokens, c.served.model.context);
    assert_int_equal(c.api.vocab, c.served.model.vocab);
    assert_int_equal(strncmp(c.api.fingerprint, "quire-", 6), 0);
    assert_true(c.card.bytes > 0 && c.card.parameters > 0);
    checkpoint_close(&c);
    checkpoint_close(&c); /* closed is closed */
}

static void the_context_can_be_made_smaller(void **state)
{
    static struct checkpoint c;
    (void)state;
    open_tiny(&c, 48);
    assert_int_equal(c.api.context_tokens, 48);
    checkpoint_close(&c);
}

/* The sentence names the file; nothing stays open. */
static void refuse_file(const char *path, const char *reason)
{
    static struct checkpoint c;
    struct why why = {""};
    assert_int_not_equal(checkpoint_open(&c, path, NULL, NULL, 0, 64, &why), OK);
    if (!strstr(why.text, path) || !strstr(why.text, reason))
        fail_msg("this does not say \"%s\" of \"%s\": %s", reason, path, why.text);
    assert_null(strchr(why.text, '\n'));
    assert_null(c.tokenizer);
    assert_null(c.template_text);
}

static void a_file_that_is_not_there_or_no_model_gives_one_sentence(void **state)
{
    static struct file f;
    char path[64];
    (void)state;
    refuse_file("/nowhere/model.gguf", "No such file");
    snprintf(path, sizeof path, "/tmp/quire-test-checkpoint-%d", (int)getpid());
    for (uint32_t keys = 0; keys < 2; keys++) {
        f.length = 0;
        if (keys) {
            put_header(&f, 3, 0, 1);
            put_key_u32(&f, "general.alignment", 32);
            pad(&f, 32, 0);
        } else {
            put(&f, "this is no GGUF file at all, only text", 38);
        }
        FILE *out = fopen(path, "we");
        assert_non_null(out);
        assert_int_equal(fwrite(f.bytes, 1, f.length, out), f.length);
        fclose(out);
        refuse_file(path, keys ? "general.architecture" : "GGUF");
    }
    unlink(path);
}

static void a_file_that_ends_early_gives_one_sentence(void **state)
{
    char path[512], cut[64];
    (void)state;
    if (!rig_find("tiny/llama/model-f32.gguf", path))
        skip();
    FILE *in = fopen(path, "re");
    assert_non_null(in);
    char *bytes = malloc(1 << 24);
    size_t length = fread(bytes, 1, 1 << 24, in);
    fclose(in);
    snprintf(cut, sizeof cut, "/tmp/quire-test-checkpoint-%d", (int)getpid());
    for (size_t keep = 0; keep < length; keep += length / 97 + 1) {
        FILE *out = fopen(cut, "we");
        assert_non_null(out);
        assert_int_equal(fwrite(bytes, 1, keep, out), keep);
        fclose(out);
        refuse_file(cut, "");
    }
    unlink(cut);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_gives_model_tokenizer_and_names),
        cmocka_unit_test(the_context_can_be_made_smaller),
        cmocka_unit_test(a_file_that_is_not_there_or_no_model_gives_one_sentence),
        cmocka_unit_test(a_file_that_ends_early_gives_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
