/* SPDX-License-Identifier: MIT
 * Listening sockets from another process; see handover.c. */
#ifndef GYRE_LISTEN_HANDOVER_H
#define GYRE_LISTEN_HANDOVER_H

#include "socket/addr.h"

#include <gyre/base.h>

enum { GYRE_HANDOVER_NAME = 256 };

struct gyre__handed {
    int fd; /* -1: a listener has taken it */
    char name[GYRE_HANDOVER_NAME]; /* of LISTEN_FDNAMES; else empty */
};

struct gyre_handover {
    int from; /* where they came from, and the confirmation goes to; -1: nowhere */
    uint32_t count;
    struct gyre__handed *handed;
};

/* None so far, with room for `room`; NULL when out of memory. */
struct gyre_handover *gyre__handover_new(int from, uint32_t room);

/* Whether `fd` is a socket of the kernel's that listens for streams. Returns 0, GYRE_ESOCKTYPE or -errno. */
int gyre__handover_look(int fd);

/* The sockets with this name, and those that are bound to `address`. The descriptors are written to `fds`, which has
 * room for all. Return how many. */
int gyre__handover_named(int *fds, const struct gyre_handover *h, const char *name);
int gyre__handover_bound(int *fds, const struct gyre_handover *h, const struct gyre__address *address);

/* A listener has these now. */
void gyre__handover_taken(struct gyre_handover *h, const int *fds, uint32_t count);

#endif
