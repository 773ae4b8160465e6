/* SPDX-License-Identifier: MIT
 * A backend that fails for good while the loop has work: from one moment on the kernel forbids waiting. Nothing that is
 * in flight will be told of any more. Each connection and socket has its on_close all the same, once; what was queued
 * and what was on its way is counted and freed, borrowed bytes are given back. */
#include "backends.h"
#include "sandbox.h"
#include "server.h"

#include "base/log.h"

#include <errno.h>
#include <gyre/stats.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DATAGRAMS = 900, LEN = 100, PIECE = 4 << 20, TURNS = 20 };

struct scene {
    struct env_mem mem;
    struct gyre_loop *loop;
    struct gyre_listener *listener;
    struct gyre_conn *c, *out;
    struct gyre_udp *u;
    struct gyre_watch *w;
    struct gyre_udp_counts stats;
    unsigned conn_closes, listener_closes, udp_closes, watch_ends, given_back;
    int udp_err, watch_err;
    int peers[2], receiver, file, event;
};

static struct scene s;
static uint8_t bytes[PIECE];

static void on_open(struct gyre_conn *c)
{
    s.c = c;
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)c;
    s.conn_closes++;
    cr_assert_eq(err, GYRE_ESHUTDOWN, "%s", gyre_err_name(err));
}

static void on_listener_closed(void *user)
{
    (void)user;
    s.listener_closes++;
}

static void on_given_back(int err, void *user)
{
    (void)user;
    s.given_back++;
    cr_assert_neq(err, 0);
}

static void on_watch(struct gyre_watch *w, unsigned events, int err, void *user)
{
    (void)user;
    cr_assert(w == s.w && events == 0);
    s.watch_ends++;
    s.watch_err = err;
}

static void on_udp_close(struct gyre_udp *u, int err)
{
    gyre_udp_stats(&s.stats, u);
    s.udp_closes++;
    s.udp_err = err;
}

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    (void)u;
    (void)d;
}

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    (void)level;
    (void)text;
}

static void turn(void)
{
    for (unsigned i = 0; i < TURNS; i++)
        cr_assert_geq(gyre_loop_run_nowait(s.loop), 0);
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void accept_one(int *peer)
{
    s.c = NULL;
    *peer = client_connect(gyre_listener_address(s.listener));
    cr_assert_geq(*peer, 0);
    while (s.c == NULL)
        turn();
}

/* A connection whose peer reads nothing, with a copy and borrowed bytes queued. */
static void open_conn(void)
{
    const struct gyre_listener_options options = {.on_closed = on_listener_closed};
    cr_assert_eq(gyre_loop_listen(&s.listener, s.loop, "tcp://127.0.0.1:0", &handlers, &options), 0);
    accept_one(&s.peers[0]);
    cr_assert_eq(gyre_conn_write(s.c, bytes, PIECE), 0);
    cr_assert_eq(gyre_conn_write_ref(s.c, bytes, PIECE, on_given_back, NULL), 0);
}

/* One that has just begun to read a file, one that has just begun to connect, and a watch. */
static void begin_more(void)
{
    s.file = memfd_create("gyre-lost", MFD_CLOEXEC);
    s.event = eventfd(0, EFD_CLOEXEC);
    cr_assert(s.file >= 0 && s.event >= 0 && ftruncate(s.file, PIECE) == 0);
    accept_one(&s.peers[1]);
    cr_assert_eq(gyre_watch_open(&s.w, s.loop, s.event, GYRE_WATCH_READABLE, on_watch, NULL), 0);
    cr_assert_eq(gyre_conn_sendfile(s.c, s.file, 0, PIECE, on_given_back, NULL), 0);
    cr_assert_geq(gyre_loop_run_nowait(s.loop), 0); /* settles, and thus asks for the first piece */
    cr_assert_eq(gyre_connect(&s.out, s.loop, gyre_listener_address(s.listener), &handlers, NULL), 0);
}

/* A receiver that takes nothing, and a socket with more for it than fits its queue: one is on its way and waits. */
static void open_datagrams(void)
{
    static const struct gyre_udp_handlers udp_handlers = {.on_datagram = on_datagram, .on_close = on_udp_close};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char address[sizeof un.sun_path + sizeof "unixgram://@"];
    int len = snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "gyre-lost-%d", (int)getpid());
    (void)snprintf(address, sizeof address, "unixgram://@%s", un.sun_path + 1);
    s.receiver = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t un_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    cr_assert_eq(bind(s.receiver, (const struct sockaddr *)&un, un_len), 0, "%s", strerror(errno));
    cr_assert_eq(gyre_udp_connect(&s.u, s.loop, address, &udp_handlers, NULL), 0);
    for (unsigned i = 0; i < DATAGRAMS; i++)
        cr_assert_eq(gyre_udp_send(s.u, bytes, LEN), 0);
}

static unsigned received(void)
{
    uint8_t data[LEN];
    unsigned count = 0;
    while (recv(s.receiver, data, sizeof data, 0) == LEN)
        count++;
    return count;
}

REAL_TEST(lost, ends_are_told)
{
    static const struct gyre_log silent = {.line = no_line};
    const struct confinement no_more = {.deny = DENY_ALL | DENY_WAIT, .deny_errno = EPERM};
    int fds = open_descriptors();
    env_mem_init(&s.mem);
    struct gyre_sim *sim;
    struct gyre__backend *be =
        backends_open(p->backend, (struct gyre__backend_config){.mem = &s.mem.mem, .log = &silent}, &sim);
    be->ops->destroy(be); /* it opens here, or the test was skipped */
    const struct gyre_loop_options options = {.backend = p->backend, .mem = &s.mem.mem, .log = &silent};
    cr_assert_eq(gyre_loop_create(&s.loop, &options), 0);
    open_conn();
    open_datagrams();
    turn();
    begin_more();
    gyre_udp_stats(&s.stats, s.u);
    cr_assert(s.stats.sent > 0 && s.stats.sent < DATAGRAMS - 1, "%llu datagrams sent: none waits",
              (unsigned long long)s.stats.sent);
    cr_assert(confine(&no_more));
    gyre_loop_destroy(s.loop);
    cr_assert_eq(s.conn_closes, 3);
    cr_assert_eq(s.listener_closes, 1);
    cr_assert_eq(s.given_back, 2);
    cr_assert_eq(s.watch_ends, 1);
    cr_assert_eq(s.watch_err, GYRE_ESHUTDOWN, "%s", gyre_err_name(s.watch_err));
    cr_assert_eq(s.udp_closes, 1);
    cr_assert_eq(s.udp_err, GYRE_ESHUTDOWN, "%s", gyre_err_name(s.udp_err));
    cr_assert_eq(s.stats.sent, received());
    cr_assert_eq(s.stats.sent + s.stats.send_dropped, DATAGRAMS, "%llu sent, %llu dropped",
                 (unsigned long long)s.stats.sent, (unsigned long long)s.stats.send_dropped);
    const int ours[] = {s.peers[0], s.peers[1], s.receiver, s.file, s.event};
    for (unsigned i = 0; i < sizeof ours / sizeof ours[0]; i++)
        cr_assert_eq(close(ours[i]), 0);
    cr_assert_eq(atomic_load(&s.mem.blocks), 0, "%ld blocks left", atomic_load(&s.mem.blocks));
    cr_assert_eq(open_descriptors(), fds, "descriptors left");
}
