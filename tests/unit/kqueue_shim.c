/* SPDX-License-Identifier: MIT
 * The kqueue shim behaves as a BSD kernel would, as far as src/kqueue_fallback relies on it. */
#include "kqueue_shim/sys/event.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct timespec at_once = {.tv_sec = 0};
static const struct timespec patience = {.tv_sec = 20};

static int change(int kq, int fd, int filter, int flags, void *udata)
{
    struct kevent kev;
    EV_SET(&kev, (uintptr_t)fd, (short)filter, (unsigned short)flags, 0, 0, udata);
    return kevent(kq, &kev, 1, NULL, 0, NULL);
}

static int look(int kq, struct kevent *out, int room)
{
    return kevent(kq, NULL, 0, out, room, &at_once);
}

/* A kqueue and a connected pair of unix sockets. */
struct fixture {
    int kq;
    int fd[2];
};

static struct fixture make(void)
{
    struct fixture x = {.kq = kqueue()};
    cr_assert_geq(x.kq, 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, x.fd), 0);
    return x;
}

static void drop(struct fixture *x)
{
    close(x->kq);
    close(x->fd[0]);
    close(x->fd[1]);
}

static void fill(int fd)
{
    static const char zeros[65536];
    while (send(fd, zeros, sizeof zeros, MSG_NOSIGNAL) > 0)
        ;
    cr_assert_eq(errno, EAGAIN);
}

static void drain(int fd)
{
    char buf[65536];
    while (recv(fd, buf, sizeof buf, 0) > 0)
        ;
}

static void tcp_pair(int fds[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&addr, len), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    cr_assert_eq(connect(fds[0], (struct sockaddr *)&addr, len), 0);
    fds[1] = accept(listener, NULL, NULL);
    cr_assert_geq(fds[1], 0);
    close(listener);
}

/* EV_CLEAR: one event per arrival, with how much there is to read, and none while nothing changes. */
Test(kqueue_shim, a_read_filter_is_an_edge)
{
    struct fixture x = make();
    struct kevent ev[4];
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &x), 0);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    cr_assert_eq(write(x.fd[1], "abc", 3), 3);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert_eq(ev[0].ident, (uintptr_t)x.fd[0]);
    cr_assert_eq(ev[0].filter, EVFILT_READ);
    cr_assert_eq(ev[0].flags & (EV_EOF | EV_ERROR), 0);
    cr_assert_eq(ev[0].data, 3);
    cr_assert_eq(ev[0].udata, &x);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    cr_assert_eq(write(x.fd[1], "d", 1), 1);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert_eq(ev[0].data, 4);
    drop(&x);
}

/* EV_ADD reports what is ready already, the first time and again. */
Test(kqueue_shim, adding_looks)
{
    struct fixture x = make();
    struct kevent ev[4];
    cr_assert_eq(write(x.fd[1], "abc", 3), 3);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, ev + i), 0);
        cr_assert_eq(look(x.kq, ev, 4), 1);
        cr_assert_eq(ev[0].udata, ev + i);
    }
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
    int n = look(x.kq, ev, 4);
    cr_assert_geq(n, 1);
    cr_assert_eq(ev[n - 1].filter, EVFILT_WRITE);
    drop(&x);
}

/* Each filter has a udata of its own, and goes without the other. */
Test(kqueue_shim, two_filters_of_one_descriptor)
{
    struct fixture x = make();
    struct kevent ev[4];
    int r, w;
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &r), 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, &w), 0);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert(ev[0].filter == EVFILT_WRITE && ev[0].udata == &w);
    fill(x.fd[0]);
    drain(x.fd[1]);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert_eq(ev[0].filter, EVFILT_WRITE);
    fill(x.fd[0]); /* not writable: what arrives concerns the read filter alone */
    cr_assert_eq(write(x.fd[1], "abc", 3), 3);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert(ev[0].filter == EVFILT_READ && ev[0].udata == &r);

    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_DELETE, NULL), 0);
    drain(x.fd[1]);
    cr_assert_eq(write(x.fd[1], "d", 1), 1);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert_eq(ev[0].filter, EVFILT_WRITE);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_DELETE, NULL), -1);
    cr_assert_eq(errno, ENOENT);
    drop(&x);
}

/* The peer shut down: EV_EOF on the read filter, with what is still to be read; the write filter stays as it was. */
Test(kqueue_shim, half_close_is_eof_on_the_read_filter)
{
    struct fixture x = make();
    struct kevent ev[4];
    cr_assert_eq(write(x.fd[1], "abc", 3), 3);
    cr_assert_eq(shutdown(x.fd[1], SHUT_WR), 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert(ev[0].flags & EV_EOF);
    cr_assert_eq(ev[0].data, 3);
    cr_assert_eq(ev[0].fflags, 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
    int n = look(x.kq, ev, 4);
    cr_assert_eq(ev[n - 1].filter, EVFILT_WRITE);
    cr_assert_not(ev[n - 1].flags & EV_EOF);
    drop(&x);
}

/* The peer is gone: EV_EOF on both. */
Test(kqueue_shim, close_is_eof_on_both_filters)
{
    struct fixture x = make();
    struct kevent ev[4];
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    close(x.fd[1]);
    x.fd[1] = dup(x.fd[0]);
    cr_assert_eq(look(x.kq, ev, 4), 2);
    cr_assert(ev[0].flags & EV_EOF);
    cr_assert(ev[1].flags & EV_EOF);
    drop(&x);
}

/* A reset shows in fflags, and the system call that follows still finds it. */
Test(kqueue_shim, an_error_is_shown_and_not_consumed)
{
    struct kevent ev[4];
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    char byte;
    int fds[2], kq = kqueue();
    tcp_pair(fds);
    cr_assert_eq(change(kq, fds[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(fds[1]);
    cr_assert_eq(kevent(kq, NULL, 0, ev, 4, &patience), 1);
    cr_assert(ev[0].flags & EV_EOF);
    cr_assert_eq(ev[0].fflags, ECONNRESET);
    cr_assert_eq(recv(fds[0], &byte, 1, 0), -1);
    cr_assert_eq(errno, ECONNRESET);
    close(fds[0]);
    close(kq);
}

/* Linux polls a socket that was never connected as hung up. A BSD says nothing. */
Test(kqueue_shim, an_unconnected_socket_is_silent)
{
    struct kevent ev[4];
    int kq = kqueue(), fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(change(kq, fd, EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(change(kq, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(look(kq, ev, 4), 0);
    close(fd);
    close(kq);
}

/* EVFILT_USER: triggers join until the event is taken, then start afresh. */
Test(kqueue_shim, a_user_filter_is_triggered)
{
    struct fixture x = make();
    struct kevent ev[4], kev;
    EV_SET(&kev, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
    cr_assert_eq(kevent(x.kq, &kev, 1, NULL, 0, NULL), -1);
    cr_assert_eq(errno, ENOENT);
    cr_assert_eq(change(x.kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, &x), 0);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5; i++)
            cr_assert_eq(kevent(x.kq, &kev, 1, NULL, 0, NULL), 0);
        cr_assert_eq(look(x.kq, ev, 4), 1);
        cr_assert(ev[0].filter == EVFILT_USER && ev[0].ident == 1 && ev[0].udata == &x);
        cr_assert_eq(look(x.kq, ev, 4), 0);
    }
    cr_assert_eq(change(x.kq, 1, EVFILT_USER, EV_DELETE, NULL), 0);
    cr_assert_eq(kevent(x.kq, &kev, 1, NULL, 0, NULL), -1);
    drop(&x);
}

static void *trigger(void *arg)
{
    struct kevent kev;
    EV_SET(&kev, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
    (void)kevent(*(int *)arg, &kev, 1, NULL, 0, NULL);
    return NULL;
}

/* One that waits for ever is woken from another thread; two kqueues do not wake each other. */
Test(kqueue_shim, a_trigger_wakes_another_thread)
{
    struct fixture x = make(), y = make();
    struct kevent ev[4];
    pthread_t thread;
    cr_assert_eq(change(x.kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(change(y.kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NULL), 0);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, trigger, &x.kq), 0);
        cr_assert_eq(kevent(x.kq, NULL, 0, ev, 4, NULL), 1);
        cr_assert_eq(look(y.kq, ev, 4), 0);
        pthread_join(thread, NULL);
    }
    drop(&x);
    drop(&y);
}

/* With room for one event at a time nothing gets lost, and the kqueue polls readable until all is told. */
Test(kqueue_shim, little_room_loses_nothing)
{
    struct fixture x = make(), y = make();
    struct kevent ev;
    bool seen[2][2] = {{false}};
    struct pollfd poller = {.fd = x.kq, .events = POLLIN};
    const int fds[2] = {x.fd[0], y.fd[0]};
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(change(x.kq, fds[i], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
        cr_assert_eq(change(x.kq, fds[i], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
    }
    cr_assert(write(x.fd[1], "a", 1) == 1 && write(y.fd[1], "b", 1) == 1);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(poll(&poller, 1, 0), 1);
        cr_assert_eq(look(x.kq, &ev, 1), 1);
        bool *mark = &seen[ev.ident == (uintptr_t)fds[1]][ev.filter == EVFILT_WRITE];
        cr_assert_not(*mark, "told twice");
        *mark = true;
    }
    cr_assert_eq(look(x.kq, &ev, 1), 0);
    cr_assert_eq(poll(&poller, 1, 0), 0);
    drop(&x);
    drop(&y);
}

/* An event that found no room is not told once its descriptor is closed, nor of a new one with that number. */
Test(kqueue_shim, what_is_owed_dies_with_its_descriptor)
{
    for (int reuse = 0; reuse < 2; reuse++) {
        struct fixture x = make();
        struct kevent ev;
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
        cr_assert_eq(write(x.fd[1], "a", 1), 1);
        cr_assert_eq(look(x.kq, &ev, 1), 1); /* the other one is owed */
        int number = x.fd[0];
        close(number);
        int pair[2] = {-1, -1};
        if (reuse) {
            cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
            cr_assert_eq(pair[0], number);
            cr_assert_eq(change(x.kq, number, EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
        }
        cr_assert_eq(look(x.kq, &ev, 1), 0);
        x.fd[0] = reuse ? pair[0] : dup(x.fd[1]);
        drop(&x);
        close(pair[1]);
    }
}

/* A descriptor number used again starts afresh: of the filters of the one before, only that which is added is there. */
Test(kqueue_shim, a_number_used_again_starts_afresh)
{
    struct fixture x = make();
    struct kevent ev[4];
    int old, new;
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &old), 0);
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, &old), 0);
        cr_assert_eq(write(x.fd[1], "stale", 5), 5);
        int number = x.fd[0];
        close(x.fd[0]);
        close(x.fd[1]);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, x.fd), 0);
        cr_assert_eq(x.fd[0], number);
        cr_assert_eq(look(x.kq, ev, 4), 0);
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &new), 0);
        cr_assert_eq(look(x.kq, ev, 4), 0, "the write filter of the descriptor before is still there");
        cr_assert_eq(change(x.kq, x.fd[0], EVFILT_WRITE, EV_DELETE, NULL), -1);
        cr_assert_eq(write(x.fd[1], "x", 1), 1);
        cr_assert_eq(look(x.kq, ev, 4), 1);
        cr_assert_eq(ev[0].udata, &new);
    }
    drop(&x);
}

/* The same where a copy keeps the old one open, which epoll goes on watching under the old number and a BSD does not.
 */
Test(kqueue_shim, a_number_used_again_while_a_copy_is_open)
{
    struct fixture x = make();
    struct kevent ev[4];
    int pair[2], old_peer = x.fd[1];
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &x), 0);
    int number = x.fd[0], copy = dup(x.fd[0]);
    close(x.fd[0]);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    cr_assert_eq(pair[0], number);
    cr_assert_eq(change(x.kq, number, EVFILT_READ, EV_ADD | EV_CLEAR, pair), 0);
    cr_assert_eq(write(old_peer, "old", 3), 3);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    cr_assert_eq(write(pair[1], "new", 3), 3);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert_eq(ev[0].udata, pair);
    x.fd[0] = pair[0];
    drop(&x);
    close(pair[1]);
    close(copy);
}

/* A closed kqueue's number used again by another kqueue starts afresh too. */
Test(kqueue_shim, a_kqueue_number_used_again_starts_afresh)
{
    struct fixture x = make();
    struct kevent ev[4];
    cr_assert_eq(change(x.kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NULL), 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
    trigger(&x.kq);
    int number = x.kq;
    close(x.kq);
    x.kq = kqueue();
    cr_assert_eq(x.kq, number);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_DELETE, NULL), -1);
    cr_assert_eq(change(x.kq, 1, EVFILT_USER, EV_DELETE, NULL), -1);
    drop(&x);
}

/* Disabled, a filter keeps still; enabled, it tells what is ready. */
Test(kqueue_shim, disable_and_enable)
{
    struct fixture x = make();
    struct kevent ev[4];
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR | EV_DISABLE, &x), 0);
    cr_assert_eq(write(x.fd[1], "a", 1), 1);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_ENABLE, NULL), 0);
    cr_assert_eq(look(x.kq, ev, 4), 1);
    cr_assert_eq(ev[0].udata, &x);
    cr_assert_eq(change(x.kq, x.fd[0], EVFILT_READ, EV_DISABLE, NULL), 0);
    cr_assert_eq(write(x.fd[1], "b", 1), 1);
    cr_assert_eq(look(x.kq, ev, 4), 0);
    drop(&x);
}

/* A change that fails is told as an EV_ERROR event where there is room, else by -1; EV_RECEIPT tells of success too. */
Test(kqueue_shim, errors_and_receipts)
{
    struct fixture x = make();
    struct kevent changes[3], ev[3];
    EV_SET(&changes[0], 60000, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL);
    EV_SET(&changes[1], (uintptr_t)x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR | EV_RECEIPT, 0, 0, &x);
    EV_SET(&changes[2], (uintptr_t)x.fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, &x);
    cr_assert_eq(write(x.fd[1], "a", 1), 1);
    cr_assert_eq(kevent(x.kq, changes, 3, ev, 3, NULL), 2);
    cr_assert(ev[0].flags & EV_ERROR);
    cr_assert_eq(ev[0].data, EBADF);
    cr_assert_eq(ev[0].ident, 60000);
    cr_assert(ev[1].flags & EV_ERROR);
    cr_assert_eq(ev[1].data, 0);
    cr_assert_eq(look(x.kq, ev, 3), 1, "a receipt takes nothing away");
    cr_assert_eq(kevent(x.kq, changes, 1, NULL, 0, NULL), -1);
    cr_assert_eq(errno, EBADF);
    cr_assert_eq(kevent(9999, NULL, 0, ev, 3, &at_once), -1);
    cr_assert_eq(errno, EBADF);
    drop(&x);
}

/* Time-outs are nanoseconds and never early; an answer that comes to no event does not end the wait. */
Test(kqueue_shim, a_timeout_is_never_early)
{
    struct kevent ev;
    struct timespec begin, end, span = {.tv_nsec = 2500000};
    int kq = kqueue(), fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(change(kq, fd, EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0); /* which epoll calls hung up */
    clock_gettime(CLOCK_MONOTONIC, &begin);
    cr_assert_eq(kevent(kq, NULL, 0, &ev, 1, &span), 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    cr_assert_geq((end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec, 2500000);
    close(fd);
    close(kq);
}

/* A pair of TCP sockets, of which the second is reset. */
static void reset_pair(int fd[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    struct pollfd p = {.events = POLLIN};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    fd[1] = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&addr, len), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    cr_assert_eq(connect(fd[1], (struct sockaddr *)&addr, len), 0);
    p.fd = fd[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert_geq(fd[0], 0);
    cr_assert_eq(setsockopt(fd[1], SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(fd[1]);
    close(listener);
    cr_assert_eq(poll(&p, 1, 10000), 1);
}

/* The socket keeps its error, or the event has it: one of both. Each filter tells of it, also one that found no room at
 * first. */
Test(kqueue_shim, whose_the_error_is)
{
    for (int takes = 0; takes <= 1; takes++) {
        struct kevent out[2];
        char byte;
        int fd[2], kq = kqueue(), room = takes + 1, n;
        kqueue_shim_take_errors(takes);
        reset_pair(fd);
        cr_assert_eq(change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL), 0);
        cr_assert_eq(change(kq, fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL), 0);
        for (n = look(kq, out, room); n < 2; n++)
            cr_assert_eq(look(kq, out + n, 1), 1);
        cr_assert_eq(n, 2);
        for (int i = 0; i < 2; i++) {
            cr_assert(out[i].flags & EV_EOF);
            cr_assert_eq(out[i].fflags, ECONNRESET);
        }
        cr_assert_eq(recv(fd[0], &byte, 1, 0), takes ? 0 : -1);
        cr_assert(takes || errno == ECONNRESET);
        close(fd[0]);
        close(kq);
    }
}
