/* SPDX-License-Identifier: MIT
 * Promise 11: the end of a stream comes after all its data, ends the op, and carries no buffer (the seam checks the
 * last two for every event). */
#include "stream.h"

#include <errno.h>

static const uint32_t sizes[] = {0, 1, 100, 1023, 1024, 1025, 16384, 65536, 300000};
static const unsigned kinds[] = {0, GYRE_OPF_POOL, GYRE_OPF_POOL | GYRE_OPF_MULTI,
                                 GYRE_OPF_POOL | GYRE_OPF_MULTI | GYRE_OPF_POLL_FIRST};

static void until_end(struct seam *s, struct stream *st)
{
    uint64_t end_ns = env_now_ns() + 20 * (uint64_t)SEAM_MS(1000);
    while (!st->eof) {
        cr_assert_eq(st->recv_err, 0, "receiving ended with %d", st->recv_err);
        seam_turn_before(s, end_ns, "the end of the stream", __FILE__, __LINE__);
    }
}

enum arm { ARM_FIRST, ARM_AFTER_DATA };
enum ending { BY_SHUTDOWN, BY_CLOSE };

static void one_end(struct seam *s, uint32_t bytes, unsigned flags, enum arm arm, enum ending ending)
{
    struct stream a, b;
    bool fits = bytes <= (s->real ? 65536 : 512); /* into the sockets, though nobody reads */
    stream_pair(s, &a, &b, 7);
    stream_sizes(&a, 100000, 16);
    stream_sizes(&b, 16, 1024);
    if (arm == ARM_FIRST) {
        stream_receive(&b, flags);
        seam_look(s);
    }
    stream_send(&a, bytes);
    if (ending == BY_SHUTDOWN || !fits)
        stream_finish(&a);
    if (arm == ARM_AFTER_DATA && fits)
        seam_until(s, seam_idle(a.send));
    if (ending == BY_CLOSE && fits) {
        seam_until(s, seam_idle(a.send));
        stream_close(&a);
    }
    if (arm == ARM_AFTER_DATA)
        stream_receive(&b, flags);
    until_end(s, &b);
    cr_assert_eq(b.got, bytes, "%llu bytes came before the end, %u were sent", (unsigned long long)b.got, bytes);
    stream_close(&a);
    stream_close(&b);
}

/* Data and FIN close together, of many sizes, into each kind of receive, armed before the data or after. */
TRANSPORT_TEST(end, comes_after_all_data)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 16);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (unsigned k = 0; k < 4; k++)
            for (enum arm arm = ARM_FIRST; arm <= ARM_AFTER_DATA; arm++)
                one_end(&s, sizes[i], kinds[k], arm, BY_SHUTDOWN);
    seam_close(&s);
}

/* The same when the other end is closed, not only shut down. */
TRANSPORT_TEST(end, comes_after_all_data_of_a_closed_peer)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 16);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (unsigned k = 0; k < 4; k++)
            for (enum arm arm = ARM_FIRST; arm <= ARM_AFTER_DATA; arm++)
                one_end(&s, sizes[i], kinds[k], arm, BY_CLOSE);
    seam_close(&s);
}

/* Send, then FIN from the very event of the send, many times over: the end is never missed. */
TRANSPORT_TEST(end, never_missed)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 16);
    for (unsigned round = 0; round < 500; round++) {
        struct stream a, b;
        stream_pair(&s, &a, &b, 7);
        stream_receive(&b, kinds[round % 4]);
        for (unsigned i = 0; i < round % 3; i++)
            seam_look(&s);
        stream_send(&a, 1 + round % 1500);
        stream_finish(&a);
        until_end(&s, &b);
        cr_assert_eq(b.got, 1 + round % 1500);
        stream_close(&b);
        stream_close(&a);
    }
    seam_close(&s);
}

/* The end is behind a receive that exactly filled its buffer, and behind one cancelled meanwhile. */
TRANSPORT_TEST(end, behind_a_cancelled_receive)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    for (unsigned round = 0; round < 60; round++) {
        struct stream a, b;
        stream_pair(&s, &a, &b, 7);
        stream_receive(&b, kinds[round % 4]);
        if (round & 1)
            seam_look(&s);
        stream_send(&a, 1024);
        stream_finish(&a);
        for (unsigned i = 0; i < round % 5; i++)
            seam_look(&s);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
        if (!b.eof) {
            stream_receive(&b, kinds[(round / 4) % 4]);
            until_end(&s, &b);
        }
        cr_assert_eq(b.got, 1024);
        stream_close(&a);
        stream_close(&b);
    }
    seam_close(&s);
}

/* One direction has ended; the other carries on as long as it likes. */
TRANSPORT_TEST(end, of_one_direction_leaves_the_other)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 16);
    for (unsigned k = 0; k < 4; k++) {
        stream_pair(&s, &a, &b, 7);
        stream_receive(&a, kinds[k]);
        stream_receive(&b, kinds[k]);
        stream_send(&a, 100);
        stream_finish(&a);
        until_end(&s, &b);
        for (int i = 0; i < 5; i++)
            seam_look(&s);
        cr_assert(!a.eof && a.recv_err == 0);
        stream_send(&b, seam_bulk(&s, 2 << 20));
        stream_finish(&b);
        until_end(&s, &a);
        cr_assert_eq(a.got, seam_bulk(&s, 2 << 20));
        cr_assert_eq(b.got, 100);
        stream_close(&a);
        stream_close(&b);
    }
    seam_close(&s);
}

/* A reset by the peer ends a waiting receive with an error, or for a unix socket, which knows no reset, as a close. */
TRANSPORT_TEST(end, by_reset)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    for (unsigned round = 0; round < 16; round++) {
        stream_pair(&s, &a, &b, 7);
        if (round < 8) {
            stream_receive(&b, kinds[round % 4]);
            seam_look(&s);
        }
        cr_assert_eq(s.ops->sock->set_reset(s.be, a.f.fd), 0);
        stream_close(&a);
        if (round >= 8)
            stream_receive(&b, kinds[round % 4]);
        seam_until(&s, seam_idle(b.recv));
        if (seam_family(&s) == AF_UNIX)
            cr_assert(b.eof || b.recv_err == -ECONNRESET, "a reset came out as %d", b.recv->res);
        else
            cr_assert_eq(b.recv_err, -ECONNRESET, "a reset came out as %d", b.recv->res);
        cr_assert_eq(b.got, 0);
        stream_close(&b);
    }
    seam_close(&s);
}

/* Sends to a peer that is gone fail with an error event, at the latest when the reset has come back; no signal. */
TRANSPORT_TEST(end, sends_to_a_closed_peer_fail)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    for (unsigned round = 0; round < 10; round++) {
        stream_pair(&s, &a, &b, 7);
        if (round % 2)
            stream_receive(&a, 0);
        stream_close(&b);
        uint64_t end_ns = env_now_ns() + 10 * (uint64_t)SEAM_MS(1000);
        while (a.send_err == 0) {
            if (seam_idle(a.send))
                stream_send(&a, 100);
            seam_turn_before(&s, end_ns, "a send to fail", __FILE__, __LINE__);
        }
        cr_assert(a.send_err == -EPIPE || a.send_err == -ECONNRESET, "the send failed with %d", a.send_err);
        stream_close(&a);
    }
    seam_close(&s);
}
