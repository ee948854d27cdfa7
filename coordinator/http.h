/*
 * http: an HTTP/1.1 server on libevent, on one event loop in one thread, which the caller owns. It reads requests
 * strictly (http_head, http_chunked), serves one at a time per connection, and tells the caller when a client has left.
 * It knows no routes.
 *
 * A request's life. "Answering" is http_reply, or http_stream_begin .. http_stream_end. All callbacks come from the loop,
 * never from inside a call of this header; all calls are made on the loop's thread.
 *
 *   phase      begins                             legal calls                       ends
 *   checking   early() is called: head, no body   http_request_header, http_reply   early() returns
 *   (body)     early() returned, not answered     none                              the body is whole, refused(), or gone()
 *   running    request() is called: body whole    http_request_header, http_reply,  an answer begins, or gone()
 *                                                 http_stream_begin
 *   streaming  http_stream_begin returned         http_stream_write, _writable,     http_stream_end, or gone()
 *                                                 _end, http_request_header
 *   over       http_reply or http_stream_end returned, or gone() returned: the pointer and all it points to are dead
 *
 * A request that early() let pass ends in exactly one of: an answer, or gone(). `user` is the caller's from early() on.
 * request() need not answer before it returns. gone() may come between any two turns of the loop. early() may be NULL.
 *
 * What HTTP itself forbids (a bad head or body, a limit, a deadline) the caller words, too, in refused(): so all answers
 * carry what the caller's carry. It may come in the middle of a head (path is "" then, and http_request_header knows the
 * fields that have come), before early() and before the end of a body. Only a client that is turned away since the process
 * is out of descriptors is answered without it: nothing of its request was read.
 *
 * When has a client left? A reset, a write error or a full stall are certain. A FIN is not: it is the same for a client
 * that has only shut down its sending side (legal, it gets its answer) and for one that has closed. So when a FIN comes
 * while a request runs, bytes are sent that any answer begins with anyway ("HTTP/1.1 "; in a chunked stream a leading
 * zero of the next chunk size): a closed socket answers them with a reset, which is seen within 50 ms of its coming; a
 * half-closed one just waits on. A client that half-closes and closes later is noticed at the next write.
 *
 * Answers that refuse a request whose body is still coming are followed by reading and dropping (up to linger_bytes and
 * linger_ms), since closing on unread bytes would reset the connection before the client has read why.
 */
#ifndef QUIRE_COORDINATOR_HTTP_H
#define QUIRE_COORDINATOR_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/http_head.h"

struct event_base;
struct http_connection;
struct http_server;

struct http_limits {
    struct http_head_limits head; /* 16 KiB, 4 KiB target, 100 fields */
    uint64_t body_bytes;          /* 1 MiB; more is 413 */
    uint64_t bodies_bytes;        /* 256 MiB; all bodies held at once; more is 503 */
    uint32_t head_ms;             /* 10 s from the first byte of a head to its last */
    uint32_t body_ms;             /* 30 s from the head's last byte to the body's last */
    uint32_t idle_ms;             /* 60 s between requests, and before the first */
    uint32_t stall_ms;          /* 30 s in which a client with output waiting takes neither 16 KiB nor all of it; it is
                                     dropped after between one and two of them */
    uint32_t linger_ms;         /* 5 s of reading and dropping after an answer that closes */
    uint64_t linger_bytes;      /* 128 MiB of the same */
    size_t stream_soft_bytes;   /* 64 KiB of output waiting: http_stream_writable says false */
    size_t stream_hard_bytes;   /* 1 MiB of output waiting in a stream: the client is dropped */
    uint32_t send_buffer_bytes; /* 128 KiB: SO_SNDBUF, fixed, or the kernel grows it to 4 MiB a socket */
    uint32_t max_connections;   /* 90 % of RLIMIT_NOFILE, at most 65536; more wait in the kernel's queue */
};

struct http_header {
    const char *name;
    const char *value;
};

/* All fields but `user` are for reading only. */
struct http_request {
    enum http_method method;
    const char *path;  /* raw: neither decoded nor normalised */
    const char *query; /* raw, without "?"; "" when there is none */
    const char *body;  /* body_bytes bytes and a zero byte; "" without a body and in early() */
    size_t body_bytes;
    const char *peer; /* the client's address without port */
    bool passed;      /* early() has let it pass */
    void *user;
    struct http_connection *connection;
};

struct http_callbacks {
    /* The head is good, the body not read, a 100-continue not sent: keys, routes, limits. Answer here to refuse. */
    void (*early)(struct http_request *request, void *arg);
    /* The request is whole. */
    void (*request)(struct http_request *request, void *arg);
    /*
     * The request is refused: status and problem (one sentence, no JSON escape needed) say why. To be answered with
     * http_reply before it returns; the connection ends with that. gone() follows when early() had let the request pass.
     * NULL: a plain JSON error is sent.
     */
    void (*refused)(struct http_request *request, int status, const char *problem, void *arg);
    /* The request ends without an answer or in the middle of one. No call but http_request_header is legal. */
    void (*gone)(struct http_request *request, void *arg);
    /* A stream whose http_stream_writable was false has room again. May be NULL. */
    void (*drained)(struct http_request *request, void *arg);
};

struct http_server_config {
    const char *host; /* address or name: "127.0.0.1", "::1", "0.0.0.0", "localhost"; of a name's addresses the first,
                         IPv4 before IPv6 */
    uint16_t port;    /* 0: any free one */
    struct http_limits limits;
    struct http_callbacks callbacks;
    void *arg; /* given to the callbacks */
};

/* The values given above. */
struct http_limits http_default_limits(void);

/*
 * Listens and accepts from the next turn of the loop on. The strings of config may go afterwards. Ignores SIGPIPE for the
 * process from here on: a write to a closed socket is to be an error, not a signal.
 */
enum err http_server_open(struct http_server **server, struct event_base *base, const struct http_server_config *config,
                          struct why *why);
/* Whether http_server_open could listen there now; the same errors. */
enum err http_server_try(const struct http_server_config *config, struct why *why);
uint16_t http_server_port(const struct http_server *server);

/* Requests that early() let pass or request() got and that are not over. */
uint32_t http_server_open_requests(const struct http_server *server);
uint32_t http_server_connections(const struct http_server *server);

/* Gives the port back and closes idle connections; the others end with their current answer. */
void http_server_stop_accepting(struct http_server *server);

/*
 * Closes everything at once; gone() is called for each open request. Not from inside a callback. NULL is good. libevent
 * gives the sockets back in the loop's next turn or in event_base_free.
 */
void http_server_close(struct http_server *server);

/* The value of the first field of that name (in lower case), or NULL. */
const char *http_request_header(const struct http_request *request, const char *lower_name);

/*
 * Answers. Content-Length, Connection and Date are added; content_type may be NULL when there is no body. A header of
 * `extra` whose name or value HTTP does not allow (it may have come from a client) is left out and logged. Body and
 * headers are copied. For HEAD the body is counted but not sent.
 */
void http_reply(struct http_request *request, int status, const char *content_type, const void *body, size_t body_bytes,
                const struct http_header *extra, size_t extra_count);

/* Answers piece by piece: chunked to 1.1, up to the connection's end to 1.0. */
void http_stream_begin(struct http_request *request, int status, const char *content_type,
                       const struct http_header *extra, size_t extra_count);
void http_stream_write(struct http_request *request, const void *data, size_t bytes);
bool http_stream_writable(const struct http_request *request);
void http_stream_end(struct http_request *request);

#endif
