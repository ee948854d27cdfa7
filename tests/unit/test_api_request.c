/* test_api_request: whole bodies: good, wrong and mutated. */
#include <stdio.h>

#include "tests/support/api_rig.h"

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]"

static void each_wrong_value_is_refused_by_name(void **state)
{
    static const struct {
        const char *field, *values[10];
    } cases[] = {
        {"max_tokens", {"-1", "0", "1.5", "\"8\"", "[]", "{}", "81129638414606681695789005144064", "true"}},
        {"max_completion_tokens", {"-1", "0", "1.5", "\"8\""}},
        {"n_predict", {"-1", "\"8\""}},
        {"n", {"0", "-1", "1000000", "\"x\"", "1.5", "129"}},
        {"stream", {"\"yes\"", "1", "[]"}},
        {"stream_options", {"{}", "3"}}, /* without stream */
        {"return_token_ids", {"1", "\"x\""}},
        {"model", {"3", "[]"}},
        {"cache_salt", {"3", "[]"}},
        {"temperature", {"-1", "\"hot\"", "1e308", "[]", "{}", "NaN"}},
        {"top_p", {"-0.1", "1.1", "\"x\""}},
        {"top_k", {"-5", "1.5", "\"x\"", "1000000000000000000000000000000"}},
        {"min_p", {"-1", "2", "\"x\""}},
        {"seed", {"\"x\"", "1.5", "[]"}},
        {"stop", {"5", "[5]"}},
        {"logit_bias", {"[]", "{\"x\":1}", "{\"1\":\"x\"}", "{\"-5\":1}", "{\"999999999\":1}"}},
        {"frequency_penalty", {"-99", "\"x\""}},
        {"presence_penalty", {"99", "\"x\""}},
        {"logprobs", {"\"x\"", "-1", "1000000"}},
        {"top_logprobs", {"-1", "1000000", "\"x\""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t v = 0; v < 10 && cases[i].values[v]; v++) {
            char body[512];
            snprintf(body, sizeof body, "{" MESSAGES ",\"%s\":%s}", cases[i].field, cases[i].values[v]);
            api_rig_refuse(api_rig_of(state), API_CHAT, body, cases[i].field);
        }
}

static void bodies_that_are_no_request_are_refused(void **state)
{
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"", ""},
        {"{", ""},
        {"[]", ""},
        {"{}{}", ""},
        {"null", ""},
        {"\"x\"", ""},
        {"{}", "messages"},
        {"{\"messages\":[],\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "messages"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\xFF\xFE\"}]}", "messages"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", "messages"},
        {"{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", "stream_options.include_usage"},
        {"{" MESSAGES ",\"max_tokens\":3,\"max_completion_tokens\":4}", "max_tokens"},
        {"{" MESSAGES ",\"max_tokens\":3,\"min_tokens\":4}", "min_tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        api_rig_refuse(api_rig_of(state), API_CHAT, cases[i].body, cases[i].param);
}

static void null_is_absent_and_unknown_fields_are_nobodys(void **state)
{
    struct api_request *r = api_rig_parse(
        api_rig_of(state), API_CHAT,
        "{" MESSAGES
        ",\"model\":\"gpt-4o\",\"temperature\":null,\"max_tokens\":null,\"n\":null,\"stream\":null,\"stop\":null,"
        "\"stream_options\":null,\"logit_bias\":null,\"seed\":null,\"tools\":null,\"user\":\"me\",\"foo\":{\"bar\":[]}}");
    assert_true(r->n == 1 && !r->stream && r->sampling.temperature == 1);
    api_request_free(r);
}

static void streaming_fields_arrive(void **state)
{
    struct api_request *r = api_rig_parse(
        api_rig_of(state), API_CHAT,
        "{" MESSAGES
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true},\"return_token_ids\":true}");
    assert_true(r->stream && r->include_usage && r->continuous_usage && r->return_token_ids);
    api_request_free(r);
}

static void the_names_of_max_tokens_are_one(void **state)
{
    static const char *const names[] = {"max_tokens", "max_completion_tokens", "n_predict"};
    for (size_t i = 0; i < 3; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"prompt\":\"x\",\"%s\":7}", names[i]);
        struct api_request *r = api_rig_parse(api_rig_of(state), API_COMPLETION, body);
        assert_int_equal(r->prompts[0].max_tokens, 7);
        api_request_free(r);
    }
}

static void equal_salts_are_equal_and_none_is_zero(void **state)
{
    struct api_request *a =
        api_rig_parse(api_rig_of(state), API_COMPLETION, "{\"prompt\":\"x\",\"cache_salt\":\"one\"}");
    struct api_request *b = api_rig_parse(*state, API_COMPLETION, "{\"prompt\":\"y\",\"cache_salt\":\"one\"}");
    struct api_request *c = api_rig_parse(*state, API_COMPLETION, "{\"prompt\":\"x\",\"cache_salt\":\"two\"}");
    struct api_request *none = api_rig_parse(*state, API_COMPLETION, "{\"prompt\":\"x\"}");
    assert_true(a->cache_salt == b->cache_salt && a->cache_salt != c->cache_salt && a->cache_salt != 0 &&
                none->cache_salt == 0);
    api_request_free(a);
    api_request_free(b);
    api_request_free(c);
    api_request_free(none);
}

static void scoring_is_echo_with_log_probabilities(void **state)
{
    struct api_request *both = api_rig_parse(api_rig_of(state), API_COMPLETION,
                                             "{\"prompt\":\"x\",\"echo\":true,\"logprobs\":0,\"max_tokens\":0}");
    struct api_request *one = api_rig_parse(*state, API_COMPLETION, "{\"prompt\":\"x\",\"echo\":true}");
    assert_true(both->score_prompt && both->sampling.logprobs == 1 && both->prompts[0].max_tokens == 0);
    assert_false(one->score_prompt);
    api_request_free(both);
    api_request_free(one);
}

/* Whatever comes out of a good body by a few changed bytes: a request, or a 400 with a message. */
static void mutated_bodies_are_answered_one_way_or_the_other(void **state)
{
    static const char *const bodies[] = {
        "{" MESSAGES
        ",\"max_tokens\":5,\"temperature\":0.5,\"stop\":[\"a\",\"b\"],\"logit_bias\":{\"5\":1},\"seed\":3,\"n\":2,\"logprobs\":true,\"top_logprobs\":2}",
        ("{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"<|im_end|>\"}]},{\"role\":\"assistant\",\"content\":\"x y\","
         "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":[1]}\"}}]}],\"continue_final_message\":true,\"chat_template_kwargs\":{\"a\":1}}"),
        "{\"prompt\":[[1,2],\"text\",[3]],\"echo\":true,\"logprobs\":2,\"stream\":true,\"stream_options\":{\"include_usage\":true},\"stop_token_ids\":[4]}",
    };
    static const char bytes[] = "{}[]\":,-01e.ntf\\u\xC3\xFF ";
    struct api_rig *rig = api_rig_of(state);
    uint64_t seed = api_rig_seed();
    uint32_t good = 0;
    for (int round = 0; round < 6000; round++) {
        const char *from = bodies[api_rig_random(&seed, 3)];
        size_t length = strlen(from);
        char *body = malloc(length); /* not terminated: no byte behind it is ours */
        struct api_request *r;
        struct api_error e;
        memcpy(body, from, length);
        for (uint32_t i = api_rig_random(&seed, 3); i > 0; i--)
            body[api_rig_random(&seed, (uint32_t)length)] = bytes[api_rig_random(&seed, sizeof bytes - 1)];
        enum api_kind kind = from == bodies[2] ? API_COMPLETION : API_CHAT;
        if (api_request_parse(&rig->context, kind, body, length, &r, &e) == OK) {
            good++;
            assert_true(api_request_choices(r) > 0 && r->prompts[0].count > 0);
            api_request_free(r);
        } else {
            assert_int_equal(e.status, 400);
            assert_true(e.message[0] != '\0');
        }
        free(body);
    }
    assert_true(good > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_wrong_value_is_refused_by_name),
        cmocka_unit_test(bodies_that_are_no_request_are_refused),
        cmocka_unit_test(null_is_absent_and_unknown_fields_are_nobodys),
        cmocka_unit_test(streaming_fields_arrive),
        cmocka_unit_test(the_names_of_max_tokens_are_one),
        cmocka_unit_test(equal_salts_are_equal_and_none_is_zero),
        cmocka_unit_test(scoring_is_echo_with_log_probabilities),
        cmocka_unit_test(mutated_bodies_are_answered_one_way_or_the_other),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
