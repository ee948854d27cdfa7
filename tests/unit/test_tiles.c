/*
 * Tiles hold what the file's blocks stand for, value by value; the expected values are those of gguf-py
 * (fixtures/quant).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/kernels/kernels.h"

enum { FIXTURE_ROWS = 8, FIXTURE_COLS = 1024 };

static const struct {
    enum tensor_type type;
    const char *file;
} known[] = {
    {TENSOR_F16, "f16"},       {TENSOR_BF16, "bf16"},     {TENSOR_Q8_0, "q8_0"},   {TENSOR_Q4_0, "q4_0"},
    {TENSOR_Q4_1, "q4_1"},     {TENSOR_Q5_0, "q5_0"},     {TENSOR_Q5_1, "q5_1"},   {TENSOR_Q2_K, "q2_k"},
    {TENSOR_Q3_K, "q3_k"},     {TENSOR_Q4_K, "q4_k"},     {TENSOR_Q5_K, "q5_k"},   {TENSOR_Q6_K, "q6_k"},
    {TENSOR_IQ4_NL, "iq4_nl"}, {TENSOR_IQ4_XS, "iq4_xs"}, {TENSOR_MXFP4, "mxfp4"},
};
enum { KNOWN_COUNT = sizeof known / sizeof *known };

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(KERNEL_ALIGN, (bytes + KERNEL_ALIGN) / KERNEL_ALIGN * KERNEL_ALIGN);
    assert_non_null(memory);
    memset(memory, 0x5a, bytes);
    return memory;
}

/* The whole of fixtures/quant/<name><suffix>, or NULL. */
static void *read_fixture(const char *name, const char *suffix, size_t expected_bytes)
{
    const char *folder = getenv("QUIRE_FIXTURES"), *root = getenv("QUIRE_ROOT");
    char path[4096];
    if (folder)
        snprintf(path, sizeof path, "%s/quant/%s%s", folder, name, suffix);
    else
        snprintf(path, sizeof path, "%s/../shared/fixtures/quant/%s%s", root ? root : ".", name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    void *bytes = allocate(expected_bytes);
    size_t got = fread(bytes, 1, expected_bytes, f);
    fclose(f);
    assert_int_equal(got, expected_bytes);
    return bytes;
}

struct fixture {
    uint8_t *blocks;
    float *values;
    struct tile_matrix matrix;
};

static bool open_fixture(size_t i, struct fixture *f)
{
    const struct tensor_type_traits *traits = tensor_type_traits(known[i].type);
    size_t elements = FIXTURE_ROWS * FIXTURE_COLS;
    f->blocks = read_fixture(known[i].file, ".bin", elements / traits->block_elements * traits->block_bytes);
    f->values = read_fixture(known[i].file, ".f32", elements * sizeof(float));
    if (!f->blocks || !f->values)
        return false;
    uint64_t bytes;
    assert_true(tiles_bytes(known[i].type, FIXTURE_ROWS, FIXTURE_COLS, &bytes));
    uint8_t *tiles = allocate(bytes);
    tiles_build(known[i].type, tiles, f->blocks, FIXTURE_ROWS, FIXTURE_COLS, 0, 1, NULL);
    f->matrix = (struct tile_matrix){known[i].type, FIXTURE_ROWS, FIXTURE_COLS, tiles};
    return true;
}

static void close_fixture(struct fixture *f)
{
    free(f->blocks);
    free(f->values);
    free((void *)(uintptr_t)f->matrix.tiles);
}

static void assert_same_values(const char *type, const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(got[i] == expected[i]))
            fail_msg("%s: value %zu is %a, expected %a", type, i, (double)got[i], (double)expected[i]);
}

static void blocks_stand_for_what_gguf_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        struct fixture f;
        float *got = allocate(FIXTURE_ROWS * FIXTURE_COLS * sizeof *got);
        if (!open_fixture(i, &f)) {
            print_message("no fixtures/quant here\n");
            skip();
        }
        blocks_to_float(known[i].type, f.blocks, FIXTURE_ROWS * FIXTURE_COLS, got);
        assert_same_values(known[i].file, got, f.values, FIXTURE_ROWS * FIXTURE_COLS);
        for (uint32_t row = 0; row < FIXTURE_ROWS; row++) {
            tiles_row(&f.matrix, row, got);
            assert_same_values(known[i].file, got, f.values + row * FIXTURE_COLS, FIXTURE_COLS);
        }
        free(got);
        close_fixture(&f);
    }
}

static void products_with_fixtures_are_within_the_rounding_of_inputs(void **state)
{
    (void)state;
    float *x = read_fixture("x", ".f32", FIXTURE_COLS * sizeof(float));
    if (!x) {
        print_message("no fixtures/quant here\n");
        skip();
    }
    void *memory = allocate(activations_bytes(1, FIXTURE_COLS)),
         *scratch = allocate(product_scratch_bytes(FIXTURE_COLS));
    struct activations a;
    activations_place(&a, memory, 1, FIXTURE_COLS, x, FIXTURE_COLS);
    uint32_t set_count;
    const struct kernels *const *sets = kernels_runnable(&set_count);
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        bool is_float = tensor_type_traits(known[i].type)->block_elements == 1;
        struct fixture f;
        assert_true(open_fixture(i, &f));
        for (uint32_t s = 0; s < set_count; s++) {
            float y[FIXTURE_ROWS];
            sets[s]->quantize(&a, 0, FIXTURE_COLS / TILE_K);
            sets[s]->product(&f.matrix, 0, 1, &a, y, FIXTURE_ROWS, PRODUCT_STORE, scratch);
            for (uint32_t row = 0; row < FIXTURE_ROWS; row++) {
                double dot = 0, magnitude = 0;
                for (uint32_t k = 0; k < FIXTURE_COLS; k++) {
                    double term = (double)x[k] * (double)f.values[row * FIXTURE_COLS + k];
                    dot += term;
                    magnitude += fabs(term);
                }
                assert_true(fabs((double)y[row] - dot) <= (is_float ? 1e-5 : 0.005) * magnitude);
            }
        }
        close_fixture(&f);
    }
    free(x);
    free(memory);
    free(scratch);
}

static void sizes_are_those_of_the_header(void **state)
{
    (void)state;
    static const struct {
        enum tensor_type type;
        uint32_t cols;
        uint64_t bytes; /* of 16 rows */
    } expected[] = {
        {TENSOR_F32, 3, 192},     {TENSOR_F16, 3, 96},      {TENSOR_BF16, 1, 32},     {TENSOR_Q8_0, 32, 544},
        {TENSOR_Q4_0, 64, 576},   {TENSOR_Q4_1, 32, 320},   {TENSOR_Q5_0, 32, 352},   {TENSOR_Q5_1, 32, 384},
        {TENSOR_IQ4_NL, 32, 288}, {TENSOR_MXFP4, 32, 272},  {TENSOR_Q2_K, 256, 1344}, {TENSOR_Q3_K, 512, 3648},
        {TENSOR_Q4_K, 256, 2368}, {TENSOR_Q5_K, 256, 2880}, {TENSOR_Q6_K, 256, 3360}, {TENSOR_IQ4_XS, 256, 2208},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        uint64_t bytes;
        assert_true(tiles_know(expected[i].type));
        assert_true(tiles_row_tile_bytes(expected[i].type, expected[i].cols, &bytes));
        assert_int_equal(bytes, expected[i].bytes);
        assert_true(tiles_bytes(expected[i].type, 17, expected[i].cols, &bytes));
        assert_int_equal(bytes, 2 * expected[i].bytes);
    }
}

static void impossible_shapes_and_unknown_types_are_refused(void **state)
{
    (void)state;
    uint64_t bytes;
    assert_false(tiles_bytes(TENSOR_Q4_0, 16, 33, &bytes));
    assert_false(tiles_bytes(TENSOR_Q4_K, 16, 128, &bytes));
    assert_false(tiles_bytes(TENSOR_F32, UINT32_MAX, UINT32_MAX, &bytes));
    assert_false(tiles_bytes(TENSOR_IQ1_S, 16, 256, &bytes));
    assert_false(tiles_know(TENSOR_IQ1_S));
    assert_false(tiles_know(TENSOR_I32));
    assert_false(tiles_know((enum tensor_type)9999));
}

/* Rows that differ in one byte each, without meaning. */
static uint8_t *counting_rows(enum tensor_type type, uint32_t rows, uint32_t cols)
{
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    size_t bytes = (size_t)rows * cols / traits->block_elements * traits->block_bytes;
    uint8_t *out = allocate(bytes);
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(i * 31 + i / 251) & 0x3f;
    return out;
}

static void shares_of_a_matrix_make_the_whole(void **state)
{
    (void)state;
    enum { ROWS = 53, COLS = 512 };
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        uint64_t bytes;
        assert_true(tiles_bytes(known[i].type, ROWS, COLS, &bytes));
        uint8_t *rows = counting_rows(known[i].type, ROWS, COLS), *whole = allocate(bytes), *shares = allocate(bytes);
        tiles_build(known[i].type, whole, rows, ROWS, COLS, 0, 4, NULL);
        tiles_build(known[i].type, shares, rows, ROWS, COLS, 3, 4, NULL);
        tiles_build(known[i].type, shares, rows, ROWS, COLS, 0, 3, NULL);
        assert_memory_equal(whole, shares, bytes);
        free(rows);
        free(whole);
        free(shares);
    }
}

static void a_permutation_says_which_row_of_the_file_stands_where(void **state)
{
    (void)state;
    enum { ROWS = 40, COLS = 256 };
    uint32_t row_of[ROWS];
    for (uint32_t r = 0; r < ROWS; r++)
        row_of[r] = (r * 7 + 3) % ROWS;
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        uint64_t bytes;
        assert_true(tiles_bytes(known[i].type, ROWS, COLS, &bytes));
        uint8_t *rows = counting_rows(known[i].type, ROWS, COLS), *tiles = allocate(bytes);
        tiles_build(known[i].type, tiles, rows, ROWS, COLS, 0, 3, row_of);
        struct tile_matrix w = {known[i].type, ROWS, COLS, tiles};
        float *all = allocate(ROWS * COLS * sizeof *all), got[COLS];
        blocks_to_float(known[i].type, rows, ROWS * COLS, all);
        for (uint32_t r = 0; r < ROWS; r++) {
            tiles_row(&w, r, got);
            assert_same_values(known[i].file, got, all + row_of[r] * COLS, COLS);
        }
        free(rows);
        free(tiles);
        free(all);
    }
}

/* ---- model/README.md ---- */

/* The section that lists what a file may hold, with a space in front and no punctuation. */
static void read_listed_types(char *out, size_t room)
{
    char path[1024], line[1024];
    const char *root = getenv("QUIRE_ROOT");
    snprintf(path, sizeof path, "%.900s/model/README.md", root ? root : ".");
    FILE *f = fopen(path, "re");
    if (!f)
        fail_msg("there is no %s", path);
    bool inside = false;
    size_t used = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "## ", 3) == 0)
            inside = strcmp(line, "## Tensor types\n") == 0;
        if (inside)
            used += (size_t)snprintf(out + used, room - used, " %s", line);
        assert_true(used < room);
    }
    fclose(f);
    for (char *c = out; *c; c++)
        if (strchr(",;.:\n", *c))
            *c = ' ';
}

static void the_readme_lists_the_types_that_a_file_may_hold_and_no_others(void **state)
{
    (void)state;
    char text[4096] = "", word[16];
    read_listed_types(text, sizeof text);
    for (uint32_t number = 0; number < 64; number++) {
        const struct tensor_type_traits *t = tensor_type_traits(number);
        if (!t)
            continue;
        snprintf(word, sizeof word, " %s ", t->name);
        if (!strstr(text, word) != !tiles_know((enum tensor_type)number))
            fail_msg("%s is %s", t->name, strstr(text, word) ? "listed and refused" : "taken and not listed");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_stand_for_what_gguf_says),
        cmocka_unit_test(products_with_fixtures_are_within_the_rounding_of_inputs),
        cmocka_unit_test(sizes_are_those_of_the_header),
        cmocka_unit_test(impossible_shapes_and_unknown_types_are_refused),
        cmocka_unit_test(shares_of_a_matrix_make_the_whole),
        cmocka_unit_test(a_permutation_says_which_row_of_the_file_stands_where),
        cmocka_unit_test(the_readme_lists_the_types_that_a_file_may_hold_and_no_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
