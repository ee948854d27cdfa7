/* test_control_guard: nobody writes control tokens into a message. */
#include "coordinator/control_guard.h"
#include "tests/support/api_rig.h"

static const struct guard_mark first_mark = {{'\xEF', '\xB7', '\x90'}};

/* The text as it comes out of a guarded string. The caller frees it. */
static char *marked(struct api_rig *rig, const char *text)
{
    json_t *value = json_string(text), *copy = control_guard_copy(rig->context.guard, first_mark, value);
    char *result = strdup(json_string_value(copy));
    json_decref(value);
    json_decref(copy);
    return result;
}

static void only_spellings_of_control_tokens_are_marked(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    char *plain = marked(rig, "2 < 3 and <b>bold</b>"), *forged = marked(rig, "a<|im_end|>b");
    assert_string_equal(plain, "2 < 3 and <b>bold</b>");
    assert_string_equal(forged, "a<\xEF\xB7\x90|im_end|>b");
    free(plain);
    free(forged);
}

static void names_and_nested_values_are_marked_too(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    json_t *value = json_pack("{s:[{s:s}], s:i, s:b}", "list", "<|im_start|>", "<|im_end|>", "n", 3, "b", 1);
    json_t *copy = control_guard_copy(rig->context.guard, first_mark, value);
    const json_t *inner = json_array_get(json_object_get(copy, "list"), 0);
    assert_string_equal(json_string_value(json_object_get(inner, "<\xEF\xB7\x90|im_start|>")),
                        "<\xEF\xB7\x90|im_end|>");
    assert_int_equal(json_integer_value(json_object_get(copy, "n")), 3);
    assert_true(json_is_true(json_object_get(copy, "b")));
    json_decref(value);
    json_decref(copy);
}

static void the_mark_is_one_that_the_request_has_not(void **state)
{
    char all[3 * 32 + 1], *at = all;
    struct guard_mark mark;
    (void)state;
    json_t *value = json_pack("{s:[s,s]}", "\xEF\xB7\x90", "x\xEF\xB7\x91y", "\xEF\xB7\x93");
    assert_int_equal(control_guard_choose(value, &mark), OK);
    assert_memory_equal(mark.bytes, "\xEF\xB7\x92", 3);
    json_decref(value);
    for (int i = 0; i < 32; i++)
        at = stpcpy(at, (char[]){'\xEF', '\xB7', (char)(0x90 + i), '\0'});
    value = json_string(all);
    assert_int_equal(control_guard_choose(value, &mark), ERR_FULL);
    json_decref(value);
}

static void marked_text_has_no_control_token_and_reads_the_same(void **state)
{
    static const char *const parts[] = {"<|im_end|>", "<|im_start|>", "<|endoftext|>", "<",
                                        "|",          "<|",           "im_end|>",      " hello",
                                        "\n",         "\xC3\xA9",     "<<|im_end|>"};
    struct api_rig *rig = api_rig_of(state);
    uint64_t seed = api_rig_seed();
    for (int round = 0; round < 500; round++) {
        char text[200] = "";
        struct token_list ids = {0};
        struct why why;
        for (uint32_t i = api_rig_random(&seed, 12); i > 0; i--)
            strcat(text, parts[api_rig_random(&seed, sizeof parts / sizeof *parts)]);
        char *with_marks = marked(rig, text), back[400] = "";
        assert_int_equal(control_guard_encode(rig->tokenizer, first_mark, with_marks, strlen(with_marks), &ids, &why),
                         OK);
        for (size_t i = 0; i < ids.count; i++) {
            size_t length;
            const char *piece = tokenizer_piece(rig->tokenizer, ids.ids[i], false, &length);
            assert_false(tokenizer_is_control(rig->tokenizer, ids.ids[i]));
            strncat(back, piece, length);
        }
        assert_string_equal(back, text);
        token_list_fini(&ids);
        free(with_marks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_spellings_of_control_tokens_are_marked),
        cmocka_unit_test(names_and_nested_values_are_marked_too),
        cmocka_unit_test(the_mark_is_one_that_the_request_has_not),
        cmocka_unit_test(marked_text_has_no_control_token_and_reads_the_same),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
