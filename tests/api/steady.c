/* SPDX-License-Identifier: MIT
 * The steady state allocates nothing: clients and servers on one loop exchange requests, and after the first tenth of
 * them the library asks for no memory any more. 1000 requests for each way of answering where a sanitizer looks on,
 * 100000 elsewhere, or the number that GYRE_TEST_REQUESTS in the environment says.
 *
 * On the simulator the network has an allocator of its own, for it makes each packet. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { REQUESTS = 1000 };
#else
enum { REQUESTS = 100000 };
#endif

enum { CLIENTS = 16, REQUEST_MAX = 20000 };

struct run;

struct client {
    struct run *run;
    struct gyre_timer *timer;
    size_t got;
};

struct run {
    struct env_mem library, network;
    struct gyre_sim *sim;
    struct gyre_loop *loop;
    const struct gyre_conn_handlers *server;
    char address[128], far_address[128]; /* of the server, and of the one that a relay connects to */
    struct client clients[CLIENTS];
    size_t size;
    unsigned long wanted, done;
    long warm_calls; /* for memory in the first tenth */
    unsigned open;
};

static uint8_t pattern[REQUEST_MAX];

/* ---- servers ---- */

static void forward_back(struct gyre_conn *c)
{
    cr_assert_geq(gyre_conn_forward(c, c, SIZE_MAX), 0);
}

static void copy_back(struct gyre_conn *c)
{
    struct gyre_slice s;
    while (gyre_conn_next(&s, c, 0) == 0 && s.len > 0)
        cr_assert_eq(gyre_conn_write(c, s.data, s.len), 0);
}

static void forward_on(struct gyre_conn *c)
{
    cr_assert_geq(gyre_conn_forward(c, gyre_conn_user(c), SIZE_MAX), 0);
}

static const struct gyre_conn_handlers forwarder = {.on_data = forward_back};
static const struct gyre_conn_handlers copier = {.on_data = copy_back};
static const struct gyre_conn_handlers far_side = {.on_data = forward_on};

static void connect_on(struct gyre_conn *c)
{
    const struct run *run = gyre_loop_user(gyre_conn_loop(c));
    const struct gyre_conn_options options = {.user = c};
    struct gyre_conn *far;
    cr_assert_eq(gyre_connect(&far, gyre_conn_loop(c), run->far_address, &far_side, &options), 0);
    gyre_conn_set_user(c, far);
}

static void close_far(struct gyre_conn *c, int err)
{
    (void)err;
    (void)gyre_conn_abort(gyre_conn_user(c));
}

static const struct gyre_conn_handlers relay = {
    .on_open = connect_on, .on_data = forward_on, .on_close = close_far};

/* ---- clients ---- */

static void never(struct gyre_timer *timer, void *user)
{
    (void)timer;
    (void)user;
    cr_assert(false, "a timer that was always started again has fired");
}

/* What a request needs: its bytes, a timer started again, an idle time set again. */
static void ask(struct gyre_conn *c)
{
    struct client *cl = gyre_conn_user(c);
    cl->got = 0;
    cr_assert_eq(gyre_timer_start(cl->timer, MS(600000), 0), 0);
    cr_assert_eq(gyre_conn_set_idle_timeout(c, MS(600000)), 0);
    cr_assert_eq(gyre_conn_write(c, pattern, cl->run->size), 0);
}

static void on_client_open(struct gyre_conn *c)
{
    struct client *cl = gyre_conn_user(c);
    cr_assert_eq(gyre_timer_create(&cl->timer, gyre_conn_loop(c), never, cl), 0);
    ask(c);
}

static void on_client_data(struct gyre_conn *c)
{
    struct client *cl = gyre_conn_user(c);
    struct run *run = cl->run;
    struct gyre_slice s;
    while (gyre_conn_next(&s, c, 0) == 0 && s.len > 0) {
        cr_assert(cl->got + s.len <= run->size && memcmp(s.data, pattern + cl->got, s.len) == 0);
        cl->got += s.len;
    }
    if (cl->got < run->size)
        return;
    run->done++;
    if (run->done == run->wanted / 10)
        run->warm_calls = atomic_load(&run->library.calls);
    if (run->done < run->wanted)
        ask(c);
}

static void on_client_close(struct gyre_conn *c, int err)
{
    struct client *cl = gyre_conn_user(c);
    (void)err;
    gyre_timer_destroy(cl->timer);
    cl->run->open--;
}

static const struct gyre_conn_handlers client = {
    .on_open = on_client_open, .on_data = on_client_data, .on_close = on_client_close};

/* ---- running ---- */

static bool is_over(void *user)
{
    const struct run *run = user;
    return run->done >= run->wanted;
}

static void open_loop(struct run *run, const struct backend_param *p)
{
    struct gyre_loop_options options = {.mem = &run->library.mem, .user = run};
    const struct gyre_sim_options network = {.seed = 7, .profile = GYRE_SIM_QUIET, .mem = &run->network.mem};
    env_mem_init(&run->library);
    env_mem_init(&run->network);
    if (backends_is_real(p->backend)) {
        options.backend = p->backend;
    } else {
        cr_assert_eq(gyre_sim_create(&run->sim, &network), 0);
        options.sim = run->sim;
    }
    int err = gyre_loop_create(&run->loop, &options);
    if (err != 0)
        cr_skip_test("%s: %s", p->backend, gyre_err_name(err));
}

static void listen_on(struct run *run, char *address, size_t size, const struct gyre_conn_handlers *handlers)
{
    const struct gyre_listener_options options = {.conn = {.idle_timeout_ns = MS(600000)}};
    struct gyre_listener *listener;
    cr_assert_eq(gyre_loop_listen(&listener, run->loop, "tcp://127.0.0.1:0", handlers, &options), 0);
    (void)snprintf(address, size, "%s", gyre_listener_address(listener));
}

static void turn(struct run *run)
{
    int more = run->sim != NULL ? gyre_sim_run(run->sim, &run->loop, 1, run->wanted * 100, is_over, run)
                                : gyre_loop_run_nowait(run->loop);
    cr_assert_geq(more, 0, "%s", gyre_err_name(more));
}

static void exchange(const struct backend_param *p, const struct gyre_conn_handlers *server, size_t size)
{
    static struct run run;
    const char *wanted = getenv("GYRE_TEST_REQUESTS");
    run = (struct run){.server = server, .size = size, .open = CLIENTS};
    run.wanted = wanted != NULL ? strtoul(wanted, NULL, 10) : REQUESTS;
    cr_assert_geq(run.wanted, 10 * CLIENTS);
    env_pattern_fill(pattern, sizeof pattern, 3, 0);
    open_loop(&run, p);
    listen_on(&run, run.address, sizeof run.address, server);
    listen_on(&run, run.far_address, sizeof run.far_address, &forwarder);
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct gyre_conn_options options = {.user = &run.clients[i]};
        run.clients[i].run = &run;
        cr_assert_eq(gyre_connect(NULL, run.loop, run.address, &client, &options), 0);
    }
    while (run.done < run.wanted)
        turn(&run);
    long calls = atomic_load(&run.library.calls);
    gyre_loop_destroy(run.loop);
    gyre_sim_destroy(run.sim);
    cr_assert_eq(run.open, 0);
    cr_assert_eq(atomic_load(&run.library.blocks), 0);
    cr_assert_gt(run.warm_calls, 0, "nothing was counted");
    cr_assert_eq(calls, run.warm_calls, "%ld calls for memory during %lu requests of %zu bytes", calls - run.warm_calls,
                 run.wanted - run.wanted / 10, size);
}

BACKEND_TEST(api_steady, forwarding)
{
    exchange(p, &forwarder, 64);
    exchange(p, &forwarder, REQUEST_MAX);
}

BACKEND_TEST(api_steady, copying)
{
    exchange(p, &copier, 64);
    exchange(p, &copier, REQUEST_MAX);
}

BACKEND_TEST(api_steady, relaying)
{
    exchange(p, &relay, 64);
    exchange(p, &relay, REQUEST_MAX);
}
