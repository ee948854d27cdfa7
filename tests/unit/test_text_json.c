/* test_text_json: commas where JSON wants them, and a text that stays whole JSON's beginning when memory runs out. */
#include <math.h>

#include "coordinator/text_json.h"
#include "tests/support/api_rig.h"

/* One call each. */
static const struct {
    enum { OPEN, CLOSE, NUMBER, FRACTION, BOOL, WORD, NOTHING, BY_HAND } kind;
    const char *name, *word;
    double number;
} steps[] = {
    {OPEN, .word = "{"},
    {WORD, .name = "na\"me", .word = "li[ke {this:"},
    {OPEN, .name = "none", .word = "{"},
    {CLOSE, .word = "}"},
    {OPEN, .name = "list", .word = "["},
    {NUMBER, .number = 7},
    {FRACTION, .number = 0.5},
    {BOOL, .number = true},
    {.kind = NOTHING},
    {WORD, .word = ","},
    {OPEN, .word = "{"},
    {BOOL, .name = "no", .number = false},
    {CLOSE, .word = "}"},
    {OPEN, .word = "{"},
    {CLOSE, .word = "}"},
    {CLOSE, .word = "]"},
    {FRACTION, .name = "not finite", .number = NAN},
    {BY_HAND, .name = "by hand", .word = "[[]]"},
    {NUMBER, .name = "last", .number = 0},
    {CLOSE, .word = "}"},
};
enum { STEPS = sizeof steps / sizeof *steps };

static void take_step(struct text *out, size_t i)
{
    switch (steps[i].kind) {
    case OPEN:
        json_open(out, steps[i].name, *steps[i].word);
        break;
    case CLOSE:
        json_close(out, *steps[i].word);
        break;
    case NUMBER:
        json_u64(out, steps[i].name, (uint64_t)steps[i].number);
        break;
    case FRACTION:
        json_f64(out, steps[i].name, steps[i].number);
        break;
    case BOOL:
        json_bool(out, steps[i].name, steps[i].number != 0);
        break;
    case WORD:
        json_text(out, steps[i].name, steps[i].word);
        break;
    case NOTHING:
        json_nothing(out, steps[i].name);
        break;
    case BY_HAND:
        json_key(out, steps[i].name);
        text_add_string(out, steps[i].word);
        break;
    }
}

static const char whole[] = "{\"na\\\"me\":\"li[ke {this:\",\"none\":{},"
                            "\"list\":[7,0.5,true,null,\",\",{\"no\":false},{}],"
                            "\"not finite\":null,\"by hand\":[[]],\"last\":0}";

static void assert_begins(const struct text *t, size_t length)
{
    assert_int_equal(t->length, length);
    assert_memory_equal(t->at ? t->at : "", whole, length);
}

static void commas_stand_between_values_and_nowhere_else(void **state)
{
    (void)state;
    struct text t = {0};
    for (size_t i = 0; i < STEPS; i++)
        take_step(&t, i);
    assert_false(t.failed);
    assert_begins(&t, strlen(whole));
    json_decref(api_rig_json(&t));
    text_fini(&t);
}

/* The allocation in front of each step fails in turn, the first one's with nothing written and no memory at all. */
static void behind_a_failed_allocation_nothing_is_written_or_read(void **state)
{
    (void)state;
    for (size_t fails = 0; fails < STEPS; fails++) {
        struct text t = {0};
        for (size_t i = 0; i < fails; i++)
            take_step(&t, i);
        size_t good = t.length;
        assert_false(text_reserve(&t, SIZE_MAX));
        for (size_t i = fails; i < STEPS; i++)
            take_step(&t, i);
        assert_true(t.failed);
        assert_begins(&t, good);
        text_fini(&t);
    }
}

static void a_text_that_is_used_again_begins_without_a_comma(void **state)
{
    (void)state;
    struct text t = {0};
    json_u64(&t, NULL, 1);
    text_clear(&t);
    json_open(&t, NULL, '[');
    json_close(&t, ']');
    assert_int_equal(t.length, 2);
    assert_memory_equal(t.at, "[]", 2);
    text_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_stand_between_values_and_nowhere_else),
        cmocka_unit_test(behind_a_failed_allocation_nothing_is_written_or_read),
        cmocka_unit_test(a_text_that_is_used_again_begins_without_a_comma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
