/* SPDX-License-Identifier: MIT
 * The timing wheel against a model that keeps every deadline in a plain array.
 *
 * The model knows for each timer the tick at which it must fire: its deadline rounded up, or the tick after the one in
 * which it was started if that is later. A timer that fires too early, too late, twice, after it was stopped or out of
 * order is told at once; so is a wait that would sleep past a deadline, or would not sleep though nothing is due. */
#include "base/wheel.h"

#include "env.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>

enum { TIMERS = 200, OPERATIONS = 60000, SEEDS = 4 };

static const uint64_t tick_ns = (uint64_t)GYRE_TICK_NS;
static const uint64_t hour_ns = UINT64_C(3600) * 1000000000;

struct model {
    struct gyre__wheel wheel;
    struct env_rng rng;
    uint64_t now_ns;
    uint64_t last_tick; /* at which a timer fired in this advance */
    bool advancing;
    bool quiet;         /* callbacks do nothing else */
    unsigned fired;
    struct subject *subjects[TIMERS];
};

struct subject {
    struct gyre__loop_timer timer;
    struct model *m;
    unsigned index;
    bool active;
    uint64_t at_ns;  /* the deadline it was given */
    uint64_t tick;   /* at which it must fire */
    unsigned fired;
};

static uint64_t now_tick(const struct model *m)
{
    return m->now_ns > m->wheel.origin_ns ? (m->now_ns - m->wheel.origin_ns) / tick_ns : 0;
}

static void start(struct subject *s, uint64_t at_ns)
{
    struct gyre__wheel *w = &s->m->wheel;
    uint64_t since = at_ns > w->origin_ns ? at_ns - w->origin_ns : 0;
    uint64_t tick = since / tick_ns + (since % tick_ns != 0);
    s->at_ns = at_ns;
    s->tick = tick > w->tick ? tick : w->tick + 1;
    s->active = true;
    gyre__wheel_start(w, &s->timer, at_ns);
    cr_assert(gyre__timer_is_set(&s->timer));
}

static void stop(struct subject *s)
{
    s->active = false;
    gyre__wheel_stop(&s->m->wheel, &s->timer);
    cr_assert_not(gyre__timer_is_set(&s->timer));
}

static void on_fire(struct gyre__loop_timer *t);
static void stop_all_others(struct gyre__loop_timer *t);

enum { KIND_MEDDLER, KIND_STOPPER };

static gyre__timer_fire_fn *const fire_fns[] = {[KIND_MEDDLER] = on_fire, [KIND_STOPPER] = stop_all_others};

static struct subject *make(struct model *m, unsigned index)
{
    struct subject *s = calloc(1, sizeof *s);
    cr_assert_not_null(s);
    s->m = m;
    s->index = index;
    s->timer.kind = KIND_MEDDLER;
    m->subjects[index] = s;
    return s;
}

static uint64_t random_delay_ns(struct model *m)
{
    static const uint64_t reach_ns[] = {1,          1000000,           64 * 1000000ull, 5000 * 1000000ull,
                                        300000000000ull, 20 * 3600000000000ull, 90 * 86400000000000ull,
                                        40 * 31536000000000000ull};
    return env_rng_next(&m->rng) % reach_ns[env_rng_below(&m->rng, 8)];
}

/* What handlers do to timers: everything. */
static void meddle(struct model *m, struct subject *self)
{
    struct subject *other = m->subjects[env_rng_below(&m->rng, TIMERS)];
    switch (env_rng_below(&m->rng, 6)) {
    case 0:
        start(self, m->now_ns + random_delay_ns(m));
        break;
    case 1:
        start(other, m->now_ns + random_delay_ns(m));
        break;
    case 2:
        stop(other);
        break;
    case 3: /* a timer may free itself */
        (void)make(m, self->index);
        free(self);
        break;
    case 4: /* in the past: served with the next tick, within this advance if that goes so far */
        start(self, m->now_ns - env_rng_below(&m->rng, 3000000));
        break;
    default:
        break;
    }
}

static void on_fire(struct gyre__loop_timer *t)
{
    struct subject *s = (struct subject *)t;
    struct model *m = s->m;
    cr_assert(m->advancing, "a timer fired outside of an advance");
    cr_assert(s->active, "timer %u fired though it was stopped or had fired", s->index);
    cr_assert(s->at_ns <= m->now_ns, "timer %u fired %" PRIu64 " ns early", s->index, s->at_ns - m->now_ns);
    cr_assert_eq(m->wheel.tick, s->tick, "timer %u fired in tick %" PRIu64 " in place of %" PRIu64, s->index,
                 m->wheel.tick, s->tick);
    cr_assert(m->wheel.tick >= m->last_tick, "timers fired out of order");
    cr_assert_not(gyre__timer_is_set(t));
    m->last_tick = m->wheel.tick;
    m->fired++;
    s->active = false;
    s->fired++;
    if (!m->quiet)
        meddle(m, s);
}

static void advance(struct model *m, uint64_t now_ns)
{
    m->now_ns = now_ns;
    m->last_tick = 0;
    m->fired = 0;
    m->advancing = true;
    unsigned told = gyre__wheel_advance(&m->wheel, now_ns);
    m->advancing = false;
    cr_assert_eq(told, m->fired, "advance() told of %u, %u fired", told, m->fired);
}

/* After an advance: whatever is due has fired, and the time to the next deadline is right. */
static void check(struct model *m)
{
    uint64_t first = UINT64_MAX;
    for (unsigned i = 0; i < TIMERS; i++) {
        const struct subject *s = m->subjects[i];
        cr_assert_eq(s->active, gyre__timer_is_set(&s->timer));
        if (!s->active)
            continue;
        cr_assert_gt(s->tick, now_tick(m), "timer %u of tick %" PRIu64 " did not fire by %" PRIu64, i, s->tick,
                     now_tick(m));
        first = s->tick < first ? s->tick : first;
    }
    int64_t wait_ns = gyre__wheel_timeout(&m->wheel, m->now_ns);
    if (first == UINT64_MAX) {
        cr_assert_eq(wait_ns, -1, "without timers the wait is for ever, not %" PRId64, wait_ns);
        return;
    }
    cr_assert_gt(wait_ns, 0, "everything is done, and the wait is still %" PRId64, wait_ns);
    cr_assert(m->now_ns + (uint64_t)wait_ns <= m->wheel.origin_ns + first * tick_ns, "the wait passes a deadline");
}

static void open_model(struct model *m, uint64_t seed)
{
    *m = (struct model){.quiet = false};
    env_rng_init(&m->rng, seed);
    m->now_ns = env_rng_next(&m->rng) % (UINT64_C(1) << 50);
    gyre__wheel_init(&m->wheel, m->now_ns, fire_fns);
    for (unsigned i = 0; i < TIMERS; i++)
        (void)make(m, i);
}

static void close_model(struct model *m)
{
    for (unsigned i = 0; i < TIMERS; i++)
        free(m->subjects[i]);
}

static uint64_t random_step_ns(struct model *m)
{
    switch (env_rng_below(&m->rng, 100)) {
    case 0:
        return env_rng_next(&m->rng) % (5 * hour_ns);
    case 1: /* some three hundred of these: 40 years */
        return env_rng_next(&m->rng) % (100 * 24 * hour_ns);
    case 2:
    case 3:
        return env_rng_next(&m->rng) % 10000000000u;
    case 4:
        return 0;
    default:
        return env_rng_below(&m->rng, 4000000);
    }
}

/* Starts, stops and jumps of the clock at random, with callbacks that start, stop and free timers themselves. */
Test(wheel, agrees_with_the_model)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct model m;
        open_model(&m, seed);
        for (unsigned i = 0; i < OPERATIONS; i++) {
            struct subject *s = m.subjects[env_rng_below(&m.rng, TIMERS)];
            uint32_t what = env_rng_below(&m.rng, 8);
            if (what < 4)
                start(s, m.now_ns + random_delay_ns(&m));
            else if (what < 5)
                stop(s);
            else
                advance(&m, m.now_ns + random_step_ns(&m));
            if (what >= 5)
                check(&m);
        }
        m.quiet = true;
        advance(&m, m.now_ns + 41 * 365 * 24 * hour_ns); /* further than any deadline: all fire */
        for (unsigned i = 0; i < TIMERS; i++)
            cr_assert_not(m.subjects[i]->active, "timer %u never fired", i);
        cr_assert_eq(gyre__wheel_timeout(&m.wheel, m.now_ns), -1);
        close_model(&m);
    }
}

/* A loop that sleeps exactly as long as it is told wakes at most once per level and timer. */
Test(wheel, sleeping_as_told_needs_few_wakes)
{
    struct model m;
    open_model(&m, 77);
    m.quiet = true;
    for (unsigned round = 0; round < 300; round++) {
        struct subject *s = m.subjects[0];
        m.now_ns = env_rng_next(&m.rng) % (UINT64_C(1) << 50); /* or the rounds would add up to centuries */
        gyre__wheel_init(&m.wheel, m.now_ns, fire_fns);
        uint64_t delay_ns = random_delay_ns(&m);
        unsigned wakes = 0, before = s->fired;
        start(s, m.now_ns + delay_ns);
        for (; s->fired == before; wakes++) {
            int64_t wait_ns = gyre__wheel_timeout(&m.wheel, m.now_ns);
            cr_assert(wait_ns >= 0 && wakes < 2 * GYRE_WHEEL_LEVELS, "%u wakes for a delay of %" PRIu64 " ns", wakes,
                      delay_ns);
            advance(&m, m.now_ns + (uint64_t)wait_ns);
        }
        cr_assert_leq(wakes, GYRE_WHEEL_LEVELS);
        cr_assert_lt(m.now_ns - s->at_ns, 2 * tick_ns, "late by %" PRIu64, m.now_ns - s->at_ns);
    }
    close_model(&m);
}

/* Deadlines around every power of 64, from starting points around them too: not a nanosecond early, not a tick late. */
Test(wheel, the_edges_of_every_level)
{
    static const uint64_t from[] = {0, 1, 62, 63, 64, 4095, 4096, 262143, 262144, 16777215, 1073741823, 68719476735};
    struct model m;
    for (unsigned f = 0; f < sizeof from / sizeof from[0]; f++) {
        for (unsigned level = 0; level < GYRE_WHEEL_LEVELS; level++) {
            for (int off = -2; off <= 2; off++) {
                uint64_t ticks = (UINT64_C(1) << (level * GYRE_WHEEL_BITS)) + (uint64_t)(int64_t)off;
                if ((int64_t)ticks <= 0)
                    continue;
                open_model(&m, 5);
                m.quiet = true;
                advance(&m, m.now_ns + from[f] * tick_ns);
                struct subject *s = m.subjects[0];
                uint64_t due_ns = m.now_ns + ticks * tick_ns;
                start(s, due_ns);
                advance(&m, due_ns - 1);
                cr_assert_eq(s->fired, 0, "early: %" PRIu64 " ticks from tick %" PRIu64, ticks, from[f]);
                advance(&m, due_ns);
                cr_assert_eq(s->fired, 1, "late: %" PRIu64 " ticks from tick %" PRIu64, ticks, from[f]);
                close_model(&m);
            }
        }
    }
}

/* One jump over hours fires what lay in between, each once and in order, however many levels it came down. */
Test(wheel, a_jump_of_hours)
{
    struct model m;
    open_model(&m, 9);
    m.quiet = true;
    for (unsigned i = 0; i < TIMERS; i++)
        start(m.subjects[i], m.now_ns + env_rng_next(&m.rng) % (12 * hour_ns));
    advance(&m, m.now_ns + 12 * hour_ns + tick_ns);
    cr_assert_eq(m.fired, TIMERS);
    check(&m);
    close_model(&m);
}

static struct model *meeting;

static void stop_all_others(struct gyre__loop_timer *t)
{
    const struct subject *s = (struct subject *)t;
    meeting->fired++;
    for (unsigned i = 0; i < TIMERS; i++)
        if (i != s->index)
            stop(meeting->subjects[i]);
}

/* Of many timers due in the same tick the first stops the others: none of them may fire, though they lie on the list
 * that is being fired. */
Test(wheel, stopped_by_one_that_fires_in_the_same_tick)
{
    struct model m;
    for (uint64_t ticks = 1; ticks < 100000; ticks = ticks * 7 + 1) {
        open_model(&m, 3);
        meeting = &m;
        for (unsigned i = 0; i < TIMERS; i++) {
            m.subjects[i]->timer.kind = KIND_STOPPER;
            start(m.subjects[i], m.now_ns + ticks * tick_ns);
        }
        advance(&m, m.now_ns + ticks * tick_ns);
        cr_assert_eq(m.fired, 1);
        cr_assert_eq(gyre__wheel_timeout(&m.wheel, m.now_ns), -1, "the wheel thinks a slot is occupied that is empty");
        close_model(&m);
    }
}

/* Deadlines that are as good as never: not fired within a century, and the wait fits its type. */
Test(wheel, deadlines_beyond_reach)
{
    static const uint64_t century_ns = UINT64_C(3155760000) * 1000000000;
    const uint64_t now_ns = UINT64_C(1) << 40;
    const uint64_t far[] = {now_ns + (uint64_t)INT64_MAX, now_ns + (uint64_t)INT64_MAX + 1, UINT64_MAX - tick_ns,
                            UINT64_MAX - 1, UINT64_MAX};
    for (unsigned i = 0; i < sizeof far / sizeof far[0]; i++) {
        struct model m;
        open_model(&m, 1);
        gyre__wheel_init(&m.wheel, now_ns, fire_fns);
        m.now_ns = now_ns;
        m.quiet = true;
        start(m.subjects[0], far[i]);
        cr_assert_gt(gyre__wheel_timeout(&m.wheel, now_ns), 0, "deadline %" PRIu64, far[i]);
        advance(&m, now_ns + 24 * hour_ns);
        cr_assert_eq(m.subjects[0]->fired, 0, "deadline %" PRIu64 " fired within a day", far[i]);
        advance(&m, now_ns + century_ns);
        cr_assert_eq(m.subjects[0]->fired, 0, "deadline %" PRIu64 " fired within a century", far[i]);
        stop(m.subjects[0]);
        close_model(&m);
    }
}

/* A clock that stands still or goes back (it should not) fires nothing and breaks nothing. */
Test(wheel, a_clock_that_goes_back)
{
    struct model m;
    open_model(&m, 2);
    m.quiet = true;
    uint64_t now_ns = m.now_ns + 1000 * tick_ns;
    advance(&m, now_ns);
    start(m.subjects[0], now_ns + 5 * tick_ns);
    advance(&m, now_ns - 900 * tick_ns);
    advance(&m, 0);
    cr_assert_eq(m.subjects[0]->fired, 0);
    cr_assert_gt(gyre__wheel_timeout(&m.wheel, 0), 0);
    advance(&m, now_ns + 5 * tick_ns);
    cr_assert_eq(m.subjects[0]->fired, 1);
    close_model(&m);
}

/* Starting again forgets the earlier deadline, whichever way it is moved; stopping twice is nothing. */
Test(wheel, started_again_and_stopped_again)
{
    struct model m;
    open_model(&m, 4);
    m.quiet = true;
    struct subject *s = m.subjects[0];
    start(s, m.now_ns + 10 * tick_ns);
    start(s, m.now_ns + 100 * tick_ns);
    advance(&m, m.now_ns + 50 * tick_ns);
    cr_assert_eq(s->fired, 0);
    start(s, m.now_ns + tick_ns);
    advance(&m, m.now_ns + tick_ns);
    cr_assert_eq(s->fired, 1);
    advance(&m, m.now_ns + 1000 * tick_ns);
    cr_assert_eq(s->fired, 1, "the deadline that was replaced came all the same");
    stop(s);
    stop(s);
    start(s, m.now_ns + 10 * tick_ns);
    stop(s);
    stop(s);
    advance(&m, m.now_ns + 1000 * tick_ns);
    cr_assert_eq(s->fired, 1);
    close_model(&m);
}
