/* SPDX-License-Identifier: MIT
 * What other systems answer, made to happen here: a kqueue that takes a socket's error to tell of it, and calls of
 * macOS that fail with what Linux never says. */
#include "readiness.h"

#include "kqueue_shim/sys/event.h"
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In place of the C library's: the next call on this thread fails so, once. */
static _Thread_local int getpeername_error, send_error;

int getpeername(int fd, __SOCKADDR_ARG addr, socklen_t *restrict len)
{
    errno = getpeername_error;
    getpeername_error = 0;
    return errno != 0 ? -1 : (int)syscall(SYS_getpeername, fd, addr.__sockaddr__, len);
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    errno = send_error;
    send_error = 0;
    return errno != 0 ? -1 : (ssize_t)syscall(SYS_sendto, fd, data, len, flags, NULL, 0);
}

static void open_one(struct seam *s, struct backend_param *p, struct rd_end *e)
{
    kqueue_shim_take_errors(true);
    seam_open(s, p);
    seam_pool(s, RD_BUF, 4, 8);
    rd_open(s, e);
}

static void close_one(struct seam *s, struct rd_end *e)
{
    rd_close(e);
    seam_close(s);
}

static void reset(struct rd_end *e)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    cr_assert_eq(setsockopt(e->peer, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(e->peer);
    e->peer = -1;
}

/* ---- errors that come with the event ---- */

/* The end that a receive finds is none. */
READINESS_TEST(readiness_foreign, reset_told_by_the_poller)
{
    struct seam s;
    struct rd_end e;
    open_one(&s, p, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    (void)seam_turn(&s, 0);
    reset(&e);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, -ECONNRESET);
    /* Once is enough: what is asked afterwards says what the socket says. */
    rd_receive(&e, GYRE_OPF_MULTI);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, 0);
    close_one(&s, &e);
}

/* What came before it comes first. */
READINESS_TEST(readiness_foreign, reset_behind_data)
{
    struct seam s;
    struct rd_end e;
    open_one(&s, p, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    (void)seam_turn(&s, 0);
    rd_peer_write(&e, "data", 4);
    rd_arrived(&e, 4);
    reset(&e);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, -ECONNRESET);
    cr_assert(e.in_len == 0 || (e.in_len == 4 && memcmp(e.in, "data", 4) == 0));
    close_one(&s, &e);
}

/* A send that waits for room is told of the reset, not of a pipe that broke. */
READINESS_TEST(readiness_foreign, reset_while_sending)
{
    static uint8_t bulk[8 << 20];
    struct seam s;
    struct rd_end e;
    open_one(&s, p, &e);
    do {
        rd_send(&e, bulk, sizeof bulk);
        (void)seam_turn(&s, SEAM_MS(20));
    } while (seam_idle(e.send));
    reset(&e);
    seam_until(&s, seam_idle(e.send));
    cr_assert_eq(e.send->res, -ECONNRESET);
    close_one(&s, &e);
}

/* Many at once, so that not all are served in the turn that tells of them. */
READINESS_TEST(readiness_foreign, many_resets)
{
    struct seam s;
    struct rd_end e[RD_ENDS_MAX];
    open_one(&s, p, &e[0]);
    for (unsigned i = 1; i < RD_ENDS_MAX; i++)
        rd_open(&s, &e[i]);
    s.cap = 3;
    for (unsigned i = 0; i < RD_ENDS_MAX; i++)
        rd_receive(&e[i], GYRE_OPF_MULTI);
    (void)seam_turn(&s, 0);
    for (unsigned i = 0; i < RD_ENDS_MAX; i += 2)
        reset(&e[i]);
    for (unsigned i = 1; i < RD_ENDS_MAX; i += 2)
        rd_peer_fin(&e[i]);
    for (unsigned i = 0; i < RD_ENDS_MAX; i++) {
        seam_until(&s, seam_idle(e[i].recv));
        cr_assert_eq(e[i].recv->res, i % 2 == 0 ? -ECONNRESET : 0, "end %u: %d", i, e[i].recv->res);
    }
    for (unsigned i = 1; i < RD_ENDS_MAX; i++)
        rd_close(&e[i]);
    close_one(&s, &e[0]);
}

/* A port that nobody listens on. */
static void closed_port(struct gyre__addr *out)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in4;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&in4, len), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&in4, &len), 0);
    close(fd);
    *out = (struct gyre__addr){.len = len};
    memcpy(&out->ss, &in4, sizeof in4);
}

READINESS_TEST(readiness_foreign, refusal_told_by_the_poller)
{
    struct seam s;
    struct gyre__addr addr;
    struct gyre__fd f;
    kqueue_shim_take_errors(true);
    seam_open(&s, p);
    closed_port(&addr);
    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), GYRE_FDF_INET);
    seam_connect(so, &f, &addr);
    seam_submit(&s, so);
    seam_until(&s, seam_idle(so));
    cr_assert_eq(so->res, -ECONNREFUSED);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* A connected datagram socket has errors, too, and goes on. */
READINESS_TEST(readiness_foreign, datagram_refused)
{
    struct seam s;
    struct gyre__addr addr;
    struct gyre__fd f;
    struct msghdr room = {.msg_namelen = 32};
    kqueue_shim_take_errors(true);
    seam_open(&s, p);
    seam_pool(&s, RD_BUF, 4, 8);
    closed_port(&addr);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&addr.ss, addr.len), 0);
    seam_attach(&s, &f, fd, GYRE_FDF_DGRAM);
    struct seam_op *so = seam_op_new(&s);
    for (unsigned round = 0; round < 3; round++) {
        seam_recvmsg(so, &f, &s.pool, &room);
        seam_submit(&s, so);
        (void)seam_turn(&s, 0);
        cr_assert_eq((int)syscall(SYS_sendto, fd, "x", 1, 0, NULL, 0), 1);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(so->res, -ECONNREFUSED);
    }
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* ---- what macOS says ---- */

/* The connection failed between two questions: getpeername() says EINVAL, and SO_ERROR now knows more. */
READINESS_TEST(readiness_foreign, connection_that_failed_meanwhile)
{
    struct seam s;
    struct listener l;
    struct gyre__fd f;
    seam_open(&s, p);
    listener_open(&s, &l, 8);
    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), GYRE_FDF_INET);
    seam_connect(so, &f, &l.addr);
    getpeername_error = EINVAL;
    seam_submit(&s, so);
    seam_until(&s, seam_idle(so));
    cr_assert_eq(so->res, -ECONNRESET);
    cr_assert_eq(getpeername_error, 0, "it was not asked");
    seam_fd_close(&s, &f);
    listener_close(&s, &l);
    seam_close(&s);
}

/* Of a connection that is over it says the same when its peer is asked for. */
REAL_TEST(readiness_foreign, peer_of_what_is_over)
{
    struct seam s;
    struct gyre__addr addr;
    seam_open(&s, p);
    int fd = seam_socket(&s);
    getpeername_error = EINVAL;
    cr_assert_eq(s.ops->sock->name(s.be, fd, true, &addr), -ENOTCONN);
    cr_assert_eq(getpeername_error, 0, "it was not asked");
    s.ops->sock->close(s.be, fd);
    seam_close(&s);
}

/* A send while the peer goes away may say EPROTOTYPE. */
READINESS_TEST(readiness_foreign, send_while_the_peer_goes)
{
    struct seam s;
    struct rd_end e;
    open_one(&s, p, &e);
    send_error = EPROTOTYPE;
    rd_send(&e, "x", 1);
    seam_until(&s, seam_idle(e.send));
    cr_assert_eq(e.send->res, -ECONNRESET);
    send_error = EPROTOTYPE;
    cr_assert_eq(s.ops->sock->try_send(s.be, e.f.fd, "x", 1), -ECONNRESET);
    cr_assert_eq(s.ops->sock->try_send(s.be, e.f.fd, "x", 1), 1);
    close_one(&s, &e);
}
