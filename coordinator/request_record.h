/*
 * request_record: what of a request the next coordinator needs to go on answering it, as the bytes that a session slot keeps for
 * its owner. Tokens, sampling and id stand in the slot itself. Pure: bytes in, facts out; each choice of a request has a record, and
 * all of them say the same but for `choice`, `lead` and the echo.
 *
 * The bytes lay in shared memory while a process died: what is read is checked like anybody's input.
 */
#ifndef QUIRE_COORDINATOR_REQUEST_RECORD_H
#define QUIRE_COORDINATOR_REQUEST_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "coordinator/api_request.h"

/* Whose answer it is, beside what was asked. */
struct request_owner {
    uint64_t tenant; /* of the API key */
    int64_t created; /* unix seconds */
};

/* Bytes that the record takes. */
size_t request_record_bytes(const struct api_request *r, uint32_t choice);

/* Writes them; room is at least so many. */
void request_record_write(const struct api_request *r, uint32_t choice, const struct request_owner *owner,
                          uint8_t *out);

/*
 * Into *out, a request without prompts if *out is NULL, or one that was read before and must agree; then the prompt of this
 * choice, unless another choice brought it. prompt: sampling->prompt_tokens ids, which with the answer fit into `context` tokens. *out is the caller's, api_request_free, also
 * after an error. ERR_FORMAT: no such record can have been written.
 */
enum err request_record_read(const uint8_t *bytes, size_t length, const struct sampling *sampling,
                             const uint32_t *prompt, uint32_t context, struct api_request **out, uint32_t *choice,
                             struct request_owner *owner, struct why *why);

#endif
