/* SPDX-License-Identifier: MIT
 * Whole loops on the simulated network: gyre_sim_run() and how it ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <gyre/conn.h>
#include <gyre/engine.h>
#include <gyre/loop.h>
#include <gyre/sim.h>
#include <gyre/timer.h>
#include <string.h>

#define HOUR_NS INT64_C(3600000000000)

static struct gyre_sim *make_sim(uint64_t seed, enum gyre_sim_profile profile)
{
    struct gyre_sim *sim = NULL;
    struct gyre_sim_options options = {.seed = seed,
                                       .profile = profile,
                                       .reset_permille = GYRE_SIM_NEVER,
                                       .accept_aborted_permille = GYRE_SIM_NEVER,
                                       .connect_timeout_permille = GYRE_SIM_NEVER,
                                       .connect_unreachable_permille = GYRE_SIM_NEVER};
    cr_assert_eq(gyre_sim_create(&sim, &options), 0);
    return sim;
}

static struct gyre_loop *make_loop(struct gyre_sim *sim)
{
    struct gyre_loop *loop = NULL;
    int err = gyre_loop_create(&loop, &(struct gyre_loop_options){.sim = sim});
    cr_assert_eq(err, 0, "gyre_loop_create: %s", gyre_err_name(err));
    return loop;
}

/* ---- An echo server on one loop, clients on another ---- */

enum { CLIENTS = 5, BYTES = 30000 };

struct client {
    uint32_t got;
    bool wrong;
    bool closed;
    int err;
};

struct scene {
    struct gyre_sim *sim;
    struct gyre_loop *loops[2];
    struct client clients[CLIENTS];
    unsigned closed;
};

static uint8_t byte_at(const struct client *c, const struct scene *s, uint32_t offset)
{
    return (uint8_t)(offset * 31 + offset / 251 + (uint32_t)(c - s->clients));
}

static struct scene *scene_now;

static void on_echo(struct gyre_conn *c)
{
    int64_t n = gyre_conn_forward(c, c, SIZE_MAX);
    cr_assert_geq(n, 0);
}

static void on_client_data(struct gyre_conn *c)
{
    struct client *me = gyre_conn_user(c);
    struct gyre_slice piece;
    while (gyre_conn_inbound(c) > 0) {
        cr_assert_eq(gyre_conn_next(&piece, c, 0), 0);
        size_t len = piece.len;
        cr_assert_gt(len, 0);
        for (size_t i = 0; i < len; i++)
            me->wrong |= ((const uint8_t *)piece.data)[i] != byte_at(me, scene_now, me->got + (uint32_t)i);
        me->got += (uint32_t)len;
    }
    if (me->got == BYTES)
        (void)gyre_conn_close(c);
}

static void on_client_close(struct gyre_conn *c, int err)
{
    struct client *me = gyre_conn_user(c);
    me->closed = true;
    me->err = err;
    scene_now->closed++;
}

static const struct gyre_conn_handlers echo = {.on_data = on_echo};
static const struct gyre_conn_handlers client = {.on_data = on_client_data, .on_close = on_client_close};

static bool all_closed(void *user)
{
    const struct scene *s = user;
    return s->closed == CLIENTS && gyre_loop_conn_count(s->loops[1]) == 0;
}

static uint64_t play(uint64_t seed, enum gyre_sim_profile profile)
{
    static struct scene s;
    static uint8_t bytes[BYTES];
    struct gyre_listener *listener = NULL;
    memset(&s, 0, sizeof s);
    scene_now = &s;
    s.sim = make_sim(seed, profile);
    s.loops[0] = make_loop(s.sim);
    s.loops[1] = make_loop(s.sim);
    cr_assert_eq(gyre_loop_listen(&listener, s.loops[1], "tcp://127.0.0.1:0", &echo, NULL), 0);
    for (int i = 0; i < CLIENTS; i++) {
        struct gyre_conn *c = NULL;
        struct gyre_conn_options options = {.user = &s.clients[i]};
        for (uint32_t k = 0; k < BYTES; k++)
            bytes[k] = byte_at(&s.clients[i], &s, k);
        cr_assert_eq(gyre_connect(&c, s.loops[0], gyre_listener_address(listener), &client, &options), 0);
        cr_assert_eq(gyre_conn_write(c, bytes, BYTES), 0);
    }
    int err = gyre_sim_run(s.sim, s.loops, 2, 1000000, all_closed, &s);
    cr_assert_eq(err, 0, "seed %llu: gyre_sim_run: %s", (unsigned long long)seed, gyre_err_name(err));
    for (int i = 0; i < CLIENTS; i++) {
        cr_assert_eq(s.clients[i].got, BYTES);
        cr_assert_not(s.clients[i].wrong);
        cr_assert_eq(s.clients[i].err, 0);
    }
    uint64_t hash = gyre_sim_trace_hash(s.sim);
    gyre_loop_destroy(s.loops[0]);
    gyre_loop_destroy(s.loops[1]);
    gyre_sim_destroy(s.sim);
    return hash;
}

/* Every byte comes back, whatever the seed; the same seed gives the same run. */
Test(sim_run, echo_between_loops)
{
    for (uint64_t seed = 0; seed < 20; seed++)
        cr_assert_eq(play(seed, GYRE_SIM_CHAOS), play(seed, GYRE_SIM_CHAOS), "seed %llu does not replay",
                     (unsigned long long)seed);
    cr_assert_neq(play(1, GYRE_SIM_CHAOS), play(2, GYRE_SIM_CHAOS));
    (void)play(3, GYRE_SIM_QUIET);
}

/* ---- Timers ---- */

struct clockwork {
    struct gyre_sim *sim;
    uint64_t rang_ns;
};

static void on_ring(struct gyre_timer *timer, void *user)
{
    struct clockwork *w = user;
    (void)timer;
    w->rang_ns = gyre_sim_now_ns(w->sim);
}

static bool rang(void *user)
{
    return ((struct clockwork *)user)->rang_ns != 0;
}

/* An hour passes in no time, and the timer goes off at its end, not before. */
Test(sim_run, time_goes_from_timer_to_timer)
{
    struct clockwork w = {.sim = make_sim(1, GYRE_SIM_QUIET)};
    struct gyre_loop *loop = make_loop(w.sim);
    struct gyre_timer *timer = NULL;
    cr_assert_eq(gyre_timer_create(&timer, loop, on_ring, &w), 0);
    uint64_t start_ns = gyre_sim_now_ns(w.sim);
    cr_assert_eq(gyre_timer_start(timer, HOUR_NS, 0), 0);
    cr_assert_eq(gyre_sim_run(w.sim, &loop, 1, 100000, rang, &w), 0);
    cr_assert_geq(w.rang_ns, start_ns + (uint64_t)HOUR_NS, "it went off early");
    cr_assert_leq(w.rang_ns, start_ns + (uint64_t)HOUR_NS + 10000000u, "it went off late");
    gyre_timer_destroy(timer);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(w.sim);
}

/* ---- How it ends ---- */

static bool never(void *user)
{
    unsigned *asked = user;
    if (asked != NULL)
        (*asked)++;
    return false;
}

/* Nothing can happen any more: that is an error if something was waited for, and the end if not. */
Test(sim_run, nothing_can_happen)
{
    struct gyre_sim *sim = make_sim(1, GYRE_SIM_QUIET);
    struct gyre_loop *loop = make_loop(sim);
    cr_assert_eq(gyre_sim_run(sim, &loop, 1, 100000, never, NULL), -EDEADLK);
    cr_assert_eq(gyre_sim_run(sim, &loop, 1, 100000, NULL, NULL), 0);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(sim);
}

/* The limit on rounds is kept. */
Test(sim_run, rounds_run_out)
{
    struct clockwork w = {.sim = make_sim(1, GYRE_SIM_QUIET)};
    struct gyre_loop *loop = make_loop(w.sim);
    struct gyre_timer *timer = NULL;
    unsigned asked = 0;
    cr_assert_eq(gyre_timer_create(&timer, loop, on_ring, &w), 0);
    cr_assert_eq(gyre_timer_start(timer, 1000000, 1000000), 0);
    cr_assert_eq(gyre_sim_run(w.sim, &loop, 1, 50, never, &asked), -ETIMEDOUT);
    cr_assert_eq(asked, 50);
    gyre_timer_destroy(timer);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(w.sim);
}

/* ---- A handler and a scripted peer ---- */

struct visit {
    struct gyre_sim_peer *peer;
    char answer[16];
    size_t got;
    size_t said;
};

/* Says "ping" a byte at a time, each when the answer to the one before is here. */
static bool visit(void *user)
{
    struct visit *v = user;
    int64_t n = gyre_sim_peer_recv(v->answer + v->got, sizeof v->answer - v->got, v->peer);
    v->got += n > 0 ? (size_t)n : 0;
    if (v->said < 4 && v->said == v->got)
        v->said += (size_t)gyre_sim_peer_send(v->peer, &"ping"[v->said], 1);
    return v->got == 4;
}

/* A peer driven by hand talks to a handler. */
Test(sim_run, scripted_peer_meets_a_handler)
{
    struct gyre_sim *sim = make_sim(7, GYRE_SIM_CHAOS);
    struct gyre_loop *loop = make_loop(sim);
    struct gyre_listener *listener = NULL;
    struct visit v = {.got = 0};
    cr_assert_eq(gyre_loop_listen(&listener, loop, "unix://@echo", &echo, NULL), 0);
    cr_assert_eq(gyre_sim_connect(&v.peer, sim, "unix://@echo"), 0);
    cr_assert_eq(gyre_sim_run(sim, &loop, 1, 10000, visit, &v), 0);
    cr_assert_eq(memcmp(v.answer, "ping", 4), 0);
    gyre_sim_peer_reset(v.peer);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(sim);
}
