/* SPDX-License-Identifier: MIT
 * What is asked of an engine that runs, without memory: a task on every loop, a walk, a broadcast, delayed tasks, its
 * pool, closing by name, listeners that come and go; and its ticker and its counters, which need none.
 *
 * The test asks from outside, first while the N-th call for memory is refused, once or for good, then with memory. A
 * call that says -ENOMEM did nothing; one that says 0 is told of, once. The engine's threads ask for memory too, so the
 * order of calls varies. */
#include "refused.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <gyre/stats.h>
#include <gyre/work.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPS = 2, CLIENTS = 4, N_MAX = 400, UNTOUCHED = 5, PATIENCE_S = 20 };

struct show {
    struct fault_mem mem;
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    pthread_t thread;
    int result;
    char where[96];
    bool over; /* there is memory again */
    int clients[CLIENTS];
    struct gyre_conn_id ids[CLIENTS];
    atomic_uint opens, closes, ticks, told, wanted, listener_closed;
    atomic_int offload_err;
    struct gyre_broadcast_result cast;
};

static struct show sh;

static void await_told(void)
{
    uint64_t end_ns = env_now_ns() + UINT64_C(1000000000) * PATIENCE_S;
    while (atomic_load(&sh.told) != atomic_load(&sh.wanted)) {
        cr_assert(env_now_ns() < end_ns, "%s: told %u times of %u calls", sh.where, atomic_load(&sh.told),
                  atomic_load(&sh.wanted));
        (void)poll(NULL, 0, 1);
    }
}

/* `err` of a call that is told of later, if it is 0: wait for that. */
static bool accepted(const char *what, int err)
{
    bool allowed = err == 0 || (err == -ENOMEM && !sh.over && fault_mem_struck(&sh.mem));
    cr_assert(allowed, "%s: %s says %s", sh.where, what, gyre_err_name(err));
    if (err == 0)
        await_told();
    else
        atomic_store(&sh.wanted, atomic_load(&sh.told));
    return err == 0;
}

static void told(void)
{
    atomic_fetch_add(&sh.told, 1);
}

/* So many calls of told() follow if the call that comes now is accepted. */
static void expect(unsigned count)
{
    atomic_fetch_add(&sh.wanted, count);
}

/* ---- what is called ---- */

static void task(struct gyre_loop *loop, void *user)
{
    cr_assert(user == &sh && gyre_loop_is_current(loop));
    told();
}

static void all_done(struct gyre_engine *engine, void *user)
{
    cr_assert(user == &sh && engine == sh.engine);
    told();
}

static bool see(struct gyre_conn *c, void *user)
{
    cr_assert(user == &sh && gyre_loop_is_current(gyre_conn_loop(c)));
    return true;
}

static void on_cast(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user)
{
    all_done(engine, user);
    sh.cast = *result;
}

static int work(struct gyre_work *w, void *user)
{
    (void)w;
    (void)user;
    return 5;
}

static void worked(struct gyre_loop *loop, int result, void *user)
{
    cr_assert_eq(result, 5);
    task(loop, user);
}

static void offload(struct gyre_loop *loop, void *user)
{
    int err = gyre_engine_offload(sh.engine, work, worked, user);
    (void)loop;
    atomic_store(&sh.offload_err, err);
    if (err != 0)
        told();
}

static void on_closed_then(int err, void *user)
{
    atomic_int *to = user;
    atomic_store(to, err);
    told();
}

static void on_listener_closed(void *user)
{
    cr_assert_eq(user, &sh);
    atomic_fetch_add(&sh.listener_closed, 1);
    told();
}

static int64_t on_tick(struct gyre_engine *engine, struct gyre_loop *loop)
{
    (void)engine;
    (void)loop;
    atomic_fetch_add(&sh.ticks, 1);
    return 1000000;
}

static void on_open(struct gyre_conn *c)
{
    unsigned n = atomic_fetch_add(&sh.opens, 1);
    if (n < CLIENTS)
        sh.ids[n] = gyre_conn_id_of(c);
}

static void on_data(struct gyre_conn *c)
{
    if (gyre_conn_forward(c, c, SIZE_MAX) < 0)
        (void)gyre_conn_abort(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)c;
    (void)err;
    atomic_fetch_add(&sh.closes, 1);
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

/* ---- what is asked ---- */

static void ask_everywhere(void)
{
    expect(LOOPS + 1);
    (void)accepted("post_all", gyre_engine_post_all(sh.engine, task, all_done, &sh));
    expect(1);
    (void)accepted("each_conn", gyre_engine_each_conn(sh.engine, see, all_done, &sh));
    const struct gyre_broadcast_options options = {.done = on_cast, .user = &sh, .slow = GYRE_SLOW_QUEUE};
    expect(1);
    if (accepted("broadcast", gyre_engine_broadcast(sh.engine, "hello", 5, &options))) {
        cr_assert_eq(sh.cast.skipped + sh.cast.aborted, 0);
        cr_assert(sh.cast.failed == 0 || !sh.over, "%s: a broadcast fails though there is memory", sh.where);
    }
}

static void ask_one_loop(void)
{
    struct gyre_loop *loop = gyre_engine_loop(sh.engine, 1);
    struct gyre_pool *pool = NULL;
    expect(1);
    (void)accepted("post_after", gyre_loop_post_after(loop, 1000000, task, &sh));
    int err = gyre_engine_pool(&pool, sh.engine);
    (void)accepted("engine_pool", err);
    cr_assert_eq(pool != NULL, err == 0);
    if (pool != NULL) {
        expect(1);
        cr_assert(accepted("submit", gyre_pool_submit(NULL, pool, loop, work, worked, &sh)));
    }
    expect(1);
    if (accepted("post", gyre_loop_post(loop, offload, &sh)))
        (void)accepted("offload", atomic_load(&sh.offload_err));
}

static void ask_by_name(unsigned i)
{
    atomic_int err = 1;
    expect(1);
    int said = gyre_conn_id_close_then(sh.ids[i], on_closed_then, &err);
    (void)close(sh.clients[i]); /* else the end waits for it */
    sh.clients[i] = -1;
    if (accepted("close_then", said))
        cr_assert(atomic_load(&err) != -ENOMEM || !sh.over, "%s: no memory to close with", sh.where);
}

static void ping(const char *address)
{
    char byte = 'x';
    int fd = client_connect(address);
    cr_assert_geq(fd, 0);
    (void)send(fd, &byte, 1, MSG_NOSIGNAL);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, PATIENCE_S * 1000), 1, "%s: a client is neither served nor closed", sh.where);
    ssize_t n = recv(fd, &byte, 1, 0);
    cr_assert(n == 1 || !sh.over, "%s: a client is not served though there is memory", sh.where);
    (void)close(fd);
}

static void ask_for_listeners(void)
{
    const struct gyre_listener_options options = {
        .balance = GYRE_BALANCE_ROUND_ROBIN, .on_closed = on_listener_closed, .user = &sh};
    struct gyre_listener *listener = NULL;
    unsigned closed = atomic_load(&sh.listener_closed);
    int err = gyre_engine_listen(&listener, sh.engine, "tcp://127.0.0.1:0", &handlers, &options);
    if (accepted("listen", err)) {
        cr_assert_eq(gyre_listener_pause(listener), 0);
        cr_assert_eq(gyre_listener_resume(listener), 0);
        ping(gyre_listener_address(listener));
        int fd = gyre_listener_dup_fd(listener, 0);
        cr_assert_geq(fd, 0);
        expect(1);
        gyre_listener_close(listener);
        await_told();
        err = gyre_engine_listen_fd(&listener, sh.engine, fd, &handlers, &options);
        if (accepted("listen_fd", err)) {
            ping(gyre_listener_address(listener));
            expect(1);
            gyre_listener_close(listener);
            await_told();
        } else {
            cr_assert_geq(fcntl(fd, F_GETFD), 0, "%s: the descriptor is gone", sh.where);
            (void)close(fd);
        }
    } else {
        cr_assert_null(listener);
    }
    cr_assert(!sh.over || atomic_load(&sh.listener_closed) == closed + 2);
}

static void look_at_counters(void)
{
    static char text[1 << 16];
    struct gyre_stats stats;
    gyre_engine_stats(&stats, sh.engine);
    int64_t len = gyre_engine_prometheus(text, sizeof text, sh.engine, NULL, 0);
    cr_assert(len > 0 && (size_t)len < sizeof text && strlen(text) == (size_t)len);
    unsigned ticks = atomic_load(&sh.ticks);
    uint64_t end_ns = env_now_ns() + UINT64_C(1000000000) * PATIENCE_S;
    while (atomic_load(&sh.ticks) < ticks + 2 * LOOPS) {
        cr_assert(env_now_ns() < end_ns, "%s: the engine does not tick", sh.where);
        (void)poll(NULL, 0, 1);
    }
}

/* ---- one time ---- */

static void *run(void *arg)
{
    (void)arg;
    sh.result = gyre_engine_run(sh.engine);
    return NULL;
}

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    (void)level;
    (void)text;
}

static void start(const char *backend)
{
    static const struct gyre_engine_handlers engine_handlers = {.on_tick = on_tick};
    static const struct gyre_log silent = {.line = no_line};
    const struct gyre_loop_options loop = {.backend = backend, .mem = &sh.mem.mem, .log = &silent};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &engine_handlers, .loop = loop};
    const struct gyre_listener_options listening = {.balance = GYRE_BALANCE_ROUND_ROBIN};
    cr_assert_eq(gyre_engine_create(&sh.engine, &options), 0);
    cr_assert_eq(gyre_engine_listen(&sh.listener, sh.engine, "tcp://127.0.0.1:0", &handlers, &listening), 0);
    cr_assert_eq(pthread_create(&sh.thread, NULL, run, NULL), 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        sh.clients[i] = client_connect(gyre_listener_address(sh.listener));
        cr_assert_geq(sh.clients[i], 0);
        uint64_t end_ns = env_now_ns() + UINT64_C(1000000000) * PATIENCE_S;
        while (atomic_load(&sh.opens) <= i)
            cr_assert(poll(NULL, 0, 1) == 0 && env_now_ns() < end_ns, "a client is not accepted");
    }
}

static void ask_all(unsigned i)
{
    ask_everywhere();
    ask_one_loop();
    ask_for_listeners();
    ask_by_name(i);
    ping(gyre_listener_address(sh.listener));
    look_at_counters();
}

/* Returns whether a call was refused. */
static bool play(const char *backend, long n, enum fault_mode mode)
{
    int fds = open_descriptors();
    sh = (struct show){.result = 0};
    fault_mem_init(&sh.mem, 0, mode);
    (void)snprintf(sh.where, sizeof sh.where, "%s: call %ld refused %s", backend, n,
                   mode == FAULT_ONCE ? "once" : "for good");
    start(backend);
    fault_mem_arm(&sh.mem, n);
    ask_all(0);
    bool struck = fault_mem_struck(&sh.mem);
    fault_mem_arm(&sh.mem, 0);
    sh.over = true;
    ask_all(1);
    gyre_engine_stop(sh.engine);
    (void)pthread_join(sh.thread, NULL);
    cr_assert_eq(sh.result, 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        if (sh.clients[i] >= 0)
            (void)close(sh.clients[i]);
    gyre_engine_destroy(sh.engine);
    cr_assert_eq(atomic_load(&sh.opens), atomic_load(&sh.closes), "%s: an on_close is missing", sh.where);
    cr_assert_eq(atomic_load(&sh.told), atomic_load(&sh.wanted), "%s: told twice", sh.where);
    long blocks = atomic_load(&sh.mem.counted.blocks);
    cr_assert_eq(blocks, 0, "%s: %ld blocks left", sh.where, blocks);
    cr_assert_eq(open_descriptors(), fds, "%s: descriptors left", sh.where);
    return struck;
}

static void play_each(const struct backend_param *p, enum fault_mode mode)
{
    unsigned untouched = 0;
    refused_need(p);
    cr_assert_not(play(p->backend, 0, mode));
    long n = 1;
    for (; untouched < UNTOUCHED; n++) {
        cr_assert_lt(n, N_MAX);
        untouched = play(p->backend, n, mode) ? 0 : untouched + 1;
    }
    cr_assert_gt(n, 15, "asks for memory no more than %ld times", n);
}

REAL_TEST(refused_engine, once)
{
    play_each(p, FAULT_ONCE);
}

REAL_TEST(refused_engine, for_good)
{
    play_each(p, FAULT_FOREVER);
}

/* Counters and their text ask for no memory at all. */
REAL_TEST(refused_engine, counters_need_none)
{
    static char text[1 << 16];
    struct gyre_stats stats;
    struct fault_mem mem;
    struct gyre_loop *loop;
    refused_need(p);
    fault_mem_init(&mem, 0, FAULT_FOREVER);
    const struct gyre_loop_options options = {.backend = p->backend, .mem = &mem.mem};
    cr_assert_eq(gyre_loop_create(&loop, &options), 0);
    fault_mem_arm(&mem, 1);
    gyre_loop_stats(&stats, loop);
    int64_t len = gyre_loop_prometheus(text, sizeof text, loop, &(struct gyre_label){"job", "test"}, 1);
    cr_assert(len > 0 && strstr(text, "job=\"test\"") != NULL);
    cr_assert_not(fault_mem_struck(&mem));
    gyre_loop_destroy(loop);
    cr_assert_eq(atomic_load(&mem.counted.blocks), 0);
}
