/* SPDX-License-Identifier: MIT
 * Making outgoing connections, for the files that do. */
#ifndef GYRE_CONNECT_CONNECT_H
#define GYRE_CONNECT_CONNECT_H

#include "race.h"
#include "route.h"
#include "stream/conn.h"

#include <errno.h>
#include <gyre/connect.h>

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
    return l->phase == GYRE_PHASE_ENDING ? GYRE_ESHUTDOWN : 0;
}

/* Begin to connect. Takes `profile` on success. With GYRE_CONN_RESERVED the place is given back on failure.
 * Thread: the loop's. */
int gyre__connect_with(struct gyre_conn **out, struct gyre_loop *l, const struct gyre__route *route,
                       struct gyre__profile *profile, unsigned how);

void gyre__reconnector_on_timer(struct gyre__loop_timer *t);

#endif
