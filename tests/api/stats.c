/* SPDX-License-Identifier: MIT
 * What the counters say about known things done. (That they add up, and that gauges come back to nothing, the fixture
 * checks at the end of every test.) */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes in, out and queued are the peers'; receives and sends are in the histograms; nothing was copied. */
TRANSPORT_TEST(api_stats, forwarding)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_forward_back};
    api_start(&api, p, &script);
    (void)peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    for (unsigned i = 0; i < 20; i++) {
        peer_send(&peer, 1000 * (i + 1));
        peer_expect(&peer, peer.sent);
    }
    api_until(&api, api_stats(&api).bytes_out == peer.sent); /* the peer may have it before we are told */
    struct gyre_stats s = api_stats(&api);
    struct gyre_backend_report report;
    gyre_loop_backend(&report, api.loop);
    bool posts = strcmp(p->backend, "io_uring") == 0 && backends_names(report.features, "multishot_recv");
    cr_assert_eq(s.bytes_in, peer.sent);
    cr_assert_eq(s.bytes_queued, peer.sent);
    cr_assert_eq(s.bytes_forwarded, peer.sent);
    cr_assert_eq(s.bytes_copied_in + s.bytes_forward_copied + s.bytes_copied_out + s.bytes_dropped, 0);
    cr_assert_eq(s.conns, 1);
    cr_assert_geq(s.bufs_held_max, 1);
    cr_assert_geq(s.sends, 20);
    cr_assert_eq(s.sqes > 0, strcmp(p->backend, "io_uring") == 0);
    cr_assert_eq(s.bufs_posted > 0, posts);
    peer_close(&peer);
    api_close(&api);
}

static void keep(struct end *e)
{
    (void)e;
}

/* What a handler leaves is copied, once; so is what it writes. */
BACKEND_TEST(api_stats, copies)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = keep};
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 700);
    api_until(&api, gyre_conn_inbound(e->c) == 700);
    end_put(e, 300);
    cr_assert_eq(api_stats(&api).bytes_outbound, 300);
    peer_expect(&peer, 300);
    api_until(&api, api_stats(&api).bytes_outbound == 0);
    struct gyre_stats s = api_stats(&api);
    cr_assert_eq(s.bytes_copied_in, 700);
    cr_assert_eq(s.bytes_copied_out, 300);
    cr_assert_eq(s.bytes_forwarded, 0);
    peer_close(&peer);
    api_close(&api);
}

/* Three borrowed pieces of one turn are one gathered send. */
BACKEND_TEST(api_stats, gathered_sends)
{
    static const char piece[100];
    struct api api;
    struct peer peer;
    char got[400];
    size_t n = 0;
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    struct end *e = peer_open(&api, &peer);
    struct gyre_stats before = api_stats(&api);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(gyre_conn_write_ref(e->c, piece, sizeof piece, NULL, NULL), 0);
    while (n < 300) {
        int64_t len = peer_recv_raw(&peer, got, sizeof got);
        n += len > 0 ? (size_t)len : 0;
        api_turn(&api);
    }
    struct gyre_stats s = api_stats(&api);
    cr_assert_eq(s.sends - before.sends, 1);
    cr_assert_eq(s.sends_gathered - before.sends_gathered, 1);
    cr_assert_eq(s.send_pieces - before.send_pieces, 3);
    cr_assert_eq(s.bytes_copied_out, 0);
    peer_close(&peer);
    api_close(&api);
}

/* Where a send would only be called later, a small answer leaves as it is settled: no operation is submitted for it.
 * Elsewhere each is one. */
TRANSPORT_TEST(api_stats, answers)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_forward_back};
    api_start(&api, p, &script);
    (void)peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    peer_send(&peer, 100);
    peer_expect(&peer, peer.sent);
    api_until(&api, api_stats(&api).bytes_out == peer.sent);
    struct gyre_stats before = api_stats(&api);
    for (unsigned i = 0; i < 20; i++) {
        peer_send(&peer, 1000);
        peer_expect(&peer, peer.sent);
        api_until(&api, api_stats(&api).bytes_out == peer.sent);
    }
    struct gyre_stats s = api_stats(&api);
    bool late = strcmp(p->backend, "epoll") == 0 || strcmp(p->backend, "kqueue") == 0;
    cr_assert_geq(s.sends - before.sends, 20);
    if (late)
        cr_assert_eq(s.ops, before.ops, "%u operations for 20 answers", (unsigned)(s.ops - before.ops));
    else
        cr_assert_geq(s.ops - before.ops, 20);
    peer_close(&peer);
    api_close(&api);
}

/* A peer that does not read: short sends or none, congestion, refused writes, and what is dropped in the end. */
TRANSPORT_TEST(api_stats, slow_peer)
{
    struct api api;
    struct peer peer;
    const struct gyre_listener_options options = {
        .conn = {.write_high_bytes = 100000, .write_low_bytes = 1000, .write_max_bytes = 4000000}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    unsigned refused = 0;
    for (unsigned i = 0; i < 200 && refused < 3; i++) {
        refused += end_try_put(e, 500000) == -EAGAIN;
        api_turn(&api);
    }
    cr_assert_eq(refused, 3);
    struct gyre_stats s = api_stats(&api);
    cr_assert_eq(s.writes_refused, 3);
    cr_assert_geq(s.congestions, 1);
    cr_assert_eq(s.bytes_outbound, gyre_conn_outbound(e->c));
    cr_assert_gt(s.bytes_outbound, 0);
    cr_assert_eq(s.bytes_queued, e->put);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    api_until(&api, e->closes == 1);
    s = api_stats(&api);
    cr_assert_gt(s.bytes_dropped, 0);
    cr_assert_eq(s.bytes_dropped + s.bytes_out, e->put);
    cr_assert_eq(s.failures, 0, "an abort of the user's is no failure");
    peer_close(&peer);
    api_close(&api);
}

/* A send that fails drops what was queued behind it, too. (A unix peer that shuts its receiving side makes it fail.) */
REAL_TEST(api_stats, dropped_by_a_failed_send)
{
    enum { QUEUED = 3 << 20 };
    struct api api;
    struct peer peer;
    api_init(&api, p);
    api.transport = TRANSPORT_UNIX;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(shutdown(peer.fd, SHUT_RD), 0);
    end_put(e, QUEUED);
    api_until(&api, gyre_conn_outbound(e->c) == 0);
    cr_assert_eq(api_stats(&api).bytes_dropped, QUEUED);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    cr_assert_eq(e->err, -EPIPE, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->unsent, QUEUED);
    cr_assert_eq(api_stats(&api).bytes_dropped, QUEUED);
    api_close(&api);
}

static void forward_on(struct end *e)
{
    struct end *other = e->user;
    (void)gyre_conn_forward(e->c, other->c, SIZE_MAX);
}

/* A slow destination makes its source wait, and that is counted. The first wait may be over in the turn it began in, if
 * the kernel still took all there was; once its buffers are full something stays queued. */
BACKEND_TEST(api_stats, forward_waits)
{
    struct api api;
    struct peer a, b;
    struct gyre_stats s;
    const struct script script = {.data = forward_on};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *ea = peer_open(&api, &a);
    struct end *eb = peer_open(&api, &b);
    ea->user = eb;
    eb->user = ea;
    b.key_in = a.key_out;
    api_until(&api, (peer_send_some(&a, MIB(1)), s = api_stats(&api), s.forward_waits > 0 && s.bytes_outbound > 0));
    cr_assert_geq(s.congestions, 1);
    cr_assert_eq(s.bytes_outbound, gyre_conn_outbound(eb->c));
    peer_expect(&b, a.sent);
    api_until(&api, api_stats(&api).bytes_outbound == 0);
    peer_close(&a);
    api_until(&api, ea->closes == 1);
    peer_close(&b);
    api_close(&api);
}

/* Reading stops at its limit; the limit is counted, not every look at it. */
BACKEND_TEST(api_stats, read_limits)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = keep};
    const struct gyre_listener_options options = {.conn = {.read_max_bytes = 10000}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    api_until(&api, (peer_send_some(&peer, 5000), gyre_conn_inbound(e->c) >= 10000));
    for (unsigned i = 0; i < 10; i++)
        api_turn(&api);
    cr_assert_leq(api_stats(&api).read_limits, 1);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Connections that cannot be made and connections that time out. */
BACKEND_TEST(api_stats, failures)
{
    struct api api;
    struct peer peer;
    const struct gyre_listener_options idle = {.conn = {.idle_timeout_ns = MS(30)}};
    char nowhere[160];
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &idle);
    struct end *e = peer_open(&api, &peer);
    api_until(&api, e->closes == 1);
    struct gyre_stats s = api_stats(&api);
    cr_assert_eq(s.failures, 1);
    cr_assert_eq(s.timeouts, 1);
    cr_assert_gt(s.timers_started, 0);
    struct stage stage;
    stage_open(&api, &stage);
    (void)memcpy(nowhere, stage.address, sizeof nowhere);
    stage_close(&stage);
    struct end *lost = api_connect(&api, nowhere, NULL, NULL);
    api_until(&api, lost->closes == 1);
    s = api_stats(&api);
    cr_assert_eq(s.connect_errors, 1);
    cr_assert_eq(s.failures, 2);
    cr_assert_eq(s.timeouts, 1);
    cr_assert_eq(s.closed, 2);
    cr_assert_eq(s.connected, 0);
    peer_close(&peer);
    api_close(&api);
}

static void run_nothing(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
}

/* Tasks wait, are refused, run. */
BACKEND_TEST(api_stats, tasks)
{
    struct api api;
    api_init(&api, p);
    api.options.tasks_max = 5;
    api_open(&api);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(gyre_loop_post(api.loop, run_nothing, NULL), i < 5 ? 0 : -EAGAIN);
    cr_assert_eq(api_stats(&api).tasks_waiting, 5);
    cr_assert_eq(api_stats(&api).tasks_refused, 3);
    api_until(&api, api_stats(&api).tasks == 5);
    cr_assert_eq(api_stats(&api).tasks_waiting, 0);
    api_close(&api);
}

/* At conns_max accepting pauses, which shows, and goes on when there is room. */
BACKEND_TEST(api_stats, accept_pauses)
{
    struct api api;
    struct peer peers[2];
    api_init(&api, p);
    api.options.conns_max = 1;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    (void)peer_open(&api, &peers[0]);
    api_until(&api, api_stats(&api).accepts_paused == 1);
    cr_assert_geq(api_stats(&api).accept_pauses, 1);
    peer_close(&peers[0]);
    (void)peer_open(&api, &peers[1]);
    cr_assert_eq(api_stats(&api).accepted, 2);
    peer_close(&peers[1]);
    api_close(&api);
}
