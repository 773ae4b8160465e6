/* SPDX-License-Identifier: MIT
 * Scripted peers, against each other and against descriptors of a backend. */
#include "sim_core.h"

static struct gyre_sim *make(struct gyre_sim_options options)
{
    struct gyre_sim *sim = NULL;
    int err = gyre_sim_create(&sim, &options);
    cr_assert_eq(err, 0);
    return sim;
}

static struct gyre_sim_peer *peer_connect(struct gyre_sim *sim, const char *address)
{
    struct gyre_sim_peer *peer = NULL;
    int err = gyre_sim_connect(&peer, sim, address);
    cr_assert_eq(err, 0, "gyre_sim_connect: %d", err);
    return peer;
}

/* Two peers meet, talk, half-close and part. */
Test(sim_peers, a_conversation)
{
    static const char *const addresses[] = {"tcp://127.0.0.1:7000", "tcp://[::1]:7000", "unix:///a", "unix://@a"};
    for (int i = 0; i < 4; i++) {
        struct gyre_sim *sim = make(SIM_QUIET_OPTIONS);
        struct gyre_sim_listener *listener = NULL;
        struct gyre_sim_peer *b = NULL;
        char buf[16];
        cr_assert_eq(gyre_sim_listen_peer(&listener, sim, addresses[i]), 0);
        cr_assert_str_eq(gyre_sim_listener_address(listener), addresses[i]);
        cr_assert_eq(gyre_sim_listener_accept(&b, listener), -EAGAIN);
        struct gyre_sim_peer *a = peer_connect(sim, addresses[i]);
        cr_assert_eq(gyre_sim_listener_accept(&b, listener), 0);
        gyre_sim_listener_close(listener);
        cr_assert_eq(gyre_sim_peer_state(a), GYRE_SIM_PEER_OPEN);
        cr_assert_eq(gyre_sim_peer_recv(buf, sizeof buf, b), -EAGAIN);
        cr_assert_eq(gyre_sim_peer_send(a, "hello", 5), 5);
        cr_assert_eq(gyre_sim_peer_inbound(b), 5);
        cr_assert_eq(gyre_sim_peer_shutdown(a), 0);
        cr_assert_not(gyre_sim_peer_eof(b), "there are bytes before the end");
        cr_assert_eq(gyre_sim_peer_recv(buf, 3, b), 3);
        cr_assert_eq(gyre_sim_peer_recv(buf + 3, 9, b), 2);
        cr_assert_eq(memcmp(buf, "hello", 5), 0);
        cr_assert(gyre_sim_peer_eof(b));
        cr_assert_eq(gyre_sim_peer_recv(buf, sizeof buf, b), 0);
        cr_assert_eq(gyre_sim_peer_send(a, "more", 4), -EPIPE);
        cr_assert_eq(gyre_sim_peer_send(b, "bye", 3), 3);
        gyre_sim_peer_close(b);
        cr_assert_eq(gyre_sim_peer_recv(buf, sizeof buf, a), 3);
        cr_assert(gyre_sim_peer_eof(a));
        cr_assert_eq(gyre_sim_peer_error(a), 0);
        gyre_sim_peer_close(a);
        gyre_sim_peer_close(NULL);
        gyre_sim_destroy(sim);
    }
}

/* What does not parse, or is in use, is refused at once; what fails on the network shows in the state. */
Test(sim_peers, that_fail)
{
    struct gyre_sim *sim = make(SIM_QUIET_OPTIONS);
    struct gyre_sim_peer *peer = NULL;
    struct gyre_sim_listener *listener = NULL, *other = NULL;
    char buf[4];
    cr_assert_eq(gyre_sim_connect(&peer, sim, "tcp://localhost"), GYRE_EADDRESS);
    cr_assert_eq(gyre_sim_connect(&peer, sim, "unix://"), GYRE_EPATHLEN);
    cr_assert_eq(gyre_sim_listen_peer(&listener, sim, "nonsense"), GYRE_EADDRESS);
    cr_assert_null(peer);
    cr_assert_eq(gyre_sim_listen_peer(&listener, sim, "tcp://127.0.0.1:1"), 0);
    cr_assert_eq(gyre_sim_listen_peer(&other, sim, "tcp://127.0.0.1:1"), -EADDRINUSE);

    peer = peer_connect(sim, "tcp://127.0.0.1:2");
    cr_assert_eq(gyre_sim_peer_state(peer), GYRE_SIM_PEER_FAILED);
    cr_assert_eq(gyre_sim_peer_error(peer), -ECONNREFUSED);
    cr_assert_eq(gyre_sim_peer_send(peer, "x", 1), -ECONNREFUSED);
    cr_assert_eq(gyre_sim_peer_recv(buf, 1, peer), -ECONNREFUSED);
    cr_assert_eq(gyre_sim_peer_inbound(peer) + gyre_sim_peer_unacked(peer), 0);
    cr_assert_eq(gyre_sim_peer_shutdown(peer), -ENOTCONN);
    gyre_sim_peer_close(peer);
    gyre_sim_destroy(sim);
}

/* A reset loses what is on its way and tells the other once; its state keeps it. */
Test(sim_peers, reset)
{
    struct gyre_sim *sim = make((struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .delay_min_ns = 1000});
    struct gyre_sim_listener *listener = NULL;
    struct gyre_sim_peer *b = NULL;
    char buf[16];
    cr_assert_eq(gyre_sim_listen_peer(&listener, sim, "tcp://127.0.0.1:0"), 0);
    struct gyre_sim_peer *a = peer_connect(sim, gyre_sim_listener_address(listener));
    cr_assert_eq(gyre_sim_peer_state(a), GYRE_SIM_PEER_CONNECTING);
    cr_assert_eq(gyre_sim_peer_send(a, "x", 1), 0);
    cr_assert_eq(gyre_sim_peer_recv(buf, 1, a), -EAGAIN);
    gyre_sim_advance(sim, 1999);
    cr_assert_eq(gyre_sim_peer_state(a), GYRE_SIM_PEER_CONNECTING);
    gyre_sim_advance(sim, 1);
    cr_assert_eq(gyre_sim_peer_state(a), GYRE_SIM_PEER_OPEN);
    cr_assert_eq(gyre_sim_listener_accept(&b, listener), 0);
    cr_assert_eq(gyre_sim_peer_send(a, "kept", 4), 4);
    cr_assert(gyre_sim_step(sim));
    cr_assert_eq(gyre_sim_peer_send(a, "lost", 4), 4);
    cr_assert_eq(gyre_sim_peer_unacked(a), 4);
    gyre_sim_peer_reset(a);
    cr_assert_eq(gyre_sim_peer_state(b), GYRE_SIM_PEER_OPEN);
    while (gyre_sim_step(sim))
        continue;
    cr_assert_eq(gyre_sim_peer_state(b), GYRE_SIM_PEER_FAILED);
    cr_assert_eq(gyre_sim_peer_error(b), -ECONNRESET);
    cr_assert_eq(gyre_sim_peer_recv(buf, sizeof buf, b), 4);
    cr_assert_eq(memcmp(buf, "kept", 4), 0);
    cr_assert_eq(gyre_sim_peer_recv(buf, sizeof buf, b), -ECONNRESET);
    cr_assert_eq(gyre_sim_peer_recv(buf, sizeof buf, b), 0);
    cr_assert_eq(gyre_sim_peer_send(b, "x", 1), -EPIPE);
    cr_assert_eq(gyre_sim_peer_state(b), GYRE_SIM_PEER_FAILED);
    cr_assert_eq(gyre_sim_peer_error(b), -ECONNRESET);
    gyre_sim_peer_close(b);
    gyre_sim_listener_close(listener);
    gyre_sim_destroy(sim);
}

/* A peer that does not read stalls a backend's send, and sets it free when it does. */
Test(sim_peers, stalls_a_sender)
{
    struct sim_core c;
    struct gyre__fd f;
    struct sim_op connect = {.events = 0}, send = {.events = 0};
    struct gyre_sim_listener *listener = NULL;
    struct gyre_sim_peer *peer = NULL;
    static uint8_t out[5000], in[5000];
    sim_core_open(
        &c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .send_buffer_bytes = 1000, .recv_buffer_bytes = 1000},
        NULL);
    env_pattern_fill(out, sizeof out, 2, 0);
    cr_assert_eq(gyre_sim_listen_peer(&listener, c.sim, "tcp://127.0.0.1:0"), 0);
    struct gyre__addr addr = sim_addr(gyre_sim_listener_address(listener));
    sim_open(&c, &f, AF_INET);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_outcome(&c, &connect), 0);
    cr_assert_eq(gyre_sim_listener_accept(&peer, listener), 0);
    size_t sent = 0, got = 0, stalls = 0;
    while (got < sizeof in) {
        if (sim_op_idle(&send) && sent < sizeof out)
            sim_send(&c, &send, &f, out + sent, (uint32_t)(sizeof out - sent));
        bool idle_before = sim_op_idle(&send);
        (void)sim_turn(&c, 0);
        if (!sim_op_idle(&send)) {
            stalls++;
            int64_t n = gyre_sim_peer_recv(in + got, 700, peer);
            cr_assert_gt(n, 0);
            got += (size_t)n;
            continue;
        }
        sent += idle_before ? 0 : (size_t)send.res;
        if (sent == sizeof out) {
            int64_t n = gyre_sim_peer_recv(in + got, sizeof in - got, peer);
            cr_assert_gt(n, 0);
            got += (size_t)n;
        }
    }
    cr_assert_gt(stalls, 2);
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
    sim_core_close(&c);
}

/* What is left open when the simulation ends is freed: peers, listeners, connections in their queues, descriptors. */
Test(sim_peers, destroy_frees_what_is_open)
{
    struct sim_core c;
    struct gyre__fd f;
    struct gyre_sim_listener *listener = NULL;
    struct gyre_sim_peer *b = NULL;
    sim_core_open(&c, (struct gyre_sim_options){.seed = 4, .reset_permille = GYRE_SIM_NEVER}, NULL);
    cr_assert_eq(gyre_sim_listen_peer(&listener, c.sim, "tcp://127.0.0.1:0"), 0);
    for (int i = 0; i < 8; i++) {
        struct gyre_sim_peer *a = peer_connect(c.sim, gyre_sim_listener_address(listener));
        if (i % 3 == 0)
            continue; /* under way when it ends */
        while (gyre_sim_peer_state(a) == GYRE_SIM_PEER_CONNECTING)
            cr_assert(gyre_sim_step(c.sim));
        (void)gyre_sim_peer_send(a, "bytes on their way", 18);
        if (i % 3 == 2)
            gyre_sim_peer_close(a);
        if (i == 4)
            cr_assert_eq(gyre_sim_listener_accept(&b, listener), 0);
    }
    sim_open(&c, &f, AF_UNIX);
    sim_core_close(&c);
}
