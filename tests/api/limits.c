/* SPDX-License-Identifier: MIT
 * The time limits of a connection: never early, on the simulator's clock exactly in time, and each only for what it
 * limits. Peers are driven by hand, so that a test knows when bytes moved. */
#include "fixture.h"

#include <errno.h>

struct seen {
    struct api *api;
    uint64_t from_ns; /* set by the test */
    uint64_t at_ns;   /* of the last on_timeout, by the loop's clock, from which the next is counted */
    enum gyre_timeout_kind kind, kind_at_close;
    unsigned count[GYRE_TIMEOUT_CONNECT + 1];
    int64_t set_read_ns; /* in on_timeout; 0: nothing */
    bool close;          /* likewise */
};

static struct seen seen;

static void note(struct end *e)
{
    seen.at_ns = gyre_loop_now_ns(gyre_conn_loop(e->c));
    seen.kind = gyre_conn_timeout_kind(e->c);
    seen.count[seen.kind]++;
    if (seen.set_read_ns != 0)
        cr_assert_eq(gyre_conn_set_read_timeout(e->c, seen.set_read_ns), 0);
    if (seen.close)
        cr_assert_eq(gyre_conn_abort(e->c), 0);
}

static void note_close(struct end *e)
{
    seen.kind_at_close = gyre_conn_timeout_kind(e->c);
    seen.at_ns = gyre_loop_now_ns(gyre_conn_loop(e->c));
}

static const struct script noting = {.timeout = note, .close = note_close};
static const struct script closing = {.close = note_close};

static void start(struct api *api, const struct backend_param *p, const struct script *script,
                  const struct gyre_conn_options *options)
{
    seen = (struct seen){.api = api};
    api_init(api, p);
    api->quiet_sim = true;
    api_open(api);
    struct gyre_listener_options o = {.backlog = 0};
    if (options != NULL)
        o.conn = *options;
    api_listen(api, script, &o);
}

/* So long after `from_ns`: not early, and by virtual time not late either. */
static void assert_on_time(const struct api *api, uint64_t from_ns, int64_t limit_ns)
{
    int64_t took_ns = (int64_t)(seen.at_ns - from_ns);
    cr_assert_geq(took_ns, limit_ns, "early: after %lld ns", (long long)took_ns);
    if (api->is_sim)
        cr_assert_leq(took_ns, limit_ns + MS(2), "late: after %lld ns", (long long)took_ns);
}

/* A silent peer: on_timeout again and again, and it says that it is about reading. */
TRANSPORT_TEST(api_limits, read)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_timeout_kind(e->c), GYRE_TIMEOUT_NONE);
    uint64_t from_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(30)), 0);
    for (unsigned i = 1; i <= 3; i++) {
        api_until(&api, e->timeouts == i);
        assert_on_time(&api, from_ns, MS(30));
        cr_assert_eq(seen.kind, GYRE_TIMEOUT_READ);
        from_ns = seen.at_ns;
    }
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, 0), 0);
    api_watch(&api, MS(80));
    cr_assert_eq(e->timeouts, 3, "a limit that was taken away passed");
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    api_close(&api);
}

/* Each byte that comes in starts the time anew; what goes out does not. */
BACKEND_TEST(api_limits, read_counts_from_the_last_byte)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(200)), 0);
    for (unsigned i = 1; i <= 10; i++) {
        seen.from_ns = api_now_ns(&api);
        peer_send(&peer, 100);
        api_until(&api, e->got == 100 * i);
        if (api.is_sim) {
            api_watch(&api, MS(150));
            cr_assert_eq(e->timeouts, 0, "though bytes came");
        }
    }
    while (e->timeouts == 0) {
        if (gyre_conn_outbound(e->c) == 0)
            end_put(e, 1);
        (void)peer_recv_some(&peer, SIZE_MAX);
        if (api.is_sim) /* its clock stands still while there is something to do, and here there always is */
            gyre_sim_advance(api.sim, (uint64_t)MS(1));
        api_turn(&api);
    }
    assert_on_time(&api, seen.from_ns, MS(200));
    cr_assert_eq(seen.kind, GYRE_TIMEOUT_READ);
    peer_close(&peer);
    api_close(&api);
}

/* Paused, we do not wait for the peer; resuming starts the time anew. Its end ends the waiting, too. */
BACKEND_TEST(api_limits, read_only_while_receiving)
{
    static const struct script script = {.timeout = note, .eof = end_ignore};
    struct api api;
    struct peer peer;
    start(&api, p, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(40)), 0);
    cr_assert_eq(gyre_conn_pause(e->c), 0);
    api_watch(&api, MS(130));
    cr_assert_eq(e->timeouts, 0, "while paused");
    seen.from_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_until(&api, e->timeouts == 1);
    cr_assert_geq((int64_t)(seen.at_ns - seen.from_ns), MS(40), "the pause counted");
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    unsigned before = e->timeouts;
    api_watch(&api, MS(130));
    cr_assert_eq(e->timeouts, before, "after the peer's end");
    peer_close(&peer);
    api_close(&api);
}

/* A peer that does not read: the time counts from the last byte that the kernel took; not while nothing is queued. */
TRANSPORT_TEST(api_limits, write)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_set_write_timeout(e->c, MS(40)), 0);
    api_watch(&api, MS(100));
    cr_assert_eq(e->timeouts, 0, "with nothing to send");
    uint64_t from_ns = api_now_ns(&api);
    end_put(e, 12 << 20);
    api_until(&api, e->timeouts == 1);
    cr_assert_eq(seen.kind, GYRE_TIMEOUT_WRITE);
    cr_assert_geq((int64_t)(seen.at_ns - from_ns), MS(40), "early");
    from_ns = seen.at_ns;
    api_until(&api, e->timeouts == 2);
    assert_on_time(&api, from_ns, MS(40));
    peer_expect(&peer, 12 << 20);
    api_until(&api, gyre_conn_outbound(e->c) == 0);
    unsigned before = e->timeouts;
    api_watch(&api, MS(100));
    cr_assert_eq(e->timeouts, before, "after everything was sent");
    end_put(e, 12 << 20); /* and what comes then is limited again */
    api_until(&api, e->timeouts > before);
    peer_close(&peer);
    api_close(&api);
}

/* What is corked waits for the user, not for the peer: the time counts from the uncorking. By virtual time it does not
 * pass until the peer has everything. */
BACKEND_TEST(api_limits, write_not_while_corked)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, &(struct gyre_conn_options){.write_timeout_ns = MS(30)});
    struct end *e = peer_open(&api, &peer);
    gyre_conn_cork(e->c);
    end_put(e, 1000);
    api_watch(&api, MS(100));
    cr_assert_eq(e->timeouts, 0);
    uint64_t from_ns = gyre_loop_now_ns(api.loop);
    gyre_conn_uncork(e->c);
    peer_expect(&peer, 1000);
    if (api.is_sim)
        cr_assert_eq(e->timeouts, 0);
    else if (e->timeouts > 0) /* this process did not run for so long */
        assert_on_time(&api, from_ns, MS(30));
    peer_close(&peer);
    api_close(&api);
}

/* From the listener's options; whatever moves; without a handler it is the end. */
TRANSPORT_TEST(api_limits, lifetime)
{
    struct api api;
    struct peer peer;
    start(&api, p, &closing, &(struct gyre_conn_options){.lifetime_ns = MS(60)});
    uint64_t from_ns = api_now_ns(&api);
    struct end *e = peer_open(&api, &peer);
    while (e->closes == 0) {
        (void)peer_send_some(&peer, 10);
        if (api.is_sim) /* with bytes on their way, time would never pass by itself */
            gyre_sim_advance(api.sim, (uint64_t)MS(1));
        api_turn(&api);
    }
    cr_assert_geq((int64_t)(seen.at_ns - from_ns), MS(60), "early");
    cr_assert_eq(seen.kind_at_close, GYRE_TIMEOUT_LIFETIME);
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    peer_close(&peer);
    api_close(&api);
}

/* It comes once; another may be set; taken away, it does not come. Exact by virtual time. */
BACKEND_TEST(api_limits, lifetime_once)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    uint64_t from_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, MS(25)), 0);
    api_until(&api, e->timeouts == 1);
    assert_on_time(&api, from_ns, MS(25));
    cr_assert_eq(seen.kind, GYRE_TIMEOUT_LIFETIME);
    api_watch(&api, MS(80));
    cr_assert_eq(e->timeouts, 1);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, MS(25)), 0);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, 0), 0);
    api_watch(&api, MS(80));
    cr_assert_eq(e->timeouts, 1);
    peer_close(&peer);
    api_close(&api);
}

/* Several at once, on one timer: each in its time, and none in the way of another. */
BACKEND_TEST(api_limits, together)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    uint64_t from_ns = api_now_ns(&api);
    cr_assert_eq(gyre_conn_set_idle_timeout(e->c, MS(70)), 0);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(20)), 0);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, MS(150)), 0);
    api_until(&api, seen.count[GYRE_TIMEOUT_LIFETIME] == 1);
    assert_on_time(&api, from_ns, MS(150));
    cr_assert_geq(seen.count[GYRE_TIMEOUT_IDLE], 1);
    cr_assert_geq(seen.count[GYRE_TIMEOUT_READ], 2);
    if (api.is_sim) {
        cr_assert_eq(seen.count[GYRE_TIMEOUT_IDLE], 2);
        cr_assert_eq(seen.count[GYRE_TIMEOUT_READ], 7);
    }
    cr_assert_eq(seen.count[GYRE_TIMEOUT_WRITE], 0);
    peer_close(&peer);
    api_close(&api);
}

/* on_timeout may set the limit anew, and may end the connection, another limit being due in the same turn. */
BACKEND_TEST(api_limits, in_the_handler)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    seen.set_read_ns = MS(100);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(10)), 0);
    api_until(&api, e->timeouts == 1);
    uint64_t from_ns = seen.at_ns;
    api_until(&api, e->timeouts == 2);
    assert_on_time(&api, from_ns, MS(100));
    seen.close = true;
    seen.set_read_ns = 0;
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(5)), 0);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, MS(5)), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->timeouts, 3);
    cr_assert_eq(e->reason, GYRE_CLOSE_ABORT);
    peer_close(&peer);
    api_close(&api);
}

/* The other kinds are told apart, too: idling, and a peer that does not close. For a connection that was made as for
 * one that was accepted. */
BACKEND_TEST(api_limits, kinds)
{
    struct api api;
    struct peer peer;
    start(&api, p, &closing, &(struct gyre_conn_options){.idle_timeout_ns = MS(20)});
    struct end *e = peer_open(&api, &peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(seen.kind_at_close, GYRE_TIMEOUT_IDLE);
    peer_close(&peer);
    api_close(&api);

    start(&api, p, &closing, &(struct gyre_conn_options){.linger_timeout_ns = MS(20)});
    e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(seen.kind_at_close, GYRE_TIMEOUT_LINGER);
    peer_close(&peer);
    api_close(&api);

    start(&api, p, NULL, NULL);
    e = api_connect(&api, api.address, &closing,
                    &(struct gyre_conn_options){.read_timeout_ns = MS(20), .write_timeout_ns = MS(500)});
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->opens, 1);
    cr_assert_eq(seen.kind_at_close, GYRE_TIMEOUT_READ);
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    api_close(&api);
}

static void drop(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static const struct gyre_conn_handlers dropping = {.on_data = drop};

BACKEND_TEST(api_limits, errors)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_set_read_timeout(NULL, 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, -1), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_write_timeout(e->c, -1), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, -1), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_read_timeout(e->c, INT64_MAX), 0);
    cr_assert_eq(gyre_conn_set_lifetime(e->c, INT64_MAX), 0);
    api_watch(&api, MS(10));
    cr_assert_eq(e->timeouts, 0);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_set_write_timeout(e->c, 1), GYRE_ECLOSED);
    static const struct gyre_conn_options bad[] = {
        {.read_timeout_ns = -1}, {.write_timeout_ns = -1}, {.lifetime_ns = -1}};
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(gyre_connect(NULL, api.loop, api.address, &dropping, &bad[i]), GYRE_EOPTION);
    peer_close(&peer);
    api_close(&api);
}

/* A peer that reads slowly, but all the time: the limit on sending does not pass, whether a send tells of it or not. */
TRANSPORT_TEST(api_limits, write_counts_what_the_peer_takes)
{
    struct api api;
    struct peer peer;
    start(&api, p, &noting, &(struct gyre_conn_options){.send_buffer_bytes = 16384});
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_set_write_timeout(e->c, MS(400)), 0);
    end_put(e, 4 << 20);
    uint64_t from_ns = api_now_ns(&api);
    while (api_now_ns(&api) - from_ns < (uint64_t)MS(2000)) {
        (void)peer_recv_some(&peer, 3000);
        api_watch(&api, MS(6));
    }
    cr_assert_eq(e->timeouts, 0, "%u times, although the peer read %llu bytes", e->timeouts,
                 (unsigned long long)peer.got);
    cr_assert_gt(gyre_conn_outbound(e->c), 0);
    api_until(&api, e->timeouts == 1); /* and when it reads no more, it passes */
    cr_assert_eq(seen.kind, GYRE_TIMEOUT_WRITE);
    peer_close(&peer);
    api_close(&api);
}
