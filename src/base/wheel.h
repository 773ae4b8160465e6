/* SPDX-License-Identifier: MIT
 * A hierarchical timing wheel (Varghese and Lauck, 1987): seven levels of 64 slots, one millisecond a tick.
 *
 * A timer lies on the level of the highest bit in which its expiry differs from now, so it moves down at most six times
 * and every start and stop is O(1). On one level all occupied slots lie ahead, and all of a lower level expire before
 * any of a higher one: the next deadline is the first bit of the lowest level that has one. */
#ifndef GYRE_BASE_WHEEL_H
#define GYRE_BASE_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GYRE_WHEEL_BITS = 6, GYRE_WHEEL_SLOTS = 64, GYRE_WHEEL_LEVELS = 7 };

#define GYRE_TICK_NS INT64_C(1000000)

struct gyre__loop_timer;
typedef void gyre__timer_fire_fn(struct gyre__loop_timer *t);

struct gyre__loop_timer {
    struct gyre__loop_timer *next;
    struct gyre__loop_timer **prev; /* what points to this one; NULL: not on the wheel */
    uint32_t tick_low;         /* expires at the start of this tick; two parts, or `kind` would make it larger */
    uint16_t tick_high;
    uint8_t kind; /* whose: which function of the wheel's `fire` is called */
};

struct gyre__wheel {
    uint64_t tick; /* all timers that expire at or before it have fired */
    uint64_t occupied[GYRE_WHEEL_LEVELS];
    struct gyre__loop_timer *slots[GYRE_WHEEL_LEVELS][GYRE_WHEEL_SLOTS];
    uint64_t origin_ns; /* tick 0 */
    uint64_t started;   /* how often a timer was, restarts included */
    /* By kind of timer: called when it was taken off the wheel; may start it again or free it. */
    gyre__timer_fire_fn *const *fire;
};

void gyre__wheel_init(struct gyre__wheel *w, uint64_t now_ns, gyre__timer_fire_fn *const *fire);

/* Start, or start again, to expire no earlier than `at_ns`. */
void gyre__wheel_start(struct gyre__wheel *w, struct gyre__loop_timer *t, uint64_t at_ns);
void gyre__wheel_stop(struct gyre__wheel *w, struct gyre__loop_timer *t);

/* Fire what has expired by `now_ns`. Returns how many. */
unsigned gyre__wheel_advance(struct gyre__wheel *w, uint64_t now_ns);

/* Nanoseconds from `now_ns` until the wheel has work, 0 if it has some already, -1 if there are no timers. */
int64_t gyre__wheel_timeout(const struct gyre__wheel *w, uint64_t now_ns);

static inline bool gyre__timer_is_set(const struct gyre__loop_timer *t)
{
    return t->prev != NULL;
}

#endif
