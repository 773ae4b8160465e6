/* SPDX-License-Identifier: MIT
 * The kernel's datagram sockets: making, binding, connecting, tuning.
 *
 * An IPv6 socket that is not for IPv6 only carries IPv4 too, and some options exist once per family: there both are
 * set, and the IPv4 one may fail, because a system need not have it on such a socket. What a system does not have at
 * all is -EOPNOTSUPP. */
#include "sock.h"

#include <sys/types.h> /* as in datagram/parse.c */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

enum { NO_OPTION = -1 };

#ifdef UDP_SEGMENT
enum { OPTION_GSO = UDP_SEGMENT, OPTION_GRO = UDP_GRO };
#else
enum { OPTION_GSO = NO_OPTION, OPTION_GRO = NO_OPTION };
#endif

#ifdef IP_PKTINFO
enum { OPTION_PKTINFO = IP_PKTINFO };
#else
enum { OPTION_PKTINFO = NO_OPTION };
#endif

static int set_int(int fd, int level, int name, int value)
{
    if (name == NO_OPTION)
        return -EOPNOTSUPP;
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

/* For IPv6, and as well as can be for the IPv4 that such a socket carries; or for IPv4. */
static int set_both(int fd, int family, int name6, int name4, int value)
{
    if (family != AF_INET6)
        return set_int(fd, IPPROTO_IP, name4, value);
    int err = set_int(fd, IPPROTO_IPV6, name6, value);
    if (err == 0)
        (void)set_int(fd, IPPROTO_IP, name4, value);
    return err;
}

/* IPv4 takes a struct where IPv6 takes the index. */
static int set_interface4(int fd, int index)
{
    struct ip_mreqn mreq = {.imr_ifindex = index};
    return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &mreq, sizeof mreq) == 0 ? 0 : -errno;
}

static int set_interface(int fd, int family, int index)
{
    if (family != AF_INET6)
        return set_interface4(fd, index);
    int err = set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, index);
    if (err == 0)
        (void)set_interface4(fd, index);
    return err;
}

/* UDP only. */
static int set_inet(int fd, int family, enum gyre__sock_option option, int value)
{
    switch (option) {
    case GYRE_SOCK_V6_ONLY:
        return set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, value);
    case GYRE_SOCK_TTL:
        return set_both(fd, family, IPV6_UNICAST_HOPS, IP_TTL, value);
    case GYRE_SOCK_TRAFFIC_CLASS:
        return set_both(fd, family, IPV6_TCLASS, IP_TOS, value);
    case GYRE_SOCK_MULTICAST_TTL:
        return set_both(fd, family, IPV6_MULTICAST_HOPS, IP_MULTICAST_TTL, value);
    case GYRE_SOCK_MULTICAST_LOOP:
        return set_both(fd, family, IPV6_MULTICAST_LOOP, IP_MULTICAST_LOOP, value);
    case GYRE_SOCK_MULTICAST_INTERFACE:
        return set_interface(fd, family, value);
    case GYRE_SOCK_PKTINFO:
        return family == AF_INET6 ? set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, value)
                                  : set_int(fd, IPPROTO_IP, OPTION_PKTINFO, value);
    case GYRE_SOCK_ECN:
        return set_both(fd, family, IPV6_RECVTCLASS, IP_RECVTOS, value);
    case GYRE_SOCK_GRO:
        return set_int(fd, IPPROTO_UDP, OPTION_GRO, value);
    case GYRE_SOCK_GSO:
        return set_int(fd, IPPROTO_UDP, OPTION_GSO, 0);
    case GYRE_SOCK_RECV_BUF:
    case GYRE_SOCK_SEND_BUF:
    case GYRE_SOCK_SHARE_PORT:
    case GYRE_SOCK_REUSE_ADDRESS:
    case GYRE_SOCK_BROADCAST:
        break;
    }
    return -EINVAL;
}

int gyre__sock_dgram_set(struct gyre__backend *be, int fd, int family, enum gyre__sock_option option, int value)
{
    (void)be;
    switch (option) {
    case GYRE_SOCK_RECV_BUF:
        return set_int(fd, SOL_SOCKET, SO_RCVBUF, value);
    case GYRE_SOCK_SEND_BUF:
        return set_int(fd, SOL_SOCKET, SO_SNDBUF, value);
    case GYRE_SOCK_SHARE_PORT:
        return set_int(fd, SOL_SOCKET, SO_REUSEPORT, value);
    case GYRE_SOCK_REUSE_ADDRESS:
        return set_int(fd, SOL_SOCKET, SO_REUSEADDR, value);
    case GYRE_SOCK_BROADCAST:
        return set_int(fd, SOL_SOCKET, SO_BROADCAST, value);
    case GYRE_SOCK_V6_ONLY:
    case GYRE_SOCK_TTL:
    case GYRE_SOCK_TRAFFIC_CLASS:
    case GYRE_SOCK_MULTICAST_TTL:
    case GYRE_SOCK_MULTICAST_LOOP:
    case GYRE_SOCK_MULTICAST_INTERFACE:
    case GYRE_SOCK_PKTINFO:
    case GYRE_SOCK_ECN:
    case GYRE_SOCK_GRO:
    case GYRE_SOCK_GSO:
        return family == AF_UNIX ? -EOPNOTSUPP : set_inet(fd, family, option, value);
    }
    return -EINVAL;
}

/* ---- the rest ---- */

int gyre__sock_dgram_open(struct gyre__backend *be, int family)
{
    (void)be;
    return gyre__sock_new(family, SOCK_DGRAM, 0);
}

int gyre__sock_dgram_bind(struct gyre__backend *be, int fd, const struct gyre__addr *addr, uint32_t unix_mode)
{
    (void)be;
    if (addr->ss.ss_family == AF_UNIX && addr->len > offsetof(struct sockaddr_un, sun_path))
        return gyre__sock_bind_unix(fd, SOCK_DGRAM, addr, unix_mode);
    return bind(fd, (const struct sockaddr *)&addr->ss, addr->len) == 0 ? 0 : -errno;
}

int gyre__sock_dgram_connect(struct gyre__backend *be, int fd, const struct gyre__addr *addr)
{
    (void)be;
    return connect(fd, (const struct sockaddr *)&addr->ss, addr->len) == 0 ? 0 : -errno;
}

static int member6(int fd, const struct gyre__addr *group, uint32_t interface, bool join)
{
    struct ipv6_mreq mreq = {.ipv6mr_interface = interface};
    mreq.ipv6mr_multiaddr = ((const struct sockaddr_in6 *)&group->ss)->sin6_addr;
    int name = join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP;
    return setsockopt(fd, IPPROTO_IPV6, name, &mreq, sizeof mreq) == 0 ? 0 : -errno;
}

static int member4(int fd, const struct gyre__addr *group, uint32_t interface, bool join)
{
    struct ip_mreqn mreq = {.imr_ifindex = (int)interface};
    mreq.imr_multiaddr = ((const struct sockaddr_in *)&group->ss)->sin_addr;
    int name = join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP;
    return setsockopt(fd, IPPROTO_IP, name, &mreq, sizeof mreq) == 0 ? 0 : -errno;
}

int gyre__sock_dgram_member(struct gyre__backend *be, int fd, const struct gyre__addr *group, uint32_t interface,
                            bool join)
{
    (void)be;
    return group->ss.ss_family == AF_INET6 ? member6(fd, group, interface, join)
                                           : member4(fd, group, interface, join);
}

#ifdef SO_MEMINFO
int64_t gyre__sock_dgram_drops(struct gyre__backend *be, int fd)
{
    uint32_t info[16] = {0}; /* of which the ninth counts drops (linux/sock_diag.h) */
    socklen_t len = sizeof info;
    (void)be;
    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) == 0 ? (int64_t)info[8] : 0;
}
#else
int64_t gyre__sock_dgram_drops(struct gyre__backend *be, int fd)
{
    (void)be;
    (void)fd;
    return 0;
}
#endif
