/* test_answer_text: tokens into text, against the text of all tokens at once. */
#include <stdio.h>

#include "coordinator/answer_text.h"
#include "tests/support/api_rig.h"

/* Pushes all ids until one ends the answer, then finishes. Gives how many were taken. */
static uint32_t push_all(struct answer_text *a, const uint32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (answer_text_push(a, ids[i]))
            return (uint32_t)i + 1;
    answer_text_finish(a);
    return (uint32_t)count;
}

static struct api_request *with(struct api_rig *rig, const char *members)
{
    char body[1024];
    snprintf(body, sizeof body, "{\"prompt\":\"x\",\"max_tokens\":1000%s%s}", *members ? "," : "", members);
    return api_rig_parse(rig, API_COMPLETION, body);
}

static void assert_shown(const struct answer_text *a, const char *expected)
{
    size_t bytes = answer_text_shown_bytes(a);
    if (bytes != strlen(expected) || memcmp(a->text.at ? a->text.at : "", expected, bytes) != 0)
        fail_msg("shown is \"%.*s\", expected \"%s\"", (int)bytes, a->text.at ? a->text.at : "", expected);
}

/* The whole text of an answer to a request with these members, when the model says `said`. */
static void assert_answer(void **state, const char *members, const char *said, const char *expected)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = with(rig, members);
    struct token_list ids = api_rig_tokens(rig, said);
    struct answer_text a;
    answer_text_init(&a, &rig->context, r);
    push_all(&a, ids.ids, ids.count);
    assert_shown(&a, expected);
    assert_int_equal(a.text.length, strlen(expected));
    answer_text_fini(&a);
    token_list_fini(&ids);
    api_request_free(r);
}

static void tokens_become_text(void **state)
{
    assert_answer(state, "", "Hello, w\xC3\xB6rld \xF0\x9F\x98\x80!", "Hello, w\xC3\xB6rld \xF0\x9F\x98\x80!");
}

static void a_stop_string_and_what_follows_is_cut_off(void **state)
{
    assert_answer(state, "\"stop\":\"three\"", "one two three four", "one two ");
    assert_answer(state, "\"stop\":[\"zzz\",\"wo th\"]", "one two three four", "one t");
    assert_answer(state, "\"stop\":\"o\"", "one two", "");
    assert_answer(state, "\"stop\":\"thred\"", "one two three", "one two three");
    assert_answer(state, "\"stop\":\"\xC3\xB6\"", "w\xC3\xB6rld", "w");
}

static void a_beginning_of_a_stop_string_is_held_until_it_is_none(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = with(rig, "\"stop\":\"\\n\\nUser\"");
    struct token_list ids = api_rig_tokens(rig, "Yes\n\nMaybe");
    struct answer_text a;
    answer_text_init(&a, &rig->context, r);
    for (size_t i = 0; i < ids.count; i++) {
        assert_false(answer_text_push(&a, ids.ids[i]));
        if (a.text.length > 0 && a.text.at[a.text.length - 1] == '\n')
            assert_shown(&a, "Yes");
    }
    assert_shown(&a, "Yes\n\nMaybe");
    answer_text_fini(&a);
    token_list_fini(&ids);
    api_request_free(r);
}

static void what_is_held_at_the_end_is_shown(void **state)
{
    assert_answer(state, "\"stop\":\"\\n\\nUser\"", "Yes\n\nUs", "Yes\n\nUs");
}

static void stop_strings_within_min_tokens_do_not_count(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct token_list ids = api_rig_tokens(rig, " stop stop stop stop");
    assert_int_equal(ids.count, 4);
    token_list_fini(&ids);
    assert_answer(state, "\"stop\":\"stop\",\"min_tokens\":2", " stop stop stop stop", " stop stop ");
}

static void an_end_token_ends_it_and_is_counted_but_not_seen(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = with(rig, "");
    struct answer_text a;
    uint32_t eos = tokenizer_eos(rig->tokenizer);
    struct token_list ids = api_rig_tokens(rig, "Hi");
    answer_text_init(&a, &rig->context, r);
    assert_false(answer_text_push(&a, ids.ids[0]));
    assert_true(answer_text_push(&a, eos));
    assert_true(a.finished && a.tokens == 2 && a.shown == 1);
    assert_shown(&a, "Hi");
    answer_text_fini(&a);
    token_list_fini(&ids);
    api_request_free(r);
}

static void an_ignored_end_token_has_no_text(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = with(rig, "\"ignore_eos\":true");
    struct answer_text a;
    answer_text_init(&a, &rig->context, r);
    assert_false(answer_text_push(&a, tokenizer_eos(rig->tokenizer)));
    assert_int_equal(a.shown, 1);
    assert_shown(&a, "");
    answer_text_fini(&a);
    api_request_free(r);
}

/* Tokens that hold parts of a character: none is shown before the last. */
static void half_a_character_is_never_shown(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = with(rig, "");
    struct token_list ids = api_rig_tokens(rig, "a\xF0\x9F\xA6\xA9");
    struct answer_text a;
    assert_true(ids.count > 2);
    answer_text_init(&a, &rig->context, r);
    for (size_t i = 0; i < ids.count; i++) {
        assert_shown(&a, i == 0 ? "" : "a");
        assert_int_equal(a.shown, i == 0 ? 0 : 1);
        answer_text_push(&a, ids.ids[i]);
    }
    assert_shown(&a, "a\xF0\x9F\xA6\xA9");
    answer_text_fini(&a);

    answer_text_init(&a, &rig->context, r);
    push_all(&a, ids.ids, ids.count - 1);
    assert_shown(&a, "a\xEF\xBF\xBD");
    assert_int_equal(a.shown, ids.count - 1);
    answer_text_fini(&a);
    token_list_fini(&ids);
    api_request_free(r);
}

/* Plain search in the text of all tokens, in the words of stop_strings.h: the first to end, the longest of those. */
static size_t first_stop(const struct api_request *r, const char *text, size_t length)
{
    for (size_t end = 1; end <= length; end++) {
        size_t longest = 0;
        for (uint32_t i = 0; i < r->stops.count; i++) {
            size_t bytes = r->stops.strings[i].length;
            if (bytes <= end && bytes > longest && memcmp(text + end - bytes, r->stops.strings[i].bytes, bytes) == 0)
                longest = bytes;
        }
        if (longest > 0)
            return end - longest;
    }
    return length;
}

/*
 * Random tokens, parts of characters and control tokens among them: what is shown only grows, is always a beginning of
 * the final text at the end of a token, and the final text is that of all tokens at once, cut at the first stop string.
 */
static void what_was_shown_stays_and_the_whole_is_the_same(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r =
        with(rig, "\"ignore_eos\":true,\"stop\":[\"ab\",\"\\u00e9\",\"  \\n\",\"aab a\",\"\\uD83E\\uDDA9\"]");
    uint64_t seed = api_rig_seed();
    struct token_list source =
        api_rig_tokens(rig, "a b aa ab aab \xC3\xA9 \xF0\x9F\xA6\xA9\xF0\x9F\xA6\xA8\xE4\xBD\xA0\n \n  \n\t a a b");
    uint32_t stopped = 0;
    for (int round = 0; round < 3000; round++) {
        uint32_t ids[40], count = 1 + api_rig_random(&seed, 40);
        for (uint32_t i = 0; i < count; i++)
            ids[i] = api_rig_random(&seed, 4) ? source.ids[api_rig_random(&seed, (uint32_t)source.count)]
                                              : api_rig_random(&seed, rig->context.vocab);
        char seen[8192];
        size_t seen_bytes = 0;
        struct answer_text a;
        answer_text_init(&a, &rig->context, r);
        uint32_t shown = 0;
        for (uint32_t i = 0; i < count && !a.finished; i++) {
            bool ended = answer_text_push(&a, ids[i]);
            assert_int_equal(ended, a.finished);
            if (i + 1 == count)
                answer_text_finish(&a);
            assert_true(a.shown >= shown && a.shown <= a.tokens);
            for (; shown < a.shown; shown++) {
                size_t begin = answer_text_begin(&a, shown), end = answer_text_end(&a, shown);
                assert_int_equal(begin, seen_bytes);
                memcpy(seen + seen_bytes, a.text.at + begin, end - begin);
                seen_bytes += end - begin;
            }
        }
        struct detokenizer d;
        char whole[8192];
        size_t whole_bytes = 0;
        detokenizer_init(&d);
        for (uint32_t i = 0; i < count; i++) {
            size_t length;
            const char *piece = tokenizer_piece(rig->tokenizer, ids[i], false, &length);
            whole_bytes += detokenizer_push(&d, piece, length, whole + whole_bytes);
        }
        size_t certain = whole_bytes; /* the replacement of a character that never ended is not searched */
        whole_bytes += detokenizer_flush(&d, whole + whole_bytes);
        size_t cut = first_stop(r, whole, certain);
        if (cut == certain)
            cut = whole_bytes;
        stopped += cut < whole_bytes;
        assert_int_equal(seen_bytes, cut);
        assert_memory_equal(seen, whole, cut);
        assert_int_equal(a.text.length, cut);
        answer_text_fini(&a);
    }
    assert_true(stopped > 100);
    token_list_fini(&source);
    api_request_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_become_text),
        cmocka_unit_test(a_stop_string_and_what_follows_is_cut_off),
        cmocka_unit_test(a_beginning_of_a_stop_string_is_held_until_it_is_none),
        cmocka_unit_test(what_is_held_at_the_end_is_shown),
        cmocka_unit_test(stop_strings_within_min_tokens_do_not_count),
        cmocka_unit_test(an_end_token_ends_it_and_is_counted_but_not_seen),
        cmocka_unit_test(an_ignored_end_token_has_no_text),
        cmocka_unit_test(half_a_character_is_never_shown),
        cmocka_unit_test(what_was_shown_stays_and_the_whole_is_the_same),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
