/* SPDX-License-Identifier: MIT
 * A unix socket's file with a mode of its own; see bind_mode.c. */
#ifndef GYRE_SOCKET_BIND_MODE_H
#define GYRE_SOCKET_BIND_MODE_H

#include "seam/backend.h"

/* Bind to a unix path; the file has just this mode from the first. Returns 0 or -errno. */
int gyre__sock_bind_with_mode(int fd, const struct gyre__addr *addr, uint32_t mode);

#endif
