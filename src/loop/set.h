/* SPDX-License-Identifier: MIT
 * The loops that serve together: an engine's. */
#ifndef GYRE_LOOP_SET_H
#define GYRE_LOOP_SET_H

#include <gyre/base.h>

#include <pthread.h>
#include <stdatomic.h>

struct gyre_loop;
struct gyre_resolver;

struct gyre__set {
    struct gyre_loop **loops;
    uint32_t count;
    uint32_t conns_max;     /* of all together; 0: no limit */
    _Atomic(uint32_t) conns; /* connections and places reserved, if there is a limit */
    _Atomic(uint32_t) turn; /* where the next choice of a loop begins */
    /* Held while threads are being started, or a listener is added or steered: until a loop has its owner, none could
     * tell a call from a wrong thread. */
    pthread_mutex_t gate;
    struct gyre_resolver *resolver; /* of loops that were given none; NULL: not needed so far; guarded by the gate */
    void (*tick)(struct gyre_loop *l);    /* the set's regular task is due on `l` */
    void (*stop)(struct gyre__set *set);  /* end all loops. Thread: any; async-signal-safe */
};

/* Another number each time, going up. Thread: any. */
static inline uint32_t gyre__set_turn(struct gyre__set *set)
{
    return atomic_fetch_add_explicit(&set->turn, 1, memory_order_relaxed);
}

/* How many more connections the set takes; UINT32_MAX if it has no limit. Thread: any. */
static inline uint32_t gyre__set_room(const struct gyre__set *set)
{
    if (set->conns_max == 0)
        return UINT32_MAX;
    uint32_t conns = atomic_load_explicit(&set->conns, memory_order_relaxed);
    return conns < set->conns_max ? set->conns_max - conns : 0;
}

#endif
