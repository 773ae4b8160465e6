/* SPDX-License-Identifier: MIT
 * Echo: the bytes that come are the bytes that go, for every size, split and transport. */
#include "fixture.h"

#include <gyre/stats.h>

static void read_and_write(struct end *e)
{
    uint8_t data[3000];
    size_t n;
    while ((n = gyre_conn_read(data, sizeof data, e->c)) > 0)
        cr_assert_eq(gyre_conn_write(e->c, data, n), 0);
}

static void next_and_write(struct end *e)
{
    struct gyre_slice view;
    while (gyre_conn_inbound(e->c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, e->c, 0), 0);
        cr_assert_eq(gyre_conn_write(e->c, view.data, view.len), 0);
    }
}

static void peekv_and_writev(struct end *e)
{
    struct iovec iov[16];
    size_t bytes = 0;
    int n = gyre_conn_peekv(iov, 16, e->c);
    cr_assert(n >= 0 && n <= 16);
    for (int i = 0; i < n; i++)
        bytes += iov[i].iov_len;
    cr_assert_eq(gyre_conn_writev(e->c, iov, n), 0);
    cr_assert_eq(gyre_conn_discard(e->c, bytes), bytes);
}

/* All that comes goes on to itself, in three different ways by turns. */
static void mixed(struct end *e)
{
    e->n++;
    if (e->n % 3 == 0)
        end_forward_back(e);
    else if (e->n % 3 == 1)
        read_and_write(e);
    else
        next_and_write(e);
}

/* Send `total` in pieces of a random size while receiving what comes back. */
static void converse(struct peer *p, size_t total, struct env_rng *rng, uint32_t piece_max)
{
    uint64_t goal = p->sent + total;
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS) * 2;
    p->key_in = p->key_out; /* it is an echo */
    while (p->got < goal) {
        size_t left = (size_t)(goal - p->sent);
        size_t piece = 1 + env_rng_below(rng, piece_max);
        (void)peer_send_some(p, piece < left ? piece : left);
        (void)peer_recv_some(p, SIZE_MAX);
        api_turn_now(p->api);
        if (p->got < p->sent)
            api_turn(p->api);
        cr_assert(!p->eof && p->err == 0, "the peer: end %d, %s", p->eof, gyre_err_name(p->err));
        cr_assert(env_now_ns() < end_ns, "%llu of %llu bytes", (unsigned long long)p->got, (unsigned long long)goal);
    }
    cr_assert_eq(p->got, goal);
}

static void echo_sizes(struct backend_param *param, void (*data)(struct end *e), const size_t *sizes, size_t count,
                       uint32_t piece_max)
{
    struct api api;
    struct peer p;
    struct env_rng rng;
    const struct script script = {.data = data};
    env_rng_init(&rng, 7);
    api_start(&api, param, &script);
    struct end *e = peer_open(&api, &p);
    for (size_t i = 0; i < count; i++)
        converse(&p, sizes[i], &rng, piece_max);
    struct gyre_stats stats = api_stats(&api);
    cr_assert_eq(stats.bytes_in, p.sent);
    cr_assert_eq(stats.bytes_out, p.got);
    cr_assert_eq(stats.accepted, 1);
    peer_shutdown(&p);
    peer_until_end(&p);
    cr_assert(p.eof, "the peer ended with %s", gyre_err_name(p.err));
    peer_close(&p);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->unsent, 0);
    cr_assert_eq(api_stats(&api).closed, 1);
    api_close(&api);
}

static const size_t some_sizes[] = {1, 64, 4096, 16384, 100000};
static const size_t large_sizes[] = {1 << 20};
static const size_t huge_sizes[] = {8 << 20};

/* Forwarding to itself gives back what came. */
TRANSPORT_TEST(api_echo, forward)
{
    echo_sizes(p, end_forward_back, some_sizes, 5, 20000);
}

/* So does reading into memory of one's own and writing. */
TRANSPORT_TEST(api_echo, read_write)
{
    echo_sizes(p, read_and_write, some_sizes, 5, 20000);
}

/* And taking views. */
BACKEND_TEST(api_echo, next_write)
{
    echo_sizes(p, next_and_write, some_sizes, 5, 20000);
}

/* And looking at all pieces at once. */
BACKEND_TEST(api_echo, peekv_writev)
{
    echo_sizes(p, peekv_and_writev, some_sizes, 5, 20000);
}

/* Copied and forwarded bytes stay in order among each other. */
BACKEND_TEST(api_echo, mixed_ways)
{
    echo_sizes(p, mixed, large_sizes, 1, 3000);
}

/* A mebibyte in tiny pieces of all sizes. */
BACKEND_TEST(api_echo, tiny_pieces)
{
    static const size_t size[] = {60000};
    echo_sizes(p, end_forward_back, size, 1, 40);
}

/* A mebibyte, over each transport. */
TRANSPORT_TEST(api_echo, one_mebibyte)
{
    echo_sizes(p, end_forward_back, large_sizes, 1, 300000);
}

/* Eight mebibytes, more than any buffer on the way holds, so that back-pressure works in both directions. */
BACKEND_TEST(api_echo, eight_mebibytes)
{
    echo_sizes(p, end_forward_back, huge_sizes, 1, 1000000);
}

/* The peer sends everything before it reads anything; nothing is lost, and we do not hold it all. */
BACKEND_TEST(api_echo, send_all_first)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_forward_back};
    api_start(&api, p, &script);
    (void)peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    uint64_t quiet_ns = 0;
    while (peer.sent < MIB(32) && quiet_ns < (uint64_t)MS(60)) {
        uint64_t now_ns = env_now_ns();
        if (peer_send_some(&peer, MIB(1)) == 0) {
            api_turn(&api);
            quiet_ns += env_now_ns() - now_ns;
        } else {
            quiet_ns = 0;
        }
    }
    cr_assert_lt(peer.sent, MIB(32), "32 MiB went into an echo that nobody reads from");
    peer_expect(&peer, peer.sent);
    peer_close(&peer);
    api_close(&api);
}

enum { CROWD = 200 };

/* Two hundred at once, each with its own bytes. */
TRANSPORT_TEST(api_echo, two_hundred)
{
    static struct peer peers[CROWD];
    struct api api;
    const struct script script = {.data = end_forward_back};
    api_start(&api, p, &script);
    for (unsigned i = 0; i < CROWD; i++) {
        (void)peer_open(&api, &peers[i]);
        peers[i].key_in = peers[i].key_out;
    }
    cr_assert_eq(gyre_loop_conn_count(api.loop), CROWD);
    for (unsigned round = 1; round <= 3; round++) {
        for (unsigned i = 0; i < CROWD; i++)
            peer_send(&peers[i], 500 + i);
        for (unsigned i = 0; i < CROWD; i++)
            peer_expect(&peers[i], round * (500 + i));
    }
    for (unsigned i = 0; i < CROWD; i++)
        peer_close(&peers[i]);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    cr_assert_eq(api_stats(&api).closed, CROWD);
    api_close(&api);
}

static void keep_talking(struct end *e)
{
    while (e->put < MIB(4) && end_try_put(e, 30000) == 0)
        ;
}

static void take_and_talk(struct end *e)
{
    (void)end_take(e);
    keep_talking(e);
}

/* Both sides send as fast as they can at the same time, both of the library's. */
TRANSPORT_TEST(api_echo, both_directions)
{
    struct api api;
    const struct script script = {.open = keep_talking, .data = take_and_talk, .drain = keep_talking};
    api_start(&api, p, &script);
    struct end *client = api_connect(&api, api.address, &script, NULL);
    api_until(&api, api.accepted == 1);
    struct end *server = api_newest(&api);
    api_until(&api, client->put >= MIB(4) && server->put >= MIB(4));
    api_until(&api, client->got == server->put && server->got == client->put);
    cr_assert_eq(api_stats(&api).connected, 1);
    api_close(&api);
    (void)client;
}

/* Pieces that come out of the peer one byte at a time through tiny receive buffers. */
BACKEND_TEST(api_echo, smallest_buffers)
{
    struct api api;
    struct peer peer;
    struct env_rng rng;
    const struct script script = {.data = end_forward_back};
    env_rng_init(&rng, 11);
    api_init(&api, p);
    api.options.buf_size_bytes = 256;
    api.options.buf_count = 2;
    api.options.buf_count_max = 8;
    api_open(&api);
    api_listen(&api, &script, NULL);
    (void)peer_open(&api, &peer);
    converse(&peer, 300000, &rng, 5000);
    struct gyre_stats stats = api_stats(&api);
    cr_assert_leq(stats.bufs_max, 8);
    peer_close(&peer);
    api_close(&api);
}
