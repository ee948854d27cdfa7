/* test_api_prompts: prompts of completions: forms, bounds, echo. */
#include <stdio.h>

#include "tests/support/api_rig.h"

static void assert_tokens(const struct api_prompt *prompt, const uint32_t *ids, size_t count)
{
    assert_int_equal(prompt->count, count);
    assert_memory_equal(prompt->tokens, ids, count * sizeof *ids);
}

static void a_string_becomes_its_tokens(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = api_rig_parse(rig, API_COMPLETION, "{\"prompt\":\"Once upon a time\"}");
    struct token_list expected = api_rig_tokens(rig, "Once upon a time");
    assert_int_equal(r->prompt_count, 1);
    assert_tokens(&r->prompts[0], expected.ids, expected.count);
    assert_int_equal(r->prompts[0].max_tokens, 16);
    assert_null(r->prompts[0].echo);
    token_list_fini(&expected);
    api_request_free(r);
}

static void ids_are_taken_as_they_are(void **state)
{
    struct api_request *r = api_rig_parse(api_rig_of(state), API_COMPLETION, "{\"prompt\":[[3,4],\"x\",[5]],\"n\":2}");
    assert_int_equal(r->prompt_count, 3);
    assert_int_equal(api_request_choices(r), 6);
    assert_tokens(&r->prompts[0], (uint32_t[]){3, 4}, 2);
    assert_tokens(&r->prompts[2], (uint32_t[]){5}, 1);
    assert_ptr_equal(api_request_prompt(r, 5), &r->prompts[2]);
    struct sampling s;
    api_request_sampling(r, 1, &s);
    assert_true(s.choice == 1 && s.prompt_tokens == 2 && s.seed == r->sampling.seed);
    api_request_free(r);
}

static void control_tokens_in_a_prompt_are_recognised(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = api_rig_parse(rig, API_COMPLETION, "{\"prompt\":\"<|im_end|>\"}");
    assert_tokens(&r->prompts[0], (uint32_t[]){tokenizer_special(rig->tokenizer, "<|im_end|>", 10)}, 1);
    api_request_free(r);
}

static void echo_shows_a_string_as_it_came_and_ids_as_they_are_spelt(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct token_list ids = api_rig_tokens(rig, "caf\xC3\xA9");
    char body[256];
    size_t at = (size_t)snprintf(body, sizeof body, "{\"echo\":true,\"prompt\":[\"a \\u00e9\",[%u",
                                 tokenizer_eos(rig->tokenizer));
    for (size_t i = 0; i < ids.count; i++)
        at += (size_t)snprintf(body + at, sizeof body - at, ",%u", ids.ids[i]);
    snprintf(body + at, sizeof body - at, "]]}");
    struct api_request *r = api_rig_parse(rig, API_COMPLETION, body);
    assert_int_equal(r->prompts[0].echo_bytes, 4);
    assert_memory_equal(r->prompts[0].echo, "a \xC3\xA9", 4);
    size_t eos_bytes;
    const char *eos = tokenizer_token_text(rig->tokenizer, tokenizer_eos(rig->tokenizer), &eos_bytes);
    assert_int_equal(r->prompts[1].echo_bytes, eos_bytes + 5);
    assert_memory_equal(r->prompts[1].echo, eos, eos_bytes);
    assert_memory_equal(r->prompts[1].echo + eos_bytes, "caf\xC3\xA9", 5);
    token_list_fini(&ids);
    api_request_free(r);
}

/* A body whose prompt has `count` ids. */
static char *long_body(size_t count, const char *members)
{
    char *body = malloc(32 + 2 * count + strlen(members)), *at = stpcpy(body, "{\"prompt\":[1");
    for (size_t i = 1; i < count; i++)
        at = stpcpy(at, ",1");
    at = stpcpy(at, "]");
    stpcpy(stpcpy(at, members), "}");
    return body;
}

static void a_prompt_must_leave_room_for_one_token(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    char *fits = long_body(2047, ",\"max_tokens\":100"), *full = long_body(2048, ""),
         *scored = long_body(2048, ",\"max_tokens\":0");
    struct api_request *r = api_rig_parse(rig, API_COMPLETION, fits);
    assert_int_equal(r->prompts[0].max_tokens, 1);
    api_request_free(r);
    r = api_rig_parse(rig, API_COMPLETION, scored);
    assert_int_equal(r->prompts[0].max_tokens, 0);
    api_request_free(r);

    struct api_error e;
    assert_int_equal(api_request_parse(&rig->context, API_COMPLETION, full, strlen(full), &r, &e), ERR_INVALID);
    assert_string_equal(e.code, "context_length_exceeded");
    assert_string_equal(e.param, "prompt");
    assert_int_equal(e.prompt_tokens, 2048);
    assert_int_equal(e.context_tokens, 2048);
    free(fits);
    free(full);
    free(scored);
}

static void a_text_that_can_never_fit_is_not_tokenized(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    size_t bytes = 4 << 20;
    char *body = malloc(bytes + 16), *at = stpcpy(body, "{\"prompt\":\"");
    struct api_request *r;
    struct api_error e;
    memset(at, 'a', bytes);
    strcpy(at + bytes, "\"}");
    assert_int_equal(api_request_parse(&rig->context, API_COMPLETION, body, strlen(body), &r, &e), ERR_INVALID);
    assert_string_equal(e.code, "context_length_exceeded");
    assert_non_null(strstr(e.message, "at least"));
    free(body);
}

static void an_empty_prompt_begins_with_the_begin_token(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = api_rig_parse(rig, API_COMPLETION, "{\"prompt\":\"\"}");
    assert_tokens(&r->prompts[0], (uint32_t[]){tokenizer_bos(rig->tokenizer)}, 1);
    api_request_free(r);
}

static void wrong_prompts_are_refused(void **state)
{
    static const char *const prompts[] = {"{\"a\":1}", "3",
                                          "true",      "[]",
                                          "[-1]",      "[1000000000]",
                                          "[1.5]",     "[1,\"a\"]",
                                          "[\"a\",1]", "[[1],[],[-1]]",
                                          "[[1.5]]",   "[[[1]]]",
                                          "[null]",    "[true]",
                                          "[{}]",      "[9223372036854775807]"};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        char body[128];
        snprintf(body, sizeof body, "{\"prompt\":%s}", prompts[i]);
        api_rig_refuse(api_rig_of(state), API_COMPLETION, body, "prompt");
    }
    api_rig_refuse(*state, API_COMPLETION, "{}", "prompt");
    api_rig_refuse(*state, API_COMPLETION, "{\"prompt\":null}", "prompt");
}

static void one_request_cannot_fan_out_without_bound(void **state)
{
    api_rig_refuse(api_rig_of(state), API_COMPLETION, "{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":128}", "prompt");
    api_rig_refuse(*state, API_COMPLETION, "{\"prompt\":\"a\",\"n\":129}", "n");
    struct api_request *r = api_rig_parse(*state, API_COMPLETION, "{\"prompt\":[\"a\",\"b\"],\"n\":128}");
    assert_int_equal(api_request_choices(r), 256);
    api_request_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_string_becomes_its_tokens),
        cmocka_unit_test(ids_are_taken_as_they_are),
        cmocka_unit_test(control_tokens_in_a_prompt_are_recognised),
        cmocka_unit_test(echo_shows_a_string_as_it_came_and_ids_as_they_are_spelt),
        cmocka_unit_test(a_prompt_must_leave_room_for_one_token),
        cmocka_unit_test(a_text_that_can_never_fit_is_not_tokenized),
        cmocka_unit_test(an_empty_prompt_begins_with_the_begin_token),
        cmocka_unit_test(wrong_prompts_are_refused),
        cmocka_unit_test(one_request_cannot_fan_out_without_bound),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
