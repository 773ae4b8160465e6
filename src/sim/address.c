/* SPDX-License-Identifier: MIT
 * Addresses of the simulated network: choosing ports, conflicts, who serves an address. */
#include "world.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

enum { PORT_FIRST = 32768, PORT_LAST = 60999 };

struct sim_inet gyre__sim_inet_of(const struct gyre__addr *addr)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t zero[16];
    struct sim_inet out = {.port = 0};
    if (addr->ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;
        memcpy(out.host, &in6->sin6_addr, sizeof out.host);
        out.port = in6->sin6_port;
        out.v4 = memcmp(out.host, mapped, sizeof mapped) == 0;
        out.any = memcmp(out.host, zero, sizeof zero) == 0;
        return out;
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)&addr->ss;
    memcpy(out.host, mapped, sizeof mapped);
    memcpy(out.host + sizeof mapped, &in->sin_addr, 4);
    out.port = in->sin_port;
    out.v4 = true;
    out.any = in->sin_addr.s_addr == 0;
    return out;
}

void gyre__sim_set_port(struct gyre__addr *addr, in_port_t port)
{
    if (addr->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&addr->ss)->sin6_port = port;
    else
        ((struct sockaddr_in *)&addr->ss)->sin_port = port;
}

/* Connecting to every address means to this host. */
void gyre__sim_any_to_loopback(struct gyre__addr *addr)
{
    if (!gyre__sim_inet_of(addr).any)
        return;
    if (addr->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&addr->ss)->sin6_addr = in6addr_loopback;
    else
        ((struct sockaddr_in *)&addr->ss)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

/* As an IPv6 socket sees an IPv4 address. */
void gyre__sim_map_to_v6(struct gyre__addr *addr)
{
    struct sim_inet inet = gyre__sim_inet_of(addr);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = inet.port};
    memcpy(&in6.sin6_addr, inet.host, sizeof inet.host);
    *addr = (struct gyre__addr){.len = sizeof in6};
    memcpy(&addr->ss, &in6, sizeof in6);
}

void gyre__sim_see_as(struct gyre__addr *addr, int family)
{
    if (family == AF_INET6 && addr->ss.ss_family == AF_INET)
        gyre__sim_map_to_v6(addr);
    if (family != AF_INET || addr->ss.ss_family != AF_INET6)
        return;
    struct sim_inet inet = gyre__sim_inet_of(addr);
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = inet.port};
    memcpy(&in4.sin_addr, inet.host + 12, 4);
    *addr = (struct gyre__addr){.len = sizeof in4};
    memcpy(&addr->ss, &in4, sizeof in4);
}

struct gyre__addr gyre__sim_source(const struct sim_sock *s, const struct gyre__addr *to)
{
    if (s->family == AF_UNIX || !gyre__sim_inet_of(&s->local).any)
        return s->local;
    struct gyre__addr from = *to;
    gyre__sim_set_port(&from, gyre__sim_inet_of(&s->local).port);
    return from;
}

static size_t unix_name_len(const struct gyre__addr *addr)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    size_t len = addr->len - offsetof(struct sockaddr_un, sun_path);
    return un->sun_path[0] == '\0' ? len : strnlen(un->sun_path, len);
}

static bool same_unix_name(const struct gyre__addr *a, const struct gyre__addr *b)
{
    const struct sockaddr_un *un_a = (const struct sockaddr_un *)&a->ss;
    const struct sockaddr_un *un_b = (const struct sockaddr_un *)&b->ss;
    size_t len = unix_name_len(a);
    return len == unix_name_len(b) && memcmp(un_a->sun_path, un_b->sun_path, len) == 0;
}

void gyre__sim_unix_unnamed(struct gyre__addr *out)
{
    *out = (struct gyre__addr){.len = offsetof(struct sockaddr_un, sun_path)};
    out->ss.ss_family = AF_UNIX;
}

/* Whether the address is whole and of the socket's family. Returns 0 or -errno. */
int gyre__sim_check_addr(const struct sim_sock *s, const struct sockaddr *addr, socklen_t len)
{
    size_t least = s->family == AF_INET    ? sizeof(struct sockaddr_in)
                   : s->family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                           : offsetof(struct sockaddr_un, sun_path) + 1;
    if (len < least || len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    if (s->family == AF_UNIX && len > sizeof(struct sockaddr_un))
        return -EINVAL;
    return addr->sa_family == s->family ? 0 : -EAFNOSUPPORT;
}

static bool conflicts(const struct sim_sock *l, const struct sim_sock *s, const struct gyre__addr *addr, bool v6_only)
{
    if ((l->family == AF_UNIX) != (addr->ss.ss_family == AF_UNIX))
        return false;
    if (l->family == AF_UNIX)
        return same_unix_name(&l->local, addr);
    struct sim_inet a = gyre__sim_inet_of(&l->local);
    struct sim_inet b = gyre__sim_inet_of(addr);
    if (a.port != b.port || (l->share && s->share))
        return false;
    if (!a.any && !b.any)
        return memcmp(a.host, b.host, sizeof a.host) == 0;
    if (a.v4 == b.v4)
        return true;
    /* One of each family: they meet if the IPv6 one is for all addresses of both. */
    return a.v4 ? b.any && !v6_only : a.any && !l->v6_only;
}

bool gyre__sim_in_use(const struct sim_sock *s, const struct gyre__addr *addr, bool v6_only)
{
    for (const struct sim_sock *d = s->dgram ? s->sim->socks : NULL; d != NULL; d = d->next)
        if (d->dgram && d->bound && d != s && conflicts(d, s, addr, v6_only))
            return true;
    if (s->dgram)
        return false;
    for (const struct sim_sock *l = s->sim->listeners; l != NULL; l = l->listener_next)
        if (conflicts(l, s, addr, v6_only))
            return true;
    return false;
}

in_port_t gyre__sim_next_port(struct gyre_sim *sim)
{
    uint16_t port = sim->port_next;
    sim->port_next = port == PORT_LAST ? PORT_FIRST : (uint16_t)(port + 1);
    return htons(port);
}

/* A port that nobody listens on, at the host of `addr`. */
int gyre__sim_choose_port(struct sim_sock *s, struct gyre__addr *addr, bool v6_only)
{
    bool share = s->share;
    s->share = false;
    for (int i = PORT_FIRST; i <= PORT_LAST; i++) {
        gyre__sim_set_port(addr, gyre__sim_next_port(s->sim));
        if (!gyre__sim_in_use(s, addr, v6_only)) {
            s->share = share;
            return 0;
        }
    }
    s->share = share;
    return -EADDRINUSE;
}

int gyre__sim_choose(struct sim_sock *s, struct gyre__addr *addr)
{
    int err = gyre__sim_check_addr(s, (const struct sockaddr *)&addr->ss, addr->len);
    if (err != 0)
        return err;
    if (s->family != AF_UNIX && gyre__sim_inet_of(addr).port == 0)
        return gyre__sim_choose_port(s, addr, s->v6_only);
    return gyre__sim_in_use(s, addr, s->v6_only) ? -EADDRINUSE : 0;
}

bool gyre__sim_same_address(const struct gyre__addr *a, const struct gyre__addr *b)
{
    if ((a->ss.ss_family == AF_UNIX) != (b->ss.ss_family == AF_UNIX))
        return false;
    if (a->ss.ss_family == AF_UNIX)
        return same_unix_name(a, b);
    struct sim_inet x = gyre__sim_inet_of(a), y = gyre__sim_inet_of(b);
    return x.port == y.port && memcmp(x.host, y.host, sizeof x.host) == 0;
}

/* 0: does not serve that address; 1: as one of many; 2: as its own. */
int gyre__sim_serves(const struct sim_sock *l, const struct gyre__addr *addr)
{
    if ((l->family == AF_UNIX) != (addr->ss.ss_family == AF_UNIX))
        return 0;
    if (l->family == AF_UNIX)
        return same_unix_name(&l->local, addr) ? 2 : 0;
    struct sim_inet a = gyre__sim_inet_of(&l->local);
    struct sim_inet b = gyre__sim_inet_of(addr);
    if (a.port != b.port)
        return 0;
    if (memcmp(a.host, b.host, sizeof a.host) == 0)
        return 2;
    return a.any && (a.v4 == b.v4 || (b.v4 && !l->v6_only)) ? 1 : 0;
}
