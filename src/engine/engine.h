/* SPDX-License-Identifier: MIT
 * An engine from the inside: its loops, their threads, its listeners and its pool. */
#ifndef GYRE_ENGINE_ENGINE_H
#define GYRE_ENGINE_ENGINE_H

#include "base/thread.h"
#include "loop/set.h"
#include "work/pool.h"

#include <gyre/engine.h>

enum engine_state { ENGINE_NEW = 0, ENGINE_RUNNING, ENGINE_OVER };

struct gyre_engine {
    uint32_t magic;
    struct gyre__set set; /* its loops */
    pthread_t *threads;
    struct gyre_listener *listeners;
    uint32_t listeners_made;
    const struct gyre_engine_handlers *handlers;
    const struct gyre_mem *mem;
    void *user;
    _Atomic(int) state;
    _Atomic(int) err; /* the first of a loop */
    char name[GYRE_THREAD_NAME_SIZE];
    uint32_t *cpus; /* NULL: as `pin` says */
    uint32_t cpu_count;
    bool pin;
    bool simulated; /* its loops are one thread's */
    struct gyre__affinity affinity; /* of the thread in run, before it was pinned */
    bool pool_over;                 /* being destroyed: no pool any more */
    struct gyre_pool *pool;         /* NULL: not needed so far; guarded by the gate */
    struct gyre_pool_options pool_options;
};

struct gyre__listen_request;

/* Listen on what `request` says, with all loops. Errors as gyre_engine_listen(). */
int gyre__engine_listen(struct gyre_listener **out, struct gyre_engine *engine, struct gyre__listen_request *request);

#endif
