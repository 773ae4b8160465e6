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
    /* The new descriptor stays blocking: with O_NONBLOCK the kernel answers -EAGAIN now and then instead of waiting. */
    if ((op->flags & GYRE_OPF_MULTI) && (u->use & GYRE_URING_MULTISHOT_ACCEPT))
        io_uring_prep_multishot_accept(sqe, op->f->fd, NULL, NULL, SOCK_CLOEXEC);
    else
        io_uring_prep_accept(sqe, op->f->fd, NULL, NULL, SOCK_CLOEXEC);
}

static void prep_recv(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    if (!(op->flags & GYRE_OPF_POOL)) {
        io_uring_prep_recv(sqe, op->f->fd, op->u.recv.buf, op->u.recv.len, 0);
        return;
    }
    GYRE_ASSERT(op->u.recv.pool == u->bufs.pool);
    if (op->f->be_flags & GYRE_UF_DIRECT) {
        io_uring_prep_poll_multishot(sqe, op->f->fd, POLLIN | POLLPRI | POLLRDHUP);
        return;
    }
    /* A multishot receive must not name a length before Linux 6.17, and takes the whole buffer. */
    if ((op->flags & GYRE_OPF_MULTI) && (u->use & GYRE_URING_MULTISHOT_RECV))
        io_uring_prep_recv_multishot(sqe, op->f->fd, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, op->f->fd, NULL, op->u.recv.pool->size, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = u->bufs.group;
}

/* Linux 6.18 wakes no poll for POLLPRI, which it takes for a flag of its own in the mask. POLLRDBAND wakes it, with
 * whatever arrives; poll_over() looks what that was. */
static unsigned poll_mask(uint32_t events)
{
    return events & POLLPRI ? events | POLLRDBAND : events;
}

void gyre__uring_prep(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    const int send_flags = MSG_NOSIGNAL | ((u->use & GYRE_URING_MSG_WAITALL) ? MSG_WAITALL : 0);

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
        gyre__uring_prep_sendmsg(u, sqe, op);
        break;
    case GYRE_OP_RECVMSG:
        gyre__uring_prep_recvmsg(u, sqe, op);
        break;
    case GYRE_OP_READ:
        io_uring_prep_read(sqe, op->u.read->fd, op->u.read->buf, op->u.read->len, op->u.read->offset);
        break;
    case GYRE_OP_SPLICE: /* of the kernel's own it would make a thread each */
        io_uring_prep_poll_add(sqe, op->f->fd, POLLOUT);
        break;
    case GYRE_OP_POLL:
        io_uring_prep_poll_add(sqe, op->f->fd, poll_mask(op->u.poll.events));
        break;
    }
    /* A multishot receive that polls first, on a socket where data and then its end or a reset are waiting already,
     * reports the data and never the end (seen on Linux 6.18.44: unix sockets always, TCP with a reset). */
    if ((op->flags & GYRE_OPF_POLL_FIRST) && op->kind != GYRE_OP_RECVMSG && !(sqe->ioprio & IORING_RECV_MULTISHOT) &&
        sqe->opcode != IORING_OP_POLL_ADD) {
        GYRE_ASSERT(op->kind == GYRE_OP_RECV || op->kind == GYRE_OP_SEND || op->kind == GYRE_OP_SENDMSG);
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    }
    sqe->user_data = gyre__uring_tag(op);
}
