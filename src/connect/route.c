/* SPDX-License-Identifier: MIT
 * Where an outgoing connection leaves from: the source address, its range of ports, the device. */
#include "route.h"
#include "base/refuse.h"
#include "socket/addr.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static in_port_t *port_in(struct gyre__addr *addr)
{
    return addr->ss.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&addr->ss)->sin6_port
                                          : &((struct sockaddr_in *)&addr->ss)->sin_port;
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
    int err = o->source_address != NULL ? gyre__addr_parse(&source, o->source_address) : 0;
    if (err != 0)
        return err;
    if (source.addr.ss.ss_family != route->to.ss.ss_family)
        return GYRE_EADDRESS;
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

int gyre__route_find(struct gyre__route *out, const char *address, const struct gyre_conn_options *options)
{
    struct gyre__address parsed;
    int err = gyre__addr_parse(&parsed, address);
    if (err != 0)
        return err;
    *out = (struct gyre__route){.to = parsed.addr};
    err = find_device(out, options->device);
    return err != 0 ? err : find_source(out, options);
}
