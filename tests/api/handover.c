/* SPDX-License-Identifier: MIT
 * One listening socket in several hands: of two loops, as of two processes during a restart. All loops here are turned
 * by the test's own thread, so a loop that is busy is one that is not turned. */
#include "fixture.h"

#include "socket/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLIENTS = 13, SITES = 3 };

/* A loop and its listener, on a socket that others may share. */
struct site {
    struct gyre_loop *loop;
    struct gyre_listener *listener;
    unsigned opens, closes;
    bool close_in_data, pause_in_data;
};

static struct hands {
    struct site sites[SITES];
    int fds;
    char dir[64];
    char address[160];
} hands;

static void on_open(struct gyre_conn *c)
{
    struct site *s = gyre_loop_user(gyre_conn_loop(c));
    s->opens++;
}

static void on_data(struct gyre_conn *c)
{
    struct site *s = gyre_loop_user(gyre_conn_loop(c));
    if (s->close_in_data)
        gyre_listener_close(s->listener);
    if (s->pause_in_data)
        cr_assert_eq(gyre_listener_pause(s->listener), 0);
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct site *s = gyre_loop_user(gyre_conn_loop(c));
    s->closes++;
    (void)err;
}

static const struct gyre_conn_handlers echo = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void make_loop(struct site *s, const char *backend)
{
    *s = (struct site){.loop = NULL};
    struct gyre_loop_options options = {.backend = backend, .user = s};
    int err = gyre_loop_create(&s->loop, &options);
    if (err == 0)
        return;
    struct gyre_sim *sim;
    cr_assert_null(backends_open(backend, (struct gyre__backend_config){.ops_max = 0}, &sim), "%s", gyre_err_name(err));
}

static void turn(struct site *s)
{
    if (s->loop != NULL)
        cr_assert_geq(gyre_loop_run_nowait(s->loop), 0);
}

static void turns(struct site *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        turn(s);
        (void)poll(NULL, 0, 1);
    }
}

/* The first site listens. */
static void begin(const struct backend_param *p, const char *backend)
{
    struct site *s = &hands.sites[0];
    hands = (struct hands){.fds = env_fd_count()};
    env_dir_make(hands.dir, sizeof hands.dir);
    make_loop(s, backend);
    bool path = p->transport == TRANSPORT_UNIX, abstract = p->transport == TRANSPORT_ABSTRACT;
    if (path || abstract)
        (void)snprintf(hands.address, sizeof hands.address, "unix://%s%s/s", path ? "" : "@", hands.dir + abstract);
    else
        (void)snprintf(hands.address, sizeof hands.address, "tcp://%s:0",
                       p->transport == TRANSPORT_TCP6 ? "[::1]" : "127.0.0.1");
    cr_assert_eq(gyre_loop_listen(&s->listener, s->loop, hands.address, &echo, NULL), 0);
    (void)snprintf(hands.address, sizeof hands.address, "%s", gyre_listener_address(s->listener));
    turns(s, 3);
}

/* Another site is to listen on the first one's socket. */
static struct site *attach(unsigned index, const char *backend)
{
    struct site *s = &hands.sites[index];
    make_loop(s, backend);
    int fd = gyre_listener_dup_fd(hands.sites[0].listener, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(gyre_loop_listen_fd(&s->listener, s->loop, fd, &echo, NULL), 0);
    return s;
}

/* It has begun to accept, and the first one knows. */
static void join(unsigned index, const char *backend)
{
    struct site *s = attach(index, backend);
    turns(&hands.sites[0], 3);
    turns(s, 3);
}

static void end(void)
{
    for (unsigned i = 0; i < SITES; i++)
        if (hands.sites[i].loop != NULL)
            gyre_loop_destroy(hands.sites[i].loop);
    env_dir_remove(hands.dir);
    cr_assert_eq(env_fd_count(), hands.fds);
}

static int client(void)
{
    struct gyre__address to;
    cr_assert_eq(gyre__addr_parse(&to, hands.address), 0);
    int fd = socket(to.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to.addr.ss, to.addr.len), 0, "%s", strerror(errno));
    cr_assert_eq(send(fd, "x", 1, MSG_NOSIGNAL), 1);
    return fd;
}

/* Turn the sites that are not busy until the client has its answer. Returns what recv() said, negative: no answer. */
static int answer(int fd, const struct site *busy, unsigned patience_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte = 0;
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(patience_ms);
    while (poll(&p, 1, 1) == 0) {
        if (env_now_ns() > end_ns)
            return -EAGAIN;
        for (unsigned i = 0; i < SITES; i++)
            if (&hands.sites[i] != busy)
                turn(&hands.sites[i]);
    }
    ssize_t n = recv(fd, &byte, 1, 0);
    return n == 1 && byte == 'x' ? 1 : n < 0 ? -errno : 0;
}

static void expect_answer(int fd, const struct site *busy)
{
    int got = answer(fd, busy, API_PATIENCE_MS);
    cr_assert_eq(got, 1, "no answer: %d (%s)", got, strerror(got < 0 ? -got : 0));
    (void)close(fd);
}

/* ---- the mode of the shared file ---- */

/* Whatever the backend, and whatever it was before, the socket that others may share does not block: who called
 * accept4() on it for a connection that another took would hang. */
REAL_TEST(api_handover, listeners_do_not_block)
{
    for (unsigned blocking = 0; blocking < 2; blocking++) {
        begin(p, p->backend);
        int fd = gyre_listener_dup_fd(hands.sites[0].listener, 0);
        cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK, "a listening socket blocks");
        if (blocking)
            cr_assert_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
        join(1, p->backend);
        cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK, "a listening socket blocks once it is shared");
        expect_answer(client(), NULL);
        cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
        (void)close(fd);
        end();
    }
}

/* Another process has made the file block, and taken the connection that both were told of. */
REAL_TEST(api_handover, made_to_block_by_another)
{
    begin(p, p->backend);
    struct site *s = &hands.sites[0];
    int fd = gyre_listener_dup_fd(s->listener, 0);
    turns(s, 3);
    for (unsigned round = 0; round < 5; round++) {
        (void)attach(1, p->backend);
        cr_assert_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
        int one = client(), taken = accept(fd, NULL, NULL);
        cr_assert_geq(taken, 0);
        turns(&hands.sites[1], 3);
        turns(s, 3); /* hangs where it calls accept4() unasked */
        (void)close(taken);
        (void)close(one);
        cr_assert_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
        expect_answer(client(), NULL);
        gyre_loop_destroy(hands.sites[1].loop);
        hands.sites[1].loop = NULL;
    }
    (void)close(fd);
    end();
}

/* A connection whose descriptor two loops have, one of which wants it to block. */
REAL_TEST(api_handover, connections_never_hang)
{
    int pair[2];
    struct gyre_conn *c;
    begin(p, p->backend);
    struct site *s = &hands.sites[0];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    int other = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    cr_assert_eq(gyre_conn_adopt_fd(&c, s->loop, pair[0], &echo, NULL), 0);
    cr_assert_eq(fcntl(other, F_SETFL, fcntl(other, F_GETFL) & ~O_NONBLOCK), 0);
    turns(s, 3);
    for (unsigned i = 0; i < 20; i++) {
        char byte;
        cr_assert_eq(send(pair[1], "x", 1, MSG_NOSIGNAL), 1);
        do
            turn(s);
        while (recv(pair[1], &byte, 1, MSG_DONTWAIT) != 1);
        turns(s, 1);
    }
    (void)close(other);
    (void)close(pair[1]);
    end();
}

/* ---- who is woken ---- */

/* A loop that is busy, or stopped, leaves the clients to the other, whoever came first. */
TRANSPORT_TEST(api_handover, busy_loop_takes_no_wakes)
{
    if (!backends_is_real(p->backend))
        return;
    for (unsigned which = 0; which < 2; which++) {
        begin(p, p->backend);
        join(1, p->backend);
        for (unsigned i = 0; i < CLIENTS; i++)
            expect_answer(client(), &hands.sites[which]);
        end();
    }
}

/* The kernel woke one loop for a client, which closes its listener before it looks: the other serves the client. */
REAL_TEST(api_handover, wake_of_a_closed_listener_goes_on)
{
    for (unsigned which = 0; which < 2; which++) {
        begin(p, p->backend);
        join(1, p->backend);
        join(2, p->backend);
        int fd = client();
        gyre_listener_close(hands.sites[which].listener);
        expect_answer(fd, NULL);
        fd = client();
        cr_assert_eq(gyre_listener_pause(hands.sites[2].listener), 0);
        expect_answer(fd, &hands.sites[2]);
        end();
    }
}

/* Loops on different backends. */
REAL_TEST(api_handover, between_backends)
{
    for (unsigned which = 0; which < 2; which++) {
        begin(p, which == 0 ? p->backend : "epoll");
        join(1, which == 0 ? "epoll" : p->backend);
        for (unsigned i = 0; i < 100; i++) {
            int fds[4];
            for (unsigned k = 0; k < 4; k++)
                fds[k] = client();
            for (unsigned k = 0; k < 4; k++)
                expect_answer(fds[k], NULL);
        }
        cr_assert_geq(hands.sites[0].opens + hands.sites[1].opens, 400);
        end();
    }
}

/* ---- closing ---- */

/* A handler closes, or pauses, the listener in the very turn that has accepted others. Those live on; whom the kernel
 * has in its queue is the next one's. The order of a turn's events is by chance: the loop is not turned until data and
 * clients are there. */
static void lose_nobody(const struct backend_param *p, bool pause, bool shared)
{
    int fds[5];
    begin(p, p->backend);
    struct site *s = &hands.sites[0];
    int copy = shared ? gyre_listener_dup_fd(s->listener, 0) : -1;
    turns(s, 3);
    int first = client();
    cr_assert_eq(answer(first, NULL, API_PATIENCE_MS), 1);
    s->close_in_data = !pause;
    s->pause_in_data = pause;
    cr_assert_eq(send(first, "x", 1, MSG_NOSIGNAL), 1);
    for (unsigned i = 0; i < 5; i++)
        fds[i] = client();
    turns(s, 10);
    cr_assert_gt(s->opens, shared ? 0 : 1, "nobody was accepted: this says nothing");
    s->close_in_data = s->pause_in_data = false;
    if (shared) {
        make_loop(&hands.sites[1], p->backend);
        cr_assert_eq(gyre_loop_listen_fd(NULL, hands.sites[1].loop, copy, &echo, NULL), 0);
    } else if (pause) {
        cr_assert_eq(gyre_listener_resume(s->listener), 0);
    }
    unsigned answered = 0;
    for (unsigned i = 0; i < 5; i++) {
        answered += answer(fds[i], NULL, API_PATIENCE_MS) == 1;
        (void)close(fds[i]);
    }
    cr_assert_eq(hands.sites[0].opens + hands.sites[1].opens, answered + 1);
    cr_assert(answered == 5 || (!shared && !pause), "%u of 5 clients were served", answered);
    cr_assert_eq(answer(first, NULL, API_PATIENCE_MS), 1, "its own connection has gone");
    (void)close(first);
    end();
}

TRANSPORT_TEST(api_handover, closing_loses_nobody)
{
    if (backends_is_real(p->backend)) {
        lose_nobody(p, false, true);
        lose_nobody(p, true, true);
        lose_nobody(p, true, false);
        lose_nobody(p, false, false);
    }
}

/* ---- the path of a unix socket ---- */

static bool path_exists(void)
{
    struct stat st;
    return lstat(hands.address + strlen("unix://"), &st) == 0;
}

/* Who hands the socket on and closes leaves the path to the next one; if there is nobody, it goes. */
REAL_TEST(api_handover, path_stays_with_the_socket)
{
    struct backend_param unix_path = *p;
    unix_path.transport = TRANSPORT_UNIX;
    for (unsigned round = 0; round < 3; round++) {
        begin(&unix_path, p->backend);
        struct site *s = &hands.sites[0];
        int copy = gyre_listener_dup_fd(s->listener, 0);
        if (round == 0)
            join(1, p->backend);
        if (round != 1)
            (void)close(copy);
        gyre_listener_close(s->listener);
        turns(s, 5);
        cr_assert_eq(gyre_listener_socket_count(s->listener), 0);
        cr_assert_eq(path_exists(), round < 2, "round %u", round);
        if (round == 0)
            for (unsigned i = 0; i < 5; i++)
                expect_answer(client(), NULL);
        cr_assert_eq(s->opens, 0);
        if (round == 1)
            (void)close(copy);
        end();
    }
}
