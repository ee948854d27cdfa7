/* Special tokens are kept from plain text, threads share one tokenizer, and a vocabulary is either good or refused. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/tokenizer.h"
#include "tests/support/vectors.h"

static void control_tokens_come_only_from_text_that_may_name_them(void **state)
{
    (void)state;
    static const char text[] = "<|im_start|>user";
    struct tokenizer *t = vectors_tokenizer("models/smollm2.gguf");
    struct token_list plain = vectors_encode(t, text, sizeof text - 1, false);
    struct token_list special = vectors_encode(t, text, sizeof text - 1, true);
    assert_int_equal(special.ids[0], tokenizer_special(t, "<|im_start|>", 12));
    assert_true(tokenizer_is_control(t, special.ids[0]));
    for (size_t i = 0; i < plain.count; i++)
        assert_false(tokenizer_is_control(t, plain.ids[i]));
    size_t shown, hidden;
    const char *piece = tokenizer_piece(t, special.ids[0], true, &shown);
    assert_int_equal(shown, 12);
    assert_memory_equal(piece, "<|im_start|>", 12);
    tokenizer_piece(t, special.ids[0], false, &hidden);
    assert_int_equal(hidden, 0);
    token_list_fini(&plain);
    token_list_fini(&special);
    tokenizer_close(t);
}

static void it_knows_what_ends_a_generation(void **state)
{
    (void)state;
    struct tokenizer *t = vectors_tokenizer("models/smollm2.gguf");
    size_t count;
    const uint32_t *ends = tokenizer_end_tokens(t, &count);
    assert_int_equal(count, 2);
    assert_int_equal(ends[0], tokenizer_special(t, "<|endoftext|>", 13));
    assert_int_equal(ends[1], tokenizer_special(t, "<|im_end|>", 10));
    assert_int_equal(tokenizer_eos(t), ends[1]);
    assert_true(tokenizer_is_end(t, ends[0]));
    assert_false(tokenizer_is_end(t, tokenizer_special(t, "<|im_start|>", 12)));
    assert_int_equal(tokenizer_special(t, "<|im_", 5), TOKEN_NONE);
    assert_false(tokenizer_adds_bos(t));
    tokenizer_close(t);
}

static void *encode_often(void *argument)
{
    static const char text[] = "The quick brown fox, 12345 \xE4\xB8\xAD\xE6\x96\x87 <|im_end|>";
    struct token_list first = vectors_encode(argument, text, sizeof text - 1, true);
    for (int i = 0; i < 300; i++) {
        struct token_list again = vectors_encode(argument, text, sizeof text - 1, true);
        assert_int_equal(again.count, first.count);
        assert_memory_equal(again.ids, first.ids, first.count * sizeof *first.ids);
        token_list_fini(&again);
    }
    token_list_fini(&first);
    return NULL;
}

static void threads_encode_at_once(void **state)
{
    (void)state;
    struct tokenizer *t = vectors_tokenizer("tokenizers/ggml-vocab-qwen2.gguf");
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    tokenizer_close(t);
}

/* ---- vocabularies made here ---- */

struct file {
    uint8_t bytes[8192];
    size_t length;
    uint64_t keys;
};

static void put(struct file *f, const void *bytes, size_t length)
{
    assert_true(f->length + length <= sizeof f->bytes);
    memcpy(f->bytes + f->length, bytes, length);
    f->length += length;
}

static void put_u32(struct file *f, uint32_t value)
{
    put(f, &value, sizeof value);
}

static void put_string(struct file *f, const char *text)
{
    uint64_t length = strlen(text);
    put(f, &length, sizeof length);
    put(f, text, length);
}

static void put_key(struct file *f, const char *key, enum gguf_value_type type)
{
    f->keys++;
    put_string(f, key);
    put_u32(f, type);
}

static void put_array(struct file *f, const char *key, enum gguf_value_type element, uint64_t count)
{
    put_key(f, key, GGUF_ARRAY);
    put_u32(f, element);
    put(f, &count, sizeof count);
}

/* What a made vocabulary looks like: NULL ends the lists. */
struct recipe {
    const char *model, *pre;
    const char *tokens[16];
    const char *merges[8];
    int types[16]; /* as many as type_count says */
    uint64_t type_count, score_count;
    uint32_t eos;
};

static struct file make_file(const struct recipe *r)
{
    struct file f = {0};
    uint64_t tensors = 0, count = 0;
    put(&f, "GGUF", 4);
    put_u32(&f, 3);
    put(&f, &tensors, 8);
    put(&f, &tensors, 8); /* keys, below */
    put_key(&f, "tokenizer.ggml.model", GGUF_STRING);
    put_string(&f, r->model);
    if (r->pre) {
        put_key(&f, "tokenizer.ggml.pre", GGUF_STRING);
        put_string(&f, r->pre);
    }
    while (r->tokens[count])
        count++;
    put_array(&f, "tokenizer.ggml.tokens", GGUF_STRING, count);
    for (uint64_t i = 0; i < count; i++)
        put_string(&f, r->tokens[i]);
    for (count = 0; r->merges[count];)
        count++;
    put_array(&f, "tokenizer.ggml.merges", GGUF_STRING, count);
    for (uint64_t i = 0; i < count; i++)
        put_string(&f, r->merges[i]);
    put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, r->type_count);
    for (uint64_t i = 0; i < r->type_count; i++)
        put_u32(&f, (uint32_t)r->types[i]);
    put_array(&f, "tokenizer.ggml.scores", GGUF_F32, r->score_count);
    for (uint64_t i = 0; i < r->score_count; i++)
        put(&f, &(float){-(float)i}, 4);
    put_key(&f, "tokenizer.ggml.eos_token_id", GGUF_U32);
    put_u32(&f, r->eos);
    memcpy(f.bytes + 16, &f.keys, 8);
    return f;
}

static enum err open_made(const struct recipe *r, struct tokenizer **t, struct why *why)
{
    struct file f = make_file(r);
    struct gguf *g;
    *t = NULL;
    if (gguf_open_memory(&g, f.bytes, f.length, "made", why) != OK)
        fail_msg("%s", why->text);
    enum err err = tokenizer_open(t, g, why);
    gguf_close(g);
    assert_true((err == OK) == (*t != NULL));
    return err;
}

static struct recipe small_bpe(void)
{
    return (struct recipe){
        .model = "gpt2",
        .pre = "gpt-2",
        .tokens = {"a", "b", "c", "ab", "abc", "\xC4\xA0", "<end>", "user"},
        .merges = {"a b", "ab c"},
        .types = {1, 1, 1, 1, 1, 1, 3, 4},
        .type_count = 8,
        .eos = 6,
    };
}

static void assert_refused(struct recipe r, enum err expected, const char *word)
{
    struct tokenizer *t;
    struct why why;
    assert_int_equal(open_made(&r, &t, &why), expected);
    if (!strstr(why.text, word))
        fail_msg("\"%s\" does not speak of \"%s\"", why.text, word);
}

static void kinds_and_pre_tokenizers_that_are_not_known_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const kinds[] = {"unigram", "t5", "rwkv", "gpt", "llama2", ""};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct recipe r = small_bpe();
        char quoted[16];
        snprintf(quoted, sizeof quoted, "\"%s\"", kinds[i]);
        r.model = kinds[i];
        assert_refused(r, ERR_UNSUPPORTED, quoted);
    }
    struct recipe r = small_bpe();
    r.pre = "martian";
    assert_refused(r, ERR_UNSUPPORTED, "\"martian\"");
}

static void a_vocabulary_that_contradicts_itself_is_refused(void **state)
{
    (void)state;
    struct recipe r = small_bpe();
    r.type_count = 7;
    assert_refused(r, ERR_FORMAT, "token types");
    r = small_bpe();
    r.types[2] = 7;
    assert_refused(r, ERR_FORMAT, "token 2");
    r = small_bpe();
    r.eos = 8;
    assert_refused(r, ERR_FORMAT, "eos_token_id");
    r = small_bpe();
    r.tokens[0] = NULL;
    assert_refused(r, ERR_FORMAT, "0 tokens");
    r = small_bpe();
    r.model = "llama";
    r.score_count = 3;
    assert_refused(r, ERR_FORMAT, "scores");
    r.score_count = 8;
    r.types[1] = 6;
    assert_refused(r, ERR_FORMAT, "token 1");
}

static void merges_of_unknown_tokens_are_passed_over(void **state)
{
    (void)state;
    struct recipe r = small_bpe();
    struct tokenizer *t;
    struct why why;
    const char *const odd[] = {"b c", "x y", "a", "", "a b", "c "};
    for (size_t i = 0; i < 6; i++)
        r.merges[2 + i - (i == 5)] = odd[i];
    r.merges[7] = NULL;
    assert_int_equal(open_made(&r, &t, &why), OK);
    struct token_list list = vectors_encode(t, "abc bc", 6, false);
    const uint32_t expected[] = {4, 5, 1, 2};
    assert_int_equal(list.count, 4);
    assert_memory_equal(list.ids, expected, sizeof expected);
    token_list_fini(&list);
    tokenizer_close(t);
}

static void a_user_defined_token_is_found_in_any_text(void **state)
{
    (void)state;
    struct recipe r = small_bpe();
    struct tokenizer *t;
    struct why why;
    assert_int_equal(open_made(&r, &t, &why), OK);
    struct token_list list = vectors_encode(t, "auserb<end>", 11, false);
    const uint32_t expected[] = {0, 7, 1}; /* the bytes of <end> have no tokens here */
    assert_int_equal(list.count, 3);
    assert_memory_equal(list.ids, expected, sizeof expected);
    list.count = 0;
    assert_int_equal(tokenizer_encode(t, "<end>ab", 7, true, &list, &why), OK);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.ids[0], 6);
    assert_int_equal(list.ids[1], 3);
    assert_true(tokenizer_is_end(t, 6));
    token_list_fini(&list);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_tokens_come_only_from_text_that_may_name_them),
        cmocka_unit_test(it_knows_what_ends_a_generation),
        cmocka_unit_test(threads_encode_at_once),
        cmocka_unit_test(kinds_and_pre_tokenizers_that_are_not_known_are_refused_by_name),
        cmocka_unit_test(a_vocabulary_that_contradicts_itself_is_refused),
        cmocka_unit_test(merges_of_unknown_tokens_are_passed_over),
        cmocka_unit_test(a_user_defined_token_is_found_in_any_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
