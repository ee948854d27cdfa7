/*
 * private_server: a server of one's own for the time of a command: this program, started once more as `serve` on a free
 * port of the loopback. It dies with its owner, however that dies, and its shared memory goes with it.
 */
#ifndef QUIRE_COORDINATOR_PRIVATE_SERVER_H
#define QUIRE_COORDINATOR_PRIVATE_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct private_server {
    pid_t pid;
    char name[32]; /* of its shared memory */
    const char *shm_dir;
    uint16_t port;
    int log_fd;           /* what it says on stderr */
    char words[512];      /* the last that it said of a fault */
    bool listens;         /* the log has a thread of its own */
    pthread_t log_thread; /* tells the user of warnings and errors */
};

/*
 * Starts it and waits until it can answer; shows on a terminal how far it is. `options` (count) are those of quire serve;
 * shm_dir is what they say of --shm-dir, and must outlive *p. To be called by the main thread: the server dies when its
 * starting thread ends. ERR_ABORTED: interrupt_fd became readable. On an error nothing is left to stop.
 */
enum err private_server_start(struct private_server *p, char *const *options, int count, const char *shm_dir,
                              int interrupt_fd, struct why *why);

/* Ends it and waits for that. Warnings and errors of the server have stood on stderr until now. */
void private_server_stop(struct private_server *p);

#endif
