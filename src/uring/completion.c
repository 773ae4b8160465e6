/* SPDX-License-Identifier: MIT
 * Completions made into events.
 *
 * Most are one event each. Those of our own requests are none; some end a poll, after which a call of our own is made,
 * and that is the event.
 *
 * A completion whose op has another generation, or is idle, is the kernel's mistake or ours. It is counted, its buffer
 * goes back, its descriptor is closed, its op is not touched. */
#include "completion.h"

#include "await.h"
#include "direct.h"

#include <errno.h>
#include <unistd.h>

static void own_completion(struct gyre__uring *u, const struct io_uring_cqe *cqe)
{
    if (cqe->user_data != GYRE_URING_TAG_WAKE) {
        gyre__uring_cancel_failed(u, cqe->user_data);
        return;
    }
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
        gyre__sock_close_now(cqe->res);
    if (cqe->flags & IORING_CQE_F_MORE) { /* or it would go on eating what belongs to another */
        struct io_uring_sqe *sqe = gyre__uring_sqe(u);
        if (sqe != NULL)
            gyre__uring_put_cancel(sqe, cqe->user_data, GYRE_URING_TAG_CANCEL);
    }
}

/* The kernel tried and would have to wait. Whether `ev` is an event all the same. */
static bool would_block(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    if (op->kind == GYRE_OP_CONNECT || (op->flags & GYRE_OPF_DONTWAIT))
        return true;
    bool waits = op->kind == GYRE_OP_SEND || op->kind == GYRE_OP_SENDMSG || op->kind == GYRE_OP_RECV;
    if (waits && !(op->flags & GYRE_OPF_MULTI))
        return gyre__await_blocked(u, op, ev);
    /* UNTESTED: -EAGAIN is no result of an op that waits in the kernel. Kernels were seen to give it now and then. */
    ev->res = -ECANCELED;
    if (op->state == GYRE_OPS_CANCELLING)
        return true;
    (void)gyre__uring_put_or_wait(u, op);
    return false;
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

/* Returns how many events are in it: one, or none, or of an accept by poll up to `cap`. */
static unsigned to_event(struct gyre__uring *u, const struct io_uring_cqe *cqe, struct gyre__event *ev, unsigned cap)
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
    if (op->flags & GYRE_UOP_WAITS)
        return gyre__await_polled(u, op, cqe, ev);
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
    if (GYRE_UNLIKELY(gyre__uring_accepts_by_poll(op)))
        return gyre__uring_accept_polled(u, op, ev, cap);
    if (GYRE_UNLIKELY(ev->res == -ENOBUFS && (op->flags & GYRE_OPF_POOL))) {
        gyre__count(&u->base.stats.enobufs, 1);
        u->bufs.starved = true;
    }
    return GYRE_LIKELY(ev->res != -EAGAIN) || would_block(u, op, ev);
}

unsigned gyre__uring_drain(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    struct io_uring_cq *cq = &u->ring.cq;
    unsigned head = *cq->khead, tail = io_uring_smp_load_acquire(cq->ktail), n = 0;

    for (; head != tail && n < cap; head++) {
        unsigned made = to_event(u, &cq->cqes[head & cq->ring_mask], &out[n], cap - n);
        if (made == 0)
            continue;
        if (GYRE_UNLIKELY(out[n].op->state == GYRE_OPS_CANCELLING) && !(out[n].flags & GYRE_EV_MORE))
            out[n].op->flags |= GYRE_UOP_MADE;
        n += made;
    }
    io_uring_smp_store_release(cq->khead, head);
    gyre__batch_note(&u->batch);
    return n;
}
