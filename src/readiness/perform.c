/* SPDX-License-Identifier: MIT
 * One operation, one system call: what an op asks for, done now on a descriptor that does not block.
 *
 * The normal course: the call succeeds, and its result becomes the event. A receive takes its pool buffer just before
 * the call and gives it back if nothing came, so buffers never wait with idle connections.
 *
 * What can go wrong: the call would block, then the op stays as it was; the pool is empty, then the op ends with
 * -ENOBUFS before any byte is touched; anything else ends the op with the call's own error.
 *
 * Differences between platforms are whole functions here, and nowhere else in the readiness rooms. */
#include "poller.h"

#include "buffer/bufpool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    BLOCKED = GYRE_BLOCKED,
    CALL_MAX = 0x7ffff000, /* bytes of one call, so that its result fits an int32_t; Linux stops there by itself */
    BUFS_MAX = 16,         /* receive buffers of one call */
};

/* MSG_DONTWAIT, because the mode is that of the file, which another loop or process may have, too. */
#ifdef MSG_NOSIGNAL
enum { SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT };
#else
enum { SEND_FLAGS = MSG_DONTWAIT }; /* SO_NOSIGPIPE was set by gyre__perform_prepare() */
#endif

static int set_nonblocking(int fd)
{
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0)
        return -errno;
    if (mode & O_NONBLOCK)
        return 0;
    return fcntl(fd, F_SETFL, mode | O_NONBLOCK) == 0 ? 0 : -errno;
}

void gyre__perform_restore(int fd)
{
    int mode = fcntl(fd, F_GETFL);
    if (mode >= 0)
        (void)fcntl(fd, F_SETFL, mode & ~O_NONBLOCK);
}

#ifdef __APPLE__
static int accept_one(int listener)
{
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return -1;
    /* The mode is set in attach() or not at all: a descriptor marked GYRE_FDF_ACCEPTED is believed to have it. */
    if (set_nonblocking(fd) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
        return fd;
    int err = errno;
    (void)close(fd);
    errno = err;
    return -1;
}

int gyre__perform_prepare(const struct gyre__fd *f)
{
    int on = 1;
    /* EINVAL: its peer has gone, and it is over. Without the option it must not be used, for a send would raise. */
    if (setsockopt(f->fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) != 0)
        return errno == EINVAL ? -ECONNRESET : -errno;
    return f->flags & GYRE_FDF_ACCEPTED ? 0 : set_nonblocking(f->fd);
}
#else
static int accept_one(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int gyre__perform_prepare(const struct gyre__fd *f)
{
    return f->flags & GYRE_FDF_ACCEPTED ? 0 : set_nonblocking(f->fd);
}
#endif

/* What a call that does not connect returned, as a result. */
static int32_t result(ssize_t n)
{
    if (n >= 0)
        return (int32_t)n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? BLOCKED : -errno;
}

/* The same for a send on a stream. */
static int32_t sent(ssize_t n)
{
    int32_t res = n >= 0 ? (int32_t)n : gyre__sock_send_error(errno);
    return res == -EAGAIN ? BLOCKED : res;
}

/* To find that no other connection waits costs Linux a socket made and freed again, ten times what poll(2) costs, and
 * with single connections coming in it would be every second call. So a listener that has just given one is asked; one
 * that others share always is, because they may have taken the connection and had the socket block. */
static int32_t do_accept(struct gyre__fd *f, struct gyre_stats *stats)
{
    int fd;
    if ((f->be_flags & GYRE_RDF_FILLED) || (f->flags & GYRE_FDF_SHARED)) {
        f->be_flags &= (uint8_t)~GYRE_RDF_FILLED;
        gyre__count(&stats->calls, 1);
        if (!gyre__sock_may_accept(f->fd))
            return BLOCKED;
    }
    do {
        gyre__count(&stats->calls, 1);
        fd = accept_one(f->fd);
    } while (fd < 0 && errno == EINTR);
    f->be_flags = (uint8_t)(fd >= 0 ? f->be_flags | GYRE_RDF_FILLED : f->be_flags & ~GYRE_RDF_FILLED);
    return result(fd);
}

int gyre__rd_accept_now(struct gyre__backend *be, struct gyre__fd *f)
{
    int32_t fd = do_accept(f, &be->stats);
    return fd == BLOCKED ? -EAGAIN : fd;
}

/* A unix socket whose listener's backlog is full says EAGAIN, and no edge ever follows; likewise Linux's TCP when it
 * has no local port left. To wait would need a timer, so that is the result. */
static int32_t start_connect(struct gyre__op *op, struct gyre_stats *stats)
{
    op->u.connect.started = true;
    /* What was seen of the socket so far is not about the connection: Linux polls it as hung up. */
    op->f->be_flags &= (uint8_t) ~(GYRE_RDF_ODD | GYRE_RDF_READABLE | GYRE_RDF_FAILED);
    gyre__count(&stats->calls, 1);
    if (connect(op->f->fd, op->u.connect.addr, op->u.connect.len) == 0)
        return 0;
    /* Interrupted, it goes on by itself and must not be called again. */
    return errno == EINPROGRESS || errno == EINTR ? BLOCKED : -errno;
}

/* Returns 0 or -errno. */
static int32_t socket_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof err;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? -err : -errno;
}

/* connect() is called once; after that the outcome is in SO_ERROR, but only once the socket has a peer, or an early
 * edge would read as success. EINVAL is macOS's for a socket that is over in both directions: it failed since SO_ERROR
 * was asked, or its peer came and went. No further edge would come. */
static int32_t finish_connect(const struct gyre__op *op, struct gyre_stats *stats)
{
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    gyre__count(&stats->calls, 2);
    int32_t err = socket_error(op->f->fd);
    if (err != 0)
        return err;
    if (getpeername(op->f->fd, (struct sockaddr *)&peer, &peer_len) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == ENOTCONN ? BLOCKED : -errno;
    err = socket_error(op->f->fd);
    return err != 0 ? err : -ECONNRESET;
}

static int32_t do_connect(struct gyre__op *op, struct gyre_stats *stats)
{
    int32_t res = op->u.connect.started ? finish_connect(op, stats) : start_connect(op, stats);
    if (res < 0 && res != BLOCKED)
        op->f->be_flags |= GYRE_RDF_READABLE; /* a receive fails at once, and no edge will say so */
    return res;
}

static int32_t receive(int fd, void *buf, uint32_t room, struct gyre_stats *stats)
{
    ssize_t n;
    do {
        gyre__count(&stats->calls, 1);
        n = recv(fd, buf, room < CALL_MAX ? room : CALL_MAX, MSG_DONTWAIT);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return result(n);
}

static int32_t receive_in_many(int fd, const struct gyre__bufpool *pool, const uint16_t *bufs, unsigned count,
                               struct gyre_stats *stats)
{
    struct iovec iov[BUFS_MAX];
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){.iov_base = gyre__bufpool_data(pool, bufs[i]), .iov_len = pool->size};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (uint16_t)count};
    ssize_t n;
    do {
        gyre__count(&stats->calls, 1);
        n = recvmsg(fd, &msg, MSG_DONTWAIT);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return result(n);
}

/* Receive into up to `want` buffers (1 to BUFS_MAX), an event for each, as far as the bytes go. They are taken for the
 * call only: those it leaves empty go back. Sets `*room`; returns the sum of the bytes. */
static int32_t receive_in_pool(const struct gyre__op *op, struct gyre__event *ev, unsigned want, uint32_t *room,
                               struct gyre_stats *stats)
{
    struct gyre__bufpool *pool = op->u.recv.pool;
    uint16_t bufs[BUFS_MAX];
    unsigned count = 0;
    for (int buf; count < want && (buf = gyre__bufpool_take(pool)) != GYRE_BUF_NONE; count++)
        bufs[count] = (uint16_t)buf;
    if (GYRE_UNLIKELY(count == 0)) {
        gyre__count(&stats->enobufs, 1);
        return -ENOBUFS;
    }
    *room = count * pool->size;
    int32_t res = count == 1 ? receive(op->f->fd, gyre__bufpool_data(pool, bufs[0]), pool->size, stats)
                             : receive_in_many(op->f->fd, pool, bufs, count, stats);
    gyre__bufpool_deal_out(pool, bufs, count, res, ev->op, GYRE_EV_BUF, ev);
    return res;
}

/* How many buffers to offer. A receive that just fills its one buffer leaves open whether there is more, and the call
 * that finds out there is not costs as much as receiving 4 KiB. So from then on there are several, until the bytes of
 * one call no longer fill the first: a bulk stream moves in pieces of 256 KiB, a fifth cheaper than in pieces of 64. */
static unsigned bufs_wanted(const struct gyre__op *op, unsigned room)
{
    if (!(op->f->be_flags & GYRE_RDF_FILLED) || !(op->flags & GYRE_OPF_MULTI))
        return 1;
    return gyre__bufpool_share(op->u.recv.pool, room < BUFS_MAX ? room : BUFS_MAX);
}

/* What a receive says about the next one. Whether the socket is empty is known without asking again if fewer bytes came
 * than there was room for: TCP fills the room as far as it has bytes.
 *
 * There are two exceptions. The end of the stream, or an error, may follow the bytes at once, and its edge may be the
 * one that is just being served. And a receive stops short at urgent data, with more bytes behind it. Both are seen by
 * the poller (epoll: RDHUP, HUP, ERR, PRI; kqueue: EV_EOF, but nothing for urgent data), and from then on only EAGAIN
 * counts. If either arrives between the poller's answer and the receive, it makes an edge of its own, not yet reported,
 * and that brings the belief back. Over kqueue, bytes that follow urgent data wait for the next edge. */
static void learn(struct gyre__fd *f, int32_t res, uint32_t size, uint32_t room)
{
    f->be_flags &= (uint8_t)~GYRE_RDF_FILLED;
    if (!(f->flags & GYRE_FDF_INET) || res <= 0)
        return;
    if ((uint32_t)res >= size)
        f->be_flags |= GYRE_RDF_FILLED;
    if ((uint32_t)res < room && !(f->be_flags & GYRE_RDF_ODD))
        f->be_flags &= (uint8_t)~GYRE_RDF_READABLE;
}

/* Receive into a pipe, if one is free and that is worth it: it is not worth it for few bytes, and hang-ups, errors and
 * urgent data are for ordinary receives. Returns 0 if nothing was received so. */
static int32_t receive_in_pipe(const struct gyre__op *op, struct gyre__event *ev, struct gyre_stats *stats)
{
    struct gyre__fd *f = op->f;
    struct gyre__bufpool *pool = op->u.recv.pool;
    if (pool->pipe_nfree == 0 || (f->be_flags & GYRE_RDF_ODD))
        return 0;
    gyre__count(&stats->calls, 1);
    uint32_t waiting = gyre__pipe_waiting(f->fd);
    if (waiting < GYRE_PIPE_WORTH)
        return 0;
    int pipe = gyre__bufpool_take_pipe(pool);
    gyre__count(&stats->calls, 1);
    int32_t res = gyre__pipe_fill(&pool->pipes[pipe], f->fd);
    if (res <= 0) {
        gyre__bufpool_give_pipe(pool, (uint16_t)pipe);
        f->flags &= (uint8_t)~GYRE_FDF_PIPE;
        return 0;
    }
    ev->res = res;
    ev->flags = GYRE_EV_PIPE;
    ev->buf = (uint16_t)pipe;
    if ((uint32_t)res >= waiting) /* what has come since makes an edge */
        f->be_flags &= (uint8_t)~GYRE_RDF_READABLE;
    return res;
}

/* Returns how many events it made; as gyre__perform(). */
static unsigned do_recv(const struct gyre__op *op, struct gyre__event *ev, unsigned room, struct gyre_stats *stats)
{
    bool pooled = op->flags & GYRE_OPF_POOL;
    if (GYRE_UNLIKELY(op->f->flags & GYRE_FDF_PIPE) && pooled && (op->flags & GYRE_OPF_MULTI) &&
        receive_in_pipe(op, ev, stats) > 0)
        return 1;
    uint32_t size = pooled ? op->u.recv.pool->size : op->u.recv.len, bytes = size;
    int32_t res = pooled ? receive_in_pool(op, ev, bufs_wanted(op, room), &bytes, stats)
                         : receive(op->f->fd, op->u.recv.buf, size, stats);
    if (res != BLOCKED)
        learn(op->f, res, size, bytes);
    if (res > 0 && (uint32_t)res > size)
        return ((uint32_t)res + size - 1) / size;
    ev->res = res;
    return res == BLOCKED ? 0 : 1;
}

static int32_t do_send(const struct gyre__op *op, struct gyre_stats *stats)
{
    uint32_t len = op->u.send.len < CALL_MAX ? op->u.send.len : CALL_MAX;
    ssize_t n;
    do {
        gyre__count(&stats->calls, 1);
        n = send(op->f->fd, op->u.send.buf, len, SEND_FLAGS);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return sent(n);
}

static int32_t do_sendmsg(const struct gyre__op *op, struct gyre_stats *stats)
{
    ssize_t n;
    do {
        gyre__count(&stats->calls, 1);
        n = sendmsg(op->f->fd, op->u.msg.hdr, SEND_FLAGS);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return sent(n);
}

static int32_t do_splice(const struct gyre__op *op, struct gyre_stats *stats)
{
    gyre__count(&stats->calls, 1);
    int32_t n = gyre__pipe_drain(op->u.splice.pipe, op->f->fd, op->u.splice.len);
    return n == -EAGAIN ? BLOCKED : n;
}

/* A file is always ready: the disk may make this wait, which no poller can tell. */
static int32_t do_read(const struct gyre__op *op, struct gyre_stats *stats)
{
    const struct gyre__op_read *r = op->u.read;
    ssize_t n;
    do {
        gyre__count(&stats->calls, 1);
        n = pread(r->fd, r->buf, r->len < CALL_MAX ? r->len : CALL_MAX, (off_t)r->offset);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return n >= 0 ? (int32_t)n : -errno;
}

static int32_t do_poll(const struct gyre__op *op, struct gyre_stats *stats)
{
    struct pollfd p = {.fd = op->f->fd, .events = (short)op->u.poll.events};
    int n;
    do {
        gyre__count(&stats->calls, 1);
        n = poll(&p, 1, 0);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    int32_t holds = p.revents & (p.events | POLLHUP | POLLERR);
    if (n < 0)
        return -errno;
    return holds != 0 ? holds : BLOCKED;
}

static int32_t call(struct gyre__op *op, struct gyre_stats *stats)
{
    switch ((enum gyre__op_kind)op->kind) {
    case GYRE_OP_ACCEPT:
        return do_accept(op->f, stats);
    case GYRE_OP_CONNECT:
        return do_connect(op, stats);
    case GYRE_OP_SEND:
        return do_send(op, stats);
    case GYRE_OP_SENDMSG:
        return do_sendmsg(op, stats);
    case GYRE_OP_READ:
        return do_read(op, stats);
    case GYRE_OP_SPLICE:
        return do_splice(op, stats);
    case GYRE_OP_POLL:
        return do_poll(op, stats);
    case GYRE_OP_RECV:
    case GYRE_OP_RECVMSG:
        break;
    }
    return -EINVAL;
}

unsigned gyre__perform(struct gyre__op *op, struct gyre__event *out, unsigned room, struct gyre_stats *stats)
{
    bool receives = op->kind == GYRE_OP_RECV;
    unsigned n = 1;
    if (op->kind == GYRE_OP_RECVMSG)
        return gyre__perform_recvmsg(op, out, room, stats);
    *out = (struct gyre__event){.op = op};
    if (receives)
        n = do_recv(op, out, room, stats);
    else
        out->res = call(op, stats);
    if (out->res == BLOCKED)
        return 0;
    for (unsigned i = 0; (op->flags & GYRE_OPF_MULTI) && i < n; i++)
        if (out[i].res > 0 || (out[i].res == 0 && !receives))
            out[i].flags |= GYRE_EV_MORE;
    return n;
}
