/* SPDX-License-Identifier: MIT
 * <gyre/timer.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_TIMER_H
#define GYRE_TIMER_H
#include <gyre/base.h>
#include <gyre/loop.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_timer;
typedef void gyre_timer_fn(struct gyre_timer *timer, void *user);
GYRE_API int gyre_timer_create(struct gyre_timer **out, struct gyre_loop *loop, gyre_timer_fn *fn, void *user);
GYRE_API int gyre_timer_destroy(struct gyre_timer *timer);
GYRE_API int gyre_timer_start(struct gyre_timer *timer, int64_t delay_ns, int64_t period_ns);
GYRE_API int gyre_timer_stop(struct gyre_timer *timer);
GYRE_API bool gyre_timer_is_active(const struct gyre_timer *timer);
#ifdef __cplusplus
}
#endif
#endif
