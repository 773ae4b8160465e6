/* SPDX-License-Identifier: MIT
 * One task on every loop of an engine, and what the last of them does. */
#ifndef GYRE_ENGINE_EVERYWHERE_H
#define GYRE_ENGINE_EVERYWHERE_H

#include "stream/conn.h"

#include <gyre/engine.h>

struct gyre__everywhere;

/* One loop's part. */
struct gyre__part {
    struct gyre__task task;
    struct gyre__everywhere *all;
    uint64_t refs; /* broadcast: sends not over, and one while the loop is being walked */
};

/* What the last loop does at the end. */
typedef void gyre__finish_fn(struct gyre__everywhere *all);

struct gyre__everywhere {
    struct gyre_engine *engine;
    const struct gyre_mem *mem;
    gyre__finish_fn *finish;
    gyre_task_fn *task;
    gyre_each_fn *each;
    gyre_all_done_fn *done;
    void *user;
    _Atomic(uint32_t) left; /* loops that have not done their part */
    uint32_t count;

    /* Of a broadcast. */
    struct gyre_broadcast_options options;
    _Atomic(uint32_t) holders; /* loops on which the bytes are still being sent, and one until finish() */
    _Atomic(uint64_t) queued, skipped, aborted, failed;
    const uint8_t *data;
    uint32_t len;

    struct gyre__part parts[]; /* one a loop; a broadcast's bytes follow */
};

/* Room for one part on each loop, and `extra_bytes` behind them. NULL when out of memory. */
struct gyre__everywhere *gyre__everywhere_new(struct gyre_engine *engine, gyre_task_fn *run, gyre__finish_fn *finish,
                                        size_t extra_bytes);

/* Keep a place on every loop, then post all parts; all or nothing. After an error `all` is freed. */
int gyre__everywhere_post(struct gyre__everywhere *all);

/* One loop has done its part; the last one finishes. */
void gyre__everywhere_part_over(struct gyre__everywhere *all);

#endif
