/* SPDX-License-Identifier: MIT
 * Timers on a loop: one-shot or periodic, O(1) to start, stop and restart, no system call. Never early; late by at most
 * a millisecond plus what the loop is busy with. */
#ifndef GYRE_TIMER_H
#define GYRE_TIMER_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_timer;

typedef void gyre_timer_fn(struct gyre_timer *timer, void *user);

/* Make a timer, stopped. Returns owned; free with gyre_timer_destroy(). Returns 0, or -ENOMEM, -EINVAL without `fn`,
 * GYRE_ETHREAD. Thread: the loop's. */
GYRE_API int gyre_timer_create(struct gyre_timer **out, struct gyre_loop *loop, gyre_timer_fn *fn, void *user);

/* Stop and free it; legal in its own callback. A timer must be destroyed before its loop. NULL is allowed.
 * Thread: the loop's. */
GYRE_API void gyre_timer_destroy(struct gyre_timer *timer);

/* Fire after `delay_ns`, then every `period_ns` (0: once). Started again, it forgets what was set before. A periodic
 * timer that was held up fires once and skips the periods it missed.
 * Returns 0, or GYRE_EOPTION for a negative value, GYRE_ETHREAD. Thread: the loop's. */
GYRE_API int gyre_timer_start(struct gyre_timer *timer, int64_t delay_ns, int64_t period_ns);

/* After it returns the timer does not fire until started again. Thread: the loop's. */
GYRE_API void gyre_timer_stop(struct gyre_timer *timer);

/* Whether it was started and has yet to fire. Thread: the loop's. */
GYRE_API bool gyre_timer_is_active(const struct gyre_timer *timer);

#ifdef __cplusplus
}
#endif

#endif
