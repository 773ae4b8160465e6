/* SPDX-License-Identifier: MIT
 * Bulk streams on io_uring leave the multishot receive for a poll and calls of the backend, and come back. Nothing of
 * that may show through the seam: every byte in its place, one last event, a cancel at any moment, buffers that run
 * out. How many calls there were (stats.calls) tells that the tests are where they want to be. */
#ifdef __linux__
#include "uring_direct.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Many bulk streams over few buffers: calls are made, every byte comes in its place, and the end last and once. */
Test(uring_direct, bulk_streams_arrive_whole, .timeout = 60)
{
    enum { STREAMS = 8 };
    struct stream a[STREAMS], b[STREAMS];
    for EACH_TRANSPORT (t) {
        struct seam s;
        open_uring(&s, transports[t], (struct gyre__backend_config){0}, 64);
        for (unsigned i = 0; i < STREAMS; i++) {
            pair(&s, &a[i], &b[i], 2 * i);
            stream_receive(&b[i], MULTI);
            stream_send(&a[i], (1 << 20) + i);
        }
        for (unsigned i = 0; i < STREAMS; i++)
            expect_all(&s, &a[i], &b[i]);
        expect_calls(&s, 0);
        for (unsigned i = 0; i < STREAMS; i++)
            close_both(&a[i], &b[i]);
        cr_assert_eq(s.be->stats.stale, 0);
        seam_close(&s);
    }
}

/* Without the feature there is no call, neither for receives nor for large sends. But a kernel without multishot
 * receive has every receive made by a call. */
Test(uring_direct, switched_off_makes_no_calls, .timeout = 20)
{
    struct seam s;
    struct stream a, b;
    open_uring(&s, TRANSPORT_TCP4, (struct gyre__backend_config){.off = "direct"}, 64);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, MULTI);
    stream_send(&a, 1 << 20);
    expect_all(&s, &a, &b);
    if (seam_uses(&s, "multishot_recv"))
        cr_assert_eq(s.be->stats.calls, 0);
    close_both(&a, &b);
    seam_close(&s);
}

/* A stream that begins with bulk, goes on with small messages, and is cancelled after so many turns: while it is with
 * multishot, on the way from it, with its poll, on the way back. Twice, and then it is read to its end. */
static void cancel_after(struct seam *s, unsigned turns, uint32_t key)
{
    struct stream a, b;
    pair(s, &a, &b, key);
    stream_receive(&b, MULTI);
    stream_send(&a, BULK);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < turns; i++) {
            if (seam_idle(a.send))
                stream_send(&a, 100);
            (void)seam_turn(s, 0);
        }
        stream_pause(&b);
        seam_until(s, seam_idle(b.recv));
        cr_assert(b.recv_err == -ECANCELED || b.recv->res == -ENOBUFS || b.recv->res > 0, "%d", b.recv->res);
        stream_receive(&b, MULTI);
    }
    expect_all(s, &a, &b);
    close_both(&a, &b);
}

Test(uring_direct, cancel_at_every_stage, .timeout = 90)
{
    static const unsigned caps[] = {SEAM_BATCH, 3};
    for EACH_TRANSPORT (t) {
        for (unsigned c = 0; c < 2; c++) {
            struct seam s;
            open_uring(&s, transports[t], (struct gyre__backend_config){0}, 64);
            s.cap = caps[c];
            for (unsigned turns = 0; turns < 200; turns++)
                cancel_after(&s, turns, 2 * turns);
            expect_calls(&s, 0);
            cr_assert_eq(s.be->stats.stale, 0);
            seam_close(&s);
        }
    }
}

/* The peer resets the connection in mid-stream: what came is right, and one last event says so. The socket has the
 * error once: if the send met it, the receive is told the end. */
Test(uring_direct, reset_by_the_peer, .timeout = 60)
{
    for EACH_TRANSPORT (t) {
        struct seam s;
        open_uring(&s, transports[t], (struct gyre__backend_config){0}, 64);
        for (unsigned turns = 0; turns < 60; turns++) {
            struct stream a, b;
            pair(&s, &a, &b, 2 * turns);
            stream_receive(&b, MULTI);
            stream_send(&b, 100); /* a unix socket closed with this unread resets */
            stream_send(&a, 1 << 20);
            for (unsigned i = 0; i < turns; i++)
                (void)seam_turn(&s, 0);
            if (transports[t] == TRANSPORT_TCP4)
                cr_assert_eq(s.ops->sock->set_reset(s.be, a.f.fd), 0);
            stream_close(&a);
            seam_until(&s, b.eof || (b.recv_err != 0 && seam_idle(b.recv)));
            cr_assert(b.recv_err == -ECONNRESET || b.eof, "%d", b.recv_err);
            cr_assert(!b.eof || b.send_err == -ECONNRESET || transports[t] != TRANSPORT_TCP4,
                      "after %u turns a reset looks like the end", turns);
            cr_assert_leq(b.got, a.sent);
            stream_close(&b);
        }
        expect_calls(&s, 0);
        seam_close(&s);
    }
}

/* --- buffers --- */

/* A receiver keeps every buffer: -ENOBUFS ends its receive, nothing comes until it lets go, and then all does. Another
 * stream, which keeps none, waits and goes on too. */
Test(uring_direct, receiver_keeps_all_buffers, .timeout = 60)
{
    for EACH_TRANSPORT (t) {
        struct seam s;
        struct stream a[2], b[2];
        open_uring(&s, transports[t], (struct gyre__backend_config){0}, 24);
        for (unsigned i = 0; i < 2; i++) {
            pair(&s, &a[i], &b[i], 2 * i);
            stream_receive(&b[i], MULTI);
            stream_send(&a[i], BULK);
        }
        for (unsigned i = 0; i < 2; i++)
            seam_until(&s, b[i].got == BULK);
        expect_calls(&s, 0);
        keep_from(&b[0]);
        for (unsigned round = 1; round <= 5; round++) {
            uint64_t before[2] = {b[0].got, b[1].got};
            stream_send(&a[0], BULK);
            seam_until(&s, s.held == s.pool.count_max && b[0].starved);
            stream_send(&a[1], BULK);
            seam_until(&s, b[1].starved);
            cr_assert_eq(b[0].got - before[0], (uint64_t)BUF * 24);
            unsigned events = b[0].recv->events + b[1].recv->events;
            uint64_t enobufs = s.be->stats.enobufs;
            for (unsigned i = 0; i < 50; i++)
                (void)seam_turn(&s, 0);
            cr_assert_eq(b[0].recv->events + b[1].recv->events, events, "starved receives are tried again and again");
            cr_assert_eq(s.be->stats.enobufs, enobufs);
            cr_assert_eq(b[1].got, before[1]);
            while (b[0].got < a[0].send_goal || b[1].got < a[1].send_goal) {
                let_go(&s);
                (void)seam_turn(&s, SEAM_MS(1));
            }
            let_go(&s);
        }
        for (unsigned i = 0; i < 2; i++) {
            expect_all(&s, &a[i], &b[i]);
            close_both(&a[i], &b[i]);
        }
        seam_close(&s);
    }
}

/* A burst has all buffers posted, where only a multishot receive finds them: a bulk stream goes on all the same. */
Test(uring_direct, all_buffers_posted, .timeout = 60)
{
    enum { CROWD = 40 };
    struct stream a[CROWD], b[CROWD];
    for EACH_TRANSPORT (t) {
        for (unsigned bufs = 3; bufs <= 12; bufs += 3) {
            struct seam s;
            open_uring(&s, transports[t], (struct gyre__backend_config){0}, bufs);
            for (unsigned i = 0; i < CROWD; i++) {
                pair(&s, &a[i], &b[i], 2 * i);
                stream_receive(&b[i], MULTI);
                stream_send(&a[i], 20 * BUF + i);
            }
            for (unsigned i = 0; i < CROWD; i++)
                seam_until(&s, b[i].got == a[i].send_goal);
            uint64_t waits = s.waits;
            stream_send(&a[0], BULK);
            seam_until(&s, b[0].got == a[0].send_goal);
            cr_assert_lt(s.waits - waits, 3000, "%llu waits", (unsigned long long)(s.waits - waits));
            for (unsigned i = 0; i < CROWD; i++) {
                expect_all(&s, &a[i], &b[i]);
                close_both(&a[i], &b[i]);
            }
            seam_close(&s);
        }
    }
}

/* Small messages after bulk: back to the multishot receive, if the kernel has it, which makes no calls. */
Test(uring_direct, small_messages_go_back, .timeout = 30)
{
    for EACH_TRANSPORT (t) {
        struct seam s;
        struct stream a, b;
        open_uring(&s, transports[t], (struct gyre__backend_config){0}, 64);
        pair(&s, &a, &b, 1);
        stream_receive(&b, MULTI);
        uint64_t calls = 0;
        for (unsigned round = 0; round < 3; round++) {
            stream_send(&a, BULK * 2);
            seam_until(&s, b.got == a.send_goal);
            expect_calls(&s, calls);
            for (unsigned i = 0; i < 200; i++) {
                calls = i == 50 ? s.be->stats.calls : calls;
                stream_send(&a, 100);
                seam_until(&s, b.got == a.send_goal);
            }
            if (seam_uses(&s, "multishot_recv"))
                cr_assert_eq(s.be->stats.calls, calls, "%llu calls for 150 small messages",
                             (unsigned long long)(s.be->stats.calls - calls));
        }
        expect_all(&s, &a, &b);
        close_both(&a, &b);
        seam_close(&s);
    }
}

/* Urgent data stops a call short, and what is behind it comes all the same, though no arrival tells of it. */
Test(uring_direct, urgent_data_in_bulk, .timeout = 60)
{
    struct seam s;
    struct stream a, b;
    open_uring(&s, TRANSPORT_TCP4, (struct gyre__backend_config){0}, 64);
    pair(&s, &a, &b, 1);
    stream_receive(&b, MULTI);
    stream_send(&a, BULK);
    seam_until(&s, b.got == a.send_goal);
    expect_calls(&s, 0);
    for (unsigned i = 0; i < 60; i++) {
        stream_send(&a, 4 * BUF + i);
        seam_until(&s, seam_idle(a.send) && a.sent == a.send_goal);
        cr_assert_eq(send(a.f.fd, "!", 1, MSG_OOB), 1);
        stream_send(&a, i % 2 > 0 ? 10 : 4 * BUF);
        seam_until(&s, b.got == a.send_goal);
    }
    expect_all(&s, &a, &b);
    close_both(&a, &b);
    seam_close(&s);
}

/* --- turns --- */

/* Full sockets on many bulk streams, and a quiet one: its messages come within a bounded number of waits, whatever room
 * there is for events. Without direct calls the floods use up all buffers: what is in those leaves first, and a message
 * that found none free waits as long again. */
static void ping_beside_floods(enum transport transport, unsigned bufs, unsigned cap, uint64_t bound)
{
    enum { FLOODS = 16 };
    struct stream a[FLOODS + 1], b[FLOODS + 1];
    struct seam s;
    uint64_t worst = 0;
    open_uring(&s, transport, (struct gyre__backend_config){0}, bufs);
    if (!can_direct(&s))
        bound += 4 * bufs / cap;
    for (unsigned i = 0; i <= FLOODS; i++)
        pair(&s, &a[i], &b[i], 2 * i);
    stream_receive(&b[FLOODS], MULTI);
    for (unsigned i = 0; i < FLOODS; i++)
        stream_send(&a[i], (uint64_t)1 << 40);
    seam_settle(&s, SEAM_MS(20)); /* until no more fits */
    for (unsigned i = 0; i < FLOODS; i++)
        stream_receive(&b[i], MULTI);
    for (unsigned i = 0; i < 200; i++)
        (void)seam_turn(&s, 0);
    s.cap = cap;
    for (unsigned round = 0; round < 20; round++) {
        uint64_t start = s.waits;
        stream_send(&a[FLOODS], 16);
        while (b[FLOODS].got < a[FLOODS].send_goal && s.waits - start < 8 * bound)
            (void)seam_turn(&s, 0);
        worst = s.waits - start > worst ? s.waits - start : worst;
    }
    cr_assert_leq(worst, bound, "with %u buffers and room for %u events a message took %llu waits", bufs, cap,
                  (unsigned long long)worst);
    if (bufs == 1024)
        expect_calls(&s, 0);
    s.cap = SEAM_BATCH;
    for (unsigned i = 0; i <= FLOODS; i++)
        close_both(&a[i], &b[i]);
    seam_close(&s);
}

Test(uring_direct, quiet_stream_beside_floods, .timeout = 90)
{
    for EACH_TRANSPORT (t) {
        ping_beside_floods(transports[t], 1024, SEAM_BATCH, 64);
        ping_beside_floods(transports[t], 1024, 8, 128);
        ping_beside_floods(transports[t], 1024, 1, 512);
    }
}

/* The same with so few buffers that all that may be are posted. With still fewer it is up to who arms the starved
 * receives again, for the first of them may take all there are; core gives each its turn. */
Test(uring_direct, quiet_stream_beside_floods_in_few_buffers, .timeout = 90)
{
    for EACH_TRANSPORT (t) {
        ping_beside_floods(transports[t], 64, SEAM_BATCH, 64);
        ping_beside_floods(transports[t], 64, 8, 128);
        ping_beside_floods(transports[t], 64, 1, 512);
    }
}

/* The bytes come from outside. Whenever wait() has found nothing, the descriptor tells of what is still to come: data,
 * and the end of the stream. */
static void read_by_poll(struct seam *s, struct stream *b, int from, unsigned bytes)
{
    uint8_t *out = malloc(bytes);
    unsigned sent = 0;
    env_pattern_fill(out, bytes, b->key_in, 0);
    stream_receive(b, MULTI);
    while (!b->eof) {
        if (sent < bytes) {
            ssize_t n = send(from, out + sent, bytes - sent < 5000 ? bytes - sent : 5000, MSG_DONTWAIT);
            sent += n > 0 ? (unsigned)n : 0;
            if (sent == bytes)
                cr_assert_eq(shutdown(from, SHUT_WR), 0);
        }
        struct pollfd pfd = {.fd = s->ops->pollable(s->be), .events = POLLIN};
        while (seam_turn(s, 0) > 0)
            ;
        if (!b->eof && (b->got < sent || sent == bytes))
            cr_assert_eq(poll(&pfd, 1, 5000), 1, "nothing tells of the %s", b->got < bytes ? "data" : "end");
    }
    cr_assert_eq(b->got, bytes);
    free(out);
}

Test(uring_direct, pollable_tells_of_data_and_end, .timeout = 60)
{
    for EACH_TRANSPORT (t) {
        struct seam s;
        open_uring(&s, transports[t], (struct gyre__backend_config){0}, 64);
        for (unsigned round = 0; round < 40; round++) {
            struct stream a, b;
            pair(&s, &a, &b, 1);
            while (seam_turn(&s, 0) > 0)
                ;
            read_by_poll(&s, &b, a.f.fd, 3000 + round * 1500);
            close_both(&a, &b);
        }
        expect_calls(&s, 0);
        seam_close(&s);
    }
}

/* Data of many buffers, and behind them the end or a reset, were there before the receive: both are told. */
static void end_behind(struct seam *s, uint64_t bytes, bool reset)
{
    struct stream a, b;
    pair(s, &a, &b, 2);
    stream_send(&a, bytes);
    seam_until(s, a.sent == bytes);
    if (reset) {
        seam_until(s, s->ops->sock->unacked(s->be, a.f.fd) == 0); /* what is still to be sent is lost then */
        cr_assert_eq(s->ops->sock->set_reset(s->be, a.f.fd), 0);
        stream_close(&a);
    } else {
        stream_finish(&a);
    }
    stream_receive(&b, MULTI);
    seam_until(s, b.eof || (b.recv_err != 0 && seam_idle(b.recv)));
    cr_assert_eq(b.recv_err, reset ? -ECONNRESET : 0);
    cr_assert_eq(b.got, bytes);
    stream_close(&a);
    stream_close(&b);
}

Test(uring_direct, end_behind_many_waiting_buffers, .timeout = 60)
{
    static const char *const off[] = {NULL, "direct"};
    for (unsigned k = 0; k < 2; k++) {
        for EACH_TRANSPORT (t) {
            struct seam s;
            struct backend_param p = {.backend = "io_uring", .transport = transports[t]};
            seam_open_config(&s, &p, (struct gyre__backend_config){.ops_max = 256, .off = off[k]});
            seam_pool(&s, BUF, 128, 256); /* so many posted at first, that a receive may find them all */
            for (uint64_t bytes = 30 * BUF; bytes < 80 * BUF; bytes += 300)
                end_behind(&s, bytes, false);
            for (uint64_t bytes = 30 * BUF; bytes < 80 * BUF && transports[t] == TRANSPORT_TCP4; bytes += 4 * BUF)
                end_behind(&s, bytes, true);
            seam_close(&s);
        }
    }
}

/* --- large sends --- */

/* Large sends to a peer that does not read: as much as fits at once, then the ring waits for room. Cancelled there, and
 * finished by the peer's reset. */
Test(uring_direct, large_sends_to_a_peer_that_does_not_read, .timeout = 60)
{
    for EACH_TRANSPORT (t) {
        struct seam s;
        struct stream a, b;
        open_uring(&s, transports[t], (struct gyre__backend_config){0}, 64);
        for (unsigned round = 0; round < 10; round++) {
            stream_pair(&s, &a, &b, 2 * round);
            stream_sizes(&a, 100000 << round % 4, 16);
            uint64_t calls = s.be->stats.calls;
            stream_send(&a, 64 << 20);
            seam_settle(&s, SEAM_MS(2));
            expect_calls(&s, calls);
            cr_assert(a.send->op.state == GYRE_OPS_INFLIGHT, "64 MiB fit a socket");
            seam_cancel(&s, a.send);
            seam_until(&s, seam_idle(a.send));
            a.send_goal = a.sent;
            if (round % 2 == 0) {
                expect_all(&s, &a, &b);
            } else {
                a.send_err = 0;
                stream_send(&a, 1 << 20);
                (void)seam_turn(&s, 0);
                if (transports[t] == TRANSPORT_TCP4)
                    cr_assert_eq(s.ops->sock->set_reset(s.be, b.f.fd), 0);
                stream_close(&b);
                seam_until(&s, seam_idle(a.send));
                cr_assert(a.send_err == -ECONNRESET || a.send_err == -EPIPE, "%d", a.send_err);
            }
            close_both(&a, &b);
        }
        seam_close(&s);
    }
}

/* More large sends in one turn than are kept for one wait(), some cancelled while their event waits, with room for few
 * events at once: each has one last event, and the bytes that left are those that came. */
Test(uring_direct, many_large_sends_in_one_turn, .timeout = 60)
{
    enum { SENDS = 150, BYTES = 32 * 1024 };
    static uint8_t sink[BYTES * 2], out[BYTES];
    struct gyre__fd a[SENDS], b[SENDS];
    struct seam_op *ops[SENDS];
    struct iovec iov = {.iov_base = out, .iov_len = BYTES};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
    struct seam s;
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){0}, 64);
    for (unsigned i = 0; i < SENDS; i++) {
        int ends[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        seam_attach(&s, &a[i], ends[0], 0);
        seam_attach(&s, &b[i], ends[1], 0);
        ops[i] = seam_op_new(&s);
    }
    for (unsigned round = 0; round < 20; round++) {
        s.cap = 1 + round * 3;
        for (unsigned i = 0; i < SENDS; i++) {
            if ((i + round) % 2 == 0)
                seam_send(ops[i], &a[i], out, BYTES);
            else
                seam_sendmsg(ops[i], &a[i], &hdr);
            seam_submit(&s, ops[i]);
            if ((i + round) % 3 == 0)
                seam_cancel(&s, ops[i]);
        }
        seam_until(&s, s.inflight == 0);
        for (unsigned i = 0; i < SENDS; i++) {
            cr_assert(ops[i]->res == BYTES || ((i + round) % 3 == 0 && ops[i]->res == -ECANCELED));
            ssize_t n = recv(b[i].fd, sink, sizeof sink, MSG_DONTWAIT);
            cr_assert_eq(n, ops[i]->res > 0 ? BYTES : -1, "%d sent, %zd came", ops[i]->res, n);
        }
    }
    expect_calls(&s, 63);
    for (unsigned i = 0; i < SENDS; i++) {
        seam_fd_close(&s, &a[i]);
        seam_fd_close(&s, &b[i]);
    }
    seam_close(&s);
}
#endif
