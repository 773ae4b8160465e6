/* SPDX-License-Identifier: MIT
 * Promise 2: each op has exactly one last event. Random mixtures of everything that can end an op; the seam fails at
 * the first event too many, and seam_until() at the first that never comes. */
#include "stream.h"

#include <errno.h>

enum { PAIRS = 10, STEPS = 400 };

static struct stream ends[2 * PAIRS];

static const unsigned kinds[] = {0, GYRE_OPF_POOL, GYRE_OPF_POOL | GYRE_OPF_MULTI, GYRE_OPF_POLL_FIRST,
                                 GYRE_OPF_POOL | GYRE_OPF_MULTI | GYRE_OPF_POLL_FIRST};

static void step(struct seam *s, struct env_rng *rng)
{
    struct stream *st = &ends[env_rng_below(rng, 2 * PAIRS)];
    switch (env_rng_below(rng, 6)) {
    case 0:
    case 1:
        if (seam_idle(st->recv) && !st->eof)
            stream_receive(st, kinds[env_rng_below(rng, 5)]);
        break;
    case 2:
        stream_send(st, 1 + env_rng_below(rng, 40000));
        break;
    case 3:
        stream_pause(st);
        break;
    case 4:
        if (st->send->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(s, st->send);
        if (seam_idle(st->send))
            st->send_err = 0;
        break;
    default:
        s->cap = 1 + env_rng_below(rng, SEAM_BATCH);
        if (env_rng_below(rng, 4))
            seam_look(s);
        else
            (void)seam_turn(s, SEAM_MS(1));
        break;
    }
}

/* Let everything come out that is owed: the pairs are intact, so every byte must arrive. */
static void finish_all(struct seam *s)
{
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        seam_until(s, ends[i].send->op.state != GYRE_OPS_CANCELLING);
        seam_until(s, ends[i].recv->op.state != GYRE_OPS_CANCELLING);
        ends[i].send_err = 0;
        stream_send(&ends[i], 1);
        stream_finish(&ends[i]);
        if (seam_idle(ends[i].recv) && !ends[i].eof)
            stream_receive(&ends[i], kinds[2]);
    }
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        seam_until(s, ends[i].eof);
        cr_assert_eq(ends[i].got, ends[i ^ 1].sent, "%llu bytes came, %llu were told sent",
                     (unsigned long long)ends[i].got, (unsigned long long)ends[i ^ 1].sent);
    }
}

/* Receives, sends, cancels and turns at random. In the end every byte has come, once. */
TRANSPORT_TEST(last_event, random_interleavings)
{
    struct env_rng rng;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct seam s;
        env_rng_init(&rng, seed);
        seam_open(&s, p);
        seam_pool(&s, 1024, 4, 12);
        for (unsigned i = 0; i < PAIRS; i++)
            stream_pair(&s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
        for (int i = 0; i < STEPS * 5; i++)
            step(&s, &rng);
        finish_all(&s);
        for (unsigned i = 0; i < 2 * PAIRS; i++) {
            stream_close(&ends[i]);
            cr_assert_eq(ends[i].recv->lasts, ends[i].recv->submits);
            cr_assert_eq(ends[i].send->lasts, ends[i].send->submits);
        }
        seam_close(&s);
    }
}

/* Close an end at random, in one of the ways there are, and make a new pair in its place. */
static void replace(struct seam *s, struct env_rng *rng)
{
    unsigned i = env_rng_below(rng, PAIRS);
    struct stream *a = &ends[2 * i], *b = &ends[2 * i + 1];
    switch (env_rng_below(rng, 3)) {
    case 0:
        (void)s->ops->sock->set_reset(s->be, a->f.fd);
        break;
    case 1:
        stream_finish(b);
        break;
    default:
        break;
    }
    stream_close(a);
    for (uint32_t turns = env_rng_below(rng, 3); turns > 0; turns--)
        seam_look(s);
    stream_close(b);
    stream_pair(s, a, b, 2 * i + PAIRS * 2 * env_rng_below(rng, 20));
}

static void reopen_failed(struct seam *s)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        struct stream *a = &ends[2 * i], *b = &ends[2 * i + 1];
        if (!a->eof && !b->eof && a->send_err != -EPIPE && b->send_err != -EPIPE)
            continue;
        stream_close(a);
        stream_close(b);
        stream_pair(s, a, b, 2 * i);
    }
}

/* The same with resets, half-closes and closes, numbers being used again at once. */
TRANSPORT_TEST(last_event, random_interleavings_with_closes)
{
    struct env_rng rng;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct seam s;
        env_rng_init(&rng, seed);
        seam_open(&s, p);
        seam_pool(&s, 1024, 4, 12);
        for (unsigned i = 0; i < PAIRS; i++)
            stream_pair(&s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
        for (int i = 0; i < STEPS; i++) {
            for (int k = 0; k < 4; k++)
                step(&s, &rng);
            if (i % 4 == 0)
                replace(&s, &rng);
            reopen_failed(&s);
        }
        for (unsigned i = 0; i < 2 * PAIRS; i++) {
            stream_close(&ends[i]);
            cr_assert_eq(ends[i].recv->lasts, ends[i].recv->submits);
            cr_assert_eq(ends[i].send->lasts, ends[i].send->submits);
        }
        seam_close(&s);
    }
}

/* One end has a receive and a send in flight when the other resets the connection: both end, once. */
TRANSPORT_TEST(last_event, reset_ends_both_directions)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    for (int round = 0; round < 20; round++) {
        stream_pair(&s, &a, &b, 1);
        stream_send(&a, 64 << 20);
        stream_receive(&a, round % 2 ? GYRE_OPF_POOL | GYRE_OPF_MULTI : 0);
        for (int i = 0; i < round; i++)
            seam_look(&s);
        cr_assert_eq(s.ops->sock->set_reset(s.be, b.f.fd), 0);
        stream_close(&b);
        seam_until(&s, seam_idle(a.send) && seam_idle(a.recv));
        cr_assert_lt(a.send_err, 0, "the send ended with %d after a reset", a.send_err);
        cr_assert(a.eof || a.recv_err < 0);
        stream_close(&a);
    }
    seam_close(&s);
}
