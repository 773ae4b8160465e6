/* SPDX-License-Identifier: MIT
 * The user's timers, on the loop's wheel. */
#include "loop.h"

#include <gyre/timer.h>

#include <errno.h>

enum { TIMER_MAGIC = 0x74696d65 };

struct gyre_timer {
    uint32_t magic;
    struct gyre_loop *loop;
    struct gyre__timer timer;
    gyre_timer_fn *fn;
    void *user;
    uint64_t due_ns;
    int64_t period_ns;
};

static void on_expiry(struct gyre__timer *t)
{
    struct gyre_timer *timer = GYRE_CONTAINER(t, struct gyre_timer, timer);
    struct gyre_loop *l = timer->loop;
    GYRE_CHECK(timer->magic == TIMER_MAGIC);
    if (timer->period_ns > 0) {
        uint64_t period = (uint64_t)timer->period_ns;
        timer->due_ns += period;
        if (timer->due_ns <= l->now_ns) /* held up: skip what was missed, keep the beat */
            timer->due_ns += (l->now_ns - timer->due_ns) / period * period + period;
        gyre__wheel_start(&l->wheel, t, timer->due_ns);
    }
    timer->fn(timer, timer->user);
}

int gyre_timer_create(struct gyre_timer **out, struct gyre_loop *loop, gyre_timer_fn *fn, void *user)
{
    if (out == NULL || loop == NULL || fn == NULL)
        return -EINVAL;
    if (!gyre__loop_allows(loop))
        return GYRE_ETHREAD;
    struct gyre_timer *timer = gyre__alloc(loop->mem, sizeof *timer);
    if (timer == NULL)
        return -ENOMEM;
    *timer = (struct gyre_timer){.magic = TIMER_MAGIC, .loop = loop, .fn = fn, .user = user};
    timer->timer.fire = on_expiry;
    *out = timer;
    return 0;
}

void gyre_timer_destroy(struct gyre_timer *timer)
{
    if (timer == NULL)
        return;
    GYRE_CHECK(timer->magic == TIMER_MAGIC);
    gyre__wheel_stop(&timer->loop->wheel, &timer->timer);
    timer->magic = 0;
    gyre__free(timer->loop->mem, timer);
}

int gyre_timer_start(struct gyre_timer *timer, int64_t delay_ns, int64_t period_ns)
{
    if (delay_ns < 0 || period_ns < 0)
        return GYRE_EOPTION;
    if (!gyre__loop_allows(timer->loop))
        return GYRE_ETHREAD;
    /* From the clock itself: the loop's own time stands still during a turn, and the timer would be early by that. */
    timer->due_ns = gyre__loop_clock(timer->loop) + (uint64_t)delay_ns;
    timer->period_ns = period_ns;
    gyre__wheel_start(&timer->loop->wheel, &timer->timer, timer->due_ns);
    return 0;
}

void gyre_timer_stop(struct gyre_timer *timer)
{
    gyre__wheel_stop(&timer->loop->wheel, &timer->timer);
}

bool gyre_timer_is_active(const struct gyre_timer *timer)
{
    return gyre__timer_is_active(&timer->timer);
}
