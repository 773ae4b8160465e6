/* SPDX-License-Identifier: MIT
 * Connecting to a name or to a list of addresses. */
#ifndef GYRE_CONNECT_DIAL_H
#define GYRE_CONNECT_DIAL_H

#include "route.h"

/* gyre__connect_with() for a name or a list. */
int gyre__dial(struct gyre_conn **out, struct gyre_loop *l, const struct gyre__route *route,
               struct gyre__profile *profile, unsigned how);

#endif
