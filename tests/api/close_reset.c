/* SPDX-License-Identifier: MIT
 * gyre_conn_close_reset(): all that was queued arrives, and then no clean end. */
#include "fixture.h"

#include <errno.h>

/* Closing with a reset: a slow reader gets everything, and then no clean end but a reset. */
TRANSPORT_TEST(api_close_reset, close_reset_delivers_first)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MIB(8));
    cr_assert_eq(gyre_conn_close_reset(e->c), 0);
    cr_assert_eq(gyre_conn_close_reset(e->c), 0);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_write(e->c, "x", 1), GYRE_ECLOSED);
    while (!peer.eof && peer.err == 0) {
        (void)peer_recv_some(&peer, 60000);
        api_turn(&api);
    }
    cr_assert_eq(peer.got, MIB(8), "%s after %llu", gyre_err_name(peer.err), (unsigned long long)peer.got);
    if (is_tcp(&api))
        cr_assert_eq(peer.err, -ECONNRESET, "%s", gyre_err_name(peer.err));
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->unsent, 0);
    peer_close(&peer);
    api_close(&api);
}

/* A peer that never reads: the linger time ends a close with a reset, too. */
BACKEND_TEST(api_close_reset, close_reset_linger_time)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.linger_timeout_ns = MS(100)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    end_put(e, MIB(12));
    cr_assert_eq(gyre_conn_close_reset(e->c), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_TIMEOUT);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    cr_assert_gt(e->unsent, 0);
    peer_close(&peer);
    api_close(&api);
}
