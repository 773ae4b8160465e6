/* SPDX-License-Identifier: MIT
 * Timers, and a loop inside of a foreign one. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <poll.h>
#include <stdlib.h>

struct clockwork {
    struct api *api;
    struct gyre_timer *timer;
    uint64_t start_ns;
    int64_t delay_ns;
    unsigned fired;
    unsigned *order; /* the number of firings over all */
    unsigned at;     /* when in that order */
};

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

static void on_timer(struct gyre_timer *timer, void *user)
{
    struct clockwork *w = user;
    api_enter(w->api);
    cr_assert_eq(timer, w->timer);
    cr_assert_geq(api_now_ns(w->api), w->start_ns + (uint64_t)w->delay_ns, "a timer of %lld ns is early",
                  (long long)w->delay_ns);
    w->fired++;
    if (w->order != NULL)
        w->at = ++*w->order;
    api_leave(w->api);
}

static void set(struct clockwork *w, int64_t delay_ns, int64_t period_ns)
{
    w->start_ns = api_now_ns(w->api);
    w->delay_ns = delay_ns;
    cr_assert_eq(gyre_timer_start(w->timer, delay_ns, period_ns), 0);
    cr_assert(gyre_timer_is_active(w->timer));
}

/* Thousands of timers: each fires once, never early, and in the order of their times (to the millisecond). */
BACKEND_TEST(api_timer, thousands)
{
    enum { COUNT = 5000 };
    static struct clockwork works[COUNT];
    struct api api;
    struct env_rng rng;
    unsigned order = 0;
    env_rng_init(&rng, 2);
    start(&api, p);
    for (unsigned i = 0; i < COUNT; i++) {
        works[i] = (struct clockwork){.api = &api, .order = &order};
        cr_assert_eq(gyre_timer_create(&works[i].timer, api.loop, on_timer, &works[i]), 0);
        cr_assert(!gyre_timer_is_active(works[i].timer));
    }
    api_turn_now(&api);
    for (unsigned i = 0; i < COUNT; i++)
        set(&works[i], (int64_t)env_rng_below(&rng, 400000000), 0);
    api_until(&api, order == COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_eq(works[i].fired, 1);
        cr_assert(!gyre_timer_is_active(works[i].timer));
        unsigned other = env_rng_below(&rng, COUNT);
        uint64_t mine = works[i].start_ns + (uint64_t)works[i].delay_ns;
        uint64_t its = works[other].start_ns + (uint64_t)works[other].delay_ns;
        if (mine + 2000000 < its)
            cr_assert_lt(works[i].at, works[other].at);
    }
    cr_assert_eq(api_stats(&api).timers, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        gyre_timer_destroy(works[i].timer);
    api_close(&api);
}

/* Late by no more than the loop is busy; long and short ones, around the places where a wheel turns over. */
BACKEND_TEST(api_timer, odd_delays)
{
    static const int64_t delays[] = {0,        1,        999999,   1000000,   1000001,
                                     63000000, 64000000, 65000000, 127000001, 256000000};
    enum { COUNT = sizeof delays / sizeof delays[0] };
    struct clockwork works[COUNT];
    struct api api;
    start(&api, p);
    for (unsigned i = 0; i < COUNT; i++) {
        works[i] = (struct clockwork){.api = &api};
        cr_assert_eq(gyre_timer_create(&works[i].timer, api.loop, on_timer, &works[i]), 0);
    }
    api_turn_now(&api);
    for (unsigned i = 0; i < COUNT; i++)
        set(&works[i], delays[i], 0);
    for (unsigned i = 0; i < COUNT; i++)
        api_until(&api, works[i].fired == 1);
    for (unsigned i = 0; i < COUNT; i++)
        gyre_timer_destroy(works[i].timer);
    api_close(&api);
}

/* A timer that is started outside of a turn, long after the last one, is not early either. */
BACKEND_TEST(api_timer, never_early_outside_a_turn)
{
    struct api api;
    struct clockwork w = {.api = &api};
    start(&api, p);
    cr_assert_eq(gyre_timer_create(&w.timer, api.loop, on_timer, &w), 0);
    api_turn_now(&api);
    if (api.is_sim)
        gyre_sim_advance(api.sim, (uint64_t)MS(100));
    else
        (void)poll(NULL, 0, 100); /* the embedder does something else */
    set(&w, MS(50), 0);
    api_until(&api, w.fired == 1);
    gyre_timer_destroy(w.timer);
    api_close(&api);
}

/* Hours, which pass in no time. */
BACKEND_TEST(api_timer, hours_on_the_simulator)
{
    struct api api;
    struct clockwork w = {.api = &api};
    start(&api, p);
    if (api.is_sim) {
        cr_assert_eq(gyre_timer_create(&w.timer, api.loop, on_timer, &w), 0);
        for (int64_t hours = 1; hours < 100000; hours *= 7) {
            unsigned fired = w.fired;
            set(&w, MS(3600000) * hours, 0);
            api_until(&api, w.fired == fired + 1);
            cr_assert_leq(api_now_ns(&api) - w.start_ns - (uint64_t)w.delay_ns, (uint64_t)MS(2));
        }
        gyre_timer_destroy(w.timer);
    }
    api_close(&api);
}

struct periodic {
    struct api *api;
    uint64_t start_ns;
    uint64_t at_ns; /* of the last firing, by the loop's clock */
    int64_t period_ns;
    unsigned fired;
};

static void on_period(struct gyre_timer *timer, void *user)
{
    struct periodic *w = user;
    api_enter(w->api);
    w->fired++;
    w->at_ns = gyre_loop_now_ns(w->api->loop);
    cr_assert_geq(api_now_ns(w->api), w->start_ns + (uint64_t)w->period_ns * w->fired, "firing %u is early", w->fired);
    if (w->fired == 40)
        gyre_timer_stop(timer);
    else
        cr_assert(gyre_timer_is_active(timer));
    api_leave(w->api);
}

/* A periodic timer does not drift: lateness of one firing is not added to the next. Drift of a millisecond, the step of
 * the wheel, in each period would be 40 ms. A busy machine may hold up a turn and skip periods, but a turn that begins
 * when the next firing of the grid is due has it. */
BACKEND_TEST(api_timer, periodic)
{
    struct api api;
    struct gyre_timer *timer;
    start(&api, p);
    struct periodic w = {.api = &api, .period_ns = 7300000};
    cr_assert_eq(gyre_timer_create(&timer, api.loop, on_period, &w), 0);
    api_turn_now(&api);
    w.start_ns = api_now_ns(&api);
    cr_assert_eq(gyre_timer_start(timer, w.period_ns, w.period_ns), 0);
    uint64_t slack_ns = api_now_ns(&api) - w.start_ns + (uint64_t)MS(3);
    w.at_ns = w.start_ns;
    while (w.fired < 40) {
        unsigned fired = w.fired;
        uint64_t begin_ns = api_now_ns(&api), period_ns = (uint64_t)w.period_ns;
        uint64_t due_ns = w.start_ns + ((w.at_ns - w.start_ns) / period_ns + 1) * period_ns;
        api_turn(&api);
        cr_assert(w.fired > fired || begin_ns < due_ns + slack_ns, "not after %llu ns, %u firings",
                  (unsigned long long)(begin_ns - w.start_ns), fired);
    }
    if (api.is_sim)
        cr_assert_leq(w.at_ns - w.start_ns, (uint64_t)w.period_ns * 40 + (uint64_t)MS(3));
    api_watch(&api, MS(20));
    cr_assert_eq(w.fired, 40, "it fired after gyre_timer_stop");
    gyre_timer_destroy(timer);
    api_close(&api);
}

/* Held up, a periodic timer fires once and skips what it missed. */
BACKEND_TEST(api_timer, held_up)
{
    struct api api;
    struct gyre_timer *timer;
    start(&api, p);
    struct periodic w = {.api = &api};
    cr_assert_eq(gyre_timer_create(&timer, api.loop, on_period, &w), 0);
    cr_assert_eq(gyre_timer_start(timer, MS(5), MS(5)), 0);
    if (api.is_sim)
        gyre_sim_advance(api.sim, (uint64_t)MS(80));
    else
        (void)poll(NULL, 0, 80);
    api_turn_now(&api);
    cr_assert_eq(w.fired, 1, "it fired %u times at once", w.fired);
    gyre_timer_destroy(timer);
    api_close(&api);
}

enum act { STOP, RESTART, DESTROY, STOP_OTHER, DESTROY_OTHER, ACTS };

struct actor {
    struct api *api;
    enum act act;
    struct gyre_timer *other;
    unsigned fired, other_fired;
    bool destroyed;
};

static void on_other(struct gyre_timer *timer, void *user)
{
    struct actor *a = user;
    (void)timer;
    a->other_fired++;
}

static void on_actor(struct gyre_timer *timer, void *user)
{
    struct actor *a = user;
    api_enter(a->api);
    a->fired++;
    switch (a->act) {
    case STOP:
        gyre_timer_stop(timer);
        break;
    case RESTART:
        if (a->fired < 5)
            cr_assert_eq(gyre_timer_start(timer, MS(1), 0), 0);
        break;
    case DESTROY:
        gyre_timer_destroy(timer);
        a->destroyed = true;
        break;
    case STOP_OTHER:
        if (a->other_fired == 0)
            gyre_timer_stop(a->other);
        break;
    case DESTROY_OTHER:
        if (a->other_fired > 0)
            break;
        gyre_timer_destroy(a->other);
        a->other = NULL;
        break;
    case ACTS:
        break;
    }
    api_leave(a->api);
}

/* A timer's callback may stop, restart and destroy it, and another one that is due in the same turn. */
BACKEND_TEST(api_timer, acts_in_its_callback)
{
    struct api api;
    start(&api, p);
    for (int act = STOP; act < ACTS; act++) {
        struct actor a = {.api = &api, .act = (enum act)act};
        struct gyre_timer *timer, *before;
        cr_assert_eq(gyre_timer_create(&before, api.loop, on_other, &a), 0);
        cr_assert_eq(gyre_timer_create(&timer, api.loop, on_actor, &a), 0);
        cr_assert_eq(gyre_timer_create(&a.other, api.loop, on_other, &a), 0);
        cr_assert_eq(gyre_timer_start(timer, MS(3), act == STOP || act == DESTROY ? MS(1) : 0), 0);
        cr_assert_eq(gyre_timer_start(a.other, MS(3), 0), 0);
        api_until(&api, a.fired >= (act == RESTART ? 5 : 1));
        api_watch(&api, MS(8));
        cr_assert_eq(a.fired, act == RESTART ? 5 : 1);
        if (act == STOP_OTHER || act == DESTROY_OTHER)
            cr_assert_leq(a.other_fired, 1);
        else
            cr_assert_eq(a.other_fired, 1);
        if (!a.destroyed)
            gyre_timer_destroy(timer);
        gyre_timer_destroy(a.other);
        gyre_timer_destroy(before);
    }
    api_close(&api);
}

/* The documented errors. */
BACKEND_TEST(api_timer, errors)
{
    struct api api;
    struct gyre_timer *timer = NULL;
    struct clockwork w = {.api = &api};
    start(&api, p);
    cr_assert_eq(gyre_timer_create(&timer, api.loop, NULL, NULL), -EINVAL);
    cr_assert_null(timer);
    cr_assert_eq(gyre_timer_create(&timer, api.loop, on_timer, &w), 0);
    cr_assert_eq(gyre_timer_start(timer, -1, 0), GYRE_EOPTION);
    cr_assert_eq(gyre_timer_start(timer, 0, -1), GYRE_EOPTION);
    cr_assert(!gyre_timer_is_active(timer));
    gyre_timer_stop(timer);
    gyre_timer_destroy(timer);
    gyre_timer_destroy(NULL);
    api_close(&api);
}

static int64_t poll_ms(int64_t ns)
{
    return ns < 0 ? 1000 : (ns + 999999) / 1000000;
}

/* Inside of a foreign loop, which has nothing but poll(2), the descriptor and the time limit: everything works, and the
 * foreign loop turns no oftener than there is something to do. */
REAL_TEST(api_timer, foreign_loop)
{
    struct api api;
    struct peer peer;
    struct clockwork w = {.api = &api};
    const struct script echo = {.data = end_forward_back};
    api_start(&api, p, &echo);
    (void)peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    cr_assert_eq(gyre_timer_create(&w.timer, api.loop, on_timer, &w), 0);
    cr_assert_geq(gyre_loop_fd(api.loop), 0);
    for (unsigned i = 0; i < 10; i++)
        api_turn_now(&api);
    uint64_t got = 0;
    unsigned rounds = 0;
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(5000);
    for (unsigned exchange = 1; exchange <= 20; exchange++) {
        cr_assert_eq(peer_send_some(&peer, 1000), 1000);
        while (peer.got < 1000 * exchange) {
            struct pollfd fds[2] = {{.fd = gyre_loop_fd(api.loop), .events = POLLIN},
                                    {.fd = peer.fd, .events = POLLIN}};
            int n = poll(fds, 2, (int)poll_ms(gyre_loop_timeout_ns(api.loop)));
            cr_assert(n != 0 || gyre_loop_timeout_ns(api.loop) >= 0, "poll(2) slept through an event of the loop");
            api_turn_now(&api);
            (void)peer_recv_some(&peer, SIZE_MAX);
            rounds++;
            cr_assert(env_now_ns() < end_ns, "stuck after %llu bytes", (unsigned long long)got);
        }
    }
    cr_assert_leq(rounds, 20 * 8, "%u turns for 20 exchanges", rounds);
    set(&w, MS(100), 0);
    for (rounds = 0; w.fired == 0; rounds++) {
        struct pollfd pfd = {.fd = gyre_loop_fd(api.loop), .events = POLLIN};
        (void)poll(&pfd, 1, (int)poll_ms(gyre_loop_timeout_ns(api.loop)));
        api_turn_now(&api);
    }
    cr_assert_leq(rounds, 20, "%u turns to wait for one timer", rounds);
    for (unsigned i = 0; i < 10; i++)
        api_turn_now(&api);
    cr_assert_eq(gyre_loop_timeout_ns(api.loop), -1);
    struct pollfd pfd = {.fd = gyre_loop_fd(api.loop), .events = POLLIN};
    cr_assert_eq(poll(&pfd, 1, 100), 0, "the descriptor of an idle loop polls readable");
    gyre_timer_destroy(w.timer);
    peer_close(&peer);
    api_close(&api);
}
