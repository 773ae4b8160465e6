/* SPDX-License-Identifier: MIT
 * Each thing that can go wrong on the simulated network, one at a time. */
#include "sim_core.h"

#include <stddef.h>
#include <sys/uio.h>

#define SECOND_NS UINT64_C(1000000000)

static void pool_open(struct sim_core *c, struct gyre__bufpool *pool, uint32_t size_bytes, uint32_t count)
{
    cr_assert_eq(gyre__bufpool_init(pool, &c->mem.mem, size_bytes, count, count), 0);
    cr_assert_eq(c->be->ops->pool_add(c->be, pool), 0);
}

static void pool_close(struct sim_core *c, struct gyre__bufpool *pool)
{
    c->be->ops->pool_remove(c->be, pool);
    cr_assert_eq(gyre__bufpool_available(pool), pool->count_max);
    gyre__bufpool_fini(pool);
}

/* ---- Operations ---- */

/* Short receives and sends lose nothing. */
Test(sim_faults, short_counts)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op send = {.events = 0}, recv = {.events = 0};
    static uint8_t out[20000], in[20000];
    sim_core_open(
        &c,
        (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .recv_short_permille = 1000, .send_short_permille = 1000},
        NULL);
    env_pattern_fill(out, sizeof out, 9, 0);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    uint32_t sent = 0, got = 0;
    while (got < sizeof in) {
        if (sent < sizeof out) {
            sim_send(&c, &send, &a, out + sent, (uint32_t)sizeof out - sent);
            sent += (uint32_t)sim_outcome(&c, &send);
        }
        sim_recv(&c, &recv, &b, in + got, (uint32_t)sizeof in - got);
        cr_assert_gt(sim_outcome(&c, &recv), 0);
        got += (uint32_t)recv.res;
    }
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
    cr_assert_gt(sim_counts_of(&c).sends_short, 5);
    cr_assert_gt(sim_counts_of(&c).recvs_short, 5);
    sim_core_close(&c);
}

/* A multishot receive that ends with data, always or because multishot is off, brings its data all the same. */
Test(sim_faults, multishot_ends_at_any_event)
{
    static const struct {
        uint16_t permille;
        const char *off;
        unsigned lasts; /* of three events */
    } cases[] = {{0, NULL, 0}, {1000, NULL, 3}, {0, "multishot_accept,multishot_recv", 3}, {0, "multishot", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sim_core c;
        struct gyre__fd a, b;
        struct gyre__bufpool pool;
        struct sim_op recv = {.events = 0};
        sim_core_open(&c,
                      (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .more_dropped_permille = cases[i].permille},
                      cases[i].off);
        pool_open(&c, &pool, 512, 4);
        sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
        for (unsigned n = 1; n <= 3; n++) {
            if (sim_op_idle(&recv))
                sim_recv_pool(&c, &recv, &b, &pool, GYRE_OPF_MULTI);
            cr_assert_eq(sim_send_now(&c, &a, "xyz", 3), 3);
            cr_assert_eq(recv.events == n || sim_turn(&c, 0) == 1, true);
            cr_assert_eq(recv.res, 3);
            cr_assert_eq(memcmp(gyre__bufpool_data(&pool, recv.buf), "xyz", 3), 0);
            gyre__bufpool_release(&pool, recv.buf);
        }
        cr_assert_eq(recv.lasts, cases[i].lasts);
        if (!sim_op_idle(&recv)) {
            sim_cancel(&c, &recv);
            cr_assert_eq(sim_outcome(&c, &recv), -ECANCELED);
        }
        pool_close(&c, &pool);
        sim_core_close(&c);
    }
}

/* Multishot accept likewise. */
Test(sim_faults, multishot_accept_may_be_off)
{
    struct sim_core c;
    struct gyre__fd l, f;
    struct sim_op accept = {.events = 0}, connect = {.events = 0};
    char features[128];
    sim_core_open(&c, SIM_QUIET_OPTIONS, "multishot_accept");
    c.be->ops->features(c.be, features, sizeof features);
    cr_assert_null(strstr(features, "multishot_accept"));
    cr_assert_not_null(strstr(features, "multishot_recv"));
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    sim_accept(&c, &accept, &l, GYRE_OPF_MULTI);
    sim_open(&c, &f, AF_INET);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_outcome(&c, &connect), 0);
    cr_assert_geq(sim_outcome(&c, &accept), 1000000);
    sim_core_close(&c);
}

/* No buffer, in truth or so said: the operation ends, no byte is lost, no buffer either. */
Test(sim_faults, enobufs_loses_nothing)
{
    for (unsigned said = 0; said < 2; said++) {
        struct sim_core c;
        struct gyre__fd a, b;
        struct gyre__bufpool pool;
        struct sim_op recv = {.events = 0};
        sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .enobufs_permille = said ? 500 : 0},
                      NULL);
        pool_open(&c, &pool, 1, 1);
        sim_pair(&c, "unix://@x", &a, &b);
        cr_assert_eq(sim_send_now(&c, &a, "abcdefgh", 8), 8);
        unsigned starved = 0;
        for (char next = 'a'; next <= 'h';) {
            sim_recv_pool(&c, &recv, &b, &pool, 0);
            int res = sim_outcome(&c, &recv);
            if (res == -ENOBUFS) {
                starved++;
                continue;
            }
            cr_assert_eq(res, 1);
            cr_assert_eq(*gyre__bufpool_data(&pool, recv.buf), next++);
            uint16_t buf = recv.buf;
            sim_recv_pool(&c, &recv, &b, &pool, 0);
            if (next <= 'h')
                cr_assert_eq(sim_outcome(&c, &recv), -ENOBUFS, "the only buffer is out");
            sim_cancel(&c, &recv);
            (void)sim_outcome(&c, &recv);
            gyre__bufpool_release(&pool, buf);
        }
        cr_assert_eq(starved > 0, said);
        cr_assert_eq(sim_counts_of(&c).enobufs, starved + 7);
        pool_close(&c, &pool);
        sim_core_close(&c);
    }
}

/* A cancel that is late comes a few turns later, and no time need pass; data that comes first comes first. */
Test(sim_faults, late_cancels)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op recv = {.events = 0}, send = {.events = 0};
    unsigned late = 0, data = 0;
    char buf[4];
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .cancel_late_permille = 1000}, NULL);
    sim_pair(&c, "unix://@x", &a, &b);
    for (int i = 0; i < 40; i++) {
        sim_recv(&c, &recv, &b, buf, sizeof buf);
        (void)sim_turn(&c, 0);
        sim_cancel(&c, &recv);
        if (i % 2)
            sim_send(&c, &send, &a, "x", 1);
        unsigned turns = 0;
        for (; !sim_op_idle(&recv) || !sim_op_idle(&send); turns++)
            (void)sim_turn(&c, 0);
        late += turns > 1;
        data += recv.res == 1;
        cr_assert(recv.res == 1 || recv.res == -ECANCELED);
        while (c.be->ops->sock->unacked(c.be, a.fd) > 0 || recv.res == -ECANCELED) {
            if (i % 2 == 0)
                break;
            sim_recv(&c, &recv, &b, buf, sizeof buf);
            cr_assert_eq(sim_outcome(&c, &recv), 1, "the byte is still there");
        }
    }
    cr_assert_gt(late, 10);
    cr_assert_gt(data, 5);
    cr_assert_eq(sim_counts_of(&c).cancels_late, 40);
    sim_core_close(&c);
}

/* A cancelled send says how many bytes had moved, and as many arrive. */
Test(sim_faults, cancelled_send_says_how_far_it_got)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op send = {.events = 0}, recv = {.events = 0};
    static uint8_t out[100000], in[100000];
    unsigned partial = 0;
    sim_core_open(&c,
                  (struct gyre_sim_options){.seed = 3,
                                            .delay_max_ns = GYRE_SIM_NO_DELAY,
                                            .reset_permille = GYRE_SIM_NEVER,
                                            .send_short_permille = 1000},
                  NULL);
    sim_pair(&c, "unix://@x", &a, &b);
    for (int i = 0; i < 50; i++) {
        sim_send(&c, &send, &a, out, sizeof out);
        for (int turns = 0; turns < i % 3; turns++)
            (void)sim_turn(&c, 0);
        sim_cancel(&c, &send);
        int sent = sim_outcome(&c, &send);
        cr_assert(sent > 0 || sent == -ECANCELED);
        partial += sent > 0;
        for (int got = 0; got < sent;) {
            sim_recv(&c, &recv, &b, in, sizeof in);
            cr_assert_gt(sim_outcome(&c, &recv), 0);
            got += recv.res;
            cr_assert_leq(got, sent, "more came than was told");
        }
    }
    cr_assert_gt(partial, 5);
    sim_core_close(&c);
}

/* A send that has moved a part and then finds the connection reset tells the part; the error is for the next. */
Test(sim_faults, reset_send_says_how_far_it_got)
{
    static uint8_t out[100000], in[100];
    unsigned partial = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct sim_core c;
        struct gyre__fd a, b;
        struct sim_op send = {.events = 0}, recv = {.events = 0};
        sim_core_open(&c,
                      (struct gyre_sim_options){.seed = seed,
                                                .delay_max_ns = GYRE_SIM_NO_DELAY,
                                                .reset_permille = GYRE_SIM_NEVER,
                                                .loss_permille = GYRE_SIM_NEVER,
                                                .send_short_permille = 1000},
                      NULL);
        sim_pair(&c, seed % 2 ? "unix://@x" : "tcp://127.0.0.1:0", &a, &b);
        c.cap = 1;
        sim_send(&c, &send, &a, out, sizeof out);
        sim_recv(&c, &recv, &b, in, sizeof in);
        cr_assert_gt(sim_outcome(&c, &recv), 0);
        partial += !sim_op_idle(&send);
        cr_assert_eq(c.be->ops->sock->set_reset(c.be, b.fd), 0);
        sim_close(&c, &b);
        cr_assert_geq(sim_outcome(&c, &send), recv.res, "bytes that were read are not told as sent");
        cr_assert_lt(sim_send_now(&c, &a, out, 1), 0);
        sim_core_close(&c);
    }
    cr_assert_gt(partial, 5);
}

/* A cancelled connect ends its operation; the connection may come about all the same. */
Test(sim_faults, cancelled_connect)
{
    struct sim_core c;
    struct gyre__fd l, f;
    struct sim_op connect = {.events = 0}, accept = {.events = 0};
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .delay_min_ns = 500}, NULL);
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    sim_open(&c, &f, AF_INET);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_turn(&c, 0), 0);
    sim_cancel(&c, &connect);
    cr_assert_eq(sim_turn(&c, 0), 1);
    cr_assert_eq(connect.res, -ECANCELED);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_outcome(&c, &connect), -EALREADY);
    sim_accept(&c, &accept, &l, 0);
    cr_assert_geq(sim_outcome(&c, &accept), 1000000);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_outcome(&c, &connect), -EISCONN);
    sim_core_close(&c);
}

/* Of operations that are ready together any may come first. */
Test(sim_faults, events_change_places)
{
    unsigned first_a = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sim_core c;
        struct gyre__fd a, b;
        struct sim_op recv_a = {.events = 0}, recv_b = {.events = 0};
        struct gyre__event ev[2];
        char byte[2];
        sim_core_open(&c, (struct gyre_sim_options){.seed = seed, .profile = GYRE_SIM_QUIET, .shuffle_permille = 1000},
                      NULL);
        sim_pair(&c, "unix://@x", &a, &b);
        cr_assert_eq(sim_send_now(&c, &a, "x", 1) + sim_send_now(&c, &b, "x", 1), 2);
        sim_recv(&c, &recv_a, &a, &byte[0], 1);
        sim_recv(&c, &recv_b, &b, &byte[1], 1);
        cr_assert_eq(c.be->ops->wait(c.be, ev, 2, 0), 2);
        first_a += ev[0].op == &recv_a.op;
        sim_dispatch(&c, &ev[0]);
        sim_dispatch(&c, &ev[1]);
        sim_core_close(&c);
    }
    cr_assert(first_a > 8 && first_a < 32, "the first was first in %u of 40", first_a);
}

/* ---- The network ---- */

/* Accepts fail: out of descriptors, and the connection stays; aborted, and it is gone. */
Test(sim_faults, accept_errors)
{
    struct sim_core c;
    struct gyre__fd l, f;
    struct sim_op accept = {.events = 0}, connect = {.events = 0}, recv = {.events = 0};
    unsigned emfile = 0, aborted = 0, accepted = 0, reset = 0;
    char byte;
    sim_core_open(&c,
                  (struct gyre_sim_options){
                      .profile = GYRE_SIM_QUIET, .accept_emfile_permille = 300, .accept_aborted_permille = 300},
                  NULL);
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    for (int i = 0; i < 60; i++) {
        sim_open(&c, &f, AF_INET);
        sim_connect(&c, &connect, &f, &addr);
        cr_assert_eq(sim_outcome(&c, &connect), 0);
        int res;
        do {
            sim_accept(&c, &accept, &l, GYRE_OPF_MULTI);
            res = sim_turn(&c, 0) == 1 ? accept.res : 0;
            if (!sim_op_idle(&accept)) {
                sim_cancel(&c, &accept);
                cr_assert_eq(sim_outcome(&c, &accept), -ECANCELED);
            }
            emfile += res == -EMFILE;
        } while (res == -EMFILE);
        aborted += res == -ECONNABORTED;
        accepted += res >= 1000000;
        if (res >= 1000000)
            c.be->ops->sock->close(c.be, res);
        sim_recv(&c, &recv, &f, &byte, 1);
        reset += sim_outcome(&c, &recv) == -ECONNRESET;
        sim_close(&c, &f);
    }
    cr_assert_gt(emfile, 5);
    cr_assert_gt(aborted, 5);
    cr_assert_eq(accepted + aborted, 60);
    cr_assert_eq(reset, aborted);
    cr_assert_eq(sim_counts_of(&c).accepts_failed, emfile + aborted);
    sim_core_close(&c);
}

/* Connects fail after the time such a failure takes. */
Test(sim_faults, connect_errors)
{
    struct sim_core c;
    struct gyre__fd l, f;
    struct sim_op connect = {.events = 0};
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .connect_timeout_permille = 1000}, NULL);
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    sim_open(&c, &f, AF_INET);
    uint64_t start_ns = gyre_sim_now_ns(c.sim);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_outcome(&c, &connect), -ETIMEDOUT);
    cr_assert_geq(gyre_sim_now_ns(c.sim), start_ns + SECOND_NS);
    cr_assert_leq(gyre_sim_now_ns(c.sim), start_ns + 21 * SECOND_NS);
    cr_assert_eq(sim_counts_of(&c).connects_failed, 1);
    sim_core_close(&c);

    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .connect_unreachable_permille = 1000}, NULL);
    addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    sim_open(&c, &f, AF_INET);
    sim_connect(&c, &connect, &f, &addr);
    cr_assert_eq(sim_outcome(&c, &connect), -EHOSTUNREACH);
    /* Unix sockets have no network between them. */
    struct gyre__fd a, b;
    sim_pair(&c, "unix://@x", &a, &b);
    sim_core_close(&c);
}

/* A connection that the network resets is dead for both ends, each told once. */
Test(sim_faults, resets_out_of_nowhere)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op recv_a = {.events = 0}, recv_b = {.events = 0};
    char byte;
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .reset_permille = 1000, .delay_min_ns = 100},
                  NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    sim_recv(&c, &recv_a, &a, &byte, 1);
    sim_recv(&c, &recv_b, &b, &byte, 1);
    cr_assert_eq(sim_send_now(&c, &a, "x", 1), 1);
    cr_assert_eq(sim_outcome(&c, &recv_a), -ECONNRESET);
    cr_assert_eq(sim_outcome(&c, &recv_b), -ECONNRESET);
    cr_assert_eq(sim_send_now(&c, &a, "x", 1), -EPIPE);
    sim_recv(&c, &recv_b, &b, &byte, 1);
    cr_assert_eq(sim_outcome(&c, &recv_b), 0);
    cr_assert_eq(sim_counts_of(&c).resets, 1);
    sim_core_close(&c);
}
