/* SPDX-License-Identifier: MIT
 * Promise 5: cancel() is a request. The op has its last event all the same, and no byte is lost or told wrongly. The
 * seam checks that -ECANCELED comes only from ops that were cancelled in their present life. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 2048 };

/* Cancelled before the backend has been waited for even once, each kind that waits. */
TRANSPORT_TEST(cancel, before_the_first_wait)
{
    struct seam s;
    struct listener l;
    struct stream a, b;
    char buf[ROOM];
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    stream_pair(&s, &a, &b, 1);
    listener_open(&s, &l, 8);
    struct seam_op *so[4];
    for (int i = 0; i < 4; i++)
        so[i] = seam_op_new(&s);
    seam_recv(so[0], &a.f, buf, sizeof buf);
    seam_recv_pool(so[1], &b.f, &s.pool, GYRE_OPF_MULTI);
    seam_accept(so[2], &l.f, GYRE_OPF_MULTI);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 3; i++)
            seam_submit(&s, so[i]);
        for (int i = 0; i < 3; i++)
            seam_cancel(&s, so[(i + round) % 3]);
        seam_until(&s, s.inflight == 0);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(so[i]->res, -ECANCELED, "op %d gave %d", i, so[i]->res);
            cr_assert_eq(so[i]->events, (unsigned)round + 1);
        }
    }
    listener_close(&s, &l);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Cancelled when they have been waiting for long. */
TRANSPORT_TEST(cancel, while_waiting)
{
    struct seam s;
    struct listener l;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    stream_pair(&s, &a, &b, 1);
    listener_open(&s, &l, 8);
    for (int round = 0; round < 30; round++) {
        stream_receive(&a, round % 2 ? 0 : GYRE_OPF_POOL);
        stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI | (round % 3 ? 0 : GYRE_OPF_POLL_FIRST));
        seam_accept(l.accept, &l.f, round % 2 ? GYRE_OPF_MULTI : 0);
        seam_submit(&s, l.accept);
        for (int i = 0; i < 3; i++)
            (void)seam_turn(&s, i == 2 ? SEAM_MS(2) : 0);
        cr_assert_eq(s.inflight, 3);
        stream_pause(&a);
        stream_pause(&b);
        seam_cancel(&s, l.accept);
        seam_until(&s, s.inflight == 0);
        cr_assert_eq(a.recv_err, -ECANCELED);
        cr_assert_eq(b.recv_err, -ECANCELED);
        cr_assert_eq(l.accept->res, -ECANCELED);
    }
    listener_close(&s, &l);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A hundred at once, before and after a wait, the events taken out few at a time. */
BACKEND_TEST(cancel, many_at_once_with_a_small_batch)
{
    enum { PAIRS = 50 };
    static struct stream ends[2 * PAIRS];
    struct seam s;
    seam_open(&s, p);
    for (unsigned i = 0; i < PAIRS; i++)
        stream_pair(&s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
    for (unsigned round = 0; round < 6; round++) {
        s.cap = round % 2 ? 1 : 4;
        for (unsigned i = 0; i < 2 * PAIRS; i++)
            stream_receive(&ends[i], 0);
        for (unsigned i = 0; i < round / 2; i++)
            seam_look(&s);
        for (unsigned i = 0; i < 2 * PAIRS; i++)
            stream_pause(&ends[i]);
        seam_until(&s, s.inflight == 0);
        for (unsigned i = 0; i < 2 * PAIRS; i++)
            cr_assert_eq(ends[i].recv_err, -ECANCELED);
    }
    for (unsigned i = 0; i < 2 * PAIRS; i++)
        stream_close(&ends[i]);
    seam_close(&s);
}

/* Bytes are sent and the receive is cancelled at the same moment, in either order. Whatever each round gives, in the
 * end every byte has come once. */
TRANSPORT_TEST(cancel, racing_with_data_loses_no_byte)
{
    struct seam s;
    struct stream a, b;
    struct env_rng rng;
    unsigned cancelled = 0, data = 0;
    static const unsigned kinds[] = {0, GYRE_OPF_POOL, GYRE_OPF_POOL | GYRE_OPF_MULTI};
    env_rng_init(&rng, 77);
    seam_open(&s, p);
    seam_pool(&s, 512, 4, 4);
    stream_pair(&s, &a, &b, 1);
    for (int round = 0; round < 600; round++) {
        uint64_t got = b.got;
        stream_receive(&b, kinds[env_rng_below(&rng, 3)]);
        if (env_rng_below(&rng, 2))
            seam_look(&s);
        stream_send(&a, 1 + env_rng_below(&rng, 700));
        for (uint32_t turns = env_rng_below(&rng, 3); turns > 0; turns--)
            seam_look(&s);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
        data += b.got > got;
        cancelled += b.recv_err == -ECANCELED;
    }
    cr_assert_gt(data, 0, "no round received anything");
    cr_assert_gt(cancelled, 0, "no round was cancelled");
    stream_finish(&a);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, a.sent);
    cr_assert_eq(a.sent, a.send_goal);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

enum { CROWD = 8 };

static struct stream crowd[2 * CROWD];
static struct env_rng crowd_rng;
static seam_event_fn *crowd_recv;

/* Cancels the receives of others, whose last events may be further on in the same batch. */
static void cancel_others(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    crowd_recv(s, so, ev);
    for (unsigned i = 0; i < CROWD; i++) {
        struct seam_op *other = crowd[2 * i + 1].recv;
        if (other != so && other->op.state == GYRE_OPS_INFLIGHT && env_rng_below(&crowd_rng, 2))
            seam_cancel(s, other);
    }
    struct stream *st = so->user;
    if (seam_idle(st->recv) && !st->eof && !st->starved && env_rng_below(&crowd_rng, 2))
        stream_receive(st, st->recv_flags);
}

static void crowd_round(struct seam *s)
{
    for (unsigned i = 0; i < CROWD; i++) {
        struct stream *st = &crowd[2 * i + 1];
        if (seam_idle(st->recv))
            stream_receive(st, env_rng_below(&crowd_rng, 2) ? 0 : GYRE_OPF_POOL);
        if (env_rng_below(&crowd_rng, 3) > 0)
            stream_send(&crowd[2 * i], 1 + env_rng_below(&crowd_rng, 300));
    }
    for (int i = 0; i < 3; i++)
        (void)seam_turn(s, i == 0 || !s->real ? SEAM_MS(1) : 0);
}

/* Ops are cancelled whose last event has left wait() and is not yet dispatched; some are submitted again in the very
 * same batch. An old cancel must not reach an op's next life. */
TRANSPORT_TEST(cancel, of_an_op_whose_event_has_already_left)
{
    struct seam s;
    env_rng_init(&crowd_rng, 5);
    seam_open(&s, p);
    seam_pool(&s, 1024, 16, 16);
    for (unsigned i = 0; i < CROWD; i++) {
        stream_pair(&s, &crowd[2 * i], &crowd[2 * i + 1], 2 * i);
        crowd_recv = crowd[2 * i + 1].recv->on_event;
        crowd[2 * i + 1].recv->on_event = cancel_others;
    }
    for (int round = 0; round < 300; round++)
        crowd_round(&s);
    for (unsigned i = 0; i < CROWD; i++) {
        struct stream *in = &crowd[2 * i + 1];
        in->recv->on_event = crowd_recv;
    }
    for (unsigned i = 0; i < CROWD; i++) {
        struct stream *in = &crowd[2 * i + 1], *out = &crowd[2 * i];
        stream_finish(out);
        if (in->recv->op.state == GYRE_OPS_CANCELLING)
            seam_until(&s, seam_idle(in->recv));
        if (seam_idle(in->recv) && !in->eof)
            stream_receive(in, GYRE_OPF_POOL | GYRE_OPF_MULTI);
        seam_until(&s, in->eof);
        cr_assert_eq(in->got, out->sent);
    }
    for (unsigned i = 0; i < 2 * CROWD; i++)
        stream_close(&crowd[i]);
    seam_close(&s);
}

static void count_event(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    (void)s;
    (void)ev;
    ++*(unsigned *)so->user;
}

/* The cancel comes when the op is over but for the dispatch; then its descriptor is closed, and op and number serve
 * another connection at once. What is left of the cancel must reach neither. */
TRANSPORT_TEST(cancel, leaves_nothing_for_the_next_user_of_op_and_number)
{
    struct seam s;
    char buf[64];
    unsigned events = 0;
    seam_open(&s, p);
    struct seam_op *so = seam_op_new(&s);
    so->on_event = count_event;
    so->user = &events;
    for (unsigned round = 0; round < 100; round++) {
        struct stream a, b;
        stream_pair(&s, &a, &b, 1);
        seam_recv(so, &b.f, buf, sizeof buf);
        seam_submit(&s, so);
        for (unsigned i = 0; i < round % 3; i++)
            seam_look(&s);
        cr_assert_not(seam_idle(so), "round %u: nothing was sent, and %d came", round, so->res);
        stream_send(&a, 10);
        if (round % 2)
            seam_until(&s, seam_idle(a.send));
        if (so->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        bool some = so->res > 0 && so->res <= 10;
        cr_assert(some || so->res == -ECANCELED, "round %u gave %d", round, so->res);
        cr_assert_eq(events, round + 1);
        stream_close(&b);
        stream_close(&a);
    }
    seam_close(&s);
}

/* Sends until the socket takes no more, then cancels the send. What was told sent is what comes, to the byte. */
TRANSPORT_TEST(cancel, of_a_send_tells_what_had_moved)
{
    struct seam s;
    for (unsigned round = 0; round < 4; round++) {
        static const uint32_t sizes[] = {8 << 20, 1 << 20, 100000, 3000};
        struct stream a, b;
        seam_open(&s, p);
        stream_pair(&s, &a, &b, 1);
        stream_sizes(&a, sizes[round], 16);
        stream_send(&a, 64 << 20);
        seam_settle(&s, SEAM_MS(30));
        cr_assert_not(seam_idle(a.send), "64 MiB went out and nobody read");
        seam_cancel(&s, a.send);
        seam_until(&s, seam_idle(a.send));
        cr_assert(a.send->res > 0 || a.send->res == -ECANCELED, "the send gave %d", a.send->res);
        cr_assert_gt(a.sent, 0);
        uint64_t told = a.sent;
        stream_receive(&b, 0);
        stream_finish(&a);
        seam_until(&s, b.eof);
        cr_assert_eq(b.got, told, "%llu bytes came, %llu were told sent", (unsigned long long)b.got,
                     (unsigned long long)told);
        stream_close(&a);
        stream_close(&b);
        seam_close(&s);
    }
}

/* The same with sends cancelled at random under a slow reader, and the stream going on after each. */
TRANSPORT_TEST(cancel, of_sends_again_and_again)
{
    struct seam s;
    struct stream a, b;
    struct env_rng rng;
    env_rng_init(&rng, 9);
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_sizes(&a, 300000, 16);
    stream_sizes(&b, 16, 50000);
    for (int round = 0; round < 300; round++) {
        a.send_err = 0;
        a.send_goal = a.sent;
        stream_send(&a, 1 + env_rng_below(&rng, 900000));
        for (uint32_t turns = env_rng_below(&rng, 3); turns > 0; turns--)
            seam_look(&s);
        if (a.send->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&s, a.send);
        if (env_rng_below(&rng, 2))
            stream_receive(&b, 0);
        seam_until(&s, seam_idle(a.send));
        for (uint32_t turns = env_rng_below(&rng, 5); turns > 0; turns--)
            seam_look(&s);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
    }
    cr_assert_gt(a.sent, 0);
    stream_finish(&a);
    stream_receive(&b, 0);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, a.sent);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A connect that is cancelled has one event: it was made, or it was not. */
TRANSPORT_TEST(cancel, of_a_connect)
{
    struct seam s;
    struct listener l;
    unsigned made = 0;
    seam_open(&s, p);
    listener_open(&s, &l, 128);
    struct seam_op *so = seam_op_new(&s);
    for (int round = 0; round < 60; round++) {
        struct gyre__fd f;
        seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
        seam_connect(so, &f, &l.addr);
        seam_submit(&s, so);
        for (int i = 0; i < round % 3; i++)
            seam_look(&s);
        if (!seam_idle(so))
            seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert(so->res == 0 || so->res == -ECANCELED, "connect gave %d", so->res);
        made += so->res == 0;
        seam_fd_close(&s, &f);
    }
    cr_assert_gt(made, 0, "none of 60 connects came about");
    listener_close(&s, &l);
    seam_close(&s);
}
