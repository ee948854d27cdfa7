/* Sequences move along their picture, and lists keep the order of arrival. */
#include "coordinator/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { STATES = SEQUENCE_DONE + 1 };

/* In a child: an illegal move ends the program. */
static bool move_is_legal(enum sequence_state from, enum sequence_state to)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sequence s = {.state = from};
        close(STDERR_FILENO);
        sequence_move(&s, to);
        _exit(s.state == to ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void a_sequence_moves_only_along_the_picture(void **state)
{
    static const bool legal[STATES][STATES] = {
        [SEQUENCE_WAITING] = {[SEQUENCE_PREFILL] = true, [SEQUENCE_DONE] = true},
        [SEQUENCE_PREFILL] = {[SEQUENCE_DECODE] = true, [SEQUENCE_WAITING] = true, [SEQUENCE_DONE] = true},
        [SEQUENCE_DECODE] = {[SEQUENCE_WAITING] = true, [SEQUENCE_DONE] = true},
    };
    (void)state;
    for (int from = 0; from < STATES; from++)
        for (int to = 0; to < STATES; to++)
            assert_int_equal(move_is_legal((enum sequence_state)from, (enum sequence_state)to), legal[from][to]);
}

static void every_state_and_reason_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(sequence_state_name(SEQUENCE_WAITING), "waiting");
    assert_string_equal(sequence_state_name(SEQUENCE_PREFILL), "prefill");
    assert_string_equal(sequence_state_name(SEQUENCE_DECODE), "decode");
    assert_string_equal(sequence_state_name(SEQUENCE_DONE), "done");
    assert_string_equal(finish_reason_name(FINISH_STOP), "stop");
    assert_string_equal(finish_reason_name(FINISH_LENGTH), "length");
    assert_string_equal(finish_reason_name(FINISH_CANCELLED), "cancelled");
    assert_string_equal(finish_reason_name(FINISH_ERROR), "error");
}

static void assert_orders(const struct sequence_list *list, const uint64_t *orders, uint32_t count)
{
    const struct sequence *s = list->first, *before = NULL;
    assert_int_equal(list->count, count);
    for (uint32_t i = 0; i < count; i++, before = s, s = s->next) {
        assert_non_null(s);
        assert_int_equal(s->order, orders[i]);
        assert_ptr_equal(s->previous, before);
    }
    assert_null(s);
    assert_ptr_equal(list->last, before);
}

#define ASSERT_ORDERS(list, ...) \
    assert_orders(list, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void a_list_keeps_the_order_of_arrival(void **state)
{
    struct sequence s[6] = {{.order = 0}, {.order = 1}, {.order = 2}, {.order = 3}, {.order = 4}, {.order = 5}};
    struct sequence_list list = {0};
    (void)state;
    sequence_list_append(&list, &s[1]);
    sequence_list_append(&list, &s[4]);
    sequence_list_insert_by_order(&list, &s[5]);
    sequence_list_insert_by_order(&list, &s[0]);
    sequence_list_insert_by_order(&list, &s[3]);
    sequence_list_insert_by_order(&list, &s[2]);
    ASSERT_ORDERS(&list, 0, 1, 2, 3, 4, 5);
    sequence_list_remove(&list, &s[0]);
    sequence_list_remove(&list, &s[5]);
    sequence_list_remove(&list, &s[3]);
    ASSERT_ORDERS(&list, 1, 2, 4);
    sequence_list_insert_by_order(&list, &s[0]);
    ASSERT_ORDERS(&list, 0, 1, 2, 4);
}

static void a_list_can_be_emptied_and_used_again(void **state)
{
    struct sequence one = {.order = 1};
    struct sequence_list list = {0};
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        sequence_list_insert_by_order(&list, &one);
        ASSERT_ORDERS(&list, 1);
        sequence_list_remove(&list, &one);
        assert_null(list.first);
        assert_null(list.last);
        assert_int_equal(list.count, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_moves_only_along_the_picture),
        cmocka_unit_test(every_state_and_reason_has_a_name),
        cmocka_unit_test(a_list_keeps_the_order_of_arrival),
        cmocka_unit_test(a_list_can_be_emptied_and_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
