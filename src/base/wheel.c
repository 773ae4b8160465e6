/* SPDX-License-Identifier: MIT
 * The timing wheel: placing, cascading, firing. */
#include "wheel.h"
#include "check.h"

#include <string.h>

enum { SLOT_MASK = GYRE_WHEEL_SLOTS - 1 };

#define TICK_MAX ((UINT64_C(1) << (GYRE_WHEEL_BITS * GYRE_WHEEL_LEVELS)) - 1)

void gyre__wheel_init(struct gyre__wheel *w, uint64_t now_ns, gyre__timer_fire_fn *const *fire)
{
    memset(w, 0, sizeof *w);
    w->origin_ns = now_ns;
    w->fire = fire;
}

static uint64_t tick_of(const struct gyre__loop_timer *t)
{
    return (uint64_t)t->tick_high << 32 | t->tick_low;
}

static void set_tick(struct gyre__loop_timer *t, uint64_t tick)
{
    t->tick_low = (uint32_t)tick;
    t->tick_high = (uint16_t)(tick >> 32);
}

static unsigned level_of(uint64_t now, uint64_t tick)
{
    uint64_t differ = (now ^ tick) | SLOT_MASK;
    return (63u - (unsigned)__builtin_clzll(differ)) / GYRE_WHEEL_BITS;
}

static void link_timer(struct gyre__loop_timer **at, struct gyre__loop_timer *t)
{
    t->next = *at;
    t->prev = at;
    if (t->next != NULL)
        t->next->prev = &t->next;
    *at = t;
}

static void unlink_timer(struct gyre__loop_timer *t)
{
    *t->prev = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    t->next = NULL;
    t->prev = NULL;
}

static void place(struct gyre__wheel *w, struct gyre__loop_timer *t)
{
    uint64_t tick = tick_of(t);
    unsigned level = level_of(w->tick, tick);
    GYRE_ASSERT(tick >= w->tick && level < GYRE_WHEEL_LEVELS);
    unsigned slot = (tick >> (level * GYRE_WHEEL_BITS)) & SLOT_MASK;
    link_timer(&w->slots[level][slot], t);
    w->occupied[level] |= UINT64_C(1) << slot;
}

void gyre__wheel_start(struct gyre__wheel *w, struct gyre__loop_timer *t, uint64_t at_ns)
{
    uint64_t since = at_ns > w->origin_ns ? at_ns - w->origin_ns : 0;
    uint64_t tick = (since + (uint64_t)GYRE_TICK_NS - 1) / (uint64_t)GYRE_TICK_NS; /* up: never early */
    gyre__wheel_stop(w, t);
    w->started++;
    /* The current tick has been served; the next one is the first that will be. */
    if (tick <= w->tick)
        tick = w->tick + 1;
    set_tick(t, tick < TICK_MAX ? tick : TICK_MAX);
    place(w, t);
}

void gyre__wheel_stop(struct gyre__wheel *w, struct gyre__loop_timer *t)
{
    if (!gyre__timer_is_set(t))
        return;
    struct gyre__loop_timer **head = t->prev;
    unlink_timer(t);
    /* The slot's bit is cleared only if `head` is a slot of the wheel (a timer being fired lies on a list of its
     * own). */
    uintptr_t first = (uintptr_t)&w->slots[0][0];
    uintptr_t offset = (uintptr_t)head - first;
    if (*head == NULL && (uintptr_t)head >= first && offset < sizeof w->slots) {
        size_t index = offset / sizeof w->slots[0][0];
        w->occupied[index / GYRE_WHEEL_SLOTS] &= ~(UINT64_C(1) << (index % GYRE_WHEEL_SLOTS));
    }
}

/* The first tick at which some slot needs work, and which slot. */
static bool next_slot(const struct gyre__wheel *w, unsigned *level, unsigned *slot, uint64_t *tick)
{
    for (unsigned l = 0; l < GYRE_WHEEL_LEVELS; l++) {
        if (w->occupied[l] == 0)
            continue;
        unsigned shift = l * GYRE_WHEEL_BITS;
        *level = l;
        *slot = (unsigned)__builtin_ctzll(w->occupied[l]);
        *tick = (w->tick >> shift >> GYRE_WHEEL_BITS << GYRE_WHEEL_BITS << shift) | ((uint64_t)*slot << shift);
        return true;
    }
    return false;
}

static unsigned fire_slot(struct gyre__wheel *w, unsigned level, unsigned slot)
{
    unsigned fired = 0;
    struct gyre__loop_timer *due = w->slots[level][slot];
    w->slots[level][slot] = NULL;
    w->occupied[level] &= ~(UINT64_C(1) << slot);
    if (due != NULL)
        due->prev = &due; /* so that a timer stopped by another's callback unlinks from here */
    while (due != NULL) {
        struct gyre__loop_timer *t = due;
        unlink_timer(t);
        if (tick_of(t) > w->tick) {
            place(w, t);
            continue;
        }
        fired++;
        w->fire[t->kind](t);
    }
    return fired;
}

unsigned gyre__wheel_advance(struct gyre__wheel *w, uint64_t now_ns)
{
    uint64_t now = now_ns > w->origin_ns ? (now_ns - w->origin_ns) / (uint64_t)GYRE_TICK_NS : 0;
    unsigned fired = 0, level, slot;
    uint64_t tick;
    while (next_slot(w, &level, &slot, &tick) && tick <= now) {
        if (tick > w->tick)
            w->tick = tick;
        fired += fire_slot(w, level, slot);
    }
    if (now > w->tick)
        w->tick = now;
    return fired;
}

int64_t gyre__wheel_timeout(const struct gyre__wheel *w, uint64_t now_ns)
{
    unsigned level, slot;
    uint64_t tick;
    if (!next_slot(w, &level, &slot, &tick))
        return -1;
    uint64_t at_ns = w->origin_ns + tick * (uint64_t)GYRE_TICK_NS;
    return at_ns > now_ns ? (int64_t)(at_ns - now_ns) : 0;
}
