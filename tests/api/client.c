/* SPDX-License-Identifier: MIT
 * Engines as clients: without a listener, connecting for any thread, on the loop of a given connection, while they
 * stop. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPS = 4, THREADS = 4, EACH = 50 };

/* What `done` told, and what the connections did. */
struct calls {
    _Atomic(unsigned) done, failed, opens, closes, bytes, elsewhere;
    _Atomic(int) last_err;
    const char *address;
    struct gyre_engine *engine;
};

static struct calls *calls;

static void on_connected(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user)
{
    struct calls *k = user;
    cr_assert_eq(c != NULL, err == 0, "%s", gyre_err_name(err));
    if (c != NULL) {
        cr_assert_eq(gyre_conn_loop(c), loop);
        cr_assert(gyre_loop_is_current(loop));
        cr_assert_eq(gyre_conn_write(c, "hello", 5), 0);
    }
    atomic_store(&k->last_err, err);
    atomic_fetch_add(&k->failed, err != 0);
    atomic_fetch_add(&k->done, 1);
}

static void on_open(struct gyre_conn *c)
{
    cr_assert_null(gyre_conn_listener(c));
    atomic_fetch_add(&calls->opens, 1);
}

/* Whoever has its answer closes. */
static void on_data(struct gyre_conn *c)
{
    char data[6] = "";
    if (gyre_conn_inbound(c) < 5)
        return;
    cr_assert_eq(gyre_conn_read(data, sizeof data, c), 5);
    cr_assert_str_eq(data, "hello");
    atomic_fetch_add(&calls->bytes, 5);
    cr_assert_eq(gyre_conn_close(c), 0);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)c;
    atomic_store(&calls->last_err, err);
    atomic_fetch_add(&calls->closes, 1);
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static int call(struct calls *k)
{
    return gyre_engine_connect(k->engine, k->address, &handlers, on_connected, k, NULL);
}

static void *call_often(void *arg)
{
    for (unsigned i = 0; i < EACH; i++)
        cr_assert_eq(call(arg), 0);
    return NULL;
}

/* Many threads connect to TCP and to unix; each connection is told of once, opens, has its answer and closes. */
REAL_TEST(api_client, from_many_threads)
{
    for (int local = 0; local < 2; local++) {
        struct rig r;
        struct calls k = {.done = 0};
        pthread_t threads[THREADS];
        char name[64];
        (void)snprintf(name, sizeof name, "unix://@gyre-client-%d-%s", (int)getpid(), p->backend);
        calls = &k;
        rig_open(&r, p, LOOPS);
        rig_listen(&r, local ? name : rig_tcp, NULL);
        rig_run(&r);
        k.engine = r.engine;
        k.address = gyre_listener_address(r.listener);
        for (unsigned i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, call_often, &k), 0);
        for (unsigned i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_join(threads[i], NULL), 0);
        await(k.closes == THREADS * EACH);
        cr_assert_eq(k.done, THREADS * EACH);
        cr_assert_eq(k.failed, 0);
        cr_assert_eq(k.opens, THREADS * EACH);
        cr_assert_eq(k.bytes, THREADS * EACH * 5);
        rig_stop(&r);
    }
}

/* An engine that only connects: nothing listens in it, it serves its connections and ends like any other. */
REAL_TEST(api_client, without_a_listener)
{
    struct rig server, client;
    struct calls k = {.done = 0};
    calls = &k;
    rig_open(&server, p, 1);
    rig_listen(&server, rig_tcp, NULL);
    rig_run(&server);
    k.address = gyre_listener_address(server.listener);
    rig_open(&client, p, 2);
    k.engine = client.engine;
    for (unsigned i = 0; i < 20; i++) /* before it runs: they wait */
        cr_assert_eq(call(&k), 0);
    cr_assert_eq(k.done, 0);
    rig_run(&client);
    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(call(&k), 0);
    await(k.closes == 40);
    cr_assert_eq(k.failed, 0);
    (void)gyre_engine_drain(client.engine, &(struct gyre_drain_options){.deadline_ns = MS(5000)});
    rig_join(&client);
    rig_close(&client);
    rig = &server;
    rig_stop(&server);
}

/* ---- on the loop of a given connection ---- */

/* A proxy's two halves: what one receives the other sends. */
static void pair_data(struct gyre_conn *c)
{
    struct gyre_conn *other = gyre_conn_user(c);
    if (other != NULL)
        cr_assert_geq(gyre_conn_forward(c, other, SIZE_MAX), 0);
}

static void pair_close(struct gyre_conn *c, int err)
{
    struct gyre_conn *other = gyre_conn_user(c);
    (void)err;
    if (other != NULL) {
        gyre_conn_set_user(other, NULL);
        (void)gyre_conn_close(other);
    }
    atomic_fetch_add(&calls->closes, 1);
}

static void pair_open(struct gyre_conn *c)
{
    static const struct gyre_conn_handlers up = {.on_data = pair_data, .on_close = pair_close};
    struct gyre_conn_options options = {.user = c};
    struct gyre_conn *other = NULL;
    cr_assert_eq(gyre_connect(&other, gyre_conn_loop(c), calls->address, &up, &options), 0);
    cr_assert_eq(gyre_conn_loop(other), gyre_conn_loop(c));
    gyre_conn_set_user(c, other);
    atomic_fetch_add(&calls->opens, 1);
    for (uint32_t i = 1; i < gyre_engine_loop_count(calls->engine); i++)
        atomic_fetch_add(&calls->elsewhere, gyre_conn_loop(c) == gyre_engine_loop(calls->engine, i));
}

REAL_TEST(api_client, beside_a_given_connection)
{
    static const struct gyre_conn_handlers down = {
        .on_open = pair_open, .on_data = pair_data, .on_close = pair_close};
    struct rig server, proxy;
    struct calls k = {.done = 0};
    struct gyre_listener *l;
    struct gyre_listener_options options = {.balance = GYRE_BALANCE_ROUND_ROBIN};
    int fds[8];
    calls = &k;
    rig_open(&server, p, 1);
    rig_listen(&server, rig_tcp, NULL);
    rig_run(&server);
    k.address = gyre_listener_address(server.listener);
    rig_open(&proxy, p, LOOPS);
    k.engine = proxy.engine;
    cr_assert_eq(gyre_engine_listen(&l, proxy.engine, rig_tcp, &down, &options), 0);
    rig_run(&proxy);
    for (unsigned i = 0; i < 8; i++) {
        fds[i] = rig_client(gyre_listener_address(l));
        rig_ping(fds[i]);
    }
    cr_assert_eq(k.opens, 8);
    cr_assert_eq(k.elsewhere, 6, "the connections are not on all loops");
    for (unsigned i = 0; i < 8; i++)
        (void)close(fds[i]);
    await(k.closes == 16);
    gyre_engine_stop(proxy.engine);
    rig_join(&proxy);
    rig_close(&proxy);
    rig = &server;
    rig_stop(&server);
}

/* ---- the end ---- */

/* An engine that never runs tells of its connects when it is destroyed. */
REAL_TEST(api_client, never_run)
{
    struct rig r;
    struct calls k = {.address = "tcp://127.0.0.1:1"};
    rig_open(&r, p, 2);
    k.engine = r.engine;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(call(&k), 0);
    cr_assert_eq(gyre_engine_connect(r.engine, k.address, &handlers, NULL, NULL, NULL), 0); /* nobody to tell */
    rig_close(&r);
    cr_assert_eq(k.done, 5);
    cr_assert_eq(k.failed, 5);
    cr_assert_eq(k.last_err, GYRE_ESHUTDOWN);
}

/* Stopped or drained with connects on their way, and still connecting: each is told of once, and what began closes. */
REAL_TEST(api_client, stopped_meanwhile)
{
    for (int how = 0; how < 6; how++) {
        struct rig r;
        struct calls k = {.done = 0};
        calls = &k;
        rig_open(&r, p, 2);
        rig_listen(&r, rig_tcp, NULL);
        rig_run(&r);
        k.engine = r.engine;
        k.address = gyre_listener_address(r.listener);
        for (unsigned i = 0; i < 40; i++) {
            if (i == 20 && how % 2 == 0)
                gyre_engine_stop(r.engine);
            if (i == 20 && how % 2 == 1)
                (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(5000)});
            cr_assert_eq(call(&k), 0);
        }
        rig_join(&r);
        rig_close(&r);
        cr_assert_eq(k.done, 40, "%u of 40 were told of", k.done);
        cr_assert_eq(k.closes, 40 - k.failed);
        cr_assert_leq(k.opens, k.closes);
    }
}

static int refuse_socket(int fd, enum gyre_socket_purpose purpose, void *user)
{
    (void)fd, (void)purpose, (void)user;
    return -EACCES;
}

static void do_nothing(struct gyre_loop *loop, void *user)
{
    (void)loop, (void)user;
}

/* Whatever keeps a connect from becoming a connection, its place on the loop is free again. */
REAL_TEST(api_client, failed_takes_no_place)
{
    const struct gyre_conn_options wrong = {.on_socket = refuse_socket};
    struct rig r;
    struct calls k = {.done = 0};
    int err;
    calls = &k;
    rig_open_limited(&r, p, 1, 1, 0);
    k.engine = r.engine;
    k.address = "tcp://127.0.0.1:1";
    while ((err = gyre_loop_post(gyre_engine_loop(r.engine, 0), do_nothing, NULL)) == 0)
        ;
    cr_assert_eq(err, -EAGAIN);
    cr_assert_eq(call(&k), -EAGAIN, "there is room for no task");
    rig_run(&r);
    for (unsigned i = 1; i <= 3; i++) {
        err = gyre_engine_connect(r.engine, k.address, &handlers, on_connected, &k, &wrong);
        while (err == -EAGAIN) /* until the first tasks have run */
            err = gyre_engine_connect(r.engine, k.address, &handlers, on_connected, &k, &wrong);
        cr_assert_eq(err, 0, "%s", gyre_err_name(err));
        await(k.done == i);
        cr_assert_eq(k.last_err, -EACCES);
    }
    rig_stop(&r);
}

/* What cannot be is said at once: `done` does not come. */
REAL_TEST(api_client, errors)
{
    static const char *const bad[] = {"", "tcp://no where:1", "udp://127.0.0.1:9", "unix:/x", "tcp://127.0.0.1:66000"};
    struct rig r;
    struct calls k = {.done = 0};
    const struct gyre_conn_options wrong = {.idle_timeout_ns = -1};
    rig_open(&r, p, 1);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(gyre_engine_connect(r.engine, bad[i], &handlers, on_connected, &k, NULL), GYRE_EADDRESS, "%s",
                     bad[i]);
    cr_assert_eq(gyre_engine_connect(r.engine, "unix://", &handlers, on_connected, &k, NULL), GYRE_EPATHLEN);
    cr_assert_eq(gyre_engine_connect(r.engine, "tcp://127.0.0.1:1", &handlers, on_connected, &k, &wrong),
                 GYRE_EOPTION);
    cr_assert_eq(gyre_engine_connect(r.engine, "tcp://127.0.0.1:1", NULL, on_connected, &k, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_engine_connect(r.engine, NULL, &handlers, on_connected, &k, NULL), -EINVAL);
    rig_close(&r);
    cr_assert_eq(k.done, 0);
}
