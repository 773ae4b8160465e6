/* SPDX-License-Identifier: MIT
 * An engine from the inside: its loops, their threads, its listeners and its pool. */
#ifndef GYRE_ENGINE_ENGINE_H
#define GYRE_ENGINE_ENGINE_H

#include "base/thread.h"
#include "loop/loop.h"
#include "work/pool.h"

#include <gyre/engine.h>

enum engine_state { ENGINE_NEW = 0, ENGINE_RUNNING, ENGINE_OVER };

struct gyre_engine {
    uint32_t magic;
    uint32_t loop_count;
    struct gyre_loop **loops;
    pthread_t *threads;
    pthread_mutex_t gate; /* held while threads are being started, or a listener added or steered; guards `pool` */
    struct gyre_listener *listeners;
    uint32_t listeners_made;
    uint32_t conns_max; /* 0: none */
    const struct gyre_engine_handlers *handlers;
    const struct gyre_mem *mem;
    void *user;
    _Atomic(uint32_t) turn; /* where the next connect begins looking for the least loaded loop */
    _Atomic(int) state;
    _Atomic(int) err; /* the first of a loop */
    char name[GYRE_THREAD_NAME_SIZE];
    uint32_t *cpus; /* NULL: as `pin` says */
    uint32_t cpu_count;
    bool pin;
    bool simulated; /* its loops are one thread's */
    struct gyre__affinity affinity; /* of the thread in run, before it was pinned */
    bool pool_over;                 /* being destroyed: no pool any more */
    struct gyre_pool *pool;         /* NULL: not needed so far */
    struct gyre_pool_options pool_options;
};

#endif
