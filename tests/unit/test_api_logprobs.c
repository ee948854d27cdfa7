/* test_api_logprobs: both forms of log-probabilities. */
#include <math.h>

#include "coordinator/api_logprobs.h"
#include "tests/support/api_rig.h"

/* The id of a single-token text. */
static uint32_t token_of(struct api_rig *rig, const char *text)
{
    struct token_list ids = api_rig_tokens(rig, text);
    uint32_t id = ids.ids[0];
    assert_int_equal(ids.count, 1);
    token_list_fini(&ids);
    return id;
}

/* A token that is no whole text: the first of a rare character. */
static uint32_t half_a_character(struct api_rig *rig)
{
    struct token_list ids = api_rig_tokens(rig, "\xF0\x9F\xA6\xA9");
    uint32_t id = ids.ids[0];
    assert_true(ids.count > 1);
    token_list_fini(&ids);
    return id;
}

static void chat_gives_token_bytes_and_alternatives(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct position_scores scores = {-0.25f, 2, {{token_of(rig, " a"), -0.125f}, {half_a_character(rig), -INFINITY}}};
    struct text out = {0};
    api_logprobs_write_chat(&out, rig->tokenizer,
                            &(struct scored_token){.token = token_of(rig, " the"), .scores = &scores});
    json_t *entry = api_rig_json(&out);
    assert_string_equal(json_string_value(json_object_get(entry, "token")), " the");
    assert_true(json_real_value(json_object_get(entry, "logprob")) == -0.25);
    json_t *bytes = json_pack("[i,i,i,i]", ' ', 't', 'h', 'e');
    assert_true(json_equal(json_object_get(entry, "bytes"), bytes));
    const json_t *top = json_object_get(entry, "top_logprobs");
    assert_int_equal(json_array_size(top), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(top, 0), "token")), " a");
    assert_string_equal(json_string_value(json_object_get(json_array_get(top, 1), "token")), "\xEF\xBF\xBD");
    assert_true(json_real_value(json_object_get(json_array_get(top, 1), "logprob")) == -9999);
    assert_true(json_array_size(json_object_get(json_array_get(top, 1), "bytes")) > 1);
    json_decref(bytes);
    json_decref(entry);
    text_fini(&out);
}

static void completions_give_four_lists_of_one_length(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct position_scores scores = {-2, 1, {{token_of(rig, " a"), -0.5f}}};
    struct scored_token tokens[] = {
        {token_of(rig, " the"), 0, NULL}, {half_a_character(rig), 4, &scores}, {token_of(rig, " a"), 5, &scores}};
    struct text out = {0};
    api_logprobs_write_completion(&out, rig->tokenizer, tokens, 3);
    json_t *all = api_rig_json(&out);
    const json_t *names = json_object_get(all, "tokens"), *top = json_object_get(all, "top_logprobs");
    assert_int_equal(json_array_size(names), 3);
    assert_memory_equal(json_string_value(json_array_get(names, 1)), "bytes:\\xf0", 10);
    assert_true(json_is_null(json_array_get(json_object_get(all, "token_logprobs"), 0)));
    assert_true(json_number_value(json_array_get(json_object_get(all, "token_logprobs"), 1)) == -2);
    assert_true(json_is_null(json_array_get(top, 0)));
    assert_int_equal(json_object_size(json_array_get(top, 1)), 2); /* the alternative and the token itself */
    assert_int_equal(json_object_size(json_array_get(top, 2)), 1); /* one name, not twice */
    assert_true(json_number_value(json_object_get(json_array_get(top, 2), " a")) == -0.5);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(all, "text_offset"), 2)), 5);
    json_decref(all);
    text_fini(&out);
}

static void no_tokens_are_four_empty_lists(void **state)
{
    struct text out = {0};
    api_logprobs_write_completion(&out, api_rig_of(state)->tokenizer, NULL, 0);
    text_add(&out, "", 1);
    assert_string_equal(out.at, "{\"tokens\":[],\"token_logprobs\":[],\"top_logprobs\":[],\"text_offset\":[]}");
    text_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_gives_token_bytes_and_alternatives),
        cmocka_unit_test(completions_give_four_lists_of_one_length),
        cmocka_unit_test(no_tokens_are_four_empty_lists),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
