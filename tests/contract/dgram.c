/* SPDX-License-Identifier: MIT
 * Datagrams through the seam: one event each, whole or marked as cut, in order, whatever is cancelled or runs out. */
#include "seam.h"

#include "datagram/parse.h"

#include <errno.h>
#include <string.h>

enum { SENDS = 40, NAME_ROOM = 112 };

struct pair {
    struct seam s;
    struct gyre__fd a, b; /* b is bound, a is connected to it */
    struct gyre__addr addr;
    struct seam_op *recv;
    struct msghdr room;
    struct {
        struct seam_op *op;
        struct msghdr hdr;
        struct iovec iov;
        uint8_t data[1500];
    } send[SENDS];
    unsigned got;
    size_t lens[2 * SENDS];
    uint8_t firsts[2 * SENDS];
    bool truncated;
    bool rearm;
    uint16_t kept[2 * SENDS];
};

static struct pair p_;

static int dgram_socket(struct pair *t)
{
    int fd = t->s.ops->sock->dgram_open(t->s.be, seam_family(&t->s));
    cr_assert_geq(fd, 0, "dgram_open: %d", fd);
    return fd;
}

static void on_recv(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct pair *t = so->user;
    struct gyre__dgram d;
    if (ev->flags & GYRE_EV_BUF) {
        const uint8_t *buf = gyre__bufpool_data(&s->pool, ev->buf);
        cr_assert_eq(gyre__dgram_parse(&d, buf, (size_t)ev->res, &t->room), 0);
        cr_assert_not_null(d.name, "the sender has a name");
        cr_assert_eq(d.name->sa_family, seam_family(s));
        cr_assert_lt(t->got, 2 * SENDS);
        t->lens[t->got] = d.len;
        t->firsts[t->got] = d.len > 0 ? d.data[0] : 0;
        t->kept[t->got++] = ev->buf;
        t->truncated |= d.truncated;
    }
    if (!(ev->flags & GYRE_EV_MORE) && t->rearm && (ev->res >= 0 || ev->res == -ENOBUFS)) {
        seam_recvmsg(so, &t->b, &s->pool, &t->room);
        seam_submit(s, so);
    }
}

static struct pair *pair_open(const struct backend_param *p, uint32_t buf_size, uint32_t bufs)
{
    struct pair *t = &p_;
    memset(t, 0, sizeof *t);
    seam_open(&t->s, p);
    const struct gyre__sock_ops *sock = t->s.ops->sock;
    seam_pool(&t->s, buf_size, bufs, bufs);
    struct gyre__addr mine;
    seam_addr(&t->s, &t->addr);
    seam_addr(&t->s, &mine);
    int b = dgram_socket(t), a = dgram_socket(t);
    cr_assert_eq(sock->dgram_bind(t->s.be, b, &t->addr, 0), 0);
    cr_assert_eq(sock->name(t->s.be, b, false, &t->addr), 0);
    cr_assert_eq(sock->dgram_bind(t->s.be, a, &mine, 0), 0);
    cr_assert_eq(sock->dgram_connect(t->s.be, a, &t->addr), 0);
    seam_attach(&t->s, &t->b, b, GYRE_FDF_DGRAM);
    seam_attach(&t->s, &t->a, a, GYRE_FDF_DGRAM);
    t->room = (struct msghdr){.msg_namelen = NAME_ROOM, .msg_controllen = 32};
    t->rearm = true;
    t->recv = seam_op_new(&t->s);
    t->recv->user = t;
    t->recv->on_event = on_recv;
    for (unsigned i = 0; i < SENDS; i++)
        t->send[i].op = seam_op_new(&t->s);
    return t;
}

static void listen_on(struct pair *t)
{
    seam_recvmsg(t->recv, &t->b, &t->s.pool, &t->room);
    seam_submit(&t->s, t->recv);
}

/* Send datagram `i`: `len` bytes, all of them i + 1. */
static void send_one(struct pair *t, unsigned i, size_t len, unsigned flags)
{
    memset(t->send[i].data, (int)(i + 1), sizeof t->send[i].data);
    t->send[i].iov = (struct iovec){.iov_base = t->send[i].data, .iov_len = len};
    t->send[i].hdr = (struct msghdr){.msg_iov = &t->send[i].iov, .msg_iovlen = 1};
    seam_send_dgram(t->send[i].op, &t->a, &t->send[i].hdr, flags);
    seam_submit(&t->s, t->send[i].op);
}

static void pair_close(struct pair *t)
{
    t->rearm = false;
    if (!seam_idle(t->recv) && t->recv->op.state == GYRE_OPS_INFLIGHT)
        seam_cancel(&t->s, t->recv);
    seam_until(&t->s, t->s.inflight == 0);
    if (t->a.fd >= 0)
        seam_fd_close(&t->s, &t->a);
    seam_fd_close(&t->s, &t->b);
    seam_close(&t->s);
}

/* Each datagram is one event, the empty one too, and what follows it arrives. */
DGRAM_TRANSPORT_TEST(contract_dgram, one_event_each)
{
    static const size_t lens[] = {64, 0, 1, 0, 1400, 63};
    struct pair *t = pair_open(p, 2048, 8);
    listen_on(t);
    for (unsigned i = 0; i < 6; i++) {
        send_one(t, i, lens[i], 0);
        seam_until(&t->s, t->got == i + 1 && seam_idle(t->send[i].op));
        cr_assert_eq(t->send[i].op->res, (int32_t)lens[i]);
        cr_assert_eq(t->lens[i], lens[i]);
        cr_assert(lens[i] == 0 || t->firsts[i] == i + 1);
    }
    cr_assert(!t->truncated);
    pair_close(t);
}

/* What does not fit the buffer is cut off and flagged, and does not spill into the next. */
DGRAM_TRANSPORT_TEST(contract_dgram, truncation)
{
    struct pair *t = pair_open(p, 256, 4);
    size_t room = 256 - 16 - NAME_ROOM - 32;
    listen_on(t);
    send_one(t, 0, room, 0);
    seam_until(&t->s, t->got == 1);
    cr_assert_eq(t->lens[0], room);
    cr_assert(!t->truncated);
    send_one(t, 1, 1400, 0);
    seam_until(&t->s, t->got == 2);
    cr_assert_eq(t->lens[1], room);
    cr_assert(t->truncated);
    t->truncated = false;
    send_one(t, 2, 10, 0);
    seam_until(&t->s, t->got == 3);
    cr_assert_eq(t->lens[2], 10);
    cr_assert(!t->truncated);
    pair_close(t);
}

/* Many sends in flight on one socket at once keep their order. */
DGRAM_BACKEND_TEST(contract_dgram, sends_in_order)
{
    struct pair *t = pair_open(p, 2048, 64);
    listen_on(t);
    for (unsigned i = 0; i < SENDS; i++)
        send_one(t, i, 100, 0);
    seam_until(&t->s, t->got == SENDS);
    for (unsigned i = 0; i < SENDS; i++)
        cr_assert_eq(t->firsts[i], i + 1, "datagram %u is number %u", i, t->firsts[i] - 1u);
    pair_close(t);
}

/* The pool runs out while the receiver holds everything: -ENOBUFS, and nothing that the socket had room for is lost. */
DGRAM_BACKEND_TEST(contract_dgram, out_of_buffers)
{
    struct pair *t = pair_open(p, 512, 4);
    t->rearm = false;
    t->recv->hold = true;
    for (unsigned i = 0; i < 9; i++)
        send_one(t, i, 20, 0);
    for (unsigned released = 0; released < 9;) {
        listen_on(t);
        seam_until(&t->s, seam_idle(t->recv) || t->got == 9);
        if (t->got == 9 && t->recv->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&t->s, t->recv);
        seam_until(&t->s, seam_idle(t->recv));
        cr_assert(t->recv->res > 0 || t->recv->res == -ENOBUFS || t->got == 9);
        if (t->recv->res > 0 && t->got < 9)
            continue; /* ended for another reason, and there may be a buffer yet */
        for (; released < t->got; released++) {
            gyre__bufpool_release(&t->s.pool, t->kept[released]);
            t->s.held--;
        }
    }
    cr_assert_gt(t->s.enobufs, 0);
    for (unsigned i = 0; i < 9; i++)
        cr_assert_eq(t->firsts[i], i + 1);
    pair_close(t);
}

/* A receive that is cancelled with datagrams on the way loses none: they came, or wait for the next receive. */
DGRAM_TRANSPORT_TEST(contract_dgram, cancel)
{
    struct pair *t = pair_open(p, 512, 16);
    t->rearm = false;
    listen_on(t);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 3; i++)
            send_one(t, round * 3 + i, 20, 0);
        if (t->recv->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&t->s, t->recv);
        seam_until(&t->s, seam_idle(t->recv));
        listen_on(t);
        seam_until(&t->s, t->s.inflight <= 1 && (t->got == round * 3 + 3 || seam_idle(t->recv)));
        while (t->got < round * 3 + 3) {
            if (seam_idle(t->recv))
                listen_on(t);
            seam_look(&t->s);
        }
        if (seam_idle(t->recv))
            listen_on(t);
    }
    for (unsigned i = 0; i < 24; i++)
        cr_assert_eq(t->firsts[i], i + 1);
    pair_close(t);
}

/* A unix receiver that takes nothing: a send waits, and can be cancelled; with GYRE_OPF_DONTWAIT it says -EAGAIN. */
DGRAM_TRANSPORT_TEST(contract_dgram, full_receiver)
{
    if (p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT)
        return; /* UDP never makes a sender wait for the receiver */
    struct pair *t = pair_open(p, 512, 64);
    unsigned i = 0;
    for (; i < SENDS; i++) {
        send_one(t, i, 20, GYRE_OPF_DONTWAIT);
        seam_until(&t->s, seam_idle(t->send[i].op));
        if (t->send[i].op->res < 0)
            break;
    }
    cr_assert_lt(i, SENDS, "the receiver's queue has no end");
    cr_assert_eq(t->send[i].op->res, -EAGAIN);
    send_one(t, i, 20, 0);
    seam_settle(&t->s, SEAM_MS(5));
    cr_assert(!seam_idle(t->send[i].op));
    seam_cancel(&t->s, t->send[i].op);
    seam_until(&t->s, seam_idle(t->send[i].op));
    cr_assert_eq(t->send[i].op->res, -ECANCELED);
    send_one(t, i, 20, 0);
    listen_on(t);
    seam_until(&t->s, t->got == i + 1);
    cr_assert_eq(t->firsts[i], i + 1, "of %u the last is number %u", i + 1, t->firsts[i]);
    pair_close(t);
}

/* Nobody is there: the error comes with a receive or a send, ends that op, and the socket works on. */
DGRAM_BACKEND_TEST(contract_dgram, refused)
{
    struct pair *t = pair_open(p, 512, 8);
    struct gyre__fd other;
    t->rearm = false;
    int fd = dgram_socket(t);
    struct gyre__addr any = {.ss = {.ss_family = AF_INET}, .len = sizeof(struct sockaddr_in)};
    cr_assert_eq(t->s.ops->sock->dgram_bind(t->s.be, fd, &any, 0), 0);
    seam_attach(&t->s, &other, fd, GYRE_FDF_DGRAM);
    seam_fd_close(&t->s, &t->b); /* `a` talks to nobody now */
    struct seam_op *recv = seam_op_new(&t->s);
    seam_recvmsg(recv, &t->a, &t->s.pool, &t->room);
    seam_submit(&t->s, recv);
    send_one(t, 0, 20, 0);
    seam_until(&t->s, seam_idle(recv));
    cr_assert_eq(recv->res, -ECONNREFUSED);
    seam_recvmsg(recv, &t->a, &t->s.pool, &t->room);
    seam_submit(&t->s, recv);
    seam_settle(&t->s, SEAM_MS(2));
    cr_assert(!seam_idle(recv));
    seam_cancel(&t->s, recv);
    seam_until(&t->s, t->s.inflight == 0);
    seam_fd_close(&t->s, &t->a);
    seam_fd_close(&t->s, &other);
    seam_close(&t->s);
}

/* What a datagram socket is can be asked. */
DGRAM_TRANSPORT_TEST(contract_dgram, inspection)
{
    struct pair *t = &p_;
    struct gyre__sock_info info;
    struct gyre__addr addr;
    seam_open(&t->s, p);
    const struct gyre__sock_ops *sock = t->s.ops->sock;
    int bound = dgram_socket(t), other = dgram_socket(t), family = seam_family(&t->s);
    seam_addr(&t->s, &addr);
    cr_assert_eq(sock->dgram_bind(t->s.be, bound, &addr, 0), 0);
    cr_assert_eq(sock->name(t->s.be, bound, false, &addr), 0);
    cr_assert_eq(sock->inspect(t->s.be, bound, &info), 0);
    cr_assert(info.dgram && !info.stream && !info.listening && !info.connected);
    cr_assert_eq(info.family, family);
    cr_assert_eq(sock->dgram_connect(t->s.be, other, &addr), 0);
    cr_assert_eq(sock->inspect(t->s.be, other, &info), 0);
    cr_assert(info.dgram && info.connected);
    for (int only = 0; only < 2 && family == AF_INET6; only++) {
        int fresh = dgram_socket(t);
        cr_assert_eq(sock->dgram_set(t->s.be, fresh, family, GYRE_SOCK_V6_ONLY, only), 0);
        cr_assert_eq(sock->inspect(t->s.be, fresh, &info), 0);
        cr_assert_eq(info.dual, !only);
        sock->close(t->s.be, fresh);
    }
    sock->close(t->s.be, bound);
    sock->close(t->s.be, other);
    seam_close(&t->s);
}
