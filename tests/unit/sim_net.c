/* SPDX-License-Identifier: MIT
 * The simulated network keeps the rules of the real one. On a quiet network, so that each rule shows alone. */
#include "sim_core.h"

#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/un.h>

static const char *const every_address[] = {"tcp://127.0.0.1:0", "tcp://[::1]:0", "unix:///run/gyre.sock",
                                            "unix://@gyre"};

enum { ADDRESSES = sizeof every_address / sizeof every_address[0] };

static int name_of(struct sim_core *c, const struct gyre__fd *f, bool peer, char *out, size_t size)
{
    struct gyre__addr addr;
    int err = c->be->ops->sock->name(c->be, f->fd, peer, &addr);
    if (err == 0)
        gyre__addr_format(&addr, out, size);
    return err;
}

/* Submit a receive and see how it ends. */
static int recv_now(struct sim_core *c, struct gyre__fd *f, void *buf, uint32_t len)
{
    struct sim_op o = {.events = 0};
    sim_recv(c, &o, f, buf, len);
    return sim_outcome(c, &o);
}

static int send_now(struct sim_core *c, struct gyre__fd *f, const void *buf, uint32_t len)
{
    struct sim_op o = {.events = 0};
    sim_send(c, &o, f, buf, len);
    return sim_outcome(c, &o);
}

static int connect_now(struct sim_core *c, struct gyre__fd *f, const struct gyre__addr *addr)
{
    struct sim_op o = {.events = 0};
    sim_open(c, f, addr->ss.ss_family);
    sim_connect(c, &o, f, addr);
    return sim_outcome(c, &o);
}

/* Each end knows its own name and the other's. */
Test(sim_net, both_ends_have_names)
{
    char a_name[GYRE_ADDR_TEXT_MAX], b_name[GYRE_ADDR_TEXT_MAX];
    for (int i = 0; i < ADDRESSES; i++) {
        struct sim_core c;
        struct gyre__fd a, b;
        sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
        sim_pair(&c, every_address[i], &a, &b);
        for (int peer = 0; peer < 2; peer++) {
            cr_assert_eq(name_of(&c, &a, peer != 0, a_name, sizeof a_name), 0);
            cr_assert_eq(name_of(&c, &b, peer == 0, b_name, sizeof b_name), 0);
            cr_assert_str_eq(a_name, b_name);
        }
        cr_assert_eq(name_of(&c, &a, false, a_name, sizeof a_name), 0);
        bool is_unix = strncmp(a_name, "unix://", 7) == 0;
        cr_assert(!is_unix || a_name[7] == '\0', "the connecting end of a unix connection has no name, not %s", a_name);
        cr_assert_eq(is_unix, i >= 2);
        sim_core_close(&c);
    }
}

/* Descriptors start at a million, are the lowest free ones, and run out. */
Test(sim_net, descriptors_are_reused_and_run_out)
{
    struct sim_core c;
    struct gyre__fd f[3];
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .fds_max = 3}, NULL);
    for (int i = 0; i < 3; i++) {
        sim_open(&c, &f[i], AF_INET);
        cr_assert_eq(f[i].fd, 1000000 + i);
    }
    cr_assert_eq(c.be->ops->sock->open(c.be, AF_INET), -EMFILE);
    sim_close(&c, &f[1]);
    cr_assert_eq(c.be->ops->sock->open(c.be, AF_INET6), 1000001);
    c.be->ops->sock->close(c.be, 1000001);
    cr_assert_eq(c.be->ops->sock->open(c.be, AF_APPLETALK), -EAFNOSUPPORT);
    sim_core_close(&c);
}

/* An accept that finds no free descriptor says so and leaves the connection where it is. */
Test(sim_net, accept_without_a_descriptor_keeps_the_connection)
{
    struct sim_core c;
    struct gyre__fd l, a, b;
    struct sim_op accept = {.events = 0};
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .fds_max = 3}, NULL);
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    cr_assert_eq(connect_now(&c, &a, &addr), 0);
    sim_open(&c, &b, AF_INET);
    sim_accept(&c, &accept, &l, GYRE_OPF_MULTI);
    cr_assert_eq(sim_outcome(&c, &accept), -EMFILE);
    sim_close(&c, &b);
    sim_accept(&c, &accept, &l, 0);
    cr_assert_eq(sim_outcome(&c, &accept), 1000002);
    sim_core_close(&c);
}

/* Attaching takes a descriptor of the simulation, once. */
Test(sim_net, attach_refuses_strangers)
{
    struct sim_core c;
    struct gyre__fd f, g = {.fd = 3};
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    cr_assert_eq(c.be->ops->attach(c.be, &g), -EBADF);
    g.fd = 1000000;
    cr_assert_eq(c.be->ops->attach(c.be, &g), -EBADF);
    sim_open(&c, &f, AF_INET);
    cr_assert_eq(c.be->ops->attach(c.be, &g), -EEXIST);
    sim_core_close(&c);
}

/* Nobody listens: refused. */
Test(sim_net, connect_to_nobody_is_refused)
{
    static const char *const nobody[] = {"tcp://127.0.0.1:7", "tcp://[::1]:7", "unix:///nobody", "unix://@nobody",
                                         "tcp://127.0.0.1:0"};
    struct sim_core c;
    struct gyre__fd f;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    for (size_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
        struct gyre__addr addr = sim_addr(nobody[i]);
        cr_assert_eq(connect_now(&c, &f, &addr), -ECONNREFUSED);
        /* The socket may try again. */
        struct sim_op o = {.events = 0};
        sim_connect(&c, &o, &f, &addr);
        cr_assert_eq(sim_outcome(&c, &o), -ECONNREFUSED);
        sim_close(&c, &f);
    }
    sim_core_close(&c);
}

/* Connecting what is connected, or what listens, fails and harms nothing; so does a wrong kind of address. */
Test(sim_net, connect_in_a_wrong_state_fails)
{
    struct sim_core c;
    struct gyre__fd a, b, l;
    struct sim_op o = {.events = 0};
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    sim_connect(&c, &o, &a, &addr);
    cr_assert_eq(sim_outcome(&c, &o), -EISCONN);
    sim_connect(&c, &o, &l, &addr);
    cr_assert_eq(sim_outcome(&c, &o), -EISCONN);
    struct gyre__addr other = sim_addr("tcp://[::1]:9");
    struct gyre__fd f;
    cr_assert_eq((sim_open(&c, &f, AF_INET), sim_connect(&c, &o, &f, &other), sim_outcome(&c, &o)), -EAFNOSUPPORT);
    char byte = 'x';
    cr_assert_eq(send_now(&c, &a, &byte, 1), 1);
    cr_assert_eq(recv_now(&c, &b, &byte, 1), 1);
    sim_core_close(&c);
}

/* Operations on a socket that is not connected fail as on Linux. */
Test(sim_net, unconnected_sockets_say_so)
{
    struct sim_core c;
    struct gyre__fd f;
    struct sim_op o = {.events = 0};
    char byte = 'x', name[GYRE_ADDR_TEXT_MAX];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_open(&c, &f, AF_INET);
    cr_assert_eq(recv_now(&c, &f, &byte, 1), -ENOTCONN);
    cr_assert_eq(send_now(&c, &f, &byte, 1), -EPIPE);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, f.fd), -ENOTCONN);
    cr_assert_eq(name_of(&c, &f, true, name, sizeof name), -ENOTCONN);
    sim_accept(&c, &o, &f, 0);
    cr_assert_eq(sim_outcome(&c, &o), -EINVAL);
    cr_assert_eq(c.be->ops->sock->set_nodelay(c.be, f.fd), 0);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, 1000099), -EBADF);
    sim_core_close(&c);
}

/* The end comes after all data, and the other direction goes on. */
Test(sim_net, half_close_leaves_the_other_half)
{
    for (int i = 0; i < ADDRESSES; i++) {
        struct sim_core c;
        struct gyre__fd a, b;
        char buf[16];
        sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
        sim_pair(&c, every_address[i], &a, &b);
        cr_assert_eq(send_now(&c, &a, "question", 8), 8);
        cr_assert_eq(c.be->ops->sock->shutdown(c.be, a.fd), 0);
        cr_assert_eq(c.be->ops->sock->shutdown(c.be, a.fd), 0, "a second time");
        cr_assert_eq(send_now(&c, &a, "more", 4), -EPIPE);
        cr_assert_eq(recv_now(&c, &b, buf, 5), 5);
        cr_assert_eq(recv_now(&c, &b, buf + 5, 8), 3);
        cr_assert_eq(memcmp(buf, "question", 8), 0);
        cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 0);
        cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 0, "the end stays");
        cr_assert_eq(send_now(&c, &b, "answer", 6), 6);
        cr_assert_eq(recv_now(&c, &a, buf, sizeof buf), 6);
        cr_assert_eq(memcmp(buf, "answer", 6), 0);
        sim_close(&c, &b);
        cr_assert_eq(recv_now(&c, &a, buf, sizeof buf), 0);
        sim_core_close(&c);
    }
}

/* What was sent before close() arrives, and the end after it. */
Test(sim_net, close_delivers_what_was_sent)
{
    for (int i = 0; i < ADDRESSES; i++) {
        struct sim_core c;
        struct gyre__fd a, b;
        char buf[16];
        sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .recv_buffer_bytes = 3}, NULL);
        sim_pair(&c, every_address[i], &a, &b);
        cr_assert_eq(send_now(&c, &a, "farewell", 8), 8);
        sim_close(&c, &a);
        int got = 0, n;
        while ((n = recv_now(&c, &b, buf + got, (uint32_t)sizeof buf - (uint32_t)got)) > 0)
            got += n;
        cr_assert_eq(n, 0);
        cr_assert_eq(got, 8);
        cr_assert_eq(memcmp(buf, "farewell", 8), 0);
        sim_core_close(&c);
    }
}

/* TCP: closing with bytes unread resets. The other end is told once, keeps what it had, and is dead then. */
Test(sim_net, close_with_bytes_unread_resets)
{
    struct sim_core c;
    struct gyre__fd a, b;
    char buf[16], name[GYRE_ADDR_TEXT_MAX];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    cr_assert_eq(send_now(&c, &a, "kept", 4), 4);
    cr_assert_eq(send_now(&c, &b, "unread", 6), 6);
    sim_close(&c, &a);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 4);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), -ECONNRESET);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 0);
    cr_assert_eq(send_now(&c, &b, "x", 1), -EPIPE);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, b.fd), -ENOTCONN);
    cr_assert_eq(name_of(&c, &b, true, name, sizeof name), 0, "the peer is forgotten");
    sim_core_close(&c);
}

/* Unix: the same error for the same reason, but sends say -EPIPE and leave it to be told by a receive. */
Test(sim_net, unix_close_with_bytes_unread)
{
    struct sim_core c;
    struct gyre__fd a, b;
    char buf[16];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "unix://@x", &a, &b);
    cr_assert_eq(send_now(&c, &a, "kept", 4), 4);
    cr_assert_eq(send_now(&c, &b, "unread", 6), 6);
    sim_close(&c, &a);
    cr_assert_eq(send_now(&c, &b, "x", 1), -EPIPE);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 4);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), -ECONNRESET);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 0);
    sim_core_close(&c);
}

/* set_reset(): what had arrived stays, what was on its way is lost, and receiving ends with the error at once. */
Test(sim_net, reset_on_close_loses_what_was_on_its_way)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op armed = {.events = 0};
    char buf[16];
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .recv_buffer_bytes = 4}, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    cr_assert_eq(send_now(&c, &a, "herelost", 8), 8);
    cr_assert_eq(c.be->ops->sock->unacked(c.be, a.fd), 4);
    cr_assert_eq(c.be->ops->sock->set_reset(c.be, a.fd), 0);
    sim_close(&c, &a);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 4);
    cr_assert_eq(memcmp(buf, "here", 4), 0);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), -ECONNRESET);

    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    sim_recv(&c, &armed, &b, buf, sizeof buf);
    (void)sim_turn(&c, 0);
    cr_assert_eq(c.be->ops->sock->set_reset(c.be, a.fd), 0);
    sim_close(&c, &a);
    cr_assert_eq(sim_turn(&c, 0), 1);
    cr_assert_eq(armed.res, -ECONNRESET);
    sim_core_close(&c);
}

/* Bytes for an end that has closed are answered with a reset: after FIN that is -EPIPE for sends and nothing for
 * receives. What that end had still to deliver is lost with it. */
Test(sim_net, sending_to_a_closed_end)
{
    struct sim_core c;
    struct gyre__fd a, b;
    char buf[16];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    sim_close(&c, &a);
    cr_assert_eq(send_now(&c, &b, "x", 1), 1);
    cr_assert_eq(send_now(&c, &b, "x", 1), -EPIPE);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 0);

    struct sim_core d;
    sim_core_open(&d, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .recv_buffer_bytes = 2}, NULL);
    sim_pair(&d, "tcp://127.0.0.1:0", &a, &b);
    cr_assert_eq(send_now(&d, &a, "loss", 4), 4);
    sim_close(&d, &a);
    cr_assert_eq(send_now(&d, &b, "x", 1), 1);
    cr_assert_eq(recv_now(&d, &b, buf, sizeof buf), 2);
    cr_assert_eq(recv_now(&d, &b, buf, sizeof buf), -ECONNRESET);
    sim_core_close(&d);
    sim_core_close(&c);
}

/* After both ends have sent FIN and got the other's there is no connection, but its peer is still known. */
Test(sim_net, over_for_both)
{
    struct sim_core c;
    struct gyre__fd a, b;
    char buf[4], name[GYRE_ADDR_TEXT_MAX];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, a.fd), 0);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, b.fd), 0);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, a.fd), -ENOTCONN);
    cr_assert_eq(name_of(&c, &b, true, name, sizeof name), 0, "the peer is forgotten");
    cr_assert_eq(recv_now(&c, &a, buf, sizeof buf), 0);
    cr_assert_eq(send_now(&c, &a, "x", 1), -EPIPE);
    sim_core_close(&c);
}

/* Connections that nobody accepted are reset when the listener closes. */
Test(sim_net, closing_a_listener_resets_its_queue)
{
    for (int i = 0; i < ADDRESSES; i++) {
        struct sim_core c;
        struct gyre__fd l, a;
        char byte;
        sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
        struct gyre__addr addr = sim_listen(&c, &l, every_address[i]);
        cr_assert_eq(connect_now(&c, &a, &addr), 0);
        sim_close(&c, &l);
        cr_assert_eq(recv_now(&c, &a, &byte, 1), -ECONNRESET);
        cr_assert_eq(recv_now(&c, &a, &byte, 1), 0);
        sim_core_close(&c);
    }
}

/* A connection may be written to, and closed, before it is accepted. */
Test(sim_net, bytes_before_accept)
{
    struct sim_core c;
    struct gyre__fd l, a, b;
    struct sim_op accept = {.events = 0};
    char buf[8];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    cr_assert_eq(connect_now(&c, &a, &addr), 0);
    cr_assert_eq(send_now(&c, &a, "early", 5), 5);
    sim_close(&c, &a);
    sim_accept(&c, &accept, &l, 0);
    sim_attach(&c, &b, sim_outcome(&c, &accept));
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 5);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 0);
    sim_core_close(&c);
}

/* A full queue: TCP keeps trying, gets in once there is room, or gives up after a long time; unix gives up at once. */
Test(sim_net, a_full_backlog)
{
    struct sim_core c;
    struct gyre__fd l, u, f[4];
    struct sim_op accept = {.events = 0}, connect = {.events = 0};
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    cr_assert_eq(sim_try_listen(&c, &l, "tcp://127.0.0.1:80", (struct gyre__listen_config){.backlog = 1}), 0);
    struct gyre__addr addr = sim_addr("tcp://127.0.0.1:80");
    cr_assert_eq(connect_now(&c, &f[0], &addr), 0);
    sim_open(&c, &f[1], AF_INET);
    sim_connect(&c, &connect, &f[1], &addr);
    cr_assert_eq(sim_turn(&c, SIM_MS(5000)), 0);
    sim_accept(&c, &accept, &l, 0);
    cr_assert_eq(sim_turn(&c, 0), 1);
    cr_assert_eq(sim_outcome(&c, &connect), 0);

    uint64_t since_ns = gyre_sim_now_ns(c.sim);
    cr_assert_eq(connect_now(&c, &f[2], &addr), -ETIMEDOUT);
    cr_assert_gt(gyre_sim_now_ns(c.sim) - since_ns, 60 * (uint64_t)SIM_MS(1000));

    cr_assert_eq(sim_try_listen(&c, &u, "unix://@full", (struct gyre__listen_config){.backlog = 1}), 0);
    addr = sim_addr("unix://@full");
    cr_assert_eq(connect_now(&c, &f[3], &addr), 0);
    cr_assert_eq(connect_now(&c, &f[3], &addr), -EAGAIN);
    sim_core_close(&c);
}

/* The sender's window and the receiver's together are what fits; `unacked` is what the receiver has no room for. */
Test(sim_net, back_pressure)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op send = {.events = 0};
    static uint8_t out[4000], in[4000];
    sim_core_open(
        &c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .send_buffer_bytes = 1000, .recv_buffer_bytes = 600},
        NULL);
    env_pattern_fill(out, sizeof out, 1, 0);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    uint32_t sent = 0;
    for (;;) {
        sim_send(&c, &send, &a, out + sent, (uint32_t)sizeof out - sent);
        (void)sim_turn(&c, SIM_MS(1000));
        if (!sim_op_idle(&send))
            break;
        sent += (uint32_t)send.res;
    }
    cr_assert_eq(sent, 1600);
    cr_assert_eq(c.be->ops->sock->unacked(c.be, a.fd), 1000);
    uint32_t got = 0;
    while (got < sizeof in) {
        int n = recv_now(&c, &b, in + got, 100);
        cr_assert_gt(n, 0);
        got += (uint32_t)n;
        if (!sim_op_idle(&send))
            continue;
        sent += (uint32_t)send.res;
        send.res = 0;
        if (sent < sizeof out)
            sim_send(&c, &send, &a, out + sent, (uint32_t)sizeof out - sent);
    }
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
    cr_assert_eq(c.be->ops->sock->unacked(c.be, a.fd), 0);
    sim_core_close(&c);
}

/* Gathered sends go out in order, empty pieces and all. */
Test(sim_net, sendmsg_gathers)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op o = {.events = 0};
    char one[] = "one,", two[] = "two,", three[] = "three", buf[32];
    struct iovec iov[] = {{one, 4}, {one, 0}, {two, 4}, {three, 5}};
    struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 4};
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    o.op.u.msg.hdr = &hdr;
    sim_submit(&c, &o, &a, GYRE_OP_SENDMSG, 0);
    cr_assert_eq(sim_outcome(&c, &o), 13);
    cr_assert_eq(recv_now(&c, &b, buf, sizeof buf), 13);
    cr_assert_eq(memcmp(buf, "one,two,three", 13), 0);
    sim_core_close(&c);
}

/* Two backends on one network: what one accepts another may serve. */
Test(sim_net, two_backends_share_a_network)
{
    struct sim_core c;
    struct gyre__fd l, a, b;
    struct sim_op accept = {.events = 0};
    char buf[4];
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    struct sim_core d = {.sim = c.sim, .cap = SIM_BATCH, .be = sim_backend_open(c.sim, &c.mem.mem, NULL)};
    struct gyre__addr addr = sim_listen(&c, &l, "tcp://127.0.0.1:0");
    cr_assert_eq(connect_now(&d, &a, &addr), 0);
    sim_accept(&c, &accept, &l, 0);
    sim_attach(&d, &b, sim_outcome(&c, &accept));
    cr_assert_eq(send_now(&d, &a, "hi", 2), 2);
    cr_assert_eq(recv_now(&d, &b, buf, sizeof buf), 2);
    d.be->ops->destroy(d.be);
    sim_core_close(&c);
}
