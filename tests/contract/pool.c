/* SPDX-License-Identifier: MIT
 * Promise 8: receiving from a pool, and a pool that runs out. No byte is lost, nothing spins, no buffer goes astray
 * (seam_close() counts them), and a buffer that a receiver holds is the receiver's. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool all_ended(const struct stream *ends, size_t count)
{
    for (size_t i = 1; i < count; i += 2)
        if (!ends[i].eof)
            return false;
    return true;
}

enum { WRITERS = 100 };

/* A hundred connections write, and there are only a few buffers. The waits that bring nothing are bounded: starved
 * receives are armed again when buffers are free, so hardly any turn is idle. */
static void starve(struct seam *s, uint32_t buffers, unsigned flags)
{
    static struct stream ends[2 * WRITERS];
    seam_pool(s, 512, buffers, buffers);
    for (unsigned i = 0; i < WRITERS; i++) {
        stream_pair(s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
        stream_receive(&ends[2 * i + 1], flags);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        stream_send(&ends[2 * i], 5000);
        stream_finish(&ends[2 * i]);
    }
    uint64_t empty = s->empty, events = s->events, waits = s->waits;
    seam_until(s, all_ended(ends, 2 * WRITERS));
    for (unsigned i = 0; i < WRITERS; i++)
        cr_assert_eq(ends[2 * i + 1].got, 5000);
    cr_assert_lt(s->empty - empty, 1000, "%llu of %llu waits brought nothing", (unsigned long long)(s->empty - empty),
                 (unsigned long long)(s->waits - waits));
    cr_assert_lt(s->events - events, 200000, "%llu events", (unsigned long long)(s->events - events));
    for (unsigned i = 0; i < 2 * WRITERS; i++)
        stream_close(&ends[i]);
}

BACKEND_TEST(pool, two_buffers_for_a_hundred_writers)
{
    struct seam s;
    seam_open(&s, p);
    starve(&s, 2, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    seam_close(&s);
}

BACKEND_TEST(pool, four_buffers_for_a_hundred_writers)
{
    struct seam s;
    seam_open(&s, p);
    starve(&s, 4, GYRE_OPF_POOL | GYRE_OPF_MULTI | GYRE_OPF_POLL_FIRST);
    seam_close(&s);
}

BACKEND_TEST(pool, three_buffers_for_a_hundred_unix_writers)
{
    struct seam s;
    struct backend_param over_unix = *p;
    over_unix.transport = TRANSPORT_UNIX;
    seam_open(&s, &over_unix);
    starve(&s, 3, GYRE_OPF_POOL);
    seam_close(&s);
}

enum { HOLDERS = 6 };

static struct {
    uint16_t buf[64];
    int32_t len[64];
    unsigned count;
} kept;

static seam_event_fn *stream_on_recv;

/* Checks the bytes like any receiver, and keeps the buffer. */
static void keep(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    stream_on_recv(s, so, ev);
    if (!(ev->flags & GYRE_EV_BUF))
        return;
    cr_assert_lt(kept.count, 64);
    kept.buf[kept.count] = ev->buf;
    kept.len[kept.count++] = ev->res;
}

static void release_kept(struct seam *s, unsigned count)
{
    for (; count > 0 && kept.count > 0; count--) {
        gyre__bufpool_release(&s->pool, kept.buf[--kept.count]);
        s->held--;
    }
}

static void hold_all(struct stream *st)
{
    stream_on_recv = st->recv->on_event;
    st->recv->on_event = keep;
    st->recv->hold = true;
}

/* Receivers hold every buffer there is. The streams starve without a spin, and go on when buffers come back one by one;
 * every byte arrives. */
TRANSPORT_TEST(pool, receivers_hold_every_buffer)
{
    static struct stream ends[2 * HOLDERS];
    struct seam s;
    kept.count = 0;
    seam_open(&s, p);
    seam_pool(&s, 256, 4, 8);
    for (unsigned i = 0; i < HOLDERS; i++) {
        stream_pair(&s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
        hold_all(&ends[2 * i + 1]);
        stream_receive(&ends[2 * i + 1], i % 2 ? GYRE_OPF_POOL : GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_send(&ends[2 * i], 4000);
        stream_finish(&ends[2 * i]);
    }
    seam_until(&s, s.held == 8);
    seam_settle(&s, SEAM_MS(10));
    uint64_t events = s.events;
    seam_settle(&s, SEAM_MS(30));
    cr_assert_eq(s.events, events, "events come while every buffer is held");
    for (unsigned i = 0; i < HOLDERS; i++)
        cr_assert(ends[2 * i + 1].starved || ends[2 * i + 1].got == 0 || !seam_idle(ends[2 * i + 1].recv));

    uint64_t end_ns = env_now_ns() + 40 * (uint64_t)SEAM_MS(1000);
    while (!all_ended(ends, 2 * HOLDERS)) {
        release_kept(&s, 1);
        seam_turn_before(&s, end_ns, "starved streams to end", __FILE__, __LINE__);
    }
    release_kept(&s, 64);
    for (unsigned i = 0; i < 2 * HOLDERS; i++) {
        cr_assert_eq(ends[i].got, i % 2 ? 4000 : 0);
        stream_close(&ends[i]);
    }
    seam_close(&s);
}

/* What a held buffer says does not change while others receive through the rest of the pool, nor when the connection it
 * came from is closed. */
TRANSPORT_TEST(pool, held_buffers_stay_as_they_are)
{
    enum { SIZE = 1024 };
    struct seam s;
    struct stream a, b, c, d;
    kept.count = 0;
    seam_open(&s, p);
    seam_pool(&s, SIZE, 8, 8);
    stream_pair(&s, &a, &b, 1);
    stream_pair(&s, &c, &d, 3);
    hold_all(&b);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 3 * SIZE);
    seam_until(&s, b.got == 3 * SIZE || kept.count >= 6);
    stream_close(&a);
    stream_pause(&b);
    seam_until(&s, seam_idle(b.recv));
    unsigned count = kept.count;
    uint32_t key = b.key_in;
    stream_close(&b);

    stream_receive(&d, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&c, 200 * SIZE);
    seam_until(&s, d.got == 200 * SIZE);
    uint64_t offset = 0;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *data = gyre__bufpool_data(&s.pool, kept.buf[i]);
        cr_assert_eq(env_pattern_check(data, (size_t)kept.len[i], key, offset), -1, "held buffer %u has changed", i);
        offset += (unsigned)kept.len[i];
    }
    release_kept(&s, 64);
    stream_close(&c);
    stream_close(&d);
    seam_close(&s);
}

/* A stream ends while no buffer is free: the end comes, at the latest when there are buffers again. */
TRANSPORT_TEST(pool, end_of_stream_without_buffers)
{
    struct seam s;
    struct stream ends[4];
    kept.count = 0;
    seam_open(&s, p);
    seam_pool(&s, 128, 1, 2);
    stream_pair(&s, &ends[0], &ends[1], 1);
    stream_pair(&s, &ends[2], &ends[3], 3);
    hold_all(&ends[1]);
    stream_receive(&ends[1], GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&ends[0], 1000);
    seam_until(&s, s.held == 2);
    stream_receive(&ends[3], GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_finish(&ends[2]);
    seam_settle(&s, SEAM_MS(10));
    cr_assert(ends[3].eof || ends[3].starved || !seam_idle(ends[3].recv));
    ends[1].recv->on_event = stream_on_recv;
    stream_pause(&ends[1]);
    seam_until(&s, seam_idle(ends[1].recv));
    ends[1].recv->hold = false;
    release_kept(&s, 64);
    seam_until(&s, ends[3].eof);
    for (unsigned i = 0; i < 4; i++)
        stream_close(&ends[i]);
    seam_close(&s);
}

/* Opening and closing in a hurry, with a receive armed and data on the way: no buffer goes astray. */
TRANSPORT_TEST(pool, no_buffer_goes_astray)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 128, 4, 4);
    for (unsigned round = 0; round < 400; round++) {
        stream_pair(&s, &a, &b, 1);
        stream_receive(&b, round % 2 ? GYRE_OPF_POOL : GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_send(&a, 1 + round % 700);
        for (unsigned i = 0; i < round % 4; i++)
            seam_look(&s);
        if (round % 3)
            stream_close(&a);
        stream_close(&b);
        stream_close(&a);
    }
    seam_close(&s);
}

/* A pool may be taken away and another, of other measures, be given. */
BACKEND_TEST(pool, replaced)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    for (unsigned round = 0; round < 6; round++) {
        uint32_t size = 100u << round;
        seam_pool(&s, size, 2 + round, 3 + 2 * round);
        stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_send(&a, 20000);
        seam_until(&s, b.got == a.send_goal);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv) && seam_idle(a.send));
        s.ops->pool_remove(s.be, &s.pool);
        cr_assert_eq(gyre__bufpool_available(&s.pool), s.pool.count_max);
        gyre__bufpool_fini(&s.pool);
        s.has_pool = false;
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* destroy() removes a pool that is still added. */
BACKEND_TEST(pool, still_added_at_destroy)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 512, 4, 8);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 3000);
    seam_until(&s, b.got == 3000);
    stream_close(&a);
    stream_close(&b);
    s.ops->destroy(s.be);
    unsigned free_count = gyre__bufpool_available(&s.pool);
    cr_assert_eq(free_count, 8, "%u of 8 buffers are free after destroy()", free_count);
    gyre__bufpool_fini(&s.pool);
    backends_sim_free(s.sim);
    seam_free_ops(&s);
    cr_assert_eq(atomic_load(&s.mem.blocks), 0);
    env_dir_remove(s.dir);
    cr_assert_eq(env_fd_count(), s.fds_before);
}
