/* SPDX-License-Identifier: MIT
 * Promise 14: receives that bring pipes, and sends out of pipes. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MULTI = GYRE_OPF_POOL | GYRE_OPF_MULTI, BUF = 16 * 1024 };

/* In place of the C library's: the next call on this thread fails so, once. */
static _Thread_local int splice_error;

ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t len, unsigned flags)
{
    errno = splice_error;
    splice_error = 0;
    return errno != 0 ? -1 : (ssize_t)syscall(SYS_splice, from, from_at, to, to_at, len, flags);
}

static void open_with_pipes(struct seam *s, const struct backend_param *p, unsigned pipes)
{
    seam_open(s, p);
    seam_pool(s, BUF, 4, 64);
    if (s->ops->sock->pipe == NULL)
        cr_skip_test("this system has no splice(2)");
    seam_pipes(s, pipes);
}

/* Whether receives may bring pipes: io_uring brings them only on streams that it serves by direct calls. */
static bool brings_pipes(struct seam *s)
{
    char features[384];
    s->ops->features(s->be, features, sizeof features);
    return strcmp(s->ops->name, "io_uring") != 0 ||
           (strstr(features, "direct") != NULL && strstr(features, "multishot_recv") != NULL);
}

static void close_both(struct stream *a, struct stream *b)
{
    stream_close(a);
    stream_close(b);
}

/* Bulk comes through pipes, small pieces between it in buffers, all of it in order, and the end after it. */
REAL_TEST(splice, receive)
{
    struct seam s;
    struct stream a, b;
    struct env_rng rng;
    env_rng_init(&rng, 3);
    open_with_pipes(&s, p, 2);
    stream_pair(&s, &a, &b, 1);
    stream_sizes(&a, 1 << 20, 16);
    stream_receive(&b, MULTI);
    for (unsigned i = 0; i < 300; i++) {
        if (i == 20)
            b.f.flags |= GYRE_FDF_PIPE;
        stream_send(&a, 1 + env_rng_below(&rng, i % 3 == 0 ? 1000 : 400000));
        if (i % 4 != 0)
            seam_until(&s, b.got == a.send_goal);
        if (i == 250)
            b.f.flags &= (uint8_t)~GYRE_FDF_PIPE; /* what is under way may still bring one */
    }
    seam_until(&s, b.got == a.send_goal);
    uint64_t pipes = b.pipes;
    if (brings_pipes(&s))
        cr_assert_gt(pipes, 0, "no pipe came");
    else
        cr_assert_eq(pipes, 0);
    stream_send(&a, 2 << 20);
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, a.send_goal);
    cr_assert_eq(b.pipes, pipes, "a pipe came although they are not wanted any more");
    close_both(&a, &b);
    seam_close(&s);
}

/* The system refuses to move into a pipe: the bytes come in buffers, the stream is no more for pipes, and the pipe is
 * free again, which seam_close() sees. */
REAL_TEST(splice, receive_refused)
{
    struct seam s;
    struct stream a, b;
    open_with_pipes(&s, p, 1);
    stream_pair(&s, &a, &b, 1);
    b.f.flags |= GYRE_FDF_PIPE;
    stream_receive(&b, MULTI);
    splice_error = EINVAL;
    stream_send(&a, 2 << 20);
    seam_until(&s, b.got == a.send_goal);
    if (brings_pipes(&s)) {
        cr_assert_eq(splice_error, 0, "no pipe was tried");
        cr_assert_eq(b.f.flags & GYRE_FDF_PIPE, 0);
    }
    cr_assert_eq(b.pipes, 0);
    splice_error = 0;
    close_both(&a, &b);
    seam_close(&s);
}

/* The flag is there from the start; there is one pipe, or none; the receive is cancelled and armed again. */
REAL_TEST(splice, receive_cancelled)
{
    for (unsigned pipes = 0; pipes < 2; pipes++) {
        struct seam s;
        struct stream a, b;
        open_with_pipes(&s, p, pipes);
        stream_pair(&s, &a, &b, 1);
        stream_sizes(&a, 1 << 20, 16);
        b.f.flags |= GYRE_FDF_PIPE;
        for (unsigned i = 0; i < 60; i++) {
            stream_send(&a, 300000 + i);
            stream_receive(&b, MULTI);
            for (unsigned turns = 0; turns < i % 5; turns++)
                seam_look(&s);
            stream_pause(&b);
            seam_until(&s, seam_idle(b.recv));
            cr_assert(b.recv_err == -ECANCELED || b.recv_err == 0);
            b.recv_err = 0;
        }
        stream_receive(&b, MULTI);
        stream_finish(&a);
        seam_until(&s, b.eof);
        cr_assert_eq(b.got, a.send_goal);
        cr_assert_eq(b.pipes > 0, pipes > 0 && brings_pipes(&s));
        close_both(&a, &b);
        seam_close(&s);
    }
}

/* Urgent data stops a splice short; what is behind it comes all the same. (Over kqueue it waits for the next edge, with
 * any receive: readiness/perform.c says so.) */
REAL_TEST(splice, urgent_data)
{
    struct seam s;
    struct stream a, b;
    if (strcmp(p->backend, "kqueue") == 0)
        return;
    open_with_pipes(&s, p, 2);
    stream_pair(&s, &a, &b, 1);
    stream_sizes(&a, 1 << 20, 16);
    b.f.flags |= GYRE_FDF_PIPE;
    stream_receive(&b, MULTI);
    stream_send(&a, 400000);
    seam_until(&s, b.got == a.send_goal);
    for (unsigned i = 0; i < 20; i++) {
        stream_send(&a, 100000);
        seam_until(&s, seam_idle(a.send) && a.sent == a.send_goal);
        cr_assert_eq(send(a.f.fd, "!", 1, MSG_OOB), 1);
        stream_send(&a, i % 2 > 0 ? 10 : 100000);
        seam_until(&s, b.got == a.send_goal);
    }
    stream_finish(&a);
    seam_until(&s, b.eof);
    close_both(&a, &b);
    seam_close(&s);
}

/* ---- out of pipes ---- */

/* What `a` sends next goes into the pipe; how much of it is under way. */
static uint32_t fill(struct stream *a, const struct gyre__pipe *pipe, uint32_t len)
{
    static uint8_t bytes[64 * 1024];
    cr_assert_leq(len, sizeof bytes);
    env_pattern_fill(bytes, len, a->key_out, a->sent);
    cr_assert_eq(write(pipe->write_fd, bytes, len), (ssize_t)len);
    return len;
}

static uint32_t inside(const struct gyre__pipe *pipe)
{
    int bytes = 0;
    cr_assert_eq(ioctl(pipe->read_fd, FIONREAD, &bytes), 0);
    return (uint32_t)bytes;
}

static void splice_all(struct seam *s, struct stream *a, struct seam_op *so, const struct gyre__pipe *pipe,
                       uint32_t len)
{
    for (len = fill(a, pipe, len); len > 0; len -= (uint32_t)so->res) {
        seam_splice(so, &a->f, pipe, len);
        seam_submit(s, so);
        seam_until(s, seam_idle(so));
        cr_assert_gt(so->res, 0, "a splice gave %d", so->res);
        a->sent += (uint32_t)so->res;
        a->send_goal = a->sent;
    }
    cr_assert_eq(inside(pipe), 0);
}

/* Splices and ordinary sends take turns on one socket, which receives as well. That one of them is not to block and
 * the others are must not show. */
REAL_TEST(splice, send)
{
    struct seam s;
    struct stream a, b;
    open_with_pipes(&s, p, 1);
    const struct gyre__pipe *pipe = &s.pool.pipes[0];
    struct seam_op *so = seam_op_new(&s);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, MULTI);
    for (unsigned i = 0; i < 300; i++) {
        if (seam_idle(a.recv))
            stream_receive(&a, i % 2 > 0 ? MULTI : i % 3 > 0 ? GYRE_OPF_POOL : 0);
        splice_all(&s, &a, so, pipe, 1 + i * 211);
        if (i % 3 == 0) {
            stream_send(&a, 1 + i * 1000);
            seam_until(&s, seam_idle(a.send) && a.sent == a.send_goal);
        }
        if (i % 5 == 0)
            stream_send(&b, 100 + i);
        if (i % 7 == 0) {
            seam_until(&s, a.got == b.send_goal);
            stream_pause(&a);
            seam_until(&s, seam_idle(a.recv));
            a.recv_err = 0;
        }
    }
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, a.sent);
    close_both(&a, &b);
    seam_close(&s);
}

/* No room: the splice waits without holding anything up, and is cancelled; what it did not move is still in the pipe.
 * Another one goes on when there is room. */
REAL_TEST(splice, send_waits)
{
    struct seam s;
    struct stream a, b;
    open_with_pipes(&s, p, 1);
    const struct gyre__pipe *pipe = &s.pool.pipes[0];
    struct seam_op *so = seam_op_new(&s);
    uint32_t left = 0;
    stream_pair(&s, &a, &b, 1);
    for (bool waits = false; !waits;) {
        cr_assert_lt(a.sent, 200 << 20, "no end of sending, and nobody reads");
        left = left > 0 ? left : fill(&a, pipe, 60000);
        seam_splice(so, &a.f, pipe, left);
        seam_submit(&s, so);
        seam_settle(&s, SEAM_MS(5));
        waits = !seam_idle(so);
        if (waits)
            seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert(so->res > 0 || (waits && so->res == -ECANCELED), "the splice gave %d", so->res);
        uint32_t moved = so->res > 0 ? (uint32_t)so->res : 0;
        left -= moved;
        a.sent += moved;
        cr_assert_eq(inside(pipe), left);
    }
    seam_splice(so, &a.f, pipe, left);
    seam_submit(&s, so);
    seam_look(&s);
    stream_receive(&b, MULTI);
    for (; left > 0;) {
        seam_until(&s, seam_idle(so));
        cr_assert_gt(so->res, 0);
        left -= (uint32_t)so->res;
        a.sent += (uint32_t)so->res;
        if (left == 0)
            break;
        seam_splice(so, &a.f, pipe, left);
        seam_submit(&s, so);
    }
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, a.sent);
    close_both(&a, &b);
    seam_close(&s);
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

static bool is_pending(void)
{
    sigset_t pending;
    cr_assert_eq(sigpending(&pending), 0);
    return sigismember(&pending, SIGPIPE) == 1;
}

/* Into a socket that is shut: an error and no signal, whether the program handles SIGPIPE or blocks it; and one that is
 * pending because of something else stays so. */
REAL_TEST(splice, no_signal)
{
    struct seam s;
    struct stream a, b;
    sigset_t sigpipe;
    const struct sigaction counted = {.sa_handler = on_signal};
    open_with_pipes(&s, p, 1);
    const struct gyre__pipe *pipe = &s.pool.pipes[0];
    struct seam_op *so = seam_op_new(&s);
    stream_pair(&s, &a, &b, 1);
    cr_assert_eq(sigaction(SIGPIPE, &counted, NULL), 0);
    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    cr_assert_eq(shutdown(a.f.fd, SHUT_WR), 0);
    uint32_t len = fill(&a, pipe, 1000);
    for (unsigned how = 0; how < 3; how++) {
        if (how > 0)
            cr_assert_eq(pthread_sigmask(SIG_BLOCK, &sigpipe, NULL), 0);
        if (how == 2)
            cr_assert_eq(raise(SIGPIPE), 0);
        seam_splice(so, &a.f, pipe, len);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(so->res, -EPIPE, "the splice gave %d", so->res);
        cr_assert_eq(is_pending(), how == 2);
        cr_assert_eq(signals, 0);
        cr_assert_eq(inside(pipe), len);
    }
    cr_assert_eq(pthread_sigmask(SIG_UNBLOCK, &sigpipe, NULL), 0);
    cr_assert_eq(signals, 1);
    close_both(&a, &b);
    seam_close(&s);
}

/* The peer of `a` goes away and `a` does not hear of it: what it sends next is answered with a reset. */
static void vanish(const struct stream *a, struct stream *b)
{
    struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
    const struct sock_fprog deaf = {.len = 1, .filter = &nothing};
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    cr_assert_eq(setsockopt(a->f.fd, SOL_SOCKET, SO_ATTACH_FILTER, &deaf, sizeof deaf), 0);
    cr_assert_eq(setsockopt(b->f.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    stream_close(b);
    cr_assert_eq(setsockopt(a->f.fd, SOL_SOCKET, SO_DETACH_FILTER, &linger, sizeof linger), 0);
}

/* A reset that arrives when a splice has moved a part is told: by the splice, for it has taken the socket's error, and
 * to the receive the stream would have come to its end. */
REAL_TEST(splice, reset_on_the_way)
{
    struct seam s;
    struct stream a, b;
    open_with_pipes(&s, p, 1);
    const struct gyre__pipe *pipe = &s.pool.pipes[0];
    struct seam_op *so = seam_op_new(&s);
    uint32_t len = 0;
    stream_pair(&s, &a, &b, 1);
    vanish(&a, &b);
    for (unsigned i = 0; i < 10; i++, a.sent += 20000)
        len += fill(&a, pipe, 20000); /* more pieces than one splice sends at once */
    seam_splice(so, &a.f, pipe, len);
    seam_submit(&s, so);
    seam_until(&s, seam_idle(so));
    cr_assert_eq(so->res, -ECONNRESET, "the splice gave %d", so->res);
    stream_receive(&a, MULTI);
    seam_until(&s, a.eof || a.recv_err != 0);
    stream_close(&a);
    seam_close(&s);
}
