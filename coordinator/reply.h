/*
 * reply: how this server answers: counts by class of status, adds CORS and request-id headers, writes errors the way
 * OpenAI's clients expect them.
 */
#ifndef QUIRE_COORDINATOR_REPLY_H
#define QUIRE_COORDINATOR_REPLY_H

#include "coordinator/api_error.h"
#include "coordinator/http.h"
#include "coordinator/server.h"
#include "coordinator/text.h"

/*
 * A body that was written for this answer: 500 in its place when memory ran out while it was. id: X-Request-Id when the
 * client gave none of its own; NULL: none then.
 */
void reply_text(struct server *s, struct http_request *http, int status, const char *type, const struct text *body,
                const char *id);
void reply_json(struct server *s, struct http_request *http, int status, const struct text *body, const char *id);
/* A body that lay there before. */
void reply_bytes(struct server *s, struct http_request *http, int status, const char *type, const void *bytes,
                 size_t length);
/* 429 and 503 carry Retry-After, 401 WWW-Authenticate, 405 allows `allow` (NULL otherwise). */
void reply_error(struct server *s, struct http_request *http, const struct api_error *e, const char *allow);
/* The same from a status and a sentence. */
void reply_refusal(struct server *s, struct http_request *http, int status, const char *sentence);
/* The answer to a browser's OPTIONS. */
void reply_preflight(struct server *s, struct http_request *http);
/* 200, text/event-stream. */
void reply_stream_begin(struct server *s, struct http_request *http, const char *id);

#endif
