/*
 * api_client: asks a server of OpenAI's API over HTTP/1.1: one request a connection, whole JSON answers and streams of
 * server-sent events. Calls block until the server has answered, has closed the connection, or interrupt_fd is readable.
 *
 * What comes from the server is bounded and checked: heads, chunks, lines, JSON.
 */
#ifndef QUIRE_COORDINATOR_API_CLIENT_H
#define QUIRE_COORDINATOR_API_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

enum { API_CLIENT_TEXT_BYTES = 512 };

struct api_client {
    char host[API_CLIENT_TEXT_BYTES], port[8];
    char prefix[API_CLIENT_TEXT_BYTES]; /* put in front of each path; "" or "/some/where" */
    char key[API_CLIENT_TEXT_BYTES];    /* "": none is sent */
    int interrupt_fd;                   /* -1: nothing interrupts; it is only looked at, never read */
};

/*
 * http://HOST[:PORT][/PREFIX]; a /v1 at the end is dropped, since paths begin with it. `key` may be NULL. ERR_INVALID:
 * not such an address. ERR_UNSUPPORTED: https.
 */
enum err api_client_init(struct api_client *c, const char *url, const char *key, struct why *why);

/*
 * GET. *status is the HTTP status, whatever it is; *body is its JSON, NULL when it holds none; the caller owns a
 * reference. ERR_ABORTED: interrupted. Other errors: no answer was to be had.
 */
enum err api_client_get(const struct api_client *c, const char *path, int *status, json_t **body, struct why *why);

/* One event of a stream, valid during the call. False: enough; the connection is closed and the server stops. */
typedef bool (*api_event_fn)(void *owner, const json_t *event);

/*
 * POST of a request that says "stream": true. Calls `event` for each event until [DONE]. ERR_INVALID: the server refused
 * it, *why holds its sentence. ERR_ABORTED: interrupted. ERR_IO, ERR_FORMAT: it broke off, perhaps after some events.
 */
enum err api_client_stream(const struct api_client *c, const char *path, const json_t *request, api_event_fn event,
                           void *owner, struct why *why);

#endif
