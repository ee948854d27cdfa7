/*
 * A frame between coordinator and worker, read as each kind. What is good is packed again and must read the same. Frames that are
 * longer than what they say are refused, so each is also read in the form in which protobuf-c writes it.
 */
#include "base/must.h"
#include "proto/message.h"
#include "proto/quire.pb-c.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static struct message_scratch scratch;
static uint8_t packed[MESSAGE_BYTES_MAX], again[MESSAGE_BYTES_MAX];

static void read_as_command(const uint8_t *data, size_t size)
{
    static struct command command;
    struct why why;
    size_t length, length_again;
    if (command_unpack(&command, data, size, &scratch, &why) != OK)
        return;
    must(command_pack(&command, packed, sizeof packed, &length) == OK);
    must(command_unpack(&command, packed, length, &scratch, &why) == OK);
    must(command_pack(&command, again, sizeof again, &length_again) == OK);
    must(length == length_again && memcmp(packed, again, length) == 0);
}

static void read_as_report(const uint8_t *data, size_t size)
{
    static struct report report;
    struct why why;
    size_t length, length_again;
    if (report_unpack(&report, data, size, &scratch, &why) != OK)
        return;
    must(report_pack(&report, packed, sizeof packed, &length) == OK);
    must(report_unpack(&report, packed, length, &scratch, &why) == OK);
    must(report_pack(&report, again, sizeof again, &length_again) == OK);
    must(length == length_again && memcmp(packed, again, length) == 0);
}

static size_t shorten(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size, uint8_t *out,
                      size_t room)
{
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, size, data);
    if (!message)
        return 0;
    size_t length = protobuf_c_message_get_packed_size(message);
    if (length <= room)
        protobuf_c_message_pack(message, out);
    protobuf_c_message_free_unpacked(message, NULL);
    return length <= room ? length : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_as_command(data, size);
    read_as_report(data, size);
    static uint8_t shortest[MESSAGE_BYTES_MAX];
    read_as_command(shortest, shorten(&quire__command__descriptor, data, size, shortest, sizeof shortest));
    read_as_report(shortest, shorten(&quire__report__descriptor, data, size, shortest, sizeof shortest));
    return 0;
}
