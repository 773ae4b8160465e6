/* SPDX-License-Identifier: MIT
 * Promise 15: waiting for what others do with a descriptor that is theirs. The seam checks of each event that it names
 * something, and nothing that was not asked for. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Somebody who looks at a descriptor. */
struct watcher {
    struct gyre__fd f;
    struct seam_op *so;
};

static void watch(struct seam *s, struct watcher *w, int fd)
{
    seam_attach(s, &w->f, fd, GYRE_FDF_FOREIGN);
    w->so = seam_op_new(s);
}

static void unwatch(struct seam *s, struct watcher *w)
{
    if (!seam_idle(w->so))
        seam_cancel(s, w->so);
    seam_until(s, seam_idle(w->so));
    seam_fd_close(s, &w->f);
}

static void ask(struct seam *s, struct watcher *w, unsigned events)
{
    seam_poll(w->so, &w->f, events);
    seam_submit(s, w->so);
}

/* What is told now, or as soon as it is true. */
static unsigned told(struct seam *s, struct watcher *w)
{
    seam_until(s, seam_idle(w->so));
    cr_assert_gt(w->so->res, 0, "a poll failed: %s", strerror(-w->so->res));
    return (unsigned)w->so->res;
}

static unsigned ask_and_see(struct seam *s, struct watcher *w, unsigned events)
{
    ask(s, w, events);
    return told(s, w);
}

/* It is in flight, and stays so. */
static void stays(struct seam *s, const struct watcher *w)
{
    for (int i = 0; i < 4; i++)
        (void)seam_turn(s, i < 3 ? 0 : SEAM_MS(2));
    cr_assert_not(seam_idle(w->so), "told %x although nothing happened", w->so->res);
}

/* Bytes that come while it waits, that are there already, that are gone again. */
TRANSPORT_TEST(poll, readable)
{
    struct seam s;
    struct stream a, b;
    struct watcher w;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, b.f.fd);
    for (unsigned round = 0; round < 5; round++) {
        ask(&s, &w, POLLIN);
        stays(&s, &w);
        stream_send(&a, 100);
        cr_assert_eq(told(&s, &w), POLLIN);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(ask_and_see(&s, &w, POLLIN), POLLIN, "what is there is told again");
        stream_receive(&b, 0);
        seam_until(&s, b.got == 100 * (round + 1));
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
    }
    ask(&s, &w, POLLIN);
    stays(&s, &w);
    stream_finish(&a);
    cr_assert(told(&s, &w) & POLLIN, "the end can be read");
    unwatch(&s, &w);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Room there is, room there is not, and room that comes. */
TRANSPORT_TEST(poll, writable)
{
    struct seam s;
    struct stream a, b;
    struct watcher w;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, a.f.fd);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(ask_and_see(&s, &w, POLLOUT), POLLOUT);
    for (unsigned round = 1; round < 4; round++) {
        stream_send(&a, seam_bulk(&s, 16 << 20));
        seam_settle(&s, SEAM_MS(5));
        cr_assert_not(seam_idle(a.send), "all of it went out and nobody read");
        ask(&s, &w, POLLOUT);
        stays(&s, &w);
        stream_receive(&b, 0);
        cr_assert_eq(told(&s, &w), POLLOUT);
        seam_until(&s, b.got == a.send_goal);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
    }
    unwatch(&s, &w);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Either of two; and what held all the time is told although something else was asked in between, in vain. */
TRANSPORT_TEST(poll, both)
{
    struct seam s;
    struct stream a, b;
    struct watcher w;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, a.f.fd);
    cr_assert_eq(ask_and_see(&s, &w, POLLIN | POLLOUT), POLLOUT);
    stream_send(&a, seam_bulk(&s, 16 << 20));
    seam_settle(&s, SEAM_MS(5));
    ask(&s, &w, POLLIN | POLLOUT);
    stays(&s, &w);
    stream_send(&b, 100);
    cr_assert_eq(told(&s, &w), POLLIN);
    seam_settle(&s, SEAM_MS(2));
    for (int i = 0; i < 3; i++) {
        ask(&s, &w, POLLOUT);
        stays(&s, &w);
        seam_cancel(&s, w.so);
        seam_until(&s, seam_idle(w.so));
        cr_assert_eq(w.so->res, -ECANCELED);
        cr_assert_eq(ask_and_see(&s, &w, POLLIN | (i == 1 ? POLLOUT : 0)), POLLIN);
        ask(&s, &w, 0);
        stays(&s, &w);
        seam_cancel(&s, w.so);
        seam_until(&s, seam_idle(w.so));
    }
    stream_receive(&b, 0);
    seam_until(&s, b.got == a.send_goal);
    cr_assert_eq(ask_and_see(&s, &w, POLLIN | POLLOUT), POLLIN | POLLOUT);
    unwatch(&s, &w);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Hang-up is told unasked, to one who waited and to one who comes later. */
TRANSPORT_TEST(poll, hang_up)
{
    struct seam s;
    struct stream a, b;
    struct watcher w, late;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, b.f.fd);
    ask(&s, &w, 0);
    stays(&s, &w);
    stream_finish(&a);
    stays(&s, &w);
    stream_receive(&b, 0);
    seam_until(&s, b.eof);
    stream_finish(&b);
    cr_assert_eq(told(&s, &w), POLLHUP);
    watch(&s, &late, b.f.fd);
    cr_assert(ask_and_see(&s, &late, POLLIN) & POLLHUP);
    unwatch(&s, &late);
    unwatch(&s, &w);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A reset is an error and a hang-up, and leaves the error for who reads. */
BACKEND_TEST(poll, reset)
{
    struct seam s;
    struct stream a, b;
    struct watcher w;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, b.f.fd);
    ask(&s, &w, 0);
    stays(&s, &w);
    cr_assert_eq(s.ops->sock->set_reset(s.be, a.f.fd), 0);
    stream_close(&a);
    cr_assert_eq(told(&s, &w), POLLERR | POLLHUP);
    cr_assert_eq(ask_and_see(&s, &w, POLLIN), POLLIN | POLLERR | POLLHUP);
    stream_receive(&b, 0);
    seam_until(&s, seam_idle(b.recv));
    cr_assert_eq(b.recv_err, -ECONNRESET);
    unwatch(&s, &w);
    stream_close(&b);
    seam_close(&s);
}

/* A listener is readable while a connection waits. */
TRANSPORT_TEST(poll, listener)
{
    struct seam s;
    struct listener l;
    struct watcher w;
    struct gyre__fd f;
    seam_open(&s, p);
    listener_open(&s, &l, 8);
    watch(&s, &w, l.f.fd);
    ask(&s, &w, POLLIN);
    stays(&s, &w);
    struct seam_op *connect = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
    seam_connect(connect, &f, &l.addr);
    seam_submit(&s, connect);
    cr_assert_eq(told(&s, &w), POLLIN);
    cr_assert_eq(ask_and_see(&s, &w, POLLIN), POLLIN);
    seam_accept(l.accept, &l.f, 0);
    seam_submit(&s, l.accept);
    seam_until(&s, seam_idle(l.accept) && seam_idle(connect));
    cr_assert_geq(l.accept->res, 0);
    s.ops->sock->close(s.be, l.accept->res);
    ask(&s, &w, POLLIN);
    stays(&s, &w);
    unwatch(&s, &w);
    seam_fd_close(&s, &f);
    listener_close(&s, &l);
    seam_close(&s);
}

/* Any number look at one descriptor, each for what it likes; its owner closes it under them, and it stays what it was
 * until the last of them goes. */
TRANSPORT_TEST(poll, many_and_longer_than_the_owner)
{
    enum { COUNT = 6 };
    static const unsigned events[COUNT] = {POLLIN, POLLOUT, POLLIN | POLLOUT, 0, POLLIN, POLLOUT};
    struct seam s;
    struct stream a, b;
    struct watcher w[COUNT];
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    for (int i = 0; i < COUNT; i++) {
        watch(&s, &w[i], b.f.fd);
        ask(&s, &w[i], events[i]);
    }
    for (int i = 0; i < COUNT; i++)
        if (events[i] & POLLOUT)
            cr_assert_eq(told(&s, &w[i]), POLLOUT);
    stays(&s, &w[0]);
    unwatch(&s, &w[4]);
    unwatch(&s, &w[5]);
    stream_close(&b);
    stays(&s, &w[0]);
    stream_send(&a, 10);
    cr_assert_eq(told(&s, &w[0]), POLLIN);
    cr_assert_eq(ask_and_see(&s, &w[2], POLLIN | POLLOUT), POLLIN | POLLOUT);
    stream_receive(&a, 0);
    for (int i = 0; i < 4; i++) {
        cr_assert(!a.eof && a.recv_err == 0);
        unwatch(&s, &w[i]);
    }
    seam_until(&s, a.eof || a.recv_err != 0);
    stream_close(&a);
    seam_close(&s);
}

/* Cancelled before it was waited for, while it waits, and when it has come true. */
TRANSPORT_TEST(poll, cancel)
{
    struct seam s;
    struct stream a, b;
    struct watcher w;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, b.f.fd);
    for (unsigned round = 0; round < 40; round++) {
        ask(&s, &w, round % 2 ? POLLIN : POLLIN | POLLOUT);
        for (unsigned i = 0; i < round % 3; i++)
            (void)seam_turn(&s, 0);
        if (!seam_idle(w.so))
            seam_cancel(&s, w.so);
        seam_until(&s, seam_idle(w.so));
        cr_assert(w.so->res == -ECANCELED || (round % 2 == 0 && w.so->res == POLLOUT), "%d", w.so->res);
    }
    stream_send(&a, 1);
    cr_assert_eq(ask_and_see(&s, &w, POLLIN), POLLIN);
    for (unsigned round = 0; round < 40; round++) {
        ask(&s, &w, POLLIN);
        seam_cancel(&s, w.so);
        seam_until(&s, seam_idle(w.so));
        cr_assert(w.so->res == -ECANCELED || w.so->res == POLLIN, "%d", w.so->res);
    }
    unwatch(&s, &w);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Urgent data, which is not what arrives as a rule. Who cannot tell says so. */
BACKEND_TEST(poll, urgent)
{
    struct seam s;
    struct stream a, b;
    struct watcher w;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    watch(&s, &w, b.f.fd);
    ask(&s, &w, POLLPRI);
    if (!s.real || strcmp(p->backend, "kqueue") == 0) {
        seam_until(&s, seam_idle(w.so));
        cr_assert_eq(w.so->res, -EOPNOTSUPP);
    } else {
        stays(&s, &w);
        for (int i = 0; i < 5; i++) {
            stream_send(&a, 10);
            stays(&s, &w);
        }
        cr_assert_eq(send(a.f.fd, "!", 1, MSG_OOB), 1);
        cr_assert_eq(told(&s, &w), POLLPRI);
        cr_assert_eq(ask_and_see(&s, &w, POLLIN | POLLPRI), POLLIN | POLLPRI);
    }
    unwatch(&s, &w);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Pipes: both ends, full and empty, and each when the other is gone. */
REAL_TEST(poll, pipes)
{
    static char bytes[1 << 16];
    struct seam s;
    struct watcher in, out;
    seam_open(&s, p);
    for (int reader_first = 0; reader_first < 2; reader_first++) {
        int fds[2];
        cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        watch(&s, &in, fds[0]);
        watch(&s, &out, fds[1]);
        for (int round = 0; round < 3; round++) {
            ask(&s, &in, POLLIN);
            stays(&s, &in);
            cr_assert_eq(ask_and_see(&s, &out, POLLOUT), POLLOUT);
            while (write(fds[1], bytes, sizeof bytes) > 0)
                ;
            cr_assert_eq(told(&s, &in), POLLIN);
            ask(&s, &out, POLLOUT);
            stays(&s, &out);
            while (read(fds[0], bytes, sizeof bytes) > 0)
                ;
            cr_assert_eq(told(&s, &out), POLLOUT);
        }
        ask(&s, reader_first ? &out : &in, 0);
        if (reader_first) {
            unwatch(&s, &in);
            cr_assert_eq(close(fds[0]), 0);
            cr_assert_eq(told(&s, &out), POLLERR);
            unwatch(&s, &out);
        } else {
            unwatch(&s, &out);
            cr_assert_eq(close(fds[1]), 0);
            cr_assert_eq(told(&s, &in), POLLHUP);
            unwatch(&s, &in);
        }
        cr_assert_eq(close(fds[reader_first]), 0);
    }
    seam_close(&s);
}

/* The descriptor stays its owner's: its mode, its number, what is in it. */
REAL_TEST(poll, leaves_all_as_it_is)
{
    struct seam s;
    struct watcher w;
    seam_open(&s, p);
    for (int nonblock = 0; nonblock < 2; nonblock++) {
        int fd = eventfd(0, EFD_CLOEXEC | (nonblock ? EFD_NONBLOCK : 0));
        int mode = fcntl(fd, F_GETFL);
        watch(&s, &w, fd);
        cr_assert_eq(fcntl(w.f.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        ask(&s, &w, POLLIN);
        stays(&s, &w);
        uint64_t n = 7;
        cr_assert_eq(write(fd, &n, sizeof n), sizeof n);
        cr_assert_eq(told(&s, &w), POLLIN);
        cr_assert_eq(fcntl(fd, F_GETFL), mode);
        unwatch(&s, &w);
        cr_assert_eq(fcntl(fd, F_GETFL), mode);
        n = 0;
        cr_assert_eq(read(fd, &n, sizeof n), sizeof n);
        cr_assert_eq(n, 7);
        cr_assert_eq(close(fd), 0);
    }
    seam_close(&s);
}

static int attempt(struct seam *s, int fd)
{
    struct gyre__fd f = {.fd = fd, .flags = GYRE_FDF_FOREIGN};
    int err = s->ops->attach(s->be, &f);
    cr_assert_neq(err, 0, "attach(%d) worked", fd);
    cr_assert_eq(f.fd, fd, "a failed attach changed the descriptor");
    return err;
}

/* What can be known beforehand is said at once. */
BACKEND_TEST(poll, refused)
{
    struct seam s;
    seam_open(&s, p);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), dir = open("/", O_RDONLY | O_CLOEXEC);
    cr_assert(file >= 0 && dir >= 0);
    cr_assert_eq(attempt(&s, -1), -EBADF);
    cr_assert_eq(attempt(&s, 65000), -EBADF);
    cr_assert_eq(attempt(&s, file), s.real ? GYRE_EFDTYPE : -EBADF);
    cr_assert_eq(attempt(&s, dir), s.real ? GYRE_EFDTYPE : -EBADF);
    int own = s.ops->pollable(s.be);
    if (own >= 0)
        cr_assert_eq(attempt(&s, own), -EINVAL);
    cr_assert_eq(close(file), 0);
    cr_assert_eq(close(dir), 0);
    seam_close(&s);
}

/* What the system says is true now. */
static unsigned truth(int fd, unsigned events)
{
    struct pollfd one = {.fd = fd, .events = (short)events};
    cr_assert_geq(poll(&one, 1, 0), 0);
    return (unsigned)one.revents & (events | POLLHUP | POLLERR);
}

/* Anything at all happens to a socket pair, in any order: the watcher is told when poll(2) says so, and not else. */
REAL_TEST(poll, never_missed)
{
    static char bytes[1 << 20];
    static const unsigned choices[] = {0, POLLIN, POLLOUT, POLLIN | POLLOUT};
    struct seam s;
    struct watcher w;
    struct env_rng rng;
    int fds[2];
    seam_open(&s, p);
    env_rng_init(&rng, 11);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    watch(&s, &w, fds[0]);
    ask(&s, &w, POLLIN);
    for (unsigned step = 0; step < 3000; step++) {
        size_t size = 1 + env_rng_below(&rng, env_rng_below(&rng, 2) ? 100 : sizeof bytes - 1);
        uint32_t what = env_rng_below(&rng, 6);
        if (what < 4)
            (void)!(what < 2 ? write(fds[what], bytes, size) : read(fds[what - 2], bytes, size));
        else if (what == 4 && !seam_idle(w.so))
            seam_cancel(&s, w.so);
        unsigned asked = w.so->op.u.poll.events;
        if (truth(fds[0], asked) != 0 || w.so->op.state == GYRE_OPS_CANCELLING)
            seam_until(&s, seam_idle(w.so));
        else
            for (uint32_t turns = env_rng_below(&rng, 3); turns > 0 && !seam_idle(w.so); turns--)
                (void)seam_turn(&s, 0);
        if (!seam_idle(w.so))
            continue;
        if (w.so->res != -ECANCELED)
            cr_assert_eq((unsigned)w.so->res & truth(fds[0], asked), w.so->res, "step %u: told %x", step, w.so->res);
        ask(&s, &w, choices[env_rng_below(&rng, 4)]);
    }
    unwatch(&s, &w);
    cr_assert_eq(close(fds[0]), 0);
    cr_assert_eq(close(fds[1]), 0);
    seam_close(&s);
}
