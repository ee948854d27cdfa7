/* test_api_tokenize: the small routes about model and tokenizer. */
#include "coordinator/api_tokenize.h"
#include "tests/support/api_rig.h"

static json_t *tokenize(struct api_rig *rig, const char *body)
{
    struct text out = {0};
    struct api_error e;
    if (api_tokenize(&rig->context, body, strlen(body), &out, &e) != OK)
        fail_msg("%s: %s", body, e.message);
    json_t *answer = api_rig_json(&out);
    text_fini(&out);
    return answer;
}

static void assert_ids(const json_t *answer, const struct token_list *expected)
{
    const json_t *ids = json_object_get(answer, "tokens");
    assert_int_equal(json_array_size(ids), expected->count);
    for (size_t i = 0; i < expected->count; i++)
        assert_int_equal(json_integer_value(json_array_get(ids, i)), expected->ids[i]);
    assert_int_equal(json_integer_value(json_object_get(answer, "count")), expected->count);
}

static void both_dialects_give_the_same_tokens(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct token_list expected = api_rig_tokens(rig, "Hello world");
    json_t *ours = tokenize(rig, "{\"content\":\"Hello world\"}"),
           *theirs = tokenize(rig, "{\"prompt\":\"Hello world\",\"add_special_tokens\":false}");
    assert_ids(ours, &expected);
    assert_ids(theirs, &expected);
    assert_int_equal(json_integer_value(json_object_get(theirs, "max_model_len")), 2048);
    json_decref(ours);
    json_decref(theirs);
    token_list_fini(&expected);
}

static void control_tokens_are_parsed_unless_told_not_to(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    json_t *parsed = tokenize(rig, "{\"content\":\"<|im_end|>\"}"),
           *spelt = tokenize(rig, "{\"content\":\"<|im_end|>\",\"parse_special\":false}");
    assert_int_equal(json_array_size(json_object_get(parsed, "tokens")), 1);
    assert_true(json_array_size(json_object_get(spelt, "tokens")) > 1);
    json_decref(parsed);
    json_decref(spelt);
}

static void pieces_are_strings_or_bytes(void **state)
{
    json_t *answer = tokenize(api_rig_of(state),
                              "{\"content\":\"Hi\\uD83E\\uDDA9\",\"with_pieces\":true,\"return_token_strs\":true}");
    const json_t *tokens = json_object_get(answer, "tokens");
    assert_string_equal(json_string_value(json_object_get(json_array_get(tokens, 0), "piece")), "Hi");
    assert_true(json_is_array(json_object_get(json_array_get(tokens, 1), "piece")));
    assert_int_equal(json_array_size(json_object_get(answer, "token_strs")), json_array_size(tokens));
    json_decref(answer);
}

static void messages_are_tokenized_with_their_template(void **state)
{
    static const char messages[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = api_rig_parse(rig, API_CHAT, messages);
    json_t *answer = tokenize(rig, messages);
    assert_ids(answer, &(struct token_list){.ids = r->prompts[0].tokens, .count = r->prompts[0].count});
    json_decref(answer);
    api_request_free(r);
}

static void detokenizing_gives_the_text_back_under_both_names(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    json_t *answer = tokenize(rig, "{\"content\":\"caf\\u00e9 \\uD83E\\uDDA9<|im_end|>\"}"),
           *body = json_pack("{s:O}", "tokens", json_object_get(answer, "tokens"));
    char *text = json_dumps(body, 0);
    struct text out = {0};
    struct api_error e;
    assert_int_equal(api_detokenize(&rig->context, text, strlen(text), &out, &e), OK);
    json_t *back = api_rig_json(&out);
    assert_string_equal(json_string_value(json_object_get(back, "content")), "caf\xC3\xA9 \xF0\x9F\xA6\xA9<|im_end|>");
    assert_true(json_equal(json_object_get(back, "content"), json_object_get(back, "prompt")));
    json_decref(back);
    json_decref(body);
    json_decref(answer);
    free(text);
    text_fini(&out);
}

static void wrong_bodies_are_refused(void **state)
{
    static const struct {
        bool detokenize;
        const char *body, *param;
    } cases[] = {
        {false, "{}", "content"},
        {false, "{\"content\":3}", "content"},
        {false, "{\"prompt\":[1]}", "prompt"},
        {false, "{\"messages\":3}", "messages"},
        {false, "{\"content\":\"x\",\"prompt\":\"y\"}", "content"},
        {false, "{\"content\":\"x\",\"add_special\":1}", "add_special"},
        {true, "{}", "tokens"},
        {true, "{\"tokens\":\"x\"}", "tokens"},
        {true, "{\"tokens\":[-1]}", "tokens"},
        {true, "{\"tokens\":[1e3]}", "tokens"},
    };
    struct api_rig *rig = api_rig_of(state);
    struct text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_error e;
        enum err err = (cases[i].detokenize ? api_detokenize : api_tokenize)(&rig->context, cases[i].body,
                                                                             strlen(cases[i].body), &out, &e);
        assert_int_equal(err, ERR_INVALID);
        assert_string_equal(e.param, cases[i].param);
    }
    text_fini(&out);
}

static void tokenizer_info_is_what_eval_tools_read(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct text out = {0};
    api_tokenizer_info(&rig->context, &out);
    json_t *info = api_rig_json(&out);
    assert_string_equal(json_string_value(json_object_get(info, "eos_token")), "<|im_end|>");
    assert_string_equal(json_string_value(json_object_get(info, "chat_template")), rig->chat_template_text);
    assert_int_equal(json_object_size(info), 4);
    json_decref(info);
    text_fini(&out);
}

static void the_model_answers_to_its_name_and_to_default(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_model_card card = {.created = 1700000000,
                                  .trained_context_tokens = 8192,
                                  .embedding = 576,
                                  .parameters = 134515008,
                                  .bytes = 98362432};
    struct text out = {0};
    struct api_error e;
    api_models_write(&out, &rig->context, &card);
    json_t *list = api_rig_json(&out);
    const json_t *model = json_array_get(json_object_get(list, "data"), 0);
    assert_string_equal(json_string_value(json_object_get(model, "id")), rig->context.model_name);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(model, "meta"), "n_ctx_train")), 8192);
    const char *names[] = {rig->context.model_name, "default"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(api_model_write(&out, &rig->context, &card, names[i], &e), OK);
        json_t *one = api_rig_json(&out);
        assert_true(json_equal(one, model));
        json_decref(one);
    }
    assert_int_equal(api_model_write(&out, &rig->context, &card, "gpt-4o", &e), ERR_UNSUPPORTED);
    assert_int_equal(e.status, 404);
    json_decref(list);
    text_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_dialects_give_the_same_tokens),
        cmocka_unit_test(control_tokens_are_parsed_unless_told_not_to),
        cmocka_unit_test(pieces_are_strings_or_bytes),
        cmocka_unit_test(messages_are_tokenized_with_their_template),
        cmocka_unit_test(detokenizing_gives_the_text_back_under_both_names),
        cmocka_unit_test(wrong_bodies_are_refused),
        cmocka_unit_test(tokenizer_info_is_what_eval_tools_read),
        cmocka_unit_test(the_model_answers_to_its_name_and_to_default),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
