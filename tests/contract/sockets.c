/* SPDX-License-Identifier: MIT
 * The socket operations beside the seam: the same calls on every backend, the simulator included, with -errno for what
 * fails. */
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* Both ends know their own name and the other's. */
TRANSPORT_TEST(sockets, names_of_a_connection)
{
    struct seam s;
    struct stream a, b;
    struct gyre_addr own, other;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    cr_assert_eq(s.ops->sock->name(s.be, a.f.fd, true, &other), 0);
    cr_assert_eq(s.ops->sock->name(s.be, b.f.fd, false, &own), 0);
    cr_assert_eq(own.ss.ss_family, seam_family(&s));
    cr_assert_eq(own.len, other.len);
    cr_assert_eq(memcmp(&own.ss, &other.ss, own.len), 0, "one's name and what the other calls it differ");
    cr_assert_eq(own.len, a.peer.len);
    cr_assert_eq(memcmp(&own.ss, &a.peer.ss, own.len), 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A bound port of 0 becomes a real one, different for each listener. */
BACKEND_TEST(sockets, kernel_chosen_ports)
{
    struct seam s;
    struct listener l[2];
    in_port_t port[2];
    seam_open(&s, p);
    for (int i = 0; i < 2; i++) {
        listener_open(&s, &l[i], 8);
        port[i] = ((const struct sockaddr_in *)&l[i].addr.ss)->sin_port;
        cr_assert_neq(port[i], 0);
    }
    cr_assert_neq(port[0], port[1]);
    listener_close(&s, &l[0]);
    listener_close(&s, &l[1]);
    seam_close(&s);
}

/* An address that is taken is refused, unless it is to be shared by all. */
TRANSPORT_TEST(sockets, taken_address)
{
    struct seam s;
    struct listener l;
    seam_open(&s, p);
    listener_open(&s, &l, 8);
    int fd = seam_socket(&s);
    int err = s.ops->sock->listen(s.be, fd, &l.addr, &(struct gyre_listen_config){.backlog = 8});
    cr_assert_eq(err, -EADDRINUSE, "listening on a taken address gave %d", err);
    s.ops->sock->close(s.be, fd);
    listener_close(&s, &l);
    seam_close(&s);
}

/* What is called on a number that is no socket fails with -errno. */
BACKEND_TEST(sockets, bad_descriptor)
{
    struct seam s;
    struct gyre_addr addr;
    seam_open(&s, p);
    const struct gyre_sock_ops *sock = s.ops->sock;
    seam_addr(&s, &addr);
    cr_assert_lt(sock->listen(s.be, 19999, &addr, &(struct gyre_listen_config){.backlog = 8}), 0);
    cr_assert_lt(sock->shutdown(s.be, 19999), 0);
    cr_assert_lt(sock->set_nodelay(s.be, 19999), 0);
    cr_assert_lt(sock->set_reset(s.be, 19999), 0);
    cr_assert_lt(sock->name(s.be, 19999, false, &addr), 0);
    cr_assert_lt(sock->name(s.be, 19999, true, &addr), 0);
    cr_assert_leq(sock->unacked(s.be, 19999), 0);
    int64_t value;
    cr_assert_lt(sock->options->set(s.be, 19999, GYRE_SOCKOPT_NODELAY, 1), 0);
    cr_assert_lt(sock->options->get(s.be, 19999, GYRE_SOCKOPT_NODELAY, &value), 0);
    seam_close(&s);
}

/* An option reads as it was set; what set_nodelay() does is one of them; what the kind of socket has not is
 * -EOPNOTSUPP. */
BACKEND_TEST(sockets, options)
{
    struct seam s;
    struct gyre_tcp_info info;
    struct gyre_credentials who;
    int64_t value = -1;
    seam_open(&s, p);
    const struct gyre_sockopt_ops *options = s.ops->sock->options;
    int fd = seam_socket(&s);
    cr_assert_eq(s.ops->sock->set_nodelay(s.be, fd), 0);
    cr_assert_eq(options->get(s.be, fd, GYRE_SOCKOPT_NODELAY, &value), 0);
    cr_assert_eq(value, 1);
    cr_assert_eq(options->set(s.be, fd, GYRE_SOCKOPT_KEEPALIVE_IDLE_S, 3), 0);
    cr_assert_eq(options->get(s.be, fd, GYRE_SOCKOPT_KEEPALIVE_IDLE_S, &value), 0);
    cr_assert_eq(value, 3);
    cr_assert_eq(options->credentials(s.be, fd, &who), -EOPNOTSUPP);
    s.ops->sock->close(s.be, fd);
    s.transport = TRANSPORT_UNIX;
    fd = seam_socket(&s);
    cr_assert_eq(options->set(s.be, fd, GYRE_SOCKOPT_NODELAY, 1), -EOPNOTSUPP);
    cr_assert_eq(options->get(s.be, fd, GYRE_SOCKOPT_NODELAY, &value), -EOPNOTSUPP);
    cr_assert_eq(options->tcp_info(s.be, fd, &info), -EOPNOTSUPP);
    s.ops->sock->close(s.be, fd);
    seam_close(&s);
}

/* What nobody has read is not all acknowledged; once the peer has read it, it is. */
BACKEND_TEST(sockets, unacked_falls_to_zero)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    cr_assert_eq(s.ops->sock->set_nodelay(s.be, a.f.fd), 0);
    stream_send(&a, 64 << 20);
    seam_settle(&s, SEAM_MS(10));
    cr_assert_geq(s.ops->sock->unacked(s.be, a.f.fd), 0);
    a.send_goal = a.sent;
    if (a.send->op.state == GYRE_OPS_INFLIGHT)
        seam_cancel(&s, a.send);
    seam_until(&s, seam_idle(a.send));
    stream_receive(&b, 0);
    seam_until(&s, b.got == a.sent);
    seam_until(&s, s.ops->sock->unacked(s.be, a.f.fd) == 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* The mode asked for is the mode of the unix socket's file. */
REAL_TEST(sockets, unix_mode)
{
    struct seam s;
    struct gyre_addr addr;
    struct stat st;
    seam_open(&s, p);
    s.transport = TRANSPORT_UNIX;
    int fd = seam_socket(&s);
    seam_addr(&s, &addr);
    struct gyre_listen_config cfg = {.backlog = 8, .unix_mode = 0620};
    cr_assert_eq(s.ops->sock->listen(s.be, fd, &addr, &cfg), 0);
    cr_assert_eq(stat(((const struct sockaddr_un *)&addr.ss)->sun_path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0620);
    s.ops->sock->close(s.be, fd);
    seam_close(&s);
}
