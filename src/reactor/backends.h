/* SPDX-License-Identifier: MIT
 * Which backends exist here, and choosing one. */
#ifndef GYRE_REACTOR_BACKENDS_H
#define GYRE_REACTOR_BACKENDS_H

#include "seam/backend.h"

/* Opens the backend called `name`, or with NULL or "auto" the best that works here: the order is compiled in, and
 * GYRE_BACKEND in the environment overrides auto. A config with `sim` set opens the simulator. Fills `report` (all but
 * features) whether it succeeds or not. Returns 0, GYRE_EBACKEND, GYRE_ENOBACKEND or what create() said. */
int gyre__backend_open(struct gyre__backend **out, const char *name, const struct gyre__backend_config *cfg,
                       struct gyre_backend_report *report);

/* Whether `name` and the environment leave the choice to gyre__backend_open(). */
bool gyre__backend_is_auto(const char *name);

/* The table called `name` if it was compiled in, else NULL. */
const struct gyre__backend_ops *gyre__backend_find(const char *name);

#endif
