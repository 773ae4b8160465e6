/* SPDX-License-Identifier: MIT
 * How connections end: what is delivered, what both sides are told, and when. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static void say_and_close(struct end *e)
{
    (void)end_take(e);
    if (e->put > 0)
        return;
    end_put(e, MIB(8));
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_close(e->c), 0, "a second close does nothing");
    cr_assert_eq(e->closes, 0);
}

/* A graceful close delivers eight mebibytes to a slow reader that keeps talking all the while. Throwing away what it
 * says must not become a reset, which would destroy what is on its way to it. */
TRANSPORT_TEST(api_end, close_delivers_to_a_talking_peer)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = say_and_close};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 1000);
    api_until(&api, e->put > 0);
    while (!peer.eof) {
        (void)peer_send_some(&peer, 20000);
        (void)peer_recv_some(&peer, 60000);
        api_turn(&api);
        cr_assert(peer.err == 0, "after %llu bytes the peer has %s", (unsigned long long)peer.got,
                  gyre_err_name(peer.err));
    }
    cr_assert_eq(peer.got, MIB(8));
    cr_assert_eq(e->closes, 0, "on_close before the peer closed");
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->unsent, 0);
    cr_assert_eq(e->drains, 0, "on_drain while closing");
    api_close(&api);
}

static void close_at_once(struct end *e)
{
    cr_assert_eq(gyre_conn_close(e->c), 0);
}

/* Closing in on_open, before anything: a clean end for both. */
TRANSPORT_TEST(api_end, close_in_on_open)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = close_at_once};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->datas, 0);
    api_close(&api);
}

/* A peer that has closed its half before still gets all of what a graceful close has queued. */
TRANSPORT_TEST(api_end, close_delivers_after_eof)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_ignore, .eof = say_and_close};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 10);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    while (!peer.eof) {
        (void)peer_recv_some(&peer, 30000);
        api_turn(&api);
        cr_assert_eq(peer.err, 0, "%s after %llu", gyre_err_name(peer.err), (unsigned long long)peer.got);
    }
    cr_assert_eq(peer.got, MIB(8));
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->err, 0);
    peer_close(&peer);
    api_close(&api);
}

/* Abort: the peer is reset, what was queued is gone and counted. */
TRANSPORT_TEST(api_end, abort_resets)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MIB(12));
    api_watch(&api, MS(3));
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    cr_assert_eq(e->closes, 0, "on_close from inside gyre_conn_abort");
    cr_assert_eq(gyre_conn_write(e->c, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_pause(e->c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_resume(e->c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_wake(e->c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_shutdown(e->c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_set_idle_timeout(e->c, 5), GYRE_ECLOSED);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_ABORT);
    cr_assert_eq(e->err, 0);
    peer_until_end(&peer);
    if (is_tcp(&api))
        cr_assert_eq(peer.err, -ECONNRESET, "%s", gyre_err_name(peer.err));
    cr_assert_lt(peer.got, MIB(12));
    cr_assert_geq(e->unsent, MIB(12) - peer.got - MIB(6));
    cr_assert_gt(e->unsent, 0);
    peer_close(&peer);
    api_close(&api);
}

/* A peer that never reads: the linger time passes, on_close says so and how much is lost. */
TRANSPORT_TEST(api_end, linger_time)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.linger_timeout_ns = MS(100)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MIB(12));
    uint64_t start_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    api_until(&api, e->closes == 1);
    cr_assert_geq(api_now_ns(&api) - start_ns, (uint64_t)MS(100), "it gave up early");
    cr_assert_leq(api_now_ns(&api) - start_ns, (uint64_t)MS(5000));
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    peer_until_end(&peer);
    cr_assert_gt(e->unsent, 0);
    cr_assert_geq(e->unsent + peer.got, is_tcp(&api) ? MIB(12) : MIB(11), "%llu unsent, %llu came",
                  (unsigned long long)e->unsent, (unsigned long long)peer.got);
    peer_close(&peer);
    api_close(&api);
}

/* Everything was delivered, but the peer never closes: the linger time ends that too, and nothing is unsent. */
BACKEND_TEST(api_end, linger_for_the_peers_end)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.linger_timeout_ns = MS(100)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    end_put(e, 1000);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    cr_assert_eq(e->unsent, 0);
    peer_expect(&peer, 1000);
    peer_close(&peer);
    api_close(&api);
}

/* Close with 12 MiB queued, and read them in four times the linger time. Returns whether the linger time ran out, and
 * then it must be that this process did not run for a good part of it, so that nothing was read either. */
static bool linger_ran_out(const struct backend_param *p, int64_t linger_ns)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.linger_timeout_ns = linger_ns}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    int small = 65536;
    (void)setsockopt(gyre_conn_fd(e->c), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    end_put(e, MIB(12));
    cr_assert_eq(gyre_conn_close(e->c), 0);
    uint64_t start_ns = env_now_ns(), last_ns = start_ns, longest_ns = 0;
    while (!peer.eof && peer.err == 0) {
        uint64_t now_ns = env_now_ns();
        uint64_t allowed = (now_ns - start_ns) / 1000 * (MIB(12) / 4000) / ((uint64_t)linger_ns / 1000000);
        longest_ns = now_ns - last_ns > longest_ns ? now_ns - last_ns : longest_ns;
        last_ns = now_ns;
        if (peer.got < allowed)
            (void)peer_recv_some(&peer, (size_t)(allowed - peer.got));
        api_turn(&api);
    }
    bool ran_out = peer.err != 0;
    if (ran_out)
        cr_assert_gt(longest_ns, (uint64_t)linger_ns / 4, "%s after %llu bytes, never more than %llu ns apart",
                     gyre_err_name(peer.err), (unsigned long long)peer.got, (unsigned long long)longest_ns);
    else
        cr_assert_eq(peer.got, MIB(12));
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, ran_out ? GYRE_CLOSE_TIMEOUT : GYRE_CLOSE_USER);
    api_close(&api);
    return ran_out;
}

/* As long as a slow peer reads, the linger time does not run out. On a busy machine it takes a longer one to see. */
REAL_TEST(api_end, linger_with_progress)
{
    int64_t linger_ns = MS(150);
    while (linger_ran_out(p, linger_ns)) {
        linger_ns *= 2;
        cr_assert_leq(linger_ns, MS(5000), "this process hardly runs");
    }
}

/* The peer resets: GYRE_CLOSE_ERROR, -ECONNRESET, after the data that had come. */
BACKEND_TEST(api_end, peer_resets)
{
    struct api api;
    struct peer peer;
    const struct script script = {.eof = end_ignore};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 100);
    api_until(&api, e->got == 100);
    peer_reset(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    cr_assert_eq(e->err, -ECONNRESET, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->eofs, 0, "a reset is no end of the stream");
    api_close(&api);
}

/* Data and the end in one segment: all the data first, then the end, once. */
TRANSPORT_TEST(api_end, eof_right_after_data)
{
    struct api api;
    struct peer peer;
    const struct script script = {.eof = end_ignore};
    api_start(&api, p, &script);
    for (unsigned i = 0; i < 20; i++) {
        struct end *e = peer_open(&api, &peer);
        size_t size = 1 + i * i * 500;
        peer_send(&peer, size);
        peer_shutdown(&peer);
        api_until(&api, e->eofs == 1);
        cr_assert_eq(e->got, size);
        end_put(e, 3000); /* it still gets our answer */
        cr_assert_eq(gyre_conn_shutdown(e->c), 0);
        peer_expect(&peer, 3000);
        peer_until_end(&peer);
        cr_assert(peer.eof);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
        cr_assert_eq(e->err, 0);
        cr_assert_eq(e->unsent, 0);
    }
    api_close(&api);
}

static void leave(struct end *e)
{
    (void)e;
}

static void take_rest(struct end *e)
{
    (void)end_take(e);
    cr_assert_eq(gyre_conn_close(e->c), 0);
}

/* What on_data left is still there in on_eof. */
BACKEND_TEST(api_end, leftovers_in_on_eof)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = leave, .eof = take_rest};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 5000);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    cr_assert_eq(e->got, 5000);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    api_close(&api);
}

/* The end comes although the handler left more than read_max_bytes: on_eof is the chance to take them. */
BACKEND_TEST(api_end, eof_behind_a_full_buffer)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = leave, .eof = take_rest};
    struct gyre_listener_options options = {.conn = {.read_max_bytes = 1000}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 5000);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1 || gyre_conn_inbound(e->c) >= 1000);
    while (e->closes == 0 && e->eofs == 0) {
        (void)end_take(e);
        api_turn(&api);
    }
    cr_assert_eq(e->got, 5000);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    api_close(&api);
}

/* Without on_eof the peer's end closes gracefully: what was queued is delivered. */
TRANSPORT_TEST(api_end, no_on_eof)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MIB(4));
    peer_shutdown(&peer);
    api_watch(&api, MS(5));
    peer_expect(&peer, MIB(4));
    peer_until_end(&peer);
    cr_assert(peer.eof, "%s", gyre_err_name(peer.err));
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
    cr_assert_eq(e->err, 0);
    peer_close(&peer);
    api_close(&api);
}

/* Idle: without on_timeout the connection is aborted in time, and not before. */
TRANSPORT_TEST(api_end, idle_without_handler)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.idle_timeout_ns = MS(60)}};
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    uint64_t last_ns = 0;
    for (unsigned i = 0; i < 6; i++) { /* traffic keeps it alive */
        last_ns = api_now_ns(&api);
        peer_send(&peer, 1);
        if (api.is_sim)
            gyre_sim_advance(api.sim, (uint64_t)MS(30));
        else
            api_watch(&api, MS(30));
        for (unsigned k = 0; api.is_sim && k < 5; k++)
            api_turn_now(&api);
    }
    cr_assert_eq(e->closes, 0, "closed in spite of traffic");
    api_until(&api, e->closes == 1);
    cr_assert_geq(api_now_ns(&api) - last_ns, (uint64_t)MS(60));
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    peer_close(&peer);
    api_close(&api);
}

/* With on_timeout it stays open and the time starts again; it can be changed and switched off. */
BACKEND_TEST(api_end, idle_with_handler)
{
    struct api api;
    struct peer peer;
    const struct script script = {.timeout = end_ignore};
    struct gyre_listener_options options = {.conn = {.idle_timeout_ns = MS(20)}};
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    uint64_t start_ns = api_now_ns(&api);
    api_until(&api, e->timeouts == 3);
    cr_assert_geq(api_now_ns(&api) - start_ns, (uint64_t)MS(60) - (uint64_t)MS(1));
    cr_assert_eq(gyre_conn_set_idle_timeout(e->c, -1), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_idle_timeout(e->c, 0), 0);
    api_watch(&api, MS(60));
    cr_assert_eq(e->timeouts, 3);
    start_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_set_idle_timeout(e->c, MS(40)), 0);
    api_until(&api, e->timeouts == 4);
    cr_assert_geq(api_now_ns(&api) - start_ns, (uint64_t)MS(39));
    end_put(e, 1);
    peer_expect(&peer, 1);
    peer_close(&peer);
    api_close(&api);
}

static void *refuse(void *ptr, size_t size_bytes, void *user)
{
    (void)user;
    (void)ptr;
    (void)size_bytes;
    return NULL;
}

/* Without memory for a connection's own idle time the one it had stays. */
BACKEND_TEST(api_end, idle_timeout_without_memory)
{
    struct api api;
    struct peer peer;
    const struct script script = {.timeout = end_ignore};
    struct gyre_listener_options options = {.conn = {.idle_timeout_ns = MS(20)}};
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    const struct gyre_mem mem = api.mem.mem;
    api.mem.mem.resize = refuse;
    int err = gyre_conn_set_idle_timeout(e->c, 0);
    api.mem.mem = mem;
    cr_assert_eq(err, -ENOMEM, "%s", gyre_err_name(err));
    api_until(&api, e->timeouts == 1);
    cr_assert_eq(gyre_conn_set_idle_timeout(e->c, 0), 0);
    api_watch(&api, MS(60));
    cr_assert_eq(e->timeouts, 1);
    peer_close(&peer);
    api_close(&api);
}

/* Destroying the loop closes what is open with GYRE_ESHUTDOWN. */
TRANSPORT_TEST(api_end, destroy_with_open_connections)
{
    struct api api;
    struct peer peers[50];
    api_start(&api, p, NULL);
    for (unsigned i = 0; i < 50; i++) {
        struct end *e = peer_open(&api, &peers[i]);
        peer_send(&peers[i], 100);
        end_put(e, i % 2 == 0 ? MIB(8) : 0);
    }
    api_destroy_loop(&api);
    cr_assert_eq(api.closed, 50);
    for (const struct end *e = api.ends; e != NULL; e = e->next) {
        cr_assert_eq(e->reason, GYRE_CLOSE_SHUTDOWN);
        cr_assert_eq(e->err, GYRE_ESHUTDOWN);
    }
    for (unsigned i = 0; i < 50; i++)
        peer_close(&peers[i]);
    api_close(&api);
}

/* A stale id never reaches the connection that has its descriptor or its slot now. */
BACKEND_TEST(api_end, stale_id)
{
    struct api api;
    struct peer peer;
    struct gyre_conn_id ids[40];
    const struct script script = {.eof = end_ignore};
    api_start(&api, p, &script);
    for (unsigned i = 0; i < 40; i++) {
        struct end *e = peer_open(&api, &peer);
        ids[i] = e->id;
        cr_assert_eq(gyre_conn_from_id(ids[i]), e->c);
        for (unsigned k = 0; k < i; k++)
            cr_assert_null(gyre_conn_from_id(ids[k]), "id %u reaches connection %u", k, i);
        cr_assert_eq(gyre_conn_abort(e->c), 0);
        api_until(&api, e->closes == 1);
        cr_assert_null(gyre_conn_from_id(ids[i]));
        peer_close(&peer);
    }
    api_close(&api);
}
