/* SPDX-License-Identifier: MIT
 * Datagrams there and back: over UDP and unix, answered and sent to an address, of every size. */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct dscript echo = {.datagram = udp_echo};

/* What a connected socket sends to an echoing one comes back, each once and whole. */
DGRAM_TRANSPORT_TEST(api_udp_echo, reply)
{
    static const size_t sizes[] = {4, 5, 64, 1400, 1472, 9000, 16000};
    struct api api;
    struct dsock server, client;
    udp_start(&api, p);
    udp_bind(&api, &server, &echo, NULL);
    udp_connect(&api, &client, gyre_udp_address(server.u), NULL, NULL);
    for (uint32_t i = 0; i < 70; i++) {
        cr_assert_eq(udp_send(&client, i, sizes[i % 7]), 0);
        if (i % 10 == 9)
            api_until(&api, client.datagrams == i + 1);
    }
    cr_assert_eq(client.distinct, 70);
    cr_assert_eq(server.distinct, 70);
    udp_close(&client);
    udp_close(&server);
    cr_assert_eq(client.stats.sent, 70);
    cr_assert_eq(client.stats.received, 70);
    cr_assert_eq(server.stats.received, 70);
    cr_assert_eq(server.stats.sent, 70);
    cr_assert_eq(client.stats.received_bytes, client.bytes);
    cr_assert_eq(server.stats.sent_bytes, client.bytes);
    api_close(&api);
}

/* Datagrams that one turn queued leave in order, and more than one window of them. */
DGRAM_TRANSPORT_TEST(api_udp_echo, order)
{
    struct api api;
    struct dsock server, client;
    udp_start_roomy(&api, p);
    udp_bind(&api, &server, NULL, &(struct gyre_udp_options){.recv_buffer_bytes = 1 << 20});
    udp_connect(&api, &client, gyre_udp_address(server.u), NULL, NULL);
    for (uint32_t i = 0; i < 100; i++)
        cr_assert_eq(udp_send(&client, i, 20), 0);
    api_until(&api, server.datagrams == 100);
    cr_assert_eq(server.distinct, 100);
    cr_assert(!server.disorder);
    cr_assert_eq(gyre_udp_outbound(client.u), 0);
    udp_close(&client);
    udp_close(&server);
    api_close(&api);
}

/* Two bound sockets that name each other for each datagram. */
DGRAM_TRANSPORT_TEST(api_udp_echo, send_to)
{
    struct api api;
    struct dsock a, b;
    struct sockaddr_storage to;
    socklen_t to_len;
    uint8_t data[100];
    udp_start(&api, p);
    udp_bind(&api, &a, &echo, NULL);
    udp_bind(&api, &b, NULL, NULL);
    cr_assert_eq(gyre_udp_parse(&to, &to_len, gyre_udp_address(a.u)), 0);
    for (uint32_t i = 0; i < 8; i++) {
        udp_fill(data, sizeof data, i);
        cr_assert_eq(gyre_udp_send_to(b.u, (const struct sockaddr *)&to, to_len, data, sizeof data), 0);
    }
    api_until(&api, b.datagrams == 8);
    cr_assert_eq(b.distinct, 8);
    cr_assert_eq(gyre_udp_send(b.u, data, sizeof data), -EDESTADDRREQ);
    udp_close(&a);
    udp_close(&b);
    api_close(&api);
}

static void count_only(struct dsock *s, const struct gyre_datagram *d)
{
    cr_assert_eq(gyre_udp_reply(s->u, d, NULL, 0), 0);
}

/* An empty datagram is a datagram. */
DGRAM_TRANSPORT_TEST(api_udp_echo, empty)
{
    static const struct dscript count = {.datagram = count_only};
    struct api api;
    struct dsock server, client;
    udp_start(&api, p);
    udp_bind(&api, &server, &count, NULL);
    udp_connect(&api, &client, gyre_udp_address(server.u), &count, NULL);
    cr_assert_eq(gyre_udp_send(client.u, NULL, 0), 0);
    api_until(&api, client.datagrams >= 5);
    cr_assert_eq(client.bytes, 0);
    cr_assert_eq(client.len_last, 0);
    udp_close(&client);
    udp_close(&server);
    api_close(&api);
}
