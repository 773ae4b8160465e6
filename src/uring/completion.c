/* SPDX-License-Identifier: MIT
 * Completions made into events.
 *
 * Most are one event each. Those of our own requests are none; some end a poll, after which a call of our own is made,
 * and that is the event.
 *
 * A completion whose op has another generation, or is idle, is the kernel's mistake or ours. It is counted, its buffer
 * goes back, its descriptor is closed, its op is not touched. */
#include "completion.h"

#include "direct.h"
#include "splice.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static void own_completion(struct gyre__uring *u, const struct io_uring_cqe *cqe)
{
    if (cqe->user_data != GYRE_URING_TAG_WAKE)
        return; /* a cancel that found nothing, or came too late: the op's own completion tells */
    if (cqe->res > 0 && atomic_exchange_explicit(&u->woken, 0, memory_order_acq_rel) != 0)
        gyre__count(&u->base.stats.wakes, 1);
    if (!(cqe->flags & IORING_CQE_F_MORE))
        u->wake_armed = false;
}

static void stale_completion(struct gyre__uring *u, const struct io_uring_cqe *cqe)
{
    gyre__count(&u->base.stats.stale, 1);
    if (cqe->flags & IORING_CQE_F_BUFFER)
        gyre__bufring_return(&u->bufs, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT));
    if ((cqe->user_data & GYRE_URING_MARKS) == GYRE_URING_ACCEPT && cqe->res >= 0)
        (void)close(cqe->res);
    if (cqe->flags & IORING_CQE_F_MORE) { /* or it would go on eating what belongs to another */
        struct io_uring_sqe *sqe = gyre__uring_sqe(u);
        if (sqe != NULL)
            gyre__uring_put_cancel(sqe, cqe->user_data);
    }
}

/* -EAGAIN is no result of an op that waits. Kernels give it now and then, so ask again, and wait before trying.
 * UNTESTED: no way is known to make Linux 6.18 do so. */
static bool try_again(struct gyre__uring *u, struct gyre__op *op)
{
    if (op->kind == GYRE_OP_CONNECT || op->state == GYRE_OPS_CANCELLING)
        return false;
    struct io_uring_sqe *sqe = gyre__uring_put_or_wait(u, op);
    if (sqe != NULL && (op->kind == GYRE_OP_SEND || op->kind == GYRE_OP_SENDMSG))
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    return true;
}

static uint16_t take_buffer(struct gyre__uring *u, const struct io_uring_cqe *cqe, struct gyre__event *ev)
{
    uint16_t buf = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    if (cqe->res <= 0) { /* UNTESTED: older kernels may hand one out with the end of the stream; 6.18 does not */
        gyre__bufring_return(&u->bufs, buf);
        return 0;
    }
    gyre__bufring_took(&u->bufs);
    if (GYRE_UNLIKELY(ev->op->kind != GYRE_OP_RECV)) {
        gyre__batch_heard(&u->batch, (uint32_t)cqe->res);
        ev->buf = buf;
        return GYRE_EV_BUF;
    }
    gyre__batch_received(&u->batch, (uint32_t)cqe->res);
    if (cqe->flags & IORING_CQE_F_MORE)
        gyre__direct_received(u, ev->op, (uint32_t)cqe->res, (cqe->flags & IORING_CQE_F_SOCK_NONEMPTY) != 0);
    ev->buf = buf;
    return GYRE_EV_BUF;
}

/* A POLL is over, as far as the kernel is concerned. Linux 6.18 names POLLPRI with whatever arrives on a TCP socket, so
 * where that was asked for, the socket is asked again. False if nothing was true of what it said. */
static bool poll_over(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    struct pollfd p = {.fd = op->f->fd, .events = (short)op->u.poll.events, .revents = (short)ev->res};
    if (ev->res < 0)
        return true;
    if (op->u.poll.events & POLLPRI) {
        gyre__count(&u->base.stats.calls, 1);
        if (poll(&p, 1, 0) <= 0)
            p.revents = 0;
    }
    ev->res = p.revents & (p.events | POLLHUP | POLLERR);
    if (ev->res != 0)
        return true;
    ev->res = -ECANCELED;
    if (op->state == GYRE_OPS_CANCELLING)
        return true;
    (void)gyre__uring_put_or_wait(u, op);
    return false;
}

/* False if there is no event in it. */
static bool to_event(struct gyre__uring *u, const struct io_uring_cqe *cqe, struct gyre__event *ev)
{
    uint64_t tag = cqe->user_data;
    if (GYRE_UNLIKELY((tag & GYRE_URING_MARKS) == GYRE_URING_OWN)) {
        own_completion(u, cqe);
        return false;
    }
    struct gyre__op *op = (struct gyre__op *)(uintptr_t)(tag & GYRE_URING_ADDR_MASK);
    if (GYRE_UNLIKELY(op->gen != tag >> GYRE_URING_GEN_SHIFT || op->state == GYRE_OPS_IDLE)) {
        stale_completion(u, cqe);
        return false;
    }
    if (GYRE_UNLIKELY((tag & GYRE_URING_MARKS) == GYRE_URING_POLL))
        return gyre__direct_polled(u, op, cqe, ev);
    *ev = (struct gyre__event){.op = op, .res = cqe->res};
    if (cqe->flags & IORING_CQE_F_BUFFER)
        ev->flags |= take_buffer(u, cqe, ev);
    if (cqe->flags & IORING_CQE_F_MORE) {
        ev->flags |= GYRE_EV_MORE;
        return true;
    }
    u->batch.armed -= op->kind == GYRE_OP_RECV;
    if (GYRE_UNLIKELY(op->next != NULL))
        gyre__uring_late_unlink(u, &u->cancels, op);
    if (GYRE_UNLIKELY(op->f->be_flags != 0 && op->kind == GYRE_OP_RECV && gyre__direct_takes_over(u, op, ev)))
        return ev->res > 0;
    if (GYRE_UNLIKELY(op->kind == GYRE_OP_RECVMSG && !(u->use & GYRE_URING_MULTISHOT_RECV)))
        return gyre__uring_recvmsg_polled(u, op, ev) || !try_again(u, op);
    if ((op->f->flags & GYRE_FDF_DGRAM) && op->kind == GYRE_OP_SENDMSG && gyre__uring_sendmsg_goes_on(op, ev)) {
        (void)gyre__uring_put_or_wait(u, op);
        return false;
    }
    if (op->kind == GYRE_OP_SPLICE)
        return gyre__splice_polled(u, op, ev);
    if (op->kind == GYRE_OP_POLL)
        return poll_over(u, op, ev);
    if (GYRE_UNLIKELY(ev->res == -ENOBUFS && (op->flags & GYRE_OPF_POOL))) {
        gyre__count(&u->base.stats.enobufs, 1);
        u->bufs.starved = true;
    }
    return GYRE_LIKELY(ev->res != -EAGAIN) || (op->flags & GYRE_OPF_DONTWAIT) || !try_again(u, op);
}

unsigned gyre__uring_drain(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    struct io_uring_cq *cq = &u->ring.cq;
    unsigned head = *cq->khead, tail = io_uring_smp_load_acquire(cq->ktail), n = 0;

    for (; head != tail && n < cap; head++)
        n += to_event(u, &cq->cqes[head & cq->ring_mask], &out[n]);
    io_uring_smp_store_release(cq->khead, head);
    gyre__batch_note(&u->batch);
    return n;
}
