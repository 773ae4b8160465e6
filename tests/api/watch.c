/* SPDX-License-Identifier: MIT
 * Watching descriptors of others: level-triggered, changed, paused and closed from everywhere. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IN = GYRE_WATCH_READABLE, OUT = GYRE_WATCH_WRITABLE, HUP = GYRE_WATCH_HANGUP, ERR = GYRE_WATCH_ERROR };

/* A watch and what became of it. */
struct sight {
    struct api *api;
    struct gyre_watch *w;         /* NULL: closed, or ended */
    unsigned calls, events, ends; /* `events`: of the last call */
    int err, fd;
    void (*then)(struct sight *v);
    struct sight *other;
    uint64_t n; /* for the test */
};

static void on_watch(struct gyre_watch *w, unsigned events, int err, void *user)
{
    struct sight *v = user;
    api_enter(v->api);
    cr_assert_eq(w, v->w, "called after the end");
    cr_assert_eq(events == 0, err != 0);
    cr_assert_eq(events & ~(gyre_watch_events(w) | HUP | ERR), 0, "%x was not asked for", events);
    v->calls++;
    v->events = events;
    v->err = err;
    if (err != 0) {
        v->ends++;
        v->w = NULL;
        cr_assert_eq(gyre_watch_set(w, IN), GYRE_ECLOSED);
        cr_assert_eq(gyre_watch_close(w), 0);
    }
    if (v->then != NULL)
        v->then(v);
    api_leave(v->api);
}

static void look(struct sight *v, int fd, unsigned events)
{
    v->fd = fd;
    int err = gyre_watch_open(&v->w, v->api->loop, fd, events, on_watch, v);
    cr_assert_eq(err, 0, "%s", gyre_err_text(err));
    cr_assert_eq(gyre_watch_fd(v->w), fd);
    cr_assert_eq(gyre_watch_events(v->w), events);
}

static void look_away(struct sight *v)
{
    struct gyre_watch *w = v->w;
    v->w = NULL;
    cr_assert_eq(gyre_watch_close(w), 0);
}

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

static void turns(struct api *api, unsigned count)
{
    while (count-- > 0)
        api_turn(api);
}

static void pair_make(int fds[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static void pair_close(const int fds[2])
{
    cr_assert_eq(close(fds[0]), 0);
    cr_assert_eq(close(fds[1]), 0);
}

static void put(int fd, size_t len)
{
    static const char bytes[1000];
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
}

static uint64_t take(int fd)
{
    char bytes[1000];
    ssize_t n = read(fd, bytes, sizeof bytes);
    cr_assert(n > 0 || errno == EAGAIN);
    return n > 0 ? (uint64_t)n : 0;
}

static void then_take(struct sight *v)
{
    v->n += v->events & IN ? take(v->fd) : 0;
}

static void then_close(struct sight *v)
{
    if (v->w != NULL)
        look_away(v);
}

static void then_close_other(struct sight *v)
{
    if (v->other->w != NULL)
        look_away(v->other);
}

static void pause_at_once(struct end *e)
{
    cr_assert_eq(gyre_conn_pause(e->c), 0);
}

/* A connection's own descriptor, on every backend: told again and again while bytes lie there, and no more once the
 * connection has read them. */
BACKEND_TEST(api_watch, level)
{
    struct api api;
    struct peer peer;
    struct sight v = {.api = &api};
    api_start(&api, p, &(struct script){.open = pause_at_once});
    struct end *e = peer_open(&api, &peer);
    look(&v, gyre_conn_fd(e->c), IN);
    for (unsigned round = 0; round < 3; round++) {
        unsigned calls = v.calls;
        api_until(&api, peer_send_some(&peer, 1) <= 1 && v.calls > calls); /* a pause may come late for a first one */
        cr_assert_eq(v.events, IN);
        api_until(&api, v.calls > calls + 5);
        cr_assert_eq(gyre_conn_resume(e->c), 0);
        api_until(&api, e->got == peer.sent);
        cr_assert_eq(gyre_conn_pause(e->c), 0);
        turns(&api, 20);
        calls = v.calls;
        turns(&api, 20);
        cr_assert_eq(v.calls, calls, "told although nothing is there");
    }
    cr_assert_eq(gyre_watch_set(v.w, IN | OUT), 0);
    api_until(&api, v.events == OUT);
    cr_assert_eq(gyre_watch_set(v.w, HUP), 0);
    turns(&api, 3);
    unsigned calls = v.calls;
    turns(&api, 20);
    cr_assert_eq(v.calls, calls);
    peer_close(&peer);
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_until(&api, e->closes == 1);
    look_away(&v);
    api_close(&api);
}

/* What to watch for is changed, from outside and inside, and each time only that is told. */
REAL_TEST(api_watch, changed)
{
    struct api api;
    struct sight v = {.api = &api};
    int fds[2];
    start(&api, p);
    pair_make(fds);
    look(&v, fds[0], 0);
    put(fds[1], 10);
    turns(&api, 5);
    cr_assert_eq(v.calls, 0, "told although it asked for nothing");
    static const unsigned asks[] = {IN, OUT, IN | OUT, OUT, HUP, IN, 0, IN | OUT, 0};
    for (unsigned i = 0; i < 200; i++) {
        unsigned events = asks[i % 9], calls = v.calls;
        cr_assert_eq(gyre_watch_set(v.w, events), 0);
        cr_assert_eq(gyre_watch_events(v.w), events);
        if (events & (IN | OUT))
            api_until(&api, v.calls > calls && v.events == events);
        else
            turns(&api, 3);
        cr_assert(events & (IN | OUT) || v.calls == calls);
        if (i % 3 == 0) { /* and back again before anything could come of it */
            cr_assert_eq(gyre_watch_set(v.w, 0), 0);
            cr_assert_eq(gyre_watch_set(v.w, events), 0);
        }
    }
    cr_assert_eq(gyre_watch_set(v.w, 32), GYRE_EOPTION);
    cr_assert_eq(gyre_watch_set(v.w, ~0u), GYRE_EOPTION);
    look_away(&v);
    pair_close(fds);
    api_close(&api);
}

/* One watch is told by what another's callback does, in every order: closing itself, closing the other, whose event may
 * be on its way; nothing comes after a close. */
REAL_TEST(api_watch, closed_from_callbacks)
{
    enum { COUNT = 8 };
    struct api api;
    int fds[2];
    start(&api, p);
    pair_make(fds);
    put(fds[1], 5);
    for (unsigned round = 0; round < 40; round++) {
        struct sight v[COUNT];
        for (unsigned i = 0; i < COUNT; i++) {
            v[i] = (struct sight){.api = &api, .other = &v[(i * 3 + round) % COUNT]};
            v[i].then = (i + round) % 3 == 0 ? then_close : (i + round) % 3 == 1 ? then_close_other : NULL;
            look(&v[i], fds[0], i % 2 ? IN : IN | OUT);
        }
        turns(&api, 3);
        unsigned calls[COUNT];
        for (unsigned i = 0; i < COUNT; i++) {
            cr_assert(v[i].calls > 0 || v[i].w == NULL);
            if (v[i].w != NULL)
                look_away(&v[i]);
            calls[i] = v[i].calls;
        }
        turns(&api, 3);
        for (unsigned i = 0; i < COUNT; i++)
            cr_assert(v[i].calls == calls[i] && v[i].ends == 0);
    }
    struct sight never = {.api = &api};
    look(&never, fds[0], IN);
    look_away(&never);
    turns(&api, 3);
    cr_assert_eq(never.calls, 0);
    pair_close(fds);
    api_close(&api);
}

/* A child's output through a pipe: every byte, then the hang-up, and the child is done. */
REAL_TEST(api_watch, output_of_a_child)
{
    enum { BYTES = 300000 };
    struct api api;
    struct sight v = {.api = &api, .then = then_take};
    int fds[2];
    start(&api, p);
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        static const char line[100];
        for (int i = 0; i < BYTES / 100; i++)
            if (write(fds[1], line, sizeof line) != sizeof line)
                _exit(1);
        _exit(0);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(close(fds[1]), 0);
    look(&v, fds[0], IN);
    api_until(&api, v.events == HUP);
    cr_assert_eq(v.n, BYTES);
    unsigned calls = v.calls;
    turns(&api, 5);
    cr_assert_gt(v.calls, calls, "a hang-up stays");
    look_away(&v);
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(close(fds[0]), 0);
    api_close(&api);
}

/* What Linux makes readable: a signal, a time, a count. */
REAL_TEST(api_watch, signals_and_times)
{
    struct api api;
    struct sight s = {.api = &api}, t = {.api = &api, .then = then_take}, e = {.api = &api, .then = then_take};
    struct itimerspec in_2ms = {.it_value.tv_nsec = 2000000};
    sigset_t set;
    start(&api, p);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    cr_assert_eq(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
    int fds[3] = {signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                  timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    look(&s, fds[0], IN);
    look(&t, fds[1], IN);
    look(&e, fds[2], IN | OUT);
    api_until(&api, api_stats(&api).watches == 3);
    cr_assert_eq(timerfd_settime(fds[1], 0, &in_2ms, NULL), 0);
    api_until(&api, t.calls == 1 && e.events == OUT);
    cr_assert_eq(t.n, 8);
    cr_assert_eq(s.calls, 0);
    cr_assert_eq(raise(SIGUSR2), 0);
    api_until(&api, s.calls > 2);
    struct signalfd_siginfo info;
    cr_assert_eq(read(fds[0], &info, sizeof info), sizeof info);
    cr_assert_eq(info.ssi_signo, SIGUSR2);
    cr_assert_eq(write(fds[2], &(uint64_t){3}, 8), 8);
    api_until(&api, e.n == 8);
    look_away(&s);
    look_away(&t);
    look_away(&e);
    api_until(&api, api_stats(&api).watches == 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(close(fds[i]), 0);
    api_close(&api);
}

/* The owner closes first, and the number goes to another: the watch stays with what it was opened for. */
REAL_TEST(api_watch, closed_by_its_owner)
{
    struct api api;
    struct sight v = {.api = &api};
    int fds[2], others[2];
    start(&api, p);
    pair_make(fds);
    look(&v, fds[0], IN);
    turns(&api, 3);
    cr_assert_eq(close(fds[0]), 0);
    pair_make(others);
    cr_assert_eq(others[0], fds[0]);
    put(others[1], 5);
    turns(&api, 5);
    cr_assert_eq(v.calls, 0, "it sees another's bytes");
    put(fds[1], 5);
    api_until(&api, v.calls > 2);
    look_away(&v);
    turns(&api, 2);
    cr_assert_eq(send(fds[1], "", 1, MSG_NOSIGNAL), -1, "somebody is still there");
    cr_assert_eq(close(fds[1]), 0);
    pair_close(others);
    api_close(&api);
}

/* The loop goes: each that is open is told so, once; some close others on that occasion, none can be opened. */
REAL_TEST(api_watch, loop_destroyed)
{
    enum { COUNT = 9 };
    struct api api;
    struct sight v[COUNT];
    int fds[2];
    start(&api, p);
    pair_make(fds);
    for (unsigned i = 0; i < COUNT; i++) {
        v[i] = (struct sight){.api = &api, .other = &v[(i + 4) % COUNT]};
        look(&v[i], fds[0], i % 3 == 0 ? 0 : i % 3 == 1 ? IN : OUT);
    }
    turns(&api, 2);
    for (unsigned i = 0; i < 3; i++)
        v[i].then = then_close_other;
    api_destroy_loop(&api);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_null(v[i].w);
        cr_assert_leq(v[i].ends, 1);
        cr_assert(v[i].ends == 0 || v[i].err == GYRE_ESHUTDOWN);
    }
    unsigned told = 0;
    for (unsigned i = 0; i < COUNT; i++)
        told += v[i].ends;
    cr_assert_geq(told, COUNT - 3);
    pair_close(fds);
    api_close(&api);
}

/* What cannot be watched is said at once, or, if only the wait shows it, by the callback. */
BACKEND_TEST(api_watch, refused)
{
    struct api api;
    struct sight v = {.api = &api};
    struct gyre_watch *w = NULL;
    start(&api, p);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cr_assert_geq(file, 0);
    cr_assert_eq(gyre_watch_open(&w, api.loop, file, IN, on_watch, &v), api.is_sim ? -EBADF : GYRE_EFDTYPE);
    cr_assert_eq(close(file), 0);
    cr_assert_eq(gyre_watch_open(&w, api.loop, file, IN, on_watch, &v), -EBADF);
    cr_assert_eq(gyre_watch_open(&w, api.loop, -1, IN, on_watch, &v), -EBADF);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (strcmp(api.backend, "epoll") == 0) /* refuses it; api_close() sees that the copy is closed */
        cr_assert_eq(gyre_watch_open(&w, api.loop, null, IN, on_watch, &v), GYRE_EFDTYPE);
    cr_assert_eq(close(null), 0);
    cr_assert_eq(gyre_watch_open(NULL, api.loop, 0, IN, on_watch, &v), -EINVAL);
    cr_assert_eq(gyre_watch_open(&w, NULL, 0, IN, on_watch, &v), -EINVAL);
    cr_assert_eq(gyre_watch_open(&w, api.loop, 0, IN, NULL, &v), -EINVAL);
    cr_assert_eq(gyre_watch_open(&w, api.loop, 0, 64, on_watch, &v), GYRE_EOPTION);
    int own = gyre_loop_fd(api.loop);
    if (own >= 0)
        cr_assert_eq(gyre_watch_open(&w, api.loop, own, IN, on_watch, &v), -EINVAL);
    cr_assert_null(w);
    cr_assert_eq(gyre_watch_close(NULL), 0);
    cr_assert_eq(gyre_watch_set(NULL, IN), -EINVAL);
    if (!api.is_sim && strcmp(api.backend, "kqueue") == 0) {
        int fds[2];
        pair_make(fds);
        look(&v, fds[0], GYRE_WATCH_PRIORITY);
        api_until(&api, v.ends == 1);
        cr_assert_eq(v.err, -EOPNOTSUPP);
        pair_close(fds);
    }
    api_close(&api);
}

static void *elsewhere(void *user)
{
    struct sight *v = user;
    struct gyre_watch *w = NULL;
    cr_expect_eq(gyre_watch_open(&w, v->api->loop, v->fd, IN, on_watch, v), GYRE_ETHREAD);
    cr_expect_eq(gyre_watch_set(v->w, OUT), GYRE_ETHREAD);
    cr_expect_eq(gyre_watch_close(v->w), GYRE_ETHREAD);
    return NULL;
}

/* From another thread every call is refused, and the watch goes on. */
REAL_TEST(api_watch, wrong_thread)
{
    struct api api;
    struct sight v = {.api = &api};
    pthread_t thread;
    int fds[2];
    start(&api, p);
    pair_make(fds);
    look(&v, fds[0], IN);
    turns(&api, 2);
    cr_assert_eq(pthread_create(&thread, NULL, elsewhere, &v), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    put(fds[1], 1);
    api_until(&api, v.calls > 0);
    look_away(&v);
    pair_close(fds);
    api_close(&api);
}

/* Watches that are always ready, and connections that are always busy: each gets its share. */
REAL_TEST(api_watch, fair)
{
    enum { COUNT = 50, BYTES = 1 << 20 };
    struct api api;
    struct peer peer;
    struct sight v[COUNT];
    api_start(&api, p, &(struct script){.data = end_forward_back});
    int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    for (int i = 0; i < COUNT; i++) {
        v[i] = (struct sight){.api = &api};
        look(&v[i], fd, IN);
    }
    struct end *e = peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    while (peer.got < BYTES) {
        if (peer.sent < BYTES)
            (void)peer_send_some(&peer, 16384);
        (void)peer_recv_some(&peer, 65536);
        api_turn(&api);
    }
    cr_assert_eq(e->closes, 0);
    uint64_t in_turns = api_stats(&api).turns;
    for (int i = 0; i < COUNT; i++) {
        cr_assert_gt(v[i].calls, in_turns / 10, "watch %d was called %u times in %llu turns", i, v[i].calls,
                     (unsigned long long)in_turns);
        cr_assert_leq(v[i].calls, in_turns);
        look_away(&v[i]);
    }
    cr_assert_eq(close(fd), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Hundreds on one descriptor, each told once and closed; the memory of theirs serves the next ones. */
REAL_TEST(api_watch, many)
{
    enum { COUNT = 500 };
    static struct sight v[COUNT];
    struct api api;
    int fds[2];
    start(&api, p);
    pair_make(fds);
    for (int i = 0; i < COUNT; i++) {
        v[i] = (struct sight){.api = &api, .then = then_close};
        look(&v[i], fds[0], IN);
    }
    turns(&api, 3);
    put(fds[1], 1);
    for (int i = 0; i < COUNT; i++)
        api_until(&api, v[i].calls == 1);
    long blocks = atomic_load(&api.mem.blocks);
    for (int i = 0; i < COUNT; i++) {
        v[i] = (struct sight){.api = &api, .then = then_close};
        look(&v[i], fds[0], IN);
    }
    for (int i = 0; i < COUNT; i++)
        api_until(&api, v[i].calls == 1);
    cr_assert_eq(atomic_load(&api.mem.blocks), blocks, "memory of closed watches is used again");
    pair_close(fds);
    api_close(&api);
}
