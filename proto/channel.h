/*
 * channel: messages between the coordinator and its workers, ZeroMQ ROUTER and DEALER over a Unix socket in a
 * directory that only this user may enter.
 *
 * A worker's identity is (slot, process generation), never used twice, so a message for a dead process reaches
 * nobody. Frames above 64 KiB are not received. ZeroMQ's context is made by bind and connect: spawn first where you
 * can, never touch a channel after fork, keep descriptors 0 to 2 open. The I/O threads are not pinned; who pins its
 * computing thread does so after connect.
 *
 * The coordinator's loop: channel_fd() is edge-triggered. After each wake-up AND after each channel_send, call
 * channel_receive until it says ERR_BUSY; otherwise a message may lie there unseen.
 */
#ifndef QUIRE_PROTO_CHANNEL_H
#define QUIRE_PROTO_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { CHANNEL_DIRECTORY_MAX = 90 };

struct channel;

struct channel_peer {
    uint32_t slot, generation;
};

/*
 * The directory of the server `name`: $XDG_RUNTIME_DIR/quire.UID.NAME, else /tmp/quire.UID.NAME. Makes nothing.
 * ERR_INVALID: too long for a socket.
 */
enum err channel_directory(char out[CHANNEL_DIRECTORY_MAX + 1], const char *name, struct why *why);

/*
 * Coordinator: makes the directory (0700; one that exists must be ours and closed to others) and listens. Caller
 * holds the instance.
 */
enum err channel_bind(struct channel **out, const char *directory, struct why *why);

/* Worker: connects as `self`. The coordinator may come later. */
enum err channel_connect(struct channel **out, const char *directory, struct channel_peer self, struct why *why);

/* Closes at once, messages not yet sent are dropped; the coordinator's socket and directory are removed. */
void channel_close(struct channel *channel);

/* For the event loop; edge-triggered, see above. */
int channel_fd(const struct channel *channel);

/*
 * Sends one message. `to` is the worker (ignored on a worker's channel). ERR_INVALID: no such worker is connected.
 * ERR_BUSY: its queue is full; after a send the coordinator reads the channel (edge trigger).
 */
enum err channel_send(struct channel *channel, struct channel_peer to, const uint8_t *bytes, size_t length);

/*
 * The next message, if there is one. ERR_BUSY: none. ERR_FORMAT: one came that is too long for room, or from
 * something that is no worker; it was dropped, go on.
 */
enum err channel_receive(struct channel *channel, struct channel_peer *from, uint8_t *bytes, size_t room,
                         size_t *length);

/* Waits until a message may be there. OK or ERR_BUSY after timeout_ms (-1: for ever) or a signal. */
enum err channel_wait(struct channel *channel, int timeout_ms);

#endif
