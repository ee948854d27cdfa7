/* Messages: what is packed comes out equal, and nothing else gets through. */
#include "proto/message.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "proto/quire.pb-c.h"

static struct command command, received;
static struct report report, received_report;
static struct message_scratch scratch;
static uint8_t wire[MESSAGE_BYTES_MAX];

static size_t pack_command(void)
{
    size_t length = 0;
    assert_int_equal(command_pack(&command, wire, sizeof wire, &length), OK);
    return length;
}

static void command_survives(void)
{
    struct why why = {""};
    size_t length = pack_command();
    memset(&received, 0xaa, sizeof received);
    if (command_unpack(&received, wire, length, &scratch, &why) != OK)
        fail_msg("%s", why.text);
    assert_int_equal(received.kind, command.kind);
}

static void report_survives(void)
{
    size_t length = 0;
    assert_int_equal(report_pack(&report, wire, sizeof wire, &length), OK);
    memset(&received_report, 0xaa, sizeof received_report);
    assert_int_equal(report_unpack(&received_report, wire, length, &scratch, NULL), OK);
    assert_int_equal(received_report.kind, report.kind);
}

static void every_command_comes_out_as_it_went_in(void **state)
{
    (void)state;
    memset(&command, 0, sizeof command);
    command.kind = COMMAND_ASSIGN;
    command.assign.epoch = 7;
    command.assign.group = 1;
    command.assign.rank = 2;
    command.assign.ranks = 3;
    memcpy(command.assign.slots, (uint32_t[]){9, 0, 4}, 12);
    command.assign.cpu = UINT32_MAX;
    command_survives();
    assert_memory_equal(&received.assign, &command.assign, 16 + 12);
    assert_int_equal(received.assign.cpu, UINT32_MAX);

    command.kind = COMMAND_BUILD;
    command.build.group = 1;
    command.build.rank = 0;
    command.build.ranks = 2;
    memset(command.build.model_path, 'm', MODEL_PATH_MAX);
    command.build.model_path[MODEL_PATH_MAX] = '\0';
    command_survives();
    assert_string_equal(received.build.model_path, command.build.model_path);
    assert_int_equal(received.build.ranks, 2);
    assert_int_equal(received.build.group, 1);

    command.kind = COMMAND_SUM;
    command.sum.question = UINT64_MAX;
    command.sum.count = SUM_PAGES_MAX;
    for (uint32_t i = 0; i < SUM_PAGES_MAX; i++)
        command.sum.pages[i] = UINT32_MAX - i;
    command_survives();
    assert_true(received.sum.question == UINT64_MAX);
    assert_int_equal(received.sum.count, SUM_PAGES_MAX);
    assert_memory_equal(received.sum.pages, command.sum.pages, sizeof command.sum.pages);

    command.kind = COMMAND_STOP;
    command_survives();
}

static void every_report_comes_out_as_it_went_in(void **state)
{
    (void)state;
    memset(&report, 0, sizeof report);
    report.kind = REPORT_HELLO;
    report.hello.slot = 1;
    report.hello.generation = 2;
    report.hello.pid = 3;
    report.hello.layout_version = 4;
    report_survives();
    assert_memory_equal(&received_report.hello, &report.hello, sizeof report.hello);
    report.kind = REPORT_ASSIGNED;
    report_survives();
    assert_int_equal(received_report.assigned.epoch, report.assigned.epoch);
    report.kind = REPORT_BUILT;
    report_survives();
    report.kind = REPORT_PROGRESS;
    report.progress.done = PROGRESS_BYTES_MAX - 1;
    report.progress.total = PROGRESS_BYTES_MAX;
    report_survives();
    assert_memory_equal(&received_report.progress, &report.progress, sizeof report.progress);
    report.kind = REPORT_RESULT;
    report.result.epoch = 5;
    report.result.step = 1ull << 40;
    report.result.compute_us = 77;
    report_survives();
    assert_int_equal(received_report.result.epoch, 5);
    assert_true(received_report.result.step == 1ull << 40);
    assert_int_equal(received_report.result.compute_us, 77);
    report.kind = REPORT_FAILED;
    report.failed.step = 6;
    memset(report.failed.text, 'x', FAILED_TEXT_MAX);
    report.failed.text[FAILED_TEXT_MAX] = '\0';
    report_survives();
    assert_string_equal(received_report.failed.text, report.failed.text);
    size_t longest, length;
    assert_int_equal(report_pack(&report, wire, sizeof wire, &longest), OK);
    report.kind = REPORT_SUMS;
    report.sums.question = UINT64_MAX;
    report.sums.count = SUM_PAGES_MAX;
    for (uint32_t i = 0; i < SUM_PAGES_MAX; i++)
        report.sums.sums[i] = UINT32_MAX - i;
    report_survives();
    assert_true(received_report.sums.question == UINT64_MAX);
    assert_int_equal(received_report.sums.count, SUM_PAGES_MAX);
    assert_memory_equal(received_report.sums.sums, report.sums.sums, sizeof report.sums.sums);
    assert_int_equal(report_pack(&report, wire, sizeof wire, &length), OK);
    assert_true(length <= longest + 16); /* a worker has room for both */
}

static void the_longest_plan_fits_one_message(void **state)
{
    (void)state;
    command.kind = COMMAND_PLAN;
    command.plan.epoch = UINT32_MAX;
    command.plan.step = UINT64_MAX;
    command.plan.flags = PLAN_MEET_FIRST;
    command.plan.row_count = STEP_ROWS_MAX;
    for (uint32_t i = 0; i < STEP_ROWS_MAX; i++)
        command.plan.rows[i] = (struct step_row){.session = UINT32_MAX,
                                                 .session_generation = UINT32_MAX,
                                                 .first = UINT32_MAX - i,
                                                 .count = 1,
                                                 .flags = ROW_SAMPLE,
                                                 .history = UINT32_MAX,
                                                 .previous = STEP_ENTRIES_MAX};
    command_survives();
    assert_int_equal(received.plan.epoch, UINT32_MAX);
    assert_true(received.plan.step == UINT64_MAX);
    assert_int_equal(received.plan.flags, PLAN_MEET_FIRST);
    assert_int_equal(received.plan.row_count, STEP_ROWS_MAX);
    assert_memory_equal(received.plan.rows, command.plan.rows, sizeof command.plan.rows);

    for (uint32_t i = 0; i < STEP_ROWS_MAX; i++) { /* longest numbers everywhere, even where they mean nothing */
        command.plan.rows[i].count = command.plan.rows[i].previous = UINT32_MAX;
        command.plan.rows[i].flags = ROW_FLAGS;
    }
    assert_true(pack_command() <= MESSAGE_BYTES_MAX);
}

static void an_empty_plan_is_a_plan(void **state)
{
    (void)state;
    memset(&command, 0, sizeof command);
    command.kind = COMMAND_PLAN;
    command_survives();
    assert_int_equal(received.plan.row_count, 0);
}

static void too_little_room_is_said(void **state)
{
    (void)state;
    size_t length;
    command.kind = COMMAND_PLAN;
    command.plan = (struct step_plan){.epoch = 1, .step = 5};
    assert_int_equal(command_pack(&command, wire, 3, &length), ERR_FULL);
    assert_int_equal(plan_pack(&command.plan, wire, sizeof wire, &length), OK);
    assert_int_equal(plan_pack(&command.plan, wire, length, &length), OK);
}

static void plan_is_refused(struct step_row row, uint32_t rows)
{
    struct why why = {""};
    memset(&command, 0, sizeof command);
    command.kind = COMMAND_PLAN;
    command.plan.row_count = rows;
    for (uint32_t i = 0; i < rows; i++)
        command.plan.rows[i] = row;
    assert_int_equal(command_unpack(&received, wire, pack_command(), &scratch, &why), ERR_FORMAT);
    assert_true(strlen(why.text) > 0);
}

static void rows_that_mean_nothing_are_refused(void **state)
{
    (void)state;
    plan_is_refused((struct step_row){.count = 1, .previous = STEP_ENTRIES_MAX + 1}, 1);
    plan_is_refused((struct step_row){.count = 2, .previous = 1}, 1); /* one token for two positions */
    plan_is_refused((struct step_row){.count = 513, .flags = ROW_SCORE}, 2);
    plan_is_refused((struct step_row){.count = UINT32_MAX, .flags = ROW_SCORE}, STEP_ROWS_MAX);
}

/* A message as a stranger might write it. */
static size_t pack_foreign(const ProtobufCMessage *message)
{
    size_t length = protobuf_c_message_get_packed_size(message);
    assert_true(length <= sizeof wire);
    return protobuf_c_message_pack(message, wire);
}

static void assert_command_refused(size_t length)
{
    struct why why = {""};
    assert_int_equal(command_unpack(&received, wire, length, &scratch, &why), ERR_FORMAT);
    assert_true(strlen(why.text) > 0);
}

static void flags_of_another_version_are_refused(void **state)
{
    (void)state;
    Quire__Row row = QUIRE__ROW__INIT, *rows[1] = {&row};
    Quire__StepPlan plan = QUIRE__STEP_PLAN__INIT;
    Quire__Command message = QUIRE__COMMAND__INIT;
    message.kind_case = QUIRE__COMMAND__KIND_PLAN;
    message.plan = &plan;
    plan.flags = 2;
    assert_command_refused(pack_foreign(&message.base));
    plan.flags = 0;
    plan.n_rows = 1;
    plan.rows = rows;
    assert_command_refused(pack_foreign(&message.base)); /* count 0 */
    row.count = 1;
    row.flags = 8;
    assert_command_refused(pack_foreign(&message.base));
    row.flags = 0;
    assert_int_equal(command_unpack(&received, wire, pack_foreign(&message.base), &scratch, NULL), OK);
}

static void places_out_of_their_group_are_refused(void **state)
{
    (void)state;
    uint32_t slots[GROUP_RANKS_MAX + 1] = {0};
    Quire__Assign assign = QUIRE__ASSIGN__INIT;
    Quire__Command message = QUIRE__COMMAND__INIT;
    message.kind_case = QUIRE__COMMAND__KIND_ASSIGN;
    message.assign = &assign;
    assign.slots = slots;
    assert_command_refused(pack_foreign(&message.base));
    assign.n_slots = GROUP_RANKS_MAX + 1;
    assert_command_refused(pack_foreign(&message.base));
    assign.n_slots = 2;
    assign.rank = 2;
    assert_command_refused(pack_foreign(&message.base));
    assign.rank = 1;
    assert_int_equal(command_unpack(&received, wire, pack_foreign(&message.base), &scratch, NULL), OK);
}

static void questions_and_answers_of_no_page_or_too_many_are_refused(void **state)
{
    (void)state;
    uint32_t numbers[SUM_PAGES_MAX + 1] = {0};
    struct why why = {""};
    Quire__Sum sum = QUIRE__SUM__INIT;
    Quire__Command question = QUIRE__COMMAND__INIT;
    question.kind_case = QUIRE__COMMAND__KIND_SUM;
    question.sum = &sum;
    sum.pages = numbers;
    Quire__Sums sums = QUIRE__SUMS__INIT;
    Quire__Report answer = QUIRE__REPORT__INIT;
    answer.kind_case = QUIRE__REPORT__KIND_SUMS;
    answer.sums = &sums;
    sums.sums = numbers;
    for (size_t count = 0; count <= SUM_PAGES_MAX + 1; count += SUM_PAGES_MAX + 1) {
        sum.n_pages = sums.n_sums = count;
        assert_command_refused(pack_foreign(&question.base));
        assert_int_equal(report_unpack(&received_report, wire, pack_foreign(&answer.base), &scratch, &why), ERR_FORMAT);
    }
    sum.n_pages = sums.n_sums = SUM_PAGES_MAX;
    assert_int_equal(command_unpack(&received, wire, pack_foreign(&question.base), &scratch, NULL), OK);
    assert_int_equal(report_unpack(&received_report, wire, pack_foreign(&answer.base), &scratch, NULL), OK);
}

static void progress_beyond_its_end_or_of_more_than_any_model_is_refused(void **state)
{
    (void)state;
    const uint64_t wrong[][2] = {
        {2, 1}, {0, PROGRESS_BYTES_MAX + 1}, {UINT64_MAX, UINT64_MAX}, {UINT64_MAX, PROGRESS_BYTES_MAX}};
    struct why why = {""};
    Quire__Progress progress = QUIRE__PROGRESS__INIT;
    Quire__Report message = QUIRE__REPORT__INIT;
    message.kind_case = QUIRE__REPORT__KIND_PROGRESS;
    message.progress = &progress;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        progress.done = wrong[i][0];
        progress.total = wrong[i][1];
        assert_int_equal(report_unpack(&received_report, wire, pack_foreign(&message.base), &scratch, &why),
                         ERR_FORMAT);
    }
    progress.done = progress.total = PROGRESS_BYTES_MAX;
    assert_int_equal(report_unpack(&received_report, wire, pack_foreign(&message.base), &scratch, NULL), OK);
}

static void unknown_fields_doubled_fields_and_hidden_zeros_are_refused(void **state)
{
    (void)state;
    const uint8_t unknown_top[] = {0x22, 0x00, 0x78, 0x01};                     /* stop, field 15 */
    const uint8_t unknown_inside[] = {0x22, 0x02, 0x08, 0x01};                  /* stop with a field */
    const uint8_t two_kinds[] = {0x22, 0x00, 0x1a, 0x00};                       /* stop, plan */
    const uint8_t overlong[] = {0x1a, 0x03, 0x08, 0x81, 0x00};                  /* plan.epoch = 1 in two bytes */
    const uint8_t hidden[] = {0x12, 0x07, 0x10, 0x01, 0x1a, 0x03, 'a', 0, 'b'}; /* build.model_path with a NUL */
    const uint8_t nothing[] = {0x78, 0x01};
    const uint8_t stop[] = {0x22, 0x00};
    const struct {
        const uint8_t *bytes;
        size_t length;
    } bad[] = {{unknown_top, 4}, {unknown_inside, 4}, {two_kinds, 4}, {overlong, 5},
               {hidden, 9},      {nothing, 2},        {stop, 1},      {stop, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memcpy(wire, bad[i].bytes, bad[i].length);
        assert_command_refused(bad[i].length);
    }
    assert_int_equal(command_unpack(&received, stop, sizeof stop, &scratch, NULL), OK);
}

static void a_message_that_would_unfold_beyond_the_budget_is_refused(void **state)
{
    (void)state;
    const size_t rows = (MESSAGE_BYTES_MAX - 4) / 2; /* a plan of empty rows, two bytes each on the wire */
    wire[0] = 0x1a;
    wire[1] = (uint8_t)(rows * 2 % 128) | 0x80;
    wire[2] = (uint8_t)(rows * 2 / 128 % 128) | 0x80;
    wire[3] = (uint8_t)(rows * 2 / 128 / 128);
    for (size_t i = 0; i < rows; i++) {
        wire[4 + 2 * i] = 0x22;
        wire[5 + 2 * i] = 0;
    }
    assert_command_refused(4 + 2 * rows);
    assert_command_refused(sizeof wire + 1);
}

static void flipped_and_cut_messages_never_hurt(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srandom(seed);
    memset(&command, 0, sizeof command);
    command.kind = COMMAND_PLAN;
    command.plan.epoch = 3;
    command.plan.step = 900;
    command.plan.row_count = 40;
    for (uint32_t i = 0; i < 40; i++)
        command.plan.rows[i] =
            (struct step_row){.session = i, .session_generation = 5, .first = 100 * i, .count = 1 + i % 2};
    uint8_t good[MESSAGE_BYTES_MAX];
    size_t length = pack_command();
    memcpy(good, wire, length);
    for (int round = 0; round < 50000; round++) {
        memcpy(wire, good, length);
        for (long flips = random() % 4; flips >= 0; flips--)
            wire[(size_t)random() % length] ^= (uint8_t)(1 << random() % 8);
        size_t cut = random() % 4 ? length : (size_t)random() % length;
        if (command_unpack(&received, wire, cut, &scratch, NULL) == OK && received.kind == COMMAND_PLAN)
            assert_true(received.plan.row_count <= STEP_ROWS_MAX);
        (void)report_unpack(&received_report, wire, cut, &scratch, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_comes_out_as_it_went_in),
        cmocka_unit_test(every_report_comes_out_as_it_went_in),
        cmocka_unit_test(the_longest_plan_fits_one_message),
        cmocka_unit_test(an_empty_plan_is_a_plan),
        cmocka_unit_test(too_little_room_is_said),
        cmocka_unit_test(rows_that_mean_nothing_are_refused),
        cmocka_unit_test(flags_of_another_version_are_refused),
        cmocka_unit_test(places_out_of_their_group_are_refused),
        cmocka_unit_test(questions_and_answers_of_no_page_or_too_many_are_refused),
        cmocka_unit_test(progress_beyond_its_end_or_of_more_than_any_model_is_refused),
        cmocka_unit_test(unknown_fields_doubled_fields_and_hidden_zeros_are_refused),
        cmocka_unit_test(a_message_that_would_unfold_beyond_the_budget_is_refused),
        cmocka_unit_test(flipped_and_cut_messages_never_hurt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
