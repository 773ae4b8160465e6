/* SPDX-License-Identifier: MIT
 * What ICMP says of a connected datagram socket's peer is an error of the network: the socket stays open and works. */
#include "net.h"
#include "udp.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Tell the sender of a datagram from `from` to `to`, both ports of ::1, that it was not delivered. */
static void send_icmp6(const struct sockaddr_in6 *from, const struct sockaddr_in6 *to, uint8_t type, uint8_t code)
{
    struct {
        struct icmp6_hdr icmp;
        struct ip6_hdr ip;
        struct udphdr udp;
    } packet;
    const struct sockaddr_in6 self = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    memset(&packet, 0, sizeof packet);
    packet.icmp.icmp6_type = type;
    packet.icmp.icmp6_code = code;
    packet.ip.ip6_vfc = 6 << 4;
    packet.ip.ip6_nxt = IPPROTO_UDP;
    packet.ip.ip6_hlim = 64;
    packet.ip.ip6_plen = htons(sizeof packet.udp);
    packet.ip.ip6_src = packet.ip.ip6_dst = in6addr_loopback;
    packet.udp.source = from->sin6_port;
    packet.udp.dest = to->sin6_port;
    packet.udp.len = htons(sizeof packet.udp);
    int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
    cr_assert_geq(fd, 0, "a raw socket: %s", strerror(errno));
    cr_assert_eq(sendto(fd, &packet, sizeof packet, 0, (const struct sockaddr *)&self, sizeof self), sizeof packet);
    cr_assert_eq(close(fd), 0);
}

/* Administratively prohibited, no such port, policy failed, route rejected, a parameter problem. */
DGRAM_REAL_TEST(api_udp_icmp, connected_socket_stays_open)
{
    static const struct {
        uint8_t type, code;
        int err;
    } said[] = {{1, 1, -EACCES}, {1, 4, -ECONNREFUSED}, {1, 5, -EACCES}, {1, 6, -EACCES}, {4, 1, -EPROTO}};
    struct api api;
    struct dsock peer, s;
    struct sockaddr_storage me, it;
    socklen_t len;
    net_own();
    udp_start(&api, p);
    cr_assert_eq(udp_try_bind(&api, &peer, "udp://[::1]:0", NULL, NULL), 0);
    cr_assert_eq(udp_try_connect(&api, &s, gyre_udp_address(peer.u), NULL, NULL), 0);
    cr_assert_eq(gyre_udp_local_address(&me, &len, s.u), 0);
    cr_assert_eq(gyre_udp_peer_address(&it, &len, s.u), 0);
    api_watch(&api, MS(1));
    for (unsigned i = 0; i < sizeof said / sizeof said[0]; i++) {
        send_icmp6((struct sockaddr_in6 *)&me, (struct sockaddr_in6 *)&it, said[i].type, said[i].code);
        api_until(&api, s.errors == i + 1 || s.closes > 0);
        cr_assert_eq(s.closes, 0, "closed with %s", gyre_err_name(s.err));
        cr_assert_eq(s.last_err, said[i].err, "%s", gyre_err_name(s.last_err));
        cr_assert_eq(udp_send(&s, i, 100), 0);
        api_until(&api, peer.datagrams == i + 1);
    }
    udp_close(&s);
    udp_close(&peer);
    api_close(&api);
}

/* A send that meets what ICMP said of an earlier datagram is made again; the error is told once, and the datagrams that
 * followed arrive: one, and several that leave together. */
DGRAM_REAL_TEST(api_udp_icmp, sends_go_on)
{
    static const uint8_t codes[] = {1, 5, 6};
    struct api api;
    struct dsock peer, s;
    struct sockaddr_storage me, it;
    socklen_t len;
    unsigned sent = 0, errors = 0;
    net_own();
    udp_start(&api, p);
    cr_assert_eq(udp_try_bind(&api, &peer, "udp://[::1]:0", NULL, NULL), 0);
    cr_assert_eq(udp_try_connect(&api, &s, gyre_udp_address(peer.u), NULL, NULL), 0);
    cr_assert_eq(gyre_udp_local_address(&me, &len, s.u), 0);
    cr_assert_eq(gyre_udp_peer_address(&it, &len, s.u), 0);
    cr_assert_eq(gyre_udp_pause(s.u), 0); /* or the receive would be told */
    api_watch(&api, MS(1));
    for (unsigned count = 1; count <= 5; count += 4) {
        for (unsigned i = 0; i < sizeof codes; i++) {
            send_icmp6((struct sockaddr_in6 *)&me, (struct sockaddr_in6 *)&it, 1, codes[i]);
            for (unsigned k = 0; k < count; k++, sent++)
                cr_assert_eq(udp_send(&s, sent, 100), 0);
            api_until(&api, peer.datagrams == sent && gyre_udp_outbound(s.u) == 0);
            cr_assert_eq(s.errors, ++errors, "code %u: told of %u", codes[i], s.errors);
            cr_assert_eq(s.last_err, -EACCES, "%s", gyre_err_name(s.last_err));
        }
    }
    cr_assert_eq(peer.distinct, sent);
    cr_assert_not(peer.disorder);
    udp_close(&s);
    udp_close(&peer);
    cr_assert_eq(s.stats.sent, sent);
    cr_assert_eq(s.stats.errors, errors);
    cr_assert_eq(s.stats.send_errors, 0);
    api_close(&api);
}

/* ---- A receive that fails for ever with the same error is not tried again and again. ---- */

static _Atomic(bool) unreachable;

/* In place of the C library's, for this program and the library in it. */
int recvmmsg(int fd, struct mmsghdr *msgs, unsigned count, int flags, struct timespec *timeout)
{
    if (!unreachable)
        return (int)syscall(SYS_recvmmsg, fd, msgs, count, flags, timeout);
    errno = EHOSTUNREACH;
    return -1;
}

DGRAM_REAL_TEST(api_udp_icmp, receive_that_always_fails)
{
    enum { AT_ONCE = 64, PAUSE_MS = 10, WATCH_MS = 100 };
    struct api api;
    struct dsock a, b;
    if (strcmp(p->backend, "io_uring") == 0) /* the kernel receives */
        return;
    udp_start(&api, p);
    udp_bind(&api, &a, NULL, NULL);
    udp_connect(&api, &b, gyre_udp_address(a.u), NULL, NULL);
    unreachable = true;
    uint64_t from_ns = env_now_ns();
    cr_assert_eq(udp_send(&b, 1, 100), 0);
    api_watch(&api, MS(WATCH_MS));
    uint64_t most = AT_ONCE + (env_now_ns() - from_ns) / (uint64_t)MS(PAUSE_MS) + 1;
    cr_assert_geq(a.errors, AT_ONCE, "told of %u errors", a.errors);
    cr_assert_leq(a.errors, most, "told of %u errors", a.errors);
    cr_assert_eq(a.last_err, -EHOSTUNREACH);
    unreachable = false;
    api_until(&api, a.datagrams == 1);
    udp_close(&b);
    udp_close(&a);
    api_close(&api);
}
