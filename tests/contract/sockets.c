/* SPDX-License-Identifier: MIT
 * The socket operations beside the seam: the same calls on every backend, the simulator included, with -errno for what
 * fails. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Both ends know their own name and the other's. */
TRANSPORT_TEST(sockets, names_of_a_connection)
{
    struct seam s;
    struct stream a, b;
    struct gyre__addr own, other;
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
    int err = s.ops->sock->listen(s.be, fd, &l.addr, &(struct gyre__listen_config){.backlog = 8});
    cr_assert_eq(err, -EADDRINUSE, "listening on a taken address gave %d", err);
    s.ops->sock->close(s.be, fd);
    listener_close(&s, &l);
    seam_close(&s);
}

/* What is called on a number that is no socket fails with -errno. */
BACKEND_TEST(sockets, bad_descriptor)
{
    struct seam s;
    struct gyre__addr addr;
    seam_open(&s, p);
    const struct gyre__sock_ops *sock = s.ops->sock;
    seam_addr(&s, &addr);
    cr_assert_lt(sock->listen(s.be, 19999, &addr, &(struct gyre__listen_config){.backlog = 8}), 0);
    cr_assert_lt(sock->shutdown(s.be, 19999), 0);
    cr_assert_lt(sock->set_nodelay(s.be, 19999), 0);
    cr_assert_lt(sock->set_reset(s.be, 19999), 0);
    cr_assert_lt(sock->name(s.be, 19999, false, &addr), 0);
    cr_assert_lt(sock->name(s.be, 19999, true, &addr), 0);
    cr_assert_leq(sock->unacked(s.be, 19999), 0);
    int64_t value;
    cr_assert_lt(sock->options->set(s.be, 19999, GYRE_SOCKOPT_NODELAY, 1), 0);
    cr_assert_lt(sock->options->get(s.be, 19999, GYRE_SOCKOPT_NODELAY, &value), 0);
    cr_assert_lt(sock->options->original(s.be, 19999, &addr), 0);
    seam_close(&s);
}

/* An option reads as it was set; what set_nodelay() does is one of them; what the kind of socket has not is
 * -EOPNOTSUPP. */
BACKEND_TEST(sockets, options)
{
    struct seam s;
    struct gyre_tcp_info info;
    struct gyre_credentials who;
    struct gyre__addr addr;
    int64_t value = -1;
    seam_open(&s, p);
    const struct gyre__sockopt_ops *options = s.ops->sock->options;
    int fd = seam_socket(&s);
    cr_assert_eq(s.ops->sock->set_nodelay(s.be, fd), 0);
    cr_assert_eq(options->get(s.be, fd, GYRE_SOCKOPT_NODELAY, &value), 0);
    cr_assert_eq(value, 1);
    cr_assert_eq(options->set(s.be, fd, GYRE_SOCKOPT_KEEPALIVE_IDLE_S, 3), 0);
    cr_assert_eq(options->get(s.be, fd, GYRE_SOCKOPT_KEEPALIVE_IDLE_S, &value), 0);
    cr_assert_eq(value, 3);
    cr_assert_eq(options->credentials(s.be, fd, &who), -EOPNOTSUPP);
    int err = options->original(s.be, fd, &addr);
    cr_assert(s.sim != NULL ? err == -EOPNOTSUPP : err == -ENOENT || err == -ENOPROTOOPT, "%s", gyre_err_name(err));
    s.ops->sock->close(s.be, fd);
    s.transport = TRANSPORT_UNIX;
    fd = seam_socket(&s);
    cr_assert_eq(options->set(s.be, fd, GYRE_SOCKOPT_NODELAY, 1), -EOPNOTSUPP);
    cr_assert_eq(options->get(s.be, fd, GYRE_SOCKOPT_NODELAY, &value), -EOPNOTSUPP);
    cr_assert_eq(options->tcp_info(s.be, fd, &info), -EOPNOTSUPP);
    cr_assert_eq(options->original(s.be, fd, &addr), -EOPNOTSUPP);
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
    struct gyre__addr addr;
    struct stat st;
    seam_open(&s, p);
    s.transport = TRANSPORT_UNIX;
    int fd = seam_socket(&s);
    seam_addr(&s, &addr);
    struct gyre__listen_config cfg = {.backlog = 8, .unix_mode = 0620};
    cr_assert_eq(s.ops->sock->listen(s.be, fd, &addr, &cfg), 0);
    cr_assert_eq(stat(((const struct sockaddr_un *)&addr.ss)->sun_path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0620);
    s.ops->sock->close(s.be, fd);
    seam_close(&s);
}

/* A descriptor that is detached stays open, and whoever has it next finds it blocking; what had come stays to be read,
 * by this backend again if it is attached anew. */
TRANSPORT_TEST(sockets, detached_and_attached_again)
{
    struct seam s;
    struct stream a, b;
    char data[8] = "";
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    struct seam_op *send = seam_op_new(&s);
    seam_send(send, &a.f, "hello", 5);
    seam_submit(&s, send);
    seam_until(&s, seam_idle(send));
    cr_assert_gt(send->res, 0);
    int fd = s.ops->detach(s.be, &b.f);
    s.fds--;
    cr_assert_eq(b.f.fd, -1);
    if (s.real)
        cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0, "a detached descriptor does not block");
    seam_attach(&s, &b.f, fd, 0);
    struct seam_op *recv = seam_op_new(&s);
    while (recv->total < send->res) {
        seam_recv(recv, &b.f, data + recv->total, 1);
        seam_submit(&s, recv);
        seam_until(&s, seam_idle(recv));
        cr_assert_eq(recv->res, 1);
    }
    cr_assert_eq(memcmp(data, "hello", (size_t)send->res), 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A descriptor that was detached takes no room any more: coming and going, however often, asks for no memory. */
BACKEND_TEST(sockets, detaching_gives_room_back)
{
    struct seam s;
    struct gyre__fd f;
    seam_open(&s, p);
    int fd = seam_socket(&s);
    long calls = 0;
    for (unsigned round = 0; round < 3000; round++) {
        seam_attach(&s, &f, fd, seam_fd_flags(&s, false));
        calls = round == 0 ? atomic_load(&s.mem.calls) : calls;
        cr_assert_eq(s.ops->detach(s.be, &f), fd);
        s.fds--;
    }
    cr_assert_eq(atomic_load(&s.mem.calls), calls, "memory was asked for, with one descriptor attached at most");
    s.ops->sock->close(s.be, fd);
    seam_close(&s);
}

/* A copy of a descriptor keeps the connection open, and the backend hears nothing more of it. */
REAL_TEST(sockets, copies_outlive_the_original)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    int copy = s.ops->sock->dup(s.be, b.f.fd);
    cr_assert_geq(copy, 0);
    cr_assert(fcntl(copy, F_GETFD) & FD_CLOEXEC);
    stream_close(&b);
    struct seam_op *send = seam_op_new(&s);
    seam_send(send, &a.f, "x", 1);
    seam_submit(&s, send);
    seam_until(&s, seam_idle(send));
    cr_assert_eq(send->res, 1, "the connection did not outlive one of its descriptors: %d", send->res);
    seam_settle(&s, SEAM_MS(5));
    char byte = 0;
    cr_assert_eq(recv(copy, &byte, 1, 0), 1);
    cr_assert_eq(byte, 'x');
    (void)close(copy);
    stream_close(&a);
    seam_close(&s);
}

/* What a descriptor is can be asked. */
TRANSPORT_TEST(sockets, inspection)
{
    struct seam s;
    struct stream a, b;
    struct listener l;
    struct gyre__sock_info info;
    seam_open(&s, p);
    listener_open(&s, &l, 8);
    stream_pair(&s, &a, &b, 1);
    cr_assert_eq(s.ops->sock->inspect(s.be, l.f.fd, &info), 0);
    cr_assert(info.stream && !info.dgram && info.listening && !info.connected);
    cr_assert_eq(info.family, seam_family(&s));
    cr_assert_eq(s.ops->sock->inspect(s.be, a.f.fd, &info), 0);
    cr_assert(info.stream && !info.listening && info.connected);
    int fresh = seam_socket(&s);
    cr_assert_eq(s.ops->sock->inspect(s.be, fresh, &info), 0);
    cr_assert(info.stream && !info.listening && !info.connected);
    s.ops->sock->close(s.be, fresh);
    int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(s.ops->sock->inspect(s.be, other, &info), -ENOTSOCK);
    (void)close(other);
    stream_close(&a);
    stream_close(&b);
    listener_close(&s, &l);
    seam_close(&s);
}

static int connect_bound(struct seam *s, struct gyre__fd *f, const struct gyre__addr *to, in_port_t first,
                         in_port_t last, struct gyre__addr *own)
{
    struct gyre__addr from = {.len = sizeof(struct sockaddr_in)};
    struct sockaddr_in *in = (struct sockaddr_in *)&from.ss;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK + 6);
    in->sin_port = htons(first);
    int fd = seam_socket(s);
    int err = s->ops->sock->bind(s->be, fd, &from, last);
    if (err != 0) {
        s->ops->sock->close(s->be, fd);
        return err;
    }
    seam_attach(s, f, fd, seam_fd_flags(s, false));
    struct seam_op *connect = seam_op_new(s);
    seam_connect(connect, f, to);
    seam_submit(s, connect);
    seam_until(s, seam_idle(connect));
    if (connect->res == 0)
        cr_assert_eq(s->ops->sock->name(s->be, f->fd, false, own), 0);
    return connect->res;
}

/* Whether nobody on this machine has one of three ports just now. */
static bool are_free(in_port_t first)
{
    bool all = true;
    for (in_port_t port = first; port < first + 3; port++) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        all = all && bind(fd, (const struct sockaddr *)&in, sizeof in) == 0;
        (void)close(fd);
    }
    return all;
}

/* Three connections leave from three ports, one from each; then there is none left for a fourth. Returns false if a
 * stranger (a test beside this one) took one of the ports first. */
static bool leave_from(const struct backend_param *p, in_port_t first)
{
    struct seam s;
    struct listener l;
    struct gyre__fd f[4] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};
    struct gyre__addr own;
    unsigned ports = 0;
    seam_open(&s, p);
    listener_open(&s, &l, 8);
    const in_port_t last = (in_port_t)(first + 2);
    int err = 0;
    for (int i = 0; i < 3 && err == 0; i++) {
        err = connect_bound(&s, &f[i], &l.addr, first, last, &own);
        cr_assert(err == 0 || err == -EADDRNOTAVAIL || err == -EADDRINUSE, "connection %d from ports %u to %u: %s", i,
                  first, last, strerror(-err));
        if (err != 0)
            continue;
        const struct sockaddr_in *in = (const struct sockaddr_in *)&own.ss;
        cr_assert_eq(in->sin_addr.s_addr, htonl(INADDR_LOOPBACK + 6));
        cr_assert(ntohs(in->sin_port) >= first && ntohs(in->sin_port) <= last);
        ports |= 1u << (ntohs(in->sin_port) - first);
    }
    if (err == 0) {
        cr_assert_eq(ports, 7);
        cr_assert_eq(connect_bound(&s, &f[3], &l.addr, first, last, &own), -EADDRNOTAVAIL);
    }
    for (int i = 0; i < 4; i++)
        if (f[i].fd >= 0)
            seam_fd_close(&s, &f[i]);
    listener_close(&s, &l);
    seam_close(&s);
    return err == 0;
}

/* A connection leaves from the address and the range of ports that it was given; when every port of the range has a
 * connection to that peer, there is none. So with ports that the kernel chooses from itself and with others. */
static void leave_from_free(const struct backend_param *p, in_port_t first)
{
    for (int tries = 0; tries < 16; tries++, first = (in_port_t)(first + 3)) {
        while (!are_free(first))
            first = (in_port_t)(first + 3);
        if (leave_from(p, first))
            return;
    }
    cr_assert_fail("16 ranges of three free ports, and none of them gave three connections");
}

BACKEND_TEST(sockets, bound_before_connecting)
{
    leave_from_free(p, (in_port_t)(20000 + getpid() % 2000 * 4));
}

BACKEND_TEST(sockets, bound_before_connecting_in_the_kernels_range)
{
    leave_from_free(p, (in_port_t)(40000 + getpid() % 2000 * 4));
}
