/* SPDX-License-Identifier: MIT
 * Keeping one connection alive: when a reconnector connects again, how long it waits, when it stops. */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

enum { WAITS_MAX = 64 };

struct watch {
    struct api *api;
    struct gyre_reconnector *r;
    unsigned opens, closes, waits, given_up;
    int64_t delays[WAITS_MAX];
    int last_err;
    bool destroy_at_wait, close_at_open;
};

static void on_open(struct gyre_conn *c)
{
    struct watch *w = gyre_conn_user(c);
    api_enter(w->api);
    w->opens++;
    cr_assert_eq(gyre_reconnector_conn(w->r), c);
    if (w->close_at_open)
        cr_assert_eq(gyre_conn_close(c), 0);
    api_leave(w->api);
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct watch *w = gyre_conn_user(c);
    api_enter(w->api);
    (void)err;
    w->closes++;
    api_leave(w->api);
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void on_wait(struct gyre_reconnector *r, int err, int64_t delay_ns, void *user)
{
    struct watch *w = user;
    api_enter(w->api);
    cr_assert_eq(r, w->r);
    cr_assert_null(gyre_reconnector_conn(r));
    cr_assert_lt(w->waits, WAITS_MAX);
    w->delays[w->waits++] = delay_ns;
    w->last_err = err;
    if (w->destroy_at_wait) {
        gyre_reconnector_destroy(r);
        w->r = NULL;
    }
    api_leave(w->api);
}

static void on_give_up(struct gyre_reconnector *r, int err, void *user)
{
    struct watch *w = user;
    api_enter(w->api);
    cr_assert_eq(r, w->r);
    w->given_up++;
    w->last_err = err;
    api_leave(w->api);
}

static const struct gyre_reconnector_handlers told = {.on_wait = on_wait, .on_give_up = on_give_up};

/* A loop, and an address at which nobody listens. */
static void start(struct api *api, const struct backend_param *p, char *address, size_t size)
{
    struct stage stage;
    api_init(api, p);
    api->quiet_sim = true;
    api_open(api);
    stage_open(api, &stage);
    int len = snprintf(address, size, "%s", stage.address);
    cr_assert(len > 0 && (size_t)len < size);
    stage_close(&stage);
}

static void make(struct watch *w, const char *address, struct gyre_reconnector_options o)
{
    o.handlers = &told;
    o.user = w;
    o.conn.user = w;
    int err = gyre_reconnector_create(&w->r, w->api->loop, address, &handlers, &o);
    cr_assert_eq(err, 0, "gyre_reconnector_create: %s", gyre_err_name(err));
}

/* Each wait lies between the lower bound and one that doubles up to the upper; the seed decides. After `failures_max`
 * failures it gives up, and begins anew when started again. */
BACKEND_TEST(api_reconnect, backs_off_and_gives_up)
{
    struct api api;
    char address[160];
    struct watch w[2] = {{.api = &api}, {.api = &api}};
    const struct gyre_reconnector_options o = {
        .delay_min_ns = MS(1), .delay_max_ns = MS(10), .failures_max = 9, .seed = 99};
    start(&api, p, address, sizeof address);
    for (int i = 0; i < 2; i++) {
        make(&w[i], address, o);
        cr_assert_eq(w[i].waits + w[i].closes, 0);
        cr_assert_eq(gyre_reconnector_start(w[i].r), 0);
        api_until(&api, w[i].given_up == 1);
        cr_assert_eq(w[i].waits, 8);
        cr_assert_eq(w[i].closes, 9);
        cr_assert_eq(w[i].opens, 0);
        cr_assert_eq(w[i].last_err, -ECONNREFUSED);
        cr_assert_eq(gyre_reconnector_failures(w[i].r), 9);
    }
    int64_t high = MS(1);
    unsigned apart = 0;
    for (unsigned k = 0; k < 8; k++) {
        high = high * 2 > MS(10) ? MS(10) : high * 2;
        cr_assert(w[0].delays[k] >= MS(1) && w[0].delays[k] <= high, "wait %u is %lld ns", k,
                  (long long)w[0].delays[k]);
        cr_assert_eq(w[0].delays[k], w[1].delays[k], "the same seed waits differently");
        apart += k > 0 && w[0].delays[k] != w[0].delays[k - 1];
    }
    cr_assert_gt(apart, 0, "the waits are not drawn");
    cr_assert_eq(gyre_reconnector_start(w[0].r), 0);
    cr_assert_eq(gyre_reconnector_failures(w[0].r), 0);
    api_until(&api, w[0].given_up == 2);
    for (int i = 0; i < 2; i++)
        gyre_reconnector_destroy(w[i].r);
    api_close(&api);
}

/* It connects as soon as somebody listens, and again when the connection ends, whoever ended it. A connection that was
 * open for long enough makes the failures forgotten. */
BACKEND_TEST(api_reconnect, connects_again)
{
    struct api api;
    char address[160];
    struct watch w = {.api = &api};
    start(&api, p, address, sizeof address);
    make(&w, address, (struct gyre_reconnector_options){.delay_min_ns = MS(1), .delay_max_ns = MS(4), .stable_ns = 1});
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    api_until(&api, w.waits >= 3);
    struct gyre_listener *l;
    struct gyre_listener_options options = {.conn = {.user = NULL}};
    static const struct gyre_conn_handlers sink = {.on_data = on_data};
    cr_assert_eq(gyre_loop_listen(&l, api.loop, address, &sink, &options), 0);
    api_until(&api, w.opens == 1);
    cr_assert_geq(gyre_reconnector_failures(w.r), 3);
    for (unsigned i = 2; i < 6; i++) {
        unsigned waits = w.waits;
        api_watch(&api, MS(2));
        if (i % 2 == 0)
            cr_assert_eq(gyre_conn_close(gyre_reconnector_conn(w.r)), 0);
        else
            cr_assert_eq(gyre_conn_abort(gyre_reconnector_conn(w.r)), 0);
        api_until(&api, w.opens == i);
        cr_assert_eq(w.waits, waits + 1);
        cr_assert_eq(gyre_reconnector_failures(w.r), 1, "what was before a stable connection counts on");
    }
    gyre_reconnector_stop(w.r);
    struct gyre_conn *c = gyre_reconnector_conn(w.r);
    cr_assert_not_null(c, "stopping ended the connection");
    unsigned closes = w.closes, opens = w.opens;
    cr_assert_eq(gyre_conn_abort(c), 0);
    api_until(&api, w.closes == closes + 1);
    api_watch(&api, MS(20));
    cr_assert_eq(w.opens, opens);
    cr_assert_null(gyre_reconnector_conn(w.r));
    gyre_reconnector_destroy(w.r);
    gyre_listener_close(l);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    api_close(&api);
}

/* A connection that opens and ends at once, again and again, counts as failing: it backs off. */
BACKEND_TEST(api_reconnect, short_connections_are_failures)
{
    struct api api;
    char address[160];
    struct watch w = {.api = &api, .close_at_open = true};
    static const struct gyre_conn_handlers sink = {.on_data = on_data};
    struct gyre_listener_options options = {.conn = {.user = NULL}};
    start(&api, p, address, sizeof address);
    cr_assert_eq(gyre_loop_listen(NULL, api.loop, address, &sink, &options), 0);
    make(&w, address,
         (struct gyre_reconnector_options){.delay_min_ns = MS(1), .delay_max_ns = MS(2), .failures_max = 5});
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    api_until(&api, w.given_up == 1);
    cr_assert_eq(w.opens, 5);
    cr_assert_eq(w.last_err, 0);
    gyre_reconnector_destroy(w.r);
    api_close(&api);
}

/* Stopped before it is told that connecting failed at once: nothing is told, and started again it connects. */
BACKEND_TEST(api_reconnect, stopped_before_a_failure_is_told)
{
    struct api api;
    struct stage stage;
    struct watch w = {.api = &api};
    api_init(&api, p);
    api.quiet_sim = true;
    api.options.conns_max = 1;
    api_open(&api);
    stage_open(&api, &stage);
    struct end *first = api_connect(&api, stage.address, NULL, NULL);
    make(&w, stage.address, (struct gyre_reconnector_options){.delay_min_ns = MS(1)});
    cr_assert_eq(gyre_reconnector_start(w.r), 0); /* there is no place for its connection */
    cr_assert_eq(gyre_reconnector_stop(w.r), 0);
    api_watch(&api, MS(5));
    cr_assert_eq(w.waits + w.opens + w.closes, 0);
    cr_assert_eq(gyre_conn_abort(first->c), 0);
    api_until(&api, first->closes == 1);
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    api_until(&api, w.opens == 1);
    cr_assert_eq(w.waits, 0);
    cr_assert_eq(gyre_reconnector_destroy(w.r), 0);
    stage_close(&stage);
    api_close(&api);
}

/* Destroyed in its own callback, while connected (the connection lives on), while it waits; and the loop's end. */
BACKEND_TEST(api_reconnect, destroyed)
{
    struct api api;
    char address[160];
    struct watch w = {.api = &api, .destroy_at_wait = true};
    static const struct gyre_conn_handlers sink = {.on_data = on_data};
    struct gyre_listener_options options = {.conn = {.user = NULL}};
    start(&api, p, address, sizeof address);
    make(&w, address, (struct gyre_reconnector_options){.delay_min_ns = MS(1)});
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    api_until(&api, w.waits == 1);
    cr_assert_null(w.r);

    w.destroy_at_wait = false;
    make(&w, address, (struct gyre_reconnector_options){.delay_min_ns = MS(1)});
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    gyre_reconnector_destroy(w.r); /* connecting */
    api_until(&api, w.closes == 2);

    cr_assert_eq(gyre_loop_listen(NULL, api.loop, address, &sink, &options), 0);
    make(&w, address, (struct gyre_reconnector_options){.delay_min_ns = MS(1)});
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    api_until(&api, w.opens == 1);
    struct gyre_conn *c = gyre_reconnector_conn(w.r);
    cr_assert_eq(gyre_conn_detach(c, (gyre_detached_fn *)abort, NULL), GYRE_ESTATE);
    gyre_reconnector_destroy(w.r);
    api_watch(&api, MS(3));
    cr_assert_eq(w.closes, 2, "destroying it ended the connection");
    cr_assert_eq(gyre_conn_write(c, "x", 1), 0);
    cr_assert_eq(gyre_conn_close(c), 0);
    api_until(&api, w.closes == 3);

    make(&w, address, (struct gyre_reconnector_options){.delay_min_ns = MS(1)});
    cr_assert_eq(gyre_reconnector_start(w.r), 0);
    api_until(&api, w.opens == 2);
    unsigned waits = w.waits;
    gyre_reconnector_destroy(w.r);
    gyre_reconnector_destroy(NULL);
    api_destroy_loop(&api);
    cr_assert_eq(w.closes, 4);
    cr_assert_eq(w.waits, waits);
    api_close(&api);
}

/* What makes no sense is refused when it is made. */
BACKEND_TEST(api_reconnect, errors)
{
    struct api api;
    char address[160];
    struct gyre_reconnector *r = NULL;
    start(&api, p, address, sizeof address);
    const struct {
        const char *address;
        struct gyre_reconnector_options o;
        int err;
    } table[] = {
        {"tcp://nowhere", {.failures_max = 1}, GYRE_EADDRESS},
        {"unix://", {.failures_max = 1}, GYRE_EPATHLEN},
        {address, {.delay_min_ns = -1}, GYRE_EOPTION},
        {address, {.delay_min_ns = 2, .delay_max_ns = 1}, GYRE_EOPTION},
        {address, {.delay_max_ns = INT64_MAX}, GYRE_EOPTION},
        {address, {.stable_ns = -1}, GYRE_EOPTION},
        {address, {.conn = {.idle_timeout_ns = -1}}, GYRE_EOPTION},
        {NULL, {.failures_max = 1}, -EINVAL},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        int err = gyre_reconnector_create(&r, api.loop, table[i].address, &handlers, &table[i].o);
        cr_assert_eq(err, table[i].err, "row %zu: %s", i, gyre_err_name(err));
    }
    cr_assert_eq(gyre_reconnector_create(&r, api.loop, address, NULL, &table[0].o), GYRE_EHANDLERS);
    cr_assert_null(r);
    api_close(&api);
}

/* Without a seed each draws its own waits, or all would come back to a server at once: also on virtual time, where the
 * clock says the same to all of them. */
BACKEND_TEST(api_reconnect, each_its_own_waits)
{
    enum { COUNT = 4, WAITS = 8 };
    struct api api;
    char address[160];
    struct watch w[COUNT];
    const struct gyre_reconnector_options o = {
        .delay_min_ns = 1, .delay_max_ns = MS(1), .failures_max = WAITS + 1};
    start(&api, p, address, sizeof address);
    for (int i = 0; i < COUNT; i++) {
        w[i] = (struct watch){.api = &api};
        make(&w[i], address, o);
        cr_assert_eq(gyre_reconnector_start(w[i].r), 0);
    }
    for (int i = 0; i < COUNT; i++)
        api_until(&api, w[i].given_up == 1);
    for (int i = 0; i < COUNT; i++)
        for (int k = 0; k < i; k++)
            cr_assert_neq(memcmp(w[i].delays, w[k].delays, WAITS * sizeof w[i].delays[0]), 0, "%d waits like %d", i, k);
    for (int i = 0; i < COUNT; i++)
        gyre_reconnector_destroy(w[i].r);
    api_close(&api);
}
