/* SPDX-License-Identifier: MIT
 * Making outgoing connections, for the files that do. */
#ifndef GYRE_CONNECT_CONNECT_H
#define GYRE_CONNECT_CONNECT_H

#include "stream/conn.h"
#include "socket/prepare.h"

#include <errno.h>

/* Whether new connections may begin on `l`, here and now. Returns 0, -EINVAL, GYRE_EFORK, GYRE_ETHREAD or
 * GYRE_ESHUTDOWN. */
static inline int gyre__loop_may_connect(const struct gyre_loop *l)
{
    if (l == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(l))
        return GYRE_EFORK;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    return l->phase == GYRE_PHASE_SERVING ? 0 : GYRE_ESHUTDOWN;
}

enum { GYRE_DEVICE_SIZE = 16 }; /* of a network device's name, the kernel's limit */

/* Where to, and from where. */
struct gyre__route {
    struct gyre_addr to;
    struct gyre_addr from; /* if `bound` */
    in_port_t port_last;   /* of a range that begins with the port of `from`; 0: no range */
    bool bound;
    char device[GYRE_DEVICE_SIZE]; /* to leave by; empty: any */
};

/* Returns 0, GYRE_EADDRESS, GYRE_EPATHLEN, GYRE_EOPTION or -ENODEV. */
int gyre__route_find(struct gyre__route *out, const char *address, const struct gyre_conn_options *options);

/* Begin to connect. Takes `profile` on success. With GYRE_CONN_RESERVED the place is given back on failure.
 * Thread: the loop's. */
int gyre__connect_with(struct gyre_conn **out, struct gyre_loop *l, const struct gyre__route *route,
                       struct gyre__profile *profile, unsigned how);

void gyre__reconnector_on_timer(struct gyre__timer *t);

#endif
