/* SPDX-License-Identifier: MIT
 * Waiting by poll, for everything that the kernel must not wait for.
 *
 * A send or a one-shot receive that the kernel is to wait with is not safe there. Its own poll always listens for
 * RDHUP, hang-up and error too, whatever was asked. A socket whose peer has sent FIN is therefore ready for ever, and
 * so is one whose error queue has an entry. Linux tries 128 times, and then gives the request to a kernel thread that
 * blocks in sendmsg(2), where a cancel may not find it. So nothing that could block goes to the kernel without
 * MSG_DONTWAIT. One that met -EAGAIN waits here by a poll, and then is tried with a call of our own.
 *
 * Normal course: the first poll is one-shot. It reports what holds, and the call succeeds.
 *
 * The poll ends for a reason that nobody asked for, or the call finds nothing after all: the same poll would end for
 * the same reason at once. From then on a multishot poll waits. It reports changes only, and stays armed until a call
 * has succeeded (GYRE_UOP_EDGES). The descriptor remembers (be.ur.odd), and the next op waits that way from the start.
 * The op's last event leaves when that poll has ended, and its result waits in the op meanwhile. */
#include "await.h"

#include "splice.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

/* Where the result of an op that has one waits for the end of its poll. */
static int32_t *result_of(struct gyre__op *op)
{
    switch (op->kind) {
    case GYRE_OP_SENDMSG:
        return &op->u.msg.res;
    case GYRE_OP_SPLICE:
        return &op->u.splice.res;
    case GYRE_OP_POLL:
        return &op->u.poll.res;
    case GYRE_OP_RECV:
        return &op->u.recv.res;
    default: /* RECVMSG: an error, for datagrams do not wait */
        return op->kind == GYRE_OP_RECVMSG ? &op->f->be.ur.res : &op->u.send.res;
    }
}

/* ---- One try. ---- */

/* What a POLL has seen. Linux 6.18 names POLLPRI with whatever arrives on a TCP socket, so where that was asked for,
 * the socket is asked again. -EAGAIN if nothing is true of what was asked. */
static int32_t polled(struct gyre__uring *u, const struct gyre__op *op, int32_t seen)
{
    struct pollfd p = {.fd = op->f->fd, .events = (short)op->u.poll.events, .revents = (short)seen};
    if (op->u.poll.events & POLLPRI) {
        gyre__count(&u->base.stats.calls, 1);
        if (poll(&p, 1, 0) <= 0)
            p.revents = 0;
    }
    int32_t holds = p.revents & (p.events | POLLHUP | POLLERR);
    return holds != 0 ? holds : -EAGAIN;
}

static int32_t send_once(struct gyre__uring *u, const struct gyre__op *op)
{
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    ssize_t n;
    gyre__count(&u->base.stats.calls, 1);
    do
        n = op->kind == GYRE_OP_SEND ? send(op->f->fd, op->u.send.buf, op->u.send.len, flags)
                                     : sendmsg(op->f->fd, op->u.msg.hdr, flags);
    while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return n >= 0 ? (int32_t)n : -errno;
}

static int32_t receive_into(struct gyre__uring *u, const struct gyre__op *op, void *at, uint32_t room)
{
    ssize_t n;
    gyre__count(&u->base.stats.calls, 1);
    do
        n = recv(op->f->fd, at, room, MSG_DONTWAIT);
    while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return n >= 0 ? (int32_t)n : -errno;
}

static int32_t receive_once(struct gyre__uring *u, const struct gyre__op *op, struct gyre__event *ev)
{
    struct gyre__bufpool *pool = op->u.recv.pool;
    if (!(op->flags & GYRE_OPF_POOL))
        return receive_into(u, op, op->u.recv.buf, op->u.recv.len);
    int buf = gyre__bufpool_take(pool);
    if (buf == GYRE_BUF_NONE)
        return -ENOBUFS;
    int32_t res = receive_into(u, op, gyre__bufpool_data(pool, (uint16_t)buf), pool->size);
    gyre__bufpool_deal_out(pool, &(uint16_t){(uint16_t)buf}, 1, res, ev->op, GYRE_EV_BUF, ev);
    return res;
}

/* Returns the result, or -EAGAIN. A buffer is in `ev`. */
static int32_t try_once(struct gyre__uring *u, struct gyre__op *op, int32_t seen, struct gyre__event *ev)
{
    switch (op->kind) {
    case GYRE_OP_POLL:
        return polled(u, op, seen);
    case GYRE_OP_SPLICE:
        return gyre__splice_once(u, op);
    case GYRE_OP_RECVMSG:
        return gyre__uring_recvmsg_once(u, op, ev);
    case GYRE_OP_RECV:
        return receive_once(u, op, ev);
    default:
        return send_once(u, op);
    }
}

/* ---- The poll. ---- */

/* A receive into a posted buffer is tried by the kernel, which has the buffers. */
static bool kernel_tries(const struct gyre__uring *u, const struct gyre__op *op)
{
    return op->kind == GYRE_OP_RECV && (op->flags & GYRE_OPF_POOL) && (u->use & GYRE_URING_MULTISHOT_RECV);
}

/* The poll has ended. Wait afresh, or have the kernel try. */
static void begin_anew(struct gyre__uring *u, struct gyre__op *op)
{
    op->flags &= (uint16_t)~(GYRE_UOP_WAITS | GYRE_UOP_EDGES | GYRE_UOP_ENDING | GYRE_UOP_AGAIN);
    op->flags |= kernel_tries(u, op) ? GYRE_UOP_AGAIN : GYRE_UOP_WAITS;
    (void)gyre__uring_put_or_wait(u, op);
}

/* Wait for a change: what holds already is not what `op` waits for. */
static void wait_for_change(struct gyre__uring *u, struct gyre__op *op)
{
    gyre__count(&u->base.stats.rearms_idle, 1);
    op->f->be.ur.odd = true;
    op->flags = (uint16_t)((op->flags & ~GYRE_UOP_AGAIN) | GYRE_UOP_WAITS | GYRE_UOP_EDGES);
    (void)gyre__uring_put_or_wait(u, op);
}

bool gyre__await_blocked(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    ev->res = -ECANCELED;
    if (op->state == GYRE_OPS_CANCELLING)
        return true;
    if (op->flags & GYRE_UOP_AGAIN) { /* a poll had said that it would not */
        wait_for_change(u, op);
        return false;
    }
    gyre__await_begin(op);
    (void)gyre__uring_put_or_wait(u, op);
    return false;
}

/* Whether `seen` is worth a try. An entry in the error queue is an error for ever, and no edge: where the kernel tries,
 * and the poll has to end for that, it does not count. The end of a stream shows as POLLIN or POLLHUP, too. */
static bool worth_a_try(const struct gyre__uring *u, const struct gyre__op *op, int32_t seen)
{
    bool errors = !(kernel_tries(u, op) && (op->flags & GYRE_UOP_EDGES));
    return seen > 0 && ((uint32_t)seen & (gyre__uring_poll_mask(op) | POLLHUP | (errors ? POLLERR : 0u))) != 0;
}

/* The poll goes on and is to end, for the result in `ev`; a datagram leaves at once, and then the op begins anew. */
static bool ask_end_for(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    bool datagram = op->kind == GYRE_OP_RECVMSG && (ev->flags & GYRE_EV_BUF);
    op->flags |= GYRE_UOP_ENDING;
    if (datagram || kernel_tries(u, op))
        op->flags |= GYRE_UOP_AGAIN;
    else
        *result_of(op) = ev->res;
    if (op->kind == GYRE_OP_RECV && (op->flags & GYRE_OPF_POOL))
        op->u.recv.len = ev->buf; /* of no other use with a pool */
    if (datagram)
        ev->flags |= GYRE_EV_MORE;
    gyre__uring_ask_end(u, op);
    return datagram;
}

/* Its last completion, after it was asked to end. */
static bool ended(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    if (!(op->flags & GYRE_UOP_AGAIN)) {
        op->flags |= GYRE_UOP_MADE;
        ev->res = *result_of(op);
        if (op->kind == GYRE_OP_RECV && (op->flags & GYRE_OPF_POOL) && ev->res > 0) {
            ev->flags |= GYRE_EV_BUF;
            ev->buf = (uint16_t)op->u.recv.len;
        }
        return true;
    }
    if (op->state == GYRE_OPS_CANCELLING)
        return true;
    begin_anew(u, op);
    return false;
}

bool gyre__await_polled(struct gyre__uring *u, struct gyre__op *op, const struct io_uring_cqe *cqe,
                        struct gyre__event *ev)
{
    bool more = cqe->flags & IORING_CQE_F_MORE;
    *ev = (struct gyre__event){.op = op, .res = -ECANCELED};
    if (!more) {
        u->batch.armed -= op->kind == GYRE_OP_RECV;
        if (GYRE_UNLIKELY(op->next != NULL))
            gyre__uring_late_unlink(u, &u->cancels, op);
    }
    if (op->flags & GYRE_UOP_ENDING)
        return !more && ended(u, op, ev);
    if (op->state == GYRE_OPS_CANCELLING)
        return !more;
    if (cqe->res < 0) { /* the poll itself failed */
        ev->res = cqe->res;
        return !more;
    }
    if (worth_a_try(u, op, cqe->res)) {
        if (kernel_tries(u, op)) {
            if (more)
                return ask_end_for(u, op, ev);
            begin_anew(u, op);
            return false;
        }
        ev->res = try_once(u, op, cqe->res, ev);
        if (ev->res != -EAGAIN)
            return more ? ask_end_for(u, op, ev) : true;
    }
    if (!more)
        wait_for_change(u, op);
    return false;
}
