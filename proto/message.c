#include "proto/message.h"

#include <stdbool.h>
#include <string.h>

#include "base/must.h"
#include "proto/quire.pb-c.h"

/* ---- packing ---- */

static enum err pack(const ProtobufCMessage *message, uint8_t *out, size_t room, size_t *length)
{
    *length = protobuf_c_message_get_packed_size(message);
    must(*length <= MESSAGE_BYTES_MAX);
    if (*length > room)
        return ERR_FULL;
    protobuf_c_message_pack(message, out);
    return OK;
}

enum err plan_pack(const struct step_plan *plan, uint8_t *out, size_t room, size_t *length)
{
    Quire__Row rows[STEP_ROWS_MAX];
    Quire__Row *pointers[STEP_ROWS_MAX];
    must(plan->row_count <= STEP_ROWS_MAX && (plan->flags & ~(uint32_t)PLAN_FLAGS) == 0);
    for (uint32_t i = 0; i < plan->row_count; i++) {
        const struct step_row *row = &plan->rows[i];
        must(row->count > 0 && (row->flags & ~(uint32_t)ROW_FLAGS) == 0);
        quire__row__init(&rows[i]);
        rows[i].session = row->session;
        rows[i].session_generation = row->session_generation;
        rows[i].first = row->first;
        rows[i].count = row->count;
        rows[i].flags = row->flags;
        rows[i].history = row->history;
        rows[i].previous = row->previous;
        pointers[i] = &rows[i];
    }
    Quire__StepPlan message = QUIRE__STEP_PLAN__INIT;
    message.epoch = plan->epoch;
    message.step = plan->step;
    message.flags = plan->flags;
    message.n_rows = plan->row_count;
    message.rows = pointers;
    Quire__Command command = QUIRE__COMMAND__INIT;
    command.kind_case = QUIRE__COMMAND__KIND_PLAN;
    command.plan = &message;
    return pack(&command.base, out, room, length);
}

static enum err assign_pack(const struct command *command, uint8_t *out, size_t room, size_t *length)
{
    must(command->assign.ranks > 0 && command->assign.ranks <= GROUP_RANKS_MAX);
    must(command->assign.rank < command->assign.ranks);
    uint32_t slots[GROUP_RANKS_MAX]; /* the generated type wants to be able to write them */
    memcpy(slots, command->assign.slots, command->assign.ranks * sizeof slots[0]);
    Quire__Assign assign = QUIRE__ASSIGN__INIT;
    assign.epoch = command->assign.epoch;
    assign.group = command->assign.group;
    assign.rank = command->assign.rank;
    assign.cpu = command->assign.cpu;
    assign.n_slots = command->assign.ranks;
    assign.slots = slots;
    Quire__Command message = QUIRE__COMMAND__INIT;
    message.kind_case = QUIRE__COMMAND__KIND_ASSIGN;
    message.assign = &assign;
    return pack(&message.base, out, room, length);
}

static enum err build_pack(const struct command *command, uint8_t *out, size_t room, size_t *length)
{
    must(command->build.rank < command->build.ranks && command->build.ranks <= GROUP_RANKS_MAX);
    must(command->build.model_path[0] != '\0');
    char path[sizeof command->build.model_path];
    memcpy(path, command->build.model_path, sizeof path);
    must(memchr(path, '\0', sizeof path));
    Quire__Build build = QUIRE__BUILD__INIT;
    build.group = command->build.group;
    build.rank = command->build.rank;
    build.ranks = command->build.ranks;
    build.model_path = path;
    Quire__Command message = QUIRE__COMMAND__INIT;
    message.kind_case = QUIRE__COMMAND__KIND_BUILD;
    message.build = &build;
    return pack(&message.base, out, room, length);
}

static enum err sum_pack(const struct command *command, uint8_t *out, size_t room, size_t *length)
{
    must(command->sum.count > 0 && command->sum.count <= SUM_PAGES_MAX);
    uint32_t pages[SUM_PAGES_MAX];
    memcpy(pages, command->sum.pages, command->sum.count * sizeof pages[0]);
    Quire__Sum sum = QUIRE__SUM__INIT;
    sum.question = command->sum.question;
    sum.n_pages = command->sum.count;
    sum.pages = pages;
    Quire__Command message = QUIRE__COMMAND__INIT;
    message.kind_case = QUIRE__COMMAND__KIND_SUM;
    message.sum = &sum;
    return pack(&message.base, out, room, length);
}

enum err command_pack(const struct command *command, uint8_t *out, size_t room, size_t *length)
{
    switch (command->kind) {
    case COMMAND_ASSIGN:
        return assign_pack(command, out, room, length);
    case COMMAND_BUILD:
        return build_pack(command, out, room, length);
    case COMMAND_PLAN:
        return plan_pack(&command->plan, out, room, length);
    case COMMAND_STOP: {
        Quire__Stop stop = QUIRE__STOP__INIT;
        Quire__Command message = QUIRE__COMMAND__INIT;
        message.kind_case = QUIRE__COMMAND__KIND_STOP;
        message.stop = &stop;
        return pack(&message.base, out, room, length);
    }
    case COMMAND_SUM:
        return sum_pack(command, out, room, length);
    }
    must_not_reach();
}

enum err report_pack(const struct report *report, uint8_t *out, size_t room, size_t *length)
{
    Quire__Report message = QUIRE__REPORT__INIT;
    switch (report->kind) {
    case REPORT_HELLO: {
        Quire__Hello hello = QUIRE__HELLO__INIT;
        hello.slot = report->hello.slot;
        hello.generation = report->hello.generation;
        hello.pid = report->hello.pid;
        hello.layout_version = report->hello.layout_version;
        message.kind_case = QUIRE__REPORT__KIND_HELLO;
        message.hello = &hello;
        return pack(&message.base, out, room, length);
    }
    case REPORT_ASSIGNED: {
        Quire__Assigned assigned = QUIRE__ASSIGNED__INIT;
        assigned.epoch = report->assigned.epoch;
        message.kind_case = QUIRE__REPORT__KIND_ASSIGNED;
        message.assigned = &assigned;
        return pack(&message.base, out, room, length);
    }
    case REPORT_BUILT: {
        Quire__Built built = QUIRE__BUILT__INIT;
        message.kind_case = QUIRE__REPORT__KIND_BUILT;
        message.built = &built;
        return pack(&message.base, out, room, length);
    }
    case REPORT_PROGRESS: {
        Quire__Progress progress = QUIRE__PROGRESS__INIT;
        progress.done = report->progress.done;
        progress.total = report->progress.total;
        message.kind_case = QUIRE__REPORT__KIND_PROGRESS;
        message.progress = &progress;
        return pack(&message.base, out, room, length);
    }
    case REPORT_RESULT: {
        Quire__StepResult result = QUIRE__STEP_RESULT__INIT;
        result.epoch = report->result.epoch;
        result.step = report->result.step;
        result.compute_us = report->result.compute_us;
        message.kind_case = QUIRE__REPORT__KIND_RESULT;
        message.result = &result;
        return pack(&message.base, out, room, length);
    }
    case REPORT_FAILED: {
        char text[sizeof report->failed.text];
        memcpy(text, report->failed.text, sizeof text);
        must(memchr(text, '\0', sizeof text));
        Quire__Failed failed = QUIRE__FAILED__INIT;
        failed.epoch = report->failed.epoch;
        failed.step = report->failed.step;
        failed.text = text;
        message.kind_case = QUIRE__REPORT__KIND_FAILED;
        message.failed = &failed;
        return pack(&message.base, out, room, length);
    }
    case REPORT_SUMS: {
        must(report->sums.count > 0 && report->sums.count <= SUM_PAGES_MAX);
        uint32_t numbers[SUM_PAGES_MAX];
        memcpy(numbers, report->sums.sums, report->sums.count * sizeof numbers[0]);
        Quire__Sums sums = QUIRE__SUMS__INIT;
        sums.question = report->sums.question;
        sums.n_sums = report->sums.count;
        sums.sums = numbers;
        message.kind_case = QUIRE__REPORT__KIND_SUMS;
        message.sums = &sums;
        return pack(&message.base, out, room, length);
    }
    }
    must_not_reach();
}

/* ---- unpacking ---- */

/* Hands out a message_scratch from front to back and takes nothing back: the whole budget of one unpacking. */
struct budget {
    struct message_scratch *scratch;
    size_t used;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    const size_t alignment = 16;
    if (size > sizeof budget->scratch->bytes - budget->used)
        return NULL;
    void *at = budget->scratch->bytes + budget->used;
    size_t left = sizeof budget->scratch->bytes - budget->used - size;
    budget->used += size + (left < alignment ? left : (alignment - size % alignment) % alignment);
    return at;
}

static void budget_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

/*
 * The message if it is well-formed and as short as this file writes it: a field given twice, a string with a NUL in it,
 * an overlong number make it longer than what it says.
 */
static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                                struct budget *budget)
{
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = budget};
    if (length == 0 || length > MESSAGE_BYTES_MAX)
        return NULL;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, length, bytes);
    if (!message || protobuf_c_message_get_packed_size(message) != length)
        return NULL;
    return message;
}

static bool is_known(const ProtobufCMessage *message)
{
    return message->n_unknown_fields == 0;
}

static enum err refuse(struct why *why, const char *what)
{
    return because(why, ERR_FORMAT, "a message was dropped: %s", what);
}

static enum err take_assign(struct command *command, const Quire__Assign *assign, struct why *why)
{
    if (!is_known(&assign->base) || assign->n_slots == 0 || assign->n_slots > GROUP_RANKS_MAX ||
        assign->rank >= assign->n_slots)
        return refuse(why, "an assignment names no place of its group");
    command->kind = COMMAND_ASSIGN;
    command->assign.epoch = assign->epoch;
    command->assign.group = assign->group;
    command->assign.rank = assign->rank;
    command->assign.cpu = assign->cpu;
    command->assign.ranks = (uint32_t)assign->n_slots;
    memcpy(command->assign.slots, assign->slots, assign->n_slots * sizeof assign->slots[0]);
    return OK;
}

static enum err take_build(struct command *command, const Quire__Build *build, struct why *why)
{
    size_t path_length = strlen(build->model_path);
    if (!is_known(&build->base) || build->ranks > GROUP_RANKS_MAX || build->rank >= build->ranks || path_length == 0 ||
        path_length > MODEL_PATH_MAX)
        return refuse(why, "an order to build names no share or no model file");
    command->kind = COMMAND_BUILD;
    command->build.group = build->group;
    command->build.rank = build->rank;
    command->build.ranks = build->ranks;
    memcpy(command->build.model_path, build->model_path, path_length + 1);
    return OK;
}

static enum err take_plan(struct step_plan *plan, const Quire__StepPlan *message, struct why *why)
{
    if (!is_known(&message->base) || message->n_rows > STEP_ROWS_MAX || (message->flags & ~(uint32_t)PLAN_FLAGS) != 0)
        return refuse(why, "a plan has too many rows or an unknown flag");
    plan->epoch = message->epoch;
    plan->step = message->step;
    plan->flags = message->flags;
    plan->row_count = (uint32_t)message->n_rows;
    uint64_t entries = 0;
    for (uint32_t i = 0; i < plan->row_count; i++) {
        const Quire__Row *from = message->rows[i];
        struct step_row *row = &plan->rows[i];
        *row = (struct step_row){.session = from->session,
                                 .session_generation = from->session_generation,
                                 .first = from->first,
                                 .count = from->count,
                                 .flags = from->flags,
                                 .history = from->history,
                                 .previous = from->previous};
        if (!is_known(&from->base) || row->count == 0 || (row->flags & ~(uint32_t)ROW_FLAGS) != 0)
            return refuse(why, "a plan's row is empty or has an unknown flag");
        if (row->previous > STEP_ENTRIES_MAX || (row->previous != 0 && row->count != 1))
            return refuse(why, "a plan's row takes a token from no entry");
        entries += step_row_entries(row);
    }
    if (entries > STEP_ENTRIES_MAX)
        return refuse(why, "a plan asks for more results than there is room for");
    return OK;
}

static enum err take_sum(struct command *command, const Quire__Sum *sum, struct why *why)
{
    if (!is_known(&sum->base) || sum->n_pages == 0 || sum->n_pages > SUM_PAGES_MAX)
        return refuse(why, "a question for checksums names no page or too many");
    command->kind = COMMAND_SUM;
    command->sum.question = sum->question;
    command->sum.count = (uint32_t)sum->n_pages;
    memcpy(command->sum.pages, sum->pages, sum->n_pages * sizeof sum->pages[0]);
    return OK;
}

enum err command_unpack(struct command *command, const uint8_t *bytes, size_t length, struct message_scratch *scratch,
                        struct why *why)
{
    struct budget budget = {.scratch = scratch};
    const Quire__Command *message = (const Quire__Command *)unpack(&quire__command__descriptor, bytes, length, &budget);
    if (!message || !is_known(&message->base))
        return refuse(why, "it is no command of this version");
    switch (message->kind_case) {
    case QUIRE__COMMAND__KIND_ASSIGN:
        return take_assign(command, message->assign, why);
    case QUIRE__COMMAND__KIND_BUILD:
        return take_build(command, message->build, why);
    case QUIRE__COMMAND__KIND_PLAN:
        command->kind = COMMAND_PLAN;
        return take_plan(&command->plan, message->plan, why);
    case QUIRE__COMMAND__KIND_STOP:
        command->kind = COMMAND_STOP;
        return is_known(&message->stop->base) ? OK : refuse(why, "an order to stop says more than that");
    case QUIRE__COMMAND__KIND_SUM:
        return take_sum(command, message->sum, why);
    default:
        return refuse(why, "it is no command of this version");
    }
}

static enum err take_failed(struct report *report, const Quire__Failed *failed, struct why *why)
{
    size_t text_length = strlen(failed->text);
    if (text_length > FAILED_TEXT_MAX)
        return refuse(why, "a report of failure is too long");
    report->failed.epoch = failed->epoch;
    report->failed.step = failed->step;
    memcpy(report->failed.text, failed->text, text_length + 1);
    return OK;
}

static enum err take_progress(struct report *report, const Quire__Progress *progress, struct why *why)
{
    if (progress->done > progress->total || progress->total > PROGRESS_BYTES_MAX)
        return refuse(why, "a report of progress cannot be true");
    report->progress.done = progress->done;
    report->progress.total = progress->total;
    return OK;
}

static enum err take_sums(struct report *report, const Quire__Sums *sums, struct why *why)
{
    if (sums->n_sums == 0 || sums->n_sums > SUM_PAGES_MAX)
        return refuse(why, "an answer has no checksum or too many");
    report->sums.question = sums->question;
    report->sums.count = (uint32_t)sums->n_sums;
    memcpy(report->sums.sums, sums->sums, sums->n_sums * sizeof sums->sums[0]);
    return OK;
}

enum err report_unpack(struct report *report, const uint8_t *bytes, size_t length, struct message_scratch *scratch,
                       struct why *why)
{
    struct budget budget = {.scratch = scratch};
    const Quire__Report *message = (const Quire__Report *)unpack(&quire__report__descriptor, bytes, length, &budget);
    if (!message || !is_known(&message->base))
        return refuse(why, "it is no report of this version");
    const ProtobufCMessage *inner = NULL;
    enum err err = OK;
    switch (message->kind_case) {
    case QUIRE__REPORT__KIND_HELLO:
        inner = &message->hello->base;
        report->kind = REPORT_HELLO;
        report->hello.slot = message->hello->slot;
        report->hello.generation = message->hello->generation;
        report->hello.pid = message->hello->pid;
        report->hello.layout_version = message->hello->layout_version;
        break;
    case QUIRE__REPORT__KIND_ASSIGNED:
        inner = &message->assigned->base;
        report->kind = REPORT_ASSIGNED;
        report->assigned.epoch = message->assigned->epoch;
        break;
    case QUIRE__REPORT__KIND_BUILT:
        inner = &message->built->base;
        report->kind = REPORT_BUILT;
        break;
    case QUIRE__REPORT__KIND_PROGRESS:
        inner = &message->progress->base;
        report->kind = REPORT_PROGRESS;
        err = take_progress(report, message->progress, why);
        break;
    case QUIRE__REPORT__KIND_RESULT:
        inner = &message->result->base;
        report->kind = REPORT_RESULT;
        report->result.epoch = message->result->epoch;
        report->result.step = message->result->step;
        report->result.compute_us = message->result->compute_us;
        break;
    case QUIRE__REPORT__KIND_FAILED:
        inner = &message->failed->base;
        report->kind = REPORT_FAILED;
        err = take_failed(report, message->failed, why);
        break;
    case QUIRE__REPORT__KIND_SUMS:
        inner = &message->sums->base;
        report->kind = REPORT_SUMS;
        err = take_sums(report, message->sums, why);
        break;
    default:
        break;
    }
    if (!inner || !is_known(inner))
        return refuse(why, "it is no report of this version");
    return err;
}
