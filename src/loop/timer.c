/* SPDX-License-Identifier: MIT
 * The user's timers, and tasks posted to run later, on the loop's wheel.
 *
 * A delayed task that another thread posts travels to its loop as a task, and becomes a timer there. The time counts
 * from the call, not from when the loop gets to see it. */
#include "loop.h"
#include "base/refuse.h"

#include <gyre/timer.h>

#include <errno.h>

enum { TIMER_MAGIC = 0x74696d65 };

struct gyre_timer {
    uint32_t magic;
    struct gyre_loop *loop;
    struct gyre__loop_timer timer;
    gyre_timer_fn *fn;
    void *user;
    uint64_t due_ns;
    int64_t period_ns;
};

void gyre__timer_expired(struct gyre__loop_timer *t)
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
    timer->timer.kind = GYRE_TIMER_USER;
    *out = timer;
    return 0;
}

int gyre_timer_destroy(struct gyre_timer *timer)
{
    if (timer == NULL)
        return 0;
    GYRE_CHECK(timer->magic == TIMER_MAGIC);
    if (!gyre__loop_allows(timer->loop))
        return GYRE_ETHREAD;
    gyre__wheel_stop(&timer->loop->wheel, &timer->timer);
    timer->magic = 0;
    gyre__free(timer->loop->mem, timer);
    return 0;
}

int gyre_timer_start(struct gyre_timer *timer, int64_t delay_ns, int64_t period_ns)
{
    int err = gyre__check_not_negative("delay_ns", delay_ns);
    if (err == 0)
        err = gyre__check_not_negative("period_ns", period_ns);
    if (err != 0)
        return err;
    if (!gyre__loop_allows(timer->loop))
        return GYRE_ETHREAD;
    /* From the clock itself: the loop's own time stands still during a turn, and the timer would be early by that. */
    timer->due_ns = gyre__loop_clock(timer->loop) + (uint64_t)delay_ns;
    timer->period_ns = period_ns;
    gyre__wheel_start(&timer->loop->wheel, &timer->timer, timer->due_ns);
    return 0;
}

int gyre_timer_stop(struct gyre_timer *timer)
{
    if (!gyre__loop_allows(timer->loop))
        return GYRE_ETHREAD;
    gyre__wheel_stop(&timer->loop->wheel, &timer->timer);
    return 0;
}

bool gyre_timer_is_active(const struct gyre_timer *timer)
{
    return gyre__timer_is_set(&timer->timer);
}

/* ---- delayed tasks ---- */

struct gyre__later {
    struct gyre__task task; /* on its way to the loop */
    struct gyre__loop_timer timer;
    struct gyre__later *next, **prev; /* on the loop's list */
    struct gyre_loop *loop;
    gyre_task_fn *run;
    void *user;
    uint64_t due_ns;
};

/* The memory is free before the user's function runs, so that it may post the next. */
static void finish_later(struct gyre__later *later)
{
    struct gyre_loop *l = later->loop;
    gyre_task_fn *run = later->run;
    void *user = later->user;
    gyre__free(l->mem, later);
    atomic_fetch_sub_explicit(&l->later_count, 1, memory_order_relaxed);
    gyre__count(&l->be->stats.tasks, 1);
    run(l, user);
}

static void unlink_later(struct gyre__later *later)
{
    *later->prev = later->next;
    if (later->next != NULL)
        later->next->prev = later->prev;
}

void gyre__timer_later_over(struct gyre__loop_timer *t)
{
    struct gyre__later *later = GYRE_CONTAINER(t, struct gyre__later, timer);
    unlink_later(later);
    finish_later(later);
}

static void start_later(struct gyre_loop *l, void *user)
{
    struct gyre__later *later = user;
    if (atomic_load_explicit(&l->closed, memory_order_relaxed)) {
        finish_later(later);
        return;
    }
    later->next = l->laters;
    later->prev = &l->laters;
    if (later->next != NULL)
        later->next->prev = &later->next;
    l->laters = later;
    gyre__wheel_start(&l->wheel, &later->timer, later->due_ns);
}

void gyre__laters_run(struct gyre_loop *l)
{
    while (l->laters != NULL) {
        struct gyre__later *later = l->laters;
        gyre__wheel_stop(&l->wheel, &later->timer);
        unlink_later(later);
        finish_later(later);
    }
}

/* One more, unless as many wait as tasks may. */
static int count_later(struct gyre_loop *l)
{
    uint32_t count = atomic_fetch_add_explicit(&l->later_count, 1, memory_order_relaxed);
    if (count < l->tasks.count_max)
        return 0;
    atomic_fetch_sub_explicit(&l->later_count, 1, memory_order_relaxed);
    return -EAGAIN;
}

int gyre_loop_post_after(struct gyre_loop *l, int64_t delay_ns, gyre_task_fn *run, void *user)
{
    if (l == NULL || run == NULL)
        return -EINVAL;
    int err = gyre__check_not_negative("delay_ns", delay_ns);
    if (err != 0)
        return err;
    if (atomic_load_explicit(&l->closed, memory_order_relaxed))
        return GYRE_ESHUTDOWN;
    err = count_later(l);
    if (err != 0)
        return err;
    struct gyre__later *later = gyre__alloc(l->mem, sizeof *later);
    if (later == NULL) {
        atomic_fetch_sub_explicit(&l->later_count, 1, memory_order_relaxed);
        return -ENOMEM;
    }
    *later = (struct gyre__later){.loop = l, .run = run, .user = user};
    later->timer.kind = GYRE_TIMER_LATER;
    later->due_ns = gyre__loop_clock(l) + (uint64_t)delay_ns;
    if (gyre_loop_is_current(l)) {
        start_later(l, later);
        return 0;
    }
    err = gyre__loop_post_block(l, later, start_later);
    if (err != 0)
        atomic_fetch_sub_explicit(&l->later_count, 1, memory_order_relaxed);
    return err;
}
