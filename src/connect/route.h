/* SPDX-License-Identifier: MIT
 * Where an outgoing connection goes to, and where it leaves from. */
#ifndef GYRE_CONNECT_ROUTE_H
#define GYRE_CONNECT_ROUTE_H

#include "seam/backend.h"

#include <gyre/conn.h>
#include <netinet/in.h>

enum { GYRE_DEVICE_SIZE = 16 }; /* of a network device's name, the kernel's limit */

/* Where to, and from where. */
struct gyre__route {
    struct gyre__addr to;
    struct gyre__addr from; /* if `bound` */
    in_port_t port_last;   /* of a range that begins with the port of `from`; 0: no range */
    bool bound;
    char device[GYRE_DEVICE_SIZE]; /* to leave by; empty: any */
};

/* Returns 0, GYRE_EADDRESS, GYRE_EPATHLEN, GYRE_EOPTION or -ENODEV. */
int gyre__route_find(struct gyre__route *out, const char *address, const struct gyre_conn_options *options);

#endif
