/* SPDX-License-Identifier: MIT
 * An operation of ours, written down as the kernel's. */
#include "ring.h"

#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>

void gyre__uring_set_mode(struct gyre__fd *f, bool nonblocking)
{
    int on = nonblocking;
    if (ioctl(f->fd, FIONBIO, &on) == 0)
        f->be.ur.nonblocking = nonblocking;
}

static void prep_accept(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    if (gyre__uring_accepts_by_poll(op)) {
        io_uring_prep_poll_add(sqe, op->f->fd, POLLIN);
        return;
    }
    /* The new descriptor stays blocking: with O_NONBLOCK the kernel answers -EAGAIN now and then instead of waiting. */
    if ((op->flags & GYRE_OPF_MULTI) && (u->use & GYRE_URING_MULTISHOT_ACCEPT))
        io_uring_prep_multishot_accept(sqe, op->f->fd, NULL, NULL, SOCK_CLOEXEC);
    else
        io_uring_prep_accept(sqe, op->f->fd, NULL, NULL, SOCK_CLOEXEC);
}

static void prep_recv(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    if (!(op->flags & GYRE_OPF_POOL)) {
        io_uring_prep_recv(sqe, op->f->fd, op->u.recv.buf, op->u.recv.len, MSG_DONTWAIT);
        return;
    }
    GYRE_ASSERT(op->u.recv.pool == u->bufs.pool);
    if (op->f->be_flags & GYRE_UF_DIRECT) {
        io_uring_prep_poll_multishot(sqe, op->f->fd, POLLIN | POLLPRI | POLLRDHUP);
        return;
    }
    /* A multishot receive must not name a length before Linux 6.17, and takes the whole buffer. */
    if (op->flags & GYRE_OPF_MULTI)
        io_uring_prep_recv_multishot(sqe, op->f->fd, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, op->f->fd, NULL, op->u.recv.pool->size, MSG_DONTWAIT);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = u->bufs.group;
}

/* Linux 6.18 wakes no poll for POLLPRI, which it takes for a flag of its own in the mask. POLLRDBAND wakes it, with
 * whatever arrives; await.c looks what that was. */
unsigned gyre__uring_poll_mask(const struct gyre__op *op)
{
    if (op->kind == GYRE_OP_POLL)
        return op->u.poll.events & POLLPRI ? op->u.poll.events | POLLRDBAND : op->u.poll.events;
    return op->kind == GYRE_OP_RECV || op->kind == GYRE_OP_RECVMSG ? POLLIN : POLLOUT;
}

void gyre__uring_prep(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    const int send_flags = MSG_NOSIGNAL | MSG_DONTWAIT; /* await.c says why it must not wait */

    if (op->flags & GYRE_UOP_WAITS) {
        if (op->flags & GYRE_UOP_EDGES)
            io_uring_prep_poll_multishot(sqe, op->f->fd, gyre__uring_poll_mask(op));
        else
            io_uring_prep_poll_add(sqe, op->f->fd, gyre__uring_poll_mask(op));
        sqe->user_data = gyre__uring_tag(op);
        return;
    }
    switch ((enum gyre__op_kind)op->kind) {
    case GYRE_OP_ACCEPT:
        prep_accept(u, sqe, op);
        break;
    case GYRE_OP_CONNECT:
        io_uring_prep_connect(sqe, op->f->fd, op->u.connect.addr, op->u.connect.len);
        break;
    case GYRE_OP_RECV:
        prep_recv(u, sqe, op);
        break;
    case GYRE_OP_SEND:
        io_uring_prep_send(sqe, op->f->fd, op->u.send.buf, op->u.send.len, send_flags);
        break;
    case GYRE_OP_SENDMSG:
        io_uring_prep_sendmsg(sqe, op->f->fd, op->u.msg.hdr, (unsigned)send_flags);
        break;
    case GYRE_OP_RECVMSG:
        gyre__uring_prep_recvmsg(u, sqe, op);
        break;
    case GYRE_OP_READ:
        io_uring_prep_read(sqe, op->u.read->fd, op->u.read->buf, op->u.read->len, op->u.read->offset);
        break;
    case GYRE_OP_SPLICE: /* of the kernel's own it would make a thread each */
    case GYRE_OP_POLL:
        GYRE_ASSERT(false); /* they wait */
        break;
    }
    sqe->user_data = gyre__uring_tag(op);
}
