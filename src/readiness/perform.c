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

#include "core/bufpool.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    BLOCKED = INT32_MIN,   /* in place of a result; no errno is that large */
    CALL_MAX = 0x7ffff000, /* bytes of one call, so that its result fits an int32_t; Linux stops there by itself */
};

#ifdef MSG_NOSIGNAL
enum { SEND_FLAGS = MSG_NOSIGNAL };
#else
enum { SEND_FLAGS = 0 }; /* SO_NOSIGPIPE was set by gyre__perform_prepare() */
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

int gyre__perform_prepare(const struct gyre_fd *f)
{
    int on = 1;
    if (setsockopt(f->fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) != 0)
        return -errno;
    return f->flags & GYRE_FDF_ACCEPTED ? 0 : set_nonblocking(f->fd);
}
#else
static int accept_one(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int gyre__perform_prepare(const struct gyre_fd *f)
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

static int32_t do_accept(const struct gyre_op *op, struct gyre_loop_stats *stats)
{
    int fd;
    do {
        stats->calls++;
        fd = accept_one(op->f->fd);
    } while (fd < 0 && errno == EINTR);
    return result(fd);
}

/* A unix socket whose listener's backlog is full says EAGAIN, and no edge ever follows; likewise Linux's TCP when it
 * has no local port left. To wait would need a timer, so that is the result, for the user to try again. */
static int32_t start_connect(struct gyre_op *op, struct gyre_loop_stats *stats)
{
    op->u.connect.started = true;
    /* A socket never connected polls as hung up on Linux. What is seen from here on is about the connection. */
    op->f->be_flags &= (uint8_t)~GYRE_RDF_ODD;
    stats->calls++;
    if (connect(op->f->fd, op->u.connect.addr, op->u.connect.len) == 0)
        return 0;
    /* Interrupted, it goes on by itself and must not be called again. */
    return errno == EINPROGRESS || errno == EINTR ? BLOCKED : -errno;
}

/* connect() is called once; after that the outcome is in SO_ERROR, but only once the socket has a peer, or an early
 * edge would read as success. */
static int32_t do_connect(struct gyre_op *op, struct gyre_loop_stats *stats)
{
    if (!op->u.connect.started)
        return start_connect(op, stats);
    int err = 0;
    socklen_t len = sizeof err;
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    stats->calls += 2;
    if (getsockopt(op->f->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        return -errno;
    if (err != 0)
        return -err;
    if (getpeername(op->f->fd, (struct sockaddr *)&peer, &peer_len) == 0)
        return 0;
    return errno == ENOTCONN ? BLOCKED : -errno;
}

static int32_t receive(int fd, void *buf, uint32_t room, struct gyre_loop_stats *stats)
{
    ssize_t n;
    do {
        stats->calls++;
        n = recv(fd, buf, room < CALL_MAX ? room : CALL_MAX, 0);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return result(n);
}

/* The buffer is taken for the call only. */
static int32_t receive_in_pool(const struct gyre_op *op, struct gyre_event *ev, struct gyre_loop_stats *stats)
{
    struct gyre_bufpool *pool = op->u.recv.pool;
    int buf = gyre__bufpool_take(pool);
    if (GYRE_UNLIKELY(buf == GYRE_BUF_NONE)) {
        stats->enobufs++;
        return -ENOBUFS;
    }
    int32_t res = receive(op->f->fd, gyre__bufpool_data(pool, (uint16_t)buf), pool->size, stats);
    if (res <= 0) {
        gyre__bufpool_untake(pool, (uint16_t)buf);
        return res;
    }
    ev->buf = (uint16_t)buf;
    ev->flags |= GYRE_EV_BUF;
    return res;
}

/* The same with two buffers, of which the second may come back unused. `ev` are two events, filled as the bytes go.
 * Returns the sum. */
static int32_t receive_in_two(const struct gyre_op *op, struct gyre_event *ev, struct gyre_loop_stats *stats)
{
    struct gyre_bufpool *pool = op->u.recv.pool;
    uint16_t bufs[2];
    struct iovec iov[2];
    for (int i = 0; i < 2; i++) {
        bufs[i] = (uint16_t)gyre__bufpool_take(pool);
        iov[i] = (struct iovec){.iov_base = gyre__bufpool_data(pool, bufs[i]), .iov_len = pool->size};
    }
    ssize_t n;
    do {
        stats->calls++;
        n = readv(op->f->fd, iov, 2);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    int32_t res = result(n), left = res;
    for (int i = 0; i < 2 && left > 0; i++) {
        int32_t part = left < (int32_t)pool->size ? left : (int32_t)pool->size;
        ev[i] = (struct gyre_event){.op = ev->op, .res = part, .flags = GYRE_EV_BUF, .buf = bufs[i]};
        left -= part;
    }
    if (res <= (int32_t)pool->size)
        gyre__bufpool_untake(pool, bufs[1]);
    if (res <= 0)
        gyre__bufpool_untake(pool, bufs[0]);
    return res;
}

/* Whether to offer two buffers. A receive that just fills its one buffer leaves open whether there is more, and the
 * call that finds out there is not costs as much as receiving 4 KiB. So from then on there is a second one, until the
 * bytes of one call no longer fill the first. */
static bool wants_two(const struct gyre_op *op, unsigned room)
{
    return (op->f->be_flags & GYRE_RDF_FILLED) && (op->flags & GYRE_OPF_POOL) && (op->flags & GYRE_OPF_MULTI) &&
           room >= 2 && gyre__bufpool_available(op->u.recv.pool) >= 2;
}

/* What a receive says about the next one. Whether the socket is empty is known without asking again if fewer bytes came
 * than there was room for: TCP fills the room as far as it has bytes.
 *
 * There are two exceptions. The end of the stream, or an error, may follow the bytes at once, and its edge may be the
 * one that is just being served. And a receive stops short at urgent data, with more bytes behind it. Both are seen by
 * the poller (epoll: RDHUP, HUP, ERR, PRI; kqueue: EV_EOF, but nothing for urgent data), and from then on only EAGAIN
 * counts. If either arrives between the poller's answer and the receive, it makes an edge of its own, not yet reported,
 * and that brings the belief back. Over kqueue, bytes that follow urgent data wait for the next edge. */
static void learn(struct gyre_fd *f, int32_t res, uint32_t size, uint32_t room)
{
    f->be_flags &= (uint8_t)~GYRE_RDF_FILLED;
    if (!(f->flags & GYRE_FDF_INET) || res <= 0)
        return;
    if ((uint32_t)res >= size)
        f->be_flags |= GYRE_RDF_FILLED;
    if ((uint32_t)res < room && !(f->be_flags & GYRE_RDF_ODD))
        f->be_flags &= (uint8_t)~GYRE_RDF_READABLE;
}

/* Returns how many events it made; as gyre__perform(). */
static unsigned do_recv(const struct gyre_op *op, struct gyre_event *ev, unsigned room, struct gyre_loop_stats *stats)
{
    bool pooled = op->flags & GYRE_OPF_POOL;
    uint32_t size = pooled ? op->u.recv.pool->size : op->u.recv.len;
    if (wants_two(op, room)) {
        int32_t sum = receive_in_two(op, ev, stats);
        if (sum != BLOCKED)
            learn(op->f, sum, size, 2 * size);
        if (sum <= 0)
            ev->res = sum;
        return sum == BLOCKED ? 0 : sum > (int32_t)size ? 2 : 1;
    }
    ev->res = pooled ? receive_in_pool(op, ev, stats) : receive(op->f->fd, op->u.recv.buf, size, stats);
    if (ev->res == BLOCKED)
        return 0;
    learn(op->f, ev->res, size, size);
    return 1;
}

static int32_t do_send(const struct gyre_op *op, struct gyre_loop_stats *stats)
{
    uint32_t len = op->u.send.len < CALL_MAX ? op->u.send.len : CALL_MAX;
    ssize_t n;
    do {
        stats->calls++;
        n = send(op->f->fd, op->u.send.buf, len, SEND_FLAGS);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return result(n);
}

static int32_t do_sendmsg(const struct gyre_op *op, struct gyre_loop_stats *stats)
{
    ssize_t n;
    do {
        stats->calls++;
        n = sendmsg(op->f->fd, op->u.msg.hdr, SEND_FLAGS);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return result(n);
}

static int32_t call(struct gyre_op *op, struct gyre_loop_stats *stats)
{
    switch ((enum gyre_op_kind)op->kind) {
    case GYRE_OP_ACCEPT:
        return do_accept(op, stats);
    case GYRE_OP_CONNECT:
        return do_connect(op, stats);
    case GYRE_OP_SEND:
        return do_send(op, stats);
    case GYRE_OP_SENDMSG:
        return do_sendmsg(op, stats);
    case GYRE_OP_RECV:
        break;
    }
    return -EINVAL;
}

unsigned gyre__perform(struct gyre_op *op, struct gyre_event *out, unsigned room, struct gyre_loop_stats *stats)
{
    bool receives = op->kind == GYRE_OP_RECV;
    unsigned n = 1;
    *out = (struct gyre_event){.op = op};
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
