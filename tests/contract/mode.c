/* SPDX-License-Identifier: MIT
 * Promise 9: whether a descriptor blocks is the backend's affair. Descriptors come blocking or not, and no -EAGAIN
 * comes out (the seam checks each event) where an op has to wait. Accepted ones are right already and close-on-exec. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void set_blocking(int fd, bool blocking)
{
    int mode = fcntl(fd, F_GETFL);
    cr_assert_geq(mode, 0);
    cr_assert_eq(fcntl(fd, F_SETFL, blocking ? mode & ~O_NONBLOCK : mode | O_NONBLOCK), 0);
}

/* Both ends of a socket pair made by hand, in every mixture of modes: receives wait, sends wait, all bytes come. */
REAL_TEST(mode, any_mode_at_attach)
{
    struct seam s;
    seam_open(&s, p);
    s.transport = TRANSPORT_UNIX;
    seam_pool(&s, 4096, 4, 8);
    for (unsigned round = 0; round < 8; round++) {
        struct stream ends[2];
        int fds[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        set_blocking(fds[0], round & 1);
        set_blocking(fds[1], round & 2);
        stream_adopt(&s, &ends[0], fds[0], false, 1, 2);
        stream_adopt(&s, &ends[1], fds[1], false, 2, 1);
        stream_receive(&ends[1], round & 4 ? 0 : GYRE_OPF_POOL | GYRE_OPF_MULTI);
        for (int i = 0; i < 4; i++)
            (void)seam_turn(&s, i < 3 ? 0 : SEAM_MS(2));
        cr_assert_not(seam_idle(ends[1].recv), "a receive ended with %d and nothing was sent", ends[1].recv->res);
        stream_send(&ends[0], 1);
        seam_until(&s, ends[1].got == 1);
        stream_pause(&ends[1]);
        seam_until(&s, seam_idle(ends[1].recv));

        stream_send(&ends[0], 4 << 20);
        seam_settle(&s, SEAM_MS(5));
        cr_assert_not(seam_idle(ends[0].send), "4 MiB went out and nobody read");
        stream_finish(&ends[0]);
        stream_receive(&ends[1], 0);
        seam_until(&s, ends[1].eof);
        cr_assert_eq(ends[1].got, (4 << 20) + 1);
        stream_close(&ends[0]);
        stream_close(&ends[1]);
    }
    seam_close(&s);
}

static struct seam_op *wait_for_accept(struct seam *s, struct listener *l, unsigned flags)
{
    seam_accept(l->accept, &l->f, flags);
    seam_submit(s, l->accept);
    for (int i = 0; i < 4; i++)
        (void)seam_turn(s, i < 3 ? 0 : SEAM_MS(2));
    cr_assert_not(seam_idle(l->accept), "an accept ended with %d and nobody connected", l->accept->res);
    return l->accept;
}

/* A listener of either mode; what it accepts has the mode that attach() would give it. */
REAL_TEST(mode, of_accepted_descriptors)
{
    struct seam s;
    seam_open(&s, p);
    for (unsigned round = 0; round < 8; round++) {
        struct listener l;
        struct gyre__fd f;
        s.transport = round & 1 ? TRANSPORT_UNIX : TRANSPORT_TCP4;
        l.accept = seam_op_new(&s);
        int fd = seam_socket(&s);
        set_blocking(fd, round & 2);
        seam_addr(&s, &l.addr);
        cr_assert_eq(s.ops->sock->listen(s.be, fd, &l.addr, &(struct gyre__listen_config){.backlog = 8}), 0);
        cr_assert_eq(s.ops->sock->name(s.be, fd, false, &l.addr), 0);
        seam_attach(&s, &l.f, fd, seam_fd_flags(&s, false) | GYRE_FDF_LISTEN);
        cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK, "a listening socket blocks");
        struct seam_op *accept = wait_for_accept(&s, &l, round & 4 ? GYRE_OPF_MULTI : 0);
        struct seam_op *connect = seam_op_new(&s);
        seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
        seam_connect(connect, &f, &l.addr);
        seam_submit(&s, connect);
        seam_until(&s, seam_idle(connect) && accept->events == 1);
        cr_assert_geq(accept->res, 0);
        int mode = fcntl(accept->res, F_GETFL) & O_NONBLOCK;
        cr_assert_eq(mode, fcntl(f.fd, F_GETFL) & O_NONBLOCK, "accepted and attached descriptors differ in mode");
        cr_assert(fcntl(accept->res, F_GETFD) & FD_CLOEXEC, "an accepted descriptor is not close-on-exec");

        struct stream ends;
        stream_adopt(&s, &ends, accept->res, true, 1, 2);
        stream_receive(&ends, 0);
        for (int i = 0; i < 4; i++)
            (void)seam_turn(&s, i < 3 ? 0 : SEAM_MS(2));
        cr_assert_not(seam_idle(ends.recv), "a receive ended with %d and nothing was sent", ends.recv->res);
        stream_close(&ends);
        seam_fd_close(&s, &f);
        listener_close(&s, &l);
    }
    seam_close(&s);
}

/* Sockets of the seam's own making are close-on-exec. */
REAL_TEST(mode, opened_sockets_are_close_on_exec)
{
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    struct seam s;
    seam_open(&s, p);
    for (unsigned i = 0; i < 3; i++) {
        int fd = s.ops->sock->open(s.be, families[i]);
        cr_assert_geq(fd, 0);
        cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        s.ops->sock->close(s.be, fd);
    }
    cr_assert_lt(s.ops->sock->open(s.be, -5), 0);
    seam_close(&s);
}
