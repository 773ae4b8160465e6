/* SPDX-License-Identifier: MIT
 * gnet's proxies: for each connection that comes in, one is made on the same loop to the next of ten backends, of every
 * transport, and bytes go both ways; a backend that is not ready yet, one that ends, one that is slow, and one that
 * speaks datagrams. And the same for datagrams. */
#include "udp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BACKENDS = 10, CLIENTS = 20, BYTES = 20000 };

struct proxy {
    struct api *api;
    char backends[BACKENDS][160];
    unsigned next, retries;
    const struct script *upstream;
    struct gyre_timer *timer;
    struct end *waiting; /* the client whose backend is not ready */
};

static void forward_on(struct end *e)
{
    struct end *other = e->user;
    if (other == NULL || other->c == NULL)
        return;
    int64_t n = gyre_conn_forward(e->c, other->c, SIZE_MAX);
    cr_assert(n >= 0 || n == GYRE_ECLOSED || n == -EPIPE, "forward: %s", gyre_err_name((int)n));
    e->got += n > 0 ? (uint64_t)n : 0;
}

static void pass_eof_on(struct end *e)
{
    struct end *other = e->user;
    if (other->c != NULL)
        (void)gyre_conn_shutdown(other->c);
}

static void close_other(struct end *e)
{
    struct end *other = e->user;
    if (other != NULL && other->c != NULL)
        cr_assert_eq(gyre_conn_close(other->c), 0);
}

static const struct script upstream = {.data = forward_on, .eof = pass_eof_on, .close = close_other};

/* Make the other half, on the same loop, from within on_open. */
static void open_upstream(struct end *e)
{
    struct proxy *proxy = e->api->user;
    const char *backend = proxy->backends[proxy->next++ % BACKENDS];
    struct end *other = api_connect(e->api, backend, proxy->upstream, NULL);
    cr_assert_eq(gyre_conn_loop(other->c), gyre_conn_loop(e->c));
    e->user = other;
    other->user = e;
}

static const struct script front = {
    .open = open_upstream, .data = forward_on, .eof = pass_eof_on, .close = close_other};

static const struct script echo = {.data = end_forward_back};

/* Ten that echo, by turns on each transport, then the address of the proxy itself. */
static void proxy_open(struct api *api, const struct backend_param *p, struct proxy *proxy)
{
    *proxy = (struct proxy){.api = api, .upstream = &upstream};
    api_init(api, p);
    api->user = proxy;
    api_open(api);
    for (unsigned i = 0; i < BACKENDS; i++) {
        api->transport = (enum transport)(i % 4);
        api_listen(api, &echo, NULL);
        (void)snprintf(proxy->backends[i], sizeof proxy->backends[i], "%s", api->address);
    }
    api->transport = TRANSPORT_TCP4;
    api_listen(api, &front, NULL);
}

/* A client, without waiting for the one that was accepted to be the newest: backends accept too. */
static void client_open(struct proxy *proxy, struct peer *peer, uint32_t key)
{
    unsigned before = proxy->next;
    peer_connect(proxy->api, peer, proxy->api->address);
    peer->key_in = peer->key_out = key;
    api_until(proxy->api, proxy->next > before);
}

/* The half of client `i` on this side: of the connections that were accepted at the front, the i-th. */
static struct end *front_half(const struct api *api, unsigned i)
{
    struct end *found = NULL;
    unsigned seen = 0, all = 0;
    for (struct end *e = api->ends; e != NULL; e = e->next)
        all += e->side->script == &front;
    for (struct end *e = api->ends; e != NULL; e = e->next)
        if (e->side->script == &front && all - 1 - seen++ == i)
            found = e;
    return found;
}

/* Twenty clients over ten backends; then by turns the client ends first, or the backend does. */
BACKEND_TEST(gnet_proxy, ten_backends)
{
    struct api api;
    struct proxy proxy;
    struct peer peers[CLIENTS];
    proxy_open(&api, p, &proxy);
    for (unsigned i = 0; i < CLIENTS; i++)
        client_open(&proxy, &peers[i], 500 + i);
    for (unsigned i = 0; i < CLIENTS; i++)
        peer_send(&peers[i], BYTES + i);
    for (unsigned i = 0; i < CLIENTS; i++)
        peer_expect(&peers[i], BYTES + i);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct end *e = front_half(&api, i);
        const struct end *other = e->user;
        cr_assert_eq(e->got, BYTES + i);
        cr_assert_eq(other->got, BYTES + i);
        if (i % 2 == 0)
            peer_shutdown(&peers[i]); /* through both, the backend closes, and its end comes back */
        else
            cr_assert_eq(gyre_conn_close(other->c), 0);
        peer_until_end(&peers[i]);
        cr_assert(peers[i].eof, "client %u: %s", i, gyre_err_name(peers[i].err));
        peer_close(&peers[i]);
        api_until(&api, e->closes == 1 && other->closes == 1);
        cr_assert_eq(e->err, 0);
        cr_assert_eq(other->err, 0);
    }
    api_close(&api);
}

static void close_after_hello(struct end *e)
{
    if (gyre_conn_inbound(e->c) < BYTES)
        return;
    end_forward_back(e);
    cr_assert_eq(gyre_conn_close(e->c), 0);
}

/* The backend answers and closes at once: the client gets the whole answer, then the end. */
BACKEND_TEST(gnet_proxy, backend_closes)
{
    struct api api;
    struct proxy proxy;
    struct peer peers[CLIENTS];
    const struct script closing = {.data = close_after_hello};
    proxy_open(&api, p, &proxy);
    for (unsigned i = 0; i < BACKENDS; i++) {
        api.transport = (enum transport)(i % 4);
        char address[160];
        (void)snprintf(address, sizeof address, "%s", api.address);
        api_listen(&api, &closing, NULL);
        (void)snprintf(proxy.backends[i], sizeof proxy.backends[i], "%s", api.address);
        (void)snprintf(api.address, sizeof api.address, "%s", address);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        client_open(&proxy, &peers[i], 500 + i);
        peer_send(&peers[i], BYTES);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        peer_expect(&peers[i], BYTES);
        peer_until_end(&peers[i]);
        cr_assert(peers[i].eof, "client %u: %s", i, gyre_err_name(peers[i].err));
        peer_close(&peers[i]);
    }
    api_until(&api, api.closed == 3 * CLIENTS);
    api_close(&api);
}

/* ---- A backend that is not ready ---- */

static void try_again(struct gyre_timer *timer, void *user)
{
    struct proxy *proxy = user;
    (void)timer;
    api_enter(proxy->api);
    struct end *e = proxy->waiting;
    struct end *other = api_connect(proxy->api, proxy->backends[0], proxy->upstream, NULL);
    other->user = e;
    proxy->retries++;
    api_leave(proxy->api);
}

/* There at last: what the client said meanwhile waits, and a wake has it forwarded. */
static void ready(struct end *e)
{
    struct end *client = e->user;
    client->user = e;
    cr_assert_eq(gyre_conn_wake(client->c), 0);
}

static void not_ready(struct end *e)
{
    struct proxy *proxy = e->api->user;
    struct end *client = e->user;
    if (e->opens == 1) {
        close_other(e);
        return;
    }
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    proxy->waiting = client;
    cr_assert_eq(gyre_timer_start(proxy->timer, MS(2), 0), 0);
}

static void first_try(struct end *e)
{
    struct proxy *proxy = e->api->user;
    struct end *other = api_connect(e->api, proxy->backends[0], proxy->upstream, NULL);
    other->user = e; /* and the client learns of it when it is ready */
}

static const struct script patient_front = {.open = first_try, .data = forward_on, .eof = pass_eof_on};
static const struct script patient = {.open = ready, .data = forward_on, .eof = pass_eof_on, .close = not_ready};

static void echo_back(struct gyre_conn *c)
{
    cr_assert_geq(gyre_conn_forward(c, c, SIZE_MAX), 0);
}

TRANSPORT_TEST(gnet_proxy, retries_until_ready)
{
    static const struct gyre_conn_handlers late = {.on_data = echo_back};
    struct api api;
    struct proxy proxy = {.api = &api, .upstream = &patient};
    struct peer peer;
    struct stage stage;
    api_init(&api, p);
    api.user = &proxy;
    api.quiet_sim = true;
    api_open(&api);
    stage_open(&api, &stage); /* for an address that nobody listens on */
    (void)snprintf(proxy.backends[0], sizeof proxy.backends[0], "%s", stage.address);
    stage_close(&stage);
    cr_assert_eq(gyre_timer_create(&proxy.timer, api.loop, try_again, &proxy), 0);
    api_listen(&api, &patient_front, NULL);
    struct end *e = peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    peer_send(&peer, BYTES);
    api_until(&api, proxy.retries >= 3 && gyre_conn_inbound(e->c) == BYTES);
    int err = gyre_loop_listen(NULL, api.loop, proxy.backends[0], &late, NULL);
    cr_assert_eq(err, 0, "listen on %s: %s", proxy.backends[0], gyre_err_name(err));
    peer_expect(&peer, BYTES);
    peer_send(&peer, BYTES);
    peer_expect(&peer, 2 * BYTES);
    peer_shutdown(&peer);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(&api, e->closes == 1 && gyre_loop_conn_count(api.loop) == 0);
    gyre_timer_destroy(proxy.timer);
    api_close(&api);
}

/* ---- A slow backend ---- */

/* The backend reads nothing for a while: the proxy keeps a bounded part, the client is slowed down, nothing is lost. */
TRANSPORT_TEST(gnet_proxy, slow_backend)
{
    struct api api;
    struct proxy proxy = {.api = &api, .upstream = &upstream};
    struct peer peer, backend;
    struct stage stage;
    api_init(&api, p);
    api.user = &proxy;
    api_open(&api);
    stage_open(&api, &stage);
    for (unsigned i = 0; i < BACKENDS; i++)
        (void)snprintf(proxy.backends[i], sizeof proxy.backends[i], "%s", stage.address);
    api_listen(&api, &front, NULL);
    struct end *e = peer_open(&api, &peer);
    struct end *other = e->user;
    stage_accept(&stage, &backend, other);
    api_until(&api, other->opens == 1);
    backend.key_in = peer.key_out;
    peer.key_in = backend.key_out;
    long before = atomic_load(&api.mem.bytes);
    for (unsigned still = 0; still < 40; still++) {
        if (peer_send_some(&peer, MIB(1)) > 0 && peer.sent < MIB(64))
            still = 0;
        api_turn(&api);
        cr_assert_leq(atomic_load(&api.mem.bytes) - before, (long)MIB(8));
    }
    cr_assert_lt(peer.sent, MIB(64), "64 MiB went into a proxy whose backend does not read");
    cr_assert(gyre_conn_congested(other->c));
    cr_assert_leq(gyre_conn_outbound(other->c), MIB(4));
    peer_shutdown(&peer);
    peer_expect(&backend, peer.sent);
    peer_until_end(&backend);
    cr_assert(backend.eof);
    peer_send(&backend, BYTES);
    peer_close(&backend);
    peer_expect(&peer, BYTES);
    peer_until_end(&peer);
    peer_close(&peer);
    api_until(&api, e->closes == 1 && other->closes == 1);
    stage_close(&stage);
    api_close(&api);
}
