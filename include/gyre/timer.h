/* SPDX-License-Identifier: MIT
 * Timers on a loop: one-shot or periodic. Starting, stopping and restarting a timer is O(1) and makes no system call.
 * A timer never fires early. It fires late by at most a millisecond, plus the time that the loop is busy. */
#ifndef GYRE_TIMER_H
#define GYRE_TIMER_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_timer;

/* Called on the loop each time the timer fires. May start, stop or destroy the timer. */
typedef void gyre_timer_fn(struct gyre_timer *timer, void *user);

/* Create a stopped timer. Returns owned in `*out`; free the timer with gyre_timer_destroy().
 *
 * Returns 0, or:
 *   -EINVAL       `out`, `loop` or `fn` is NULL
 *   -ENOMEM       out of memory
 *   GYRE_ETHREAD  called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_timer_create(struct gyre_timer **out, struct gyre_loop *loop, gyre_timer_fn *fn, void *user);

/* Stop and free the timer. May be called in the timer's own callback. Destroy a timer before its loop. NULL is allowed.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD  called from another thread; the timer stays as it is
 * Thread: the loop's. */
GYRE_API int gyre_timer_destroy(struct gyre_timer *timer);

/* Start the timer: fire after `delay_ns` nanoseconds, then every `period_ns` nanoseconds; `period_ns` 0: fire once.
 * Starting an active timer replaces its delay and period. If the loop was busy for several periods, a periodic timer
 * fires once and skips the missed periods.
 *
 * Returns 0, or:
 *   GYRE_EOPTION  `delay_ns` or `period_ns` is negative
 *   GYRE_ETHREAD  called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_timer_start(struct gyre_timer *timer, int64_t delay_ns, int64_t period_ns);

/* Stop the timer. The timer does not fire again until it is started again.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD  called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_timer_stop(struct gyre_timer *timer);

/* Returns whether the timer is started and will fire. A periodic timer is active in its own callback; a one-shot timer
 * is not. Thread: the loop's. */
GYRE_API bool gyre_timer_is_active(const struct gyre_timer *timer);

#ifdef __cplusplus
}
#endif

#endif
