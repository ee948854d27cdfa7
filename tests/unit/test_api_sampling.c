/* test_api_sampling: how tokens are drawn: every field, every wrong value. */
#include <stdio.h>

#include "tests/support/api_rig.h"

/* A request for one prompt, with these members besides. */
static struct api_request *ask(struct api_rig *rig, const char *members)
{
    char body[4096];
    snprintf(body, sizeof body, "{\"prompt\":[5,6,7]%s%s}", *members ? "," : "", members);
    return api_rig_parse(rig, API_COMPLETION, body);
}

static void defaults_are_neutral(void **state)
{
    struct api_request *r = ask(api_rig_of(state), "");
    const struct sampling *s = &r->sampling;
    assert_true(s->temperature == 1 && s->top_p == 1 && s->min_p == 0 && s->top_k == 0 && s->repetition_penalty == 1);
    assert_true(s->presence_penalty == 0 && s->frequency_penalty == 0 && s->min_tokens == 0 && s->logprobs == 0 &&
                s->bias_count == 0);
    api_request_free(r);
}

static void every_field_arrives(void **state)
{
    struct api_request *r = ask(
        api_rig_of(state),
        "\"temperature\":0,\"top_p\":0.5,\"min_p\":0.25,\"top_k\":40,\"seed\":-3,\"presence_penalty\":-2,"
        "\"frequency_penalty\":2,\"repetition_penalty\":1.5,\"min_tokens\":2,\"logprobs\":3,"
        "\"max_tokens\":5,\"logit_bias\":{\"30\":-100,\"4\":1.5},\"stop_token_ids\":[11,12],\"stop\":[\"a\",\"bc\"]");
    const struct sampling *s = &r->sampling;
    assert_true(s->temperature == 0 && s->top_p == 0.5f && s->min_p == 0.25f && s->top_k == 40 &&
                s->seed == (uint64_t)-3);
    assert_true(s->presence_penalty == -2 && s->frequency_penalty == 2 && s->repetition_penalty == 1.5f);
    assert_true(s->min_tokens == 2 && s->logprobs == 4 && r->logprobs && r->top_logprobs == 3);
    assert_true(s->bias_count == 2 && s->bias[0].token == 4 && s->bias[0].bias == 1.5f && s->bias[1].token == 30 &&
                s->bias[1].bias == -100);
    assert_true(api_request_ends(r, 11) && api_request_ends(r, 12) && !api_request_ends(r, 13));
    assert_true(r->stops.count == 2 && r->stops.strings[1].length == 2);
    api_request_free(r);
}

static void top_k_beyond_the_vocabulary_is_off(void **state)
{
    static const char *const off[] = {"\"top_k\":0", "\"top_k\":-1", "\"top_k\":9223372036854775807"};
    for (size_t i = 0; i < 3; i++) {
        struct api_request *r = ask(api_rig_of(state), off[i]);
        assert_int_equal(r->sampling.top_k, 0);
        api_request_free(r);
    }
}

static void a_request_without_a_seed_gets_its_own(void **state)
{
    struct api_request *a = ask(api_rig_of(state), ""), *b = ask(api_rig_of(state), "");
    assert_true(a->sampling.seed != b->sampling.seed);
    api_request_free(a);
    api_request_free(b);
}

static void ignore_eos_leaves_only_the_requests_own_stop_ids(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    uint32_t eos = tokenizer_eos(rig->tokenizer);
    struct api_request *plain = ask(rig, ""), *ignoring = ask(rig, "\"ignore_eos\":true,\"stop_token_ids\":[9]");
    assert_true(api_request_ends(plain, eos));
    assert_false(api_request_ends(ignoring, eos));
    assert_int_equal(ignoring->sampling.stop_id_count, 1);
    api_request_free(plain);
    api_request_free(ignoring);
}

static void the_penalty_has_two_names_that_must_agree(void **state)
{
    struct api_request *r = ask(api_rig_of(state), "\"repeat_penalty\":1.5");
    assert_true(r->sampling.repetition_penalty == 1.5f);
    api_request_free(r);
    r = ask(api_rig_of(state), "\"repetition_penalty\":1.5,\"repeat_last_n\":0");
    assert_true(r->sampling.repetition_penalty == 1);
    api_request_free(r);
    api_rig_refuse(*state, API_COMPLETION, "{\"prompt\":\"x\",\"repeat_penalty\":1.5,\"repetition_penalty\":2}",
                   "repeat_penalty");
    api_rig_refuse(*state, API_COMPLETION, "{\"prompt\":\"x\",\"repeat_last_n\":64}", "repeat_last_n");
}

static void each_wrong_value_is_refused_by_name(void **state)
{
    static const struct {
        const char *field, *values[12];
    } cases[] = {
        {"temperature", {"-1", "-1e-9", "\"hot\"", "1e308", "101", "true", "[]", "{}"}},
        {"top_p", {"-0.1", "1.1", "\"x\"", "[]"}},
        {"top_k", {"-5", "-2", "1.5", "\"x\"", "9223372036854775808", "true"}},
        {"min_p", {"-1", "2", "\"x\""}},
        {"seed", {"\"x\"", "1.5", "[]", "18446744073709551616", "true"}},
        {"presence_penalty", {"99", "-2.1", "\"x\""}},
        {"frequency_penalty", {"-99", "2.1", "\"x\""}},
        {"repetition_penalty", {"0", "-1", "\"x\"", "1e9"}},
        {"min_tokens", {"-1", "1.5", "\"x\"", "17", "4294967296"}},
        {"logit_bias",
         {"[]", "{\"x\":1}", "{\"1\":\"x\"}", "{\"-5\":1}", "{\"999999999\":1}", "{\"01\":1}", "{\"\":1}",
          "{\"1\":101}", "{\"1 \":1}", "3"}},
        {"stop",
         {"5", "[5]", "\"\"", "[\"\"]", "{}",
          "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]"}},
        {"stop_token_ids", {"3", "[-1]", "[1000000000]", "[1.5]", "[\"1\"]"}},
        {"ignore_eos", {"1", "\"x\"", "[]"}},
        {"logprobs", {"\"x\"", "-1", "1000000", "21", "true", "1.5"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t v = 0; v < 12 && cases[i].values[v]; v++) {
            char body[512];
            snprintf(body, sizeof body, "{\"prompt\":\"x\",\"%s\":%s}", cases[i].field, cases[i].values[v]);
            api_rig_refuse(api_rig_of(state), API_COMPLETION, body, cases[i].field);
        }
}

static void chat_asks_for_log_probabilities_with_a_switch(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r =
        api_rig_parse(rig, API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"logprobs\":true}");
    assert_true(r->logprobs && r->sampling.logprobs == 1);
    api_request_free(r);
    api_rig_refuse(rig, API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"logprobs\":5}", "logprobs");
    api_rig_refuse(rig, API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":5}",
                   "top_logprobs");
    api_rig_refuse(rig, API_CHAT,
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"logprobs\":true,\"top_logprobs\":21}",
                   "top_logprobs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_neutral),
        cmocka_unit_test(every_field_arrives),
        cmocka_unit_test(top_k_beyond_the_vocabulary_is_off),
        cmocka_unit_test(a_request_without_a_seed_gets_its_own),
        cmocka_unit_test(ignore_eos_leaves_only_the_requests_own_stop_ids),
        cmocka_unit_test(the_penalty_has_two_names_that_must_agree),
        cmocka_unit_test(each_wrong_value_is_refused_by_name),
        cmocka_unit_test(chat_asks_for_log_probabilities_with_a_switch),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
