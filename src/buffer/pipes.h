/* SPDX-License-Identifier: MIT
 * The pipes of a loop. (A cut to come takes the loop away from here.) */
#ifndef GYRE_BUFFER_PIPES_H
#define GYRE_BUFFER_PIPES_H

#include "loop/loop.h"

/* Have one pipe free, if the limits allow. */
void gyre__pipes_open(struct gyre_loop *l);
void gyre__pipes_close(struct gyre_loop *l, uint16_t pipe);

/* No connection is left: close the pipes. */
void gyre__pipes_fini(struct gyre_loop *l);

#endif
