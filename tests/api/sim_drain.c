/* SPDX-License-Identifier: MIT
 * Draining an engine on the simulated network, whose clock tells when each connection is told and when it is closed. */
#include "city.h"

static unsigned told;

static void on_drain_begin(struct gyre_conn *c)
{
    cr_assert(gyre_conn_is_draining(c));
    told++;
    cr_assert_eq(gyre_conn_close(c), 0);
}

static bool eight_told(void *user)
{
    (void)user;
    return told >= 8;
}

/* With a spread, some are told early and some late; each is told once, and closed. */
Test(api_sim_drain, spread)
{
    told = 0;
    found(0, 0);
    open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.conn = {.on_drain_begin = on_drain_begin}});
    come_and_open(PEERS_MAX);
    uint64_t start_ns = gyre_loop_now_ns(city.loops[0]);
    cr_assert_eq(gyre_engine_drain(city.engine, &(struct gyre_drain_options){.spread_ns = MS(1000)}), 0);
    run_until(eight_told);
    cr_assert_leq(told, PEERS_MAX - 8, "%u of %u were told at once", told, PEERS_MAX);
    uint64_t early_ns = gyre_loop_now_ns(city.loops[0]) - start_ns;
    cr_assert_lt(early_ns, (uint64_t)MS(900));
    run_for(MS(1100));
    cr_assert_eq(told, PEERS_MAX);
    for (unsigned i = 0; i < city.peer_count; i++)
        gyre_sim_peer_close(city.peers[i]), city.peers[i] = NULL;
    city.peer_count = 0;
    wanted = 0;
    run_until(all_gone);
    raze();
}

/* Without on_drain_begin: an idle one is closed after the quiet time, one that owes an answer at the deadline. */
Test(api_sim_drain, quiet_and_deadline)
{
    found(0, 0);
    open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.conn = {.start_paused = false}});
    come_and_open(3);
    expect_echo(0);
    const struct gyre_drain_options options = {.deadline_ns = MS(5000), .quiet_ns = MS(1000)};
    cr_assert_eq(gyre_engine_drain(city.engine, &options), 0);
    run_for(MS(700));
    cr_assert_eq(gyre_engine_conn_count(city.engine), 3, "a connection was closed before it had been quiet");
    expect_echo(1); /* which begins its quiet time anew */
    run_for(MS(4000));
    for (unsigned i = 0; i < 3; i++) {
        char byte;
        cr_assert_eq(gyre_sim_peer_recv(&byte, 1, city.peers[i]), 0, "it was not closed gracefully");
    }
    raze();
}
