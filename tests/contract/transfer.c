/* SPDX-License-Identifier: MIT
 * Bulk: short sends summed, gathered sends, both directions at once, many connections, and descriptor numbers that are
 * used again at once. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* 8 MiB each way at the same time, through a pool. */
TRANSPORT_TEST(transfer, both_ways_at_once)
{
    struct seam s;
    struct stream ends[2];
    seam_open(&s, p);
    seam_pool(&s, 16384, 8, 32);
    stream_pair(&s, &ends[0], &ends[1], 1);
    uint32_t bytes = seam_bulk(&s, 8 << 20);
    for (int i = 0; i < 2; i++) {
        stream_sizes(&ends[i], seam_bulk(&s, 1 << 20), 16);
        stream_receive(&ends[i], GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_send(&ends[i], bytes);
        stream_finish(&ends[i]);
    }
    seam_until(&s, ends[0].eof && ends[1].eof);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(ends[i].sent, bytes);
        cr_assert_eq(ends[i].got, bytes);
    }
    stream_close(&ends[0]);
    stream_close(&ends[1]);
    seam_close(&s);
}

/* One send op as large as it gets, read slowly: short or whole, the sums agree. */
TRANSPORT_TEST(transfer, huge_sends_are_summed)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    uint32_t bytes = seam_bulk(&s, 16 << 20);
    stream_sizes(&a, bytes, 16);
    stream_sizes(&b, 16, 100000);
    stream_send(&a, bytes);
    stream_finish(&a);
    seam_settle(&s, SEAM_MS(10));
    cr_assert_lt(a.sent, bytes, "all of it went out and nobody read");
    stream_receive(&b, 0);
    seam_until(&s, b.eof);
    cr_assert_eq(a.sent, bytes);
    cr_assert_eq(b.got, bytes);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

enum { IOVS = 64 };

struct gatherer {
    struct gyre__fd *f;
    struct seam_op *so;
    struct msghdr hdr;
    struct iovec iov[IOVS];
    uint8_t *bytes; /* of this round */
    uint64_t sent;
};

/* Point the iovecs at what is left to send: `len` bytes cut into `count` pieces of random sizes, some empty. */
static void gather(struct gatherer *g, struct env_rng *rng, size_t len, unsigned count, uint32_t key)
{
    env_pattern_fill(g->bytes, len, key, g->sent);
    g->hdr = (struct msghdr){.msg_iov = g->iov, .msg_iovlen = count};
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t left = len - at;
        size_t piece = i + 1 == count ? left : env_rng_below(rng, (uint32_t)(left / (count - i) * 2 + 1));
        g->iov[i] = (struct iovec){.iov_base = g->bytes + at, .iov_len = piece};
        at += piece;
    }
}

/* Gathered sends of 1 to 64 pieces, byte exact; what was short is sent again from where it stopped. */
TRANSPORT_TEST(transfer, gathered_sends)
{
    enum { MOST = 200000 };
    struct seam s;
    struct stream a, b;
    struct env_rng rng;
    static struct gatherer g;
    env_rng_init(&rng, 12);
    seam_open(&s, p);
    seam_pool(&s, 4096, 8, 16);
    stream_pair(&s, &a, &b, 1);
    g = (struct gatherer){.f = &a.f, .so = seam_op_new(&s), .bytes = malloc(MOST)};
    cr_assert_not_null(g.bytes);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    for (unsigned count = 1; count <= IOVS; count++) {
        size_t len = 1 + env_rng_below(&rng, count % 8 ? 5000 : MOST);
        gather(&g, &rng, len, count, a.key_out);
        seam_sendmsg(g.so, g.f, &g.hdr);
        seam_submit(&s, g.so);
        seam_until(&s, seam_idle(g.so));
        cr_assert(g.so->res > 0 && (size_t)g.so->res <= len, "a gathered send of %zu gave %d", len, g.so->res);
        g.sent += (unsigned)g.so->res;
    }
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, g.sent);
    free(g.bytes);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A gathered send that the socket cannot take is cancelled: what it tells is what comes. */
TRANSPORT_TEST(transfer, gathered_send_cancelled)
{
    enum { LEN = 1 << 20 };
    struct seam s;
    struct stream a, b;
    struct env_rng rng;
    static struct gatherer g;
    env_rng_init(&rng, 13);
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    g = (struct gatherer){.f = &a.f, .so = seam_op_new(&s), .bytes = malloc(LEN)};
    cr_assert_not_null(g.bytes);
    for (bool blocked = false; !blocked;) {
        cr_assert_lt(g.sent, 200 << 20, "no end of sending, and nobody reads");
        gather(&g, &rng, LEN, IOVS, a.key_out);
        seam_sendmsg(g.so, g.f, &g.hdr);
        seam_submit(&s, g.so);
        seam_settle(&s, SEAM_MS(10));
        blocked = !seam_idle(g.so);
        if (blocked)
            seam_cancel(&s, g.so);
        seam_until(&s, seam_idle(g.so));
        cr_assert(g.so->res > 0 || (blocked && g.so->res == -ECANCELED), "the send gave %d", g.so->res);
        g.sent += g.so->res > 0 ? (unsigned)g.so->res : 0;
    }
    stream_finish(&a);
    stream_receive(&b, 0);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, g.sent);
    free(g.bytes);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A thousand connections one after the other on the same numbers. Ops are still armed when each is given up, and their
 * late events must not reach the next: its bytes are of another pattern. */
TRANSPORT_TEST(transfer, numbers_used_again)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 512, 4, 8);
    for (unsigned round = 0; round < 1000; round++) {
        struct stream a, b;
        stream_pair(&s, &a, &b, round % 900);
        uint32_t bytes = 1 + round % 1200;
        stream_receive(&b, round % 2 ? GYRE_OPF_POOL | GYRE_OPF_MULTI : 0);
        stream_receive(&a, round % 3 ? GYRE_OPF_POOL : 0);
        stream_send(&a, bytes);
        if (round % 4 == 0) {
            stream_send(&b, 77);
            seam_look(&s);
        } else {
            seam_until(&s, b.got == bytes);
        }
        stream_close(round % 5 ? &a : &b);
        stream_close(round % 5 ? &b : &a);
    }
    seam_close(&s);
}

/* Two hundred connections at once, each with its own pattern, all of it at the same time. */
BACKEND_TEST(transfer, two_hundred_connections)
{
    enum { PAIRS = 200 };
    static struct stream ends[2 * PAIRS];
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 4096, 32, 64);
    for (unsigned i = 0; i < PAIRS; i++)
        stream_pair(&s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        stream_receive(&ends[i], i % 3 ? GYRE_OPF_POOL | GYRE_OPF_MULTI : 0);
        stream_send(&ends[i], 30000 + i);
        stream_finish(&ends[i]);
    }
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        seam_until(&s, ends[i].eof);
        cr_assert_eq(ends[i].got, 30000 + (i ^ 1));
    }
    for (unsigned i = 0; i < 2 * PAIRS; i++)
        stream_close(&ends[i]);
    seam_close(&s);
}
