/* SPDX-License-Identifier: MIT
 * Pipes between sockets; see splice.c. */
#ifndef GYRE_URING_SPLICE_H
#define GYRE_URING_SPLICE_H

#include "queue.h"

/* Receive for `op` into a pipe, if one is free and enough bytes wait. Returns 0 if not, else the event's result; sets
 * `*more` if bytes were left. */
int32_t gyre__splice_receive(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev, bool *more);

/* A SPLICE was submitted. Whether it was made, and its event waits for gyre__direct_done(); else the ring has to. */
bool gyre__splice_try(struct gyre__uring *u, struct gyre__op *op);

/* Move what can be moved for a SPLICE. Returns bytes, -EAGAIN or -errno. */
int32_t gyre__splice_once(struct gyre__uring *u, const struct gyre__op *op);

#endif
