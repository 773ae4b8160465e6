/* SPDX-License-Identifier: MIT
 * Giving the memory of a burst back, some time after it. */
#ifndef GYRE_REACTOR_TRIM_H
#define GYRE_REACTOR_TRIM_H

#include "loop/loop.h"

/* trim.c: buffers that a burst has touched are to be looked after; the time has come. */
void gyre__trim_begin(struct gyre_loop *l);

void gyre__trim_on_timer(struct gyre__loop_timer *t);

/* At the end of each turn; `busy`: there were events. */
static inline void gyre__trim_look(struct gyre_loop *l, bool busy)
{
    if (busy)
        l->trim_left = 0;
    if (GYRE_UNLIKELY(gyre__bufpool_surplus(&l->pool) >= l->trim_left + GYRE_BUF_TRIM_MIN))
        gyre__trim_begin(l);
}

#endif
