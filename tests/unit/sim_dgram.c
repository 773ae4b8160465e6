/* SPDX-License-Identifier: MIT
 * Datagrams on the simulated network: lost, repeated and overtaken as the seed has it, and the same way every time. */
#include "env.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <gyre.h>
#include <string.h>

enum { COUNT = 2000 };

struct run {
    struct gyre_sim_counts counts;
    uint64_t hash;
    unsigned received, overtaken;
    uint8_t seen[COUNT];
    uint32_t newest;
    struct gyre_udp_counts stats;
};

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct run *r = gyre_udp_user(u);
    uint32_t number;
    cr_assert_eq(d->data.len, sizeof number);
    memcpy(&number, d->data.data, sizeof number);
    cr_assert_lt(number, COUNT);
    r->received++;
    r->seen[number]++;
    r->overtaken += number < r->newest;
    r->newest = number;
}

static const struct gyre_udp_handlers handlers = {.on_datagram = on_datagram};

/* Send them a few at a time, each turn its own instant, until all that will come has come. */
static void run(struct run *r, const struct gyre_sim_options *options, const char *address)
{
    struct gyre_sim *sim;
    struct gyre_loop *loop;
    struct gyre_udp *server, *client;
    memset(r, 0, sizeof *r);
    cr_assert_eq(gyre_sim_create(&sim, options), 0);
    cr_assert_eq(gyre_loop_create(&loop, &(struct gyre_loop_options){.sim = sim}), 0);
    const struct gyre_udp_options o = {.user = r};
    cr_assert_eq(gyre_udp_open(&server, loop, address, &handlers, &o), 0);
    cr_assert_eq(gyre_udp_connect(&client, loop, gyre_udp_address(server), &handlers, &o), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        cr_assert_eq(gyre_udp_send(client, &i, sizeof i), 0);
        if (i % 4 == 3)
            gyre_sim_advance(sim, 100000);
        for (unsigned k = 0; i % 4 == 3 && k < 8; k++)
            cr_assert_geq(gyre_loop_run_nowait(loop), 0);
    }
    cr_assert_eq(gyre_sim_run(sim, &loop, 1, 1000000, NULL, NULL), 0);
    cr_assert_eq(gyre_udp_outbound(client), 0);
    gyre_udp_stats(&r->stats, server);
    gyre_sim_stats(&r->counts, sim);
    r->hash = gyre_sim_trace_hash(sim);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(sim);
}

/* In chaos all three happen; nothing else does; and what the network says it did is what arrived. */
Test(sim_dgram, chaos)
{
    static struct run a, b;
    const struct gyre_sim_options options = {.seed = 9, .recv_buffer_bytes = 1 << 20};
    run(&a, &options, "udp://127.0.0.1:0");
    cr_assert_eq(a.counts.datagrams, COUNT);
    cr_assert_gt(a.counts.datagrams_lost, 0);
    cr_assert_gt(a.counts.datagrams_repeated, 0);
    cr_assert_gt(a.overtaken, 0);
    cr_assert_eq(a.received, COUNT - a.counts.datagrams_lost + a.counts.datagrams_repeated);
    unsigned missing = 0, twice = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        missing += a.seen[i] == 0;
        twice += a.seen[i] == 2;
        cr_assert_leq(a.seen[i], 2);
    }
    cr_assert_eq(missing, a.counts.datagrams_lost);
    cr_assert_eq(twice, a.counts.datagrams_repeated);
    run(&b, &options, "udp://127.0.0.1:0");
    cr_assert_eq(a.hash, b.hash, "the same seed, another run");
    const struct gyre_sim_options other = {.seed = 10, .recv_buffer_bytes = 1 << 20};
    run(&b, &other, "udp://127.0.0.1:0");
    cr_assert_neq(a.hash, b.hash, "another seed, the same run");
}

/* When quiet, nothing of that happens, and never on unix. */
Test(sim_dgram, quiet_and_unix)
{
    static struct run r;
    const struct gyre_sim_options quiet = {.seed = 9, .profile = GYRE_SIM_QUIET}, chaos = {.seed = 9};
    run(&r, &quiet, "udp://[::1]:0");
    cr_assert_eq(r.received, COUNT);
    cr_assert_eq(r.overtaken, 0);
    run(&r, &chaos, "unixgram:///any/name");
    cr_assert_eq(r.received, COUNT);
    cr_assert_eq(r.overtaken, 0);
    cr_assert_eq(r.counts.datagrams_lost, 0);
}

/* A receiver that does not come round to it: its buffer is bounded, and what did not fit is counted. */
Test(sim_dgram, full)
{
    struct gyre_sim *sim;
    struct gyre_loop *loop;
    struct gyre_udp *server, *client;
    static struct run r;
    static const uint8_t bytes[1000];
    struct gyre_udp_counts stats;
    const struct gyre_sim_options options = {.profile = GYRE_SIM_QUIET, .recv_buffer_bytes = 10000};
    cr_assert_eq(gyre_sim_create(&sim, &options), 0);
    cr_assert_eq(gyre_loop_create(&loop, &(struct gyre_loop_options){.sim = sim}), 0);
    const struct gyre_udp_options paused = {.user = &r, .start_paused = true};
    cr_assert_eq(gyre_udp_open(&server, loop, "udp://:0", &handlers, &paused), 0);
    cr_assert_eq(gyre_udp_connect(&client, loop, gyre_udp_address(server), &handlers, NULL), 0);
    for (unsigned i = 0; i < 25; i++)
        cr_assert_eq(gyre_udp_send(client, bytes, sizeof bytes), 0);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_geq(gyre_loop_run_nowait(loop), 0);
    gyre_udp_stats(&stats, server);
    cr_assert_eq(stats.kernel_dropped, 15);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(sim);
}
