/* test_api_response: streams, cut and picked up at random places, against the whole answer. */
#include <stdio.h>

#include "coordinator/api_response.h"
#include "tests/support/api_rig.h"

enum { MOST_CHOICES = 4, MOST_TOKENS = 200, MOST_PROMPT = 64 };

/* An answer being made: what sequences and the event loop are in the server. */
struct play {
    struct api_rig *rig;
    struct api_request *request;
    struct api_answer answer;
    struct api_choice choices[MOST_CHOICES];
    struct answer_text texts[MOST_CHOICES];
    uint32_t tokens[MOST_CHOICES][MOST_TOKENS];
    struct position_scores scores[MOST_CHOICES][MOST_TOKENS], prompt_scores[MOST_PROMPT];
    struct api_sent sent[MOST_CHOICES];
};

static struct position_scores some_scores(uint32_t token, uint32_t top)
{
    struct position_scores s = {.logprob = -0.1f * (float)(token % 37), .top_count = top};
    for (uint32_t i = 0; i < top; i++)
        s.top[i] = (struct result_top){(token + i) % 1000, -0.3f * (float)i};
    return s;
}

static struct play *begin(struct api_rig *rig, enum api_kind kind, const char *body)
{
    struct play *p = calloc(1, sizeof *p);
    p->rig = rig;
    p->request = api_rig_parse(rig, kind, body);
    assert_true(api_request_choices(p->request) <= MOST_CHOICES && p->request->prompts[0].count <= MOST_PROMPT);
    p->answer = (struct api_answer){&rig->context, p->request, "id-1", 1700000000, p->choices};
    for (uint32_t i = 0; i < MOST_PROMPT; i++)
        p->prompt_scores[i] = some_scores(i, p->request->top_logprobs);
    for (uint32_t i = 0; i < api_request_choices(p->request); i++) {
        answer_text_init(&p->texts[i], &rig->context, p->request);
        p->choices[i] = (struct api_choice){.answer = &p->texts[i], .tokens = p->tokens[i], .cached_tokens = 1};
        if (p->request->logprobs)
            p->choices[i].scores = p->scores[i];
        if (p->request->score_prompt)
            p->choices[i].prompt_scores = p->prompt_scores;
    }
    return p;
}

static void say(struct play *p, uint32_t choice, uint32_t token)
{
    struct answer_text *a = &p->texts[choice];
    uint32_t at = a->tokens;
    p->tokens[choice][at] = token;
    p->scores[choice][at] = some_scores(token, p->request->top_logprobs);
    bool stopped = answer_text_push(a, token);
    if (!stopped && a->tokens == api_request_prompt(p->request, choice)->max_tokens)
        answer_text_finish(a);
    p->choices[choice].finished = a->finished;
    p->choices[choice].reason = stopped ? FINISH_STOP : FINISH_LENGTH;
}

static void say_text(struct play *p, uint32_t choice, const char *text)
{
    struct token_list ids = api_rig_tokens(p->rig, text);
    for (size_t i = 0; i < ids.count && !p->choices[choice].finished; i++)
        say(p, choice, ids.ids[i]);
    token_list_fini(&ids);
}

static void stop_all(struct play *p)
{
    for (uint32_t i = 0; i < api_request_choices(p->request); i++)
        if (!p->choices[i].finished)
            say(p, i, tokenizer_eos(p->rig->tokenizer));
}

static void end(struct play *p)
{
    for (uint32_t i = 0; i < api_request_choices(p->request); i++)
        answer_text_fini(&p->texts[i]);
    api_request_free(p->request);
    free(p);
}

static json_t *whole(struct play *p)
{
    struct text out = {0};
    api_answer_write(&out, &p->answer);
    json_t *answer = api_rig_json(&out);
    text_fini(&out);
    return answer;
}

/* What a client has put together out of a stream. */
struct client {
    struct text content[MOST_CHOICES];
    json_t *logprobs[MOST_CHOICES]; /* entries of chat; one list of [token, logprob, top, offset] of completions */
    json_t *token_ids[MOST_CHOICES];
    const char *finish[MOST_CHOICES];
    uint32_t roles[MOST_CHOICES];
    json_t *usage, *chunks;
    char last_id[128];
    bool done;
};

static struct client *client_new(void)
{
    struct client *c = calloc(1, sizeof *c);
    for (int i = 0; i < MOST_CHOICES; i++) {
        c->logprobs[i] = json_array();
        c->token_ids[i] = json_array();
    }
    c->chunks = json_array();
    return c;
}

static void client_free(struct client *c)
{
    for (int i = 0; i < MOST_CHOICES; i++) {
        text_fini(&c->content[i]);
        json_decref(c->logprobs[i]);
        json_decref(c->token_ids[i]);
    }
    json_decref(c->usage);
    json_decref(c->chunks);
    free(c);
}

/* The four lists as one list of entries. */
static void add_legacy(json_t *entries, const json_t *logprobs)
{
    const json_t *tokens = json_object_get(logprobs, "tokens");
    for (size_t i = 0; i < json_array_size(tokens); i++)
        json_array_append_new(entries, json_pack("[O,O,O,O]", json_array_get(tokens, i),
                                                 json_array_get(json_object_get(logprobs, "token_logprobs"), i),
                                                 json_array_get(json_object_get(logprobs, "top_logprobs"), i),
                                                 json_array_get(json_object_get(logprobs, "text_offset"), i)));
}

static void take_choice(struct client *c, const json_t *choice)
{
    json_int_t i = json_integer_value(json_object_get(choice, "index"));
    assert_true(i >= 0 && i < MOST_CHOICES);
    assert_null(c->finish[i]); /* nothing comes behind the last chunk */
    const json_t *delta = json_object_get(choice, "delta"),
                 *words = delta ? json_object_get(delta, "content") : json_object_get(choice, "text");
    if (json_object_get(delta, "role")) {
        c->roles[i]++;
        assert_true(json_is_null(words));
    } else if (words) {
        assert_true(!delta || json_string_length(words) > 0); /* chat: never an empty string */
        text_add(&c->content[i], json_string_value(words), json_string_length(words));
    }
    const json_t *logprobs = json_object_get(choice, "logprobs");
    if (json_is_object(logprobs) && delta)
        json_array_extend(c->logprobs[i], json_object_get(logprobs, "content"));
    else if (json_is_object(logprobs))
        add_legacy(c->logprobs[i], logprobs);
    json_array_extend(c->token_ids[i], json_object_get(choice, "token_ids"));
    c->finish[i] = json_string_value(json_object_get(choice, "finish_reason"));
}

/* Every event in these bytes; the JSON values live as long as the client. */
static void client_take(struct client *c, struct text *bytes)
{
    assert_false(bytes->failed);
    const char *at = bytes->at, *limit = bytes->at + bytes->length;
    while (at < limit) {
        const char *line_end = memchr(at, '\n', (size_t)(limit - at));
        assert_non_null(line_end);
        size_t length = (size_t)(line_end - at);
        assert_true(!c->done || length == 0); /* only the blank line that closes the last event */
        if (length > 4 && memcmp(at, "id: ", 4) == 0) {
            snprintf(c->last_id, sizeof c->last_id, "%.*s", (int)length - 4, at + 4);
        } else if (length == 12 && memcmp(at, "data: [DONE]", 12) == 0) {
            c->done = true;
        } else if (length > 0) {
            assert_memory_equal(at, "data: ", 6);
            json_error_t error;
            json_t *chunk = json_loadb(at + 6, length - 6, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
            if (!chunk)
                fail_msg("%s: %.*s", error.text, (int)length, at);
            json_array_append_new(c->chunks, chunk);
            const json_t *choices = json_object_get(chunk, "choices");
            assert_true(json_array_size(choices) < 2);
            if (json_array_size(choices) == 1)
                take_choice(c, json_array_get(choices, 0));
            if (json_is_object(json_object_get(chunk, "usage"))) {
                json_decref(c->usage);
                c->usage = json_incref(json_object_get(chunk, "usage"));
            }
        }
        at = line_end + 1;
    }
    text_clear(bytes);
}

/* What the client has is what the whole answer says. */
static void assert_same(const struct client *c, struct play *p)
{
    json_t *answer = whole(p);
    assert_true(c->done);
    for (uint32_t i = 0; i < api_request_choices(p->request); i++) {
        const json_t *choice = json_array_get(json_object_get(answer, "choices"), i);
        const json_t *message = json_object_get(choice, "message"),
                     *words = json_object_get(message ? message : choice, message ? "content" : "text");
        assert_int_equal(c->content[i].length, json_string_length(words));
        assert_memory_equal(c->content[i].at ? c->content[i].at : "", json_string_value(words), c->content[i].length);
        const json_t *logprobs = json_object_get(choice, "logprobs");
        assert_true(json_is_object(logprobs) == p->request->logprobs);
        if (p->request->logprobs) {
            json_t *entries = json_array();
            if (message)
                json_array_extend(entries, json_object_get(logprobs, "content"));
            else
                add_legacy(entries, logprobs);
            assert_true(json_equal(entries, c->logprobs[i]));
            json_decref(entries);
        }
        if (p->request->return_token_ids) {
            assert_true(json_equal(json_object_get(choice, "token_ids"), c->token_ids[i]));
            assert_int_equal(json_array_size(c->token_ids[i]), p->texts[i].tokens);
        }
        assert_string_equal(c->finish[i], json_string_value(json_object_get(choice, "finish_reason")));
    }
    if (p->request->include_usage)
        assert_true(json_equal(json_object_get(answer, "usage"), c->usage));
    json_decref(answer);
}

static void a_chat_answer_has_every_member_of_the_api(void **state)
{
    struct play *p = begin(api_rig_of(state), API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    say_text(p, 0, "Hello \"you\"\n");
    stop_all(p);
    json_t *answer = whole(p),
           *expected = json_pack(
               "{s:s,s:s,s:i,s:s,s:s,s:[{s:i,s:{s:s,s:s,s:n},s:n,s:s}],s:{s:i,s:i,s:i,s:{s:i}}}", "id", "id-1",
               "object", "chat.completion", "created", 1700000000, "model", "tiny \"quoted\" model",
               "system_fingerprint", "fp_test", "choices", "index", 0, "message", "role", "assistant", "content",
               "Hello \"you\"\n", "refusal", "logprobs", "finish_reason", "stop", "usage", "prompt_tokens",
               (int)p->request->prompts[0].count, "completion_tokens", (int)p->texts[0].tokens, "total_tokens",
               (int)(p->request->prompts[0].count + p->texts[0].tokens), "prompt_tokens_details", "cached_tokens", 1);
    assert_non_null(expected);
    assert_true(json_equal(answer, expected));
    json_decref(answer);
    json_decref(expected);
    end(p);
}

static void a_completion_has_every_member_of_the_api(void **state)
{
    struct play *p =
        begin(api_rig_of(state), API_COMPLETION, "{\"prompt\":[5,6],\"max_tokens\":1,\"return_token_ids\":true}");
    say_text(p, 0, "Hi");
    json_t *answer = whole(p),
           *expected =
               json_pack("{s:s,s:s,s:i,s:s,s:s,s:[{s:i,s:s,s:n,s:s,s:[i]}],s:{s:i,s:i,s:i,s:{s:i}}}", "id", "id-1",
                         "object", "text_completion", "created", 1700000000, "model", "tiny \"quoted\" model",
                         "system_fingerprint", "fp_test", "choices", "index", 0, "text", "Hi", "logprobs",
                         "finish_reason", "length", "token_ids", (int)p->tokens[0][0], "usage", "prompt_tokens", 2,
                         "completion_tokens", 1, "total_tokens", 3, "prompt_tokens_details", "cached_tokens", 1);
    assert_true(json_equal(answer, expected));
    json_decref(answer);
    json_decref(expected);
    end(p);
}

static void echo_lists_the_prompt_first_and_predicts_nothing_before_it(void **state)
{
    struct play *p = begin(api_rig_of(state), API_COMPLETION,
                           "{\"prompt\":\"caf\\u00e9 au lait\",\"max_tokens\":1,\"echo\":true,\"logprobs\":2}");
    uint32_t prompt = p->request->prompts[0].count;
    say_text(p, 0, " yes");
    json_t *answer = whole(p);
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0),
                 *logprobs = json_object_get(choice, "logprobs");
    const json_t *offsets = json_object_get(logprobs, "text_offset"),
                 *values = json_object_get(logprobs, "token_logprobs");
    assert_string_equal(json_string_value(json_object_get(choice, "text")), "caf\xC3\xA9 au lait yes");
    assert_int_equal(json_array_size(offsets), prompt + 1);
    assert_true(json_is_null(json_array_get(values, 0)));
    assert_true(json_is_null(json_array_get(json_object_get(logprobs, "top_logprobs"), 0)));
    assert_true((float)json_number_value(json_array_get(values, 1)) == p->prompt_scores[1].logprob);
    assert_true((float)json_number_value(json_array_get(values, prompt)) == p->scores[0][0].logprob);
    assert_int_equal(json_integer_value(json_array_get(offsets, 0)), 0);
    assert_int_equal(json_integer_value(json_array_get(offsets, prompt)), 12); /* characters, not bytes */
    json_decref(answer);
    end(p);
}

static void a_scored_prompt_without_an_answer_ends_by_its_length(void **state)
{
    struct play *p = begin(api_rig_of(state), API_COMPLETION,
                           "{\"prompt\":\"one two\",\"max_tokens\":0,\"echo\":true,\"logprobs\":0,\"stream\":true}");
    struct client *c = client_new();
    struct text out = {0};
    p->choices[0].prompt_scores = NULL;
    assert_false(api_stream_write(&out, &p->answer, p->sent, SIZE_MAX));
    assert_int_equal(out.length, 0); /* the scores are not there yet */
    p->choices[0].prompt_scores = p->prompt_scores;
    answer_text_finish(&p->texts[0]);
    p->choices[0].finished = true;
    p->choices[0].reason = FINISH_LENGTH;
    assert_true(api_stream_write(&out, &p->answer, p->sent, SIZE_MAX));
    client_take(c, &out);
    assert_same(c, p);
    assert_int_equal(json_array_size(c->logprobs[0]), p->request->prompts[0].count);
    text_fini(&out);
    client_free(c);
    end(p);
}

static void a_chat_stream_opens_with_the_role_and_ends_with_usage_and_done(void **state)
{
    struct play *p = begin(
        api_rig_of(state), API_CHAT,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    struct client *c = client_new();
    struct text out = {0};
    assert_false(api_stream_write(&out, &p->answer, p->sent, SIZE_MAX));
    client_take(c, &out);
    assert_int_equal(json_array_size(c->chunks), 1);
    assert_string_equal(c->last_id, "");
    say_text(p, 0, "Hello");
    assert_false(api_stream_write(&out, &p->answer, p->sent, SIZE_MAX));
    client_take(c, &out);
    assert_string_equal(c->last_id, "0");
    assert_false(api_stream_write(&out, &p->answer, p->sent, SIZE_MAX));
    assert_int_equal(out.length, 0); /* nothing new, nothing said */
    stop_all(p);
    assert_true(api_stream_write(&out, &p->answer, p->sent, SIZE_MAX));
    client_take(c, &out);
    assert_same(c, p);
    assert_int_equal(json_array_size(c->chunks), 4); /* role, text, end, usage */
    assert_int_equal(c->roles[0], 1);
    const json_t *last = json_array_get(c->chunks, 3), *middle = json_array_get(c->chunks, 1);
    assert_int_equal(json_array_size(json_object_get(last, "choices")), 0);
    assert_true(json_is_null(json_object_get(middle, "usage")));
    assert_string_equal(json_string_value(json_object_get(middle, "object")), "chat.completion.chunk");
    assert_int_equal(json_object_size(json_object_get(
                         json_array_get(json_object_get(json_array_get(c->chunks, 2), "choices"), 0), "delta")),
                     0);
    text_fini(&out);
    client_free(c);
    end(p);
}

/*
 * Random tokens for all choices, written in random portions, cut at random places and picked up again by the last event
 * id: the client always ends with the whole answer, and never sees a piece twice.
 */
static void a_stream_says_what_the_whole_answer_says(void **state)
{
    static const char *const members[] = {
        "",
        ",\"n\":3",
        ",\"stop\":[\"ab\",\"\\u00e9\",\" a a\"]",
        ",\"return_token_ids\":true,\"ignore_eos\":true,\"n\":2",
        ",\"stop\":[\"ab\",\"  \"],\"return_token_ids\":true,\"n\":4,\"stream_options\":{\"include_usage\":true}",
        ",\"stop\":\"b\",\"min_tokens\":5,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}",
    };
    struct api_rig *rig = api_rig_of(state);
    struct token_list source = api_rig_tokens(
        rig, "a b aa ab aab \xC3\xA9 \xF0\x9F\xA6\xA9\xF0\x9F\xA6\xA8\xE4\xBD\xA0\n \n  \n\t a a b \"quoted\" \\");
    uint64_t seed = api_rig_seed();
    uint32_t pick_ups = 0;
    for (int round = 0; round < 600; round++) {
        char body[512];
        enum api_kind kind = api_rig_random(&seed, 2) ? API_CHAT : API_COMPLETION;
        static const char *const asked[2][3] = {{"", ",\"logprobs\":true", ",\"logprobs\":true,\"top_logprobs\":3"},
                                                {"", ",\"logprobs\":0", ",\"logprobs\":3,\"echo\":true"}};
        snprintf(body, sizeof body, "{\"stream\":true,\"max_tokens\":%u%s%s%s}",
                 5 + api_rig_random(&seed, MOST_TOKENS - 5), asked[kind][api_rig_random(&seed, 3)],
                 members[api_rig_random(&seed, sizeof members / sizeof *members)],
                 kind == API_CHAT ? ",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                                  : ",\"prompt\":\"caf\\u00e9 noir\"");
        struct play *p = begin(rig, kind, body);
        struct client *c = client_new();
        struct text out = {0};
        uint32_t choices = api_request_choices(p->request);
        bool done = false;
        while (!done) {
            for (uint32_t i = 0; i < choices; i++)
                for (uint32_t more = api_rig_random(&seed, 4); more > 0 && !p->choices[i].finished; more--)
                    say(p, i,
                        api_rig_random(&seed, 5) ? source.ids[api_rig_random(&seed, (uint32_t)source.count)]
                                                 : api_rig_random(&seed, rig->context.vocab));
            done = api_stream_write(&out, &p->answer, p->sent, 1 + api_rig_random(&seed, 3000));
            if (out.length > 0)
                client_take(c, &out);
            /* Picked up once all first chunks are over, so that roles and echoes are not counted twice. */
            bool cut = !done && c->last_id[0] && api_rig_random(&seed, 4) == 0;
            for (uint32_t i = 0; i < choices; i++)
                cut = cut && p->sent[i].tokens > 0 && !p->sent[i].finished;
            if (cut) {
                struct api_sent again[MOST_CHOICES];
                assert_true(api_sent_from_event_id(&p->answer, c->last_id, strlen(c->last_id), again));
                for (uint32_t i = 0; i < choices; i++) {
                    /* tokens without text may lie between: they go unsaid */
                    assert_true(again[i].tokens <= p->sent[i].tokens && again[i].opened);
                    p->sent[i] = again[i];
                }
                pick_ups++;
            }
        }
        assert_same(c, p);
        text_fini(&out);
        client_free(c);
        end(p);
    }
    assert_true(pick_ups > 100);
    token_list_fini(&source);
}

static void one_chunk_is_bounded_and_most_is_kept(void **state)
{
    struct play *p = begin(
        api_rig_of(state), API_CHAT,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"logprobs\":true,\"top_logprobs\":20}");
    struct text out = {0};
    for (int i = 0; i < MOST_TOKENS - 1; i++)
        say(p, 0, 1000);
    size_t largest = 0;
    bool done = false;
    stop_all(p);
    while (!done) {
        done = api_stream_write(&out, &p->answer, p->sent, 1);
        largest = out.length > largest ? out.length : largest;
        text_clear(&out);
    }
    assert_true(largest > 64 && largest < 64 * 21 * 120);
    text_fini(&out);
    end(p);
}

static void event_ids_of_other_answers_are_refused(void **state)
{
    static const char *const wrong[] = {"",   "-",  "-2",  "2", "1x", "x", "0,0", "99999999999999999999",
                                        " 0", "0,", "--1", "+0"};
    struct play *p =
        begin(api_rig_of(state), API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true}");
    struct api_sent sent[1];
    say_text(p, 0, "one two"); /* two tokens: ids 0 and 1 */
    assert_int_equal(p->texts[0].shown, 2);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (api_sent_from_event_id(&p->answer, wrong[i], strlen(wrong[i]), sent))
            fail_msg("\"%s\" was taken", wrong[i]);
    assert_true(api_sent_from_event_id(&p->answer, "1", 1, sent));
    assert_int_equal(sent[0].tokens, 2);
    assert_true(api_sent_from_event_id(&p->answer, "-1", 2, sent));
    assert_false(sent[0].opened);
    end(p);
}

static void ids_have_their_kind_and_128_random_bits(void **state)
{
    char chat[API_ID_BYTES], other[API_ID_BYTES], text[API_ID_BYTES];
    (void)state;
    api_id_make(chat, API_CHAT);
    api_id_make(other, API_CHAT);
    api_id_make(text, API_COMPLETION);
    assert_memory_equal(chat, "chatcmpl-", 9);
    assert_int_equal(strspn(chat + 9, "0123456789abcdef"), 32);
    assert_int_equal(strlen(chat), 41);
    assert_memory_equal(text, "cmpl-", 5);
    assert_int_equal(strlen(text), 37);
    assert_string_not_equal(chat, other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_answer_has_every_member_of_the_api),
        cmocka_unit_test(a_completion_has_every_member_of_the_api),
        cmocka_unit_test(echo_lists_the_prompt_first_and_predicts_nothing_before_it),
        cmocka_unit_test(a_scored_prompt_without_an_answer_ends_by_its_length),
        cmocka_unit_test(a_chat_stream_opens_with_the_role_and_ends_with_usage_and_done),
        cmocka_unit_test(a_stream_says_what_the_whole_answer_says),
        cmocka_unit_test(one_chunk_is_bounded_and_most_is_kept),
        cmocka_unit_test(event_ids_of_other_answers_are_refused),
        cmocka_unit_test(ids_have_their_kind_and_128_random_bits),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
