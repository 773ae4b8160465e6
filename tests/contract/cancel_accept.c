/* SPDX-License-Identifier: MIT
 * Promise 5 for accepting: a connection that arrives while the accept is cancelled is delivered, or waits in the
 * backlog for the next accept. None is lost, and no descriptor leaks (seam_close() counts them). */
#include "stream.h"

#include <errno.h>

enum { CLIENTS = 4 };

struct tally {
    unsigned accepted;
};

static void take(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct tally *t = so->user;
    if (ev->res < 0) {
        cr_assert_eq(ev->res, -ECANCELED, "accept gave %d", ev->res);
        return;
    }
    struct gyre__fd f;
    seam_attach(s, &f, ev->res, seam_fd_flags(s, true));
    seam_fd_close(s, &f);
    t->accepted++;
}

/* One round: arm, let connections come, cancel somewhere in between, then take what is left in the backlog. */
static void round_of(struct seam *s, struct listener *l, struct env_rng *rng)
{
    struct tally t = {0};
    struct gyre__fd f[CLIENTS];
    struct seam_op *connect[CLIENTS];
    l->accept->on_event = take;
    l->accept->user = &t;
    seam_accept(l->accept, &l->f, env_rng_below(rng, 2) ? GYRE_OPF_MULTI : 0);
    seam_submit(s, l->accept);
    if (env_rng_below(rng, 2))
        seam_look(s);
    for (unsigned i = 0; i < CLIENTS; i++) {
        connect[i] = seam_op_new(s);
        seam_attach(s, &f[i], seam_socket(s), seam_fd_flags(s, false));
        seam_connect(connect[i], &f[i], &l->addr);
        seam_submit(s, connect[i]);
    }
    for (uint32_t turns = env_rng_below(rng, 3); turns > 0; turns--)
        seam_look(s);
    if (l->accept->op.state == GYRE_OPS_INFLIGHT)
        seam_cancel(s, l->accept);
    seam_until(s, s->inflight == 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        cr_assert_eq(connect[i]->res, 0, "connect gave %d", connect[i]->res);
    while (t.accepted < CLIENTS) {
        seam_submit(s, l->accept);
        unsigned before = t.accepted;
        seam_until(s, t.accepted > before || seam_idle(l->accept));
        if (l->accept->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(s, l->accept);
        seam_until(s, seam_idle(l->accept));
    }
    cr_assert_eq(t.accepted, CLIENTS, "%u connections came of %d", t.accepted, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++)
        seam_fd_close(s, &f[i]);
}

static void race(const struct backend_param *p, unsigned listen_flags)
{
    struct seam s;
    struct listener l;
    struct env_rng rng;
    env_rng_init(&rng, 404);
    seam_open(&s, p);
    s.listen_flags = listen_flags;
    listener_open(&s, &l, 64);
    for (int round = 0; round < 80; round++)
        round_of(&s, &l, &rng);
    listener_close(&s, &l);
    seam_close(&s);
}

TRANSPORT_TEST(cancel_accept, racing_with_connections)
{
    race(p, 0);
}

TRANSPORT_TEST(cancel_accept, racing_with_connections_of_a_shared_listener)
{
    race(p, GYRE_FDF_SHARED);
}

/* The same with a batch of one, so that events wait inside the backend while the cancel is made. */
TRANSPORT_TEST(cancel_accept, racing_with_connections_one_event_at_a_time)
{
    struct seam s;
    struct listener l;
    struct env_rng rng;
    env_rng_init(&rng, 405);
    seam_open(&s, p);
    s.cap = 1;
    listener_open(&s, &l, 64);
    for (int round = 0; round < 40; round++)
        round_of(&s, &l, &rng);
    listener_close(&s, &l);
    seam_close(&s);
}

/* After cancel and close of a listener its address is free at once: a second listener may take it, and connections go
 * to that one only. */
BACKEND_TEST(cancel_accept, closed_listener_frees_its_address)
{
    struct seam s;
    seam_open(&s, p);
    for (int round = 0; round < 20; round++) {
        struct listener l;
        struct gyre__fd f;
        listener_open(&s, &l, 8);
        struct gyre__addr addr = l.addr;
        seam_accept(l.accept, &l.f, GYRE_OPF_MULTI);
        seam_submit(&s, l.accept);
        seam_look(&s);
        listener_close(&s, &l);

        struct seam_op *so = seam_op_new(&s);
        seam_attach(&s, &f, seam_socket(&s), GYRE_FDF_INET);
        seam_connect(so, &f, &addr);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(so->res, -ECONNREFUSED, "a closed listener still takes connections (%d)", so->res);
        seam_fd_close(&s, &f);

        int fd = seam_socket(&s);
        int err = s.ops->sock->listen(s.be, fd, &addr, &(struct gyre__listen_config){.backlog = 8});
        cr_assert_eq(err, 0, "listening again on the same address: %d", err);
        s.ops->sock->close(s.be, fd);
    }
    seam_close(&s);
}
