/* tokenizer.json in the keys of GGUF: what text becomes, which tokens end an answer, and what is refused because it would be nearly right. */
#include "model/hub_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/tokenizer.h"
#include "tests/support/model_rig.h"
#include "tests/support/vectors.h"

static json_t *parsed(const char *text)
{
    json_error_t error;
    json_t *value = text ? json_loads(text, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (text && !value)
        fail_msg("the test's own JSON: %s", error.text);
    return value;
}

/* NULL: refused, and why says so. */
static struct tokenizer *translated(json_t *tokenizer, const char *settings, const char *generation, struct why *why)
{
    struct gguf_header h = {0};
    struct gguf_view view = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    uint8_t *bytes = NULL;
    json_t *settings_json = parsed(settings), *generation_json = parsed(generation);
    const struct hub_tokenizer from = {
        .directory = "dir", .tokenizer = tokenizer, .settings = settings_json, .generation = generation_json};
    enum err err = hub_tokenizer_translate(&h, &from, why);
    if (err == OK)
        err = gguf_header_finish(&h, &bytes, &view.length, why);
    view.header = bytes;
    if (err == OK)
        err = gguf_open_view(&g, &view, "dir", why);
    if (err == OK && tokenizer_open(&t, g, why) != OK)
        t = NULL;
    gguf_close(g);
    free(bytes);
    gguf_header_fini(&h);
    json_decref(settings_json);
    json_decref(generation_json);
    return t;
}

static struct tokenizer *made(const char *tokenizer, const char *settings, const char *generation)
{
    struct why why;
    json_t *json = parsed(tokenizer);
    struct tokenizer *t = translated(json, settings, generation, &why);
    if (!t)
        fail_msg("%s", why.text);
    json_decref(json);
    return t;
}

static void refused(const char *tokenizer, const char *settings, const char *words)
{
    struct why why;
    json_t *json = parsed(tokenizer);
    struct tokenizer *t = translated(json, settings, NULL, &why);
    if (t)
        fail_msg("a tokenizer was taken that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
    json_decref(json);
}

static void becomes(const struct tokenizer *t, const char *text, bool special, const uint32_t *ids, size_t count)
{
    struct token_list list = vectors_encode(t, text, strlen(text), special);
    bool same = list.count == count && memcmp(list.ids, ids, count * sizeof *ids) == 0;
    for (size_t i = 0; !same && i < list.count; i++)
        print_message("%u ", list.ids[i]);
    if (!same)
        fail_msg("\"%s\" became other tokens than expected", text);
    token_list_fini(&list);
}

#define BECOMES(t, text, special, ...)                         \
    becomes(t, text, special, (const uint32_t[]){__VA_ARGS__}, \
            sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* ---- byte-level ---- */

#define BYTE_LEVEL "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
#define SMALL_VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4}"
#define SMALL_BPE(more)                                                                                 \
    "{" BYTE_LEVEL "\"added_tokens\":[{\"id\":6,\"content\":\"<end>\",\"special\":true},"               \
    "{\"id\":7,\"content\":\"bb\",\"special\":false}]," more "\"model\":{\"type\":\"BPE\"," SMALL_VOCAB \
    ",\"merges\":[\"a b\",[\"\\u0120\",\"ab\"]]}}"

static void byte_level_bpe_merges_in_both_spellings_of_merges(void **state)
{
    (void)state;
    struct tokenizer *t = made(SMALL_BPE(""), "{\"eos_token\":{\"content\":\"<end>\"},\"pad_token\":\"<end>\"}",
                               "{\"eos_token_id\":[6,0]}");
    assert_int_equal(tokenizer_vocab_size(t), 8); /* 5 is a hole */
    BECOMES(t, "ab ab", false, 2, 4);
    BECOMES(t, "abba<end>", true, 0, 7, 0, 6);
    assert_int_equal(tokenizer_eos(t), 6);
    assert_int_equal(tokenizer_pad(t), 6);
    assert_int_equal(tokenizer_bos(t), TOKEN_NONE);
    assert_true(tokenizer_is_end(t, 6) && tokenizer_is_end(t, 0) && !tokenizer_is_end(t, 1));
    assert_true(tokenizer_is_control(t, 6) && !tokenizer_is_control(t, 7));
    assert_false(tokenizer_adds_bos(t));
    tokenizer_close(t);
}

static void a_template_of_the_post_processor_says_what_is_put_around_a_text(void **state)
{
    (void)state;
#define AROUND                                                                            \
    "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<end>\"}},{\"Sequence\":{\"id\":\"A\"}}]}]},"
    struct tokenizer *t = made(SMALL_BPE(AROUND), "{\"bos_token\":\"<end>\"}", NULL);
    assert_true(tokenizer_adds_bos(t));
    assert_false(tokenizer_adds_eos(t));
    assert_int_equal(tokenizer_bos(t), 6);
    tokenizer_close(t);
    t = made(SMALL_BPE(AROUND), "{\"bos_token\":\"<end>\",\"add_bos_token\":false}", NULL);
    assert_false(tokenizer_adds_bos(t));
    tokenizer_close(t);
}

/* ---- as converted from SentencePiece ---- */

#define SPM(before, more)                                                                                             \
    "{" before "\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true}]," more                           \
    "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<0x41>\":1," \
    "\"\\u2581\":2,\"a\":3,\"b\":4,\"c\":5,\"ab\":6,\"bc\":7,\"\\u2581a\":8,\"abc\":9},"                              \
    "\"merges\":[\"b c\",\"a b\",\"\\u2581 a\"]}}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}"

static void merges_of_characters_join_in_their_order_and_nothing_else_joins(void **state)
{
    (void)state;
    struct tokenizer *t = made(SPM("\"normalizer\":" REPLACE ",", ""), NULL, NULL);
    assert_false(tokenizer_adds_space(t));
    BECOMES(t, "abc", false, 3, 7); /* "b c" goes first; "abc" is a token that no merge makes */
    BECOMES(t, "ab a", false, 6, 8);
    BECOMES(t, "A", false, 1); /* by its byte */
    BECOMES(t, "<unk>", true, 0);
    tokenizer_close(t);
    t = made(
        SPM("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"}," REPLACE
            "]},",
            ""),
        NULL, NULL);
    assert_true(tokenizer_adds_space(t));
    tokenizer_close(t);
    t = made(
        SPM("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"first\",\"split\":false},",
            ""),
        NULL, NULL);
    assert_true(tokenizer_adds_space(t));
    tokenizer_close(t);
}

/* ---- what is refused ---- */

static void what_would_be_nearly_right_is_refused_by_name(void **state)
{
    (void)state;
#define MODEL "\"model\":{\"type\":\"BPE\"," SMALL_VOCAB ",\"merges\":[]}}"
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0.0]]}}", NULL, "not \"Unigram\"");
    refused("{" MODEL, NULL, "pre_tokenizer of type \"ByteLevel\"");
    refused("{\"normalizer\":{\"type\":\"Lowercase\"}," BYTE_LEVEL MODEL, NULL, "the normalizer \"Lowercase\"");
    refused("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}," MODEL, NULL,
            "how to cut text by a pre_tokenizer \"ByteLevel\"");
    refused(
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\","
        "\"pattern\":{\"Regex\":\"[aeiou]\"}},{\"type\":\"ByteLevel\",\"use_regex\":false}]}," MODEL,
        NULL, "does not know the pre_tokenizer's pattern \"[aeiou]\"");
    refused("{\"normalizer\":{\"type\":\"NFKC\"},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true," SMALL_VOCAB
            ",\"merges\":[]}}",
            NULL, "the normalizer \"NFKC\"");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\",\"merges\":[]}}", NULL, "model.vocab");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\"," SMALL_VOCAB "}}", NULL, "model.merges");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\"," SMALL_VOCAB ",\"merges\":[\"ab\"]}}", NULL, "no pair");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\"," SMALL_VOCAB ",\"merges\":[[\"a\"]]}}", NULL, "no pair");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", NULL,
            "another token has the id of the token \"b\"");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", NULL, "no id");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":70000},\"merges\":[]}}", NULL, "no id");
    refused("{" BYTE_LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", NULL, "no id");
    refused("{" BYTE_LEVEL MODEL, "{\"eos_token\":\"</s>\"}",
            "lacks what tokenizer_config.json calls a special token, \"</s>\"");
    refused("{}", NULL, "only BPE and WordPiece");
    struct why why;
    json_t *json = parsed("{" BYTE_LEVEL MODEL);
    assert_null(translated(json, NULL, "{\"eos_token_id\":[1,99]}", &why));
    assert_non_null(strstr(why.text, "beyond the vocabulary"));
    assert_null(translated(json, NULL, "{\"eos_token_id\":99}", &why));
    assert_non_null(strstr(why.text, "beyond the vocabulary"));
    json_decref(json);
}

/* ---- the patterns by which text is cut ---- */

#define SPLIT(regex) \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false},"
#define LLAMA3(digits)                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static void the_patterns_of_known_families_are_recognised(void **state)
{
    static const struct {
        const char *parts, *model_words, *name;
    } known[] = {
        {SPLIT(LLAMA3("\\\\p{N}{1,3}")) "{\"type\":\"ByteLevel\",\"use_regex\":false}", "\"ignore_merges\":true,",
         "llama-bpe"},
        {SPLIT(LLAMA3("\\\\p{N}")) "{\"type\":\"ByteLevel\",\"use_regex\":false}", "", "qwen2"},
        {"{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\",\"use_regex\":true}", "", "smollm"},
        {"{\"type\":\"ByteLevel\"}", "", "gpt-2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char text[2048];
        struct gguf_header h = {0};
        struct gguf_view view = {0};
        struct gguf *g;
        struct gguf_string pre;
        struct why why;
        uint8_t *bytes;
        snprintf(text, sizeof text,
                 "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s]},"
                 "\"model\":{\"type\":\"BPE\",%s" SMALL_VOCAB ",\"merges\":[]}}",
                 known[i].parts, known[i].model_words);
        json_t *json = parsed(text);
        const struct hub_tokenizer from = {.directory = "dir", .tokenizer = json};
        if (hub_tokenizer_translate(&h, &from, &why) != OK)
            fail_msg("%s", why.text);
        assert_int_equal(gguf_header_finish(&h, &bytes, &view.length, &why), OK);
        view.header = bytes;
        assert_int_equal(gguf_open_view(&g, &view, "dir", &why), OK);
        assert_int_equal(gguf_get_string(g, "tokenizer.ggml.pre", true, &pre, &why), OK);
        assert_true(pre.length == strlen(known[i].name) && memcmp(pre.at, known[i].name, pre.length) == 0);
        gguf_close(g);
        free(bytes);
        gguf_header_fini(&h);
        json_decref(json);
    }
}

/* ---- the same tokens as the GGUF file of the same model ---- */

static void the_tiny_vocabulary_gives_the_tokens_of_its_gguf_file(void **state)
{
    static const char *const texts[] = {"The quick brown fox, 123.", "  two  blanks\n\tand \xC3\xA4\xE2\x82\xAC",
                                        "<|im_start|>user\nHi<|im_end|>", "a\xFF\xFE b"};
    char path[512];
    struct why why;
    (void)state;
    if (!rig_find("tiny/llama/hf/tokenizer.json", path))
        skip();
    json_t *json = json_load_file(path, 0, NULL);
    struct tokenizer *ours = translated(json, "{\"bos_token\":\"<|endoftext|>\"}", NULL, &why);
    struct tokenizer *theirs = vectors_tokenizer("tiny/llama/model-f32.gguf");
    assert_non_null(ours);
    assert_int_equal(tokenizer_vocab_size(ours), tokenizer_vocab_size(theirs));
    for (size_t i = 0; i < 8; i++) {
        struct token_list expected = vectors_encode(theirs, texts[i / 2], strlen(texts[i / 2]), i % 2);
        becomes(ours, texts[i / 2], i % 2, expected.ids, expected.count);
        token_list_fini(&expected);
    }
    tokenizer_close(ours);
    tokenizer_close(theirs);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_bpe_merges_in_both_spellings_of_merges),
        cmocka_unit_test(a_template_of_the_post_processor_says_what_is_put_around_a_text),
        cmocka_unit_test(merges_of_characters_join_in_their_order_and_nothing_else_joins),
        cmocka_unit_test(what_would_be_nearly_right_is_refused_by_name),
        cmocka_unit_test(the_patterns_of_known_families_are_recognised),
        cmocka_unit_test(the_tiny_vocabulary_gives_the_tokens_of_its_gguf_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
