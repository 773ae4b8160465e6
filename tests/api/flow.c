/* SPDX-License-Identifier: MIT
 * Flow: pausing, resuming, and forwarding with its back-pressure. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>

static void pause_here(struct end *e)
{
    cr_assert_eq(gyre_conn_pause(e->c), 0);
}

static void take_and_pause(struct end *e)
{
    size_t here = gyre_conn_inbound(e->c);
    uint8_t data[100];
    size_t n = gyre_conn_read(data, here < 100 ? here : 100, e->c);
    cr_assert_eq(env_pattern_check(data, n, e->key_in, e->got), -1);
    e->got += n;
    cr_assert_eq(gyre_conn_pause(e->c), 0);
    e->n = e->datas;
}

/* While paused there is no on_data; on resume the bytes come, in order, those left over first. */
TRANSPORT_TEST(api_flow, pause_and_resume)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = take_and_pause};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    while (e->got < 5000) {
        if (peer.sent < 5000)
            (void)peer_send_some(&peer, 377);
        unsigned datas = e->datas;
        for (unsigned i = 0; i < 3; i++)
            api_turn(&api);
        cr_assert_leq(e->datas, datas + 1, "on_data while paused");
        cr_assert_eq(gyre_conn_resume(e->c), 0);
        cr_assert_eq(gyre_conn_resume(e->c), 0);
        api_until(&api, e->datas > datas || gyre_conn_inbound(e->c) == 0);
    }
    peer_close(&peer);
    api_close(&api);
}

/* start_paused is a pause before the first byte. */
TRANSPORT_TEST(api_flow, start_paused)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.start_paused = true}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 100);
    api_watch(&api, MS(20));
    cr_assert_eq(e->datas, 0);
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_until(&api, e->got == 100);
    peer_close(&peer);
    api_close(&api);
}

/* The peer's end is told only after resume, after the bytes before it. */
TRANSPORT_TEST(api_flow, eof_while_paused)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = pause_here, .eof = end_ignore};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 5000);
    peer_shutdown(&peer);
    api_watch(&api, MS(20));
    cr_assert_eq(e->datas + e->eofs + e->closes, 0);
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_until(&api, e->eofs == 1);
    cr_assert_eq(e->got, 5000);
    cr_assert_eq(gyre_conn_write(e->c, "x", 1), 0, "writing works after the peer's end");
    peer_close(&peer);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    api_until(&api, e->closes == 1);
    api_close(&api);
}

static void flip(struct end *e)
{
    (void)end_take(e);
    for (unsigned i = 0; i <= e->datas % 5; i++) {
        cr_assert_eq(gyre_conn_pause(e->c), 0);
        cr_assert_eq(gyre_conn_resume(e->c), 0);
    }
}

/* Pausing and resuming at once, many times, in every callback, loses nothing. */
TRANSPORT_TEST(api_flow, flip_flop)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = flip, .data = flip, .drain = flip};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < 300; i++) {
        (void)peer_send_some(&peer, 1 + i * 13);
        cr_assert_eq(gyre_conn_pause(e->c), 0);
        if (i % 3 == 0)
            api_turn(&api);
        cr_assert_eq(gyre_conn_resume(e->c), 0);
        if (i % 2 == 0)
            api_turn(&api);
    }
    api_until(&api, e->got == peer.sent);
    peer_close(&peer);
    api_close(&api);
}

/* A paused connection does not take in what its peer sends for ever. */
BACKEND_TEST(api_flow, paused_is_bounded)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = pause_here};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < 100; i++) {
        (void)peer_send_some(&peer, MIB(1));
        api_turn(&api);
    }
    cr_assert_leq(gyre_conn_inbound(e->c), MIB(1));
    cr_assert_lt(peer.sent, MIB(30));
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_until(&api, e->got == peer.sent);
    peer_close(&peer);
    api_close(&api);
}

/* A pair of connections that forward to each other: e->user is the other one. */
static void forward_on(struct end *e)
{
    struct end *other = e->user;
    if (other == NULL || other->c == NULL)
        return;
    int64_t n = gyre_conn_forward(e->c, other->c, SIZE_MAX);
    cr_assert(n >= 0 || n == GYRE_ECLOSED || n == -EPIPE, "forward: %s", gyre_err_name((int)n));
    e->got += n > 0 ? (uint64_t)n : 0;
    e->n++;
}

static void pass_eof_on(struct end *e)
{
    struct end *other = e->user;
    if (other->c != NULL)
        (void)gyre_conn_shutdown(other->c);
}

static const struct script relay = {.data = forward_on, .eof = pass_eof_on};

/* A slow reader at the far end slows the near one down; memory stays bounded; nothing is lost; both half-closes
 * pass. */
TRANSPORT_TEST(api_flow, relay_slow_reader)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    long high = 0;
    api_init(&api, p);
    api.options.buf_count_max = 256;
    api_open(&api);
    api_listen(&api, &relay, NULL);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    long before = atomic_load(&api.mem.bytes);
    while (a.sent < (api.is_sim ? MIB(2) : MIB(16))) {
        (void)peer_send_some(&a, MIB(1));
        (void)peer_recv_some(&b, 30000);
        if (api.is_sim)
            api_turn(&api);
        else
            api_turn_now(&api);
        long now = atomic_load(&api.mem.bytes) - before;
        high = now > high ? now : high;
    }
    cr_assert_leq(high, (long)MIB(8), "the relay's memory grew by %ld bytes", high);
    cr_assert_leq(gyre_conn_outbound(eb->c), MIB(6));
    cr_assert_leq(api_stats(&api).bufs_max, 256);
    peer_shutdown(&a);
    peer_expect(&b, a.sent);
    peer_until_end(&b);
    cr_assert(b.eof);
    peer_send(&b, 100000); /* the other half still works */
    peer_shutdown(&b);
    peer_expect(&a, 100000);
    peer_until_end(&a);
    cr_assert(a.eof);
    api_until(&api, ea->closes == 1 && eb->closes == 1);
    cr_assert_eq(ea->reason, GYRE_CLOSE_EOF);
    cr_assert_eq(eb->reason, GYRE_CLOSE_EOF);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

/* The destination goes away while a source waits for it: the source goes on, is called, and learns of it. */
TRANSPORT_TEST(api_flow, destination_closes_while_source_waits)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_fill(&api, &a, eb);
    uint64_t called = ea->n;
    unsigned datas = ea->datas;
    api_watch(&api, MS(5));
    cr_assert_eq(ea->n, called, "on_data of a source that waits");
    cr_assert_eq(gyre_conn_abort(eb->c), 0);
    api_until(&api, eb->closes == 1);
    api_until(&api, ea->datas > datas);
    cr_assert_eq(gyre_conn_close(ea->c), 0);
    peer_close(&a);
    peer_close(&b);
    api_until(&api, ea->closes == 1);
    api_close(&api);
}

/* The source goes away while it waits; what was forwarded still leaves. */
TRANSPORT_TEST(api_flow, source_closes_while_waiting)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_fill(&api, &a, eb);
    uint64_t forwarded = ea->got;
    cr_assert_eq(gyre_conn_abort(ea->c), 0);
    api_until(&api, ea->closes == 1);
    peer_close(&a);
    peer_expect(&b, forwarded);
    cr_assert_eq(gyre_conn_close(eb->c), 0);
    peer_until_end(&b);
    cr_assert(b.eof);
    peer_close(&b);
    api_until(&api, eb->closes == 1);
    cr_assert_eq(eb->unsent, 0);
    api_close(&api);
}

/* The source's peer ends while the source waits: the end is told only after all its bytes were forwarded. */
BACKEND_TEST(api_flow, eof_while_waiting)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_fill(&api, &a, eb);
    peer_shutdown(&a);
    api_watch(&api, MS(5));
    cr_assert_eq(ea->eofs, 0);
    peer_expect(&b, a.sent);
    peer_until_end(&b);
    cr_assert(b.eof);
    cr_assert_eq(ea->eofs, 1);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

/* A source that is paused while it waits is not called when the destination drains, but after resume. */
BACKEND_TEST(api_flow, paused_while_waiting)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_fill(&api, &a, eb);
    cr_assert_eq(gyre_conn_pause(ea->c), 0);
    unsigned datas = ea->datas;
    peer_expect(&b, ea->got);
    api_watch(&api, MS(5));
    cr_assert_eq(ea->datas, datas, "on_data while paused");
    cr_assert_eq(gyre_conn_resume(ea->c), 0);
    peer_expect(&b, a.sent);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

/* A destination that is shut down or closing takes nothing, and the bytes stay with the source. */
BACKEND_TEST(api_flow, forward_refused)
{
    struct api api;
    struct peer a, b;
    const struct script script = {.data = end_ignore, .eof = end_ignore};
    api_start(&api, p, &script);
    struct end *ea = peer_open(&api, &a), *eb = peer_open(&api, &b);
    peer_send(&a, 100);
    api_until(&api, gyre_conn_inbound(ea->c) == 100);
    cr_assert_eq(gyre_conn_forward(ea->c, eb->c, 0), 0);
    cr_assert_eq(gyre_conn_forward(eb->c, ea->c, SIZE_MAX), 0);
    cr_assert_eq(gyre_conn_shutdown(eb->c), 0);
    cr_assert_eq(gyre_conn_forward(ea->c, eb->c, SIZE_MAX), -EPIPE);
    cr_assert_eq(gyre_conn_inbound(ea->c), 100);
    cr_assert_eq(gyre_conn_close(eb->c), 0);
    cr_assert_eq(gyre_conn_forward(ea->c, eb->c, SIZE_MAX), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_forward(eb->c, ea->c, SIZE_MAX), GYRE_ECLOSED);
    cr_assert_eq(end_take(ea), 100);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

static void forward_ten(struct end *e)
{
    const struct end *other = e->user;
    while (other != NULL && gyre_conn_inbound(e->c) >= 10) {
        int64_t n = gyre_conn_forward(e->c, other->c, 10);
        cr_assert(n == 0 || n == 10, "%lld of 10 bytes", (long long)n);
        e->got += (uint64_t)n;
        if (n == 0)
            break;
    }
}

/* Forwarding a few bytes at a time moves exactly those. */
TRANSPORT_TEST(api_flow, forward_pieces)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    const struct script script = {.data = forward_ten};
    api_start(&api, p, &script);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    for (unsigned i = 0; i < 20; i++) {
        peer_send(&a, 997 + i);
        api_turn(&api);
        (void)peer_recv_some(&b, SIZE_MAX);
    }
    peer_expect(&b, a.sent - a.sent % 10);
    cr_assert_eq(gyre_conn_inbound(ea->c), a.sent % 10);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

/* Two loops on one thread: connections cannot forward to each other. */
BACKEND_TEST(api_flow, forward_across_loops)
{
    struct api one, two;
    struct peer a, b;
    const struct script script = {.data = end_ignore};
    api_start(&one, p, &script);
    api_start(&two, p, &script);
    struct end *ea = peer_open(&one, &a), *eb = peer_open(&two, &b);
    cr_assert_eq(gyre_conn_forward(ea->c, eb->c, SIZE_MAX), -EXDEV);
    peer_send(&a, 10);
    api_until(&one, gyre_conn_inbound(ea->c) == 10);
    cr_assert_eq(gyre_conn_forward(ea->c, eb->c, SIZE_MAX), -EXDEV);
    cr_assert_eq(end_take(ea), 10);
    peer_close(&b);
    peer_close(&a);
    two.fds = env_fd_count();
    api_destroy_loop(&one);
    int gone = two.fds - env_fd_count();
    two.fds = one.fds;
    cr_assert_geq(gone, 0);
    api_close(&two);
    api_close(&one);
}

/* Bytes in both directions through the relay at once, to a fast reader. */
TRANSPORT_TEST(api_flow, relay_both_ways)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    while (a.sent < MIB(3) || b.sent < MIB(3)) {
        (void)peer_send_some(&a, 70000);
        (void)peer_send_some(&b, 50000);
        (void)peer_recv_some(&a, SIZE_MAX);
        (void)peer_recv_some(&b, SIZE_MAX);
        api_turn(&api);
    }
    peer_expect(&a, b.sent);
    peer_expect(&b, a.sent);
    peer_shutdown(&a);
    peer_shutdown(&b);
    peer_until_end(&a);
    peer_until_end(&b);
    api_until(&api, ea->closes == 1 && eb->closes == 1);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}
