/* SPDX-License-Identifier: MIT
 * Datagrams on io_uring without multishot receive: the ring says that one is there, and a call receives it. In between
 * it may be taken by somebody else, the receive may be cancelled, and buffers may be gone. dgram.c, which runs with
 * this, too, has the rest. */
#ifdef __linux__
#include "seam.h"

#include "datagram/parse.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKETS = 2, BUF = 512 };

struct polled {
    struct seam s;
    struct gyre__fd f[SOCKETS]; /* bound, received from */
    struct gyre__addr addr[SOCKETS];
    struct seam_op *recv[SOCKETS];
    struct msghdr room;
    int sender; /* of the test's */
    unsigned got[SOCKETS];
    uint8_t last[SOCKETS];
    uint16_t kept[64];
    unsigned nkept;
};

static struct polled p_;

static void on_recv(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct polled *t = &p_;
    unsigned i = so == t->recv[0] ? 0 : 1;
    struct gyre__dgram d;
    if (!(ev->flags & GYRE_EV_BUF))
        return;
    cr_assert_eq(gyre__dgram_parse(&d, gyre__bufpool_data(&s->pool, ev->buf), (size_t)ev->res, &t->room), 0);
    cr_assert_eq(d.len, 1);
    t->got[i]++;
    t->last[i] = d.data[0];
    if (so->hold)
        t->kept[t->nkept++] = ev->buf;
}

static struct polled *open_polled(uint32_t bufs)
{
    const struct backend_param param = {.backend = "io_uring", .off = "multishot_recv"};
    struct polled *t = &p_;
    memset(t, 0, sizeof *t);
    if (gyre__backend_find(param.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    seam_open(&t->s, &param);
    seam_pool(&t->s, BUF, 2, bufs);
    t->room = (struct msghdr){.msg_namelen = sizeof(struct sockaddr_storage)};
    const struct gyre__sock_ops *sock = t->s.ops->sock;
    for (unsigned i = 0; i < SOCKETS; i++) {
        int fd = sock->dgram_open(t->s.be, AF_INET);
        cr_assert_geq(fd, 0);
        seam_addr(&t->s, &t->addr[i]);
        cr_assert_eq(sock->dgram_bind(t->s.be, fd, &t->addr[i], 0), 0);
        cr_assert_eq(sock->name(t->s.be, fd, false, &t->addr[i]), 0);
        seam_attach(&t->s, &t->f[i], fd, GYRE_FDF_DGRAM);
        t->recv[i] = seam_op_new(&t->s);
        t->recv[i]->on_event = on_recv;
    }
    t->sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(t->sender, 0);
    return t;
}

static void listen_on(struct polled *t, unsigned i)
{
    seam_recvmsg(t->recv[i], &t->f[i], &t->s.pool, &t->room);
    seam_submit(&t->s, t->recv[i]);
}

static void send_to(const struct polled *t, unsigned i, uint8_t byte)
{
    const struct sockaddr *to = (const struct sockaddr *)&t->addr[i].ss;
    cr_assert_eq(sendto(t->sender, &byte, 1, 0, to, t->addr[i].len), 1);
}

static void close_polled(struct polled *t)
{
    for (unsigned i = 0; i < SOCKETS; i++) {
        if (t->recv[i]->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&t->s, t->recv[i]);
        seam_until(&t->s, seam_idle(t->recv[i]));
        seam_fd_close(&t->s, &t->f[i]);
    }
    cr_assert_eq(close(t->sender), 0);
    seam_close(&t->s);
}

/* Both sockets are readable, and wait() has room for one: of the other, the first to be looked at next, the ring has
 * said so and nobody has received. Returns which it is. */
static unsigned one_said_but_not_received(struct polled *t)
{
    t->s.cap = 1;
    for (unsigned i = 0; i < SOCKETS; i++) {
        listen_on(t, i);
        (void)seam_turn(&t->s, 0);
    }
    for (unsigned i = 0; i < SOCKETS; i++)
        send_to(t, i, (uint8_t)(10 + i));
    seam_until(&t->s, t->got[0] + t->got[1] > 0);
    cr_assert_eq(t->got[0] + t->got[1], 1);
    t->s.cap = SEAM_BATCH;
    return t->got[0] == 0 ? 0 : 1;
}

/* One call for each, and that is counted. */
Test(uring_polled, one_call_each, .timeout = 20)
{
    struct polled *t = open_polled(8);
    for (unsigned i = 0; i < 50; i++) {
        listen_on(t, 0);
        send_to(t, 0, (uint8_t)i);
        seam_until(&t->s, t->got[0] == i + 1);
        cr_assert_eq(t->last[0], i);
        cr_assert(seam_idle(t->recv[0]));
        uint64_t calls = t->s.be->stats.calls;
        cr_assert_eq(calls, i + 1, "%llu calls for %u datagrams", (unsigned long long)calls, i + 1);
    }
    close_polled(t);
}

/* Somebody else was faster: no event, the buffer is free again, and the receive waits for the next. */
Test(uring_polled, taken_by_another, .timeout = 20)
{
    struct polled *t = open_polled(8);
    unsigned other = one_said_but_not_received(t);
    uint8_t byte = 0;
    cr_assert_eq(recv(t->f[other].fd, &byte, 1, MSG_DONTWAIT), 1);
    cr_assert_eq(byte, 10 + other);
    uint64_t calls = t->s.be->stats.calls;
    unsigned events = t->recv[other]->events;
    seam_settle(&t->s, SEAM_MS(5));
    cr_assert_eq(t->s.be->stats.calls, calls + 1, "it was not tried, or again and again");
    cr_assert_eq(t->recv[other]->events, events);
    send_to(t, other, 99);
    seam_until(&t->s, t->got[other] == 1);
    cr_assert_eq(t->last[other], 99);
    close_polled(t);
}

/* Cancelled after the ring has said that a datagram is there: the datagram is the next receive's. */
Test(uring_polled, cancelled_before_the_call, .timeout = 20)
{
    struct polled *t = open_polled(8);
    unsigned other = one_said_but_not_received(t);
    uint64_t calls = t->s.be->stats.calls;
    seam_cancel(&t->s, t->recv[other]);
    seam_until(&t->s, seam_idle(t->recv[other]));
    cr_assert_eq(t->recv[other]->res, -ECANCELED);
    cr_assert_eq(t->got[other], 0);
    cr_assert_eq(t->s.be->stats.calls, calls);
    listen_on(t, other);
    seam_until(&t->s, t->got[other] == 1);
    cr_assert_eq(t->last[other], 10 + other);
    close_polled(t);
}

/* All buffers can be had, those posted for streams, too, when no stream receives; then -ENOBUFS, and nothing is lost.
 */
Test(uring_polled, every_buffer, .timeout = 20)
{
    enum { BUFS = 8 };
    struct polled *t = open_polled(BUFS);
    t->recv[0]->hold = true;
    for (unsigned i = 0; i < BUFS + 1; i++)
        send_to(t, 0, (uint8_t)i);
    for (unsigned i = 0; i < BUFS; i++) {
        listen_on(t, 0);
        seam_until(&t->s, seam_idle(t->recv[0]));
        cr_assert_gt(t->recv[0]->res, 0, "%d with %u of %d buffers held", t->recv[0]->res, i, BUFS);
        cr_assert_eq(t->last[0], i);
    }
    listen_on(t, 0);
    seam_until(&t->s, seam_idle(t->recv[0]));
    cr_assert_eq(t->recv[0]->res, -ENOBUFS);
    cr_assert_eq(t->s.be->stats.enobufs, 1);
    for (; t->nkept > 0; t->nkept--, t->s.held--)
        gyre__bufpool_release(&t->s.pool, t->kept[t->nkept - 1]);
    t->recv[0]->hold = false;
    listen_on(t, 0);
    seam_until(&t->s, t->got[0] == BUFS + 1);
    cr_assert_eq(t->last[0], BUFS);
    close_polled(t);
}

/* What the network says of an earlier datagram ends the receive, takes no buffer, and the next receive works. */
Test(uring_polled, error_of_the_network, .timeout = 20)
{
    struct polled *t = open_polled(8);
    const struct gyre__sock_ops *sock = t->s.ops->sock;
    cr_assert_eq(sock->dgram_connect(t->s.be, t->f[0].fd, &t->addr[1]), 0);
    seam_fd_close(&t->s, &t->f[1]); /* nobody is there now */
    for (unsigned i = 0; i < 3; i++) {
        listen_on(t, 0);
        cr_assert_eq(send(t->f[0].fd, "x", 1, 0), 1);
        seam_until(&t->s, seam_idle(t->recv[0]));
        cr_assert_eq(t->recv[0]->res, -ECONNREFUSED);
    }
    cr_assert_eq(t->got[0], 0);
    cr_assert_eq(bind(t->sender, (struct sockaddr *)&t->addr[1].ss, t->addr[1].len), 0);
    listen_on(t, 0);
    send_to(t, 0, 7);
    seam_until(&t->s, t->got[0] == 1);
    seam_fd_close(&t->s, &t->f[0]);
    cr_assert_eq(close(t->sender), 0);
    seam_close(&t->s);
}
#endif
