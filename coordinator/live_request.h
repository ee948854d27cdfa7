/*
 * live_request: one generation over HTTP, from the body's arrival to the last byte of its answer.
 *
 *   PARSING (a helper thread has it) -> RUNNING (its sequences wait or run) -> over
 *
 * A client that leaves stops it at once. For --resume-ttl seconds the answer is kept, whole or not, and can be picked up by its
 * id; then what was stopped goes on behind its last token, and draws the same tokens as if nobody had left. With its tokens in
 * session slots (request_record.h) an answer outlives its coordinator too: the next one goes on with what was running.
 * Log-probabilities stand in no slot. They are drawn again with their tokens: the same bits.
 */
#ifndef QUIRE_COORDINATOR_LIVE_REQUEST_H
#define QUIRE_COORDINATOR_LIVE_REQUEST_H

#include "coordinator/api_request.h"
#include "coordinator/http.h"
#include "coordinator/server.h"

/* Takes the request over; it is answered from here on. */
void live_request_begin(struct server *s, struct http_request *http, enum api_kind kind, uint64_t salt);

/* The client has left. http->user is this request's. */
void live_request_gone(struct server *s, struct http_request *http);

/* The client takes output again. */
void live_request_drained(struct server *s, struct http_request *http);

/* GET of an answer by its id: as JSON as far as it is, or as a stream, which Last-Event-ID asks for, too. What was interrupted goes on. */
void live_request_pick_up(struct server *s, struct http_request *http, enum api_kind kind, const char *id,
                          uint64_t salt);

/* After a takeover: what stands in the session slots is answered further, or kept, or forgotten. Before the loop runs. */
void live_requests_adopt(struct server *s);

/* Once a second: those that nobody has asked for in time are computed no further, or forgotten; all of them when the server drains. */
void live_requests_expire(struct server *s, uint64_t now);

/* Sends what came since the last time, for all that have something. */
void live_requests_flush(struct server *s);

/* Once a second: a sign of life on streams that are silent. */
void live_requests_ping(struct server *s, uint64_t now);

uint32_t live_requests_count(const struct server *s);

/* The server ends: sequences are stopped (their slots say what they said), memory is given back. After http_server_close and job_pool_close. */
void live_requests_close(struct server *s);

#endif
