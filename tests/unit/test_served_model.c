/* The buffers of a step: apart from one another, aligned, within the bytes that were counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/served_model.h"

static struct served_model small_model(uint32_t vocab)
{
    struct served_model s;
    memset(&s, 0, sizeof s);
    s.model.dim = 48;
    s.model.heads = 3;
    s.model.head_dim = 16;
    s.model.ffn = 100;
    s.model.vocab = vocab;
    s.step_tokens = 7;
    s.logit_rows = 3;
    return s;
}

struct piece {
    const void *at;
    uint64_t bytes;
};

static void buffers_are_aligned_apart_and_within_what_was_counted(void **state)
{
    (void)state;
    static _Alignas(64) uint8_t memory[1 << 17];
    const uint32_t vocabs[] = {1, 255, 256, 257, 1000};
    for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
        struct served_model s = small_model(vocabs[v]);
        struct step_buffers b;
        uint64_t bytes = step_buffers_place(&b, &s, memory);
        assert_int_equal(bytes, served_model_work_bytes(&s));
        assert_true(bytes <= sizeof memory);
        assert_true(b.logits_stride >= vocabs[v] && b.logits_stride % 16 == 0);
        assert_true(b.logit_blocks * SAMPLE_BLOCK >= vocabs[v] && (b.logit_blocks - 1) * SAMPLE_BLOCK < vocabs[v]);
        uint64_t row = sizeof(float) * b.logits_stride;
        const struct piece pieces[] = {
            {b.forward.hidden, 4 * 7 * 48},
            {b.forward.q, 4 * 7 * 48},
            {b.forward.attn, 4 * 7 * 48},
            {b.forward.act, 4 * 7 * 100},
            {b.forward.logits, 3 * row},
            {b.processed, 3 * row},
            {b.partials, 3 * b.logit_blocks * sizeof *b.partials},
        };
        const uint8_t *end = memory;
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            assert_int_equal((uintptr_t)pieces[i].at % 64, 0);
            assert_true((const uint8_t *)pieces[i].at >= end); /* they lie in this order */
            end = (const uint8_t *)pieces[i].at + pieces[i].bytes;
        }
        assert_true(end <= memory + bytes);
    }
}

static void numbers_of_a_step_out_of_bounds_are_refused(void **state)
{
    (void)state;
    const struct {
        uint32_t step_tokens, logit_rows;
    } wrong[] = {{0, 0}, {0, 1}, {8, 0}, {8, 9}, {SERVED_STEP_TOKENS_MAX + 1, 1}, {UINT32_MAX, UINT32_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct served_model s = small_model(300);
        struct why why;
        s.step_tokens = wrong[i].step_tokens;
        s.logit_rows = wrong[i].logit_rows;
        assert_int_equal(served_model_check(&s, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, "step of"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_are_aligned_apart_and_within_what_was_counted),
        cmocka_unit_test(numbers_of_a_step_out_of_bounds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
