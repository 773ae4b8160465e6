/* SPDX-License-Identifier: MIT
 * Datagram sockets of an engine: one on each loop, senders spread over them, stopping and draining. */
#include "backends.h"
#include "env.h"

#include <errno.h>
#include <gyre.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOPS = 2, CLIENTS = 32 };

struct shop {
    struct gyre_engine *engine;
    struct gyre_udp_id ids[LOOPS];
    char address[160];
    atomic_uint served[LOOPS];
    atomic_uint closed;
    unsigned answers, clients_closed; /* the first loop's */
    bool drain;
};

static void on_ask(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct shop *shop = gyre_udp_user(u);
    cr_assert_eq(gyre_udp_reply(u, d, d->data.data, d->data.len), 0);
    atomic_fetch_add(&shop->served[gyre_udp_loop(u) == gyre_engine_loop(shop->engine, 0) ? 0 : 1], 1);
}

static void on_server_close(struct gyre_udp *u, int err)
{
    struct shop *shop = gyre_udp_user(u);
    cr_assert(err == 0 || (err == GYRE_ESHUTDOWN && !shop->drain), "%s", gyre_err_name(err));
    atomic_fetch_add(&shop->closed, 1);
}

static const struct gyre_udp_handlers serving = {.on_datagram = on_ask, .on_close = on_server_close};

static void on_answer(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct shop *shop = gyre_udp_user(u);
    cr_assert_eq(d->data.len, 5);
    if (++shop->answers < CLIENTS)
        return;
    if (shop->drain)
        (void)gyre_engine_drain(shop->engine, &(struct gyre_drain_options){.deadline_ns = INT64_C(5000000000)});
    else
        gyre_engine_stop(shop->engine);
}

static void on_client_close(struct gyre_udp *u, int err)
{
    struct shop *shop = gyre_udp_user(u);
    (void)err;
    shop->clients_closed++;
}

static const struct gyre_udp_handlers asking = {.on_datagram = on_answer, .on_close = on_client_close};

static void on_boot(struct gyre_engine *engine)
{
    struct shop *shop = gyre_engine_user(engine);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct gyre_udp *u;
        cr_assert_eq(gyre_udp_connect(&u, gyre_engine_loop(engine, 0), shop->address, &asking,
                                      &(struct gyre_udp_options){.user = shop}),
                     0);
        cr_assert_eq(gyre_udp_send(u, "hello", 5), 0);
    }
}

static void run_shop(const struct backend_param *p, const char *address, bool drain)
{
    static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};
    struct shop shop = {.drain = drain};
    struct env_mem mem;
    env_mem_init(&mem);
    backends_leave_out(p);
    int fds = env_fd_count();
    const struct gyre_loop_options loop = {.backend = p->backend, .mem = &mem.mem};
    const struct gyre_engine_options all = {.loops = LOOPS, .loop = loop, .handlers = &handlers, .user = &shop};
    int err = gyre_engine_create(&shop.engine, &all);
    if (err != 0)
        cr_skip_test("%s: %s", p->backend, gyre_err_name(err));
    const struct gyre_udp_options options = {.user = &shop};
    err = gyre_engine_listen_udp(shop.ids, shop.engine, address, &serving, &options);
    cr_assert_eq(err, 0, "%s: %s", address, gyre_err_name(err));
    struct gyre_udp *first = gyre_udp_from_id(shop.ids[0]);
    cr_assert_not_null(first);
    (void)snprintf(shop.address, sizeof shop.address, "%s", gyre_udp_address(first));
    cr_assert_eq(gyre_engine_listen_udp(NULL, shop.engine, shop.address, &serving, &options), -EADDRINUSE);
    cr_assert_eq(gyre_engine_run(shop.engine), 0);
    cr_assert_eq(gyre_engine_listen_udp(NULL, shop.engine, address, &serving, &options), GYRE_ESTATE);
    unsigned sockets = shop.ids[1].loop != NULL ? 2 : 1;
    cr_assert_eq(shop.closed, sockets);
    cr_assert_eq(shop.clients_closed, CLIENTS);
    cr_assert_eq(shop.served[0] + shop.served[1], CLIENTS);
    if (sockets == 2)
        cr_assert(shop.served[0] > 0 && shop.served[1] > 0, "%u senders on the first loop, %u on the second",
                  shop.served[0], shop.served[1]);
    gyre_engine_destroy(shop.engine);
    cr_assert_eq(atomic_load(&mem.blocks), 0);
    cr_assert_eq(env_fd_count(), fds);
}

/* The kernel spreads 32 senders over both loops; stopping closes everything. */
DGRAM_REAL_TEST(api_udp_engine, spread)
{
    run_shop(p, "udp://127.0.0.1:0", false);
}

/* So does draining, and what was queued has gone. A unix address has one socket. */
DGRAM_REAL_TEST(api_udp_engine, drain)
{
    char name[64];
    run_shop(p, "udp://[::1]:0", true);
    (void)snprintf(name, sizeof name, "unixgram://@gyre-udp-engine-%d", (int)getpid());
    run_shop(p, name, true);
}

/* What does not open leaves nothing behind. */
DGRAM_REAL_TEST(api_udp_engine, refused)
{
    struct gyre_engine *engine;
    const struct gyre_loop_options loop = {.backend = p->backend};
    backends_leave_out(p);
    int err = gyre_engine_create(&engine, &(struct gyre_engine_options){.loops = LOOPS, .loop = loop});
    if (err != 0)
        cr_skip_test("%s: %s", p->backend, gyre_err_name(err));
    int fds = env_fd_count();
    cr_assert_eq(gyre_engine_listen_udp(NULL, engine, "udp://192.0.2.1:0", &serving, NULL), -EADDRNOTAVAIL);
    cr_assert_eq(gyre_engine_listen_udp(NULL, engine, "tcp://127.0.0.1:0", &serving, NULL), GYRE_EADDRESS);
    cr_assert_eq(gyre_engine_listen_udp(NULL, engine, "udp://127.0.0.1:0", NULL, NULL), GYRE_EHANDLERS);
    cr_assert_eq(env_fd_count(), fds);
    gyre_engine_destroy(engine);
}
