/* WordPiece over a small vocabulary: longest piece first, whole words or nothing, and what of a text is seen at all. */
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/gguf_header.h"
#include "model/tokenizer.h"
#include "tests/support/vectors.h"

#define B "\xE2\x96\x81" /* begins a word */

static const char *const vocabulary[] = {
    "[PAD]", "[UNK]", "[CLS]",          "[SEP]",   B "un", "aff", "able",           B "caf",        "e",
    B "!",   B "$",   B "\xE4\xB8\xAD", B "naive", B "a",  "a",   B "\xE1\x84\x92", "\xE1\x85\xA1", "\xE1\x86\xAB",
    B "x",
};
enum {
    PAD,
    UNKNOWN,
    CLS,
    SEP,
    UN,
    AFF,
    ABLE,
    CAF,
    E,
    BANG,
    DOLLAR,
    ZHONG,
    NAIVE,
    A,
    A_ON,
    HIEUH,
    A_VOWEL,
    NIEUN,
    X,
    COUNT
};

static struct tokenizer *small(bool with_unknown, struct why *why)
{
    struct gguf_header h = {0};
    struct gguf_view view = {0};
    struct gguf *g;
    struct tokenizer *t = NULL;
    uint8_t *bytes;
    gguf_header_string(&h, "tokenizer.ggml.model", "bert", 4);
    gguf_header_array(&h, "tokenizer.ggml.tokens", GGUF_STRING, COUNT);
    for (int id = 0; id < COUNT; id++)
        gguf_header_element_string(&h, vocabulary[id], strlen(vocabulary[id]));
    gguf_header_array(&h, "tokenizer.ggml.token_type", GGUF_I32, COUNT);
    for (int32_t id = 0; id < COUNT; id++)
        gguf_header_element(&h, &(int32_t){id == UNKNOWN ? 2 : id <= SEP ? 3 : 1}, sizeof(int32_t));
    if (with_unknown)
        gguf_header_u32(&h, "tokenizer.ggml.unknown_token_id", UNKNOWN);
    gguf_header_u32(&h, "tokenizer.ggml.cls_token_id", CLS);
    gguf_header_u32(&h, "tokenizer.ggml.seperator_token_id", SEP);
    assert_int_equal(gguf_header_finish(&h, &bytes, &view.length, NULL), OK);
    view.header = bytes;
    assert_int_equal(gguf_open_view(&g, &view, "made", NULL), OK);
    if (tokenizer_open(&t, g, why) != OK)
        t = NULL;
    gguf_close(g);
    free(bytes);
    gguf_header_fini(&h);
    return t;
}

static int make_tokenizer(void **state)
{
    struct why why;
    *state = small(true, &why);
    return *state ? 0 : 1;
}

static int close_tokenizer(void **state)
{
    tokenizer_close(*state);
    return 0;
}

static void becomes(const struct tokenizer *t, const char *text, const uint32_t *ids, size_t count)
{
    struct token_list list = vectors_encode(t, text, strlen(text), true);
    bool same = list.count == count && (!count || memcmp(list.ids, ids, count * sizeof *ids) == 0);
    for (size_t i = 0; !same && i < list.count; i++)
        print_message("%u ", list.ids[i]);
    if (!same)
        fail_msg("\"%s\" became other tokens than expected", text);
    token_list_fini(&list);
}

#define BECOMES(text, ...) \
    becomes(*state, text, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void words_are_cut_longest_piece_first_or_not_at_all(void **state)
{
    BECOMES("unaffable", UN, AFF, ABLE);
    BECOMES("un aff", UN, UNKNOWN); /* "aff" begins no word */
    BECOMES("unaffabl", UNKNOWN);
    BECOMES("a", A);
    BECOMES("aaa", A, A_ON, A_ON);
    becomes(*state, "", NULL, 0);
    becomes(*state, " \t\n", NULL, 0);
}

static void text_is_folded_and_cut_at_what_stands_alone(void **state)
{
    BECOMES("Caf\xC3\xA9", CAF, E);
    BECOMES("cafe\xCC\x81", CAF, E); /* the mark by itself */
    BECOMES("NA\xC3\x8FVE!x", NAIVE, BANG, X);
    BECOMES("x$x", X, DOLLAR, X);
    BECOMES("x\xE4\xB8\xADx", X, ZHONG, X);
    BECOMES("\xED\x95\x9C", HIEUH, A_VOWEL, NIEUN);
    BECOMES("x\xC2\xA0x\xE3\x80\x80x", X, X, X); /* blanks that are not ASCII */
    BECOMES("n\x07"
            "ai\xE2\x80\x8Bve",
            NAIVE); /* what nobody sees is left out */
    BECOMES("nai\xFFve", NAIVE);
    BECOMES("x [SEP] x", X, SEP, X);
}

static void a_word_beyond_a_hundred_characters_is_unknown(void **state)
{
    char text[102];
    memset(text, 'a', sizeof text);
    text[100] = 0;
    struct token_list list = vectors_encode(*state, text, 100, false);
    assert_int_equal(list.count, 100);
    token_list_fini(&list);
    text[100] = 'a';
    text[101] = 0;
    BECOMES(text, UNKNOWN);
}

static void it_says_what_is_put_around_a_text(void **state)
{
    const struct tokenizer *t = *state;
    size_t length;
    assert_true(tokenizer_adds_bos(t) && tokenizer_adds_eos(t));
    assert_true(tokenizer_bos(t) == CLS && tokenizer_eos(t) == SEP && tokenizer_unknown(t) == UNKNOWN);
    assert_memory_equal(tokenizer_piece(t, UN, false, &length), " un", 3);
    assert_int_equal(length, 3);
    tokenizer_piece(t, CLS, false, &length);
    assert_int_equal(length, 0);
    struct why why;
    assert_null(small(false, &why));
    assert_non_null(strstr(why.text, "unknown_token_id"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_cut_longest_piece_first_or_not_at_all),
        cmocka_unit_test(text_is_folded_and_cut_at_what_stands_alone),
        cmocka_unit_test(a_word_beyond_a_hundred_characters_is_unknown),
        cmocka_unit_test(it_says_what_is_put_around_a_text),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, close_tokenizer);
}
