/* SPDX-License-Identifier: MIT
 * gyre_connect(): what it says at once, what on_close says later, and what is written before the connection stands. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <gyre/stats.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

/* A connection is made, opens, and bytes flow both ways. */
TRANSPORT_TEST(api_connect, success)
{
    struct api api;
    struct stage stage;
    struct peer peer;
    start(&api, p);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    cr_assert_eq(e->opens, 0, "on_open from inside gyre_connect");
    stage_accept(&stage, &peer, e);
    api_until(&api, e->opens == 1);
    end_put(e, 10000);
    peer_expect(&peer, 10000);
    peer_send(&peer, 20000);
    api_until(&api, e->got == 20000);
    struct sockaddr_storage addr;
    socklen_t len = 0;
    cr_assert_eq(gyre_conn_peer_address(&addr, &len, e->c), 0);
    cr_assert_eq(gyre_conn_local_address(&addr, &len, e->c), 0);
    cr_assert_eq(addr.ss_family, p->transport == TRANSPORT_TCP4 ? AF_INET : is_tcp(&api) ? AF_INET6 : AF_UNIX);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(api_stats(&api).connected, 1);
    stage_close(&stage);
    api_close(&api);
}

/* What is written before on_open is delivered, in order. */
TRANSPORT_TEST(api_connect, write_before_open)
{
    struct api api;
    struct stage stage;
    struct peer peer;
    start(&api, p);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    for (unsigned i = 0; i < 50; i++)
        end_put(e, 1000);
    cr_assert_eq(gyre_conn_outbound(e->c), 50000);
    stage_accept(&stage, &peer, e);
    peer_expect(&peer, 50000);
    peer_close(&peer);
    stage_close(&stage);
    api_close(&api);
}

/* Closing before it stands, with bytes queued: they are delivered all the same; on_open does not come. */
TRANSPORT_TEST(api_connect, close_while_connecting_with_bytes)
{
    struct api api;
    struct stage stage;
    struct peer peer;
    start(&api, p);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    end_put(e, 50000);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    stage_accept(&stage, &peer, e);
    peer_expect(&peer, 50000);
    peer_until_end(&peer);
    cr_assert(peer.eof, "%s", gyre_err_name(peer.err));
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->unsent, 0);
    stage_close(&stage);
    api_close(&api);
}

/* Closing or aborting before it stands, with nothing queued: on_close alone. */
TRANSPORT_TEST(api_connect, close_while_connecting)
{
    struct api api;
    struct stage stage;
    start(&api, p);
    stage_open(&api, &stage);
    for (unsigned i = 0; i < 20; i++) {
        struct end *e = api_connect(&api, stage.address, NULL, NULL);
        if (i % 2 == 0)
            cr_assert_eq(gyre_conn_close(e->c), 0);
        else
            cr_assert_eq(gyre_conn_abort(e->c), 0);
        cr_assert_eq(e->closes, 0);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->opens, 0);
        cr_assert_eq(e->reason, i % 2 == 0 ? GYRE_CLOSE_USER : GYRE_CLOSE_ABORT);
        cr_assert_eq(e->err, 0);
    }
    stage_close(&stage);
    api_close(&api);
}

/* Shutting down before it stands: FIN comes after what was queued, and the answer still arrives. */
BACKEND_TEST(api_connect, shutdown_while_connecting)
{
    struct api api;
    struct stage stage;
    struct peer peer;
    start(&api, p);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    end_put(e, 500);
    cr_assert_eq(gyre_conn_shutdown(e->c), 0);
    cr_assert_eq(end_try_put(e, 1), -EPIPE);
    stage_accept(&stage, &peer, e);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    cr_assert_eq(peer.got, 500);
    peer_send(&peer, 700);
    api_until(&api, e->got == 700);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
    stage_close(&stage);
    api_close(&api);
}

/* Nobody listens: on_close alone, -ECONNREFUSED (-ENOENT without a file); borrowed bytes are told of it. */
TRANSPORT_TEST(api_connect, refused)
{
    struct api api;
    struct stage stage;
    char address[160];
    start(&api, p);
    stage_open(&api, &stage);
    (void)snprintf(address, sizeof address, "%s", stage.address);
    stage_close(&stage);
    for (unsigned i = 0; i < 3; i++) {
        struct end *e = api_connect(&api, address, NULL, NULL);
        if (i == 1)
            end_put(e, 100);
        if (i == 2)
            cr_assert_eq(gyre_conn_write_ref(e->c, "x", 1, end_on_sent, e), 0);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->opens + e->datas + e->eofs, 0);
        cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
        cr_assert_eq(e->err, -ECONNREFUSED, "%s", gyre_err_name(e->err));
        cr_assert_eq(e->unsent, i == 0 ? 0 : i == 1 ? 100 : 1);
        cr_assert_eq(e->sent_errs, i == 2);
    }
    cr_assert_eq(gyre_loop_conn_count(api.loop), 0);
    api_close(&api);
}

/* A unix path where nothing is. */
BACKEND_TEST(api_connect, no_such_path)
{
    struct api api;
    char address[160];
    start(&api, p);
    (void)snprintf(address, sizeof address, "unix://%s/nothing-here", api.dir);
    struct end *e = api_connect(&api, address, NULL, NULL);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    cr_assert_eq(e->err, api.is_sim ? -ECONNREFUSED : -ENOENT, "%s", gyre_err_name(e->err));
    api_close(&api);
}

/* Nobody answers, because the listener's backlog is full: GYRE_ETIMEOUT in time. */
REAL_TEST(api_connect, time_limit)
{
    struct api api;
    struct stage stage;
    int fillers[4];
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    start(&api, p);
    stage_open(&api, &stage);
    cr_assert_eq(listen(stage.fd, 0), 0);
    cr_assert_eq(getsockname(stage.fd, (struct sockaddr *)&addr, &len), 0);
    for (unsigned i = 0; i < 4; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fillers[i], (struct sockaddr *)&addr, len);
    }
    struct gyre_conn_options options = {.connect_timeout_ns = MS(80)};
    uint64_t start_ns = env_now_ns();
    struct end *e = api_connect(&api, stage.address, NULL, &options);
    end_put(e, 10);
    api_until(&api, e->closes == 1);
    cr_assert_geq(env_now_ns() - start_ns, (uint64_t)MS(80));
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->opens, 0);
    /* Destroying the loop meanwhile ends one that is still at it. */
    e = api_connect(&api, stage.address, NULL, NULL);
    api_turn(&api);
    api_destroy_loop(&api);
    cr_assert_eq(e->closes, 1);
    cr_assert_eq(e->err, GYRE_ESHUTDOWN);
    for (unsigned i = 0; i < 4; i++)
        (void)close(fillers[i]);
    stage_close(&stage);
    api_close(&api);
}

/* Nobody can be reached there: told by on_close, with the network's own error. (A broadcast address is one that TCP has
 * no way to, and nothing leaves the machine.) */
BACKEND_TEST(api_connect, unreachable)
{
    const struct gyre_sim_options sim_options = {.seed = 5, .connect_unreachable_permille = 1000};
    struct api api;
    api_init(&api, p);
    api.sim_options = &sim_options;
    api_open(&api);
    static const char *const addresses[] = {"tcp://255.255.255.255:9", "tcp://224.0.0.1:9"};
    for (unsigned i = 0; i < 2; i++) {
        struct end *e = api_connect(&api, addresses[i], NULL, NULL);
        end_put(e, 100);
        cr_assert_eq(gyre_conn_write_ref(e->c, "x", 1, end_on_sent, e), 0);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->opens, 0);
        cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
        cr_assert_eq(e->err, api.is_sim ? -EHOSTUNREACH : -ENETUNREACH, "%s", gyre_err_name(e->err));
        cr_assert_eq(e->unsent, 101);
        cr_assert_eq(e->sents, 1);
        cr_assert_eq(e->sent_errs, 1, "bytes that never left were said to be sent");
    }
    cr_assert_eq(api_stats(&api).connect_errors, 2);
    api_close(&api);
}

/* The network gives up, or our limit passes before: on virtual time, where a network takes its seconds at once. */
Test(api_connect, time_limit_or_the_networks)
{
    const struct backend_param p = {.backend = "sim", .transport = TRANSPORT_TCP4};
    const struct gyre_sim_options sim_options = {.seed = 5, .connect_timeout_permille = 1000};
    struct api api;
    struct stage stage;
    api_init(&api, &p);
    api.sim_options = &sim_options;
    api_open(&api);
    stage_open(&api, &stage);
    for (unsigned i = 0; i < 10; i++) {
        struct gyre_conn_options options = {.connect_timeout_ns = i % 2 == 0 ? MS(900) : MS(60000)};
        uint64_t start_ns = api_now_ns(&api);
        struct end *e = api_connect(&api, stage.address, NULL, &options);
        api_until(&api, e->closes == 1);
        uint64_t took_ns = api_now_ns(&api) - start_ns;
        cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
        cr_assert_eq(e->err, i % 2 == 0 ? GYRE_ETIMEOUT : -ETIMEDOUT, "%s", gyre_err_name(e->err));
        cr_assert_geq(took_ns, (uint64_t)MS(i % 2 == 0 ? 900 : 1000));
        cr_assert_leq(took_ns, (uint64_t)MS(i % 2 == 0 ? 1000 : 20000));
        cr_assert_eq(e->opens, 0);
    }
    stage_close(&stage);
    api_close(&api);
}

static void must_not_be_called(struct end *e)
{
    (void)e;
    cr_assert_fail("a callback after an error");
}

/* What cannot be an address is said at once, each error as documented, and nothing is called or left open. */
BACKEND_TEST(api_connect, bad_arguments)
{
    static const struct {
        const char *address;
        int err;
    } bad[] = {
        {"", GYRE_EADDRESS},
        {"127.0.0.1:80", GYRE_EADDRESS},
        {"tcp://", GYRE_EADDRESS},
        {"tcp://127.0.0.1", GYRE_EADDRESS},
        {"tcp://127.0.0.1:", GYRE_EADDRESS},
        {"tcp://127.0.0.1:65536", GYRE_EADDRESS},
        {"tcp://127.0.0.1:-1", GYRE_EADDRESS},
        {"tcp://127.0.0.1:80x", GYRE_EADDRESS},
        {"tcp://127.0.0.1:+80", GYRE_EADDRESS},
        {"tcp://127.0.0.1: 80", GYRE_EADDRESS},
        {"tcp://127.0.0.256:80", GYRE_EADDRESS},
        {"tcp://local host:80", GYRE_EADDRESS},
        {"tcp://[::1:80", GYRE_EADDRESS},
        {"tcp://::1:80", GYRE_EADDRESS},
        {"tcp://[::1]", GYRE_EADDRESS},
        {"tcp4://[::1]:80", GYRE_EADDRESS},
        {"tcp6://127.0.0.1:80", GYRE_EADDRESS},
        {"udp://127.0.0.1:80", GYRE_EADDRESS},
        {"TCP:/127.0.0.1:80", GYRE_EADDRESS},
        {"unix://", GYRE_EPATHLEN},
        {"unix://@", GYRE_EPATHLEN},
    };
    static const struct gyre_conn_handlers handlers, good = {.on_data = (void (*)(struct gyre_conn *))abort};
    struct api api;
    const struct script script = {.close = must_not_be_called};
    struct gyre_conn *c = NULL;
    char path[300] = "unix:///";
    start(&api, p);
    (void)script;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int err = gyre_connect(&c, api.loop, bad[i].address, &good, NULL);
        cr_expect_eq(err, bad[i].err, "\"%s\": %s", bad[i].address, gyre_err_name(err));
    }
    memset(path + 8, 'x', 200);
    cr_assert_eq(gyre_connect(&c, api.loop, path, &good, NULL), GYRE_EPATHLEN);
    path[6 + 1 + 108] = '\0'; /* 108 bytes of path: one too many */
    cr_assert_eq(gyre_connect(&c, api.loop, path, &good, NULL), GYRE_EPATHLEN);
    cr_assert_eq(gyre_connect(&c, api.loop, "tcp://127.0.0.1:1", NULL, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_connect(&c, api.loop, "tcp://127.0.0.1:1", &handlers, NULL), GYRE_EHANDLERS);
    const struct gyre_conn_options options[] = {
        {.idle_timeout_ns = -1},
        {.linger_timeout_ns = -1},
        {.connect_timeout_ns = -1},
        {.write_max_bytes = (1u << 30) + 1},
        {.write_low_bytes = 10, .write_high_bytes = 5},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        cr_expect_eq(gyre_connect(&c, api.loop, "tcp://127.0.0.1:1", &good, &options[i]), GYRE_EOPTION, "option %zu",
                     i);
    cr_assert_null(c, "an out parameter was set without success");
    api_watch(&api, MS(5));
    cr_assert_eq(gyre_loop_conn_count(api.loop), 0);
    api_close(&api);
}

/* At conns_max a connect says so at once, and again works when one has closed. */
BACKEND_TEST(api_connect, conns_max)
{
    static const struct gyre_conn_handlers good = {.on_data = (void (*)(struct gyre_conn *))abort};
    struct api api;
    struct stage stage;
    struct gyre_conn *c = NULL;
    struct end *ends[3];
    api_init(&api, p);
    api.options.conns_max = 3;
    api_open(&api);
    stage_open(&api, &stage);
    for (unsigned i = 0; i < 3; i++)
        ends[i] = api_connect(&api, stage.address, NULL, NULL);
    cr_assert_eq(gyre_connect(&c, api.loop, stage.address, &good, NULL), GYRE_ECONNS);
    cr_assert_eq(gyre_conn_abort(ends[1]->c), 0);
    api_until(&api, ends[1]->closes == 1);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    api_until(&api, e->opens == 1);
    stage_close(&stage);
    api_close(&api);
}

/* A connection to a listener of the same loop. */
TRANSPORT_TEST(api_connect, to_itself)
{
    struct api api;
    const struct script echo = {.data = end_forward_back};
    api_start(&api, p, &echo);
    struct end *e = api_connect(&api, api.address, NULL, NULL);
    e->key_in = e->key_out;
    end_put(e, 200000);
    api_until(&api, e->got == 200000);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    api_until(&api, e->closes == 1);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    cr_assert_eq(e->unsent, 0);
    api_close(&api);
}

/* A unix listener whose backlog is full: connecting goes on, holds nobody else up, and succeeds once there is room; or
 * the time passes, or the connection is closed, or the loop is destroyed. */
BACKEND_TEST(api_connect, unix_backlog_full)
{
    enum { MANY = 140, LISTED = 3 };
    struct api api;
    struct stage stage, healthy;
    static struct end *ends[MANY];
    static struct peer peers[MANY], other;
    const struct gyre_conn_options soon = {.connect_timeout_ns = MS(80)};
    unsigned opened = 0;
    start(&api, p);
    stage_open(&api, &healthy);
    api.transport = TRANSPORT_UNIX;
    stage_open(&api, &stage);
    if (!api.is_sim)
        cr_assert_eq(listen(stage.fd, LISTED), 0);
    for (unsigned i = 0; i < MANY; i++)
        ends[i] = api_connect(&api, stage.address, NULL, NULL);
    end_put(ends[MANY - 1], 10);
    uint64_t calls = api_stats(&api).ops;
    api_watch(&api, MS(300));
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(ends[i]->closes, 0, "%s", gyre_err_name(ends[i]->err));
        opened += ends[i]->opens;
    }
    cr_assert(opened > 0 && opened < MANY, "%u of %u are open", opened, MANY);
    cr_assert_leq(api_stats(&api).ops - calls, 12 * MANY, "they are tried again and again");
    env_no_workers();
    struct end *e = api_connect(&api, stage.address, NULL, &soon);
    struct end *aborted = api_connect(&api, stage.address, NULL, NULL);
    api_turn(&api);
    cr_assert_eq(gyre_conn_close(aborted->c), 0);
    api_until(&api, e->closes == 1 && aborted->closes == 1);
    cr_assert(e->reason == GYRE_CLOSE_CONNECT && e->err == GYRE_ETIMEOUT, "%s", gyre_err_name(e->err));
    e = api_connect(&api, healthy.address, NULL, NULL);
    stage_accept(&healthy, &other, e);
    api_until(&api, e->opens == 1);
    for (unsigned i = 0; i < MANY - 5; i++)
        stage_accept(&stage, &peers[i], ends[i]);
    for (unsigned i = 0; i < MANY - 10; i++)
        api_until(&api, ends[i]->opens == 1);
    api_destroy_loop(&api);
    for (unsigned i = 0; i < MANY - 5; i++)
        peer_close(&peers[i]);
    peer_close(&other);
    stage_close(&stage);
    stage_close(&healthy);
    api_close(&api);
}

/* Of those that wait for room the last one gives up, and the next comes in its place: that is connected, too. */
REAL_TEST(api_connect, unix_backlog_full_and_one_gives_up)
{
    enum { LISTED = 3, MANY = LISTED + 3 };
    struct api api;
    struct stage stage;
    struct end *ends[MANY];
    struct peer peers[MANY];
    start(&api, p);
    api.transport = TRANSPORT_UNIX;
    stage_open(&api, &stage);
    cr_assert_eq(listen(stage.fd, LISTED), 0);
    for (unsigned i = 0; i < MANY - 1; i++)
        ends[i] = api_connect(&api, stage.address, NULL, NULL);
    struct end *last = api_connect(&api, stage.address, NULL, NULL);
    api_watch(&api, MS(300)); /* from here on they are tried every 100 ms */
    cr_assert_eq(gyre_conn_abort(last->c), 0);
    api_until(&api, last->closes == 1);
    ends[MANY - 1] = api_connect(&api, stage.address, NULL, NULL);
    for (unsigned i = 0; i < MANY; i++)
        stage_accept(&stage, &peers[i], ends[i]);
    for (unsigned i = 0; i < MANY; i++)
        api_until(&api, ends[i]->opens == 1);
    for (unsigned i = 0; i < MANY; i++)
        peer_close(&peers[i]);
    stage_close(&stage);
    api_close(&api);
}
