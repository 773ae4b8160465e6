/* SPDX-License-Identifier: MIT
 * Accepting: a full backlog, a multi accept that ends when it likes, and running out of descriptors. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CROWD = 200 };

struct crowd {
    struct gyre__fd f[CROWD];
    struct gyre__fd accepted[CROWD];
    struct seam_op *connect[CROWD];
    unsigned count;
    bool again; /* arm again when it ended with a connection */
    unsigned arms;
};

static void take(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct crowd *c = so->user;
    if (ev->res >= 0) {
        cr_assert_lt(c->count, CROWD);
        if (s->real)
            cr_assert(fcntl(ev->res, F_GETFD) & FD_CLOEXEC, "an accepted descriptor is not close-on-exec");
        seam_attach(s, &c->accepted[c->count++], ev->res, seam_fd_flags(s, true));
    }
    if (!(ev->flags & GYRE_EV_MORE) && ev->res >= 0 && c->again && !so->cancelled) {
        seam_submit(s, so);
        c->arms++;
    }
}

static void crowd_connect(struct seam *s, struct crowd *c, const struct listener *l, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        c->connect[i] = seam_op_new(s);
        seam_attach(s, &c->f[i], seam_socket(s), seam_fd_flags(s, false));
        seam_connect(c->connect[i], &c->f[i], &l->addr);
        seam_submit(s, c->connect[i]);
    }
}

static void crowd_leave(struct seam *s, struct crowd *c, unsigned connected)
{
    for (unsigned i = 0; i < connected; i++) {
        cr_assert_eq(c->connect[i]->res, 0, "connect %u gave %d", i, c->connect[i]->res);
        seam_fd_close(s, &c->f[i]);
    }
    for (unsigned i = 0; i < c->count; i++)
        seam_fd_close(s, &c->accepted[i]);
}

static void whole_backlog(const struct backend_param *p, unsigned flags, unsigned cap, unsigned listen_flags)
{
    static struct crowd c;
    struct seam s;
    struct listener l;
    c = (struct crowd){.again = true};
    seam_open(&s, p);
    s.cap = cap;
    s.listen_flags = listen_flags;
    listener_open(&s, &l, 256);
    crowd_connect(&s, &c, &l, CROWD);
    seam_until(&s, s.inflight == 0);
    l.accept->on_event = take;
    l.accept->user = &c;
    seam_accept(l.accept, &l.f, flags);
    seam_submit(&s, l.accept);
    seam_until(&s, c.count == CROWD);
    for (int i = 0; i < 5; i++)
        seam_look(&s);
    cr_assert_eq(c.count, CROWD);
    listener_close(&s, &l);
    crowd_leave(&s, &c, CROWD);
    seam_close(&s);
}

/* Two hundred connections wait in the backlog; one multi accept (armed again when it ends) delivers them all. */
TRANSPORT_TEST(accept, whole_backlog_with_a_multi_accept)
{
    whole_backlog(p, GYRE_OPF_MULTI, SEAM_BATCH, 0);
}

TRANSPORT_TEST(accept, whole_backlog_one_event_at_a_time)
{
    whole_backlog(p, GYRE_OPF_MULTI, 1, 0);
}

TRANSPORT_TEST(accept, whole_backlog_with_single_accepts)
{
    whole_backlog(p, 0, SEAM_BATCH, 0);
}

/* The same on a socket that others may accept on. */
TRANSPORT_TEST(accept, whole_backlog_of_a_shared_listener)
{
    whole_backlog(p, GYRE_OPF_MULTI, SEAM_BATCH, GYRE_FDF_SHARED);
    whole_backlog(p, GYRE_OPF_MULTI, 1, GYRE_FDF_SHARED);
    whole_backlog(p, 0, SEAM_BATCH, GYRE_FDF_SHARED);
}

/* They come in the order in which they connected. */
TRANSPORT_TEST(accept, in_order_of_connecting)
{
    enum { COUNT = 20 };
    static struct crowd c;
    struct seam s;
    struct listener l;
    uint8_t number, got;
    c = (struct crowd){.again = true};
    seam_open(&s, p);
    listener_open(&s, &l, 64);
    struct seam_op *so = seam_op_new(&s);
    for (unsigned i = 0; i < COUNT; i++) {
        c.connect[i] = seam_op_new(&s);
        seam_attach(&s, &c.f[i], seam_socket(&s), seam_fd_flags(&s, false));
        seam_connect(c.connect[i], &c.f[i], &l.addr);
        seam_submit(&s, c.connect[i]);
        seam_until(&s, seam_idle(c.connect[i]));
        number = (uint8_t)i;
        seam_send(so, &c.f[i], &number, 1);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
    }
    l.accept->on_event = take;
    l.accept->user = &c;
    seam_accept(l.accept, &l.f, GYRE_OPF_MULTI);
    seam_submit(&s, l.accept);
    seam_until(&s, c.count == COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        seam_recv(so, &c.accepted[i], &got, 1);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert(so->res == 1 && (!s.real || got == i), "connection %u came in place %u", got, i);
    }
    listener_close(&s, &l);
    crowd_leave(&s, &c, COUNT);
    seam_close(&s);
}

/* Take every free number but `spare`; returns how many are held. */
static unsigned fill_table(int *held, unsigned room, unsigned spare)
{
    struct rlimit limit;
    unsigned count = 0;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int lowest = dup(0);
    cr_assert_geq(lowest, 0);
    (void)close(lowest);
    limit.rlim_cur = (rlim_t)lowest + 40;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int fd = dup(0); fd >= 0 && count < room; fd = dup(0))
        held[count++] = fd;
    for (; spare > 0; spare--)
        (void)close(held[--count]);
    return count;
}

enum { WAITING = 8, ROOM = 64 };

/* No descriptor is left: the accept ends with -EMFILE, the connections wait. As numbers are given back they are
 * delivered, none is lost. Between the failures nothing spins: each arm has one event. */
static void without_descriptors(const struct backend_param *p, unsigned listen_flags)
{
    static struct crowd c;
    struct seam s;
    struct listener l;
    int held[ROOM];
    c = (struct crowd){.again = false};
    seam_open(&s, p);
    s.listen_flags = listen_flags;
    listener_open(&s, &l, 64);
    crowd_connect(&s, &c, &l, WAITING);
    seam_until(&s, s.inflight == 0);
    unsigned count = fill_table(held, ROOM, 0);
    l.accept->on_event = take;
    l.accept->user = &c;
    seam_accept(l.accept, &l.f, GYRE_OPF_MULTI);
    for (unsigned freed = 0; freed < WAITING; freed++) {
        for (int attempt = 0; attempt < 3; attempt++) {
            seam_submit(&s, l.accept);
            seam_until(&s, seam_idle(l.accept));
            cr_assert_eq(l.accept->res, -EMFILE, "accept without a free number gave %d", l.accept->res);
            cr_assert_eq(c.count, freed);
        }
        (void)close(held[--count]);
        seam_submit(&s, l.accept);
        seam_until(&s, c.count == freed + 1);
        if (freed + 1 < WAITING)
            seam_until(&s, seam_idle(l.accept));
    }
    while (count > 0)
        (void)close(held[--count]);
    listener_close(&s, &l);
    crowd_leave(&s, &c, WAITING);
    seam_close(&s);
}

REAL_TEST(accept, without_descriptors)
{
    without_descriptors(p, 0);
}

REAL_TEST(accept, without_descriptors_on_a_shared_listener)
{
    without_descriptors(p, GYRE_FDF_SHARED);
}

/* The same for single accepts, over a unix socket, and with the existing connections at work meanwhile. */
REAL_TEST(accept, without_descriptors_others_work_on)
{
    static struct crowd c;
    struct seam s;
    struct listener l;
    struct stream a, b;
    int held[ROOM];
    c = (struct crowd){.again = false};
    seam_open(&s, p);
    s.transport = TRANSPORT_UNIX;
    seam_pool(&s, 1024, 4, 8);
    stream_pair(&s, &a, &b, 1);
    listener_open(&s, &l, 64);
    crowd_connect(&s, &c, &l, WAITING);
    seam_until(&s, s.inflight == 0);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    unsigned count = fill_table(held, ROOM, 0);
    l.accept->on_event = take;
    l.accept->user = &c;
    seam_accept(l.accept, &l.f, 0);
    for (int i = 0; i < 10; i++) {
        seam_submit(&s, l.accept);
        stream_send(&a, 500);
        seam_until(&s, seam_idle(l.accept) && b.got == a.send_goal);
        cr_assert_eq(l.accept->res, -EMFILE);
    }
    while (count > 0)
        (void)close(held[--count]);
    while (c.count < WAITING) {
        seam_submit(&s, l.accept);
        seam_until(&s, seam_idle(l.accept));
        cr_assert_geq(l.accept->res, 0);
    }
    stream_close(&a);
    stream_close(&b);
    listener_close(&s, &l);
    crowd_leave(&s, &c, WAITING);
    seam_close(&s);
}

/* A connection that is gone again before it is accepted ends no listener: others come through after it. */
TRANSPORT_TEST(accept, of_a_connection_already_gone)
{
    static struct crowd c;
    struct seam s;
    struct listener l;
    c = (struct crowd){.again = true};
    seam_open(&s, p);
    listener_open(&s, &l, 64);
    crowd_connect(&s, &c, &l, 10);
    seam_until(&s, s.inflight == 0);
    for (unsigned i = 0; i < 10; i++) {
        cr_assert_eq(c.connect[i]->res, 0);
        if (i % 2)
            cr_assert_eq(s.ops->sock->set_reset(s.be, c.f[i].fd), 0);
        seam_fd_close(&s, &c.f[i]);
    }
    l.accept->on_event = take;
    l.accept->user = &c;
    seam_accept(l.accept, &l.f, GYRE_OPF_MULTI);
    seam_submit(&s, l.accept);
    struct gyre__fd f;
    struct seam_op *connect = seam_op_new(&s), *send = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    seam_connect(connect, &f, &l.addr);
    seam_submit(&s, connect);
    seam_until(&s, seam_idle(connect));
    cr_assert_eq(connect->res, 0);
    seam_send(send, &f, "x", 1);
    seam_submit(&s, send);
    seam_until(&s, seam_idle(send) && c.count >= 1 && (c.count == 11 || s.inflight <= 1));
    seam_settle(&s, SEAM_MS(5));
    cr_assert_not(seam_idle(l.accept) && l.accept->res < 0, "the accept ended with %d", l.accept->res);
    char got;
    seam_recv(send, &c.accepted[c.count - 1], &got, 1);
    seam_submit(&s, send);
    seam_until(&s, seam_idle(send));
    cr_assert(send->res == 1 && got == 'x', "the last connection accepted is not the last made");
    listener_close(&s, &l);
    seam_fd_close(&s, &f);
    crowd_leave(&s, &c, 0);
    seam_close(&s);
}
