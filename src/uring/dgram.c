/* SPDX-License-Identifier: MIT
 * Datagrams on the ring.
 *
 * Receiving is one multishot receive that takes a posted buffer for each datagram and writes header, address, control
 * data and bytes into it. Sending is one entry per datagram; they are tried in order as they are submitted, and that
 * is where nearly all of them end.
 *
 * A send that would block is not left to the kernel to repeat: it goes on where the first try has stopped reading the
 * bytes, and sends an empty or a short datagram (seen on Linux 6.18.44: unix datagrams to a full receiver; UDP that
 * is cut into fragments reads as it goes too). So sends never wait. One that is to wait and met -EAGAIN waits by poll,
 * and then is sent from the start (await.c).
 *
 * Kernels without multishot receive (before Linux 6.0) would write without that header, into a buffer whose address and
 * control data lie elsewhere. So there the ring only waits, and each time that it says so one datagram is received with
 * a call. No buffer is posted then. */
#include "ring.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

_Static_assert(sizeof(struct gyre__dgram_head) == sizeof(struct io_uring_recvmsg_out), "one header for all backends");
_Static_assert(offsetof(struct gyre__dgram_head, name_len) == offsetof(struct io_uring_recvmsg_out, namelen), "");
_Static_assert(offsetof(struct gyre__dgram_head, control_len) == offsetof(struct io_uring_recvmsg_out, controllen), "");
_Static_assert(offsetof(struct gyre__dgram_head, payload_len) == offsetof(struct io_uring_recvmsg_out, payloadlen), "");
_Static_assert(offsetof(struct gyre__dgram_head, flags) == offsetof(struct io_uring_recvmsg_out, flags), "");

void gyre__uring_prep_recvmsg(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    GYRE_ASSERT(op->u.recvmsg.pool == u->bufs.pool);
    io_uring_prep_recvmsg_multishot(sqe, op->f->fd, op->u.recvmsg.room, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = u->bufs.group;
}

/* ---- without multishot ---- */

static int32_t receive_datagram(const struct gyre__op *op, uint8_t *buf)
{
    const struct msghdr *room = op->u.recvmsg.room;
    uint8_t *name = buf + sizeof(struct gyre__dgram_head), *control = name + room->msg_namelen;
    uint8_t *data = control + room->msg_controllen;
    uint32_t size = op->u.recvmsg.pool->size - (uint32_t)(data - buf);
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr msg = {
        .msg_name = room->msg_namelen > 0 ? name : NULL,
        .msg_namelen = room->msg_namelen,
        .msg_control = room->msg_controllen > 0 ? control : NULL,
        .msg_controllen = room->msg_controllen,
        .msg_iov = &iov,
        .msg_iovlen = 1,
    };
    ssize_t n;
    do
        n = recvmsg(op->f->fd, &msg, MSG_DONTWAIT);
    while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    if (n < 0)
        return -errno;
    struct gyre__dgram_head head = {
        .name_len = msg.msg_namelen,
        .control_len = (uint32_t)msg.msg_controllen,
        .payload_len = (uint32_t)n,
        .flags = (uint32_t)msg.msg_flags,
    };
    memcpy(buf, &head, sizeof head);
    return (int32_t)(data - buf) + (int32_t)n;
}

int32_t gyre__uring_recvmsg_once(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    struct gyre__bufpool *pool = op->u.recvmsg.pool;
    int buf = gyre__bufpool_take(pool); /* none is posted: there is no receive that could take it */
    if (buf == GYRE_BUF_NONE) {
        gyre__count(&u->base.stats.enobufs, 1);
        return -ENOBUFS;
    }
    gyre__count(&u->base.stats.calls, 1);
    int32_t res = receive_datagram(op, gyre__bufpool_data(pool, (uint16_t)buf));
    if (res < 0) {
        gyre__bufpool_untake(pool, (uint16_t)buf);
        return res;
    }
    ev->buf = (uint16_t)buf;
    ev->flags |= GYRE_EV_BUF;
    return res;
}
