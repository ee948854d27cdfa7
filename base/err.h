/*
 * err: what the world can do to us. A function that may fail returns enum err and, where a person will read of it,
 * fills a struct why with one sentence: what was tried, why it failed, what to do. No function names in it.
 */
#ifndef QUIRE_BASE_ERR_H
#define QUIRE_BASE_ERR_H

enum err {
    OK = 0,
    ERR_NOMEM,       /* the system has no memory (or no file descriptors) left */
    ERR_IO,          /* a system call failed */
    ERR_FORMAT,      /* a file, message or shared segment does not say what it must */
    ERR_UNSUPPORTED, /* well-formed, but nothing that this build can do */
    ERR_INVALID,     /* a request or option out of its bounds */
    ERR_BUSY,        /* held by somebody else; may go away */
    ERR_FULL,        /* no room now; may go away */
    ERR_ABORTED,     /* a peer died: this step is void */
};

struct why {
    char text[512];
};

/* Fills why (which may be NULL) and returns code, so that `return because(why, ERR_IO, …)` reads as it sounds. */
enum err because(struct why *why, enum err code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same with ": " and strerror(errno) at the end. */
enum err because_errno(struct why *why, enum err code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
