/* SPDX-License-Identifier: MIT
 * Names elsewhere: connections that end before they have a socket, a reconnector, an engine, listening. */
#include "names.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum point { LOOKING_UP, ANSWERED, TRYING, TRYING_MANY, POINTS };
enum way { CLOSE, ABORT, CLOSE_WITH_BYTES_THEN_DESTROY, DESTROY, WAYS };

static void end_at(const struct backend_param *p, enum point point, enum way way)
{
    struct api api;
    struct names n;
    static struct hole hole;
    char address[512];
    names_start(&api, &n, p, NULL);
    hole_open(&api, &hole);
    names_hang(&n, "slow.test");
    names_one(&n, "quick.test", "127.0.0.1");
    const char *port = strrchr(hole.stage.address, ':') + 1;
    (void)snprintf(address, sizeof address, "tcp://%s.test:%s", point == LOOKING_UP ? "slow" : "quick", port);
    if (point == TRYING_MANY)
        (void)snprintf(address, sizeof address, "%s,127.0.0.1:%s,127.0.0.1:%s", hole.stage.address, port, port);
    const struct gyre_conn_options o = {.attempt_delay_ns = MS(10)};
    struct end *e = api_connect(&api, address, NULL, &o);
    if (way == CLOSE_WITH_BYTES_THEN_DESTROY)
        end_put(e, 1000);
    for (unsigned turn = 0; turn < (point == ANSWERED ? 0 : 3); turn++)
        api_turn_now(&api);
    if (point == TRYING_MANY && !api.is_sim)
        api_watch(&api, MS(40));
    if (way == ABORT)
        cr_assert_eq(gyre_conn_abort(e->c), 0);
    else if (way != DESTROY)
        cr_assert_eq(gyre_conn_close(e->c), 0);
    if (way == CLOSE || way == ABORT) {
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->err, 0);
        cr_assert_eq(e->reason, way == CLOSE ? GYRE_CLOSE_USER : GYRE_CLOSE_ABORT);
    }
    api_destroy_loop(&api);
    cr_assert_eq(e->closes, 1);
    cr_assert_eq(e->opens, 0);
    cr_assert_eq(e->err, way == CLOSE || way == ABORT ? 0 : GYRE_ESHUTDOWN);
    cr_assert_eq(names_stats(&n).waiting, 0);
    hole_close(&hole);
    names_stop(&api, &n);
}

/* The connection ends at each point, in each way. */
BACKEND_TEST(api_dial, ends_early)
{
    for (int point = 0; point < POINTS; point++)
        for (int way = 0; way < WAYS; way++)
            end_at(p, (enum point)point, (enum way)way);
}

static void on_wait(struct gyre_reconnector *r, int err, int64_t delay_ns, void *user)
{
    int *last = user;
    (void)r;
    (void)delay_ns;
    *last = err;
}

static void discard(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

/* A reconnector looks the name up for each attempt. */
BACKEND_TEST(api_dial, reconnector)
{
    static const struct gyre_conn_handlers handlers = {.on_data = discard};
    static const struct gyre_reconnector_handlers waits = {.on_wait = on_wait};
    struct api api;
    struct names n;
    struct stage stage;
    struct peer peer;
    struct gyre_reconnector *r;
    const struct end nobody = {.kind = 0};
    char address[64];
    int last = 0;
    names_start(&api, &n, p, &(struct gyre_resolver_options){.negative_ttl_ns = -1});
    stage_open(&api, &stage);
    (void)snprintf(address, sizeof address, "tcp://late.test:%s", strrchr(stage.address, ':') + 1);
    const struct gyre_reconnector_options o = {.delay_min_ns = MS(1), .delay_max_ns = MS(2), .handlers = &waits,
                                               .user = &last};
    cr_assert_eq(gyre_reconnector_create(&r, api.loop, address, &handlers, &o), 0);
    cr_assert_eq(gyre_reconnector_start(r), 0);
    api_until(&api, gyre_reconnector_failures(r) >= 3);
    cr_assert_eq(last, GYRE_ENONAME);
    names_one(&n, "late.test", "127.0.0.1");
    stage_accept(&stage, &peer, &nobody);
    cr_assert_eq(gyre_reconnector_destroy(r), 0);
    peer_close(&peer);
    stage_close(&stage);
    names_stop(&api, &n);
}

static void count_end(struct gyre_loop *l, int err, const struct sockaddr_storage *addresses, size_t count,
                           void *user)
{
    unsigned *done = user;
    (void)l;
    (void)err;
    (void)addresses;
    (void)count;
    ++*done;
}

static void on_end(struct gyre_conn *c, int err)
{
    int *last = gyre_conn_user(c);
    *last = err;
}

static void on_connected(struct gyre_loop *l, struct gyre_conn *c, int err, void *user)
{
    int *last = user;
    (void)l;
    if (c == NULL)
        *last = err;
}

/* An engine: the name goes with the call to a loop; stopping the engine ends what is under way there. */
REAL_TEST(api_dial, engine)
{
    static const struct gyre_conn_handlers handlers = {.on_data = discard, .on_close = on_end};
    struct api api;
    struct names n;
    struct gyre_engine *engine;
    int lasts[8];
    unsigned resolved = 0;
    api_init(&api, p);
    names_init(&n, &api, NULL);
    const struct gyre_engine_options o = {
        .loops = 2,
        .loop = {.backend = p->backend, .mem = &api.mem.mem, .resolver = n.resolver},
    };
    cr_assert_eq(gyre_engine_create(&engine, &o), 0);
    n.api = &api;
    names_hang(&n, "slow.test");
    for (unsigned i = 0; i < 8; i++) {
        lasts[i] = 1;
        const struct gyre_conn_options co = {.user = &lasts[i]};
        cr_assert_eq(gyre_engine_connect(engine, i % 2 == 0 ? "tcp://slow.test:80" : "tcp://none.test:80", &handlers,
                                         on_connected, &lasts[i], &co),
                     0);
    }
    cr_assert_eq(gyre_resolve(NULL, gyre_engine_loop(engine, 0), "slow.test", count_end, &resolved, NULL), 0);
    (void)gyre_engine_drain(engine, &(struct gyre_drain_options){.deadline_ns = MS(1000)});
    cr_assert_eq(gyre_engine_run(engine), 0);
    gyre_engine_destroy(engine);
    for (unsigned i = 0; i < 8; i++)
        cr_assert(lasts[i] == GYRE_ESHUTDOWN || (i % 2 == 1 && lasts[i] == GYRE_ENONAME), "%u: %s", i,
                  gyre_err_name(lasts[i]));
    cr_assert_eq(resolved, 1);
    names_fini(&n);
    api_close(&api);
}

static void listen_within(struct gyre_timer *timer, void *user)
{
    static const struct gyre_conn_handlers handlers = {.on_data = discard};
    struct api *api = user;
    struct gyre_listener *listener = NULL;
    (void)timer;
    cr_assert_eq(gyre_loop_listen(&listener, api->loop, "tcp://some.test:0", &handlers, NULL), GYRE_EADDRESS);
    cr_assert_eq(gyre_loop_listen(&listener, api->loop, "tcp://localhost:0", &handlers, NULL), 0);
    cr_assert_eq(strncmp(gyre_listener_address(listener), "tcp://127.0.0.1:", 16), 0);
    api->user = listener;
}

/* Listening on localhost, outside and inside of a callback; connecting to it by that name. */
BACKEND_TEST(api_dial, listen_on_localhost)
{
    struct api api;
    struct names n;
    struct gyre_timer *timer;
    static const struct gyre_conn_handlers handlers = {.on_data = discard};
    struct gyre_listener *listener = NULL;
    names_start(&api, &n, p, NULL);
    const char *loopbacks[] = {"::1", "127.0.0.1"};
    names_set(&n, "localhost", loopbacks, 2, 0);
    cr_assert_eq(gyre_loop_listen(&listener, api.loop, "tcp4://LocalHost:0", &handlers, NULL), 0);
    char address[64];
    (void)snprintf(address, sizeof address, "tcp://localhost:%s", strrchr(gyre_listener_address(listener), ':') + 1);
    struct end *e = api_connect(&api, address, NULL, NULL);
    api_until(&api, e->opens == 1);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    cr_assert_eq(gyre_timer_create(&timer, api.loop, listen_within, &api), 0);
    cr_assert_eq(gyre_timer_start(timer, 0, 0), 0);
    api_until(&api, api.user != NULL);
    cr_assert_eq(gyre_timer_destroy(timer), 0);
    if (api.is_sim) {
        names_one(&n, "six.test", "::1");
        cr_assert_eq(gyre_loop_listen(&listener, api.loop, "tcp://six.test:0", &handlers, NULL), 0);
        cr_assert_eq(strncmp(gyre_listener_address(listener), "tcp://[::1]:", 12), 0);
        cr_assert_eq(gyre_loop_listen(&listener, api.loop, "tcp://nix.test:0", &handlers, NULL), GYRE_ENONAME);
    }
    names_stop(&api, &n);
}

/* The delay between attempts has a lower bound. */
BACKEND_TEST(api_dial, options)
{
    static const struct gyre_conn_handlers handlers = {.on_data = discard};
    struct api api;
    struct names n;
    names_start(&api, &n, p, NULL);
    const struct gyre_conn_options bad[] = {{.attempt_delay_ns = MS(10) - 1}, {.attempt_delay_ns = -1}};
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(gyre_connect(NULL, api.loop, "tcp://a.test:1", &handlers, &bad[i]), GYRE_EOPTION);
    cr_assert_not_null(strstr(gyre_last_option_error(), "attempt_delay_ns"));
    cr_assert_eq(gyre_conn_connect_error(NULL, 0, NULL), GYRE_ECLOSED);
    names_stop(&api, &n);
}

struct kept {
    struct gyre_reconnector *r;
    size_t got;
    unsigned sents, closes, opens, waits;
    int sent_err;
    uint64_t unsent;
    uint8_t bytes[256];
};

static void on_kept_bytes(struct gyre_conn *c)
{
    struct kept *k = gyre_conn_user(c);
    k->got += gyre_conn_read(k->bytes + k->got, sizeof k->bytes - k->got, c);
}

static void on_kept_open(struct gyre_conn *c)
{
    struct kept *k = gyre_conn_user(c);
    k->opens++;
    cr_assert_eq(gyre_conn_write(c, "c", 1), 0);
}

static void on_kept_close(struct gyre_conn *c, int err)
{
    struct kept *k = gyre_conn_user(c);
    (void)err;
    k->closes++;
    k->unsent += gyre_conn_unsent(c);
}

static void on_kept_sent(int err, void *user)
{
    struct kept *k = user;
    k->sents++;
    k->sent_err = err;
}

static void on_kept_wait(struct gyre_reconnector *r, int err, int64_t delay_ns, void *user)
{
    struct kept *k = user;
    (void)err;
    (void)delay_ns;
    k->waits++;
    if (gyre_reconnector_queued(r) > 0)
        cr_assert_eq(gyre_reconnector_queued(r), 5);
}

static const struct gyre_conn_handlers kept_server = {.on_data = on_kept_bytes};
static const struct gyre_conn_handlers kept_client = {
    .on_data = discard, .on_open = on_kept_open, .on_close = on_kept_close};
static const struct gyre_reconnector_handlers kept_waits = {.on_wait = on_kept_wait};

static void queue_five(struct kept *k)
{
    struct gyre_conn *c = gyre_reconnector_conn(k->r);
    cr_assert_not_null(c);
    cr_assert_eq(gyre_conn_write(c, "a1", 2), 0);
    cr_assert_eq(gyre_conn_write_ref(c, "b23", 3, on_kept_sent, k), 0);
    cr_assert_eq(gyre_conn_outbound(c), 5);
}

/* All addresses fail: what was queued is still there for the next attempts, and leaves first once one succeeds. Without
 * the option it is dropped, and when the reconnector is destroyed. */
BACKEND_TEST(api_dial, kept_for_a_retry)
{
    for (unsigned i = 0; i < 3; i++) {
        struct api api;
        struct names n;
        struct stage gone;
        struct kept k = {.got = 0};
        struct gyre_listener *listener;
        char address[sizeof gone.address], list[400];
        bool keeps = i != 1;
        names_start(&api, &n, p, NULL);
        stage_open(&api, &gone);
        (void)snprintf(address, sizeof address, "%s", gone.address);
        stage_close(&gone);
        (void)snprintf(list, sizeof list, "%s,127.0.0.2:%s", address, strrchr(address, ':') + 1);
        const struct gyre_reconnector_options o = {
            .delay_min_ns = MS(1), .delay_max_ns = MS(2), .handlers = &kept_waits, .user = &k, .conn = {.user = &k},
            .keep_queued = keeps};
        cr_assert_eq(gyre_reconnector_create(&k.r, api.loop, i == 0 ? address : list, &kept_client, &o), 0);
        cr_assert_eq(gyre_reconnector_start(k.r), 0);
        queue_five(&k);
        api_until(&api, k.waits >= 4);
        cr_assert_eq(k.sents, keeps ? 0 : 1);
        cr_assert_eq(k.unsent, keeps ? 0 : 5);
        if (i == 2) { /* destroyed instead */
            cr_assert_eq(gyre_reconnector_destroy(k.r), 0);
            cr_assert_eq(k.sents, 1);
            cr_assert_eq(k.sent_err, GYRE_ECLOSED);
        } else {
            const struct gyre_listener_options lo = {.conn = {.user = &k}};
            cr_assert_eq(gyre_loop_listen(&listener, api.loop, address, &kept_server, &lo), 0);
            api_until(&api, k.got == (keeps ? 6 : 1));
            cr_assert_eq(memcmp(k.bytes, keeps ? "a1b23c" : "c", k.got), 0);
            cr_assert_eq(k.opens, 1);
            api_until(&api, k.sents == 1);
            cr_assert_eq(k.sent_err, keeps ? 0 : -ECONNREFUSED);
            cr_assert_eq(gyre_reconnector_queued(k.r), 0);
            cr_assert_eq(gyre_reconnector_destroy(k.r), 0);
        }
        names_stop(&api, &n);
    }
}
