/* SPDX-License-Identifier: MIT
 * Reading as a pull: what is left stays in order, on_data comes again when it should and only then, views stay
 * valid. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

static void leave(struct end *e)
{
    (void)e;
}

/* What is not taken stays, and on_data does not come again for it by itself. */
TRANSPORT_TEST(api_read, leftovers_wait)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = leave};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 1000);
    api_until(&api, gyre_conn_inbound(e->c) == 1000);
    unsigned datas = e->datas;
    cr_assert_geq(datas, 1);
    api_watch(&api, MS(30));
    cr_assert_eq(e->datas, datas, "on_data came again without new bytes");
    peer_send(&peer, 500);
    api_until(&api, gyre_conn_inbound(e->c) == 1500);
    cr_assert_gt(e->datas, datas);
    cr_assert_eq(end_take(e), 1500);
    peer_close(&peer);
    api_close(&api);
}

/* gyre_conn_wake() has on_data called for leftovers, once, and even with nothing there. */
BACKEND_TEST(api_read, wake)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = leave};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_wake(e->c), 0);
    cr_assert_eq(e->datas, 0, "on_data came from inside gyre_conn_wake");
    api_until(&api, e->datas == 1);
    peer_send(&peer, 10);
    api_until(&api, gyre_conn_inbound(e->c) == 10);
    unsigned datas = e->datas;
    cr_assert_eq(gyre_conn_wake(e->c), 0);
    cr_assert_eq(gyre_conn_wake(e->c), 0);
    api_until(&api, e->datas > datas);
    api_watch(&api, MS(20));
    cr_assert_eq(e->datas, datas + 1, "two wakes before the turn are one on_data");
    peer_close(&peer);
    api_close(&api);
}

static void wake_itself(struct end *e)
{
    if (e->n++ < 100)
        cr_assert_eq(gyre_conn_wake(e->c), 0);
}

/* A handler that wakes itself is called again, and the peers of others are not kept waiting by it. */
BACKEND_TEST(api_read, wake_from_on_data)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = wake_itself};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 1);
    api_until(&api, e->n > 100);
    cr_assert_eq(gyre_conn_inbound(e->c), 1);
    peer_close(&peer);
    api_close(&api);
}

/* At read_max_bytes receiving stops, the peer is slowed down, and taking some lets it go on. */
TRANSPORT_TEST(api_read, read_max_stops_the_peer)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = leave};
    struct gyre_listener_options options = {.conn = {.read_max_bytes = KIB(64)}};
    api_init(&api, p);
    api.options.buf_count = 16; /* what was posted may come in beyond the limit, but no more */
    api.options.buf_count_max = 64;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    uint64_t last_sent = UINT64_MAX;
    while (peer.sent != last_sent) {
        last_sent = peer.sent;
        for (unsigned i = 0; i < 30; i++) {
            (void)peer_send_some(&peer, MIB(1));
            api_turn(&api);
        }
    }
    size_t held = gyre_conn_inbound(e->c);
    cr_assert_geq(held, KIB(64));
    cr_assert_leq(held, KIB(64) + KIB(16) * 64, "%zu bytes were received past the limit", held);
    cr_assert_lt(peer.sent, MIB(30));
    long bytes = atomic_load(&api.mem.bytes);
    api_watch(&api, MS(20));
    cr_assert_leq(atomic_load(&api.mem.bytes), bytes + (long)KIB(64), "memory grows while receiving should be stopped");
    while (e->got < peer.sent) { /* from outside of a handler */
        cr_assert_leq(gyre_conn_inbound(e->c), KIB(64) + KIB(16) * 64);
        (void)end_take(e);
        api_turn(&api);
    }
    peer_send(&peer, 1000);
    api_until(&api, (end_take(e), e->got == peer.sent));
    peer_close(&peer);
    api_close(&api);
}

/* The documented errors of peek. */
BACKEND_TEST(api_read, peek_errors)
{
    struct api api;
    struct peer peer;
    struct gyre_slice view = {.data = (const uint8_t *)"untouched", .len = 9};
    const struct script script = {.data = leave};
    struct gyre_listener_options options = {.conn = {.read_max_bytes = 4096}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_peek(&view, e->c, 1), -EAGAIN);
    cr_assert_eq(gyre_conn_peek(&view, e->c, 4096), -EAGAIN);
    cr_assert_eq(gyre_conn_peek(&view, e->c, 4097), -EMSGSIZE);
    cr_assert_eq(gyre_conn_next(&view, e->c, 4097), -EMSGSIZE);
    cr_assert_eq(view.len, 9, "an out parameter was set without success");
    cr_assert_eq(gyre_conn_peek(&view, e->c, 0), 0);
    cr_assert_null(view.data);
    cr_assert_eq(view.len, 0);
    cr_assert_eq(gyre_conn_find(e->c, "", 0, 0), -EINVAL);
    char needle[65] = {0};
    cr_assert_eq(gyre_conn_find(e->c, needle, 65, 0), -EINVAL);
    cr_assert_eq(gyre_conn_find(e->c, needle, 64, 0), -EAGAIN);
    cr_assert_eq(gyre_conn_discard(e->c, SIZE_MAX), 0);
    cr_assert_eq(gyre_conn_read(needle, 65, e->c), 0);
    struct iovec iov[2];
    cr_assert_eq(gyre_conn_peekv(iov, 2, e->c), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Peek joins pieces of several segments without changing a byte or taking any. */
BACKEND_TEST(api_read, peek_joins)
{
    struct api api;
    struct peer peer;
    struct gyre_slice view;
    const struct script script = {.data = leave};
    api_init(&api, p);
    api.options.buf_size_bytes = 256;
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < 20; i++) {
        peer_send(&peer, 100 + i * 37);
        api_until(&api, gyre_conn_inbound(e->c) == peer.sent);
    }
    size_t all = (size_t)peer.sent;
    for (size_t len = 1; len <= all; len += 97) {
        cr_assert_eq(gyre_conn_peek(&view, e->c, len), 0);
        cr_assert_eq(view.len, len);
        cr_assert_eq(env_pattern_check(view.data, len, e->key_in, 0), -1);
        cr_assert_eq(gyre_conn_inbound(e->c), all);
    }
    cr_assert_eq(gyre_conn_peek(&view, e->c, all + 1), -EAGAIN);
    cr_assert_eq(end_take(e), all);
    peer_close(&peer);
    api_close(&api);
}

/* Take by random calls; whatever is used, the bytes come in order. */
static void take_randomly(struct end *e)
{
    struct env_rng *rng = e->user;
    uint8_t data[4096];
    struct iovec iov[4];
    struct gyre_slice view;
    while (gyre_conn_inbound(e->c) > 0 && env_rng_below(rng, 8) != 0) {
        size_t here = gyre_conn_inbound(e->c), len = 1 + env_rng_below(rng, (uint32_t)(here < 4096 ? here : 4096));
        size_t took = 0;
        const uint8_t *at = data;
        switch (env_rng_below(rng, 5)) {
        case 0:
            took = gyre_conn_read(data, len, e->c);
            cr_assert_eq(took, len);
            break;
        case 1:
            cr_assert_eq(gyre_conn_next(&view, e->c, len), 0);
            at = view.data;
            took = len;
            break;
        case 2:
            cr_assert_eq(gyre_conn_peek(&view, e->c, len), 0);
            cr_assert_eq(env_pattern_check(view.data, len, e->key_in, e->got), -1);
            cr_assert_eq(gyre_conn_discard(e->c, len), len);
            e->got += len;
            continue;
        case 3:
            cr_assert_gt(gyre_conn_peekv(iov, 4, e->c), 0);
            cr_assert_eq(env_pattern_check(iov[0].iov_base, iov[0].iov_len, e->key_in, e->got), -1);
            continue;
        default:
            cr_assert_eq(gyre_conn_next(&view, e->c, 0), 0);
            at = view.data;
            took = view.len;
            break;
        }
        cr_assert_eq(env_pattern_check(at, took, e->key_in, e->got), -1, "wrong bytes at %llu",
                     (unsigned long long)e->got);
        e->got += took;
    }
}

/* Every way of taking, at random, with leftovers. */
TRANSPORT_TEST(api_read, all_ways_at_random)
{
    struct api api;
    struct peer peer;
    struct env_rng rng, sizes;
    const struct script script = {.data = take_randomly};
    env_rng_init(&rng, 3);
    env_rng_init(&sizes, 4);
    api_init(&api, p);
    api.options.buf_size_bytes = 1024;
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    e->user = &rng;
    for (unsigned i = 0; i < 400; i++) {
        peer_send(&peer, 1 + env_rng_below(&sizes, 3000));
        if (env_rng_below(&sizes, 3) == 0)
            api_turn(&api);
    }
    api_until(&api, (gyre_conn_wake(e->c), e->got == peer.sent));
    peer_close(&peer);
    api_close(&api);
}

static void keep_views(struct end *e)
{
    struct gyre_slice views[64];
    unsigned n = 0;
    uint64_t start = e->got;
    while (n < 64 && gyre_conn_inbound(e->c) > 0) {
        size_t here = gyre_conn_inbound(e->c);
        cr_assert_eq(gyre_conn_next(&views[n], e->c, here < 50 ? here : 50), 0);
        e->got += views[n++].len;
    }
    /* Only the last is promised beyond the next call; but it must survive what does not read or close. */
    if (n > 0)
        cr_assert_eq(gyre_conn_write(e->c, "xyz", 3), 0);
    cr_assert_eq(gyre_conn_pause(e->c), 0);
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    if (n > 0)
        cr_assert_eq(env_pattern_check(views[n - 1].data, views[n - 1].len, e->key_in, e->got - views[n - 1].len), -1);
    cr_assert_geq(e->got, start);
}

/* A view taken by next stays valid while the handler writes, pauses and resumes. */
BACKEND_TEST(api_read, view_outlives_other_calls)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = keep_views};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < 50; i++) {
        peer_send(&peer, 333);
        api_turn(&api);
    }
    api_until(&api, e->got + gyre_conn_inbound(e->c) == peer.sent);
    api_until(&api, (gyre_conn_wake(e->c), e->got == peer.sent));
    peer_close(&peer);
    api_close(&api);
}

/* A delimiter is found wherever the segments split it, and not where it only nearly is. */
BACKEND_TEST(api_read, find_split_delimiter)
{
    static const char text[] = "aab\r\r\nab\r\n\r\rn\r\n\r\n!";
    struct api api;
    struct peer peer;
    const struct script script = {.data = leave};
    api_start(&api, p, &script);
    for (size_t cut = 1; cut < sizeof text - 2; cut++) {
        struct end *e = peer_open(&api, &peer);
        peer_send_raw(&peer, text, cut);
        api_until(&api, gyre_conn_inbound(e->c) == cut);
        if (cut < 18)
            cr_assert_eq(gyre_conn_find(e->c, "\r\n\r\n", 4, 0), -EAGAIN, "cut %zu", cut);
        peer_send_raw(&peer, text + cut, sizeof text - 1 - cut);
        api_until(&api, gyre_conn_inbound(e->c) == sizeof text - 1);
        cr_assert_eq(gyre_conn_find(e->c, "\r\n\r\n", 4, 0), 13, "cut %zu", cut);
        cr_assert_eq(gyre_conn_find(e->c, "\r\n\r\n", 4, 13), 13, "cut %zu", cut);
        cr_assert_eq(gyre_conn_find(e->c, "\r\n\r\n", 4, 14), -EAGAIN, "cut %zu", cut);
        cr_assert_eq(gyre_conn_find(e->c, "\r\n", 2, 0), 4, "cut %zu", cut);
        cr_assert_eq(gyre_conn_find(e->c, "\r\n", 2, 5), 8, "cut %zu", cut);
        cr_assert_eq(gyre_conn_find(e->c, "!", 1, 0), 17, "cut %zu", cut);
        cr_assert_eq(gyre_conn_find(e->c, "!", 1, 1000), -EAGAIN);
        cr_assert_eq(gyre_conn_find(e->c, "ab\r\n", 4, 0), 6, "cut %zu", cut);
        cr_assert_eq(gyre_conn_discard(e->c, 3), 3);
        cr_assert_eq(gyre_conn_find(e->c, "\r\n\r\n", 4, 0), 10, "cut %zu", cut);
        cr_assert_eq(gyre_conn_discard(e->c, SIZE_MAX), sizeof text - 4);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
    }
    api_close(&api);
}

/* peekv fills no more pieces than it is given room for, and all of them when there is. */
BACKEND_TEST(api_read, peekv_all)
{
    struct api api;
    struct peer peer;
    struct iovec iov[300];
    const struct script script = {.data = leave};
    api_init(&api, p);
    api.options.buf_size_bytes = 256;
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 20000);
    api_until(&api, gyre_conn_inbound(e->c) == 20000);
    size_t bytes = 0;
    int n = gyre_conn_peekv(iov, 300, e->c);
    for (int i = 0; i < n; i++) {
        cr_assert_eq(env_pattern_check(iov[i].iov_base, iov[i].iov_len, e->key_in, bytes), -1);
        bytes += iov[i].iov_len;
    }
    cr_assert_eq(bytes, 20000);
    cr_assert_eq(gyre_conn_peekv(iov, 0, e->c), 0);
    cr_assert_eq(gyre_conn_peekv(iov, 1, e->c), 1);
    peer_close(&peer);
    api_close(&api);
}

static void hold_all(struct end *e)
{
    struct gyre_buf **bufs = e->user;
    struct gyre_slice view;
    while (gyre_conn_inbound(e->c) > 0 && e->n < 64) {
        size_t here = gyre_conn_inbound(e->c), len = here < 700 ? here : 700;
        cr_assert_eq(gyre_buf_hold(&bufs[e->n], &view, e->c, len), 0);
        cr_assert_eq(view.len, len);
        cr_assert_eq(env_pattern_check(view.data, len, e->key_in, e->got), -1);
        e->got += len;
        e->n++;
    }
}

/* Held buffers stay as they are beyond the handler and beyond the connection. */
TRANSPORT_TEST(api_read, hold)
{
    struct api api;
    struct peer peer;
    struct gyre_buf *bufs[64];
    struct gyre_slice view;
    const struct script script = {.data = hold_all};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    e->user = bufs;
    cr_assert_eq(gyre_buf_hold(&bufs[0], &view, e->c, 0), -EINVAL);
    cr_assert_eq(gyre_buf_hold(&bufs[0], &view, e->c, 1), -EAGAIN);
    for (unsigned i = 0; i < 10; i++) {
        peer_send(&peer, 1500);
        api_until(&api, e->got == peer.sent);
    }
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    while (e->n > 0)
        gyre_buf_release(bufs[--e->n]);
    api_close(&api);
}
