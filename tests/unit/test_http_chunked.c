/* test_http_chunked: every form of a chunked body that is taken or refused, however its bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "coordinator/http_chunked.h"

#define CASE(text, body)             \
    {                                \
        text, sizeof(text) - 1, body \
    }

/* body NULL: refused; every good one is followed by one byte that is not its own */
static const struct {
    const char *text;
    size_t length;
    const char *body;
} cases[] = {
    CASE("0\r\n\r\nX", ""),
    CASE("000\r\n\r\nX", ""),
    CASE("5\r\nhello\r\n0\r\n\r\nX", "hello"),
    CASE("5\r\nhello\r\n0A\r\n, you all!\r\n0\r\n\r\nX", "hello, you all!"),
    CASE("5;ext=\"a b\"\r\nhello\r\n0;x\r\n\r\nX", "hello"),
    CASE("1\r\n\n\r\n0\r\nTrailer: v\r\nOther:\r\n\r\nX", "\n"),
    CASE("0x5\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("+5\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("-5\r\nhello\r\n0\r\n\r\n", NULL),
    CASE(" 5\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("5 \r\nhello\r\n0\r\n\r\n", NULL),
    CASE("5 ;x\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("\r\nhello", NULL),
    CASE(";x\r\nhello", NULL),
    CASE("5\nhello\r\n0\r\n\r\n", NULL),
    CASE("5\rhello\r\n0\r\n\r\n", NULL),
    CASE("5\r\nhello!\r\n0\r\n\r\n", NULL),
    CASE("5\r\nhello\n0\r\n\r\n", NULL),
    CASE("5\r\nhello\r0\r\n\r\n", NULL),
    CASE("5;a\nb\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("5;a\0b\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("8000000000000000\r\n", NULL),
    CASE("00000000000000005\r\nhello\r\n0\r\n\r\n", NULL),
    CASE("0\r\nTrailer : v\r\n\r\n", NULL),
    CASE("0\r\n: v\r\n\r\n", NULL),
    CASE("0\r\n folded\r\n\r\n", NULL),
    CASE("0\r\nno colon\r\n\r\n", NULL),
    CASE("0\r\nT: v\n\r\n", NULL),
    CASE("0\r\n\rX", NULL),
};

struct outcome {
    enum chunked_progress progress;
    char body[4096];
    size_t body_bytes, taken;
};

static struct outcome decode(const char *text, size_t length, size_t step)
{
    struct outcome out = {.progress = CHUNKED_MORE};
    struct http_chunked c;
    http_chunked_init(&c);
    while (out.taken < length && out.progress != CHUNKED_END && out.progress != CHUNKED_BAD) {
        size_t piece = length - out.taken < step ? length - out.taken : step, taken, data_bytes = 0;
        const char *data = NULL;
        out.progress = http_chunked_feed(&c, text + out.taken, piece, &taken, &data, &data_bytes);
        if (out.progress == CHUNKED_DATA) {
            assert_true(data >= text && data + data_bytes <= text + length);
            memcpy(out.body + out.body_bytes, data, data_bytes);
            out.body_bytes += data_bytes;
        }
        out.taken += taken;
    }
    if (out.progress == CHUNKED_BAD)
        assert_non_null(c.problem);
    return out;
}

static void each_form_is_taken_or_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome out = decode(cases[i].text, cases[i].length, SIZE_MAX);
        if ((out.progress == CHUNKED_END) != (cases[i].body != NULL) ||
            (out.progress == CHUNKED_BAD) != (cases[i].body == NULL))
            fail_msg("case %zu ended with %d: %s", i, out.progress, cases[i].text);
        if (cases[i].body) {
            assert_int_equal(out.body_bytes, strlen(cases[i].body));
            assert_memory_equal(out.body, cases[i].body, out.body_bytes);
            assert_int_equal(out.taken, cases[i].length - 1);
        }
    }
}

static void bytes_one_by_one_give_the_same_as_all_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome whole = decode(cases[i].text, cases[i].length, SIZE_MAX);
        for (size_t step = 1; step < 6; step++) {
            struct outcome cut = decode(cases[i].text, cases[i].length, step);
            assert_int_equal(whole.progress, cut.progress);
            assert_int_equal(whole.taken, cut.taken);
            assert_int_equal(whole.body_bytes, cut.body_bytes);
            assert_memory_equal(whole.body, cut.body, whole.body_bytes);
        }
    }
}

static void endless_extensions_and_trailers_are_refused(void **state)
{
    (void)state;
    static const char *const beginnings[] = {"5;", "0\r\nT", "0\r\nT:"};
    for (size_t i = 0; i < 3; i++) {
        char text[8192];
        memset(text, 'x', sizeof text);
        memcpy(text, beginnings[i], strlen(beginnings[i]));
        struct outcome out = decode(text, sizeof text, SIZE_MAX);
        assert_int_equal(out.progress, CHUNKED_BAD);
        assert_in_range(out.taken, 4096, 4096 + 8);
    }
}

static void random_changes_never_read_outside_the_input(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (unsigned round = 0; round < 100000; round++) {
        size_t which = (size_t)rand_r(&seed) % (sizeof cases / sizeof cases[0]);
        char text[128];
        memcpy(text, cases[which].text, cases[which].length);
        for (int changes = rand_r(&seed) % 4; changes >= 0; changes--) {
            static const char spice[] = "\r\n\0 ;:0aF9xX";
            text[(size_t)rand_r(&seed) % cases[which].length] = spice[(size_t)rand_r(&seed) % (sizeof spice - 1)];
        }
        struct outcome out = decode(text, cases[which].length, 1 + (size_t)rand_r(&seed) % 16);
        assert_true(out.body_bytes <= cases[which].length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_is_taken_or_refused),
        cmocka_unit_test(bytes_one_by_one_give_the_same_as_all_at_once),
        cmocka_unit_test(endless_extensions_and_trailers_are_refused),
        cmocka_unit_test(random_changes_never_read_outside_the_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
