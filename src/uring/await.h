/* SPDX-License-Identifier: MIT
 * Waiting by poll for what the kernel must not wait for; see await.c. */
#ifndef GYRE_URING_AWAIT_H
#define GYRE_URING_AWAIT_H

#include "queue.h"

/* `op` is to wait before it is tried. It is not in the ring yet. */
static inline void gyre__await_begin(struct gyre__op *op)
{
    op->flags |= op->f->be.ur.odd ? GYRE_UOP_WAITS | GYRE_UOP_EDGES : GYRE_UOP_WAITS;
}

/* A completion of the poll that `op` waits by. Whether `ev` is the op's event. */
bool gyre__await_polled(struct gyre__uring *u, struct gyre__op *op, const struct io_uring_cqe *cqe,
                        struct gyre__event *ev);

/* The kernel tried `op` and it would block: wait. Whether `ev` is the op's event instead, because it was cancelled. */
bool gyre__await_blocked(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev);

#endif
