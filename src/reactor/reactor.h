/* SPDX-License-Identifier: MIT
 * The conductor of a loop: making one, turning it, ending it. */
#ifndef GYRE_REACTOR_REACTOR_H
#define GYRE_REACTOR_REACTOR_H

#include "loop/loop.h"

/* Like gyre_loop_create(), with the parts of the backend's configuration that tests set (queue sizes, features off);
 * NULL: none. */
int gyre__loop_make(struct gyre_loop **out, const struct gyre_loop_options *options,
                    const struct gyre__backend_config *tune);

/* One turn, waiting at most `timeout_ns` (-1: for ever). Returns 0, or -errno if the backend is lost. */
int gyre__loop_turn(struct gyre_loop *l, int64_t timeout_ns);

/* Run until `request` is served. Returns 0 or -errno. */
int gyre__loop_serve(struct gyre_loop *l);

/* Abort everything and turn until nothing is in flight. The backend stays, because other threads may still wake it;
 * gyre_loop_destroy() may follow on any thread. Thread: the loop's. */
void gyre__loop_end(struct gyre_loop *l);

/* Run tasks that were posted after the end: they find no connections, but free what they carry. They can post no
 * more. */
void gyre__loop_run_late_tasks(struct gyre_loop *l);

#endif
