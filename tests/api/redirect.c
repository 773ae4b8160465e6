/* SPDX-License-Identifier: MIT
 * What a transparent proxy asks: where a client meant to go that the firewall has sent here. On a network of the
 * test's own, with a rule of nftables. */
#include "fixture.h"
#include "net.h"

#include "socket/addr.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MEANT = 4444 };

/* The port that the api listens on. */
static uint16_t own_port(const struct api *api)
{
    struct gyre__address own;
    cr_assert_eq(gyre__addr_parse(&own, api->address), 0);
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)&own.addr.ss;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&own.addr.ss;
    return ntohs(own.addr.ss.ss_family == AF_INET ? in4->sin_port : in6->sin6_port);
}

/* A client that goes to `address` comes here instead, and is known to have meant that; one that comes by itself is
 * tracked, too, and meant this. */
static void expect_meant(struct api *api, const char *address)
{
    const char *const ways[2] = {address, api->address};
    for (unsigned i = 0; i < 2; i++) {
        struct peer peer;
        struct gyre__address meant;
        struct gyre__addr got = {.len = 0};
        unsigned before = api->accepted;
        char text[GYRE_ADDR_TEXT_MAX];
        cr_assert_eq(gyre__addr_parse(&meant, ways[i]), 0);
        peer_connect(api, &peer, ways[i]);
        api_until(api, api->accepted > before);
        struct end *e = api_newest(api);
        peer.key_in = e->key_out;
        peer.key_out = e->key_in;
        int err = gyre_conn_original_address(&got.ss, &got.len, e->c);
        cr_assert_eq(err, 0, "%s", gyre_err_name(err));
        gyre__addr_format(&got, text, sizeof text);
        cr_assert_eq(got.len, meant.addr.len);
        cr_assert_str_eq(text, ways[i]);
        peer_send(&peer, 1000);
        api_until(api, e->got == 1000);
        peer_close(&peer);
        api_until(api, e->closes == 1);
    }
}

TRANSPORT_TEST(api_redirect, original_address)
{
    struct api api;
    char address[64];
    bool inet = p->transport == TRANSPORT_TCP4 || p->transport == TRANSPORT_TCP6;
    if (inet && backends_is_real(p->backend))
        net_own();
    api_start(&api, p, NULL);
    if (!inet || api.is_sim) { /* there the firewall has no say, and sockopt.c has the answer */
        api_close(&api);
        return;
    }
    net_redirect(MEANT, own_port(&api));
    (void)snprintf(address, sizeof address, "tcp://%s:%d", p->transport == TRANSPORT_TCP4 ? "127.0.0.2" : "[::1]",
                   MEANT);
    expect_meant(&api, address);
    api_close(&api);
}
