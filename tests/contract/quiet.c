/* SPDX-License-Identifier: MIT
 * What waits is quiet: every operation on a socket, with a peer that is open, has sent FIN, has reset the connection,
 * has sent urgent data, or with an entry in the error queue that nobody takes. Whatever the operation makes of it, one
 * that stays in flight costs no turns. */
#ifdef __linux__
#include "stream.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WATCH_MS = 150, TURNS_MAX = 3 /* at 20 a second */, BUF = 4096 };

enum peer_state { OPEN, HALF_CLOSED, RESET, URGENT, ERROR_QUEUE, PEER_STATES };

static const char *const state_names[] = {"open", "half-closed", "reset", "urgent data", "error queue"};

/* An operation that waits. `full`: the socket has no room, so that it does. */
static const struct wait {
    const char *name;
    enum gyre__op_kind kind;
    unsigned flags;  /* of the op; of a POLL, its events */
    bool full;
} waits[] = {
    {"receive", GYRE_OP_RECV, 0, false},
    {"receive into the pool once", GYRE_OP_RECV, GYRE_OPF_POOL, false},
    {"receive into the pool", GYRE_OP_RECV, GYRE_OPF_POOL | GYRE_OPF_MULTI, false},
    {"send", GYRE_OP_SEND, 0, true},
    {"send, told to wait first", GYRE_OP_SEND, GYRE_OPF_POLL_FIRST, true},
    {"send of pieces", GYRE_OP_SENDMSG, 0, true},
    {"splice", GYRE_OP_SPLICE, 0, true},
    {"poll for nothing", GYRE_OP_POLL, 0, false},
    {"poll for reading", GYRE_OP_POLL, POLLIN, false},
    {"poll for writing", GYRE_OP_POLL, POLLOUT, true},
    {"poll for both", GYRE_OP_POLL, POLLIN | POLLOUT, true},
    {"poll for urgent data", GYRE_OP_POLL, POLLPRI, false},
};

enum { WAITS = sizeof waits / sizeof waits[0] };

/* Turn for a time in which nothing happens. */
static void stays_quiet(struct seam *s, const char *what, const char *state)
{
    seam_settle(s, SEAM_MS(5));
    uint64_t end_ns = env_now_ns() + (uint64_t)SEAM_MS(WATCH_MS), now_ns, spun = s->be->stats.rearms_idle;
    unsigned turns = 0;
    for (; (now_ns = env_now_ns()) < end_ns; turns++)
        (void)seam_turn(s, (int64_t)(end_ns - now_ns));
    cr_assert_leq(turns, TURNS_MAX, "%s, %s: %u turns in %d ms", what, state, turns, WATCH_MS);
    cr_assert_leq(s->be->stats.rearms_idle - spun, TURNS_MAX, "%s, %s", what, state);
}

/* Each send of `fd` leaves a time stamp in its error queue. */
static void leave_time_stamps(int fd)
{
    const int how = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &how, sizeof how), 0);
}

static bool has_errors(int fd)
{
    struct pollfd p = {.fd = fd};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

static void change(struct seam *s, struct stream *a, struct stream *b, enum peer_state state)
{
    const struct linger now = {.l_onoff = 1};
    switch (state) {
    case HALF_CLOSED:
        stream_finish(b);
        break;
    case RESET:
        cr_assert_eq(setsockopt(b->f.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
        stream_close(b);
        break;
    case URGENT:
        cr_assert_eq(send(b->f.fd, "!", 1, MSG_OOB), 1);
        break;
    case ERROR_QUEUE:
        (void)send(a->f.fd, "", 1, MSG_DONTWAIT);
        seam_settle(s, SEAM_MS(2));
        cr_assert(has_errors(a->f.fd), "no time stamp came");
        break;
    case OPEN:
    case PEER_STATES:
        break;
    }
}

/* The operation on `a`, or on a copy of its descriptor at `w`. */
static void begin(struct seam *s, const struct wait *wait, struct seam_op *so, struct stream *a, struct gyre__fd *w)
{
    static char bytes[BUF];
    static struct iovec iov[2] = {{bytes, 100}, {bytes + 100, 100}};
    static struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 2};
    switch ((int)wait->kind) {
    case GYRE_OP_RECV:
        if (wait->flags & GYRE_OPF_POOL)
            seam_recv_pool(so, &a->f, &s->pool, wait->flags);
        else
            seam_recv(so, &a->f, bytes, sizeof bytes);
        break;
    case GYRE_OP_SEND:
        seam_send(so, &a->f, bytes, sizeof bytes);
        so->op.flags = (uint16_t)wait->flags;
        break;
    case GYRE_OP_SENDMSG:
        seam_sendmsg(so, &a->f, &hdr);
        break;
    case GYRE_OP_SPLICE:
        seam_splice(so, &a->f, &s->pool.pipes[0], 1000);
        break;
    default:
        seam_attach(s, w, a->f.fd, GYRE_FDF_FOREIGN);
        seam_poll(so, w, wait->flags);
    }
    seam_submit(s, so);
}

/* As begin(), until it waits: room for a part is no room for all. */
static void begin_waiting(struct seam *s, const struct wait *wait, struct seam_op *so, struct stream *a,
                          struct gyre__fd *w)
{
    char bytes[1000] = "";
    for (unsigned tries = 0; tries < 10000; tries++) {
        if (wait->kind == GYRE_OP_SPLICE) {
            char left[1000];
            if (tries > 0 && so->res < 1000)
                cr_assert_eq(read(s->pool.pipes[0].read_fd, left, (size_t)(1000 - so->res)), 1000 - so->res);
            cr_assert_eq(write(s->pool.pipes[0].write_fd, bytes, sizeof bytes), sizeof bytes);
        }
        begin(s, wait, so, a, w);
        seam_look(s);
        seam_look(s);
        if (!wait->full || !seam_idle(so) || so->res < 0 || wait->kind == GYRE_OP_POLL)
            return;
    }
    cr_assert_fail("%s: it never waits", wait->name);
}

static void try_one(const struct backend_param *p, const struct wait *wait, enum peer_state state, bool before)
{
    struct seam s;
    struct stream a, b;
    struct gyre__fd w = {.fd = -1};
    seam_open(&s, p);
    seam_pool(&s, BUF, 4, 8);
    seam_pipes(&s, 1);
    struct seam_op *so = seam_op_new(&s);
    stream_pair(&s, &a, &b, 1);
    if (state == ERROR_QUEUE)
        leave_time_stamps(a.f.fd);
    if (state == ERROR_QUEUE || before)
        change(&s, &a, &b, state);
    if (wait->full && !(before && state == RESET)) {
        stream_send(&a, 16 << 20);
        seam_settle(&s, SEAM_MS(5));
        if (!seam_idle(a.send))
            seam_cancel(&s, a.send);
        seam_until(&s, seam_idle(a.send));
    }
    begin_waiting(&s, wait, so, &a, &w);
    if (state != ERROR_QUEUE && !before)
        change(&s, &a, &b, state);
    stays_quiet(&s, wait->name, state_names[state]);
    if (!seam_idle(so))
        seam_cancel(&s, so);
    seam_until(&s, seam_idle(so));
    if (w.fd >= 0)
        seam_fd_close(&s, &w);
    char rest[BUF];
    struct pollfd in_pipe = {.fd = s.pool.pipes[0].read_fd, .events = POLLIN};
    while (poll(&in_pipe, 1, 0) == 1)
        (void)!read(in_pipe.fd, rest, sizeof rest);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Every operation, and what the peer does before it and while it waits. */
DGRAM_REAL_TEST(quiet, streams)
{
    for (unsigned i = 0; i < WAITS; i++)
        for (unsigned state = OPEN; state < PEER_STATES; state++) {
            try_one(p, &waits[i], (enum peer_state)state, true);
            if (state != OPEN && state != ERROR_QUEUE)
                try_one(p, &waits[i], (enum peer_state)state, false);
        }
}

/* A UDP socket whose error queue has what a closed port answered. */
static int socket_with_error(struct seam *s)
{
    const int on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof to;
    int closed = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd = s->ops->sock->dgram_open(s->be, AF_INET);
    cr_assert(closed >= 0 && fd >= 0);
    cr_assert_eq(bind(closed, (struct sockaddr *)&to, sizeof to), 0);
    cr_assert_eq(getsockname(closed, (struct sockaddr *)&to, &len), 0);
    (void)close(closed);
    cr_assert_eq(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on), 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    cr_assert_eq(send(fd, "x", 1, 0), 1);
    struct pollfd pfd = {.fd = fd};
    cr_assert_eq(poll(&pfd, 1, 5000), 1);
    int error = 0;
    len = sizeof error;
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0); /* takes it; the queue's entry stays */
    cr_assert(error == ECONNREFUSED && has_errors(fd));
    return fd;
}

/* Receiving, and watching a socket for what does not come. */
DGRAM_REAL_TEST(quiet, datagrams)
{
    struct seam s;
    struct gyre__fd f, w;
    struct msghdr room = {.msg_namelen = 112};
    seam_open(&s, p);
    seam_pool(&s, BUF, 4, 8);
    struct seam_op *so = seam_op_new(&s), *watch = seam_op_new(&s);
    seam_attach(&s, &f, socket_with_error(&s), GYRE_FDF_DGRAM);
    seam_recvmsg(so, &f, &s.pool, &room);
    seam_submit(&s, so);
    stays_quiet(&s, "receive", "error queue");
    for (unsigned i = 0; i < 2; i++) {
        seam_attach(&s, &w, f.fd, GYRE_FDF_FOREIGN);
        seam_poll(watch, &w, i == 0 ? POLLIN : 0);
        seam_submit(&s, watch);
        seam_until(&s, seam_idle(watch));
        cr_assert_eq(watch->res, POLLERR, "POLLERR is told, asked for or not");
        seam_fd_close(&s, &w);
    }
    /* And it still receives. */
    struct sockaddr_in to, mine;
    socklen_t len = sizeof to;
    cr_assert_eq(getpeername(f.fd, (struct sockaddr *)&to, &len), 0);
    cr_assert_eq(getsockname(f.fd, (struct sockaddr *)&mine, &len), 0);
    int peer = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(peer, (struct sockaddr *)&to, sizeof to), 0);
    for (unsigned i = 0; i < 5; i++) {
        unsigned events = so->events;
        cr_assert_eq(sendto(peer, "hello", 5, 0, (struct sockaddr *)&mine, sizeof mine), 5);
        if (seam_idle(so)) {
            seam_recvmsg(so, &f, &s.pool, &room);
            seam_submit(&s, so);
        }
        seam_until(&s, so->events > events);
        cr_assert_gt(so->res, 0, "the receive gave %d", so->res);
    }
    stays_quiet(&s, "receive", "error queue, after datagrams");
    if (!seam_idle(so))
        seam_cancel(&s, so);
    seam_until(&s, seam_idle(so));
    (void)close(peer);
    seam_fd_close(&s, &f);
    seam_close(&s);
}
#endif
