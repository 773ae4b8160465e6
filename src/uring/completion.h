/* SPDX-License-Identifier: MIT
 * Completions made into events; see completion.c. */
#ifndef GYRE_URING_COMPLETION_H
#define GYRE_URING_COMPLETION_H

#include "queue.h"

/* Take completions out of the ring until there are none or `out` has `cap` events. Returns how many it has. */
unsigned gyre__uring_drain(struct gyre__uring *u, struct gyre__event *out, unsigned cap);

#endif
