/* SPDX-License-Identifier: MIT
 * The submission side of the ring: handing entries to the kernel, and what waits for room.
 *
 * Normal course: an op becomes an entry at once, and the next wait() hands all entries over.
 *
 * The submission ring full: submit() and cancel() enter at once to empty it. Where that cannot be, because the ring is
 * not enabled yet or the kernel is short of memory, ops wait in the list `ops` and cancels, being of ops that the
 * kernel has, in the list `cancels`, until the next wait(). Both are linked by op->next, which is ours while an op is
 * in flight, and `next` not NULL says that an op is in one of them. An op cancelled while it waits in `ops` never
 * reaches the kernel; an op that ends while its cancel waits in `cancels` is taken out before its last event leaves. */
#include "queue.h"

#include <errno.h>
#include <stddef.h>

int gyre__uring_enter(struct gyre__uring *u, unsigned submit, unsigned complete, unsigned flags,
                      const struct gyre__io_uring_getevents_arg *arg)
{
    unsigned before = gyre__uring_completed(u);
    io_uring_smp_store_release(u->ring.sq.ktail, u->ring.sq.sqe_tail);
    int r = io_uring_enter2((unsigned)u->enter_fd, submit, complete, flags | u->enter_flags, (sigset_t *)(void *)arg,
                            arg != NULL ? sizeof *arg : 0);
    gyre__count(&u->base.stats.enters, 1);
    gyre__count(&u->base.stats.sqes, r > 0 ? (unsigned)r : 0);
    gyre__observe(&u->base.stats.enter_completions, gyre__uring_completed(u) - before);
    return r;
}

int gyre__uring_enter_wait(struct gyre__uring *u, unsigned submit, unsigned complete, int64_t timeout_ns,
                           uint32_t hold_us)
{
    struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    struct gyre__io_uring_getevents_arg arg = {.ts = timeout_ns < 0 ? 0 : (uintptr_t)&ts, .min_wait_us = hold_us};
    return gyre__uring_enter(u, submit, complete, u->wait_flags, &arg);
}

bool gyre__uring_flush(struct gyre__uring *u)
{
    if (!u->started || u->stuck)
        return false;
    gyre__bufring_fill(&u->bufs);
    u->stuck = gyre__uring_enter(u, gyre__uring_unsubmitted(u), 0, 0, NULL) <= 0;
    return !u->stuck;
}

/* --- late ops and cancels --- */

void gyre__uring_late_push(struct gyre__uring *u, struct gyre__uring_late *list, struct gyre__op *op)
{
    op->next = &u->end;
    if (list->first == NULL)
        list->first = op;
    else
        list->last->next = op;
    list->last = op;
}

static struct gyre__op *late_pop(struct gyre__uring *u, struct gyre__uring_late *list)
{
    struct gyre__op *op = list->first;
    list->first = op->next == &u->end ? NULL : op->next;
    op->next = NULL;
    return op;
}

void gyre__uring_late_unlink(struct gyre__uring *u, struct gyre__uring_late *list, struct gyre__op *op)
{
    struct gyre__op *before = NULL;
    for (struct gyre__op *at = list->first; at != op; at = at->next) {
        GYRE_CHECK(at != NULL && at != &u->end);
        before = at;
    }
    if (before == NULL) {
        (void)late_pop(u, list);
        return;
    }
    before->next = op->next;
    if (list->last == op)
        list->last = before;
    op->next = NULL;
}

void gyre__uring_connect(struct gyre__uring *u, struct gyre__op *op)
{
    if (u->ndone == GYRE_URING_DONE_MAX) {
        gyre__uring_late_push(u, &u->ops, op);
        return;
    }
    gyre__count(&u->base.stats.calls, 1);
    gyre__uring_set_mode(op->f, true);
    int err = connect(op->f->fd, op->u.connect.addr, op->u.connect.len) == 0 ? 0 : -errno;
    gyre__uring_set_mode(op->f, false);
    gyre__uring_made(u, op, err);
}

struct io_uring_sqe *gyre__uring_put_or_wait(struct gyre__uring *u, struct gyre__op *op)
{
    struct io_uring_sqe *sqe = gyre__uring_sqe(u);
    if (GYRE_LIKELY(sqe != NULL))
        gyre__uring_put(u, sqe, op);
    else
        gyre__uring_late_push(u, &u->ops, op);
    return sqe;
}

static void put_cancel_of(struct io_uring_sqe *sqe, const struct gyre__op *op)
{
    uint64_t tag = gyre__uring_tag(op);
    gyre__uring_put_cancel(sqe, tag, (tag & ~(uint64_t)GYRE_URING_MARKS) | GYRE_URING_OWN);
}

void gyre__uring_ask_end(struct gyre__uring *u, struct gyre__op *op)
{
    struct io_uring_sqe *sqe = gyre__uring_sqe(u);
    if (GYRE_LIKELY(sqe != NULL))
        put_cancel_of(sqe, op);
    else
        gyre__uring_late_push(u, &u->cancels, op);
}

static bool is_to_end(const struct gyre__op *op)
{
    if (op->state == GYRE_OPS_IDLE || (op->flags & GYRE_UOP_MADE))
        return false;
    return op->state == GYRE_OPS_CANCELLING || (op->flags & GYRE_UOP_ENDING) ||
           (op->kind == GYRE_OP_RECV && (op->f->be_flags & (GYRE_UF_ENDING | GYRE_UF_BACK)));
}

void gyre__uring_cancel_failed(struct gyre__uring *u, uint64_t own)
{
    struct gyre__op *op = (struct gyre__op *)(uintptr_t)(own & GYRE_URING_ADDR_MASK);
    if (op == NULL || op->gen != own >> GYRE_URING_GEN_SHIFT || op->next != NULL || !is_to_end(op))
        return;
    gyre__uring_late_push(u, &u->cancels, op);
}

void gyre__uring_cancel_again(struct gyre__uring *u)
{
    struct io_uring_sqe *sqe;
    bool at_once = u->cancel_tries < GYRE_URING_CANCELS_AT_ONCE;
    u->cancel_tries = at_once ? (uint8_t)(u->cancel_tries + 1) : GYRE_URING_CANCELS_AT_ONCE - 1;
    while (at_once && u->cancels.first != NULL && (sqe = gyre__uring_sqe(u)) != NULL)
        put_cancel_of(sqe, late_pop(u, &u->cancels));
}

unsigned gyre__uring_submit_late(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    struct io_uring_sqe *sqe;
    unsigned n = 0;

    while (u->cancels.first != NULL && (sqe = gyre__uring_sqe(u)) != NULL)
        put_cancel_of(sqe, late_pop(u, &u->cancels));
    while (u->ops.first != NULL) {
        if (u->ops.first->state == GYRE_OPS_CANCELLING) {
            if (n == cap)
                break;
            struct gyre__op *op = late_pop(u, &u->ops);
            op->flags |= GYRE_UOP_MADE;
            out[n++] = (struct gyre__event){.op = op, .res = -ECANCELED};
            continue;
        }
        bool calls = gyre__uring_connects_now(u->ops.first);
        sqe = calls ? NULL : gyre__uring_sqe(u);
        if (calls ? u->ndone == GYRE_URING_DONE_MAX : sqe == NULL)
            break;
        struct gyre__op *op = late_pop(u, &u->ops);
        if (calls)
            gyre__uring_connect(u, op);
        else
            gyre__uring_put(u, sqe, op);
    }
    return n;
}
