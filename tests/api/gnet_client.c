/* SPDX-License-Identifier: MIT
 * The client half of gnet's acceptance tests: an engine of clients on the backend under test talks to the server, which
 * is another engine. Clients say PING first, want the greeting, and ask for echoes from the handler or from another
 * thread. */
#include "gnet.h"

#include "socket/addr.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { CLIENTS = 8, REQUESTS = 4, REQUEST_MAX = 32768, DATAGRAM_MAX = 1400 };

struct client {
    struct crowd *crowd;
    struct gyre_loop *loop;
    struct gyre_conn *c; /* one of these */
    struct gyre_udp *u;
    struct env_rng rng;
    uint32_t key;
    unsigned requests; /* still to ask */
    bool greeted;
    uint64_t goal, got;
};

/* An engine of clients. */
struct crowd {
    struct gnet *g;
    bool async;
    struct env_mem mem;
    struct gyre_engine *engine;
    pthread_t thread;
    int result;
    struct client clients[CLIENTS];
    _Atomic(unsigned) boots, opens, closes, sents;
};

static struct crowd crowd;

/* Send the next request and its header, or leave. */
static void ask(struct client *client)
{
    uint8_t data[REQUEST_MAX];
    struct gnet_job *job;
    if (client->requests == 0) {
        cr_assert_eq(client->c != NULL ? gyre_conn_close(client->c) : gyre_udp_close(client->u), 0);
        return;
    }
    client->requests--;
    size_t len = 1 + env_rng_below(&client->rng, client->c != NULL ? REQUEST_MAX : DATAGRAM_MAX);
    env_pattern_fill(data, len, client->key, client->goal);
    client->goal += len;
    if (!crowd.async) {
        cr_assert_eq(client->c != NULL ? gyre_conn_write(client->c, data, len) : gyre_udp_send(client->u, data, len),
                     0);
        return;
    }
    job = gnet_job(len);
    memcpy(job->data, data, len);
    job->sents = &crowd.sents;
    if (client->c != NULL)
        job->conn = gyre_conn_id_of(client->c);
    else
        job->udp = gyre_udp_id_of(client->u);
    gnet_hand_over(crowd.engine, job);
}

static void take(struct client *client, const struct gyre_slice *data)
{
    int64_t bad = env_pattern_check(data->data, data->len, client->key, client->got);
    cr_assert_eq(bad, -1, "%s: wrong byte at %llu", crowd.g->which->name,
                 (unsigned long long)(client->got + (uint64_t)bad));
    client->got += data->len;
    if (client->got == client->goal)
        ask(client);
}

/* ---- Streams ---- */

static void on_open(struct gyre_conn *c)
{
    struct client *client = gyre_conn_user(c);
    cr_assert_eq(gyre_conn_loop(c), client->loop);
    cr_assert(gyre_loop_is_current(client->loop));
    client->c = c;
    cr_assert_eq(gyre_conn_write(c, GNET_PING, strlen(GNET_PING)), 0);
    atomic_fetch_add(&crowd.opens, 1);
}

static void on_data(struct gyre_conn *c)
{
    struct client *client = gyre_conn_user(c);
    struct gyre_slice view;
    if (!client->greeted) {
        int err = gyre_conn_next(&view, c, strlen(GNET_GREETING));
        if (err == -EAGAIN)
            return;
        cr_assert_eq(err, 0);
        cr_assert_eq(memcmp(view.data, GNET_GREETING, view.len), 0);
        client->greeted = true;
        ask(client);
    }
    while (gyre_conn_inbound(c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, c, 0), 0);
        take(client, &view);
    }
}

static void on_close(struct gyre_conn *c, int err)
{
    struct client *client = gyre_conn_user(c);
    cr_assert_eq(err, 0, "%s: on_close: %s", crowd.g->which->name, gyre_err_name(err));
    cr_assert(client->greeted && client->got == client->goal && client->requests == 0);
    atomic_fetch_add(&crowd.closes, 1);
}

static const struct gyre_conn_handlers streams = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

/* ---- Datagrams ---- */

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct client *client = gyre_udp_user(u);
    cr_assert_eq(d->data.len, client->goal - client->got, "%s: a cut datagram", crowd.g->which->name);
    take(client, &d->data);
}

static void on_udp_close(struct gyre_udp *u, int err)
{
    const struct client *client = gyre_udp_user(u);
    cr_assert_eq(err, 0);
    cr_assert(client->got == client->goal && client->requests == 0);
    atomic_fetch_add(&crowd.closes, 1);
}

static const struct gyre_udp_handlers datagrams = {.on_datagram = on_datagram, .on_close = on_udp_close};

/* ---- The engine of clients ---- */

static int connected_socket(const char *address)
{
    struct gyre__address parsed;
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0, "%s", address);
    int fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len), 0, "%s: %s", address,
                 strerror(errno));
    return fd;
}

static void go(struct gyre_loop *loop, void *user)
{
    struct client *client = user;
    const struct gnet_place *place = &crowd.g->places[0];
    cr_assert_eq(loop, client->loop);
    if (place->net == GNET_UDP) {
        const struct gyre_udp_options o = {.user = client};
        cr_assert_eq(gyre_udp_connect(&client->u, loop, place->address, &datagrams, &o), 0);
        atomic_fetch_add(&crowd.opens, 1);
        ask(client);
        return;
    }
    const struct gyre_conn_options o = {.user = client};
    int err = client->key % 2 == 0
                  ? gyre_connect(&client->c, loop, place->address, &streams, &o)
                  : gyre_conn_adopt_fd(&client->c, loop, connected_socket(place->address), &streams, &o);
    cr_assert_eq(err, 0, "%s: %s", crowd.g->which->name, gyre_err_name(err));
}

static void on_boot(struct gyre_engine *engine)
{
    (void)engine;
    atomic_fetch_add(&crowd.boots, 1);
}

static const struct gyre_engine_handlers engine_handlers = {.on_boot = on_boot};

static void *run_thread(void *arg)
{
    struct crowd *cr = arg;
    cr->result = gyre_engine_run(cr->engine);
    return NULL;
}

static void crowd_open(struct gnet *g)
{
    crowd = (struct crowd){.g = g, .async = g->which->way >= GNET_ASYNC};
    env_mem_init(&crowd.mem);
    const struct gyre_loop_options loop = {.backend = g->which->backend, .mem = &crowd.mem.mem};
    const struct gyre_engine_options o = {
        .loops = g->which->loops, .handlers = &engine_handlers, .loop = loop, .work_threads = 1};
    cr_assert_eq(gyre_engine_create(&crowd.engine, &o), 0);
    cr_assert_eq(pthread_create(&crowd.thread, NULL, run_thread, &crowd), 0);
    gnet_until(g, atomic_load(&crowd.boots) == 1);
}

static void crowd_close(void)
{
    gnet_until(crowd.g, gyre_engine_conn_count(crowd.engine) == 0);
    gyre_engine_stop(crowd.engine);
    cr_assert_eq(pthread_join(crowd.thread, NULL), 0);
    cr_assert_eq(crowd.result, 0);
    gyre_engine_destroy(crowd.engine);
    cr_assert_eq(atomic_load(&crowd.mem.blocks), 0);
}

enum { BACKENDS_MAX = 4, KINDS = 6 };

ParameterizedTestParameters(gnet_client, talks)
{
    static const struct {
        const char *name;
        enum gnet_net net;
        enum gnet_way way;
    } kinds[KINDS] = {{"tcp", GNET_TCP, GNET_WRITE},     {"tcp, async", GNET_TCP, GNET_ASYNC},
                      {"udp", GNET_UDP, GNET_WRITE},     {"udp, async", GNET_UDP, GNET_ASYNC},
                      {"unix", GNET_UNIX, GNET_WRITE},   {"unix, async", GNET_UNIX, GNET_ASYNC}};
    static struct gnet_case cases[BACKENDS_MAX * KINDS * 4];
    struct criterion_test_params backends = backends_each_real();
    size_t count = 0;
    for (size_t b = 0; b < backends.length; b++)
        for (unsigned k = 0; k < KINDS * 4; k++) {
            struct gnet_case *c = &cases[count++];
            *c = (struct gnet_case){.way = kinds[k / 4].way,
                                    .per_loop = k % 2 == 1,
                                    .loops = k / 2 % 2 == 1 ? GNET_LOOPS : 1,
                                    .place_count = 1,
                                    .places = {{.net = kinds[k / 4].net, .v6 = k % 4 == 2}}};
            const struct backend_param *p = (const struct backend_param *)backends.params + b;
            (void)snprintf(c->backend, sizeof c->backend, "%s", p->backend);
            (void)snprintf(c->name, sizeof c->name, "%s, %s, %s, %u loops", p->backend, kinds[k / 4].name,
                           c->per_loop ? "a socket each" : "one acceptor", c->loops);
        }
    return cr_make_param_array(struct gnet_case, cases, count, NULL);
}

/* Eight clients, in turn on the loops of their engine. */
ParameterizedTest(struct gnet_case *c, gnet_client, talks, .timeout = 60)
{
    static struct gnet g;
    gnet_open(&g, c, true);
    crowd_open(&g);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *client = &crowd.clients[i];
        *client = (struct client){.crowd = &crowd, .key = 100 + i, .requests = REQUESTS};
        client->loop = gyre_engine_loop(crowd.engine, i % c->loops);
        env_rng_init(&client->rng, i);
        cr_assert_eq(gyre_loop_post(client->loop, go, client), 0);
    }
    gnet_until(&g, atomic_load(&crowd.closes) == CLIENTS);
    cr_assert_eq(crowd.opens, CLIENTS);
    if (crowd.async && c->places[0].net != GNET_UDP)
        cr_assert_eq(crowd.sents, CLIENTS * REQUESTS);
    crowd_close();
    gnet_close(&g);
}
