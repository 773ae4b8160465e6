/* SPDX-License-Identifier: MIT
 * What the tests of bulk streams on io_uring share. */
#ifndef GYRE_TEST_URING_DIRECT_H
#define GYRE_TEST_URING_DIRECT_H

#include "reactor/backends.h"
#include "stream.h"

#include <string.h>

enum {
    BUF = 512,
    PIECE = 16 * 1024, /* of one send: not so large that the send would be a call too */
    BULK = 96 * 1024,
    MULTI = GYRE_OPF_POOL | GYRE_OPF_MULTI,
};

static const enum transport transports[] = {TRANSPORT_TCP4, TRANSPORT_UNIX};

#define EACH_TRANSPORT(i) (unsigned i = 0; (i) < sizeof transports / sizeof transports[0]; (i)++)

/* With two buffers posted any stream of three is a crowd. */
static inline void open_uring(struct seam *s, enum transport transport, struct gyre__backend_config cfg, unsigned bufs)
{
    struct backend_param p = {.backend = "io_uring", .transport = transport};
    if (gyre__backend_find(p.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    if (cfg.ops_max == 0)
        cfg.ops_max = 256;
    seam_open_config(s, &p, cfg);
    seam_pool(s, BUF, 2, (uint32_t)bufs);
}

/* Whether the kernel, and who runs the tests, let streams leave multishot. */
static inline bool can_direct(struct seam *s)
{
    char features[384];
    s->ops->features(s->be, features, sizeof features);
    return strstr(features, "direct") != NULL && strstr(features, "multishot_recv") != NULL;
}

static inline void expect_calls(struct seam *s, uint64_t before)
{
    if (can_direct(s))
        cr_assert_gt(s->be->stats.calls, before, "bulk streams made no calls");
}

static inline void pair(struct seam *s, struct stream *a, struct stream *b, uint32_t key)
{
    stream_pair(s, a, b, key);
    stream_sizes(a, PIECE, 16);
    stream_sizes(b, PIECE, 16);
}

/* Receive again if that is not under way, and see that all that was sent comes, and the end after it. */
static inline void expect_all(struct seam *s, struct stream *a, struct stream *b)
{
    seam_until(s, b->recv->op.state != GYRE_OPS_CANCELLING);
    if (seam_idle(b->recv) && !b->eof && !b->starved)
        stream_receive(b, MULTI);
    stream_finish(a);
    seam_until(s, b->eof);
    cr_assert_eq(b->got, a->send_goal, "%llu of %llu bytes came", (unsigned long long)b->got,
                 (unsigned long long)a->send_goal);
    cr_assert_eq(b->recv->lasts, b->recv->submits);
}

static inline void close_both(struct stream *a, struct stream *b)
{
    stream_close(a);
    stream_close(b);
}

/* Buffers that a receiver keeps. */
enum { KEPT_MAX = 64 };

static struct {
    uint16_t buf[KEPT_MAX];
    unsigned count;
    seam_event_fn *then;
} kept;

static inline void keep(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    kept.then(s, so, ev);
    if ((ev->flags & GYRE_EV_BUF) && so->hold)
        kept.buf[kept.count++] = ev->buf;
}

static inline void keep_from(struct stream *st)
{
    kept.then = st->recv->on_event;
    st->recv->on_event = keep;
    st->recv->hold = true;
}

static inline void let_go(struct seam *s)
{
    for (; kept.count > 0; kept.count--, s->held--)
        gyre__bufpool_release(&s->pool, kept.buf[kept.count - 1]);
}

#endif
