/* SPDX-License-Identifier: MIT
 * An engine of three loops that serves an echo on the simulated network, and clients that come and leave. */
#ifndef GYRE_TEST_API_CITY_H
#define GYRE_TEST_API_CITY_H

#include "fixture.h"

#include <errno.h>
#include <string.h>

enum { LOOPS = 3, PEERS_MAX = 24, ROUNDS_MAX = 200000 };

struct city {
    struct env_mem mem;
    struct gyre_sim *sim;
    struct gyre_engine *engine;
    struct gyre_loop *loops[LOOPS];
    struct gyre_listener *listener;
    struct gyre_sim_peer *peers[PEERS_MAX];
    unsigned peer_count;
    unsigned opens[LOOPS], closes[LOOPS], order[PEERS_MAX], opened;
    unsigned asked, listener_closed, calls, dones;
    struct gyre_broadcast_result cast;
};

static struct city city;

static inline unsigned index_of(const struct gyre_loop *loop)
{
    unsigned i = 0;
    while (city.loops[i] != loop)
        i++;
    return i;
}

static inline void on_open(struct gyre_conn *c)
{
    unsigned loop = index_of(gyre_conn_loop(c));
    cr_assert(gyre_loop_is_current(gyre_conn_loop(c)));
    city.opens[loop]++;
    if (city.opened < PEERS_MAX)
        city.order[city.opened] = loop;
    city.opened++;
}

static inline void on_data(struct gyre_conn *c)
{
    cr_assert_geq(gyre_conn_forward(c, c, SIZE_MAX), 0);
}

static inline void on_close(struct gyre_conn *c, int err)
{
    (void)err;
    city.closes[index_of(gyre_conn_loop(c))]++;
}

static const struct gyre_conn_handlers echo = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static inline void on_listener_closed(void *user)
{
    cr_assert_eq(user, &city);
    city.listener_closed++;
}

/* ---- making it ---- */

static inline void found(uint32_t loop_max, uint32_t engine_max)
{
    city = (struct city){.opened = 0};
    env_mem_init(&city.mem);
    const struct gyre_sim_options sim = {.seed = 5,
                                         .mem = &city.mem.mem,
                                         .accept_emfile_permille = GYRE_SIM_NEVER,
                                         .accept_aborted_permille = GYRE_SIM_NEVER,
                                         .connect_timeout_permille = GYRE_SIM_NEVER,
                                         .connect_unreachable_permille = GYRE_SIM_NEVER,
                                         .reset_permille = GYRE_SIM_NEVER};
    cr_assert_eq(gyre_sim_create(&city.sim, &sim), 0);
    const struct gyre_loop_options loop = {.sim = city.sim, .mem = &city.mem.mem, .conns_max = loop_max};
    const struct gyre_engine_options options = {.loops = LOOPS, .loop = loop, .conns_max = engine_max};
    cr_assert_eq(gyre_engine_create(&city.engine, &options), 0);
    for (uint32_t i = 0; i < LOOPS; i++)
        city.loops[i] = gyre_engine_loop(city.engine, i);
}

static inline void open_gates(const char *address, struct gyre_listener_options options)
{
    options.user = &city;
    options.on_closed = on_listener_closed;
    int err = gyre_engine_listen(&city.listener, city.engine, address, &echo, &options);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
}

static inline void run_until(gyre_sim_until_fn *until)
{
    int err = gyre_sim_run(city.sim, city.loops, LOOPS, ROUNDS_MAX, until, NULL);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
}

static inline void run_for(int64_t ns)
{
    for (unsigned i = 0; i < 100; i++) {
        gyre_sim_advance(city.sim, (uint64_t)ns / 100);
        for (unsigned k = 0; k < 10 * LOOPS; k++)
            cr_assert_geq(gyre_loop_run_nowait(city.loops[k % LOOPS]), 0);
    }
}

static inline struct gyre_sim_peer *come(void)
{
    struct gyre_sim_peer **peer = &city.peers[city.peer_count++];
    cr_assert_eq(gyre_sim_connect(peer, city.sim, gyre_listener_address(city.listener)), 0);
    return *peer;
}

static inline void leave(unsigned i)
{
    gyre_sim_peer_close(city.peers[i]);
    city.peers[i] = NULL;
}

static inline void raze(void)
{
    for (unsigned i = 0; i < city.peer_count; i++)
        leave(i);
    gyre_engine_destroy(city.engine);
    gyre_sim_destroy(city.sim);
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(city.opens[i], city.closes[i], "an on_close is missing");
    cr_assert_eq(atomic_load(&city.mem.blocks), 0, "%ld blocks are not freed", atomic_load(&city.mem.blocks));
}

static unsigned wanted;

static inline bool all_open(void *user)
{
    (void)user;
    return city.opened >= wanted;
}

static inline bool all_gone(void *user)
{
    (void)user;
    return gyre_engine_conn_count(city.engine) <= wanted;
}

static inline void come_and_open(unsigned count)
{
    wanted = city.opened + count;
    for (unsigned i = 0; i < count; i++)
        (void)come();
    run_until(all_open);
    cr_assert_eq(city.opened, wanted);
}

static inline void expect_echo(unsigned i)
{
    char got[6] = "";
    int64_t n = -EAGAIN;
    while (gyre_sim_peer_send(city.peers[i], "hello", 5) == 0)
        run_for(MS(1));
    for (size_t at = 0; at < 5; at += n > 0 ? (size_t)n : 0) {
        run_for(MS(1));
        n = gyre_sim_peer_recv(got + at, 5 - at, city.peers[i]);
        cr_assert(n > 0 || n == -EAGAIN, "%lld", (long long)n);
    }
    cr_assert_eq(strcmp(got, "hello"), 0);
}

#endif
