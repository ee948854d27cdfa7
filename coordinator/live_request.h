/*
 * live_request: one generation over HTTP, from the body's arrival to the last byte of its answer.
 *
 *   PARSING (a helper thread has it) -> RUNNING (its sequences wait or run) -> over
 *
 * A client that leaves ends it at once: its sequences are cancelled, and no event comes any more.
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

/* Sends what came since the last time, for all that have something. */
void live_requests_flush(struct server *s);

/* Once a second: a sign of life on streams that are silent. */
void live_requests_ping(struct server *s, uint64_t now);

uint32_t live_requests_count(const struct server *s);

/* The server ends: sequences are cancelled, memory is given back. After http_server_close and job_pool_close. */
void live_requests_close(struct server *s);

#endif
