/* Overridden keys: taken in full or without the architecture, held to their kinds, and refused where nobody reads them. */
#include "model/model_overrides.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct gguf_string llama = {"llama", 5};

static struct model_overrides o;

static void keys_are_taken_in_full_or_without_the_architecture(void **state)
{
    (void)state;
    assert_int_equal(model_overrides_parse(&o,
                                           "llama.context_length=512,rope.freq_base=2e4,tokenizer.ggml.add_bos_token="
                                           "true,general.name=a=b",
                                           llama, NULL),
                     OK);
    assert_int_equal(o.count, 4);
    assert_string_equal(o.at[0].key, "llama.context_length");
    assert_true(o.at[0].type == GGUF_U32 && o.at[0].count == 512);
    assert_string_equal(o.at[1].key, "llama.rope.freq_base");
    assert_true(o.at[1].type == GGUF_F32 && o.at[1].number == 20000.0f);
    assert_true(o.at[2].type == GGUF_BOOL && o.at[2].flag);
    assert_true(o.at[3].type == GGUF_STRING && o.at[3].text.length == 3 && memcmp(o.at[3].text.at, "a=b", 3) == 0);
    assert_true(model_overrides_has(&o, (struct gguf_string){"llama.rope.freq_base", 20}));
    assert_false(model_overrides_has(&o, (struct gguf_string){"rope.freq_base", 14}));
    assert_int_equal(model_overrides_parse(&o, "", llama, NULL), OK);
    assert_int_equal(o.count, 0);
}

static void what_makes_no_sense_is_refused_by_its_key(void **state)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        {"context_length", "not of the form key=value"},
        {"colour=red", "\"colour\" is no key of a llama model"},
        {"gemma3.context_length=5", "no key of a llama model"},
        {"llama.=5", "no key of a llama model"},
        {"=5", "no key of a llama model"},
        {"context_length=", "wants a whole number, not \"\""},
        {"context_length=-1", "wants a whole number"},
        {"context_length=1.5", "wants a whole number"},
        {"context_length=4294967296", "wants a whole number"},
        {"rope.freq_base=fast", "wants a number, not \"fast\""},
        {"rope.freq_base=inf", "wants a number"},
        {"tokenizer.ggml.add_bos_token=yes", "wants true or false"},
        {"context_length=5,llama.context_length=6", "overridden twice"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct why why = {""};
        enum err err = model_overrides_parse(&o, wrong[i].text, llama, &why);
        /* an unknown key is wrong for this model, anything else for every one */
        assert_int_equal(err, strstr(wrong[i].words, "no key") ? ERR_UNSUPPORTED : ERR_INVALID);
        if (!strstr(why.text, wrong[i].words))
            fail_msg("\"%s\" gave \"%s\"", wrong[i].text, why.text);
    }
}

static void they_stand_in_a_header_as_their_kind(void **state)
{
    struct gguf_header h = {0};
    struct gguf_view view = {0};
    struct gguf *g;
    uint8_t *bytes;
    uint32_t context = 0;
    float base = 0;
    (void)state;
    assert_int_equal(model_overrides_parse(&o, "context_length=512,rope.freq_base=7", llama, NULL), OK);
    model_overrides_put(&o, &h);
    assert_int_equal(gguf_header_finish(&h, &bytes, &view.length, NULL), OK);
    view.header = bytes;
    assert_int_equal(gguf_open_view(&g, &view, "made", NULL), OK);
    assert_int_equal(gguf_get_u32(g, "llama.context_length", true, &context, NULL), OK);
    assert_int_equal(gguf_get_f32(g, "llama.rope.freq_base", true, &base, NULL), OK);
    assert_true(context == 512 && base == 7.0f);
    gguf_close(g);
    free(bytes);
    gguf_header_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_taken_in_full_or_without_the_architecture),
        cmocka_unit_test(what_makes_no_sense_is_refused_by_its_key),
        cmocka_unit_test(they_stand_in_a_header_as_their_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
