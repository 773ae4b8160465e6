/* SPDX-License-Identifier: MIT
 * A loop that drains; see drain.c. */
#ifndef GYRE_REACTOR_DRAIN_H
#define GYRE_REACTOR_DRAIN_H

#include "loop/loop.h"

/* Begin to drain if that has not been done since gyre_engine_drain() was last called. Returns whether the loop has
 * nothing left to do. */
bool gyre__drain_is_over(struct gyre_loop *l);

void gyre__drain_on_timer(struct gyre__loop_timer *t);

/* Reset a connection because the loop ends. */
void gyre__drain_end_one(struct gyre_conn *c);

#endif
