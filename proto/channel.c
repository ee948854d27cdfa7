#include "proto/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/must.h"
#include "proto/message.h"

enum {
    QUEUE_MESSAGES = 256, /* a worker has at most two plans in flight; progress reports may come in bursts */
    HANDSHAKE_MS = 5000,
    IDENTITY_BYTES = 9,
    ENDPOINT_MAX = 6 + CHANNEL_DIRECTORY_MAX + 9,
};

struct channel {
    void *context;
    void *socket;
    bool is_router;
    char directory[CHANNEL_DIRECTORY_MAX + 1];
};

/* 'w', slot, generation. The letter is there because identities that begin with a zero byte are ZeroMQ's own. */
static void write_identity(uint8_t out[IDENTITY_BYTES], struct channel_peer peer)
{
    out[0] = 'w';
    memcpy(out + 1, &peer.slot, sizeof peer.slot);
    memcpy(out + 5, &peer.generation, sizeof peer.generation);
}

static bool read_identity(struct channel_peer *peer, const uint8_t *identity, int length)
{
    if (length != IDENTITY_BYTES || identity[0] != 'w')
        return false;
    memcpy(&peer->slot, identity + 1, sizeof peer->slot);
    memcpy(&peer->generation, identity + 5, sizeof peer->generation);
    return true;
}

enum err channel_directory(char out[CHANNEL_DIRECTORY_MAX + 1], const char *name, struct why *why)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    bool usable = runtime && runtime[0] == '/' && access(runtime, W_OK | X_OK) == 0;
    int n =
        snprintf(out, CHANNEL_DIRECTORY_MAX + 1, "%s/quire.%u.%s", usable ? runtime : "/tmp", (unsigned)getuid(), name);
    if (n < 0 || n > CHANNEL_DIRECTORY_MAX)
        return because(why, ERR_INVALID,
                       "the directory for server \"%s\" has a name of more than %d bytes, which a socket cannot have; "
                       "use a shorter --name or XDG_RUNTIME_DIR",
                       name, CHANNEL_DIRECTORY_MAX);
    return OK;
}

static enum err make_private_directory(const char *directory, struct why *why)
{
    if (mkdir(directory, 0700) == 0)
        return OK;
    if (errno != EEXIST)
        return because_errno(why, ERR_IO, "could not make the directory %s for the workers' socket", directory);
    struct stat st;
    if (lstat(directory, &st) != 0)
        return because_errno(why, ERR_IO, "could not look at the directory %s for the workers' socket", directory);
    if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077) != 0)
        return because(why, ERR_INVALID,
                       "%s is not a directory of this user alone, so no worker may be spoken to there; remove it",
                       directory);
    return OK;
}

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool set_bounds(void *socket)
{
    int64_t bytes = MESSAGE_BYTES_MAX;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &bytes, sizeof bytes) == 0 && set_int(socket, ZMQ_LINGER, 0) &&
           set_int(socket, ZMQ_SNDHWM, QUEUE_MESSAGES) && set_int(socket, ZMQ_RCVHWM, QUEUE_MESSAGES) &&
           set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
}

static enum err open_channel(struct channel **out, const char *directory, const struct channel_peer *self,
                             struct why *why)
{
    if (strlen(directory) > CHANNEL_DIRECTORY_MAX)
        return because(why, ERR_INVALID, "the directory %.100s… is too long for a socket", directory);
    struct channel *c = calloc(1, sizeof *c);
    if (!c)
        return because(why, ERR_NOMEM, "there is no memory left for the workers' socket");
    strcpy(c->directory, directory);
    c->is_router = self == NULL;
    uint8_t identity[IDENTITY_BYTES];
    char endpoint[ENDPOINT_MAX];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/channel", directory);

    c->context = zmq_ctx_new();
    c->socket = c->context ? zmq_socket(c->context, c->is_router ? ZMQ_ROUTER : ZMQ_DEALER) : NULL;
    if (!c->socket || !set_bounds(c->socket))
        goto close;
    if (c->is_router) {
        if (!set_int(c->socket, ZMQ_ROUTER_MANDATORY, 1) || zmq_bind(c->socket, endpoint) != 0)
            goto close;
    } else {
        write_identity(identity, *self);
        if (zmq_setsockopt(c->socket, ZMQ_ROUTING_ID, identity, sizeof identity) != 0 ||
            zmq_connect(c->socket, endpoint) != 0)
            goto close;
    }
    *out = c;
    return OK;

close:
    because(why, ERR_IO, "could not open the workers' socket %s: %s", endpoint, zmq_strerror(zmq_errno()));
    channel_close(c);
    return ERR_IO;
}

enum err channel_bind(struct channel **out, const char *directory, struct why *why)
{
    enum err err = make_private_directory(directory, why);
    return err == OK ? open_channel(out, directory, NULL, why) : err;
}

enum err channel_connect(struct channel **out, const char *directory, struct channel_peer self, struct why *why)
{
    return open_channel(out, directory, &self, why);
}

void channel_close(struct channel *channel)
{
    if (!channel)
        return;
    if (channel->socket)
        must(zmq_close(channel->socket) == 0);
    while (channel->context && zmq_ctx_term(channel->context) != 0)
        must(zmq_errno() == EINTR);
    if (channel->is_router) {
        char path[ENDPOINT_MAX];
        snprintf(path, sizeof path, "%s/channel", channel->directory);
        unlink(path);
        rmdir(channel->directory); /* stays when somebody put a file there */
    }
    free(channel);
}

int channel_fd(const struct channel *channel)
{
    int fd = -1;
    size_t size = sizeof fd;
    must(zmq_getsockopt(channel->socket, ZMQ_FD, &fd, &size) == 0);
    return fd;
}

/* Reading ZMQ_EVENTS is what arms the edge of channel_fd again. */
static bool has_message(struct channel *channel)
{
    int events = 0;
    size_t size = sizeof events;
    must(zmq_getsockopt(channel->socket, ZMQ_EVENTS, &events, &size) == 0);
    return events & ZMQ_POLLIN;
}

static int send_frame(struct channel *channel, const void *bytes, size_t length, int flags)
{
    int rc;
    do
        rc = zmq_send(channel->socket, bytes, length, flags | ZMQ_DONTWAIT);
    while (rc < 0 && zmq_errno() == EINTR);
    return rc;
}

enum err channel_send(struct channel *channel, struct channel_peer to, const uint8_t *bytes, size_t length)
{
    must(length > 0 && length <= MESSAGE_BYTES_MAX);
    if (channel->is_router) {
        uint8_t identity[IDENTITY_BYTES];
        write_identity(identity, to);
        if (send_frame(channel, identity, sizeof identity, ZMQ_SNDMORE) < 0)
            goto not_sent;
    }
    if (send_frame(channel, bytes, length, 0) < 0)
        goto not_sent;
    return OK;

not_sent:
    must(zmq_errno() == EAGAIN || zmq_errno() == EHOSTUNREACH);
    return zmq_errno() == EAGAIN ? ERR_BUSY : ERR_INVALID;
}

/* Bytes of the next frame, which may be more than fitted; -1: there is none. *more: another one of the same message
 * follows. */
static int receive_frame(struct channel *channel, void *bytes, size_t room, bool *more)
{
    int rc;
    do
        rc = zmq_recv(channel->socket, bytes, room, ZMQ_DONTWAIT);
    while (rc < 0 && (zmq_errno() == EINTR || (zmq_errno() == EAGAIN && has_message(channel))));
    if (rc < 0) {
        must(zmq_errno() == EAGAIN);
        return -1;
    }
    int flag = 0;
    size_t size = sizeof flag;
    must(zmq_getsockopt(channel->socket, ZMQ_RCVMORE, &flag, &size) == 0);
    *more = flag != 0;
    return rc;
}

enum err channel_receive(struct channel *channel, struct channel_peer *from, uint8_t *bytes, size_t room,
                         size_t *length)
{
    bool more = false, good = true;
    *from = (struct channel_peer){0};
    if (channel->is_router) {
        uint8_t identity[IDENTITY_BYTES];
        int n = receive_frame(channel, identity, sizeof identity, &more);
        if (n < 0)
            return ERR_BUSY;
        good = read_identity(from, identity, n) && more;
        if (!more)
            return ERR_FORMAT;
    }
    int n = receive_frame(channel, bytes, room, &more);
    if (n < 0)
        return ERR_BUSY;
    good = good && n > 0 && (size_t)n <= room && !more;
    while (more) { /* frames that no version of ours sends */
        uint8_t rest;
        must(receive_frame(channel, &rest, sizeof rest, &more) >= 0); /* a message arrives whole */
    }
    *length = good ? (size_t)n : 0;
    return good ? OK : ERR_FORMAT;
}

enum err channel_wait(struct channel *channel, int timeout_ms)
{
    zmq_pollitem_t item = {.socket = channel->socket, .events = ZMQ_POLLIN};
    return zmq_poll(&item, 1, timeout_ms) > 0 ? OK : ERR_BUSY;
}
