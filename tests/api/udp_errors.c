/* SPDX-License-Identifier: MIT
 * What datagram sockets say to calls that cannot be: too late, from the wrong thread, of the wrong kind, too long. Each
 * time the socket goes on as if nothing had been. */
#include "udp.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct dscript echo = {.datagram = udp_echo};

/* ---- every call ---- */

struct attempt {
    struct gyre_udp *u;
    const struct gyre_datagram *d;
    struct sockaddr_storage to;
    socklen_t to_len;
    int expected;
};

/* Every call that says how it went says `expected`. */
static void try_all(const struct attempt *a)
{
    const struct sockaddr *to = (const struct sockaddr *)&a->to;
    struct gyre_buf *buf;
    struct gyre_slice view;
    const int said[] = {
        gyre_udp_send(a->u, "x", 1),
        gyre_udp_send_to(a->u, to, a->to_len, "x", 1),
        gyre_udp_send_segments(a->u, to, a->to_len, "xyz", 3, 1),
        gyre_udp_reply(a->u, a->d, "x", 1),
        gyre_udp_hold(&buf, &view, a->u, a->d),
        gyre_udp_pause(a->u),
        gyre_udp_resume(a->u),
        gyre_udp_join(a->u, to, a->to_len, 0),
        gyre_udp_leave(a->u, to, a->to_len, 0),
    };
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        cr_assert_eq(said[i], a->expected, "call %zu: %s", i, gyre_err_name(said[i]));
}

static void close_and_try(struct dsock *s, const struct gyre_datagram *d)
{
    struct attempt a = {.u = s->u, .d = d, .expected = GYRE_ECLOSED};
    cr_assert_eq(gyre_udp_local_address(&a.to, &a.to_len, s->u), 0);
    cr_assert_eq(gyre_udp_close(s->u), 0);
    try_all(&a);
}

static void try_at_end(struct dsock *s)
{
    struct attempt a = {.u = s->u, .expected = GYRE_ECLOSED};
    cr_assert_eq(gyre_udp_local_address(&a.to, &a.to_len, s->u), 0);
    try_all(&a);
    cr_assert_eq(gyre_udp_close(s->u), 0);
    cr_assert_eq(gyre_udp_abort(s->u), 0);
    s->n++;
}

/* Closed in the handler, with its datagram at hand; in on_close; and no socket at all. */
DGRAM_TRANSPORT_TEST(api_udp_errors, closed)
{
    static const struct dscript closing = {.datagram = close_and_try, .close = try_at_end};
    struct api api;
    struct dsock s, c;
    struct attempt none = {.expected = GYRE_ECLOSED};
    udp_start(&api, p);
    udp_bind(&api, &s, &closing, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(gyre_udp_local_address(&none.to, &none.to_len, s.u), 0);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, s.closes == 1);
    cr_assert_eq(s.n, 1);
    cr_assert_eq(s.datagrams, 1);
    cr_assert_eq(s.stats.sent, 0);
    try_all(&none);
    udp_close(&c);
    api_close(&api);
}

static void *from_elsewhere(void *arg)
{
    const struct attempt *a = arg;
    struct gyre_loop *loop = gyre_udp_loop(a->u);
    static const struct gyre_udp_handlers none;
    struct gyre_udp *u;
    try_all(a);
    cr_assert_eq(gyre_udp_close(a->u), GYRE_ETHREAD);
    cr_assert_eq(gyre_udp_abort(a->u), GYRE_ETHREAD);
    cr_assert_eq(gyre_udp_open(&u, loop, "udp://127.0.0.1:0", &none, NULL), GYRE_ETHREAD);
    cr_assert_eq(gyre_udp_connect(&u, loop, "udp://127.0.0.1:9", &none, NULL), GYRE_ETHREAD);
    return NULL;
}

/* From a thread that is not the loop's; the socket works as before. */
DGRAM_TRANSPORT_TEST(api_udp_errors, wrong_thread)
{
    struct api api;
    struct dsock s, c;
    pthread_t thread;
    struct attempt a = {.expected = GYRE_ETHREAD};
    udp_start(&api, p);
    udp_bind(&api, &s, &echo, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    api_turn_now(&api); /* from now on the loop has a thread */
    a.u = c.u;
    cr_assert_eq(gyre_udp_local_address(&a.to, &a.to_len, s.u), 0);
    cr_assert_eq(pthread_create(&thread, NULL, from_elsewhere, &a), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, c.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.sent, 1);
    api_close(&api);
}

/* ---- kinds ---- */

/* What only IP has is refused to unix sockets, one by one, and nothing is left of the attempt. */
DGRAM_TRANSPORT_TEST(api_udp_errors, not_for_unix)
{
    static const struct gyre_udp_options ip[] = {{.ttl = 3},
                                                 {.multicast_ttl = 3},
                                                 {.traffic_class = 4},
                                                 {.no_multicast_loop = true},
                                                 {.multicast_interface = 1},
                                                 {.pktinfo = true},
                                                 {.ecn = true}};
    struct api api;
    struct dsock s, c;
    char address[160];
    if (p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT)
        return;
    udp_start(&api, p);
    for (size_t i = 0; i < sizeof ip / sizeof ip[0]; i++) {
        udp_fresh_address(&api, address, sizeof address);
        cr_assert_eq(udp_try_bind(&api, &s, address, NULL, &ip[i]), -EOPNOTSUPP, "option %zu", i);
    }
    udp_bind(&api, &s, &echo, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, c.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

/* Arguments that are no place to write to, and `local` where there is nothing to connect. */
DGRAM_BACKEND_TEST(api_udp_errors, arguments)
{
    struct api api;
    struct dsock s;
    struct sockaddr_storage out;
    socklen_t len;
    struct gyre_buf *buf;
    struct gyre_slice view;
    udp_start(&api, p);
    cr_assert_eq(gyre_udp_parse(NULL, &len, "udp://127.0.0.1:1"), -EINVAL);
    cr_assert_eq(gyre_udp_parse(&out, NULL, "udp://127.0.0.1:1"), -EINVAL);
    cr_assert_eq(gyre_udp_parse(&out, &len, "tcp://127.0.0.1:1"), GYRE_EADDRESS);
    cr_assert_eq(udp_try_bind(&api, &s, "udp://127.0.0.1:0", NULL,
                              &(struct gyre_udp_options){.source_address = "udp://127.0.0.1:0"}),
                 GYRE_EOPTION);
    udp_bind(&api, &s, NULL, NULL);
    cr_assert_eq(gyre_udp_hold(NULL, &view, s.u, NULL), -EINVAL);
    cr_assert_eq(gyre_udp_hold(&buf, NULL, s.u, NULL), -EINVAL);
    cr_assert_eq(gyre_udp_peer_address(&out, &len, s.u), -ENOTCONN);
    cr_assert_eq(gyre_udp_id_send(gyre_udp_id_of(s.u), NULL, 0, NULL, 1), -EINVAL);
    cr_assert_eq(gyre_udp_id_send(gyre_udp_id_of(s.u), (struct sockaddr *)&out, 0, "x", 1), GYRE_EADDRESS);
    cr_assert_eq(gyre_udp_id_send((struct gyre_udp_id){.loop = NULL}, NULL, 0, "x", 1), -EINVAL);
    udp_close(&s);
    api_close(&api);
}

/* ---- lengths ---- */

/* One byte more than a datagram can have is refused by the call; on a socket for both families, where only the kernel
 * knows which header there will be, by on_error. What comes after is sent. */
DGRAM_BACKEND_TEST(api_udp_errors, too_long)
{
    static uint8_t big[65536];
    struct api api;
    struct dsock s, c, dual;
    struct sockaddr_storage to;
    socklen_t to_len;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(gyre_udp_send(c.u, big, 65508), -EMSGSIZE);
    cr_assert_eq(gyre_udp_send(c.u, big, sizeof big), -EMSGSIZE);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    cr_assert_eq(udp_try_bind(&api, &dual, "udp://:0", NULL, NULL), 0);
    cr_assert_eq(gyre_udp_local_address(&to, &to_len, s.u), 0);
    cr_assert_eq(gyre_udp_send_to(dual.u, (struct sockaddr *)&to, to_len, big, 65528), -EMSGSIZE);
    if (strcmp(api.backend, "sim") != 0) { /* its network has no headers */
        cr_assert_eq(gyre_udp_send_to(dual.u, (struct sockaddr *)&to, to_len, big, 65527), 0);
        api_until(&api, dual.errors == 1);
        cr_assert_eq(dual.last_err, -EMSGSIZE);
    }
    udp_fill(big, 20, 2);
    cr_assert_eq(gyre_udp_send_to(dual.u, (struct sockaddr *)&to, to_len, big, 20), 0);
    api_until(&api, s.distinct == 2);
    udp_close(&dual);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(dual.stats.sent, 1);
    cr_assert_eq(dual.stats.send_errors, dual.errors);
    api_close(&api);
}

/* A unix datagram that is longer than the socket's buffer ever has room for. */
DGRAM_TRANSPORT_TEST(api_udp_errors, too_long_for_unix)
{
    static uint8_t big[400000];
    struct api api;
    struct dsock s, c;
    if ((p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT) || strcmp(p->backend, "sim") == 0)
        return;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.send_buffer_bytes = 4096});
    cr_assert_eq(gyre_udp_send(c.u, big, sizeof big), 0);
    api_until(&api, c.errors == 1);
    cr_assert_eq(c.last_err, -EMSGSIZE);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, s.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.send_errors, 1);
    cr_assert_eq(c.stats.sent, 1);
    api_close(&api);
}

static void note_lengths(struct dsock *s, const struct gyre_datagram *d)
{
    size_t *lengths = s->user;
    cr_assert_lt(s->n, 8);
    lengths[s->n++] = d->data.len;
}

/* Empty ones among others, of one turn: each is a datagram, in its place. */
DGRAM_TRANSPORT_TEST(api_udp_errors, empty_among_others)
{
    static const struct dscript noting = {.datagram = note_lengths};
    static const size_t lengths[] = {0, 5, 5, 0, 0, 5, 9, 0};
    size_t seen[8];
    struct api api;
    struct dsock s, c;
    udp_start_roomy(&api, p);
    udp_bind(&api, &s, &noting, NULL);
    s.user = seen;
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(gyre_udp_send(c.u, lengths[i] > 0 ? "ninebytes" : NULL, lengths[i]), 0);
    api_until(&api, s.n == 8);
    cr_assert_eq(memcmp(seen, lengths, sizeof seen), 0);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.sent, 8);
    cr_assert_eq(c.stats.sent_bytes, 24);
    api_close(&api);
}

/* ---- nobody there ---- */

/* A socket that is not connected is not told of ports without anybody; what it sends elsewhere arrives. */
DGRAM_BACKEND_TEST(api_udp_errors, nobody_there)
{
    struct api api;
    struct dsock s, other, gone;
    struct sockaddr_storage nowhere, to;
    socklen_t nowhere_len, to_len;
    uint8_t data[20];
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_bind(&api, &other, NULL, NULL);
    udp_bind(&api, &gone, NULL, NULL);
    cr_assert_eq(gyre_udp_local_address(&nowhere, &nowhere_len, gone.u), 0);
    cr_assert_eq(gyre_udp_local_address(&to, &to_len, other.u), 0);
    udp_close(&gone);
    for (uint32_t i = 0; i < 10; i++) {
        udp_fill(data, sizeof data, i);
        cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&nowhere, nowhere_len, data, sizeof data), 0);
        cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&to, to_len, data, sizeof data), 0);
        api_until(&api, other.distinct == i + 1);
    }
    cr_assert_eq(s.errors, 0, "told of %s", gyre_err_name(s.last_err));
    udp_close(&s);
    udp_close(&other);
    cr_assert_eq(s.stats.sent, 20);
    cr_assert_eq(s.stats.send_errors, 0);
    api_close(&api);
}
