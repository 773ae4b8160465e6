/* SPDX-License-Identifier: MIT
 * What is shared is shared fairly, and what is kept has a bound: sources of one destination, time, memory, work. */
#include "fixture.h"

#include "stream/conn.h"

#include <errno.h>

enum { SOURCES_MAX = 40, FULL = 64 << 10 };

static struct end *sink;

static void forward_to_sink(struct end *e)
{
    if (e == sink || sink == NULL)
        return;
    int64_t n = gyre_conn_forward(e->c, sink->c, SIZE_MAX);
    cr_assert_geq(n, 0, "forward: %s", gyre_err_name((int)n));
    e->got += (uint64_t)n;
}

/* The sources' peers send what they can, the reader takes a little. */
static uint64_t step(struct peer *peers, unsigned count, struct peer *reader)
{
    static uint8_t data[30000];
    for (unsigned i = 0; i < count; i++)
        (void)peer_send_some(&peers[i], KIB(64));
    int64_t n = peer_recv_raw(reader, data, sizeof data);
    return n > 0 ? (uint64_t)n : 0;
}

/* Sources that never stop sending, and one slow reader: the least share is not far from the largest. */
static void fan_in(const struct backend_param *p, unsigned count, uint64_t bytes)
{
    static const struct script script = {.data = forward_to_sink};
    static struct peer peers[SOURCES_MAX];
    static struct end *sources[SOURCES_MAX];
    struct gyre_listener_options options = {.conn = {.write_high_bytes = FULL, .send_buffer_bytes = 16384}};
    struct api api;
    struct peer reader;
    api_init(&api, p);
    api.quiet_sim = true; /* else its connections differ in speed */
    api_open(&api);
    api_listen(&api, &script, &options);
    sink = NULL;
    struct end *to = peer_open(&api, &reader);
    for (unsigned i = 0; i < count; i++)
        sources[i] = peer_open(&api, &peers[i]);
    sink = to;
    uint64_t came = 0, least = UINT64_MAX, most = 0;
    api_until(&api, (came += step(peers, count, &reader)) >= bytes);
    for (unsigned i = 0; i < count; i++) {
        least = sources[i]->got < least ? sources[i]->got : least;
        most = sources[i]->got > most ? sources[i]->got : most;
    }
    /* Last come, first served gave one of them 60 times what another got. A busy machine shares unevenly, too. */
    cr_assert_geq(least * 5, most, "of %u sources one got %llu bytes through, another %llu", count,
                  (unsigned long long)least, (unsigned long long)most);
    sink = NULL;
    for (unsigned i = 0; i < count; i++)
        peer_close(&peers[i]);
    peer_close(&reader);
    api_close(&api);
}

TRANSPORT_TEST(api_shares, fan_in)
{
    bool is_sim = !backends_is_real(p->backend);
    fan_in(p, 3, is_sim ? MIB(2) : MIB(4));
    fan_in(p, 8, is_sim ? MIB(4) : MIB(6));
}

BACKEND_TEST(api_shares, fan_in_of_many)
{
    fan_in(p, SOURCES_MAX, MIB(8));
}

/* ---- time: a close as a whole ---- */

enum { MUCH = 12 << 20 };

static void note_kind(struct end *e)
{
    e->n = gyre_conn_timeout_kind(e->c);
}

static void not_detached(struct gyre_conn *c, int fd, void *user)
{
    (void)user;
    cr_assert_fail("%p is detached as %d, though much is queued", (void *)c, fd);
}

static int do_close(struct gyre_conn *c)
{
    return gyre_conn_close(c);
}

static int do_detach(struct gyre_conn *c)
{
    return gyre_conn_detach(c, not_detached, NULL);
}

/* A peer that reads a little at a time, so that there always is progress, does not keep the connection. */
static void trickle(const struct backend_param *p, const struct gyre_conn_options *options,
                    int (*end)(struct gyre_conn *c), int64_t limit_ns, enum gyre_timeout_kind kind)
{
    static const struct script script = {.close = note_kind};
    struct api api;
    struct peer peer;
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, &(struct gyre_listener_options){.conn = *options});
    uint64_t from_ns = api_now_ns(&api);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MUCH);
    cr_assert_eq(end(e->c), 0);
    while (e->closes == 0) {
        cr_assert_leq(api_now_ns(&api) - from_ns, (uint64_t)(limit_ns + MS(3000)), "it is kept");
        (void)peer_recv_some(&peer, 4000);
        api_watch(&api, api.is_sim ? limit_ns / 200 : MS(1));
    }
    cr_assert_geq(api_now_ns(&api) - from_ns, (uint64_t)limit_ns, "early, %s %s", p->backend, p->transport_name);
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    cr_assert_eq(e->n, kind, "kind %llu", (unsigned long long)e->n);
    cr_assert_gt(e->unsent, 0);
    peer_close(&peer);
    api_close(&api);
}

TRANSPORT_TEST(api_shares, close_as_a_whole)
{
    struct gyre_conn_options o = {.linger_timeout_ns = MS(300), .close_timeout_ns = MS(500)};
    trickle(p, &o, do_close, MS(500), GYRE_TIMEOUT_LINGER);
    o.linger_timeout_ns = MS(100000);
    trickle(p, &o, do_close, MS(500), GYRE_TIMEOUT_LINGER);
    o.linger_timeout_ns = INT64_MAX; /* none */
    trickle(p, &o, do_detach, MS(500), GYRE_TIMEOUT_LINGER);
}

TRANSPORT_TEST(api_shares, lifetime_counts_while_closing)
{
    struct gyre_conn_options o = {.linger_timeout_ns = MS(300), .lifetime_ns = MS(500)};
    trickle(p, &o, do_close, MS(500), GYRE_TIMEOUT_LIFETIME);
    trickle(p, &o, do_detach, MS(500), GYRE_TIMEOUT_LIFETIME);
}

/* Without any option: ten minutes, and a second for every 16 KiB. Everything was sent, and a byte goes every 25 s. */
Test(api_shares, close_has_a_default_bound, .timeout = 100)
{
    const struct backend_param sim = {.backend = "sim", .transport = TRANSPORT_TCP4};
    const int64_t second_ns = MS(1000), limit_ns = (600 + MUCH / (16 << 10)) * second_ns;
    static const struct script script = {.close = note_kind};
    struct api api;
    struct peer peer;
    api_init(&api, &sim);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MUCH);
    uint64_t from_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    for (; e->closes == 0 && api_now_ns(&api) < from_ns + (uint64_t)limit_ns * 2; (void)peer_recv_some(&peer, 1))
        api_watch(&api, 25 * second_ns);
    cr_assert_eq(e->closes, 1, "it is kept");
    cr_assert_geq(api_now_ns(&api), from_ns + (uint64_t)(600 * second_ns));
    cr_assert_leq(api_now_ns(&api), from_ns + (uint64_t)(limit_ns + 60 * second_ns));
    cr_assert_eq(e->n, GYRE_TIMEOUT_LINGER);
    peer_close(&peer);
    api_close(&api);
}

/* ---- work ---- */

/* What comes in many small pieces and is kept costs the same for each, however much is there already. */
BACKEND_TEST(api_shares, keeping_is_linear)
{
    enum { PIECES = 1500, LEN = 1000 };
    static const struct script script = {.data = end_ignore};
    struct gyre_listener_options options = {.conn = {.read_max_bytes = 16 << 20}};
    struct api api;
    struct peer peer;
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 1; i <= PIECES; i++) {
        peer_send(&peer, LEN);
        api_until(&api, gyre_conn_inbound(e->c) == (size_t)i * LEN);
    }
    uint64_t steps = api.loop->conns->compact_steps;
    cr_assert_geq(e->datas, PIECES);
    cr_assert_leq(steps, 2 * (uint64_t)e->datas, "%llu steps for %u pieces", (unsigned long long)steps, e->datas);
    cr_assert_eq(end_take(e), (size_t)PIECES * LEN);
    peer_close(&peer);
    api_close(&api);
}
