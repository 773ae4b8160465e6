/* SPDX-License-Identifier: MIT
 * The submission side of the ring; see queue.c. */
#ifndef GYRE_URING_QUEUE_H
#define GYRE_URING_QUEUE_H

#include "ring.h"

#include <stddef.h>

/* Entries written and not yet handed over, and completions not yet looked at. */
static inline unsigned gyre__uring_unsubmitted(const struct gyre__uring *u)
{
    return u->ring.sq.sqe_tail - IO_URING_READ_ONCE(*u->ring.sq.khead);
}

static inline unsigned gyre__uring_completed(const struct gyre__uring *u)
{
    return io_uring_smp_load_acquire(u->ring.cq.ktail) - *u->ring.cq.khead;
}

/* So many of the buffers posted last the kernel cannot have used. It takes them only within enter, if the ring leaves
 * its work until then, so it has those at most that the completions not looked at tell of; 0 if that is not known. */
static inline unsigned gyre__uring_untouched(const struct gyre__uring *u)
{
    unsigned unseen = gyre__uring_completed(u);
    bool lost = (IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0;
    bool known = (u->use & GYRE_URING_DEFER_TASKRUN) && !lost;
    return known && u->bufs.posted > unseen ? u->bufs.posted - unseen : 0;
}

int gyre__uring_enter(struct gyre__uring *u, unsigned submit, unsigned complete, unsigned flags,
                      const struct gyre__io_uring_getevents_arg *arg);

/* Enter for completions: submit the first `submit` entries, then wait for `complete` of them, at most `timeout_ns`; if
 * `hold_us` is not 0, after that for one only. */
int gyre__uring_enter_wait(struct gyre__uring *u, unsigned submit, unsigned complete, int64_t timeout_ns,
                           uint32_t hold_us);

/* Empty the submission ring. False if that is not possible before the next wait(). */
bool gyre__uring_flush(struct gyre__uring *u);

/* An entry to fill, or NULL if there is no room before the next wait(). */
static inline struct io_uring_sqe *gyre__uring_sqe(struct gyre__uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (GYRE_LIKELY(sqe != NULL))
        return sqe;
    return gyre__uring_flush(u) ? io_uring_get_sqe(&u->ring) : NULL;
}

/* Write `op` into `sqe`. */
static inline void gyre__uring_put(struct gyre__uring *u, struct io_uring_sqe *sqe, struct gyre__op *op)
{
    if (op->kind == GYRE_OP_RECV) {
        u->batch.armed++;
        op->f->be.ur.shots = 0;
    }
    if (GYRE_UNLIKELY(op->f->be.ur.nonblocking) && gyre__uring_needs_blocking(op))
        gyre__uring_set_mode(op->f, false);
    gyre__uring_prep(u, sqe, op);
}

/* Ask for the end of what has `tag` as its user_data. A failure is told with `own` as user_data. */
static inline void gyre__uring_put_cancel(struct io_uring_sqe *sqe, uint64_t tag, uint64_t own)
{
    io_uring_prep_cancel64(sqe, tag, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = own;
}

/* Whether a CONNECT is made with a call. A unix socket's never takes long. In the ring it would wait for a listener
 * whose backlog is full, and take a kernel worker for that, in whatever mode the socket is. */
static inline bool gyre__uring_connects_now(const struct gyre__op *op)
{
    return op->kind == GYRE_OP_CONNECT && op->u.connect.addr->sa_family == AF_UNIX;
}

/* Make it, or put it into the list of those that wait for room if too many events of calls wait already. */
void gyre__uring_connect(struct gyre__uring *u, struct gyre__op *op);

/* The lists of what found no room. */
void gyre__uring_late_push(struct gyre__uring *u, struct gyre__uring_late *list, struct gyre__op *op);
void gyre__uring_late_unlink(struct gyre__uring *u, struct gyre__uring_late *list, struct gyre__op *op);

static inline bool gyre__uring_any_late(const struct gyre__uring *u)
{
    return u->ops.first != NULL || u->cancels.first != NULL;
}

/* Put `op` into the ring, or into the list of those that wait for room. Returns its entry, or NULL if it waits. */
struct io_uring_sqe *gyre__uring_put_or_wait(struct gyre__uring *u, struct gyre__op *op);

/* Ask for the end of what the kernel has of `op`, now or when there is room. */
void gyre__uring_ask_end(struct gyre__uring *u, struct gyre__op *op);

/* A cancel found nothing to end: if its op is still there, ask again. The kernel may have had the request in hand. */
void gyre__uring_cancel_failed(struct gyre__uring *u, uint64_t own);
/* At the end of a wait: put the cancels that failed in it into the ring, if that has not been in vain lately. */
void gyre__uring_cancel_again(struct gyre__uring *u);
enum { GYRE_URING_CANCELS_AT_ONCE = 4 }; /* repeated in a row; from then on a pause is made before each */

/* Put what waits into the ring. Events are of ops that were cancelled before the kernel saw them; returns how many. */
unsigned gyre__uring_submit_late(struct gyre__uring *u, struct gyre__event *out, unsigned cap);

#endif
