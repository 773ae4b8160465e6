/* SPDX-License-Identifier: MIT
 * Options that a socket gets before it is bound or connected, and those that an accepted socket does not inherit. */
#ifndef GYRE_SOCKET_PREPARE_H
#define GYRE_SOCKET_PREPARE_H

#include "seam/backend.h"

#include <gyre/conn.h>

/* Whether those of `o` that are about sockets are in range. Returns 0 or GYRE_EOPTION. */
int gyre__options_check(const struct gyre_conn_options *o);

/* Whether the times are in range. Returns 0 or GYRE_EOPTION. */
int gyre__keepalive_check(const struct gyre_keepalive *k);
int gyre__keepalive_apply(struct gyre__backend *be, int fd, const struct gyre_keepalive *k);

/* Set them, and TCP_NODELAY unless `nagle`, on a socket that is to connect or to listen. Those of TCP and IP are passed
 * over if it is not `inet`. Returns 0 or what the system refused with. */
int gyre__options_apply(struct gyre__backend *be, int fd, const struct gyre_conn_options *o, bool inet);

/* What an accepted socket does not inherit from the one that listens: with unix sockets the sizes of its buffers. */
void gyre__options_apply_accepted(struct gyre__backend *be, int fd, const struct gyre_conn_options *o, bool inet);

/* Show the socket to the program. Returns 0 or what that refused it with. */
int gyre__options_ask(const struct gyre_conn_options *o, int fd, enum gyre_socket_purpose purpose);

#endif
