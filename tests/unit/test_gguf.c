/*
 * The GGUF reader against files that lie: cut at every byte, every integer at its boundaries, wrong types, duplicates,
 * overlaps. Each hostile file lies at the end of a mapping of its own, before a page that nobody may read.
 */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/gguf_writer.h"
#include "tests/support/model_rig.h"

/* ---- hostile bytes against a guard page ---- */

static enum err open_guarded(const void *bytes, size_t length, struct gguf **g, struct why *why)
{
    enum { ROOM = 1 << 20 };
    static uint8_t *region;
    if (!region) {
        region = mmap(NULL, ROOM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(region, MAP_FAILED);
        assert_int_equal(mprotect(region + ROOM, 4096, PROT_NONE), 0);
    }
    assert_true(length <= ROOM);
    uint8_t *at = region + ROOM - length;
    memcpy(at, bytes, length);
    *why = (struct why){""};
    return gguf_open_memory(g, at, length, "m.gguf", why);
}

/* Everything that it hands out is inside the file, and readable to its last byte. */
static void walk(const struct gguf *g)
{
    volatile uint8_t sink = 0;
    for (uint32_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        for (uint64_t at = 0; at < t->bytes; at++)
            sink = (uint8_t)(sink ^ t->data[at]);
        sink = (uint8_t)(sink ^ t->name.at[t->name.length - 1]);
    }
    const struct gguf_string *strings;
    uint64_t count;
    if (gguf_get_strings(g, "a.words", true, &strings, &count, NULL) == OK)
        for (uint64_t i = 0; i < count; i++)
            for (size_t at = 0; at < strings[i].length; at++)
                sink = (uint8_t)(sink ^ strings[i].at[at]);
}

static void survives(const struct file *f)
{
    struct gguf *g;
    struct why why;
    enum err err = open_guarded(f->bytes, f->length, &g, &why);
    if (err != OK) {
        assert_true(strlen(why.text) > 0 && strstr(why.text, "m.gguf"));
        return;
    }
    walk(g);
    gguf_close(g);
}

static void refused(const struct file *f, const char *words)
{
    struct gguf *g;
    struct why why;
    if (open_guarded(f->bytes, f->length, &g, &why) == OK)
        fail_msg("a file was read that should have been refused with \"%s\"", words);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" does not say \"%s\"", why.text, words);
}

static struct gguf *accepted(const struct file *f)
{
    struct gguf *g;
    struct why why;
    if (open_guarded(f->bytes, f->length, &g, &why) != OK)
        fail_msg("%s", why.text);
    return g;
}

/* ---- good files ---- */

static void small_file_gives_back_what_it_holds(void **state)
{
    (void)state;
    struct file f = small_gguf();
    struct gguf *g = accepted(&f);
    uint32_t count = 0;
    float rate = 0;
    bool flag = false;
    struct gguf_string name;
    assert_int_equal(gguf_get_u32(g, "a.count", true, &count, NULL), OK);
    assert_int_equal(count, 7);
    assert_int_equal(gguf_get_f32(g, "a.rate", true, &rate, NULL), OK);
    assert_true(rate == 0.5f);
    assert_int_equal(gguf_get_bool(g, "a.flag", true, &flag, NULL), OK);
    assert_true(flag);
    assert_int_equal(gguf_get_string(g, "general.name", true, &name, NULL), OK);
    assert_int_equal(name.length, 4);
    assert_memory_equal(name.at, "tiny", 4);

    const struct gguf_string *words;
    const uint8_t *numbers;
    uint64_t n;
    assert_int_equal(gguf_get_strings(g, "a.words", true, &words, &n, NULL), OK);
    assert_int_equal(n, 3);
    assert_int_equal(words[1].length, 0);
    assert_memory_equal(words[2].at, "three", 5);
    assert_int_equal(gguf_get_array(g, "a.numbers", true, GGUF_I32, &numbers, &n, NULL), OK);
    assert_int_equal(n, 2);
    assert_memory_equal(numbers, "\5\0\0\0\xfa\xff\xff\xff", 8);

    const struct gguf_tensor *t = gguf_tensor_find(g, "second");
    assert_non_null(t);
    assert_int_equal(t->type, TENSOR_Q4_0);
    assert_int_equal(t->bytes, 36);
    assert_int_equal(t->extent[0], 32);
    assert_int_equal(t->extent[1], 2);
    assert_int_equal(t->extent[2], 1);
    assert_ptr_equal(t->data, gguf_tensor_find(g, "first")->data + 64);
    assert_null(gguf_tensor_find(g, "third"));
    gguf_close(g);
}

static void versions_2_and_3_are_read_and_others_refused(void **state)
{
    (void)state;
    for (uint32_t version = 0; version < 6; version++) {
        struct file f = {.length = 0};
        put_header(&f, version, 0, 0);
        if (version == 2 || version == 3)
            gguf_close(accepted(&f));
        else
            refused(&f, "versions 2 and 3 can be read");
    }
    struct file big = {.length = 0};
    put_header(&big, 0x03000000, 0, 0);
    refused(&big, "big-endian");
    struct file other = {.length = 0};
    put(&other, "GGML", 4);
    refused(&other, "does not begin with \"GGUF\"");
}

static void hash_tells_weights_and_metadata_apart(void **state)
{
    (void)state;
    struct file a = small_gguf(), b = small_gguf(), c = small_gguf();
    b.bytes[40] ^= 1;               /* in the name */
    c.bytes[c.length - 18] ^= 0x55; /* in the middle of the second tensor */
    struct gguf *g = accepted(&a);
    uint64_t hash = gguf_hash(g);
    gguf_close(g);
    g = accepted(&a);
    assert_true(gguf_hash(g) == hash);
    gguf_close(g);
    g = accepted(&b);
    assert_true(gguf_hash(g) != hash);
    gguf_close(g);
    g = accepted(&c);
    assert_true(gguf_hash(g) != hash);
    gguf_close(g);
}

static void vocabulary_files_and_models_open(void **state)
{
    (void)state;
    char path[512];
    struct gguf *g;
    struct why why;
    if (!rig_find("tokenizers/ggml-vocab-qwen2.gguf", path))
        skip();
    assert_int_equal(gguf_open(&g, path, &why), OK);
    const struct gguf_string *tokens;
    uint64_t count;
    assert_int_equal(gguf_get_strings(g, "tokenizer.ggml.tokens", true, &tokens, &count, NULL), OK);
    assert_int_equal(count, 151936);
    assert_int_equal(gguf_tensor_count(g), 0);
    gguf_close(g);
    assert_true(rig_find("tiny/llama/model-f32.gguf", path));
    assert_int_equal(gguf_open(&g, path, &why), OK);
    assert_int_equal(gguf_tensor_count(g), 31);
    assert_int_equal(gguf_file_bytes(g), 2016576);
    gguf_close(g);
}

static void what_is_no_file_is_refused_by_name(void **state)
{
    (void)state;
    struct gguf *g;
    struct why why;
    assert_int_equal(gguf_open(&g, "/nowhere/m.gguf", &why), ERR_IO);
    assert_non_null(strstr(why.text, "\"/nowhere/m.gguf\": No such file"));
    assert_int_equal(gguf_open(&g, "/", &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "no regular file"));
    char path[] = "/tmp/quire-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(gguf_open(&g, path, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "is empty"));
    close(fd);
    unlink(path);
}

/* ---- files that lie ---- */

static void cut_at_every_byte_is_refused(void **state)
{
    (void)state;
    const struct file whole = small_gguf();
    for (size_t length = 0; length < whole.length; length++) {
        struct gguf *g;
        struct why why;
        if (open_guarded(whole.bytes, length, &g, &why) == OK)
            fail_msg("the first %zu of %zu bytes were read as a whole file", length, whole.length);
    }
}

static void every_integer_at_its_boundaries_is_survived(void **state)
{
    (void)state;
    const uint64_t values[] = {0,
                               1,
                               2,
                               31,
                               0x7fffffff,
                               0x80000000,
                               0xfffffff0,
                               0xffffffff,
                               0x100000000,
                               0x0fffffffffffffff,
                               0x1fffffffffffffff,
                               0x7fffffffffffffff,
                               0x8000000000000000,
                               0xffffffffffffffe0,
                               0xffffffffffffffff};
    const struct file whole = small_gguf();
    for (size_t at = 4; at < whole.length; at++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            for (size_t width = 4; width <= 8; width += 4)
                if (at + width <= whole.length) {
                    struct file f = whole;
                    memcpy(f.bytes + at, &values[v], width);
                    survives(&f);
                }
}

static void random_damage_is_survived(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)getpid() * 0x9e3779b97f4a7c15u + 1, random = seed;
    print_message("seed %" PRIu64 "\n", seed);
    for (uint32_t round = 0; round < 20000; round++) {
        struct file f = small_gguf();
        for (uint32_t hits = 0; hits < 1 + round % 8; hits++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            f.bytes[4 + random % (f.length - 4)] = (uint8_t)(random >> 32);
        }
        survives(&f);
    }
}

static void counts_beyond_the_limits_are_refused(void **state)
{
    (void)state;
    const uint64_t counts[] = {65537, 0x80000000, 0x100000000, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct file keys = {.length = 0}, tensors = {.length = 0};
        put_header(&keys, 3, 0, counts[i]);
        refused(&keys, "65536 are the limit");
        put_header(&tensors, 3, counts[i], 0);
        refused(&tensors, "65536 are the limit");
    }
}

static void string_longer_than_the_file_is_refused(void **state)
{
    (void)state;
    const uint64_t lengths[] = {64, 0xffffffff, 0x100000000, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct file name = {.length = 0}, value = {.length = 0};
        put_header(&name, 3, 0, 1);
        put_u64(&name, lengths[i]);
        put(&name, "key", 3);
        refused(&name, "ends inside key 1 of 1");
        put_header(&value, 3, 0, 1);
        put_string(&value, "key");
        put_u32(&value, GGUF_STRING);
        put_u64(&value, lengths[i]);
        refused(&value, "ends inside key 1 of 1");
    }
}

static struct file file_with_array(uint32_t element, uint64_t count)
{
    struct file f = {.length = 0};
    put_header(&f, 3, 0, 1);
    put_string(&f, "list");
    put_u32(&f, GGUF_ARRAY);
    put_u32(&f, element);
    put_u64(&f, count);
    return f;
}

static void array_longer_than_the_file_is_refused(void **state)
{
    (void)state;
    const uint64_t counts[] = {
        1, 0x20000001, 0x100000000, 0x1fffffffffffffff, 0x2000000000000000, 0x4000000000000001, UINT64_MAX};
    const uint32_t elements[] = {GGUF_U8, GGUF_BOOL, GGUF_U16, GGUF_F32, GGUF_F64, GGUF_STRING};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t e = 0; e < sizeof elements / sizeof *elements; e++) {
            struct file f = file_with_array(elements[e], counts[c]);
            refused(&f, "key \"list\" claims");
        }
}

static void arrays_of_arrays_and_unknown_types_are_refused(void **state)
{
    (void)state;
    struct file nested = file_with_array(GGUF_ARRAY, 0);
    refused(&nested, "key \"list\" is an array of arrays");
    struct file unknown = file_with_array(13, 0);
    refused(&unknown, "key \"list\" has elements of unknown type 13");
    struct file scalar = {.length = 0};
    put_header(&scalar, 3, 0, 1);
    put_key(&scalar, "odd", 0xffffffff, "", 0);
    refused(&scalar, "key \"odd\" has unknown type 4294967295");
}

static void duplicate_and_nameless_keys_and_tensors_are_refused(void **state)
{
    (void)state;
    struct file keys = {.length = 0};
    put_header(&keys, 3, 0, 3);
    put_key_u32(&keys, "a", 1);
    put_key_u32(&keys, "b", 1);
    put_key_u32(&keys, "a", 2);
    refused(&keys, "key \"a\" stands twice");

    struct file tensors = {.length = 0};
    put_header(&tensors, 3, 2, 0);
    put_tensor(&tensors, "t", 8, 1, TENSOR_F32, 0);
    put_tensor(&tensors, "t", 8, 1, TENSOR_F32, 32);
    pad(&tensors, 32, 64);
    refused(&tensors, "tensor \"t\" stands twice");

    struct file nameless = {.length = 0};
    put_header(&nameless, 3, 0, 1);
    put_key_u32(&nameless, "", 1);
    refused(&nameless, "a key has a name of 0 bytes");
}

static void only_powers_of_two_up_to_64_ki_are_alignments(void **state)
{
    (void)state;
    const uint32_t bad[] = {0, 3, 33, 0x20000, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct file f = {.length = 0};
        put_header(&f, 3, 0, 1);
        put_key_u32(&f, "general.alignment", bad[i]);
        refused(&f, "\"general.alignment\" is");
    }
    struct file wrong_type = {.length = 0};
    put_header(&wrong_type, 3, 0, 1);
    put_key(&wrong_type, "general.alignment", GGUF_F32, &(float){32}, 4);
    refused(&wrong_type, "key \"general.alignment\" is of type f32, not an integer");

    const uint32_t good[] = {1, 32, 4096};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct file f = {.length = 0};
        put_header(&f, 3, 1, 1);
        put_key_u32(&f, "general.alignment", good[i]);
        put_tensor(&f, "t", 4, 1, TENSOR_F32, 0);
        pad(&f, good[i], 16);
        struct gguf *g = accepted(&f);
        assert_memory_equal(gguf_tensor_find(g, "t")->data, "xxxxxxxxxxxxxxxx", 16);
        gguf_close(g);
    }
}

static struct file file_with_tensor(uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset)
{
    struct file f = {.length = 0};
    put_header(&f, 3, 1, 0);
    put_tensor(&f, "blk.0.attn_q.weight", columns, rows, type, offset);
    pad(&f, 32, 128);
    return f;
}

static void tensor_past_the_end_is_refused_with_both_numbers(void **state)
{
    (void)state;
    struct file f = file_with_tensor(33, 1, TENSOR_F32, 0);
    char words[128];
    snprintf(words, sizeof words, "tensor \"blk.0.attn_q.weight\" ends at byte %zu of %zu", f.length + 4, f.length);
    refused(&f, words);
    f = file_with_tensor(32, 1, TENSOR_F32, 32);
    refused(&f, "ends at byte");
    f = file_with_tensor(32, 1, TENSOR_F32, UINT64_MAX - 31);
    refused(&f, "impossible offset");
    f = file_with_tensor(8, 1, TENSOR_F32, 0x7fffffffffffffe0);
    refused(&f, "ends at byte");
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    const uint64_t sides[] = {0, 0x100000000, 0x4000000000000000, 0x8000000000000000, UINT64_MAX - 31, UINT64_MAX};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        struct file columns = file_with_tensor(sides[i], 4, TENSOR_F32, 0),
                    rows = file_with_tensor(4, sides[i], TENSOR_F32, 0);
        refused(&columns, "blk.0.attn_q.weight");
        refused(&rows, "blk.0.attn_q.weight");
    }
    struct file cut_block = file_with_tensor(48, 1, TENSOR_Q4_0, 0);
    refused(&cut_block, "rows of 48 elements, no multiple of the 32 of a Q4_0 block");
    struct file askew = file_with_tensor(8, 1, TENSOR_F32, 16);
    refused(&askew, "no multiple of the alignment 32");
    struct file unknown = file_with_tensor(8, 1, 4, 0);
    refused(&unknown, "has unknown type 4");
    unknown = file_with_tensor(8, 1, 0xffffffff, 0);
    refused(&unknown, "has unknown type 4294967295");

    const uint32_t dims[] = {0, 5, 0xffffffff};
    for (size_t i = 0; i < 3; i++) {
        struct file f = {.length = 0};
        put_header(&f, 3, 1, 0);
        put_string(&f, "t");
        put_u32(&f, dims[i]);
        pad(&f, 32, 256);
        refused(&f, "1 to 4 are allowed");
    }
}

static void overlapping_tensors_are_refused(void **state)
{
    (void)state;
    struct file f = {.length = 0};
    put_header(&f, 3, 3, 0);
    put_tensor(&f, "high", 16, 1, TENSOR_F32, 64);
    put_tensor(&f, "low", 8, 1, TENSOR_F32, 0);
    put_tensor(&f, "across", 16, 1, TENSOR_F32, 32);
    pad(&f, 32, 128);
    refused(&f, "tensors \"across\" and \"high\" overlap");
}

static void names_cannot_forge_a_message(void **state)
{
    (void)state;
    struct file f = {.length = 0};
    put_header(&f, 3, 0, 1);
    put_key(&f, "bad\n\033[31mkey", 99, "", 0);
    refused(&f, "key \"bad??[31mkey\" has unknown type 99");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_file_gives_back_what_it_holds),
        cmocka_unit_test(versions_2_and_3_are_read_and_others_refused),
        cmocka_unit_test(hash_tells_weights_and_metadata_apart),
        cmocka_unit_test(vocabulary_files_and_models_open),
        cmocka_unit_test(what_is_no_file_is_refused_by_name),
        cmocka_unit_test(cut_at_every_byte_is_refused),
        cmocka_unit_test(every_integer_at_its_boundaries_is_survived),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(counts_beyond_the_limits_are_refused),
        cmocka_unit_test(string_longer_than_the_file_is_refused),
        cmocka_unit_test(array_longer_than_the_file_is_refused),
        cmocka_unit_test(arrays_of_arrays_and_unknown_types_are_refused),
        cmocka_unit_test(duplicate_and_nameless_keys_and_tensors_are_refused),
        cmocka_unit_test(only_powers_of_two_up_to_64_ki_are_alignments),
        cmocka_unit_test(tensor_past_the_end_is_refused_with_both_numbers),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(overlapping_tensors_are_refused),
        cmocka_unit_test(names_cannot_forge_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
