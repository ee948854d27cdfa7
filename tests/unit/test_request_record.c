/* test_request_record: what the next coordinator reads is what this one wrote; anything else is refused. */
#include "coordinator/request_record.h"

#include "tests/support/api_rig.h"

enum { CONTEXT = 2048 }; /* of the rig */

static const char chat[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"max_tokens\":9,\"n\":3,\"seed\":4,\"stop\":[\"ab\",\"c\"],"
    "\"logprobs\":true,\"top_logprobs\":4,\"cache_salt\":\"x\",\"return_token_ids\":true,\"ignore_eos\":true}";
static const char completion[] =
    "{\"prompt\":[\"A quire is\",[5,6,7]],\"max_tokens\":7,\"echo\":true,\"logprobs\":2,\"stream\":true,"
    "\"stream_options\":{\"include_usage\":true}}";

static uint8_t *record_of(const struct api_request *r, uint32_t choice, size_t *bytes)
{
    const struct request_owner owner = {.tenant = 77, .created = 1234567};
    *bytes = request_record_bytes(r, choice);
    uint8_t *out = malloc(*bytes);
    assert_non_null(out);
    request_record_write(r, choice, &owner, out);
    return out;
}

static enum err read_choice(const struct api_request *r, uint32_t choice, struct api_request **out)
{
    struct sampling sampling;
    struct request_owner owner;
    struct why why;
    size_t bytes;
    uint32_t found;
    uint8_t *record = record_of(r, choice, &bytes);
    api_request_sampling(r, choice, &sampling);
    enum err e = request_record_read(record, bytes, &sampling, api_request_prompt(r, choice)->tokens, CONTEXT, out,
                                     &found, &owner, &why);
    free(record);
    if (!e) {
        assert_int_equal(found, choice);
        assert_int_equal(owner.tenant, 77);
        assert_int_equal(owner.created, 1234567);
    }
    return e;
}

static void must_be_the_same(const struct api_request *a, const struct api_request *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->stream, b->stream);
    assert_int_equal(a->include_usage, b->include_usage);
    assert_int_equal(a->echo, b->echo);
    assert_int_equal(a->return_token_ids, b->return_token_ids);
    assert_int_equal(a->ignore_eos, b->ignore_eos);
    assert_int_equal(a->logprobs, b->logprobs);
    assert_int_equal(a->score_prompt, b->score_prompt);
    assert_int_equal(a->top_logprobs, b->top_logprobs);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->cache_salt, b->cache_salt);
    assert_int_equal(a->prompt_count, b->prompt_count);
    assert_int_equal(a->stops.count, b->stops.count);
    for (uint32_t i = 0; i < a->stops.count; i++) {
        assert_int_equal(a->stops.strings[i].length, b->stops.strings[i].length);
        assert_memory_equal(a->stops.strings[i].bytes, b->stops.strings[i].bytes, a->stops.strings[i].length);
    }
    for (uint32_t i = 0; i < a->prompt_count; i++) {
        const struct api_prompt *mine = &a->prompts[i], *other = &b->prompts[i];
        assert_int_equal(mine->count, other->count);
        assert_memory_equal(mine->tokens, other->tokens, mine->count * sizeof *mine->tokens);
        assert_int_equal(mine->max_tokens, other->max_tokens);
        assert_int_equal(mine->lead, other->lead);
        assert_int_equal(mine->echo_bytes, other->echo_bytes);
        if (mine->echo_bytes)
            assert_memory_equal(mine->echo, other->echo, mine->echo_bytes);
    }
    for (uint32_t i = 0; i < api_request_choices(a); i++) {
        struct sampling mine, other;
        api_request_sampling(a, i, &mine);
        api_request_sampling(b, i, &other);
        assert_memory_equal(&mine, &other, sizeof mine);
    }
}

static void a_request_comes_back_from_its_choices(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    const struct {
        enum api_kind kind;
        const char *body;
    } cases[] = {{API_CHAT, chat}, {API_COMPLETION, completion}};
    for (size_t i = 0; i < 2; i++) {
        struct api_request *r = api_rig_parse(rig, cases[i].kind, cases[i].body), *back = NULL;
        for (uint32_t choice = api_request_choices(r); choice-- > 0;) /* in any order */
            assert_int_equal(read_choice(r, choice, &back), OK);
        must_be_the_same(r, back);
        api_request_free(r);
        api_request_free(back);
    }
}

static void a_choice_of_another_request_is_refused(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *a = api_rig_parse(rig, API_CHAT, chat), *b = api_rig_parse(rig, API_COMPLETION, completion),
                       *back = NULL;
    assert_int_equal(read_choice(a, 0, &back), OK);
    assert_int_equal(read_choice(b, 0, &back), ERR_FORMAT);
    api_request_free(a);
    api_request_free(b);
    api_request_free(back);
}

static void no_cut_and_no_changed_byte_does_harm(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct api_request *r = api_rig_parse(rig, API_COMPLETION, completion);
    struct sampling sampling;
    struct request_owner owner;
    struct why why;
    size_t bytes;
    uint32_t choice;
    uint8_t *record = record_of(r, 0, &bytes);
    api_request_sampling(r, 0, &sampling);
    for (size_t length = 0; length < bytes; length++) {
        uint8_t *cut = malloc(length + 1); /* of its own size, for the address sanitizer */
        memcpy(cut, record, length);
        struct api_request *back = NULL;
        assert_int_equal(
            request_record_read(cut, length, &sampling, r->prompts[0].tokens, CONTEXT, &back, &choice, &owner, &why),
            ERR_FORMAT);
        api_request_free(back);
        free(cut);
    }
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        record[bit / 8] ^= (uint8_t)(1 << bit % 8);
        struct api_request *back = NULL;
        if (request_record_read(record, bytes, &sampling, r->prompts[0].tokens, CONTEXT, &back, &choice, &owner,
                                &why) == OK)
            assert_true(choice < api_request_choices(back) && api_request_choices(back) <= API_MOST_CHOICES &&
                        back->prompts[0].count + (uint64_t)back->prompts[0].max_tokens <= CONTEXT);
        api_request_free(back);
        record[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(record);
    api_request_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_comes_back_from_its_choices),
        cmocka_unit_test(a_choice_of_another_request_is_refused),
        cmocka_unit_test(no_cut_and_no_changed_byte_does_harm),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
