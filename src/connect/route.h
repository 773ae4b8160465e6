/* SPDX-License-Identifier: MIT
 * Where an outgoing connection goes to, and where it leaves from. */
#ifndef GYRE_CONNECT_ROUTE_H
#define GYRE_CONNECT_ROUTE_H

#include "stream/conn.h"

#include <gyre/conn.h>
#include <netinet/in.h>

enum { GYRE_DEVICE_SIZE = 16 }; /* of a network device's name, the kernel's limit */

enum gyre__route_kind {
    GYRE_ROUTE_ONE = 0, /* `to` */
    GYRE_ROUTE_NAME,    /* the addresses of the name in `text` */
    GYRE_ROUTE_LIST,    /* the addresses in `text` */
};

/* Where to, and from where. */
struct gyre__route {
    enum gyre__route_kind kind;
    int family;       /* of a name or a list: the only one that will do; AF_UNSPEC: both */
    const char *text; /* the address as the user gave it, borrowed; of a name or a list */
    struct gyre__addr to;
    struct gyre__addr from; /* if `bound` */
    in_port_t port_last;   /* of a range that begins with the port of `from`; 0: no range */
    bool bound;
    char device[GYRE_DEVICE_SIZE]; /* to leave by; empty: any */
};

enum { GYRE_ROUTE_LIST_MAX = 64 };

/* The route to one of the addresses of a name or a list. */
void gyre__route_set(struct gyre__route *route, const struct gyre__addr *to);

/* Returns 0, GYRE_EADDRESS, GYRE_EPATHLEN, GYRE_EOPTION or -ENODEV. */
int gyre__route_find(struct gyre__route *out, const char *address, const struct gyre_conn_options *options);

/* A socket with the options of the profile, bound as the route says. Returns it, or an error. */
int gyre__connect_socket(struct gyre_loop *l, const struct gyre__profile *profile, const struct gyre__route *route);

/* Whether a socket that has connected to `to` is connected to itself: the kernel may choose as its own the very port
 * that it connects to. */
bool gyre__connect_is_self(const struct gyre_loop *l, int fd, const struct gyre__addr *to);

#endif
