/* SPDX-License-Identifier: MIT
 * The engine: several loops, how connections are spread over them, stopping and draining. It runs on a thread of its
 * own (or, where signals matter, on the test's); clients are plain blocking sockets. */
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* 1, 2 and 4 loops serve, all on the same backend, and stop when told from another thread. */
REAL_TEST(api_engine, serves)
{
    for (uint32_t loops = 1; loops <= 4; loops *= 2) {
        struct rig r;
        int fds[40];
        struct gyre_backend_report report;
        rig_open(&r, p, loops);
        rig_listen(&r, rig_tcp, NULL);
        for (uint32_t i = 0; i < loops; i++) {
            gyre_loop_backend(&report, gyre_engine_loop(r.engine, i));
            cr_assert_eq(strcmp(report.backend, p->backend), 0);
        }
        rig_run(&r);
        for (unsigned i = 0; i < 40; i++) {
            fds[i] = rig_client(gyre_listener_address(r.listener));
            rig_ping(fds[i]);
        }
        cr_assert_eq(rig_opened(&r), 40);
        cr_assert_eq(gyre_engine_conn_count(r.engine), 40);
        gyre_engine_stop(r.engine);
        rig_join(&r);
        cr_assert_eq(r.closes, 40);
        cr_assert_eq(r.last_err, GYRE_ESHUTDOWN);
        for (unsigned i = 0; i < 40; i++)
            (void)close(fds[i]);
        cr_assert_eq(gyre_engine_run(r.engine), GYRE_ESTATE, "it runs once");
        rig_close(&r);
    }
}

/* Stopping from on_boot, before anything was served. */
REAL_TEST(api_engine, stop_in_on_boot)
{
    struct rig r;
    rig_open(&r, p, 2);
    r.stop_in_boot = true;
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    rig_join(&r);
    rig_close(&r);
}

/* Stopping before running: it returns at once, and destroying one that never ran leaves nothing. */
REAL_TEST(api_engine, stop_before_run)
{
    struct rig r;
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    gyre_engine_stop(r.engine);
    cr_assert_eq(gyre_engine_run(r.engine), 0);
    cr_assert_eq(r.shutdowns, 1);
    rig_close(&r);
    rig_open(&r, p, 4);
    rig_listen(&r, rig_tcp, NULL);
    rig_close(&r);
}

static void on_signal(int number)
{
    (void)number;
    gyre_engine_stop(rig->engine);
}

static void *send_signal(void *arg)
{
    struct rig *r = arg;
    while (atomic_load(&r->boots) == 0)
        (void)poll(NULL, 0, 1);
    (void)kill(getpid(), SIGTERM);
    return NULL;
}

/* A signal handler stops it. */
REAL_TEST(api_engine, stop_from_signal)
{
    struct rig r;
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_signal};
    rig_open(&r, p, 2);
    cr_assert_eq(sigaction(SIGTERM, &action, NULL), 0);
    cr_assert_eq(pthread_create(&thread, NULL, send_signal, &r), 0);
    cr_assert_eq(gyre_engine_run(r.engine), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    rig_close(&r);
}

/* A thousand connections open: each gets on_close with GYRE_ESHUTDOWN before on_shutdown. */
REAL_TEST(api_engine, stop_with_a_thousand)
{
    enum { COUNT = 1000 };
    struct rig r;
    static int fds[COUNT];
    struct rlimit limit;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    for (unsigned i = 0; i < COUNT; i++)
        fds[i] = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == COUNT);
    gyre_engine_stop(r.engine);
    rig_join(&r);
    cr_assert_eq(r.closes, COUNT);
    cr_assert_eq(r.last_err, GYRE_ESHUTDOWN);
    for (unsigned i = 0; i < COUNT; i++)
        (void)close(fds[i]);
    rig_close(&r);
}

static _Atomic(int) drain_reason;

static void note_close(struct gyre_conn *c, int err)
{
    atomic_store(&drain_reason, (int)gyre_conn_close_reason(c));
    rig_on_close(c, err);
}

static void fill(struct gyre_conn *c)
{
    static uint8_t data[8 << 20];
    env_pattern_fill(data, sizeof data, 1, 0);
    rig_on_open(c);
    cr_assert_eq(gyre_conn_write(c, data, sizeof data), 0);
}

static const struct gyre_conn_handlers filling = {.on_open = fill, .on_data = rig_on_data, .on_close = note_close};
static void do_nothing(struct gyre_conn *c)
{
    (void)c;
}
static const struct gyre_conn_handlers filling_half = {
    .on_open = fill, .on_data = rig_on_data, .on_eof = do_nothing, .on_close = note_close};

static uint64_t read_all(int fd)
{
    static uint8_t data[65536];
    uint64_t got = 0;
    ssize_t n;
    while ((n = recv(fd, data, sizeof data, 0)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0)
            continue; /* a receive with a time limit is not restarted (signal(7)) */
        cr_assert_eq(env_pattern_check(data, (size_t)n, 1, got), -1);
        got += (uint64_t)n;
    }
    cr_assert_eq(n, 0, "after %llu bytes: %s", (unsigned long long)got, strerror(errno));
    return got;
}

static void drain_with(const struct backend_param *p, const struct gyre_conn_handlers *h, bool half_close)
{
    struct rig r;
    rig_open(&r, p, 2);
    struct gyre_listener_options options = {.backlog = 0};
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, h, &options), 0);
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == 1);
    if (half_close)
        cr_assert_eq(shutdown(fd, SHUT_WR), 0);
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(9000)});
    cr_assert_eq(read_all(fd), MIB(8));
    (void)close(fd);
    rig_join(&r);
    cr_assert_eq(r.closes, 1);
    cr_assert_eq(r.last_err, 0);
    cr_assert_eq(drain_reason, half_close && h->on_eof == NULL ? drain_reason : GYRE_CLOSE_SHUTDOWN);
    rig_close(&r);
}

/* Draining sends what is queued before it ends. */
REAL_TEST(api_engine, drain_delivers)
{
    drain_with(p, &filling, false);
}

/* Also to a peer that has closed its half of the connection and only reads. */
REAL_TEST(api_engine, drain_delivers_after_eof)
{
    drain_with(p, &filling_half, true);
}

/* Draining closes idle connections, and accepts no more. */
REAL_TEST(api_engine, drain_closes_idle)
{
    struct rig r;
    int fds[20];
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    for (unsigned i = 0; i < 20; i++) {
        fds[i] = rig_client(gyre_listener_address(r.listener));
        rig_ping(fds[i]);
    }
    uint64_t start_ns = env_now_ns();
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(9000)});
    for (unsigned i = 0; i < 20; i++) {
        char byte;
        cr_assert_eq(rig_receive(fds[i], &byte, 1), 0, "%s", strerror(errno));
        (void)close(fds[i]);
    }
    rig_join(&r);
    cr_assert_lt(env_now_ns() - start_ns, (uint64_t)MS(5000));
    cr_assert_eq(r.closes, 20);
    cr_assert_eq(r.last_err, 0);
    rig_close(&r);
}

/* The deadline cuts off a peer that never reads. */
REAL_TEST(api_engine, drain_deadline)
{
    struct rig r;
    rig_open(&r, p, 2);
    struct gyre_listener_options options = {.backlog = 0};
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &filling, &options), 0);
    rig_run(&r);
    int fd = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == 1);
    uint64_t start_ns = env_now_ns();
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(150)});
    rig_join(&r);
    cr_assert_geq(env_now_ns() - start_ns, (uint64_t)MS(149));
    cr_assert_lt(env_now_ns() - start_ns, (uint64_t)MS(5000));
    cr_assert_eq(r.closes, 1);
    cr_assert_eq(r.last_err, GYRE_ESHUTDOWN);
    (void)close(fd);
    rig_close(&r);
}

/* If one of several sockets cannot be made, listening fails and nothing stays open, at once. */
REAL_TEST(api_engine, listen_fails_half_way)
{
    struct rig r;
    struct rlimit limit, before;
    rig_open(&r, p, 4);
    (void)getrlimit(RLIMIT_NOFILE, &before);
    int fds = env_fd_count();
    limit = before;
    int highest = dup(0);
    (void)close(highest);
    limit.rlim_cur = (rlim_t)highest + 2; /* two more */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int err = gyre_engine_listen(NULL, r.engine, rig_tcp, &rig_handlers, NULL);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_assert_eq(err, -EMFILE, "%s", gyre_err_name(err));
    cr_assert_eq(env_fd_count(), fds, "sockets stay open after an error");
    rig_close(&r);
}

/* Options out of range. */
REAL_TEST(api_engine, bad_options)
{
    struct gyre_engine *engine = NULL;
    struct gyre_loop_options loop = {.backend = p->backend};
    struct gyre_engine_options many = {.loops = 1025, .loop = loop};
    cr_assert_eq(gyre_engine_create(&engine, &many), GYRE_EOPTION);
    struct gyre_loop_options bad = {.backend = p->backend, .buf_size_bytes = 1};
    cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.loop = bad}), GYRE_EOPTION);
    struct {
        struct gyre_engine_options options;
        uint64_t more; /* of the nested options, which are last */
    } larger = {.options = {.loop = loop}, .more = 1};
    const size_t loop_size = sizeof larger - offsetof(struct gyre_engine_options, loop);
    cr_assert_eq(gyre_engine_create_sized(&engine, &larger.options, sizeof larger, loop_size), -E2BIG);
    cr_assert_null(engine);
    larger.more = 0;
    int err = gyre_engine_create_sized(&engine, &larger.options, sizeof larger, loop_size);
    if (err == 0)
        gyre_engine_destroy(engine);
    gyre_engine_destroy(NULL);
}

struct numbers {
    _Atomic(unsigned) right;
    char marks[4];
};

static void number(struct gyre_loop *loop, void *user)
{
    struct numbers *n = user;
    uint32_t index = gyre_loop_index(loop);
    bool right = index < sizeof n->marks && gyre_loop_user(loop) == n; /* the options' */
    right = right && gyre_loop_set_user(loop, &n->marks[index]) == 0 && gyre_loop_user(loop) == &n->marks[index];
    atomic_fetch_add(&n->right, right);
}

static void stop_engine(struct gyre_engine *engine, void *user)
{
    (void)user;
    gyre_engine_stop(engine);
}

/* Loops tell themselves apart: each has its index, and a pointer of its own once that is set. */
REAL_TEST(api_engine, loops_of_their_own)
{
    struct numbers n = {.right = 0};
    struct gyre_engine *engine;
    const struct gyre_engine_options options = {.loops = sizeof n.marks, .loop = {.backend = p->backend, .user = &n}};
    struct rig r;
    rig_open(&r, p, 1); /* or skips the test */
    rig_close(&r);
    cr_assert_eq(gyre_engine_create(&engine, &options), 0);
    cr_assert_eq(gyre_engine_post_all(engine, number, stop_engine, &n), 0);
    cr_assert_eq(gyre_engine_run(engine), 0);
    cr_assert_eq(n.right, sizeof n.marks);
    for (uint32_t i = 0; i < sizeof n.marks; i++)
        cr_assert_eq(gyre_loop_user(gyre_engine_loop(engine, i)), &n.marks[i]);
    gyre_engine_destroy(engine);
}
