/* What gguf_header writes, the reader reads. */
#include "model/gguf_header.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/tensor_rows.h"

static const float numbers[64] = {1.5f, -2.0f};

static void write_all(struct gguf_header *h)
{
    gguf_header_u32(h, "a.count", 7);
    gguf_header_f32(h, "a.rate", 0.25f);
    gguf_header_bool(h, "a.flag", true);
    gguf_header_string(h, "a.text", "x\0y", 3);
    gguf_header_array(h, "a.words", GGUF_STRING, 2);
    gguf_header_element_string(h, "one", 3);
    gguf_header_element_string(h, "", 0);
    gguf_header_array(h, "a.numbers", GGUF_I32, 2);
    gguf_header_element(h, (const int32_t[]){-1, 5}, 8);
    gguf_header_tensor(h, (struct gguf_string){"first", 5}, 2, (const uint64_t[4]){3, 5, 1, 1}, TENSOR_F32, 60);
    gguf_header_tensor(h, (struct gguf_string){"second", 6}, 1, (const uint64_t[4]){4, 1, 1, 1}, TENSOR_F32, 16);
}

static void every_kind_of_value_comes_back(void **state)
{
    (void)state;
    struct gguf_header h = {0};
    struct gguf_view view = {0};
    struct gguf *g;
    struct why why;
    uint8_t *bytes;
    const struct tensor_source sources[2] = {{.data = (const uint8_t *)numbers, .type = TENSOR_F32},
                                             {.data = (const uint8_t *)numbers, .type = TENSOR_F32, .added = 1}};
    write_all(&h);
    assert_true(h.data_bytes == 64 + 32);
    assert_int_equal(gguf_header_finish(&h, &bytes, &view.length, &why), OK);
    assert_int_equal(view.length % GGUF_ALIGNMENT, 0);
    view.header = bytes;
    view.sources = sources;
    view.hash = 42;
    view.file_bytes = 43;
    if (gguf_open_view(&g, &view, "made", &why) != OK)
        fail_msg("%s", why.text);
    uint32_t count = 0;
    float rate = 0;
    bool flag = false;
    struct gguf_string text;
    const struct gguf_string *words;
    const uint8_t *array;
    uint64_t words_count, array_count;
    assert_int_equal(gguf_get_u32(g, "a.count", true, &count, &why), OK);
    assert_int_equal(gguf_get_f32(g, "a.rate", true, &rate, &why), OK);
    assert_int_equal(gguf_get_bool(g, "a.flag", true, &flag, &why), OK);
    assert_int_equal(gguf_get_string(g, "a.text", true, &text, &why), OK);
    assert_int_equal(gguf_get_strings(g, "a.words", true, &words, &words_count, &why), OK);
    assert_int_equal(gguf_get_array(g, "a.numbers", true, GGUF_I32, &array, &array_count, &why), OK);
    assert_true(count == 7 && rate == 0.25f && flag && text.length == 3 && memcmp(text.at, "x\0y", 3) == 0);
    assert_true(words_count == 2 && words[0].length == 3 && words[1].length == 0 && array_count == 2);
    assert_memory_equal(array, ((const int32_t[]){-1, 5}), 8);
    assert_true(gguf_hash(g) == 42 && gguf_file_bytes(g) == 43);
    const struct gguf_tensor *first = gguf_tensor_find(g, "first"), *second = gguf_tensor_find(g, "second");
    assert_ptr_equal(first->data, numbers); /* plain: in place */
    assert_null(first->source);
    assert_null(second->data);
    assert_ptr_equal(second->source, &sources[1]);
    assert_true(tensor_row_count(first) == 5 && tensor_row_bytes(first) == 12);
    gguf_close(g);
    free(bytes);
    gguf_header_fini(&h);
}

static void keys_are_copied_byte_for_byte(void **state)
{
    (void)state;
    struct gguf_header h = {0}, copy = {0};
    struct gguf *g;
    struct why why;
    uint8_t *bytes, *again;
    size_t length, again_length;
    write_all(&h);
    assert_int_equal(gguf_header_finish(&h, &bytes, &length, &why), OK);
    const struct tensor_source source = {.data = (const uint8_t *)numbers, .type = TENSOR_F32};
    const struct tensor_source sources[2] = {source, source};
    assert_int_equal(
        gguf_open_view(&g, &(struct gguf_view){.header = bytes, .length = length, .sources = sources}, "made", &why),
        OK);
    for (uint32_t i = 0; i < gguf_key_count(g); i++) {
        struct gguf_key key = gguf_key_at(g, i);
        gguf_header_copy(&copy, &key);
    }
    assert_true(copy.key_count == h.key_count && copy.keys.length == h.keys.length);
    assert_int_equal(gguf_header_finish(&copy, &again, &again_length, &why), OK);
    gguf_close(g);
    assert_int_equal(gguf_open_view(&g, &(struct gguf_view){.header = again, .length = again_length}, "again", &why),
                     OK);
    const struct gguf_string *words;
    uint64_t count;
    assert_int_equal(gguf_get_strings(g, "a.words", true, &words, &count, &why), OK);
    assert_int_equal(count, 2);
    gguf_close(g);
    free(bytes);
    free(again);
    gguf_header_fini(&h);
    gguf_header_fini(&copy);
}

static void one_key_twice_is_refused_by_the_reader(void **state)
{
    (void)state;
    struct gguf_header h = {0};
    struct gguf *g;
    struct why why;
    uint8_t *bytes;
    size_t length;
    gguf_header_u32(&h, "a.count", 7);
    gguf_header_u32(&h, "a.count", 8);
    assert_int_equal(gguf_header_finish(&h, &bytes, &length, &why), OK);
    assert_int_equal(gguf_open_view(&g, &(struct gguf_view){.header = bytes, .length = length}, "made", &why),
                     ERR_FORMAT);
    assert_non_null(strstr(why.text, "stands twice"));
    free(bytes);
    gguf_header_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_comes_back),
        cmocka_unit_test(keys_are_copied_byte_for_byte),
        cmocka_unit_test(one_key_twice_is_refused_by_the_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
