/* SPDX-License-Identifier: MIT
 * gnet's proxies where datagrams are on one side or on both: a flow for each client, on the same loop, to the next of
 * ten backends, of every transport that has datagrams. */
#include "udp.h"

#include <stdio.h>
#include <string.h>

enum { BACKENDS = 10, CLIENTS = 20, ROUNDS = 10, WINDOW = 3, PIECE = 1000 };

/* What a client's datagrams go through. */
struct flow {
    struct dsock upstream;
    struct sockaddr_storage client;
    socklen_t client_len;
};

struct proxy {
    struct api api;
    struct dsock front, backends[BACKENDS], clients[CLIENTS];
    struct flow flows[CLIENTS];
    unsigned flow_count;
};

static struct proxy proxy;

static void answer_client(struct dsock *s, const struct gyre_datagram *d)
{
    const struct flow *f = s->user;
    int err = gyre_udp_send_to(proxy.front.u, (const struct sockaddr *)&f->client, f->client_len, d->data.data,
                               d->data.len);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
}

static const struct dscript upstream = {.datagram = answer_client};

static struct flow *flow_of(const struct gyre_datagram *d)
{
    for (unsigned i = 0; i < proxy.flow_count; i++)
        if (proxy.flows[i].client_len == d->peer_len && memcmp(&proxy.flows[i].client, d->peer, d->peer_len) == 0)
            return &proxy.flows[i];
    cr_assert_lt(proxy.flow_count, CLIENTS, "a client more than there are");
    struct flow *f = &proxy.flows[proxy.flow_count];
    udp_connect(&proxy.api, &f->upstream, gyre_udp_address(proxy.backends[proxy.flow_count % BACKENDS].u), &upstream,
                NULL);
    proxy.flow_count++;
    f->upstream.user = f;
    memcpy(&f->client, d->peer, d->peer_len);
    f->client_len = d->peer_len;
    return f;
}

static void ask_backend(struct dsock *s, const struct gyre_datagram *d)
{
    (void)s;
    int err = gyre_udp_send(flow_of(d)->upstream.u, d->data.data, d->data.len);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
}

static const struct dscript front = {.datagram = ask_backend}, echo = {.datagram = udp_echo};

static void open_backends(const struct dscript *script)
{
    enum transport own = proxy.api.transport;
    for (unsigned i = 0; i < BACKENDS; i++) {
        proxy.api.transport = (enum transport)(i % 4);
        udp_bind(&proxy.api, &proxy.backends[i], script, NULL);
    }
    proxy.api.transport = own;
}

/* Every datagram of every client comes back to it, once. */
TRANSPORT_TEST(gnet_proxy, datagrams)
{
    struct api *api = &proxy.api;
    udp_start(api, p);
    open_backends(&echo);
    udp_bind(api, &proxy.front, &front, NULL);
    for (unsigned i = 0; i < CLIENTS; i++)
        udp_connect(api, &proxy.clients[i], gyre_udp_address(proxy.front.u), NULL, NULL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < CLIENTS; i++)
            for (unsigned k = 0; k < WINDOW; k++)
                cr_assert_eq(udp_send(&proxy.clients[i], i * 100 + round * WINDOW + k, 4 + i * 50 + round), 0);
        for (unsigned i = 0; i < CLIENTS; i++)
            api_until(api, proxy.clients[i].datagrams >= (round + 1) * WINDOW);
    }
    cr_assert_eq(proxy.flow_count, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct dsock *s = &proxy.clients[i];
        cr_assert(s->datagrams == ROUNDS * WINDOW && s->distinct == ROUNDS * WINDOW && s->errors == 0);
        cr_assert_eq(proxy.flows[i].upstream.datagrams, ROUNDS * WINDOW);
        cr_assert_eq(proxy.flows[i].upstream.errors, 0);
        for (unsigned k = 0; k < ROUNDS * WINDOW; k++)
            cr_assert_eq(s->seen[i * 100 + k], 1, "client %u got its datagram %u %u times", i, k, s->seen[i * 100 + k]);
    }
    api_close(api);
}

/* ---- A stream to backends that speak datagrams ---- */

static void reply_raw(struct dsock *s, const struct gyre_datagram *d)
{
    cr_assert_eq(gyre_udp_reply(s->u, d, d->data.data, d->data.len), 0);
}

static void to_stream(struct dsock *s, const struct gyre_datagram *d)
{
    const struct end *e = s->user;
    cr_assert_eq(gyre_conn_write(e->c, d->data.data, d->data.len), 0);
}

static const struct dscript raw_echo = {.datagram = reply_raw}, stream_upstream = {.datagram = to_stream};

static void open_flow(struct end *e)
{
    struct flow *f = &proxy.flows[proxy.flow_count];
    const char *backend = gyre_udp_address(proxy.backends[proxy.flow_count++ % BACKENDS].u);
    udp_connect(e->api, &f->upstream, backend, &stream_upstream, NULL);
    f->upstream.user = e;
    e->user = f;
}

static void to_datagrams(struct end *e)
{
    struct flow *f = e->user;
    struct gyre_slice view;
    while (gyre_conn_inbound(e->c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, e->c, 0), 0);
        cr_assert_eq(gyre_udp_send(f->upstream.u, view.data, view.len), 0);
    }
}

static void close_flow(struct end *e)
{
    struct flow *f = e->user;
    cr_assert_eq(gyre_udp_close(f->upstream.u), 0);
}

/* Of the simulator's network: it loses no datagram, lets none overtake another, and breaks no connection. */
static const struct gyre_sim_options harmless = {
    .seed = 11,
    .send_short_permille = GYRE_SIM_NEVER,
    .loss_permille = GYRE_SIM_NEVER,
    .duplicate_permille = GYRE_SIM_NEVER,
    .delay_max_ns = GYRE_SIM_NO_DELAY,
    .accept_emfile_permille = GYRE_SIM_NEVER,
    .accept_aborted_permille = GYRE_SIM_NEVER,
    .reset_permille = GYRE_SIM_NEVER,
};

/* Piece by piece, because datagrams may be lost where many wait. */
BACKEND_TEST(gnet_proxy, stream_to_datagrams)
{
    static const struct script script = {.open = open_flow, .data = to_datagrams, .close = close_flow};
    struct peer peers[CLIENTS];
    struct api *api = &proxy.api;
    udp_init(api, p);
    api->sim_options = &harmless;
    api_open(api);
    open_backends(&raw_echo);
    api_listen(api, &script, NULL);
    for (unsigned i = 0; i < CLIENTS; i++) {
        (void)peer_open(api, &peers[i]);
        peers[i].key_in = peers[i].key_out;
    }
    for (unsigned round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 0; i < CLIENTS; i++)
            peer_send(&peers[i], PIECE);
        for (unsigned i = 0; i < CLIENTS; i++)
            peer_expect(&peers[i], (uint64_t)round * PIECE);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        peer_close(&peers[i]);
        api_until(api, api->closed == i + 1);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        api_until(api, proxy.flows[i].upstream.closes == 1);
    api_close(api);
}
