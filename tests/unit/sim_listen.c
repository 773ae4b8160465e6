/* SPDX-License-Identifier: MIT
 * Addresses on the simulated network: who may listen where, and who gets a connection. */
#include "sim_core.h"

static int name_of(struct sim_core *c, const struct gyre__fd *f, bool peer, char *out, size_t size)
{
    struct gyre__addr addr;
    int err = c->be->ops->sock->name(c->be, f->fd, peer, &addr);
    if (err == 0)
        gyre__addr_format(&addr, out, size);
    return err;
}

static int connect_now(struct sim_core *c, struct gyre__fd *f, const struct gyre__addr *addr)
{
    struct sim_op o = {.events = 0};
    sim_open(c, f, addr->ss.ss_family);
    sim_connect(c, &o, f, addr);
    return sim_outcome(c, &o);
}

static int listen_also(struct sim_core *c, const char *address, bool share, bool share_later, bool v6_only)
{
    struct gyre__fd f;
    struct gyre__listen_config cfg = {.share = share, .share_later = share_later, .v6_only = v6_only};
    int err = sim_try_listen(c, &f, address, cfg);
    if (err != 0)
        sim_close(c, &f);
    return err;
}

/* One listener per address, whole or in part, unless all of them share it. */
Test(sim_listen, addresses_in_use)
{
    struct sim_core c;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    cr_assert_eq(listen_also(&c, "tcp://127.0.0.1:1", false, false, false), 0);
    cr_assert_eq(listen_also(&c, "tcp://127.0.0.1:1", false, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://127.0.0.1:1", true, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://127.0.0.2:1", false, false, false), 0);
    cr_assert_eq(listen_also(&c, "tcp://0.0.0.0:1", false, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://[::]:1", false, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://[::]:1", false, false, true), 0);
    cr_assert_eq(listen_also(&c, "tcp://[::1]:1", false, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://10.1.2.3:2", true, false, false), 0);
    cr_assert_eq(listen_also(&c, "tcp://10.1.2.3:2", true, false, false), 0);
    cr_assert_eq(listen_also(&c, "tcp://10.1.2.3:2", false, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://10.1.2.3:2", false, true, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "tcp://10.1.2.3:3", false, true, false), 0, "the first that others will join");
    cr_assert_eq(listen_also(&c, "tcp://10.1.2.3:3", true, false, false), 0);
    cr_assert_eq(listen_also(&c, "unix:///a", false, false, false), 0);
    cr_assert_eq(listen_also(&c, "unix:///a", false, false, false), -EADDRINUSE);
    cr_assert_eq(listen_also(&c, "unix:///ab", false, false, false), 0);
    cr_assert_eq(listen_also(&c, "unix://@a", false, false, false), 0);
    sim_core_close(&c);
}

/* A closed listener's address is free again. */
Test(sim_listen, addresses_become_free)
{
    struct sim_core c;
    struct gyre__fd f;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(sim_try_listen(&c, &f, "unix:///a", (struct gyre__listen_config){.backlog = 1}), 0);
        sim_close(&c, &f);
    }
    struct gyre__addr addr = sim_addr("unix:///a");
    cr_assert_eq(connect_now(&c, &f, &addr), -ECONNREFUSED);
    sim_core_close(&c);
}

/* Port 0 gives every listener a port of its own. */
Test(sim_listen, port_zero_is_a_free_port)
{
    struct sim_core c;
    struct gyre__fd l[3], f;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    for (int i = 0; i < 3; i++) {
        struct gyre__addr addr = sim_listen(&c, &l[i], i == 1 ? "tcp://[::1]:0" : "tcp://127.0.0.1:0");
        char text[GYRE_ADDR_TEXT_MAX];
        gyre__addr_format(&addr, text, sizeof text);
        cr_assert_eq(listen_also(&c, text, false, false, false), -EADDRINUSE);
        cr_assert_eq(connect_now(&c, &f, &addr), 0);
    }
    sim_core_close(&c);
}

/* The listener whose own address it is gets a connection before one for all; IPv6 serves IPv4 unless it is told not to,
 * and sees mapped addresses. */
Test(sim_listen, which_listener_serves)
{
    struct sim_core c;
    struct gyre__fd any, own, six, f, b;
    struct sim_op o_any = {.events = 0}, o_own = {.events = 0}, o_six = {.events = 0};
    struct gyre__listen_config share = {.share = true};
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    cr_assert_eq(sim_try_listen(&c, &any, "tcp://0.0.0.0:80", share), 0);
    cr_assert_eq(sim_try_listen(&c, &own, "tcp://10.0.0.1:80", share), 0);
    cr_assert_eq(sim_try_listen(&c, &six, "tcp://[::]:90", share), 0);
    sim_accept(&c, &o_any, &any, GYRE_OPF_MULTI);
    sim_accept(&c, &o_own, &own, GYRE_OPF_MULTI);
    sim_accept(&c, &o_six, &six, GYRE_OPF_MULTI);
    struct gyre__addr addr = sim_addr("tcp://10.0.0.1:80");
    cr_assert_eq(connect_now(&c, &f, &addr), 0);
    addr = sim_addr("tcp://10.0.0.2:80");
    cr_assert_eq(connect_now(&c, &f, &addr), 0);
    addr = sim_addr("tcp://[::1]:80");
    cr_assert_eq(connect_now(&c, &f, &addr), -ECONNREFUSED);
    addr = sim_addr("tcp://10.0.0.3:90");
    cr_assert_eq(connect_now(&c, &f, &addr), 0);
    (void)sim_turn(&c, 0);
    cr_assert_eq(o_any.events, 1);
    cr_assert_eq(o_own.events, 1);
    cr_assert_eq(o_six.events, 1);
    char name[GYRE_ADDR_TEXT_MAX];
    sim_attach(&c, &b, o_six.res);
    cr_assert_eq(name_of(&c, &b, false, name, sizeof name), 0);
    cr_assert_str_eq(name, "tcp://[::ffff:10.0.0.3]:90");
    sim_cancel(&c, &o_any);
    sim_cancel(&c, &o_own);
    sim_cancel(&c, &o_six);
    cr_assert_eq(sim_outcome(&c, &o_any) + sim_outcome(&c, &o_own) + sim_outcome(&c, &o_six), 3 * -ECANCELED);
    sim_core_close(&c);
}

/* Listeners that share an address each get some, as the seed chooses. */
Test(sim_listen, shared_listeners_get_some_each)
{
    struct sim_core c;
    struct gyre__fd l[3], f[60];
    struct sim_op accept[3];
    memset(accept, 0, sizeof accept);
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(sim_try_listen(&c, &l[i], "tcp://10.0.0.1:80", (struct gyre__listen_config){.share = true}), 0);
        sim_accept(&c, &accept[i], &l[i], GYRE_OPF_MULTI);
    }
    struct gyre__addr addr = sim_addr("tcp://10.0.0.1:80");
    for (int i = 0; i < 60; i++)
        cr_assert_eq(connect_now(&c, &f[i], &addr), 0);
    while (sim_turn(&c, 0) > 0)
        continue;
    unsigned sum = 0;
    for (int i = 0; i < 3; i++) {
        sum += accept[i].events;
        cr_assert_geq(accept[i].events, 8, "listener %d got %u of 60", i, accept[i].events);
        sim_cancel(&c, &accept[i]);
        cr_assert_eq(sim_outcome(&c, &accept[i]), -ECANCELED);
    }
    cr_assert_eq(sum, 60);
    sim_core_close(&c);
}
