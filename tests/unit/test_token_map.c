/* Spellings and merges are found again, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/token_map.h"
#include "model/tokenizer.h"

static void every_spelling_is_found_under_its_id(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static char spellings[COUNT][24];
    static struct token_text texts[COUNT];
    struct text_map map;
    for (uint32_t id = 0; id < COUNT; id++) { /* of every length from 1 to 22, many of them beginning alike */
        int length = snprintf(spellings[id], sizeof spellings[id], "%*s%u", (int)(id % 19), "", id);
        texts[id] = (struct token_text){spellings[id], (size_t)length};
    }
    assert_true(text_map_init(&map, texts, COUNT));
    for (uint32_t id = 0; id < COUNT; id += 2)
        text_map_put(&map, id);
    for (uint32_t id = 0; id < COUNT; id++)
        assert_int_equal(text_map_find(&map, texts[id].at, texts[id].length), id % 2 ? TOKEN_NONE : id);
    assert_int_equal(text_map_find(&map, "", 0), TOKEN_NONE);
    text_map_fini(&map);
}

static void of_two_ids_with_one_spelling_the_later_stays(void **state)
{
    (void)state;
    const struct token_text texts[] = {{"a\0b", 3}, {"a", 1}, {"a\0b", 3}};
    struct text_map map;
    assert_true(text_map_init(&map, texts, 3));
    for (uint32_t id = 0; id < 3; id++)
        text_map_put(&map, id);
    assert_int_equal(text_map_find(&map, "a\0b", 3), 2);
    assert_int_equal(text_map_find(&map, "a", 1), 1);
    text_map_fini(&map);
}

static void every_merge_is_found_by_its_pair_and_the_first_stays(void **state)
{
    (void)state;
    enum { SIDE = 60 };
    struct merge_map map;
    assert_true(merge_map_init(&map, SIDE * SIDE));
    for (uint32_t i = 0; i < SIDE * SIDE; i++)
        if (i / SIDE != i % SIDE)
            merge_map_put(&map, (struct merge){.left = i / SIDE, .right = i % SIDE, .rank = i, .id = i + 1000});
    merge_map_put(&map, (struct merge){.left = 1, .right = 2, .rank = 0, .id = 7});
    for (uint32_t i = 0; i < SIDE * SIDE; i++) {
        const struct merge *found = merge_map_find(&map, i / SIDE, i % SIDE);
        if (i / SIDE == i % SIDE) {
            assert_null(found);
        } else {
            assert_non_null(found);
            assert_int_equal(found->rank, i);
            assert_int_equal(found->id, i + 1000);
        }
    }
    assert_null(merge_map_find(&map, TOKEN_NONE, 1));
    merge_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_is_found_under_its_id),
        cmocka_unit_test(of_two_ids_with_one_spelling_the_later_stays),
        cmocka_unit_test(every_merge_is_found_by_its_pair_and_the_first_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
