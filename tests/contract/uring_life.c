/* SPDX-License-Identifier: MIT
 * io_uring and the life of descriptors and ends: what comes after much opening and closing, on a number used before,
 * and when the end of a stream is there before the receive. And waking under load. */
#ifdef __linux__
#include "reactor/backends.h"
#include "stream.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

static void open_uring(struct seam *s, enum transport transport)
{
    struct backend_param p = {.backend = "io_uring", .transport = transport};
    if (gyre__backend_find(p.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    seam_open(s, &p);
}

static void raw_pair(struct seam *s, struct gyre__fd *a, struct gyre__fd *b)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    seam_attach(s, a, pair[0], 0);
    seam_attach(s, b, pair[1], 0);
}

/* How many buffers the backend has: all there are that are neither free nor with receivers. */
static unsigned posted(const struct seam *s)
{
    return (unsigned)(s->pool.count - s->pool.nfree) - s->held;
}

/* A hundred thousand descriptors closed after a multishot receive and a send too large for the socket were in flight on
 * them: no buffer, no descriptor and no event too many or too few. */
Test(uring_life, hundred_thousand_closes, .timeout = 100)
{
    enum { ROUNDS = 50000 };
    static const char large[1 << 20];
    struct seam s;
    struct gyre__fd a, b;
    open_uring(&s, TRANSPORT_UNIX);
    seam_pool(&s, 256, 4, 16);
    (void)seam_turn(&s, 0);
    unsigned before = posted(&s);
    struct seam_op *send_op = seam_op_new(&s), *recv_op = seam_op_new(&s);
    for (int round = 0; round < ROUNDS; round++) {
        raw_pair(&s, &a, &b);
        if (round % 2 == 0)
            cr_assert_eq(send(b.fd, large, 100, 0), 100);
        seam_recv_pool(recv_op, &a, &s.pool, GYRE_OPF_MULTI);
        seam_submit(&s, recv_op);
        seam_send(send_op, &a, large, round % 16 == 0 ? sizeof large : 10);
        seam_submit(&s, send_op);
        if (round % 3 == 0)
            (void)seam_turn(&s, 0);
        if (!seam_idle(recv_op))
            seam_cancel(&s, recv_op);
        if (!seam_idle(send_op))
            seam_cancel(&s, send_op);
        seam_until(&s, s.inflight == 0);
        seam_fd_close(&s, &a);
        seam_fd_close(&s, &b);
    }
    (void)seam_turn(&s, 0);
    cr_assert_eq(posted(&s), before);
    cr_assert_leq(s.pool.count, 16);
    cr_assert_eq(s.be->stats.stale, 0);
    seam_close(&s);
}

/* A cancel that comes too late for its op does not touch the next op, which has the same memory, on the next
 * descriptor, which has the same number. */
Test(uring_life, late_cancel_and_the_same_number, .timeout = 60)
{
    struct seam s;
    struct gyre__fd a, b;
    char byte;
    open_uring(&s, TRANSPORT_UNIX);
    struct seam_op *so = seam_op_new(&s);
    int number = -1;
    for (int round = 0; round < 3000; round++) {
        raw_pair(&s, &a, &b);
        cr_assert(number == -1 || number == b.fd, "the test means to meet the same number again");
        number = b.fd;
        seam_recv(so, &b, &byte, 1);
        seam_submit(&s, so);
        if (round % 2 == 0)
            (void)seam_turn(&s, 0);
        cr_assert_eq(send(a.fd, "1", 1, 0), 1);
        seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        seam_fd_close(&s, &a);
        seam_fd_close(&s, &b);

        raw_pair(&s, &a, &b);
        seam_recv(so, &b, &byte, 1);
        seam_submit(&s, so);
        (void)seam_turn(&s, 0);
        cr_assert_eq(send(a.fd, "2", 1, 0), 1);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(so->res, 1, "the second life got the first one's cancel: %d", so->res);
        cr_assert_eq(byte, '2');
        seam_fd_close(&s, &a);
        seam_fd_close(&s, &b);
    }
    seam_close(&s);
}

/* Bytes and the end are there before the receive is armed, with the hint to poll first. Linux 6.18.44 loses the end of
 * such a multishot receive; the backend must not. */
static void end_before_receive(enum transport transport, bool reset)
{
    struct seam s;
    struct stream a, b;
    open_uring(&s, transport);
    seam_pool(&s, 64, 8, 8);
    for (int round = 0; round < 20; round++) {
        stream_pair(&s, &a, &b, 1);
        stream_send(&a, 72);
        seam_until(&s, a.sent == 72 && seam_idle(a.send));
        if (reset)
            cr_assert_eq(s.ops->sock->set_reset(s.be, a.f.fd), 0);
        stream_close(&a);
        stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI | GYRE_OPF_POLL_FIRST);
        seam_until(&s, b.eof || b.recv_err != 0);
        cr_assert_eq(b.got, 72);
        cr_assert(reset ? b.recv_err == -ECONNRESET : b.eof, "end %d, error %d", b.eof, b.recv_err);
        stream_close(&b);
    }
    seam_close(&s);
}

Test(uring_life, end_before_receive_unix, .timeout = 30)
{
    end_before_receive(TRANSPORT_UNIX, false);
}

Test(uring_life, end_before_receive_tcp, .timeout = 30)
{
    end_before_receive(TRANSPORT_TCP4, false);
}

Test(uring_life, reset_before_receive_tcp, .timeout = 30)
{
    end_before_receive(TRANSPORT_TCP4, true);
}

/* A thousand wakes before the loop looks are one: one system call, one completion, one return. */
Test(uring_life, wakes_coalesce, .timeout = 20)
{
    struct seam s;
    open_uring(&s, TRANSPORT_UNIX);
    for (uint64_t round = 1; round <= 20; round++) {
        for (int i = 0; i < 1000; i++)
            s.ops->wake(s.be);
        cr_assert_eq(seam_turn(&s, -1), 0);
        cr_assert_eq(s.be->stats.wakes, round, "%llu wakes counted", (unsigned long long)s.be->stats.wakes);
        uint64_t start_ns = env_now_ns();
        cr_assert_eq(seam_turn(&s, SEAM_MS(2)), 0);
        cr_assert_geq(env_now_ns() - start_ns, (uint64_t)SEAM_MS(2), "one wake too many");
    }
    seam_close(&s);
}

struct producer {
    struct seam *s;
    atomic_uint made;
    atomic_uint seen;
};

enum { MADE = 100000 };

static void *produce(void *arg)
{
    struct producer *p = arg;
    for (unsigned i = 1; i <= MADE; i++) {
        atomic_store_explicit(&p->made, i, memory_order_relaxed); /* the order must come from wake() and wait() */
        p->s->ops->wake(p->s->be);
        while (i % 2 == 0 && atomic_load_explicit(&p->seen, memory_order_relaxed) < i)
            (void)sched_yield(); /* so that every other one needs a wake of its own */
    }
    return NULL;
}

/* What was made before a wake() is seen after the wait() that it ended, however the two threads interleave. */
Test(uring_life, no_wake_is_lost, .timeout = 60)
{
    struct seam s;
    pthread_t thread;
    open_uring(&s, TRANSPORT_UNIX);
    struct producer p = {.s = &s};
    cr_assert_eq(pthread_create(&thread, NULL, produce, &p), 0);
    for (unsigned seen = 0; seen < MADE;) {
        uint64_t start_ns = env_now_ns();
        cr_assert_eq(seam_turn(&s, SEAM_MS(10000)), 0);
        cr_assert_lt(env_now_ns() - start_ns, (uint64_t)SEAM_MS(5000), "a wake was lost");
        seen = atomic_load_explicit(&p.made, memory_order_relaxed);
        atomic_store_explicit(&p.seen, seen, memory_order_relaxed);
    }
    cr_assert_eq(pthread_join(thread, NULL), 0);
    seam_close(&s);
}
#endif
