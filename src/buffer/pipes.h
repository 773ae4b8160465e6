/* SPDX-License-Identifier: MIT
 * The pipes of a loop. */
#ifndef GYRE_BUFFER_PIPES_H
#define GYRE_BUFFER_PIPES_H

#include "bufpool.h"
#include "seam/backend.h"

/* Have one pipe free, if the limits allow. */
void gyre__pipes_open(struct gyre__bufpool *pool, struct gyre__backend *be);

/* Close a pipe that was taken. */
void gyre__pipes_close(struct gyre__bufpool *pool, struct gyre__backend *be, uint16_t pipe);

/* No connection is left: close the free ones. */
void gyre__pipes_fini(struct gyre__bufpool *pool, struct gyre__backend *be);

#endif
