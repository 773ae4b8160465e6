/* SPDX-License-Identifier: MIT
 * What a turn shares with the life of its loop, and nobody else. */
#ifndef GYRE_REACTOR_TURN_H
#define GYRE_REACTOR_TURN_H

#include "reactor.h"
#include "stream/conn.h"

/* To whom events and timers go. */
extern gyre__done_fn *const gyre__turn_done_fns[GYRE_DONES];
extern gyre__timer_fire_fn *const gyre__turn_fire_fns[GYRE_TIMERS];

/* Run the tasks that were posted, as many as one turn runs. */
void gyre__turn_run_tasks(struct gyre_loop *l);

#endif
