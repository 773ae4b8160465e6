/* SPDX-License-Identifier: MIT
 * The file of a unix socket: who made it, and removing it. */
#ifndef GYRE_SOCKET_PATH_H
#define GYRE_SOCKET_PATH_H

#include "seam/backend.h"

#include <gyre/base.h>

/* Which file bind(2) made, so that only that one is ever removed. */
struct gyre__path {
    uint64_t device, inode;
    int folder; /* what a relative path starts from, so that chdir(2) does not matter; AT_FDCWD if absolute */
    bool ours;
};

/* A socket of `be` was bound to `addr`: note the file that bind made, if it made one. */
void gyre__path_remember(struct gyre__path *path, const struct gyre__backend *be, const struct gyre__addr *addr);

/* The file is somebody else's. */
void gyre__path_forget(struct gyre__path *path);

/* Remove the file if it is the one that was noted. Before the socket is closed: until then no other file has its
 * number. */
void gyre__path_remove(struct gyre__path *path, const struct gyre__addr *addr);

/* The same for a stream socket that others may have: after it was closed here, and only if nobody is bound to it. */
void gyre__path_remove_unused(struct gyre__path *path, const struct gyre__addr *addr);

#endif
