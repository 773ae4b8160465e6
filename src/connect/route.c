/* SPDX-License-Identifier: MIT
 * Where an outgoing connection goes to and leaves from: source address, range of ports, device; and a socket for it. */
#include "route.h"
#include "base/refuse.h"
#include "socket/addr.h"
#include "socket/prepare.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static in_port_t *port_in(struct gyre__addr *addr)
{
    return addr->ss.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&addr->ss)->sin6_port
                                          : &((struct sockaddr_in *)&addr->ss)->sin_port;
}

/* The address that the options say, of the family of `to`. Of a name or a list it decides the family. */
static int parse_source(struct gyre__route *route, struct gyre__address *source, const char *text)
{
    int err = gyre__addr_parse(source, text);
    int family = route->kind == GYRE_ROUTE_ONE ? route->to.ss.ss_family : route->family;
    if (err != 0)
        return err;
    route->family = source->addr.ss.ss_family;
    if (route->family != AF_INET && route->family != AF_INET6)
        return GYRE_EADDRESS;
    return family == AF_UNSPEC || family == route->family ? 0 : GYRE_EADDRESS;
}

/* The address to connect from, if the options say one. */
static int find_source(struct gyre__route *route, const struct gyre_conn_options *o)
{
    struct gyre__address source = {.addr = {.len = route->to.len}};
    route->bound = o->source_address != NULL || o->source_port_first != 0;
    if (o->source_port_first > o->source_port_last || (o->source_port_first == 0 && o->source_port_last != 0))
        return gyre__refuse("source_port_first is %u, source_port_last is %u; both are 0, or neither is and the first "
                            "is at most the last",
                            o->source_port_first, o->source_port_last);
    if (!route->bound)
        return 0;
    if (gyre__addr_is_unix(&route->to))
        return gyre__refuse("source_address and source_port_first are for TCP; the address is a unix socket");
    source.addr.ss.ss_family = route->to.ss.ss_family; /* every address of that family */
    int err = o->source_address != NULL ? parse_source(route, &source, o->source_address) : 0;
    if (err != 0)
        return err;
    if (o->source_port_first != 0 && *port_in(&source.addr) != 0)
        return gyre__refuse("source_port_first is %u; with it, the port of source_address must be 0",
                            o->source_port_first);
    if (o->source_port_first != 0)
        *port_in(&source.addr) = htons(o->source_port_first);
    route->from = source.addr;
    route->port_last = o->source_port_last;
    return 0;
}

/* The device to leave by, if the options say one. A name that is none's is not left to the kernel, which may cut it. */
static int find_device(struct gyre__route *route, const char *device)
{
    if (device == NULL)
        return 0;
    if (gyre__addr_is_unix(&route->to))
        return gyre__refuse("device is %.32s; it is for TCP, and the address is a unix socket", device);
    size_t len = strnlen(device, GYRE_DEVICE_SIZE);
    if (len == 0 || len == GYRE_DEVICE_SIZE)
        return -ENODEV;
    memcpy(route->device, device, len + 1);
    return 0;
}

/* A number, a name, or several numbers. */
static int parse(struct gyre__route *out, const char *address)
{
    struct gyre__address parsed;
    struct gyre__host host;
    int err = gyre__addr_parse(&parsed, address);
    *out = (struct gyre__route){.kind = GYRE_ROUTE_ONE, .text = address, .to = parsed.addr};
    if (err != GYRE_EADDRESS)
        return err;
    out->to = (struct gyre__addr){.len = 0};
    out->kind = GYRE_ROUTE_NAME;
    if (gyre__addr_parse_host(&host, address) == 0) {
        out->family = host.family;
        return 0;
    }
    uint32_t count = gyre__addr_list_count(address);
    out->kind = GYRE_ROUTE_LIST;
    if (count < 2 || count > GYRE_ROUTE_LIST_MAX)
        return GYRE_EADDRESS;
    for (uint32_t i = 0; i < count; i++)
        if (gyre__addr_list_item(&parsed, address, i) != 0)
            return GYRE_EADDRESS;
    return 0;
}

void gyre__route_set(struct gyre__route *route, const struct gyre__addr *to)
{
    route->to = *to;
    if (!route->bound || route->from.ss.ss_family == to->ss.ss_family)
        return;
    in_port_t first = ((const struct sockaddr_in *)&route->from.ss)->sin_port; /* it has a port and no address yet */
    route->from = (struct gyre__addr){.len = to->len};
    route->from.ss.ss_family = to->ss.ss_family;
    *port_in(&route->from) = first;
}

int gyre__route_find(struct gyre__route *out, const char *address, const struct gyre_conn_options *options)
{
    int err = parse(out, address);
    if (err != 0)
        return err;
    err = find_device(out, options->device);
    return err != 0 ? err : find_source(out, options);
}

int gyre__connect_socket(struct gyre_loop *l, const struct gyre__profile *profile, const struct gyre__route *route)
{
    const struct gyre__sock_ops *sock = l->be->ops->sock;
    bool inet = !gyre__addr_is_unix(&route->to);
    int fd = sock->open(l->be, route->to.ss.ss_family);
    if (fd < 0)
        return fd;
    int err = gyre__options_apply(l->be, fd, &profile->options, inet);
    if (err == 0 && route->device[0] != '\0')
        err = sock->device(l->be, fd, route->device);
    if (err == 0)
        err = gyre__options_ask(&profile->options, fd, GYRE_SOCKET_CONNECT);
    if (err == 0 && route->bound)
        err = sock->bind(l->be, fd, &route->from, route->port_last);
    if (err == 0)
        return fd;
    sock->close(l->be, fd);
    return err;
}

bool gyre__connect_is_self(const struct gyre_loop *l, int fd, const struct gyre__addr *to)
{
    const struct gyre__sock_ops *sock = l->be->ops->sock;
    struct gyre__addr local, peer;
    if (gyre__addr_is_unix(to) || sock->name(l->be, fd, false, &local) != 0)
        return false;
    if (gyre__addr_port(&local) != gyre__addr_port(to) || sock->name(l->be, fd, true, &peer) != 0)
        return false;
    return gyre__addr_same_host(&local, &peer) && gyre__addr_port(&peer) == gyre__addr_port(&local);
}
