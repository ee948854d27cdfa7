/*
 * live_request_internal: what live_request.c (one answer, from body to last byte), live_whole.c (answers in one piece) and
 * live_resume.c (answers that outlive their client or coordinator) share.
 */
#ifndef QUIRE_COORDINATOR_LIVE_REQUEST_INTERNAL_H
#define QUIRE_COORDINATOR_LIVE_REQUEST_INTERNAL_H

#include "coordinator/answer_text.h"
#include "coordinator/api_response.h"
#include "coordinator/live_request.h"

/* One choice of the answer. */
struct live_choice {
    struct live_request *request;
    struct sequence *sequence; /* NULL: not submitted, or ended */
    struct answer_text answer;
    uint32_t *tokens;                      /* (max_tokens) */
    struct position_scores *scores;        /* (max_tokens), NULL unless asked for */
    struct position_scores *prompt_scores; /* (prompt tokens), NULL unless asked for */
    uint64_t admitted_us, first_us, last_us;
    uint8_t *record; /* for its session slot; NULL: answers are not kept, or too long for it */
    uint32_t record_bytes;
    uint32_t slot, slot_generation; /* where its tokens stand; generation 0: nowhere yet */
};

struct live_request {
    struct job job; /* first: the job is the request */
    struct server *server;
    struct http_request *http; /* NULL: nobody listens */
    char *body;                /* own copy while a helper thread reads it */
    size_t body_bytes;
    enum api_kind kind;
    uint64_t salt;

    bool parsing; /* a helper thread has it */
    enum err parsed;
    struct api_error error;
    struct api_request *request;

    char id[API_ID_BYTES];
    int64_t created;
    uint64_t arrived_us, sent_us;
    uint32_t count, unfinished;
    struct live_choice *live;   /* (count) */
    struct api_choice *choices; /* (count): the same as api_response sees it */
    struct api_sent *sent;      /* (count) */
    bool streaming, failed, dirty;
    bool kept;                 /* stands in server->kept: nobody listens, nothing is computed */
    uint64_t until_us;         /* while nobody listens: then it is kept, or forgotten, no longer */
    char *behind;              /* Last-Event-ID that the answer has not reached again; NULL otherwise */
    struct live_whole *wholes; /* helper threads that write it down now; see live_whole.c */
    bool forgotten;            /* to be freed behind the last of them */
    struct live_request *previous, *next, *next_dirty;
};

/* Frees it, or leaves that to the last helper that reads it; it stands in no list, and no sequence of it lives. */
void live_request_free(struct live_request *r);

/* Room for all choices of r->request. False: no memory. */
bool live_request_make_choices(struct live_request *r);

/* In the server's list of those that are parsed, computed or listened to. */
void live_request_link(struct server *s, struct live_request *r);
void live_request_unlink(struct server *s, struct live_request *r);

void live_request_mark_dirty(struct live_request *r);

/* Submits the choices that are not finished, behind what they have said already: all of them, or none. */
enum err live_request_submit(struct live_request *r, struct why *why);

/* What there is of the answer now. */
struct api_answer live_request_answer(const struct live_request *r);

/* Its client has all, or is gone; an answer is not lost with a connection. r may be freed. */
void live_request_end(struct live_request *r, const char *how);

/*
 * Answers with all there is of it now, in one piece; a helper thread writes it when it is long, and http->user is r
 * then. With that the request is over if it was its own client (r->http) that waited; r may be freed.
 */
void live_whole_send(struct live_request *r, struct http_request *http);

/* This client waits for no whole answer any more. */
void live_whole_gone(struct live_request *r, const struct http_request *http);

/* Its sequences are computed no further; their session slots are kept. */
void live_request_stop(struct live_request *r);

/* Nobody listens any more: its sequences stop, and it is kept for a while; or it ends, if nobody could go on with it. */
void live_request_keep(struct live_request *r, const char *how);

/* One log line at the end of a request's life, or of its client's. */
void live_request_log(const struct live_request *r, const char *how);

#endif
