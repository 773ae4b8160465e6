/* SPDX-License-Identifier: MIT
 * Bulk streams served by poll and direct calls; see direct.c. */
#ifndef GYRE_URING_DIRECT_H
#define GYRE_URING_DIRECT_H

#include "queue.h"

enum { GYRE_DIRECT_RESERVE = 64 }; /* receive buffers kept for the calls of bulk streams */

/* A multishot pool receive was submitted: decide how it waits. */
void gyre__direct_prepare(const struct gyre__uring *u, struct gyre__op *op);

/* A multishot receive brought `bytes`, and goes on; `more`: the kernel says that others wait. */
void gyre__direct_received(struct gyre__uring *u, struct gyre__op *op, uint32_t bytes, bool more);

/* A multishot receive has ended with `ev`. Whether a poll or another receive took its place: then the event is no last
 * one, and none at all if it brought no bytes. */
bool gyre__direct_takes_over(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev);

/* A completion of the poll. Whether `ev` is an event. */
bool gyre__direct_polled(struct gyre__uring *u, struct gyre__op *op, const struct io_uring_cqe *cqe,
                         struct gyre__event *ev);

/* `op` ends before the kernel saw it. */
void gyre__direct_forget(struct gyre__uring *u, const struct gyre__op *op);

/* Receive from what is believed readable, for one turn. Returns how many events it made. */
unsigned gyre__direct_run(struct gyre__uring *u, struct gyre__event *out, unsigned cap);

/* Whether there is something for gyre__direct_run() or gyre__direct_done(). */
static inline bool gyre__direct_any(const struct gyre__uring *u)
{
    return gyre__fdq_count(&u->readable) > 0 || u->ndone > 0;
}

/* Whether the send was made, and its event waits for gyre__direct_done(). */
bool gyre__direct_send(struct gyre__uring *u, struct gyre__op *op);
unsigned gyre__direct_done(struct gyre__uring *u, struct gyre__event *out, unsigned cap);

#endif
