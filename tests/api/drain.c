/* SPDX-License-Identifier: MIT
 * A drain that waits: answers that are owed still arrive, connections are told, what is idle ends at once, and what is
 * left at the deadline is reset. Only states are waited for; how long a quiet time is does not matter here. */
#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static _Atomic(bool) job_runs, job_may_end, loop_may_go_on, loop_stands;
static _Atomic(int) reason;
static _Atomic(unsigned) told;

static const struct gyre_drain_options soon = {.deadline_ns = MS(API_PATIENCE_MS), .quiet_ns = MS(20)};

static void note_close(struct gyre_conn *c, int err)
{
    atomic_store(&reason, (int)gyre_conn_close_reason(c));
    rig_on_close(c, err);
}

static void listen_with(struct rig *r, const struct gyre_conn_handlers *h, struct gyre_conn_options conn)
{
    const struct gyre_listener_options options = {.conn = conn};
    atomic_store(&told, 0);
    atomic_store(&reason, -1);
    int err = gyre_engine_listen(&r->listener, r->engine, rig_tcp, h, &options);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
}

static void send_five(int fd)
{
    cr_assert_eq(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
}

/* The peer sees a clean end. */
static void expect_eof(int fd)
{
    char byte;
    cr_assert_eq(rig_receive(fd, &byte, 1), 0, "%s", strerror(errno));
    (void)close(fd);
}

static void expect_reset(int fd)
{
    char byte;
    cr_assert_eq(rig_receive(fd, &byte, 1), -1);
    cr_assert_eq(errno, ECONNRESET, "%s", strerror(errno));
    (void)close(fd);
}

/* ---- answers ---- */

static int work(struct gyre_work *job, void *user)
{
    (void)job, (void)user;
    atomic_store(&job_runs, true);
    while (!atomic_load(&job_may_end))
        (void)poll(NULL, 0, 1);
    return 0;
}

static struct gyre_conn_id asker;

static void answer(struct gyre_loop *loop, int result, void *user)
{
    (void)loop, (void)user;
    cr_assert_eq(result, 0);
    struct gyre_conn *c = gyre_conn_from_id(asker);
    cr_assert_neq(c, NULL, "the connection was closed although an answer was owed");
    cr_assert_eq(gyre_conn_write(c, "world", 5), 0);
}

static void ask(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
    asker = gyre_conn_id_of(c);
    cr_assert_eq(gyre_engine_offload(rig->engine, work, answer, NULL), 0);
}

static const struct gyre_conn_handlers asking = {.on_open = rig_on_open, .on_data = ask, .on_close = note_close};

/* A job of the pool still works on the answer when the drain begins. Another connection, which is idle, ends
 * meanwhile: that shows that the drain has looked. */
REAL_TEST(api_drain, answer_of_a_job)
{
    struct rig r;
    char text[6] = "";
    rig_open(&r, p, 1);
    atomic_store(&job_runs, false);
    atomic_store(&job_may_end, false);
    listen_with(&r, &asking, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener)), idle = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == 2);
    send_five(fd);
    await(atomic_load(&job_runs));
    cr_assert_not(gyre_engine_is_draining(r.engine));
    cr_assert_eq(gyre_engine_drain(r.engine, &soon), 0);
    cr_assert(gyre_engine_is_draining(r.engine));
    expect_eof(idle);
    cr_assert_geq(gyre_engine_conn_count(r.engine), 1);
    atomic_store(&job_may_end, true);
    cr_assert_eq(rig_receive(fd, text, 5), 5, "%s", strerror(errno));
    cr_assert_eq(strcmp(text, "world"), 0);
    expect_eof(fd);
    rig_join(&r);
    cr_assert_eq(r.last_err, 0);
    cr_assert_eq(atomic_load(&reason), GYRE_CLOSE_SHUTDOWN);
    rig_close(&r);
}

/* ---- the deadline ---- */

static void owe(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
    atomic_fetch_add(&told, 1);
}

static const struct gyre_conn_handlers owing = {.on_open = rig_on_open, .on_data = owe, .on_close = note_close};

/* An answer that never comes: the peer is reset at the deadline, and gets no FIN. */
REAL_TEST(api_drain, reset_at_the_deadline)
{
    struct rig r;
    rig_open(&r, p, 2);
    listen_with(&r, &owing, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener));
    send_five(fd);
    await(atomic_load(&told) == 1);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(100), .quiet_ns = 1}), 0);
    expect_reset(fd);
    rig_join(&r);
    cr_assert_eq(r.last_err, GYRE_ESHUTDOWN);
    cr_assert_eq(atomic_load(&reason), GYRE_CLOSE_SHUTDOWN);
    rig_close(&r);
}

/* A second drain replaces the deadline of the first. */
REAL_TEST(api_drain, twice)
{
    struct rig r;
    rig_open(&r, p, 2);
    listen_with(&r, &owing, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener)), idle = rig_client(gyre_listener_address(r.listener));
    send_five(fd);
    await(atomic_load(&told) == 1 && rig_opened(&r) == 2);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(3600000)}), 0);
    expect_eof(idle);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = 1}), 0);
    expect_reset(fd);
    rig_join(&r);
    rig_close(&r);
}

/* Stopping ends a drain at once. */
REAL_TEST(api_drain, stopped)
{
    struct rig r;
    rig_open(&r, p, 2);
    listen_with(&r, &owing, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener)), idle = rig_client(gyre_listener_address(r.listener));
    send_five(fd);
    await(atomic_load(&told) == 1 && rig_opened(&r) == 2);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(3600000)}), 0);
    expect_eof(idle);
    gyre_engine_stop(r.engine);
    expect_reset(fd);
    rig_join(&r);
    rig_close(&r);
}

/* A client that ignores our FIN does not keep the engine from ending. */
REAL_TEST(api_drain, peer_that_does_not_close)
{
    struct rig r;
    char byte;
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener));
    rig_ping(fd);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(3600000)}), 0);
    cr_assert_eq(rig_receive(fd, &byte, 1), 0, "%s", strerror(errno));
    rig_join(&r);
    cr_assert_eq(r.last_err, 0);
    (void)close(fd);
    rig_close(&r);
}

/* ---- being told ---- */

static void say_goodbye(struct gyre_conn *c)
{
    cr_assert(gyre_conn_is_draining(c));
    if (atomic_fetch_add(&told, 1) % 2 == 0) {
        cr_assert_eq(gyre_conn_write(c, "bye", 3), 0);
        cr_assert_eq(gyre_conn_close(c), 0);
    }
}

static const struct gyre_conn_handlers noting = {
    .on_open = rig_on_open, .on_data = rig_on_data, .on_close = note_close};

/* Each connection is told once. One that does not close itself is kept, however quiet it is. */
REAL_TEST(api_drain, tells_each)
{
    enum { COUNT = 10 };
    struct rig r;
    struct pollfd fds[COUNT];
    unsigned left = COUNT;
    char text[4] = "";
    rig_open(&r, p, 2);
    listen_with(&r, &noting, (struct gyre_conn_options){.on_drain_begin = say_goodbye});
    rig_run(&r);
    for (unsigned i = 0; i < COUNT; i++) {
        fds[i] = (struct pollfd){.fd = rig_client(gyre_listener_address(r.listener)), .events = POLLIN};
        rig_ping(fds[i].fd);
    }
    cr_assert_eq(gyre_engine_drain(r.engine, &soon), 0);
    cr_assert_eq(gyre_engine_drain(r.engine, &soon), 0);
    while (left > COUNT / 2) {
        (void)poll(fds, COUNT, API_PATIENCE_MS);
        for (unsigned i = 0; i < COUNT; i++)
            if (fds[i].fd >= 0 && fds[i].revents != 0) {
                cr_assert_eq(rig_receive(fds[i].fd, text, 3), 3);
                cr_assert_eq(strcmp(text, "bye"), 0);
                expect_eof(fds[i].fd);
                fds[i].fd = -1;
                left--;
            }
    }
    for (unsigned i = 0; i < COUNT; i++)
        if (fds[i].fd >= 0) {
            rig_ping(fds[i].fd); /* it is served still */
            (void)close(fds[i].fd);
        }
    rig_join(&r);
    cr_assert_eq(atomic_load(&told), COUNT);
    cr_assert_eq(r.last_err, 0);
    rig_close(&r);
}

/* ---- those that the kernel has accepted ---- */

static void stand_still(struct gyre_loop *loop, void *user)
{
    (void)loop, (void)user;
    atomic_store(&loop_stands, true);
    while (!atomic_load(&loop_may_go_on))
        (void)poll(NULL, 0, 1);
}

/* Clients connect while the loop is busy, and the drain begins before it looks: they are served. */
REAL_TEST(api_drain, backlog_is_served)
{
    enum { COUNT = 20 };
    struct rig r;
    int fds[COUNT];
    char text[6] = "";
    rig_open(&r, p, 1);
    atomic_store(&loop_stands, false);
    atomic_store(&loop_may_go_on, false);
    listen_with(&r, &noting, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    cr_assert_eq(gyre_loop_post(gyre_engine_loop(r.engine, 0), stand_still, NULL), 0);
    await(atomic_load(&loop_stands));
    for (unsigned i = 0; i < COUNT; i++) {
        fds[i] = rig_client(gyre_listener_address(r.listener));
        send_five(fds[i]);
    }
    cr_assert_eq(gyre_engine_drain(r.engine, &soon), 0);
    atomic_store(&loop_may_go_on, true);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_eq(rig_receive(fds[i], text, 5), 5, "client %u: %s", i, strerror(errno));
        expect_eof(fds[i]);
    }
    rig_join(&r);
    cr_assert_eq(rig_opened(&r), COUNT);
    cr_assert_eq(r.last_err, 0);
    rig_close(&r);
}

/* Nothing serves a listener that is closed, but its clients of before live on, those in its backlog, too. */
REAL_TEST(api_drain, backlog_of_a_closed_listener)
{
    enum { COUNT = 20 };
    struct rig r;
    int fds[COUNT];
    char text[6] = "";
    rig_open(&r, p, 1);
    atomic_store(&loop_stands, false);
    atomic_store(&loop_may_go_on, false);
    listen_with(&r, &noting, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    cr_assert_eq(gyre_loop_post(gyre_engine_loop(r.engine, 0), stand_still, NULL), 0);
    await(atomic_load(&loop_stands));
    for (unsigned i = 0; i < COUNT; i++)
        fds[i] = rig_client(gyre_listener_address(r.listener));
    cr_assert_eq(gyre_listener_close(r.listener), 0);
    atomic_store(&loop_may_go_on, true);
    for (unsigned i = 0; i < COUNT; i++) {
        send_five(fds[i]);
        cr_assert_eq(rig_receive(fds[i], text, 5), 5, "client %u: %s", i, strerror(errno));
        (void)close(fds[i]);
    }
    rig_stop(&r);
}

/* ---- connecting meanwhile ---- */

static char upstream_address[64];

static void from_upstream(struct gyre_conn *c)
{
    cr_assert_geq(gyre_conn_forward(c, gyre_conn_user(c), SIZE_MAX), 0);
}

static void upstream_closed(struct gyre_conn *c, int err)
{
    (void)c, (void)err;
}

static const struct gyre_conn_handlers upstream = {.on_data = from_upstream, .on_close = upstream_closed};

static void to_upstream(struct gyre_conn *c)
{
    struct gyre_conn *up;
    const struct gyre_conn_options options = {.user = c};
    int err = gyre_connect(&up, gyre_conn_loop(c), upstream_address, &upstream, &options);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert_eq(gyre_conn_forward(c, up, SIZE_MAX), 5);
    atomic_fetch_add(&told, 1);
}

static const struct gyre_conn_handlers relaying = {
    .on_open = rig_on_open, .on_data = to_upstream, .on_close = note_close};

static int listen_upstream(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    (void)snprintf(upstream_address, sizeof upstream_address, "tcp://127.0.0.1:%u", ntohs(addr.sin_port));
    return fd;
}

static int accept_upstream(int server)
{
    char text[6] = "";
    int fd = accept(server, NULL, NULL);
    cr_assert_geq(fd, 0);
    cr_assert_eq(rig_receive(fd, text, 5), 5);
    cr_assert_eq(strcmp(text, "hello"), 0);
    return fd;
}

/* Neither side of a pair is idle until the answer has come, however quiet both are. */
REAL_TEST(api_drain, pair_waits_for_its_answer)
{
    struct rig r;
    char text[6] = "";
    rig_open(&r, p, 1);
    int server = listen_upstream();
    listen_with(&r, &relaying, (struct gyre_conn_options){.user = NULL});
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener)), idle = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == 2);
    send_five(fd);
    int up = accept_upstream(server);
    cr_assert_eq(gyre_engine_drain(r.engine, &soon), 0);
    expect_eof(idle);
    cr_assert_eq(send(up, "world", 5, MSG_NOSIGNAL), 5);
    cr_assert_eq(rig_receive(fd, text, 5), 5, "%s", strerror(errno));
    cr_assert_eq(strcmp(text, "world"), 0);
    expect_eof(fd);
    expect_eof(up);
    rig_join(&r);
    (void)close(server);
    rig_close(&r);
}

static void note_told(struct gyre_conn *c)
{
    (void)c;
    atomic_fetch_add(&told, 1);
}

/* A request that comes while the engine drains needs a connection to be answered. */
REAL_TEST(api_drain, connects_meanwhile)
{
    struct rig r;
    char text[6] = "";
    rig_open(&r, p, 1);
    int server = listen_upstream();
    listen_with(&r, &relaying, (struct gyre_conn_options){.on_drain_begin = note_told});
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == 1);
    cr_assert_eq(gyre_engine_drain(r.engine, &soon), 0);
    await(atomic_load(&told) == 1);
    send_five(fd);
    int up = accept_upstream(server);
    cr_assert_eq(send(up, "world", 5, MSG_NOSIGNAL), 5);
    cr_assert_eq(rig_receive(fd, text, 5), 5, "%s", strerror(errno));
    cr_assert_eq(strcmp(text, "world"), 0);
    expect_eof(up);
    (void)close(fd);
    rig_join(&r);
    (void)close(server);
    rig_close(&r);
}

/* ---- options ---- */

REAL_TEST(api_drain, refused_options)
{
    struct rig r;
    rig_open(&r, p, 1);
    cr_assert_eq(gyre_engine_drain(NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = -1}), GYRE_EOPTION);
    cr_assert(strstr(gyre_last_option_error(), "deadline_ns") != NULL, "%s", gyre_last_option_error());
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.spread_ns = -1}), GYRE_EOPTION);
    cr_assert_eq(gyre_engine_drain(r.engine, &(struct gyre_drain_options){.quiet_ns = -1}), GYRE_EOPTION);
    cr_assert_not(gyre_engine_is_draining(r.engine));
    cr_assert_eq(gyre_engine_drain(r.engine, NULL), 0);
    cr_assert_eq(gyre_engine_run(r.engine), 0, "a drain before the engine runs");
    rig_close(&r);
}
