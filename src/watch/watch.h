/* SPDX-License-Identifier: MIT
 * Watches from the inside; watch.c. */
#ifndef GYRE_WATCH_WATCH_H
#define GYRE_WATCH_WATCH_H

#include "loop/loop.h"

/* The watched descriptors of a loop. */
struct gyre__watches {
    struct gyre_watch *open;
    struct gyre_watch *closing; /* closed, and not yet free */
    struct gyre_watch *free;    /* their memory stays until the loop goes */
    uint32_t count;             /* of `open` and `closing` */
};

/* An event of a watch's operation. */
void gyre__watch_on_poll(struct gyre__op *op, const struct gyre__event *ev);

/* The loop ends: tell and close all that are open. Their memory stays until nothing is in flight (`count` is 0). */
void gyre__watches_end(struct gyre_loop *l);

/* The backend is lost: nothing that is in flight comes back. */
void gyre__watches_abandon(struct gyre_loop *l);

/* Make, and free, what this room keeps of a loop. Returns 0 or -ENOMEM. */
int gyre__watches_init(struct gyre_loop *l);
void gyre__watches_fini(struct gyre_loop *l);

#endif
