/* SPDX-License-Identifier: MIT
 * Options of datagram sockets, and what they make possible: both families, addresses asked, ECN, cut and joined
 * datagrams, multicast, broadcast, devices, large datagrams.
 *
 * Where a kernel refuses one of them here, the test says so and what it refused with. */
#include "net.h"
#include "udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct dscript echo = {.datagram = udp_echo};

static in_port_t port_of(struct dsock *s)
{
    struct sockaddr_storage addr;
    socklen_t len;
    cr_assert_eq(gyre_udp_local_address(&addr, &len, s->u), 0);
    return addr.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&addr)->sin6_port)
                                      : ntohs(((struct sockaddr_in *)&addr)->sin_port);
}

/* A loop with receive buffers of that size. */
static void start_large(struct api *api, const struct backend_param *p, uint32_t buf_size)
{
    udp_init(api, p);
    api->options.buf_size_bytes = buf_size;
    api->options.buf_count_max = 64;
    api_open(api);
}

/* The largest datagrams there are go through, given buffers for them. */
DGRAM_TRANSPORT_TEST(api_udp_options, largest)
{
    struct api api;
    struct dsock s, c;
    start_large(&api, p, 66000);
    udp_bind(&api, &s, &echo, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(udp_send(&c, 1, 65507), 0);
    api_until(&api, c.datagrams == 1);
    cr_assert_eq(c.len_last, 65507);
    cr_assert(!c.truncated_last);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

static void count_only(struct dsock *s, const struct gyre_datagram *d)
{
    (void)s;
    cr_assert(d->truncated);
}

/* What is longer than a receive buffer comes cut, marked and counted. */
DGRAM_TRANSPORT_TEST(api_udp_options, truncated)
{
    static const struct dscript count = {.datagram = count_only};
    struct api api;
    struct dsock s, c;
    start_large(&api, p, 1024);
    udp_bind(&api, &s, &count, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(udp_send(&c, 1, 2000), 0);
    api_until(&api, s.datagrams == 1);
    cr_assert_lt(s.len_last, 1024);
    cr_assert_gt(s.len_last, 1024 - 200);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(s.stats.truncated, 1);
    api_close(&api);
}

/* One socket for both families is reached by both, and can name an IPv4 receiver in either way. */
DGRAM_BACKEND_TEST(api_udp_options, dual)
{
    struct api api;
    struct dsock s, c4, c6, v4;
    struct sockaddr_storage to;
    socklen_t to_len;
    char address[64];
    uint8_t data[30];
    udp_start(&api, p);
    cr_assert_eq(udp_try_bind(&api, &s, "udp://:0", &echo, NULL), 0);
    (void)snprintf(address, sizeof address, "udp://127.0.0.1:%u", port_of(&s));
    udp_connect(&api, &c4, address, NULL, NULL);
    (void)snprintf(address, sizeof address, "udp://[::1]:%u", port_of(&s));
    udp_connect(&api, &c6, address, NULL, NULL);
    cr_assert_eq(udp_send(&c4, 4, 20), 0);
    cr_assert_eq(udp_send(&c6, 6, 20), 0);
    api_until(&api, c4.datagrams == 1 && c6.datagrams == 1);
    cr_assert_eq(udp_try_bind(&api, &v4, "udp4://127.0.0.1:0", NULL, NULL), 0);
    cr_assert_eq(gyre_udp_parse(&to, &to_len, gyre_udp_address(v4.u)), 0);
    udp_fill(data, sizeof data, 9);
    cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&to, to_len, data, sizeof data), 0);
    api_until(&api, v4.datagrams == 1);
    cr_assert_eq(v4.seen[9], 1);
    udp_close(&v4);
    udp_close(&c4);
    udp_close(&c6);
    udp_close(&s);
    api_close(&api);
}

/* udp6:// carries IPv6 only, and leaves the port to an IPv4 socket. */
DGRAM_BACKEND_TEST(api_udp_options, v6_only)
{
    struct api api;
    struct dsock s6, s4;
    char address[64];
    struct sockaddr_storage to;
    socklen_t to_len;
    udp_start(&api, p);
    cr_assert_eq(udp_try_bind(&api, &s6, "udp6://:0", NULL, NULL), 0);
    (void)snprintf(address, sizeof address, "udp4://:%u", port_of(&s6));
    cr_assert_eq(udp_try_bind(&api, &s4, address, NULL, NULL), 0);
    cr_assert_eq(gyre_udp_parse(&to, &to_len, "udp://127.0.0.1:9"), 0);
    cr_assert_eq(gyre_udp_send_to(s6.u, (struct sockaddr *)&to, to_len, "x", 1), -EAFNOSUPPORT);
    udp_close(&s6);
    udp_close(&s4);
    api_close(&api);
}

/* A port is one socket's, unless all who want it say that it may be shared. */
DGRAM_BACKEND_TEST(api_udp_options, share_port)
{
    static const struct gyre_udp_options share = {.share_port = true};
    struct api api;
    struct dsock a, b;
    udp_start(&api, p);
    udp_bind(&api, &a, NULL, NULL);
    cr_assert_eq(udp_try_bind(&api, &b, gyre_udp_address(a.u), NULL, NULL), -EADDRINUSE);
    cr_assert_eq(udp_try_bind(&api, &b, gyre_udp_address(a.u), NULL, &share), -EADDRINUSE);
    udp_close(&a);
    udp_bind(&api, &a, NULL, &share);
    cr_assert_eq(udp_try_bind(&api, &b, gyre_udp_address(a.u), NULL, &share), 0);
    for (uint32_t i = 0; i < 32; i++) {
        struct dsock c;
        udp_connect(&api, &c, gyre_udp_address(a.u), NULL, NULL);
        cr_assert_eq(udp_send(&c, i, 20), 0);
        api_until(&api, a.datagrams + b.datagrams == i + 1);
        udp_close(&c);
    }
    cr_assert_gt(a.datagrams, 0, "32 senders, and all meet the same socket");
    cr_assert_gt(b.datagrams, 0, "32 senders, and all meet the same socket");
    udp_close(&a);
    udp_close(&b);
    api_close(&api);
}

/* ---- what control data tell ---- */

static void note_local(struct dsock *s, const struct gyre_datagram *d)
{
    struct sockaddr_storage *local = s->user;
    cr_assert_not_null(d->local);
    cr_assert_gt(d->interface, 0);
    memcpy(local, d->local, d->local_len);
    udp_echo(s, d);
}

/* With pktinfo the address asked is told, and answers leave from it: from 127.0.0.2, where a plain socket bound to
 * every address would have answered from 127.0.0.1, which a connected client does not accept. */
DGRAM_REAL_TEST(api_udp_options, pktinfo)
{
    static const struct dscript noting = {.datagram = note_local};
    static const struct gyre_udp_options pktinfo = {.pktinfo = true};
    static const char *const binds[] = {"udp4://:0", "udp://:0", "udp6://:0"};
    static const char *const asks[] = {"udp://127.0.0.2:%u", "udp://127.0.0.2:%u", "udp://[::1]:%u"};
    for (unsigned i = 0; i < 3; i++) {
        struct api api;
        struct dsock s, c;
        struct sockaddr_storage local = {.ss_family = AF_UNSPEC};
        char address[64], text[INET6_ADDRSTRLEN] = "";
        udp_start(&api, p);
        cr_assert_eq(udp_try_bind(&api, &s, binds[i], &noting, &pktinfo), 0);
        s.user = &local;
        (void)snprintf(address, sizeof address, asks[i], port_of(&s));
        udp_connect(&api, &c, address, NULL, NULL);
        cr_assert_eq(udp_send(&c, 1, 20), 0);
        api_until(&api, c.datagrams == 1);
        if (local.ss_family == AF_INET)
            (void)inet_ntop(AF_INET, &((struct sockaddr_in *)&local)->sin_addr, text, sizeof text);
        else
            (void)inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&local)->sin6_addr, text, sizeof text);
        static const char *const expected[] = {"127.0.0.2", "::ffff:127.0.0.2", "::1"};
        cr_assert_str_eq(text, expected[i]);
        udp_close(&c);
        udp_close(&s);
        api_close(&api);
    }
}

static void note_class(struct dsock *s, const struct gyre_datagram *d)
{
    udp_check(s, d);
    s->n = d->traffic_class;
}

/* The class that one side sets is what the other is told, ECN in its low bits, over both families. */
DGRAM_REAL_TEST(api_udp_options, ecn)
{
    static const struct dscript noting = {.datagram = note_class};
    static const char *const binds[] = {"udp://127.0.0.1:0", "udp://[::1]:0", "udp://:0"};
    for (unsigned i = 0; i < 3; i++) {
        struct api api;
        struct dsock s, c;
        char address[64];
        udp_start(&api, p);
        cr_assert_eq(udp_try_bind(&api, &s, binds[i], &noting, &(struct gyre_udp_options){.ecn = true}), 0);
        (void)snprintf(address, sizeof address, i == 1 ? "udp://[::1]:%u" : "udp://127.0.0.1:%u", port_of(&s));
        udp_connect(&api, &c, address, NULL, &(struct gyre_udp_options){.traffic_class = 0x2a, .ttl = 9});
        cr_assert_eq(udp_send(&c, 1, 20), 0);
        api_until(&api, s.datagrams == 1);
        cr_assert_eq(s.n, 0x2a, "bound to %s: %x", binds[i], s.n);
        udp_close(&c);
        udp_close(&s);
        api_close(&api);
    }
}

/* ---- cut and joined ---- */

/* One send is received as datagrams of the size asked for, the last shorter. */
DGRAM_TRANSPORT_TEST(api_udp_options, segments)
{
    struct api api;
    struct dsock s, c;
    static uint8_t data[10 * 500 + 100];
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 11; i++)
        udp_fill(data + (size_t)i * 500, i < 10 ? 500 : 100, i);
    cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, data, sizeof data, 500), 0);
    api_until(&api, s.datagrams == 11);
    cr_assert_eq(s.distinct, 11);
    cr_assert_eq(s.bytes, sizeof data);
    udp_fill(data, 100, 20);
    cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, data, 100, 500), 0, "less than one is one");
    api_until(&api, s.datagrams == 12);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.sent, 12);
    cr_assert_eq(c.stats.sent_bytes, sizeof data + 100);
    api_close(&api);
}

static void note_whole(struct dsock *s, const struct gyre_datagram *d)
{
    size_t each = d->segment_bytes > 0 ? d->segment_bytes : d->data.len;
    s->n += d->segment_bytes > 0;
    for (size_t at = 0; at < d->data.len; at += each) {
        struct gyre_datagram one = *d;
        one.data.data += at;
        one.data.len = d->data.len - at < each ? d->data.len - at : each;
        udp_check(s, &one);
    }
}

static bool gro_refused(struct api *api, int err)
{
    if (err == 0)
        return false;
    cr_assert_eq(err, -EOPNOTSUPP, "%s", gyre_err_name(err));
    api_close(api);
    cr_skip_test("%s has no UDP_GRO: %s", api->backend, gyre_err_name(err));
    return true;
}

/* What was cut by the kernel comes joined where that was asked for, and is split again or reported. */
DGRAM_REAL_TEST(api_udp_options, gro)
{
    static const struct dscript whole = {.datagram = note_whole};
    static uint8_t data[20 * 1000];
    for (int mode = GYRE_UDP_GRO_SPLIT; mode <= GYRE_UDP_GRO_WHOLE; mode++) {
        struct api api;
        struct dsock s, c;
        const struct gyre_udp_options options = {.gro = (enum gyre_udp_gro)mode};
        start_large(&api, p, 65792);
        int err = udp_try_bind(&api, &s, "udp://127.0.0.1:0", mode == GYRE_UDP_GRO_WHOLE ? &whole : NULL, &options);
        if (gro_refused(&api, err))
            return;
        udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
        for (uint32_t i = 0; i < 20; i++)
            udp_fill(data + (size_t)i * 1000, 1000, i);
        cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, data, sizeof data, 1000), 0);
        api_until(&api, s.distinct == 20);
        cr_assert(!s.disorder);
        if (mode == GYRE_UDP_GRO_WHOLE)
            cr_assert_gt(s.n, 0, "nothing came joined");
        udp_close(&c);
        udp_close(&s);
        cr_assert_eq(s.stats.received, 20);
        api_close(&api);
    }
}

static void pause_each(struct dsock *s, const struct gyre_datagram *d)
{
    udp_check(s, d);
    cr_assert_eq(gyre_udp_pause(s->u), 0);
}

/* Pausing in the middle of a joined datagram, with another one on its way: the rest comes on resume, each once. */
DGRAM_REAL_TEST(api_udp_options, gro_pause)
{
    static const struct dscript pausing = {.datagram = pause_each};
    enum { EACH = 12, COUNT = 2 * EACH };
    static uint8_t data[COUNT * 1000];
    struct api api;
    struct dsock s, c;
    start_large(&api, p, 65792);
    const struct gyre_udp_options split = {.gro = GYRE_UDP_GRO_SPLIT};
    int err = udp_try_bind(&api, &s, "udp://127.0.0.1:0", &pausing, &split);
    if (gro_refused(&api, err))
        return;
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < COUNT; i++)
        udp_fill(data + (size_t)i * 1000, 1000, i);
    for (unsigned i = 0; i < COUNT; i += EACH)
        cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, data + (size_t)i * 1000, EACH * 1000, 1000), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        api_until(&api, s.datagrams == i + 1);
        cr_assert_eq(gyre_udp_resume(s.u), 0);
    }
    cr_assert_eq(s.distinct, COUNT);
    cr_assert(!s.disorder);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

/* ---- groups, everybody, devices ---- */

/* Skips, and shows why, if this kernel or network has none of it and need not. */
static void need(struct api *api, int err, const char *what)
{
    if (err == 0)
        return;
    bool refused = err == -ENODEV || err == -EADDRNOTAVAIL || err == -ENETUNREACH || err == -EPERM || err == -EACCES;
    cr_assert(refused && !backends_required("network"), "%s: %s", what, gyre_err_name(err));
    api_close(api);
    cr_skip_test("the kernel refuses %s: %s", what, gyre_err_name(err));
}

/* Two sockets bound to a group both get what is sent to it; one that leaves gets no more until it joins again. */
static void multicast(const struct backend_param *p, const char *group_format, const char *sender_address)
{
    uint32_t lo = if_nametoindex("lo");
    struct api api;
    struct dsock a, b, sender;
    struct sockaddr_storage group;
    socklen_t group_len;
    char address[64];
    uint8_t data[40];
    const struct gyre_udp_options member = {.multicast_interface = lo, .reuse_address = true};
    udp_start(&api, p);
    (void)snprintf(address, sizeof address, group_format, 0u);
    need(&api, udp_try_bind(&api, &a, address, NULL, &member), "joining a group on lo");
    (void)snprintf(address, sizeof address, group_format, port_of(&a));
    cr_assert_eq(udp_try_bind(&api, &b, address, NULL, &member), 0);
    cr_assert_eq(gyre_udp_parse(&group, &group_len, address), 0);
    const struct sockaddr *to = (const struct sockaddr *)&group;
    cr_assert_eq(gyre_udp_join(b.u, to, group_len, lo), -EADDRINUSE, "is a member already");
    cr_assert_eq(gyre_udp_leave(b.u, to, group_len, lo), 0);
    cr_assert_eq(gyre_udp_leave(b.u, to, group_len, lo), -EADDRNOTAVAIL, "is none");
    cr_assert_eq(gyre_udp_join(b.u, to, group_len, lo), 0);
    cr_assert_eq(udp_try_bind(&api, &sender, sender_address, NULL,
                              &(struct gyre_udp_options){.multicast_interface = lo, .multicast_ttl = 1}), 0);
    udp_fill(data, sizeof data, 1);
    cr_assert_eq(gyre_udp_send_to(sender.u, to, group_len, data, sizeof data), 0);
    api_until(&api, (a.datagrams == 1 && b.datagrams == 1) || sender.errors > 0);
    if (sender.errors > 0) {
        udp_close(&sender);
        udp_close(&a);
        udp_close(&b);
    }
    need(&api, sender.last_err, "sending to a group on lo");
    udp_close(&sender);
    udp_close(&a);
    udp_close(&b);
    api_close(&api);
}

DGRAM_REAL_TEST(api_udp_options, multicast4)
{
    multicast(p, "udp://239.7.7.7:%u", "udp://127.0.0.1:0");
}

/* A loopback device has no route for IPv6 multicast by itself, but is given one where it is the test's own. */
DGRAM_REAL_TEST(api_udp_options, multicast6)
{
    net_own();
    net_route_multicast6();
    multicast(p, "udp://[ff15::7:7]:%u", "udp://[::1]:0");
}

/* Sending to everybody is refused until it is allowed. */
DGRAM_REAL_TEST(api_udp_options, broadcast)
{
    struct api api;
    struct dsock s, c;
    struct sockaddr_storage all;
    socklen_t len;
    char address[64];
    uint8_t data[40];
    udp_start(&api, p);
    cr_assert_eq(udp_try_bind(&api, &s, "udp4://:0", NULL, NULL), 0);
    (void)snprintf(address, sizeof address, "udp://127.255.255.255:%u", port_of(&s));
    cr_assert_eq(gyre_udp_parse(&all, &len, address), 0);
    cr_assert_eq(udp_try_bind(&api, &c, "udp://127.0.0.1:0", NULL, NULL), 0);
    udp_fill(data, sizeof data, 1);
    cr_assert_eq(gyre_udp_send_to(c.u, (struct sockaddr *)&all, len, data, sizeof data), 0);
    api_until(&api, c.errors == 1);
    cr_assert_eq(c.last_err, -EACCES);
    udp_close(&c);
    cr_assert_eq(udp_try_bind(&api, &c, "udp://127.0.0.1:0", NULL, &(struct gyre_udp_options){.broadcast = true}), 0);
    udp_fill(data, sizeof data, 2);
    cr_assert_eq(gyre_udp_send_to(c.u, (struct sockaddr *)&all, len, data, sizeof data), 0);
    api_until(&api, s.datagrams == 1 || c.errors > 0);
    cr_assert_eq(c.errors, 0, "sending to everybody on lo: %s", gyre_err_name(c.last_err));
    cr_assert_eq(s.seen[2], 1);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

/* Bound to a device it works through that, and a device that is not there is told. */
DGRAM_REAL_TEST(api_udp_options, device)
{
    struct api api;
    struct dsock s, c;
    udp_start(&api, p);
    int err = udp_try_bind(&api, &s, "udp://127.0.0.1:0", &echo, &(struct gyre_udp_options){.device = "lo"});
    need(&api, err, "SO_BINDTODEVICE");
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.device = "lo"});
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, c.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(udp_try_bind(&api, &s, "udp://127.0.0.1:0", NULL, &(struct gyre_udp_options){.device = "no-such-dev"}),
                 -ENODEV);
    cr_assert_eq(udp_try_bind(&api, &s, "udp://127.0.0.1:0", NULL,
                              &(struct gyre_udp_options){.device = "a-name-that-is-too-long"}), -ENODEV);
    api_close(&api);
}

/* What a unix socket does not have is said so. */
BACKENDS_TEST_OF(backends_each_transport, api_udp_options, not_for_unix)
{
    struct api api;
    struct dsock s;
    char address[160];
    if (p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT)
        return;
    udp_start(&api, p);
    udp_fresh_address(&api, address, sizeof address);
    cr_assert_eq(udp_try_bind(&api, &s, address, NULL, &(struct gyre_udp_options){.ttl = 3}), -EOPNOTSUPP);
    cr_assert_eq(udp_try_bind(&api, &s, address, NULL, &(struct gyre_udp_options){.pktinfo = true}), -EOPNOTSUPP);
    cr_assert_eq(udp_try_bind(&api, &s, address, NULL, NULL), 0);
    struct sockaddr_in group = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xef070707)};
    cr_assert_eq(gyre_udp_join(s.u, (struct sockaddr *)&group, sizeof group, 0), -EOPNOTSUPP);
    udp_close(&s);
    api_close(&api);
}

/* A connected socket that is bound to an address of the user's choice first. */
DGRAM_TRANSPORT_TEST(api_udp_options, local)
{
    struct api api;
    struct dsock s, c;
    char local[160];
    struct sockaddr_storage peer, bound;
    socklen_t peer_len, bound_len;
    udp_start(&api, p);
    udp_bind(&api, &s, &echo, NULL);
    udp_fresh_address(&api, local, sizeof local);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.source_address = local});
    if (!is_udp(&api))
        cr_assert_str_eq(gyre_udp_address(c.u), local);
    cr_assert_eq(gyre_udp_peer_address(&peer, &peer_len, c.u), 0);
    cr_assert_eq(gyre_udp_local_address(&bound, &bound_len, s.u), 0);
    cr_assert_eq(peer_len, bound_len);
    cr_assert_eq(memcmp(&peer, &bound, peer_len), 0);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, c.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    const struct gyre_udp_options other = {.source_address = "udp://[::1]:0"};
    cr_assert_eq(udp_try_connect(&api, &c, "udp://127.0.0.1:9", NULL, &other), -EAFNOSUPPORT);
    api_close(&api);
}
