/* SPDX-License-Identifier: MIT
 * What is shared is shared fairly, and what is kept has a bound: sources of one destination, time, memory, work. */
#include "fixture.h"

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
    cr_assert_geq(least * 3, most, "of %u sources one got %llu bytes through, another %llu", count,
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
