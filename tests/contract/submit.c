/* SPDX-License-Identifier: MIT
 * Promise 1: submit() neither fails nor calls back; whatever goes wrong is an event. The seam's own checks see that
 * nothing is called back; here everything that can go wrong at once does, and must come out as one error event. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Submit, wait for the last event, return its result. */
static int outcome(struct seam *s, struct seam_op *so)
{
    seam_submit(s, so);
    seam_until(s, seam_idle(so));
    cr_assert_eq(so->lasts, so->submits);
    return so->res;
}

/* A connection that nobody listens for is refused by an event. The unix path is there, its listener is not. */
TRANSPORT_TEST(submit, connect_refused_is_an_event)
{
    struct seam s;
    struct listener l;
    struct gyre__fd f;
    seam_open(&s, p);
    listener_open(&s, &l, 8);
    struct gyre__addr addr = l.addr;
    listener_close(&s, &l);

    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    seam_connect(so, &f, &addr);
    int res = outcome(&s, so);
    /* To the simulator a path that nobody listens on is none. */
    bool no_path = !s.real && s.transport == TRANSPORT_UNIX && res == -ENOENT;
    cr_assert(res == -ECONNREFUSED || no_path, "connect to nobody gave %d", res);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* A unix path that does not exist is an event too. */
BACKEND_TEST(submit, connect_to_a_missing_path_is_an_event)
{
    struct seam s;
    struct gyre__fd f;
    struct gyre__addr addr;
    seam_open(&s, p);
    s.transport = TRANSPORT_UNIX;
    seam_addr(&s, &addr);
    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    seam_connect(so, &f, &addr);
    int res = outcome(&s, so);
    cr_assert(res == -ENOENT || (!s.real && res == -ECONNREFUSED), "connect to a missing path gave %d", res);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* Connecting what is connected has its event too, and leaves the connection as it is. Linux gives 0 the first time if
 * the connection had been made without blocking. */
TRANSPORT_TEST(submit, connect_twice_is_an_event)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    struct seam_op *so = seam_op_new(&s);
    seam_connect(so, &a.f, &a.peer);
    (void)outcome(&s, so);
    cr_assert_eq(so->events, 1);
    stream_receive(&b, 0);
    stream_send(&a, 1000);
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, 1000);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Accepting on a socket that does not listen. Multi or not, it is over with the first event. */
TRANSPORT_TEST(submit, accept_without_listen_is_an_event)
{
    struct seam s;
    struct gyre__fd f;
    seam_open(&s, p);
    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    seam_accept(so, &f, 0);
    cr_assert_lt(outcome(&s, so), 0);
    seam_accept(so, &f, GYRE_OPF_MULTI);
    cr_assert_lt(outcome(&s, so), 0);
    cr_assert_eq(so->events, 2);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* Receiving and sending on a socket that is connected to nothing; with a pool too, which must stay whole. */
TRANSPORT_TEST(submit, transfer_without_connection_is_an_event)
{
    struct seam s;
    struct gyre__fd f;
    char bytes[64] = "";
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    for (int round = 0; round < 10; round++) {
        seam_recv(so, &f, bytes, sizeof bytes);
        cr_assert_lt(outcome(&s, so), 0);
        seam_recv_pool(so, &f, &s.pool, GYRE_OPF_MULTI);
        cr_assert_lt(outcome(&s, so), 0);
        seam_recv_pool(so, &f, &s.pool, 0);
        cr_assert_lt(outcome(&s, so), 0);
        seam_send(so, &f, bytes, sizeof bytes);
        cr_assert_lt(outcome(&s, so), 0);
        seam_sendmsg(so, &f, &hdr);
        cr_assert_lt(outcome(&s, so), 0);
    }
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* Sending after one's own FIN gives -EPIPE and no signal. */
TRANSPORT_TEST(submit, send_after_shutdown_is_an_event)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_finish(&a);
    stream_send(&a, 100);
    seam_until(&s, seam_idle(a.send));
    cr_assert_eq(a.send_err, -EPIPE, "send after FIN gave %d", a.send_err);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A number that is no descriptor: attach() says so and leaves `f` alone, or each op does. */
BACKEND_TEST(submit, bad_descriptor)
{
    struct seam s;
    char bytes[8];
    seam_open(&s, p);
    struct gyre__fd f = {.fd = 19999, .flags = GYRE_FDF_INET}, before = f;
    int err = s.ops->attach(s.be, &f);
    cr_assert_leq(err, 0);
    if (err < 0) {
        cr_assert_eq(memcmp(&f, &before, sizeof f), 0, "attach() failed and did not leave `f` as it was");
    } else {
        struct seam_op *so = seam_op_new(&s);
        s.fds++;
        seam_recv(so, &f, bytes, sizeof bytes);
        cr_assert_eq(outcome(&s, so), -EBADF);
        seam_send(so, &f, bytes, sizeof bytes);
        cr_assert_eq(outcome(&s, so), -EBADF);
        seam_accept(so, &f, GYRE_OPF_MULTI);
        cr_assert_eq(outcome(&s, so), -EBADF);
        seam_fd_close(&s, &f);
    }
    seam_close(&s);
}

/* A pipe is no socket. */
REAL_TEST(submit, not_a_socket)
{
    struct seam s;
    int ends[2];
    char bytes[8];
    seam_open(&s, p);
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    struct gyre__fd f = {.fd = ends[0]};
    int err = s.ops->attach(s.be, &f);
    if (err == 0) {
        struct seam_op *so = seam_op_new(&s);
        s.fds++;
        seam_recv(so, &f, bytes, sizeof bytes);
        cr_assert_eq(outcome(&s, so), -ENOTSOCK);
        seam_accept(so, &f, 0);
        cr_assert_eq(outcome(&s, so), -ENOTSOCK);
        seam_fd_close(&s, &f);
    } else {
        (void)close(ends[0]);
    }
    (void)close(ends[1]);
    seam_close(&s);
}

static void again(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    unsigned *left = so->user;
    cr_assert_lt(ev->res, 0);
    if ((*left)-- > 1)
        seam_submit(s, so);
}

/* An op that fails at once and is submitted again from its own event, ten thousand times: no recursion, no loss. */
BACKEND_TEST(submit, failing_op_submitted_from_its_event)
{
    struct seam s;
    struct gyre__fd f;
    char bytes[8];
    unsigned left = 10000;
    seam_open(&s, p);
    struct seam_op *so = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    so->on_event = again;
    so->user = &left;
    seam_recv(so, &f, bytes, sizeof bytes);
    seam_submit(&s, so);
    seam_until(&s, left == 0);
    cr_assert_eq(so->lasts, 10000);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

enum { MANY = 700 };

static void submit_many(struct seam *s)
{
    static struct gyre__fd f[MANY];
    static struct seam_op *ops[MANY];
    static char bytes[8];
    for (unsigned i = 0; i < MANY; i++) {
        seam_attach(s, &f[i], seam_socket(s), seam_fd_flags(s, false));
        ops[i] = seam_op_new(s);
        seam_recv(ops[i], &f[i], bytes, sizeof bytes);
        seam_submit(s, ops[i]);
    }
    seam_until(s, s->inflight == 0);
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(ops[i]->events, 1);
        cr_assert_lt(ops[i]->res, 0);
        seam_fd_close(s, &f[i]);
    }
}

/* Far more ops before the first wait() than the backend was told to expect. */
BACKEND_TEST(submit, more_than_ops_max)
{
    struct seam s;
    seam_open_config(&s, p, (struct gyre__backend_config){.ops_max = 4, .sq_entries = 8, .cq_entries = 16});
    submit_many(&s);
    seam_close(&s);
}

/* The same, the events taken out one at a time. */
BACKEND_TEST(submit, more_than_ops_max_one_by_one)
{
    struct seam s;
    seam_open_config(&s, p, (struct gyre__backend_config){.ops_max = 4, .sq_entries = 8, .cq_entries = 16});
    s.cap = 1;
    submit_many(&s);
    seam_close(&s);
}

enum { QUEUED = 12 };

static void drain_accepts(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    unsigned *accepted = so->user;
    if (ev->res < 0)
        return;
    struct gyre__fd f;
    (*accepted)++;
    seam_attach(s, &f, ev->res, GYRE_FDF_ACCEPTED);
    seam_fd_close(s, &f);
    if (!(ev->flags & GYRE_EV_MORE) && !so->cancelled)
        seam_submit(s, so);
}

/* More unix connects than the listener's queue holds. Those beyond it fail at once with -EAGAIN, and one that is tried
 * again when there is room succeeds. */
BACKEND_TEST(submit, unix_connect_beyond_the_backlog)
{
    struct seam s;
    struct listener l;
    struct gyre__fd f[QUEUED];
    struct seam_op *ops[QUEUED];
    unsigned accepted = 0, connected = 0;
    seam_open(&s, p);
    s.transport = TRANSPORT_UNIX;
    listener_open(&s, &l, 1);
    for (unsigned i = 0; i < QUEUED; i++) {
        ops[i] = seam_op_new(&s);
        seam_attach(&s, &f[i], seam_socket(&s), seam_fd_flags(&s, false));
        seam_connect(ops[i], &f[i], &l.addr);
        seam_submit(&s, ops[i]);
    }
    seam_until(&s, s.inflight == 0);
    for (unsigned i = 0; i < QUEUED; i++) {
        cr_assert(ops[i]->res == 0 || ops[i]->res == -EAGAIN, "connect %u gave %d", i, ops[i]->res);
        connected += ops[i]->res == 0;
    }
    cr_assert(connected >= 1 && connected < QUEUED, "%u of %u connected", connected, QUEUED);
    l.accept->on_event = drain_accepts;
    l.accept->user = &accepted;
    seam_accept(l.accept, &l.f, GYRE_OPF_MULTI);
    seam_submit(&s, l.accept);
    seam_until(&s, accepted == connected);
    for (unsigned i = 0; i < QUEUED; i++) {
        if (ops[i]->res == 0)
            continue;
        seam_connect(ops[i], &f[i], &l.addr);
        seam_submit(&s, ops[i]);
        seam_until(&s, seam_idle(ops[i]));
        cr_assert_eq(ops[i]->res, 0, "tried again it gave %d", ops[i]->res);
        connected++;
        seam_until(&s, accepted == connected);
    }
    listener_close(&s, &l);
    for (unsigned i = 0; i < QUEUED; i++)
        seam_fd_close(&s, &f[i]);
    seam_close(&s);
}
