/*
 * The safetensors reader against files that lie: cut at every byte, offsets at their boundaries, overlaps, holes, indexes that name what is
 * not there. Each hostile file lies at the end of a mapping of its own, before a page that nobody may read.
 */
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/model_rig.h"

struct bytes {
    uint8_t at[4096];
    size_t length;
};

/* A header and `data` bytes 'x' behind it. */
static struct bytes file_of(const char *header, size_t data)
{
    struct bytes f = {.length = 8 + strlen(header) + data};
    uint64_t length = strlen(header);
    assert_true(f.length <= sizeof f.at);
    memcpy(f.at, &length, 8);
    memcpy(f.at + 8, header, length);
    memset(f.at + 8 + length, 'x', data);
    return f;
}

#define GOOD                                                                                                    \
    "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]}," \
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"                                           \
    "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[8,8]},"                                      \
    "\"one\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[20,28]}}  "

static enum err open_guarded(const void *bytes, size_t length, struct safetensors **s, struct why *why)
{
    enum { ROOM = 1 << 16 };
    static uint8_t *region;
    if (!region) {
        region = mmap(NULL, ROOM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(region, MAP_FAILED);
        assert_int_equal(mprotect(region + ROOM, 4096, PROT_NONE), 0);
    }
    uint8_t *at = region + ROOM - length;
    if (length)
        memcpy(at, bytes, length);
    *why = (struct why){""};
    return safetensors_open_memory(s, at, length, "m.safetensors", why);
}

static void refused(const char *header, size_t data, const char *words)
{
    struct bytes f = file_of(header, data);
    struct safetensors *s;
    struct why why;
    if (open_guarded(f.at, f.length, &s, &why) == OK)
        fail_msg("a file was read that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words) || !strstr(why.text, "m.safetensors"))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

static void a_good_file_gives_its_tensors_by_name(void **state)
{
    (void)state;
    struct bytes f = file_of(GOOD, 28);
    struct safetensors *s;
    struct why why;
    assert_int_equal(open_guarded(f.at, f.length, &s, &why), OK);
    assert_int_equal(safetensors_count(s), 4);
    const struct safetensors_tensor *a = safetensors_find(s, "a"), *b = safetensors_find(s, "b");
    assert_true(a && a->is_float && a->type == TENSOR_F32 && a->dims == 1 && a->extent[0] == 2 && a->bytes == 8);
    assert_true(b && b->is_float && b->type == TENSOR_BF16 && b->dims == 2 && b->extent[0] == 2 && b->extent[1] == 3);
    assert_int_equal(b->data - a->data, 8);
    assert_false(safetensors_find(s, "one")->is_float);
    assert_int_equal(safetensors_find(s, "one")->dims, 0);
    assert_int_equal(safetensors_find(s, "none")->bytes, 0);
    assert_null(safetensors_find(s, "c"));
    assert_null(safetensors_find(s, "__metadata__"));
    assert_true(safetensors_file_bytes(s) == f.length);
    safetensors_close(s);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct bytes f = file_of(GOOD, 28);
    for (size_t length = 0; length < f.length; length++) {
        struct safetensors *s;
        struct why why;
        if (open_guarded(f.at, length, &s, &why) == OK)
            fail_msg("the first %zu of %zu bytes were read as a file", length, f.length);
        assert_true(strlen(why.text) > 0);
    }
}

static void no_byte_that_differs_makes_it_read_outside_the_file(void **state)
{
    (void)state;
    struct bytes f = file_of(GOOD, 28);
    for (size_t at = 0; at < f.length - 28; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            struct safetensors *s;
            struct why why;
            f.at[at] ^= (uint8_t)(1u << bit);
            if (open_guarded(f.at, f.length, &s, &why) == OK) {
                volatile uint8_t sink = 0;
                for (uint32_t i = 0; i < safetensors_count(s); i++)
                    for (uint64_t b = 0; b < safetensors_at(s, i)->bytes; b++)
                        sink = (uint8_t)(sink ^ safetensors_at(s, i)->data[b]);
                safetensors_close(s);
            }
            f.at[at] ^= (uint8_t)(1u << bit);
        }
}

#define TENSOR(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void headers_that_lie_are_refused_by_name(void **state)
{
    (void)state;
    refused("{" TENSOR("a", "F32", "[2]", 0, 16) "}", 8, "tensor \"a\" lies from byte 0 to 16 of 8");
    refused("{" TENSOR("a", "F32", "[2]", 8, 0) "}", 8, "tensor \"a\" lies from byte 8 to 0");
    refused("{" TENSOR("a", "F32", "[2]", 0, 4) "}", 4, "4 bytes between its offsets, but 8 by its shape");
    refused("{" TENSOR("a", "F32", "[2]", 0, 8) "," TENSOR("b", "F32", "[2]", 4, 12) "}", 12,
            "tensors \"a\" and \"b\" overlap");
    refused("{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("b", "F32", "[1]", 0, 4) "}", 4, "overlap");
    refused("{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("b", "F32", "[1]", 8, 12) "}", 12,
            "4 bytes before tensor \"b\" belong to no tensor");
    refused("{" TENSOR("a", "F32", "[1]", 0, 4) "}", 12, "its last 8 bytes belong to no tensor");
    refused("{" TENSOR("a", "F33", "[1]", 0, 4) "}", 4, "unknown dtype \"F33\"");
    refused("{" TENSOR("a", "F32", "[-1]", 0, 4) "}", 4, "impossible shape");
    refused("{" TENSOR("a", "F32", "[4611686018427387904,4]", 0, 0) "}", 0, "impossible shape");
    refused("{" TENSOR("a", "F32", "[1.5]", 0, 4) "}", 4, "impossible shape");
    refused("{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "no shape of up to 8 sides");
    refused("{" TENSOR("a", "F32", "{}", 0, 4) "}", 4, "no shape");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no two data_offsets");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "no two data_offsets");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "no two data_offsets");
    refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "says no dtype");
    refused("{\"a\":7}", 4, "not described by an object");
    refused("{" TENSOR("a", "F32", "[1]", 0, 4) "," TENSOR("a", "F32", "[1]", 4, 8) "}", 8, "duplicate");
    refused("[]", 0, "no JSON object");
    refused("{\"a\":", 0, "no JSON object");
    struct bytes f = file_of("{}", 0);
    struct safetensors *s;
    struct why why;
    memset(f.at, 0xff, 8);
    assert_int_equal(open_guarded(f.at, f.length, &s, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "limit"));
}

/* ---- several files ---- */

static char directory[64];

static void put_file(const char *name, const struct bytes *f)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(f->at, 1, f->length, to), f->length);
    assert_int_equal(fclose(to), 0);
}

static void put_text(const char *name, const char *text)
{
    struct bytes f = {.length = strlen(text)};
    memcpy(f.at, text, f.length);
    put_file(name, &f);
}

static void refused_directory(const char *words)
{
    struct safetensors *s;
    struct why why;
    if (safetensors_open_directory(&s, directory, &why) == OK)
        fail_msg("a directory was read that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/quire-test-safetensors-XXXXXX");
    return mkdtemp(directory) ? 0 : 1;
}

static int remove_directory(void **state)
{
    static const char *const names[] = {"one", "two", "model.safetensors.index.json", "model.safetensors"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

static void an_index_and_its_files_agree_or_are_refused(void **state)
{
    static const char index[] = "model.safetensors.index.json";
    (void)state;
    refused_directory("neither model.safetensors nor model.safetensors.index.json");
    struct bytes one = file_of("{" TENSOR("a", "F32", "[2]", 0, 8) "}", 8);
    struct bytes two = file_of("{" TENSOR("b", "F16", "[2]", 0, 4) "}", 4);
    put_file("one", &one);
    put_text(index, "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}");
    refused_directory("two\": No such file");
    put_file("two", &two);
    struct safetensors *s;
    struct why why;
    if (safetensors_open_directory(&s, directory, &why) != OK)
        fail_msg("%s", why.text);
    assert_int_equal(safetensors_count(s), 2);
    assert_true(safetensors_find(s, "a")->bytes == 8 && safetensors_find(s, "b")->bytes == 4);
    assert_true(safetensors_file_bytes(s) == one.length + two.length);
    safetensors_close(s);

    put_text(index, "{\"weight_map\":{\"a\":\"two\",\"b\":\"one\"}}");
    refused_directory("the index says that \"two\" holds tensor \"a\"");
    put_text(index, "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"two\"}}");
    refused_directory("tensor \"c\"");
    put_text(index, "{\"weight_map\":{\"a\":\"one\",\"b\":\"../two\"}}");
    refused_directory("names no file of this directory");
    put_text(index, "{\"weight_map\":{\"a\":\"one\",\"b\":7}}");
    refused_directory("names no file of this directory");
    put_text(index, "{\"weight_map\":{}}");
    refused_directory("no \"weight_map\"");
    put_text(index, "{\"weight_map\":");
    refused_directory("no \"weight_map\"");
    put_file("two", &(struct bytes){.length = 0});
    put_text(index, "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}");
    refused_directory("is empty");
    struct bytes more = file_of("{" TENSOR("b", "F16", "[2]", 0, 4) "," TENSOR("c", "F16", "[2]", 4, 8) "}", 8);
    put_file("two", &more);
    refused_directory("tensor \"c\", which the index does not name");
    put_file("two", &one);
    refused_directory("tensor \"a\" stands in two files");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_gives_its_tensors_by_name),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(no_byte_that_differs_makes_it_read_outside_the_file),
        cmocka_unit_test(headers_that_lie_are_refused_by_name),
        cmocka_unit_test_setup_teardown(an_index_and_its_files_agree_or_are_refused, make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
