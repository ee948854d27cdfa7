/*
 * http_internal: what http_server.c (listening, counting), http_connection.c (phases, reading) and http_reply.c (writing)
 * share. For these files only.
 */
#ifndef QUIRE_COORDINATOR_HTTP_INTERNAL_H
#define QUIRE_COORDINATOR_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "coordinator/http.h"
#include "coordinator/http_chunked.h"

/*
 * IDLE -> HEAD -> CHECKING -> BODY -> RUNNING -> STREAMING -> FLUSHING -> IDLE | LINGERING -> CLOSED
 * shorter: no body (CHECKING -> RUNNING), an answer or refusal (HEAD, CHECKING, BODY, RUNNING -> FLUSHING); any -> CLOSED
 */
enum connection_phase {
    CONN_IDLE,      /* no byte of a request; on the server's idle list */
    CONN_HEAD,      /* part of a head */
    CONN_CHECKING,  /* inside early(), or on the way from it */
    CONN_BODY,      /* part of a body */
    CONN_RUNNING,   /* the caller has the request and has not answered */
    CONN_STREAMING, /* the caller has begun a stream */
    CONN_FLUSHING,  /* answered; output waits for the client */
    CONN_LINGERING, /* our side is shut; reads and drops until the client's is too */
    CONN_CLOSED,
};

TAILQ_HEAD(connection_list, http_connection);

struct http_connection {
    TAILQ_ENTRY(http_connection) all;  /* http_server.connections */
    TAILQ_ENTRY(http_connection) link; /* http_server.idle while IDLE, .deaf while `deaf` */
    struct http_server *server;
    struct bufferevent *io;
    struct event *timer; /* the one deadline of the current phase */
    enum connection_phase phase;
    bool peer_finished;  /* a FIN has come */
    bool deaf;           /* a request is open and the loop would not tell of a reset: the server's watch looks for it */
    bool reading_paused; /* the read-ahead is full */
    bool closing;        /* this answer is the connection's last */
    bool refusing; /* inside refused(); request.passed: counted in http_server.open_requests, and gone() is owed */
    bool begun;    /* the probe has sent the first bytes of the answer (see http.h) */
    bool probed;   /* a probe was sent for this request */
    bool full;     /* drained() is owed */
    bool lost;     /* the client has left or is given up; timer closes the connection in the next turn */
    bool no_body, chunk_answer;
    bool stall_watched;  /* in STREAMING, FLUSHING: timer is set */
    uint64_t queued;     /* bytes ever given to the output; less what waits there: taken by the kernel */
    uint64_t stall_mark; /* what the kernel had taken when timer was set */
    uint64_t stall_owed; /* queued, when timer was set: once the kernel has taken so much, whatever waits is younger */
    uint64_t dropped;    /* bytes of unwanted input */
    uint64_t idle_since_us;
    struct http_head *head; /* HEAD .. FLUSHING, else NULL */
    struct http_chunked chunked;
    char *body; /* body_room bytes, of which request.body_bytes are filled */
    uint64_t body_room;
    struct http_request request;
    char peer[INET6_ADDRSTRLEN];
};

struct http_server {
    struct event_base *base;
    struct http_limits limits;
    struct http_callbacks callbacks;
    void *arg;
    uint16_t port;
    struct evconnlistener *listener; /* NULL once stopped */
    struct event *retry;             /* looks again whether accepting may go on */
    struct event *watch;             /* looks at deaf connections */
    int reserve_fd;                  /* given up for a moment to turn a client away when descriptors are out */
    bool stopping;
    bool closing;
    struct connection_list connections; /* all */
    struct connection_list idle;        /* longest idle first */
    struct connection_list deaf;
    uint32_t connection_count, open_requests;
    uint64_t bodies_bytes;
    char date[64];
    int64_t date_s;
};

/* http_server.c */
void server_connection_idle(struct http_connection *c);   /* enters the idle list */
void server_connection_busy(struct http_connection *c);   /* leaves it */
void server_connection_deaf(struct http_connection *c);   /* enters the watch's list, once */
void server_connection_heard(struct http_connection *c);  /* leaves it, if there */
void server_connection_closed(struct http_connection *c); /* leaves all lists; accepting may go on */

/* http_connection.c */
struct http_connection *connection_new(struct http_server *server, int fd, const struct sockaddr *peer);
void connection_close(struct http_connection *c); /* from the loop only; calls gone() if owed; frees */
void connection_lost(struct http_connection *c);  /* closes it in the loop's next turn; from anywhere */
bool connection_was_reset(const struct http_connection *c);
void connection_move(struct http_connection *c, enum connection_phase to);
bool connection_deadline(struct http_connection *c, uint32_t after_ms); /* false: no memory for the timer */
void connection_request_over(struct http_connection *c);                /* answered: gone() is no longer owed */
bool connection_expects_body(const struct http_connection *c);

/* http_reply.c */
size_t connection_output(const struct http_connection *c); /* bytes that wait to be sent */
void connection_send(struct http_connection *c, const void *bytes, size_t length);
void connection_probe(struct http_connection *c); /* see http.h: When has a client left? */
/* From now on the client has to take what waits for it; see http_limits.stall_ms. */
void connection_watch_stall(struct http_connection *c);
/* Answers a request that HTTP itself forbids; the connection ends with it. In HEAD, CHECKING, BODY. */
void connection_refuse(struct http_connection *c, int status, const char *problem);

#endif
