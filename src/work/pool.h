/* SPDX-License-Identifier: MIT
 * What the engine needs of the pool for work that blocks. */
#ifndef GYRE_WORK_POOL_H
#define GYRE_WORK_POOL_H

#include <gyre/work.h>

enum { GYRE_POOL_THREADS_MAX = 256, GYRE_POOL_QUEUE_MAX = 1 << 20 };

/* gyre_pool_create() with options of this library's size. */
int gyre__pool_make(struct gyre_pool **out, const struct gyre_pool_options *options);

#endif
