/* Rows made from another form are those that a file with them would hold: transposed, with halves of heads interleaved, with one added, quantised. */
#include "model/tensor_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/float16.h"
#include "model/quantize.h"

enum { ROWS = 8, COLS = 32 };

static float numbers[ROWS][COLS];

static int make_numbers(void **state)
{
    (void)state;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            numbers[r][c] = (float)(r * 100 + c) / 64.0f; /* exact in f32, not in f16 */
    return 0;
}

static struct gguf_tensor tensor_of(const struct tensor_source *source, enum tensor_type type)
{
    struct gguf_tensor t = {.name = {"t", 1}, .type = type, .dims = 2, .extent = {COLS, ROWS, 1, 1}, .source = source};
    t.bytes = tensor_row_bytes(&t) * tensor_row_count(&t);
    return t;
}

static void rows_as_they_are_are_copied_in_any_order(void **state)
{
    (void)state;
    const struct tensor_source source = {.data = (const uint8_t *)numbers, .type = TENSOR_F32};
    struct gguf_tensor t = tensor_of(&source, TENSOR_F32);
    float out[3][COLS];
    assert_true(tensor_source_is_plain(&source, TENSOR_F32));
    assert_false(tensor_source_is_plain(&source, TENSOR_Q8_0));
    assert_int_equal(tensor_rows_read(&t, 2, NULL, 3, (uint8_t *)out, NULL), OK);
    assert_memory_equal(out, numbers[2], sizeof out);
    assert_int_equal(tensor_rows_read(&t, 0, (const uint32_t[]){7, 0, 3}, 3, (uint8_t *)out, NULL), OK);
    assert_memory_equal(out[0], numbers[7], sizeof out[0]);
    assert_memory_equal(out[1], numbers[0], sizeof out[0]);
    assert_memory_equal(out[2], numbers[3], sizeof out[0]);
}

static void a_transposed_source_gives_the_rows(void **state)
{
    (void)state;
    static float turned[COLS][ROWS], out[ROWS][COLS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            turned[c][r] = numbers[r][c];
    const struct tensor_source source = {.data = (const uint8_t *)turned, .type = TENSOR_F32, .transposed = true};
    struct gguf_tensor t = tensor_of(&source, TENSOR_F32);
    assert_int_equal(tensor_rows_read(&t, 0, NULL, ROWS, (uint8_t *)out, NULL), OK);
    assert_memory_equal(out, numbers, sizeof out);
    assert_int_equal(tensor_rows_read(&t, 5, NULL, 2, (uint8_t *)out, NULL), OK);
    assert_memory_equal(out, numbers[5], 2 * sizeof out[0]);
    struct gguf_tensor quantised = tensor_of(&source, TENSOR_Q8_0);
    uint8_t made[ROWS * 34], expected[ROWS * 34];
    assert_int_equal(tensor_rows_read(&quantised, 0, NULL, ROWS, made, NULL), OK);
    assert_true(blocks_from_float(TENSOR_Q8_0, &numbers[0][0], ROWS * COLS, expected));
    assert_memory_equal(made, expected, sizeof made);
}

static void halves_of_heads_become_neighbours(void **state)
{
    (void)state;
    static const int order[ROWS] = {0, 2, 1, 3, 4, 6, 5, 7}; /* two heads of four rows */
    const struct tensor_source source = {.data = (const uint8_t *)numbers, .type = TENSOR_F32, .head_rows = 4};
    struct gguf_tensor t = tensor_of(&source, TENSOR_F32);
    float out[ROWS][COLS];
    assert_int_equal(tensor_rows_read(&t, 0, NULL, ROWS, (uint8_t *)out, NULL), OK);
    for (int r = 0; r < ROWS; r++)
        assert_memory_equal(out[r], numbers[order[r]], sizeof out[r]);
}

static void rows_in_pieces_are_found_in_theirs(void **state)
{
    (void)state;
    static const uint32_t order[5] = {7, 0, 3, 4, 1};
    const uint8_t *const pieces[2] = {(const uint8_t *)numbers[4],
                                      (const uint8_t *)numbers[0]}; /* the later half first */
    const struct tensor_source source = {.data = pieces[0], .type = TENSOR_F32, .pieces = pieces, .piece_rows = 4};
    struct gguf_tensor t = tensor_of(&source, TENSOR_F32), quantised = tensor_of(&source, TENSOR_Q8_0);
    float out[ROWS][COLS];
    uint8_t made[34], expected[34];
    assert_false(tensor_source_is_plain(&source, TENSOR_F32));
    assert_int_equal(tensor_rows_read(&t, 0, NULL, ROWS, (uint8_t *)out, NULL), OK);
    assert_memory_equal(out[0], numbers[4], 4 * sizeof out[0]);
    assert_memory_equal(out[4], numbers[0], 4 * sizeof out[0]);
    assert_int_equal(tensor_rows_read(&t, 0, order, 5, (uint8_t *)out, NULL), OK);
    for (int i = 0; i < 5; i++)
        assert_memory_equal(out[i], numbers[(order[i] + 4) % ROWS], sizeof out[i]);
    assert_int_equal(tensor_rows_read(&quantised, 6, NULL, 1, made, NULL), OK);
    assert_true(blocks_from_float(TENSOR_Q8_0, numbers[2], COLS, expected));
    assert_memory_equal(made, expected, sizeof made);
}

static void what_is_added_is_added_before_anything_is_rounded(void **state)
{
    (void)state;
    uint16_t halves[COLS];
    float out[COLS];
    for (int c = 0; c < COLS; c++)
        halves[c] = f16_from_f32(numbers[1][c] / 1024);
    const struct tensor_source source = {.data = (const uint8_t *)halves, .type = TENSOR_F16, .added = 1.0f};
    struct gguf_tensor t = tensor_of(&source, TENSOR_F32);
    t.extent[1] = 1;
    assert_int_equal(tensor_rows_read(&t, 0, NULL, 1, (uint8_t *)out, NULL), OK);
    for (int c = 0; c < COLS; c++)
        assert_true(out[c] == f32_from_f16(halves[c]) + 1.0f);
}

static void a_number_that_is_none_is_refused_with_the_tensors_name(void **state)
{
    (void)state;
    float bad[ROWS][COLS] = {0};
    bad[3][5] = NAN;
    const struct tensor_source source = {.data = (const uint8_t *)bad, .type = TENSOR_F32};
    struct gguf_tensor t = tensor_of(&source, TENSOR_Q4_0);
    uint8_t out[ROWS * 18];
    struct why why;
    assert_int_equal(tensor_rows_read(&t, 0, NULL, 3, out, &why), OK);
    assert_int_equal(tensor_rows_read(&t, 0, NULL, ROWS, out, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "tensor \"t\" holds a number that is not finite"));
}

static void only_floats_can_be_made_something_else(void **state)
{
    (void)state;
    assert_true(tensor_rows_can_be(TENSOR_BF16, TENSOR_Q4_K));
    assert_true(tensor_rows_can_be(TENSOR_F16, TENSOR_F32));
    assert_true(tensor_rows_can_be(TENSOR_Q6_K, TENSOR_Q6_K));
    assert_false(tensor_rows_can_be(TENSOR_Q6_K, TENSOR_Q4_0));
    assert_false(tensor_rows_can_be(TENSOR_F32, TENSOR_IQ4_XS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_as_they_are_are_copied_in_any_order),
        cmocka_unit_test(a_transposed_source_gives_the_rows),
        cmocka_unit_test(halves_of_heads_become_neighbours),
        cmocka_unit_test(rows_in_pieces_are_found_in_theirs),
        cmocka_unit_test(what_is_added_is_added_before_anything_is_rounded),
        cmocka_unit_test(a_number_that_is_none_is_refused_with_the_tensors_name),
        cmocka_unit_test(only_floats_can_be_made_something_else),
    };
    return cmocka_run_group_tests(tests, make_numbers, NULL);
}
