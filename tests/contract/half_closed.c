/* SPDX-License-Identifier: MIT
 * Peers that have sent FIN and do not read. Linux takes such a socket for ready for ever, in its own polls too; a
 * backend must neither spin nor block for that, and a cancel must end what waits. The seam looks for kernel workers at
 * the end of each test. */
#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { IDLE_MS = 400, IDLE_TURNS = 8 /* at 20 a second */, FULL = 16 << 20 };

/* Nothing happens, and the backend sees it. */
static void idles(struct seam *s)
{
    if (!s->real)
        return;
    uint64_t end_ns = env_now_ns() + (uint64_t)SEAM_MS(IDLE_MS), now_ns;
    unsigned turns = 0;
    for (; (now_ns = env_now_ns()) < end_ns; turns++)
        (void)seam_turn(s, (int64_t)(end_ns - now_ns));
    cr_assert_leq(turns, IDLE_TURNS, "%u turns in %d ms in which nothing happened", turns, IDLE_MS);
}

/* b has sent FIN and a knows; a has no room left. */
static void fill(struct seam *s, struct stream *a, struct stream *b, bool fin_first)
{
    stream_receive(a, 0);
    if (fin_first) {
        stream_finish(b);
        seam_until(s, a->eof);
    }
    stream_send(a, seam_bulk(s, FULL));
    seam_settle(s, SEAM_MS(20));
    if (!fin_first) {
        stream_finish(b);
        seam_until(s, a->eof);
        seam_settle(s, SEAM_MS(20));
    }
    cr_assert_not(seam_idle(a->send), "all of it went out and nobody read");
}

/* A send waits, FIN before it or in the middle of it; then the peer reads, slowly, and gets every byte. */
static void send_waits(const struct backend_param *p, bool fin_first)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    fill(&s, &a, &b, fin_first);
    idles(&s);
    env_no_workers();
    stream_sizes(&b, 16, 20000);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = b.got;
        stream_receive(&b, 0);
        seam_until(&s, b.got > before);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
        seam_settle(&s, SEAM_MS(5));
    }
    idles(&s);
    stream_receive(&b, 0);
    seam_until(&s, b.got == a.send_goal);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

TRANSPORT_TEST(half_closed, send_waits_after_fin)
{
    send_waits(p, true);
}

TRANSPORT_TEST(half_closed, fin_while_send_waits)
{
    send_waits(p, false);
}

/* A send and its cancel in one turn; or the cancel some turns later. There is an end, and soon. */
TRANSPORT_TEST(half_closed, cancelled_send_ends)
{
    struct seam s;
    struct stream a, b;
    char bytes[1000] = "";
    struct iovec iov[2] = {{bytes, 500}, {bytes + 500, 500}};
    struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 2};
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    fill(&s, &a, &b, true);
    seam_cancel(&s, a.send);
    seam_until(&s, seam_idle(a.send));
    struct seam_op *so = seam_op_new(&s);
    for (unsigned i = 0; i < 60; i++) {
        if (i % 2 == 0)
            seam_send(so, &a.f, bytes, sizeof bytes);
        else
            seam_sendmsg(so, &a.f, &hdr);
        so->op.flags = i % 4 < 2 ? GYRE_OPF_POLL_FIRST : 0;
        seam_submit(&s, so);
        for (unsigned turns = 0; turns < i % 7; turns++)
            seam_look(&s);
        if (!seam_idle(so))
            seam_cancel(&s, so);
        for (unsigned turns = 0; !seam_idle(so); turns++) {
            cr_assert_lt(turns, 20, "20 turns after its cancel a send goes on");
            (void)seam_turn(&s, SEAM_MS(20));
        }
        cr_assert(so->res == -ECANCELED || so->res > 0);
    }
    a.send_err = 0;
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* The same for bytes that leave a pipe. */
REAL_TEST(half_closed, splice_waits)
{
    enum { PIECE = 60000 };
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    if (s.ops->sock->pipe == NULL)
        cr_skip_test("this system has no splice(2)");
    seam_pool(&s, 16 << 10, 4, 64);
    seam_pipes(&s, 1);
    const struct gyre__pipe *pipe = &s.pool.pipes[0];
    struct seam_op *so = seam_op_new(&s);
    uint8_t *bytes = calloc(1, PIECE);
    stream_pair(&s, &a, &b, 1);
    fill(&s, &a, &b, true);
    seam_cancel(&s, a.send);
    seam_until(&s, seam_idle(a.send));
    uint64_t goal = a.sent, left = 0;
    for (unsigned waited = 0; waited < 3;) {
        cr_assert_lt(goal, 200 << 20, "no end of sending, and nobody reads");
        if (left == 0) {
            env_pattern_fill(bytes, left = PIECE, a.key_out, goal);
            cr_assert_eq(write(pipe->write_fd, bytes, left), PIECE);
            goal += PIECE;
        }
        seam_splice(so, &a.f, pipe, (uint32_t)left);
        seam_submit(&s, so);
        seam_settle(&s, SEAM_MS(5));
        if (!seam_idle(so)) {
            waited++;
            idles(&s);
            seam_cancel(&s, so);
        }
        seam_until(&s, seam_idle(so));
        cr_assert(so->res > 0 || so->res == -ECANCELED, "the splice gave %d", so->res);
        left -= so->res > 0 ? (uint32_t)so->res : 0;
    }
    for (stream_receive(&b, 0); left > 0; left -= (uint32_t)so->res) {
        seam_splice(so, &a.f, pipe, (uint32_t)left);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_gt(so->res, 0, "the splice gave %d", so->res);
    }
    seam_until(&s, b.got == goal);
    free(bytes);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Many of them do not keep one that reads from being served. */
TRANSPORT_TEST(half_closed, many_starve_nobody)
{
    enum { MANY = 12 };
    struct seam s;
    struct stream a[MANY], b[MANY], good, reader;
    seam_open(&s, p);
    for (unsigned i = 0; i < MANY; i++) {
        stream_pair(&s, &a[i], &b[i], 2 * i);
        fill(&s, &a[i], &b[i], i % 2 == 0);
    }
    stream_pair(&s, &good, &reader, 2 * MANY);
    stream_receive(&good, 0);
    stream_finish(&reader);
    seam_until(&s, good.eof);
    stream_receive(&reader, 0);
    stream_send(&good, seam_bulk(&s, FULL));
    seam_until(&s, reader.got == good.send_goal);
    env_no_workers();
    idles(&s);
    stream_close(&good);
    stream_close(&reader);
    for (unsigned i = 0; i < MANY; i++) {
        stream_close(&a[i]);
        stream_close(&b[i]);
    }
    seam_close(&s);
}

/* Send until nothing more goes and the send waits. Returns how many bytes went. */
static uint64_t send_until_full(struct seam *s, struct seam_op *so, struct gyre__fd *f, const void *bytes, uint32_t len)
{
    uint64_t went = 0;
    for (;;) {
        seam_send(so, f, bytes, len);
        seam_submit(s, so);
        seam_settle(s, SEAM_MS(10));
        if (!seam_idle(so))
            return went;
        cr_assert_gt(so->res, 0, "the send gave %d", so->res);
        went += (uint64_t)so->res;
    }
}

static uint64_t take_all(const struct stream *b)
{
    static uint8_t bytes[256 << 10];
    uint64_t got = 0;
    for (ssize_t n; (n = recv(b->f.fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0; got += (uint64_t)n)
        ;
    return got;
}

/* The peer makes room, and the send that waited is cancelled in the same moment: what has gone is said to have gone. */
REAL_TEST(half_closed, cancelled_send_says_what_went)
{
    enum { LEN = 1 << 20 };
    struct seam s;
    struct stream a, b;
    uint8_t *bytes = calloc(1, LEN);
    uint64_t went = 0, got = 0;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&a, 0);
    stream_finish(&b);
    seam_until(&s, a.eof);
    struct seam_op *so = seam_op_new(&s);
    for (unsigned i = 0; i < 6; i++) {
        went += send_until_full(&s, so, &a.f, bytes, LEN);
        got += take_all(&b);
        for (unsigned turns = 0; turns < i % 3; turns++)
            seam_look(&s);
        if (!seam_idle(so))
            seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        went += so->res > 0 ? (uint64_t)so->res : 0;
    }
    for (unsigned quiet = 0; quiet < 10; quiet++) {
        uint64_t more = take_all(&b);
        got += more;
        quiet = more > 0 ? 0 : quiet;
        seam_settle(&s, SEAM_MS(2));
    }
    cr_assert_eq(got, went, "%llu bytes came, %llu were said to have gone", (unsigned long long)got,
                 (unsigned long long)went);
    free(bytes);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* After the end a poll for nothing waits for a reset, whatever is sent meanwhile, and can be cancelled. */
TRANSPORT_TEST(half_closed, poll_waits_for_a_reset)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&a, 0);
    stream_finish(&b);
    seam_until(&s, a.eof);
    struct seam_op *watch = seam_op_new(&s);
    seam_poll(watch, &a.f, 0);
    seam_submit(&s, watch);
    idles(&s);
    cr_assert_not(seam_idle(watch));
    seam_cancel(&s, watch);
    seam_until(&s, seam_idle(watch));
    cr_assert_eq(watch->res, -ECANCELED);

    seam_poll(watch, &a.f, 0);
    seam_submit(&s, watch);
    stream_send(&a, 100); /* which a unix socket closed with this unread resets */
    seam_until(&s, a.sent == 100);
    idles(&s);
    cr_assert_not(seam_idle(watch));
    cr_assert_eq(s.ops->sock->set_reset(s.be, b.f.fd), 0);
    stream_close(&b);
    seam_until(&s, seam_idle(watch));
    cr_assert(watch->res == -ECONNRESET || (watch->res > 0 && (watch->res & (POLLERR | POLLHUP))), "%d", watch->res);
    int err = watch->res < 0 ? watch->res : s.ops->sock->error(s.be, a.f.fd);
    cr_assert(err == -ECONNRESET || err == -EPIPE, "%d", err);
    if (watch->res > 0) /* else the socket may have it still */
        cr_assert_eq(s.ops->sock->error(s.be, a.f.fd), 0, "it is told twice");
    stream_close(&a);
    seam_close(&s);
}
